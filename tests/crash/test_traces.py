"""The recording itself: a trace that is replayed gives the disk that was recorded, and all that a crash may leave."""

from crash_cases import PROJECT, ROOT, loop, record

from eventlog.testing import CrashFs, FakeClock, Operation, play, sweep
from eventlog.testing.trace import replays


def test_a_replayed_trace_gives_the_disk_that_was_recorded():
    clock = FakeClock(tick_ns=1000)
    recorder = record(CrashFs(), lambda fs: play(loop(5), fs, ROOT, PROJECT, time_ns=clock.time_ns), clock)
    for trace in (recorder.trace(CrashFs()), recorder.trace(CrashFs()).joined()):
        *_, (made, last) = replays(trace.start, trace.changes)
        assert made == len(trace.changes)
        assert last.fs.state() == recorder.state()
        assert last.fs.after_crash("lost").state() == recorder.after_crash("lost").state()


def test_every_choice_of_unsynced_names_is_tried_when_they_are_few_and_every_pair_in_both_orders_when_many():
    assert sorted(map(sorted, sweep.orders(2, most=3))) == [[], [0], [0, 1], [1]]
    many = list(sweep.orders(6, most=3))
    pairs = {(a, b) for kept in many for a in kept for b in range(6) if b not in kept}
    assert pairs == {(a, b) for a in range(6) for b in range(6) if a != b}


def test_a_directory_above_the_lowest_that_is_there_is_synced_for_the_process_that_was_killed():
    fs = CrashFs()
    fs.mkdir("/store")
    killed = fs.after_crash("kept")
    killed.make_dirs("/store/segments/p")
    assert Operation("sync_dir", "/") in killed.operations
    assert killed.after_crash("lost").is_dir("/store/segments/p")


def test_a_directory_is_opened_synced_and_locked_as_a_file_is():
    fs = CrashFs()
    fs.mkdir("/store")
    fd, other = fs.open("/"), fs.open("/")
    assert (fs.lock(fd), fs.lock(other)) == (True, False)
    fs.sync(fd)
    assert fs.after_crash("lost").is_dir("/store")
    fs.close(fd)
    assert fs.lock(other)
