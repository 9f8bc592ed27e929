"""A fold stopped at any step, whatever the crash: old or new snapshot, each record once, and a rerun converges."""

import contextlib
import errno
import gc
import itertools
from collections.abc import Iterator
from typing import NamedTuple

import pytest

from compactor.commit import totals
from compactor.config import CompactorConfig
from compactor.fold import fold
from compactor.work import merge_all
from eventlog import manifest as manifests
from eventlog import names
from eventlog.errors import DataError
from eventlog.manifest import Manifest
from eventlog.testing import CrashFs, FakeClock, Script, contents, play, scripts, sweep

ROOT, PROJECT = "/store", "p"
ONCE, OFTEN = CompactorConfig(), CompactorConfig(batch_bytes=4096, fanout=2)
TABLES = ("metrics", "system", "events")
NOW_NS = 1_800_000_000_000_000_000


class Done(NamedTuple):
    """What a store holds once everything is folded."""

    rows: list[contents.Row]
    totals: dict[str, tuple[int, int]]
    gaps: set[tuple[str, int, int]]
    quarantined: set[str]


def loop(count: int, *, closes: bool) -> Script:
    calls = [scripts.Log({"loss": i / 7, "acc": float(i)}, i) for i in range(count)]
    odd = (scripts.Log({"note": "x", "lr": 0.1}, count), scripts.System({"cpu": 0.5}))
    return Script("run-a", 0, (*calls, *odd, scripts.Sync()), closes=closes)


def damage(fs: CrashFs) -> None:
    """Flip a bit in a record of a sealed segment, as a bad disk does, and keep it so."""
    writer_id = play(loop(40, closes=True), fs, ROOT, PROJECT).writer_id
    directory = names.writer_dir(ROOT, PROJECT, writer_id)
    path = f"{directory}/{names.segment_name(1, sealed=True)}"
    data = bytearray(fs.read(path))
    data[len(data) // 2] ^= 0x10
    fs.unlink(path)
    fd = fs.create(path)
    fs.write(fd, data)
    fs.sync(fd)
    fs.sync_dir(directory)


def store() -> CrashFs:
    """A store with a snapshot, and after it an open, a sealed and a damaged segment; all of it durable."""
    fs, clock = CrashFs(), FakeClock(tick_ns=1000)
    play(loop(30, closes=True), fs, ROOT, PROJECT, time_ns=clock.time_ns)
    play(loop(10, closes=False), fs, ROOT, PROJECT, time_ns=clock.time_ns)
    run(fs)
    play(loop(90, closes=False), fs, ROOT, PROJECT, time_ns=clock.time_ns)
    damage(fs)
    return fs.after_crash("kept")


def run(fs: CrashFs, config: CompactorConfig = ONCE) -> Manifest:
    return fold(fs, ROOT, PROJECT, config, time_ns=lambda: NOW_NS).manifest


def work(fs: CrashFs, config: CompactorConfig = OFTEN) -> Manifest:
    """Fold in many commits, then merge the files."""
    run(fs, config)
    merge_all(fs, ROOT, PROJECT, config, time_ns=lambda: NOW_NS)
    return manifests.load_newest(fs, ROOT, PROJECT)[0]


def done(fs: CrashFs, manifest: Manifest) -> Done:
    return Done(
        contents.of_snapshot(fs, ROOT, manifest),
        {table: totals(manifest, table) for table in TABLES},
        {(gap.writer_id, gap.first_seq, gap.last_seq) for gap in manifest.gaps},
        {item.name for item in manifest.quarantined},
    )


def undisturbed(start: CrashFs) -> Done:
    fs = start.after_crash("kept")
    return done(fs, run(fs))


def check_seen(fs: CrashFs, expected: Done) -> None:
    """Assert that a reader sees every record once, and that what each manifest names is whole."""
    assert contents.of_store(fs, ROOT, PROJECT) == expected.rows
    for version in manifests.versions(fs, ROOT, PROJECT):
        manifest = manifests.load(fs, ROOT, PROJECT, version)
        rows = contents.of_snapshot(fs, ROOT, manifest)
        assert len(rows) == sum(totals(manifest, table)[0] for table in TABLES)


def crashes_at(stop: sweep.Stop) -> Iterator[sweep.Crash]:
    """Yield every kind of crash; between two writes of a file that no manifest names, one kind, each in turn."""
    found = sweep.crashes(stop.fs, seeds=(None, 1))
    if stop.at is not None and stop.at.name == "write":
        found = itertools.islice(found, stop.step % 9, None, 9)
    return found


def check_rerun(fs: CrashFs, expected: Done) -> None:
    """Assert that a rerun comes to the same end, durably, and that there is nothing left to do then."""
    manifest = run(fs)
    assert done(fs, manifest) == expected
    again = fold(fs, ROOT, PROJECT, ONCE, time_ns=lambda: NOW_NS)
    assert (again.commits, again.manifest) == (0, manifest)
    assert contents.of_store(fs.after_crash("lost"), ROOT, PROJECT) == expected.rows


@pytest.mark.invariant(9)
@pytest.mark.invariant(5)
def test_a_fold_killed_at_any_step_leaves_the_old_or_the_new_snapshot_and_a_rerun_converges():
    start = store()
    expected = undisturbed(start)
    assert len(expected.rows) > 150
    assert expected.gaps
    assert expected.quarantined
    parent = manifests.load_newest(start, ROOT, PROJECT)[0].version
    seen = set()
    for stop in sweep.stops(start, run):
        for crash in crashes_at(stop):
            check_seen(crash.fs, expected)
            version = manifests.load_newest(crash.fs, ROOT, PROJECT)[0].version
            assert version in ((parent, parent + 1) if stop.at else (parent + 1,))
            if stop.at is None or stop.at.name != "write":
                check_rerun(crash.fs, expected)
            seen.add((stop.at is None, version - parent))
    assert seen == {(False, 0), (False, 1), (True, 1)}


@pytest.mark.invariant(6)
@pytest.mark.invariant(8)
def test_folds_and_merges_killed_at_any_step_lose_and_double_nothing():
    start = store()
    expected = undisturbed(start)
    versions = set()
    for stop in sweep.stops(start, work, every=17):
        for crash in sweep.crashes(stop.fs, seeds=(stop.step,)):
            check_seen(crash.fs, expected)
            versions.add(manifests.load_newest(crash.fs, ROOT, PROJECT)[0].version)
        last = stop.fs.after_crash("kept")
        work(last)
        assert done(last, manifests.load_newest(last, ROOT, PROJECT)[0])[:3] == expected[:3]
    assert len(versions) > 4


@pytest.mark.invariant(9)
def test_a_kill_and_then_a_power_loss_lose_nothing_that_the_second_run_made_durable():
    start = store()
    expected = undisturbed(start)
    for stop in sweep.stops(start, run, every=6):
        after = stop.fs.after_crash("kept")
        run(after)
        for crash in sweep.crashes(after, seeds=(None, 1)):
            assert contents.of_store(crash.fs, ROOT, PROJECT) == expected.rows


@pytest.mark.invariant(9)
def test_the_first_fold_of_a_store_can_be_killed_at_any_step():
    start = CrashFs()
    play(loop(12, closes=True), start, ROOT, PROJECT, time_ns=FakeClock(tick_ns=1000).time_ns)
    expected = undisturbed(start)
    for stop in sweep.stops(start, run):
        for crash in crashes_at(stop):
            check_seen(crash.fs, expected)
            if stop.at is None or stop.at.name != "write":
                check_rerun(crash.fs, expected)


def steps_of(start: CrashFs) -> list[int]:
    """Return the steps of a fold, most of the writes inside of a file left out."""
    fs = start.after_crash("kept")
    run(fs)
    return [step for step, at in enumerate(fs.operations, 1) if at.name != "write" or step % 9 == 0]


@pytest.mark.invariant(5)
@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC])
def test_a_fold_in_which_any_one_step_fails_leaves_a_whole_store(code):
    start = store()
    expected = undisturbed(start)
    for step in steps_of(start):
        fs = start.after_crash("kept")
        fs.fail_at(step, code)
        with contextlib.suppress(OSError):
            run(fs)
        check_seen(fs, expected)
        check_rerun(fs, expected)


