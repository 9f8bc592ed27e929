"""A collection stopped at any step, whatever the crash: nothing goes that is not covered, and a rerun ends it."""

import errno
import os

import pytest

from compactor.collect import collect
from compactor.config import CompactorConfig
from compactor.fold import fold
from compactor.work import merge_all, take_turn
from eventlog import manifest as manifests
from eventlog import names, tail
from eventlog.testing import CrashFs, FakeClock, Script, Stopped, contents, play, scripts, sweep

ROOT, PROJECT = "/store", "p"
CONFIG = CompactorConfig(fanout=2, grace_s=3600.0, segment_retention_s=86_400.0)
MONTH_S = 30 * 86_400.0


def loop(count: int, *, closes: bool = True) -> Script:
    calls = [scripts.Log({"loss": i / 7, "note": "x"}, i) for i in range(count)]
    return Script("run-a", 0, (*calls, scripts.Sync()), closes=closes)


def compacted(clock: FakeClock) -> CrashFs:
    """A store with several snapshots, merged files, folded and new segments, and what killed processes left."""
    fs = CrashFs(time_ns=clock.time_ns)
    for count in (20, 10, 15):
        play(loop(count, closes=count != 10), fs, ROOT, PROJECT, time_ns=clock.time_ns)
        fold(fs, ROOT, PROJECT, CONFIG, time_ns=clock.time_ns)
        clock.advance(60)
    merge_all(fs, ROOT, PROJECT, CONFIG, time_ns=clock.time_ns)
    play(loop(5), fs, ROOT, PROJECT, time_ns=clock.time_ns)
    fs.stop_after(12)
    with pytest.raises(Stopped):
        fold(fs, ROOT, PROJECT, CONFIG, time_ns=clock.time_ns)
    return fs.after_crash("kept")


def files(fs: CrashFs, directory: str = ROOT) -> list[str]:
    found: list[str] = []
    for entry in fs.entries(directory):
        path = os.path.join(directory, entry.name)
        found += files(fs, path) if entry.is_dir else [path]
    return found


def sealed(paths: list[str]) -> list[str]:
    """Return the paths with one name for a segment: a sealed one may have its open name again after a power loss."""
    return [path.replace(".open", ".seg") for path in paths]


def check(fs: CrashFs, expected: list[contents.Row]) -> None:
    """Assert that every record is there, once, and that each manifest that is left is whole."""
    assert contents.of_store(fs, ROOT, PROJECT) == expected
    for version in manifests.versions(fs, ROOT, PROJECT):
        contents.of_snapshot(fs, ROOT, manifests.load(fs, ROOT, PROJECT, version))


@pytest.mark.invariant(7)
@pytest.mark.invariant(9)
def test_a_collection_killed_at_any_step_takes_nothing_that_is_not_covered():
    clock = FakeClock()
    start = compacted(clock)
    expected = contents.of_store(start, ROOT, PROJECT)
    clock.advance(MONTH_S)

    def work(fs: CrashFs) -> None:
        collect(fs, ROOT, PROJECT, CONFIG, time_ns=clock.time_ns)

    ended = start.after_crash("kept")
    work(ended)
    left = files(ended)
    assert len(left) < len(files(start)) - 8
    assert any(path.endswith(".seg") for path in files(start))
    for stop in sweep.stops(start, work):
        for crash in sweep.crashes(stop.fs, seeds=(None, 1, 2)):
            check(crash.fs, expected)
            work(crash.fs)
            check(crash.fs, expected)
            assert sealed(files(crash.fs)) == sealed(left)


@pytest.mark.invariant(7)
def test_records_that_no_snapshot_covers_stay_whatever_their_age():
    clock = FakeClock()
    start = compacted(clock)
    covered = manifests.load_newest(start, ROOT, PROJECT)[0].writers
    (uncovered,) = [writer_id for writer_id in tail.writers(start, ROOT, PROJECT) if writer_id not in covered]
    clock.advance(MONTH_S)
    collect(start, ROOT, PROJECT, CONFIG, time_ns=clock.time_ns)
    assert start.entries(names.writer_dir(ROOT, PROJECT, uncovered))
    assert len([row for row in contents.of_store(start, ROOT, PROJECT) if row.writer_id == uncovered]) == 10


@pytest.mark.invariant(7)
def test_nothing_is_collected_within_the_grace_period():
    clock = FakeClock()
    start = compacted(clock)
    before = files(start)
    clock.advance(CONFIG.grace_s / 2)
    result = collect(start, ROOT, PROJECT, CONFIG, time_ns=clock.time_ns)
    assert result.removed == []
    assert files(start) == before


