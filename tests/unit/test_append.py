"""One open segment: what a failed or interrupted write leaves behind, and what sealing does in which order."""

from __future__ import annotations

import os
from typing import Any

import pytest

from eventlog import frame, names, schema, segment
from eventlog.append import OpenSegment, boot_id
from eventlog.fs import LOCAL, Fs

WRITER = "0" * 26
HEADER = segment.Header(WRITER, 1, 10, 5)


def beat(number: int) -> bytes:
    return schema.encode(schema.Heartbeat(number, "r"))


def read(path: str) -> list[Any]:
    data = LOCAL.read(path)
    return list(segment.items(data, segment.parse_header(data, path)))


def records(path: str) -> list[tuple[int, schema.AnyRecord]]:
    found = read(path)
    assert not [item for item in found if isinstance(item, segment.Damage)]
    return [(item.seq, item.record) for item in found if not isinstance(item.record, schema.STRUCTURAL)]


@pytest.fixture
def opened(store: str, faulty: Any) -> OpenSegment:
    return OpenSegment(faulty, store, HEADER, "p")


def test_a_new_segment_holds_its_header_twice(opened: OpenSegment):
    (item,) = read(opened.path)
    start = item.record
    assert (start.writer_id, start.segno, start.first_seq, start.created_ns) == HEADER
    assert (start.project, start.pid, start.boot_id) == ("p", os.getpid(), boot_id())
    assert opened.offset == item.end == LOCAL.size(opened.path)


def test_a_segment_is_never_opened_a_second_time(opened: OpenSegment, store: str):
    with pytest.raises(FileExistsError):
        OpenSegment(LOCAL, store, HEADER, "p")
    assert LOCAL.is_locked(opened.path)


def test_records_are_numbered_from_the_first_seq(opened: OpenSegment):
    for number in range(3):
        opened.append(beat(number))
    assert records(opened.path) == [(10 + n, schema.Heartbeat(n, "r")) for n in range(3)]
    assert opened.next_seq == 3


def test_a_shape_is_announced_twice_and_chained(opened: OpenSegment):
    opened.announce(schema.Shape(0, "r", None, ["a"], 0))
    opened.append(beat(0))
    opened.announce(schema.Shape(1, "r", 2, ["b"], 0))
    shapes = [item for item in read(opened.path) if isinstance(item.record, schema.Shape)]
    assert [shape.record.shape for shape in shapes] == [0, 0, 1, 1]
    assert [shape.record.previous_offset for shape in shapes] == [0, 0, shapes[0].offset, shapes[0].offset]
    assert set(opened.shapes) == {0, 1}


def fail_after(fs: Any, taken: int) -> None:
    def fail(fd: int, data: bytes) -> None:
        fs.before_write = None
        os.write(fd, data[:taken])
        raise OSError(28, "full")

    fs.before_write = fail


@pytest.mark.parametrize("taken", [0, 1, 13, 14, 18])
def test_a_failed_write_leaves_nothing_behind(opened: OpenSegment, faulty: Any, taken: int):
    opened.append(beat(0))
    before = LOCAL.read(opened.path)
    fail_after(faulty, taken)
    with pytest.raises(OSError, match="full"):
        opened.append(beat(1))
    assert LOCAL.read(opened.path) == before
    opened.append(beat(2))
    assert records(opened.path) == [(10, schema.Heartbeat(0, "r")), (11, schema.Heartbeat(2, "r"))]


def test_a_frame_that_is_whole_although_the_write_failed_is_appended(opened: OpenSegment, faulty: Any):
    fail_after(faulty, 10_000)
    opened.append(beat(0))
    opened.append(beat(1))
    assert records(opened.path) == [(10, schema.Heartbeat(0, "r")), (11, schema.Heartbeat(1, "r"))]


def test_of_a_batch_that_is_cut_short_at_any_byte_the_whole_frames_stay(opened: OpenSegment, faulty: Any):
    batch = [beat(number) for number in range(4)]
    size = sum(len(frame.build(payload, 0)) for payload in batch)
    seen: list[tuple[int, Any]] = []
    for taken in range(size):
        before, kept = len(seen), opened.next_seq
        fail_after(faulty, taken)
        with pytest.raises(OSError, match="full"):
            opened.append_all(batch)
        # Whoever read between the failed write and what was done about it saw no record that is not there now.
        whole = taken * len(batch) // size
        assert opened.next_seq == kept + whole
        opened.append(beat(100 + taken))
        now = records(opened.path)
        assert now[:before] == seen
        assert [record.time_ns for _, record in now[before:]] == [*range(whole), 100 + taken]
        seen = now
    assert [seq for seq, _ in seen] == list(range(10, 10 + len(seen)))


