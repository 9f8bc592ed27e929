"""The writer: numbering over segments, rolling, syncing, shapes, and closing."""

from __future__ import annotations

import os
import threading
import time
from typing import Any

import pytest

from eventlog import names, schema
from eventlog.config import WriterConfig
from eventlog.errors import UsageError
from eventlog.fs import LOCAL
from eventlog.writer import Writer

QUIET = WriterConfig(sync_interval_s=None)
SMALL = WriterConfig(sync_interval_s=None, segment_bytes=4096)


def beat(number: int) -> schema.Heartbeat:
    return schema.Heartbeat(number, "r")


def test_nothing_is_on_disk_before_the_first_record(store: str):
    writer = Writer(store, "p", config=QUIET)
    writer.shape("r", None, ("a",))
    writer.close()
    assert not os.path.exists(store)


def test_a_project_that_cannot_be_a_directory_is_refused_at_once(store: str):
    with pytest.raises(UsageError):
        Writer(store, "", config=QUIET)


def test_a_record_is_in_the_file_when_append_returns(store: str, back: Any):
    writer = Writer(store, "p", config=QUIET)
    assert writer.append(beat(1))
    assert back.of_kind(schema.Heartbeat) == [beat(1)]
    assert writer.next_seq == 2
    writer.close()


def test_segments_roll_and_seqs_go_on(store: str, back: Any):
    writer = Writer(store, "p", config=SMALL)
    shape = writer.shape("r", 3, ("a", "b"))
    for step in range(500):
        assert writer.log(shape, step, shape.pack(1.0, step))
    writer.close()
    assert len(back.files()) > 5
    assert all(path.endswith(".seg") for path in back.files())
    calls = back.calls()
    assert [call.step for call in calls] == list(range(500))
    assert [call.numbers["b"] for call in calls] == list(range(500))
    assert {call.rank for call in calls} == {3}
    assert len(back.records()) == 500


def test_each_segment_ends_with_a_seal_that_counts(store: str, back: Any):
    writer = Writer(store, "p", config=SMALL)
    for number in range(300):
        writer.append(beat(number))
    writer.close()
    total, finals = 0, []
    for path in back.files():
        seal = back.items(path)[-1].record
        assert isinstance(seal, schema.Seal)
        total += seal.records
        assert seal.next_seq == total + 1
        finals.append(seal.final)
    assert total == 300
    assert finals == [False] * (len(finals) - 1) + [True]


def test_each_segment_announces_its_own_shapes(store: str, back: Any):
    writer = Writer(store, "p", config=QUIET)
    shape = writer.shape("r", None, ("a",))
    for _ in range(2):
        writer.log(shape, 0, shape.pack(1.0))
        writer.log(shape, 0, shape.pack(1.0))
        writer.roll()
    writer.close()
    for path in back.files():
        assert sum(isinstance(item.record, schema.Shape) for item in back.items(path)) == 2
    assert len(back.calls()) == 4


def test_names_in_another_order_are_another_shape(store: str, back: Any):
    writer = Writer(store, "p", config=QUIET)
    one, two = writer.shape("r", None, ("a", "b")), writer.shape("r", None, ("b", "a"))
    assert one.number != two.number
    assert writer.shape("r", None, ("a", "b")) is one
    assert writer.shape("other", None, ("a", "b")) is not one
    writer.log(one, 0, one.pack(1.0, 2.0))
    writer.log(two, 0, two.pack(3.0, 4.0))
    writer.close()
    assert [call.numbers for call in back.calls()] == [{"a": 1.0, "b": 2.0}, {"b": 3.0, "a": 4.0}]


def test_an_old_segment_rolls_in_the_background(store: str, back: Any):
    config = WriterConfig(sync_interval_s=0.02, roll_interval_s=0.01)
    writer = Writer(store, "p", config=config)
    writer.append(beat(1))
    deadline = time.monotonic() + 20
    while not any(path.endswith(".seg") for path in back.files()) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert [path[-4:] for path in back.files()] == [".seg"]
    writer.append(beat(2))
    writer.close()
    assert back.of_kind(schema.Heartbeat) == [beat(1), beat(2)]


def test_records_are_synced_in_the_background(store: str, faulty: Any):
    writer = Writer(store, "p", config=WriterConfig(sync_interval_s=0.02), fs=faulty)
    writer.append(beat(1))
    deadline = time.monotonic() + 20
    while not [kind for kind, _ in faulty.calls if kind == "sync"] and time.monotonic() < deadline:
        time.sleep(0.01)
    assert [kind for kind, _ in faulty.calls if kind == "sync"]
    writer.close()


