"""The tail is read on from where it was, each record once, and a refused writer does not stop the others."""

from __future__ import annotations

import os
import struct
import zlib
from typing import Any

import pytest

import eventlog
from compactor.config import CompactorConfig
from compactor.fold import fold
from eventlog import manifest as manifests
from eventlog import names
from eventlog.config import WriterConfig
from eventlog.fs import LOCAL, LocalFs
from eventlog.live import LiveTail
from eventlog.store import open_store

PROJECT = "p"
QUIET = WriterConfig(sync_interval_s=None)


class CountingFs(LocalFs):
    """Counts the bytes that are read from segments."""

    def __init__(self) -> None:
        self.read_bytes = 0

    def read(self, path: str, offset: int = 0, size: int = -1) -> bytes:
        data = super().read(path, offset, size)
        self.read_bytes += len(data)
        return data


@pytest.fixture
def root(tmp_path: Any) -> str:
    return str(tmp_path / "store")


def start(root: str, name: str = "run") -> eventlog.Run:
    return eventlog.init(PROJECT, name, dir=root, settings=QUIET)


def live(root: str, fs: Any = LOCAL) -> LiveTail:
    return LiveTail(fs, root, manifests.load_newest(LOCAL, root, PROJECT)[0])


def xs(tail: LiveTail, **since: Any) -> list[float]:
    found: list[float] = tail.table("metrics", None, **since)["x"].to_pylist()
    return found


@pytest.mark.invariant(6)
def test_each_look_adds_what_is_new_and_nothing_twice(root: str):
    run = start(root)
    tail = live(root)
    for step in range(20):
        run.log({"x": float(step)})
        if step % 3 == 0:
            tail.refresh()
            tail.refresh()
            assert xs(tail) == [float(s) for s in range(step + 1)]
    run._writer.roll()
    run.log({"x": 20.0})
    tail.refresh()
    assert xs(tail) == [float(s) for s in range(21)]
    assert tail.marks[run.writer_id].seq == 22
    run.finish()


@pytest.mark.invariant(6)
def test_it_begins_after_the_watermarks_of_its_manifest(root: str):
    run = start(root)
    run.log({"x": 0.0})
    old = live(root)
    fold(LOCAL, root, PROJECT, CompactorConfig())
    run.log({"x": 1.0})
    new = live(root)
    for tail in (old, new):
        tail.refresh()
    assert xs(old) == [0.0, 1.0]
    assert xs(new) == [1.0]
    run.finish()


def test_a_look_reads_only_what_was_appended(root: str):
    run = start(root)
    for step in range(5000):
        run.log({"x": float(step)})
    fs = CountingFs()
    tail = live(root, fs)
    tail.refresh()
    first = fs.read_bytes
    run.log({"x": -1.0})
    tail.refresh()
    assert first > 100_000
    assert fs.read_bytes - first < 20_000
    run.finish()
    tail.refresh()
    done = fs.read_bytes
    tail.refresh()
    assert fs.read_bytes == done


def test_rows_of_some_runs_and_since_a_cursor(root: str):
    runs = [start(root, name) for name in ("a", "b")]
    for step in range(10):
        for number, run in enumerate(runs):
            run.log({"x": number * 100.0 + step, "text": f"{step}"})
            run.log_system({"cpu": 1.0})
    tail = live(root)
    tail.refresh()
    assert len(xs(tail)) == 20
    assert tail.table("metrics", [runs[1].id])["x"].to_pylist() == [100.0 + step for step in range(10)]
    assert tail.table("system", [runs[0].id]).num_rows == 10
    assert tail.table("events", [runs[0].id]).num_rows == 11
    assert tail.table("events", []).num_rows == 0
    cursor = {runs[0].writer_id: 1_000, runs[1].writer_id: 18}
    assert xs(tail, since=cursor) == [109.0]
    assert tail.table("events", None, cursor)["payload"].to_pylist() == ['"9"']
    assert tail.metric_names("metrics") == {"x"}
    assert tail.metric_names("system") == {"cpu"}
    assert {part.run_id for part in tail.parts()} == {run.id for run in runs}


@pytest.mark.invariant(10)
def test_a_writer_of_a_newer_format_is_refused_by_name_and_the_others_are_read(root: str):
    for name in ("old", "new"):
        with start(root, name) as run:
            run.log({"x": 1.0})
    path = os.path.join(names.writer_dir(root, PROJECT, run.writer_id), names.segment_name(1, sealed=True))
    header = bytearray(LOCAL.read(path, 0, 64))
    struct.pack_into("<H", header, 8, 9)
    struct.pack_into("<I", header, 60, zlib.crc32(bytes(header[:60])))
    with open(path, "r+b") as file:
        file.write(header)
    tail = live(root)
    tail.refresh()
    assert xs(tail) == [1.0]
    assert list(tail.refused) == [run.writer_id]
    assert "version 9 is not supported" in tail.refused[run.writer_id]


def test_a_missing_segment_is_a_gap_and_what_follows_is_read(root: str):
    run = start(root)
    for step in range(3):
        run.log({"x": float(step)})
        run._writer.roll()
    run.finish()
    directory = names.writer_dir(root, PROJECT, run.writer_id)
    os.unlink(os.path.join(directory, names.segment_name(2, sealed=True)))
    tail = live(root)
    tail.refresh()
    assert xs(tail) == [0.0, 2.0]
    assert [(gap.first_seq, gap.last_seq) for gap in tail.gaps] == [(3, 3)]


def test_a_torn_tail_is_read_when_it_is_whole(root: str):
    run = start(root)
    run.log({"x": 1.0})
    (path,) = [entry.name for entry in LOCAL.entries(names.writer_dir(root, PROJECT, run.writer_id))]
    path = os.path.join(names.writer_dir(root, PROJECT, run.writer_id), path)
    run.log({"x": 2.0})
    whole = LOCAL.read(path)
    tail = live(root)
    for cut in (len(whole) - 5, len(whole) - 30, len(whole)):
        with open(path, "r+b") as file:
            file.truncate(len(whole) - 46)
            file.seek(len(whole) - 46)
            file.write(whole[len(whole) - 46 : cut])
        tail.refresh()
        assert xs(tail) == ([1.0, 2.0] if cut == len(whole) else [1.0])
    run.finish()


def test_a_tail_that_grew_large_says_so(root: str):
    run = start(root)
    run.log({"x": 1.0})
    tail = live(root)
    tail.refresh()
    assert not tail.is_large
    tail._bytes += 1 << 30
    assert tail.is_large
    run.finish()


def test_a_config_reads_the_same_before_and_after_a_fold(tmp_path):
    config = {"big": 2**70, "nan": float("nan"), "n": {"deep": [2**64, -(2**63), True, None, "x"]}}
    with eventlog.init(project="p", name="a", dir=tmp_path, config=config):
        pass
    before = open_store(tmp_path).runs("p")["config"].to_pylist()
    fold(LOCAL, str(tmp_path), "p", CompactorConfig())
    assert open_store(tmp_path).runs("p")["config"].to_pylist() == before