@pytest.mark.parametrize("taken", [0, 5, 18])
def test_an_interrupt_before_the_frame_is_whole_leaves_nothing_behind(opened: OpenSegment, faulty: Any, taken: int):
    def interrupt(fd: int, data: bytes) -> None:
        faulty.before_write = None
        os.write(fd, data[:taken])
        raise KeyboardInterrupt

    opened.append(beat(0))
    faulty.before_write = interrupt
    with pytest.raises(KeyboardInterrupt):
        opened.append(beat(1))
    opened.append(beat(2))
    assert records(opened.path) == [(10, schema.Heartbeat(0, "r")), (11, schema.Heartbeat(2, "r"))]


def test_a_whole_frame_stays_after_an_interrupt_for_a_reader_may_have_seen_it(opened: OpenSegment, faulty: Any):
    def interrupt(_fd: int, _count: int) -> None:
        faulty.after_write = None
        raise KeyboardInterrupt

    opened.append(beat(0))
    faulty.after_write = interrupt
    with pytest.raises(KeyboardInterrupt):
        opened.append(beat(1))
    opened.append(beat(2))
    assert [seq for seq, _ in records(opened.path)] == [10, 11, 12]
    assert opened.next_seq == 3


def test_a_shape_whose_announcement_was_interrupted_is_announced_again(opened: OpenSegment, faulty: Any):
    def interrupt(_fd: int, _count: int) -> None:
        faulty.after_write = None
        raise KeyboardInterrupt

    faulty.after_write = interrupt
    with pytest.raises(KeyboardInterrupt):
        opened.announce(schema.Shape(0, "r", None, ["a"], 0))
    opened.announce(schema.Shape(0, "r", None, ["a"], 0))
    opened.append(beat(0))
    assert records(opened.path) == [(10, schema.Heartbeat(0, "r"))]


def test_a_segment_that_cannot_be_begun_is_closed(store: str, faulty: Any):
    fail_after(faulty, 30)
    with pytest.raises(OSError, match="full"):
        OpenSegment(faulty, store, HEADER, "p")
    path = os.path.join(names.writer_dir(store, "p", WRITER), names.segment_name(1, sealed=False))
    assert not os.path.exists(path)
    assert "close" in [call[0] for call in faulty.calls]


def test_a_segment_written_again_has_the_same_frames_and_a_seal(opened: OpenSegment):
    opened.append(beat(0))
    opened.sync()
    opened.announce(schema.Shape(0, "r", None, ["a"], 0))
    opened.append(beat(1))
    before = LOCAL.read(opened.path)
    sealed = opened.republish(complete=False)
    after = LOCAL.read(sealed)
    assert after.startswith(before)
    assert len(after) > len(before)
    assert not os.path.exists(opened.path)


def test_a_segment_that_cannot_be_read_back_whole_is_left_as_it_is(opened: OpenSegment):
    opened.append(beat(0))
    with open(opened.path, "r+b") as file:
        file.seek(opened.offset - 1)
        file.write(b"!")
    with pytest.raises(OSError, match="cannot be read back"):
        opened.republish(complete=False)
    assert os.path.exists(opened.path)


def test_sealing_syncs_before_it_renames(opened: OpenSegment, faulty: Any):
    opened.append(beat(0))
    opened.write_seal(final=True)
    faulty.calls.clear()
    sealed = opened.publish()
    assert [kind for kind, _ in faulty.calls] == ["sync", "close"]
    assert not os.path.exists(opened.path)
    assert read(sealed)[-1].record == schema.Seal(1, 11, final=True)
    assert not LOCAL.is_locked(sealed)


def test_a_failed_sync_keeps_the_open_name(store: str):
    class NoSync(type(LOCAL)):  # type: ignore[misc]
        def sync(self, _fd: int, /) -> None:
            raise OSError(5, "I/O error")

    fs: Fs = NoSync()
    opened = OpenSegment(fs, store, HEADER, "p")
    opened.append(beat(0))
    with pytest.raises(OSError, match="I/O"):
        opened.publish()
    assert records(opened.path) == [(10, schema.Heartbeat(0, "r"))]
    assert opened.synced_offset == 0
    opened.close()


def test_closing_twice_is_harmless(opened: OpenSegment):
    opened.close()
    opened.close()
    assert not LOCAL.is_locked(opened.path)