def test_the_background_thread_ends_with_its_writer(store: str):
    writer = Writer(store, "p", config=WriterConfig(sync_interval_s=0.02))
    writer.append(beat(1))
    name = f"eventlog-sync-{writer.writer_id[-6:]}"
    assert name in {thread.name for thread in threading.enumerate()}
    writer.close()
    deadline = time.monotonic() + 20
    while name in {thread.name for thread in threading.enumerate()} and time.monotonic() < deadline:
        time.sleep(0.01)
    assert name not in {thread.name for thread in threading.enumerate()}


def test_without_an_interval_there_is_no_thread(store: str):
    before = threading.active_count()
    writer = Writer(store, "p", config=QUIET)
    writer.append(beat(1))
    assert threading.active_count() == before
    writer.close()


def test_sync_syncs_only_when_there_is_something_new(store: str, faulty: Any):
    writer = Writer(store, "p", config=QUIET, fs=faulty)
    writer.sync()
    writer.append(beat(1))
    writer.sync()
    writer.sync()
    assert [kind for kind, _ in faulty.calls].count("sync") == 1
    writer.close()


def test_the_callback_hears_of_each_sealed_segment(store: str, back: Any):
    writer = Writer(store, "p", config=QUIET)
    heard: list[str] = []
    writer.on_sealed = heard.append
    for number in range(3):
        writer.append(beat(number))
        writer.roll()
    writer.close()
    assert heard == back.files()


def test_after_close_nothing_can_be_appended(store: str, back: Any):
    writer = Writer(store, "p", config=QUIET)
    shape = writer.shape("r", None, ("a",))
    writer.log(shape, 0, shape.pack(1.0))
    writer.close()
    writer.close()
    assert writer.closed
    with pytest.raises(UsageError, match="closed"):
        writer.append(beat(1))
    with pytest.raises(UsageError, match="closed"):
        writer.log(shape, 0, shape.pack(1.0))
    assert len(back.calls()) == 1


def test_a_living_writer_holds_the_lock_of_its_open_segment(store: str, back: Any):
    writer = Writer(store, "p", config=QUIET)
    writer.append(beat(1))
    (path,) = back.files()
    assert LOCAL.is_locked(path)
    writer.close()
    (path,) = back.files()
    assert not LOCAL.is_locked(path)


def test_the_clock_is_the_one_given(store: str, back: Any):
    times = iter(range(1_000_000_000, 2_000_000_000, 1_000_000))
    writer = Writer(store, "p", config=QUIET, time_ns=lambda: next(times))
    shape = writer.shape("r", None, ("a",))
    writer.log(shape, 0, shape.pack(1.0))
    writer.log(shape, 0, shape.pack(1.0))
    writer.close()
    first, second = back.calls()
    assert first.time_ns < second.time_ns < 2_000_000_000


def test_a_clock_set_back_changes_no_order(store: str, back: Any):
    times = iter([10**18] * 3 + [5, 4, 3, 2, 1] + [-7] * 10)
    writer = Writer(store, "p", config=QUIET, time_ns=lambda: next(times))
    shape = writer.shape("r", None, ("a",))
    for step in range(6):
        writer.log(shape, step, shape.pack(1.0))
    writer.close()
    assert [call.step for call in back.calls()] == list(range(6))
    assert len(back.records()) == 6


def test_a_record_beyond_the_largest_frame_is_refused_and_the_rest_goes_on(store: str, back: Any):
    writer = Writer(store, "p", config=QUIET)
    shape = writer.shape("r", None, ("a",))
    large = {"x": b"\0" * (1 << 28)}
    for _ in range(2):
        with pytest.raises(UsageError, match="too large"):
            writer.log(shape, 0, shape.pack(1.0), large)
        writer.log(shape, 1, shape.pack(1.0))
    writer.close()
    assert [call.step for call in back.calls()] == [1, 1]


def test_two_writers_of_one_process_have_directories_of_their_own(store: str, back: Any):
    first, second = Writer(store, "p", config=QUIET), Writer(store, "p", config=QUIET)
    for number in range(3):
        first.append(beat(number))
        second.append(beat(number))
    first.close()
    second.close()
    assert set(back.writers()) == {first.writer_id, second.writer_id}
    assert all(names.is_writer_id(writer_id) for writer_id in back.writers())
    assert len(back.records()) == 6


def test_one_run_of_two_ranks_in_one_writer_keeps_both(store: str, back: Any):
    writer = Writer(store, "p", config=QUIET)
    for rank in (None, 3, 0, None):
        shape = writer.shape("r", rank, ("a",))
        writer.log(shape, 0, shape.pack(1.0))
    writer.close()
    assert [call.rank for call in back.calls()] == [None, 3, 0, None]