@pytest.mark.invariant(7)
def test_segments_stay_when_the_snapshot_that_covers_them_is_damaged():
    clock = FakeClock()
    start = compacted(clock)
    manifest = manifests.load_newest(start, ROOT, PROJECT)[0]
    path = os.path.join(names.snapshot_dir(ROOT, PROJECT), manifest.files[0].path)
    data = bytearray(start.read(path))
    data[len(data) // 2] ^= 1
    start.unlink(path)
    start.write(start.create(path), data)
    clock.advance(MONTH_S)
    before = [path for path in files(start) if "/segments/" in path]
    result = collect(start, ROOT, PROJECT, CONFIG, time_ns=clock.time_ns)
    assert [path for path in files(start) if "/segments/" in path] == before
    assert all("checksum" in reason for reason in result.kept.values())
    assert result.kept


@pytest.mark.invariant(7)
def test_segments_stay_when_the_manifest_that_covers_them_was_not_yet_durable():
    clock = FakeClock()
    fs = CrashFs(time_ns=clock.time_ns)
    play(loop(20), fs, ROOT, PROJECT, time_ns=clock.time_ns)
    expected = contents.of_store(fs, ROOT, PROJECT)
    last_sync = next(
        stop.step
        for stop in sweep.stops(fs, lambda disk: fold(disk, ROOT, PROJECT, CONFIG, time_ns=clock.time_ns))
        if stop.at is not None and stop.at.name == "sync_dir" and manifests.versions(stop.fs, ROOT, PROJECT)
    )
    fs.stop_after(last_sync)
    with pytest.raises(Stopped):
        fold(fs, ROOT, PROJECT, CONFIG, time_ns=clock.time_ns)
    killed = fs.after_crash("kept")
    clock.advance(MONTH_S)
    collect(killed, ROOT, PROJECT, CONFIG, time_ns=clock.time_ns)
    for crash in sweep.crashes(killed, seeds=(None, 1, 2, 3)):
        assert contents.of_store(crash.fs, ROOT, PROJECT) == expected


@pytest.mark.invariant(9)
def test_what_a_killed_first_fold_left_is_collected():
    clock = FakeClock()
    start = CrashFs(time_ns=clock.time_ns)
    play(loop(20), start, ROOT, PROJECT, time_ns=clock.time_ns)
    expected = contents.of_store(start, ROOT, PROJECT)
    segments = files(start)
    start.stop_after(40)
    with pytest.raises(Stopped):
        fold(start, ROOT, PROJECT, CONFIG, time_ns=clock.time_ns)
    killed = start.after_crash("kept")
    assert files(killed) != segments
    clock.advance(MONTH_S)
    collect(killed, ROOT, PROJECT, CONFIG, time_ns=clock.time_ns)
    assert files(killed) == segments
    check(killed, expected)


@pytest.mark.invariant(9)
def test_what_a_killed_writer_left_of_a_blob_is_collected():
    clock = FakeClock()
    fs = CrashFs(time_ns=clock.time_ns)
    play(loop(3), fs, ROOT, PROJECT, time_ns=clock.time_ns)
    big = Script("run-a", 0, (scripts.Log({"big": "b" * 70_000}),))
    stopped = next(
        stop
        for stop in sweep.stops(fs, lambda disk: play(big, disk, ROOT, PROJECT, time_ns=clock.time_ns))
        if stop.at is not None and stop.at.name == "sync" and "/blobs/" in stop.at.path
    )
    killed = stopped.fs.after_crash("kept")
    fold(killed, ROOT, PROJECT, CONFIG, time_ns=clock.time_ns)
    clock.advance(MONTH_S)
    collect(killed, ROOT, PROJECT, CONFIG, time_ns=clock.time_ns)
    assert not [path for path in files(killed) if names.is_temporary(os.path.basename(path))]


@pytest.mark.invariant(7)
def test_a_collection_in_which_any_one_step_fails_takes_nothing_that_is_not_covered():
    clock = FakeClock()
    start = compacted(clock)
    expected = contents.of_store(start, ROOT, PROJECT)
    clock.advance(MONTH_S)
    step = failures = 0
    fs = start
    while step <= len(fs.operations):
        step += 1
        fs = start.after_crash("kept")
        fs.fail_at(step, errno.EIO)
        try:
            collect(fs, ROOT, PROJECT, CONFIG, time_ns=clock.time_ns)
        except OSError:
            failures += 1
        for crash in sweep.crashes(fs):
            check(crash.fs, expected)
    assert failures > 5


@pytest.mark.invariant(9)
def test_whole_turns_killed_at_any_step_lose_and_double_nothing():
    clock = FakeClock()
    start = compacted(clock)
    expected = contents.of_store(start, ROOT, PROJECT)
    clock.advance(MONTH_S)

    def work(fs: CrashFs) -> None:
        take_turn(fs, ROOT, PROJECT, CONFIG, time_ns=clock.time_ns)

    for stop in sweep.stops(start, work, every=7):
        for crash in sweep.crashes(stop.fs, seeds=(stop.step,)):
            check(crash.fs, expected)
            work(crash.fs)
            check(crash.fs, expected)
