"""What the unit tests share: runs that end with their test, and stores read back by both readers."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest

import eventlog
from eventlog import config, errors, fs, names, schema, segment, session, tail
from eventlog import run as runs
from eventlog.columns import Batch
from eventlog.fs import LOCAL
from eventlog.manifest import Watermark

QUIET = config.WriterConfig(sync_interval_s=None)
_VARIABLES = ("RANK", "SLURM_PROCID", "OMPI_COMM_WORLD_RANK", "WORLD_SIZE", "SLURM_NTASKS", "OMPI_COMM_WORLD_SIZE")


class Call(NamedTuple):
    """One log or system record, with the names that its shape stands for."""

    writer_id: str
    seq: int
    run_id: str
    rank: int | None
    step: int | None
    numbers: dict[str, float]
    others: dict[str, Any]
    time_ns: int


class Back:
    """A store read back."""

    def __init__(self, root: Any, project: str = "p") -> None:
        """Take the store."""
        self.root = str(root)
        self.project = project

    def writers(self) -> list[str]:
        """Return the ids of the writers."""
        return tail.writers(LOCAL, self.root, self.project)

    def files(self) -> list[str]:
        """Return the paths of all segments."""
        found = []
        for writer_id in self.writers():
            directory = names.writer_dir(self.root, self.project, writer_id)
            found += [os.path.join(directory, name) for name in sorted(os.listdir(directory))]
        return found

    def items(self, path: str) -> list[segment.Item]:
        """Return the items of one segment, which must hold no damage."""
        data = LOCAL.read(path)
        header = segment.parse_header(data, path)
        found = []
        for item in segment.items(data, header):
            assert isinstance(item, segment.Item), item
            found.append(item)
        return found

    def records(self) -> list[tuple[str, int, schema.AnyRecord]]:
        """Return (writer_id, seq, record) of all that are not structural; seqs must be gap-free."""
        found: list[tuple[str, int, schema.AnyRecord]] = []
        for writer_id in self.writers():
            mine = []
            for path in self.files():
                if f"/{writer_id}/" in path:
                    mine += [
                        (writer_id, item.seq, item.record)
                        for item in self.items(path)
                        if not isinstance(item.record, schema.STRUCTURAL)
                    ]
            assert [seq for _, seq, _ in mine] == list(range(1, len(mine) + 1))
            found += mine
        self.check_fast_reader(len(found))
        return found

    def of_kind(self, kind: type[Any]) -> list[Any]:
        """Return the records of one kind."""
        return [record for _, _, record in self.records() if isinstance(record, kind)]

    def calls(self, kind: type[schema.Log | schema.System] = schema.Log) -> list[Call]:
        """Return the log records in the order of writer and seq."""
        found = []
        for path in self.files():
            shapes: dict[int, schema.Shape] = {}
            writer_id = os.path.basename(os.path.dirname(path))
            for item in self.items(path):
                record = item.record
                if isinstance(record, schema.Shape):
                    shapes[record.shape] = record
                elif isinstance(record, kind):
                    shape = shapes[record.shape]
                    numbers = struct.unpack(f"<{len(shape.names)}d", record.values)
                    step, others = getattr(record, "step", None), getattr(record, "others", None)
                    named = dict(zip(shape.names, numbers, strict=True))
                    found.append(
                        Call(writer_id, item.seq, shape.run_id, shape.rank, step, named, others or {}, record.time_ns)
                    )
        return found

    def only_call(self) -> Call:
        """Return the one log record."""
        (call,) = self.calls()
        return call

    def check_fast_reader(self, count: int) -> None:
        """Read everything as a fold does: the same number of records, no gap, no damage."""
        batch = Batch()
        for writer_id in self.writers():
            found = tail.WriterReader(LOCAL, self.root, self.project, writer_id, Watermark(), batch).read()
            assert (found.gaps, found.damages, found.watermark.duplicates) == ([], [], 0)
        assert batch.records == count


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    for variable in (*_VARIABLES, *(name for name in os.environ if name.startswith("EVENTLOG_"))):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture(autouse=True)
def _finish_runs() -> Iterator[None]:
    yield
    session._current.clear()
    for run in list(runs._open_runs):
        try:
            run.finish()
        except (OSError, errors.EventLogError):
            runs._open_runs.discard(run)


@pytest.fixture
def store(tmp_path: Any) -> str:
    """Return the path of a store that does not exist yet."""
    return str(tmp_path / "store")


@pytest.fixture
def back(store: str) -> Back:
    """Return the reader of that store's project `p`."""
    return Back(store)


@pytest.fixture
def start(store: str) -> Callable[..., eventlog.Run]:
    """Return a function that starts a run of project `p` without a background thread."""

    def begin(**options: Any) -> eventlog.Run:
        options.setdefault("settings", QUIET)
        return eventlog.init("p", dir=store, **options)

    return begin


@pytest.fixture
def script(store: str) -> Callable[..., str]:
    """Return a function that runs Python code in a process of its own, with the store's path as its argument."""

    def call(code: str, *arguments: str, **environ: str) -> str:
        command = [sys.executable, "-W", "error", "-c", code, store, *arguments]
        env = {**os.environ, **environ}
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
        return done.stdout

    return call


class FaultyFs(fs.LocalFs):
    """The real file system, which runs a function before or after some of its operations."""

    def __init__(self) -> None:
        """Start without faults."""
        self.before_write: Callable[[int, bytes], None] | None = None
        self.after_write: Callable[[int, int], None] | None = None
        self.calls: list[tuple[str, int | str]] = []

    def write(self, fd: int, data: Any, /) -> int:  # type: ignore[override]
        """Write between the two functions."""
        if self.before_write is not None:
            self.before_write(fd, bytes(data))
        count = os.write(fd, data)
        self.calls.append(("write", fd))
        if self.after_write is not None:
            self.after_write(fd, count)
        return count

    def sync(self, fd: int, /) -> None:  # type: ignore[override]
        """Note the call."""
        self.calls.append(("sync", fd))
        os.fdatasync(fd)

    def link(self, source: str, target: str) -> None:  # type: ignore[override]
        """Note the call."""
        self.calls.append(("link", target))
        os.link(source, target)

    def sync_dir(self, path: str) -> None:
        """Note the call."""
        self.calls.append(("sync_dir", path))
        super().sync_dir(path)

    def close(self, fd: int, /) -> None:  # type: ignore[override]
        """Note the call."""
        self.calls.append(("close", fd))
        os.close(fd)


@pytest.fixture
def faulty() -> FaultyFs:
    """Return a file system that can be told to fail."""
    return FaultyFs()


@pytest.fixture
def reading() -> type[Back]:
    """Return the reader, for tests with more than one store or project."""
    return Back
