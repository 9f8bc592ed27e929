"""Damaged data files are rebuilt from segments, proven by rows and checksum, or kept and named."""

from __future__ import annotations

import os
import random

import pytest

import eventlog
from compactor.config import CompactorConfig
from compactor.fold import fold
from compactor.rebuild import rebuild
from compactor.work import take_turn
from eventlog import manifest as manifests
from eventlog.fs import LOCAL
from eventlog.store import open_store
from eventlog.verify import verify

CONFIG = CompactorConfig(fanout=4)
QUIET = eventlog.WriterConfig(sync_interval_s=None, segment_bytes=4096)


@pytest.fixture
def store(tmp_path) -> str:
    """Return a store of three folds, each of metrics, system, events and runs, and a tail."""
    root = str(tmp_path / "store")
    run = eventlog.init(project="p", name="a", dir=root, config={"lr": 0.1}, settings=QUIET)
    other = eventlog.init(project="p", name="b", dir=root, settings=QUIET)
    for turn in range(4):
        for step in range(turn * 100, turn * 100 + 100):
            run.log({"x": float(step), "note": f"n{step}"} if step % 7 == 0 else {"x": float(step)}, step=step)
            other.log({"y": -float(step)}, step=step)
        run.log_system({"cpu": float(turn)})
        if turn < 3:
            fold(LOCAL, root, "p", CONFIG)
    run.finish()
    other.finish()
    return root


def contents(root: str) -> list[object]:
    opened = open_store(root)
    tables = [opened.metrics("p"), opened.system("p"), opened.events("p"), opened.runs("p")]
    return [sorted(map(repr, table.to_pylist())) for table in tables]


def files_of(root: str, table: str) -> list[str]:
    newest, _ = manifests.load_newest(LOCAL, root, "p")
    return [os.path.join(root, "snapshots", "p", file.path) for file in newest.of_table(table)]


def flip(path: str) -> None:
    with open(path, "r+b") as file:
        at = random.Random(path).randrange(os.path.getsize(path))
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 0x10]))


@pytest.mark.parametrize("table", ["metrics", "system", "events", "runs"])
@pytest.mark.parametrize("how", ["flip", "cut", "remove"])
def test_a_damaged_file_is_rebuilt_with_every_row(store, table, how):
    before = contents(store)
    victim = files_of(store, table)[1]
    if how == "flip":
        flip(victim)
    elif how == "cut":
        os.truncate(victim, os.path.getsize(victim) // 2)
    else:
        os.unlink(victim)
    rebuilt = rebuild(LOCAL, store, "p", CONFIG)
    assert [os.path.basename(path) for path in rebuilt.files] == [os.path.basename(victim)]
    assert rebuilt.damaged == {}
    assert contents(store) == before
    report = verify(store)
    assert (report.findings, report.lost, report.doubled) == ([], 0, 0)
    assert manifests.load_newest(LOCAL, store, "p")[0].action == "rebuild"
    assert rebuild(LOCAL, store, "p", CONFIG) == ([], {})


def test_all_files_at_once_in_small_batches(store):
    before = contents(store)
    for table in ("metrics", "system", "events", "runs"):
        for path in files_of(store, table):
            flip(path)
    rebuilt = rebuild(LOCAL, store, "p", CompactorConfig(batch_bytes=4096))
    assert len(rebuilt.files) == 12
    assert contents(store) == before
    assert verify(store).findings == []


def test_a_turn_that_meets_damage_in_a_merge_mends_it(store):
    before = contents(store)
    victim = files_of(store, "metrics")[0]
    os.truncate(victim, os.path.getsize(victim) // 2)
    turn = take_turn(LOCAL, store, "p", CONFIG)
    assert len(turn.rebuilt) == 1
    assert turn.damaged == {}
    assert contents(store) == before
    assert take_turn(LOCAL, store, "p", CONFIG).merges
    assert contents(store) == before
    assert verify(store).findings == []


def test_what_segments_no_longer_hold_stays_and_is_named(store):
    fold(LOCAL, store, "p", CONFIG)
    victim = files_of(store, "metrics")[0]
    for writer in os.scandir(os.path.join(store, "segments", "p")):
        os.unlink(min(entry.path for entry in os.scandir(writer.path) if entry.name.endswith(".seg")))
    os.truncate(victim, os.path.getsize(victim) // 2)
    version = open_store(store).manifest("p").version
    turn = take_turn(LOCAL, store, "p", CONFIG)
    assert turn.rebuilt == []
    [reason] = turn.damaged.values()
    assert "cannot be rebuilt" in reason
    assert open_store(store).manifest("p").version == version
    assert os.path.exists(victim)
    staged = {os.path.basename(path) for path in files_of(store, "metrics")}
    present = {entry.name for entry in os.scandir(os.path.dirname(victim))}
    assert present == staged


def test_gaps_that_a_damaged_segment_left_stay_gaps(tmp_path):
    root = str(tmp_path / "store")
    with eventlog.init(project="p", name="a", dir=root, settings=QUIET) as run:
        for step in range(300):
            run.log({"x": float(step)}, step=step)
    directory = os.path.join(root, "segments", "p", run.writer_id)
    path = sorted(entry.path for entry in os.scandir(directory))[1]
    with open(path, "r+b") as file:
        file.seek(2000)
        good = file.read(8)  # more than the two bytes of a frame's header that may be anything
        file.seek(2000)
        file.write(bytes(byte ^ 1 for byte in good))
    fold(LOCAL, root, "p", CONFIG)
    before = contents(root)
    assert manifests.load_newest(LOCAL, root, "p")[0].gaps
    with open(path, "r+b") as file:
        file.seek(2000)
        file.write(good)
    flip(files_of(root, "metrics")[0])
    assert rebuild(LOCAL, root, "p", CONFIG).damaged == {}
    assert contents(root) == before