def test_a_fold_in_which_any_one_step_fails_leaves_no_descriptor_open():
    start = store()
    for step in steps_of(start):
        fs = start.after_crash("kept")
        fs.fail_at(step, errno.ENOSPC)
        with contextlib.suppress(OSError):
            run(fs)
        gc.collect()
        assert fs.open_paths == []


@pytest.mark.invariant(6)
def test_rows_that_a_writer_never_synced_stay_in_the_snapshot_that_took_them():
    fs = CrashFs()
    calls = tuple(scripts.Log({"x": float(i)}, i) for i in range(20))
    play(Script("run-a", None, calls, closes=False), fs, ROOT, PROJECT)
    manifest = run(fs)
    rows = contents.of_snapshot(fs, ROOT, manifest)
    assert len(rows) == 20
    for crash in sweep.crashes(fs, seeds=(None, 1, 2, 3)):
        assert contents.of_store(crash.fs, ROOT, PROJECT) == rows
        run(crash.fs)
        assert contents.of_store(crash.fs, ROOT, PROJECT) == rows


@pytest.mark.invariant(13)
def test_of_two_folds_that_interleave_one_learns_that_it_lost():
    start = store()
    expected = undisturbed(start)

    class Interrupted(CrashFs):
        """The other compactor commits just before our manifest is linked."""

        raced = False

        def link(self, source: str, target: str) -> None:
            if target.endswith(".json") and "manifests" in target and not self.raced:
                self.raced = True
                run(self)
            super().link(source, target)

    fs = Interrupted()
    fs._disk = start.after_crash("kept")._disk
    result = fold(fs, ROOT, PROJECT, ONCE, time_ns=lambda: NOW_NS)
    assert result.lost_races == 1
    assert done(fs, result.manifest) == expected
    check_seen(fs, expected)


@pytest.mark.parametrize("kind", ["file", "dir"])
def test_these_tests_notice_a_commit_that_does_not_sync(kind):
    start = store()
    expected = undisturbed(start)
    fs = start.after_crash("kept")
    fs.ignore_sync(kind)
    run(fs)

    def every_crash_keeps_the_commit() -> None:
        for crash in sweep.crashes(fs, seeds=(None, *range(8))):
            assert manifests.load_newest(crash.fs, ROOT, PROJECT)[0].version == 2
            check_seen(crash.fs, expected)

    with pytest.raises((AssertionError, DataError, FileNotFoundError)):
        every_crash_keeps_the_commit()
