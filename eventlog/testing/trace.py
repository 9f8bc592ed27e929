"""Traces: every change that a piece of work makes on a disk, recorded at the seam, to be replayed up to any of them."""

from __future__ import annotations

import contextlib
import inspect
import os
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from eventlog.testing.crashfs import CrashFs

if TYPE_CHECKING:
    from typing_extensions import Buffer

_PACKAGES: Final = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
_STORE: Final = tuple(os.path.join(_PACKAGES, name, "") for name in ("eventlog", "compactor"))
_TESTING: Final = os.path.join(_STORE[0], "testing", "")


class Line(NamedTuple):
    """A line of the store's code, by its file in the package, its number and its function."""

    file: str
    number: int
    function: str

    def __str__(self) -> str:
        """Return what an editor finds it by."""
        return f"{self.file}:{self.number} {self.function}"


class Change(NamedTuple):
    """One change on a disk, or a note.

    Attributes:
        name: of the operation of the seam; "fail_sync" for a sync that failed; "note".
        path: that it was about; of a rename and a link the old name.
        target: the new name of a rename or a link.
        handle: the number of the open file, in the order in which they were opened.
        value: what was written, the size to cut to, or what was noted.
        now_ns: the time.
        lines: that it was reached through, from the seam outwards.
    """

    name: str
    path: str = ""
    target: str = ""
    handle: int = 0
    value: Any = None
    now_ns: int = 0
    lines: tuple[Line, ...] = ()


class Recorder(CrashFs):
    """A simulated disk that records every change on it, and what was noted in between. Not thread-safe.

    Attributes:
        changes: so far.
    """

    def __init__(self, start: CrashFs, *, time_ns: Callable[[], int] = time.time_ns) -> None:
        """Begin with a copy of a disk on which the processes were killed."""
        super().__init__(start=start, time_ns=time_ns)
        self.changes: list[Change] = []
        self._numbers: dict[int, int] = {}

    def trace(self, start: CrashFs) -> Trace:
        """Return what was recorded since the disk was as `start`."""
        return Trace(start, tuple(self.changes))

    def note(self, value: Any) -> None:
        """Record what is known from here on: that a call returned, or what it promised."""
        self.changes.append(Change("note", value=value))

    def _record(self, name: str, path: str = "", target: str = "", fd: int = 0, value: Any = None) -> None:
        number = self._numbers.get(fd, 0)
        lines = () if name == "write" else _lines()
        self.changes.append(Change(name, path, target, number, value, self._time_ns(), lines))

    def _opening(self, name: str, path: str, fd: int) -> int:
        self._numbers[fd] = 1 + sum(change.name in ("create", "open") for change in self.changes)
        self._record(name, path, fd=fd)
        return fd

    def create(self, path: str) -> int:
        """As `CrashFs`."""
        return self._opening("create", path, super().create(path))

    def open(self, path: str) -> int:
        """As `CrashFs`."""
        return self._opening("open", path, super().open(path))

    def write(self, fd: int, data: Buffer, /) -> int:
        """As `CrashFs`."""
        taken = super().write(fd, data)
        self._record("write", self._handle(fd).path, fd=fd, value=bytes(memoryview(data).cast("B")[:taken]))
        return taken

    def truncate(self, fd: int, size: int, /) -> None:
        """As `CrashFs`."""
        super().truncate(fd, size)
        self._record("truncate", self._handle(fd).path, fd=fd, value=size)

    def sync(self, fd: int, /) -> None:
        """As `CrashFs`."""
        path = self._handle(fd).path
        try:
            super().sync(fd)
        except OSError as error:
            self._record("fail_sync", path, fd=fd, value=error.errno)
            raise
        self._record("sync", path, fd=fd)

    def sync_dir(self, path: str) -> None:
        """As `CrashFs`."""
        super().sync_dir(path)
        self._record("sync_dir", path)

    def rename(self, source: str, target: str) -> None:
        """As `CrashFs`."""
        super().rename(source, target)
        self._record("rename", source, target)

    def link(self, source: str, target: str) -> None:
        """As `CrashFs`."""
        super().link(source, target)
        self._record("link", source, target)

    def unlink(self, path: str) -> None:
        """As `CrashFs`."""
        super().unlink(path)
        self._record("unlink", path)

    def rmdir(self, path: str) -> None:
        """As `CrashFs`."""
        super().rmdir(path)
        self._record("rmdir", path)

    def mkdir(self, path: str) -> None:
        """As `CrashFs`."""
        super().mkdir(path)
        self._record("mkdir", path)


def _lines() -> tuple[Line, ...]:
    """Return the lines of the store that called, from the seam outwards."""
    found: list[Line] = []
    frame = inspect.currentframe()
    while frame is not None:
        code = frame.f_code
        if code.co_filename.startswith(_STORE) and not code.co_filename.startswith(_TESTING):
            found.append(Line(code.co_filename[len(_PACKAGES) + 1 :], frame.f_lineno, code.co_name))
        frame = frame.f_back
    return tuple(found)


class Trace(NamedTuple):
    """What a piece of work did.

    Attributes:
        start: the disk before; not to be changed.
        changes: in order.
    """

    start: CrashFs
    changes: tuple[Change, ...]

    def joined(self) -> Trace:
        """Return the trace with writes that follow one another in one file as one write."""
        changes: list[Change] = []
        for change in self.changes:
            last = changes[-1] if changes else None
            if last is not None and last.name == change.name == "write" and last.handle == change.handle:
                changes[-1] = change._replace(value=last.value + change.value)
            else:
                changes.append(change)
        return Trace(self.start, tuple(changes))


class Replay:
    """A disk on which the changes of a trace are made again, one by one.

    Attributes:
        fs: the disk.
        notes: what was noted so far.
    """

    def __init__(self, start: CrashFs) -> None:
        """Begin with a copy of the disk."""
        self._now_ns = 0
        self.fs = CrashFs(start=start, time_ns=lambda: self._now_ns)
        self.notes: list[Any] = []
        self._fds: dict[int, int] = {}

    def apply(self, change: Change) -> None:
        """Make one change.

        Raises:
            OSError: the file system refuses it, for one before it was left out.
        """
        self._now_ns = change.now_ns
        name, path = change.name, change.path
        if name == "note":
            self.notes.append(change.value)
        elif name in ("create", "open"):
            self._fds[change.handle] = self.fs.create(path) if name == "create" else self.fs.open(path)
        elif name == "write":
            self.fs.write(self._fds[change.handle], change.value)
        elif name == "truncate":
            self.fs.truncate(self._fds[change.handle], change.value)
        elif name == "sync":
            self.fs.sync(self._fds[change.handle])
        elif name == "fail_sync":
            self.fs.fail_next("sync", change.value)
            with contextlib.suppress(OSError):
                self.fs.sync(self._fds[change.handle])
        elif name in ("rename", "link"):
            getattr(self.fs, name)(path, change.target)
        else:
            getattr(self.fs, name)(path)


def replays(start: CrashFs, changes: Sequence[Change]) -> Iterator[tuple[int, Replay]]:
    """Yield (number of changes that were made, the disk) before the first change and after each.

    Raises:
        OSError: the file system refuses a change.
    """
    replay = Replay(start)
    yield 0, replay
    for number, change in enumerate(changes, 1):
        replay.apply(change)
        yield number, replay
