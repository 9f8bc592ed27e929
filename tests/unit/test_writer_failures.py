"""The writer when the disk fails: training goes on, nothing is doubled, and what is lost is counted and said."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from eventlog import schema
from eventlog.config import WriterConfig
from eventlog.errors import DurabilityUnknownError, EventLogWarning, StorageError
from eventlog.fs import LOCAL, LocalFs
from eventlog.shapes import ShapeKey
from eventlog.writer import Writer

QUIET = WriterConfig(sync_interval_s=None)
RAISING = WriterConfig(sync_interval_s=None, on_error="raise")


@pytest.fixture
def writer(store: str, faulty: Any) -> Writer:
    return Writer(store, "p", config=QUIET, fs=faulty)


@pytest.fixture
def shape(writer: Writer) -> ShapeKey:
    return writer.shape("r", None, ("a",))


def log(writer: Writer, shape: ShapeKey, step: int) -> bool:
    return writer.log(shape, step, shape.pack(float(step)))


def refuse(fs: Any, code: int, times: int, *, taken: int = 0) -> None:
    """Let the next writes fail, each after it took some bytes."""
    left = [times]

    def fail(fd: int, data: bytes) -> None:
        if left[0] == 0:
            fs.before_write = None
            return
        left[0] -= 1
        if taken:
            os.write(fd, data[:taken])
        raise OSError(code, os.strerror(code))

    fs.before_write = fail


def steps(back: Any) -> list[int]:
    back.records()
    return [call.step for call in back.calls()]


@pytest.mark.parametrize("taken", [0, 5, 20])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_on_a_full_disk_training_goes_on_and_the_loss_is_a_record(
    writer: Writer, shape: ShapeKey, faulty: Any, back: Any, code: int, taken: int
):
    log(writer, shape, 0)
    log(writer, shape, 1)
    refuse(faulty, code, 100, taken=taken)
    with pytest.warns(EventLogWarning, match="Training goes on") as caught:
        assert not log(writer, shape, 2)
    assert len(caught) == 1
    assert not log(writer, shape, 3)
    assert not writer.append(schema.Heartbeat(1, "r"))
    assert writer.lost == 3
    faulty.before_write = None
    assert log(writer, shape, 4)
    writer.close()
    assert steps(back) == [0, 1, 4]
    (dropped,) = back.of_kind(schema.Dropped)
    assert dropped.count == 3
    assert dropped.reason.startswith(errno.errorcode[code])
    assert 0 < dropped.since_ns <= dropped.time_ns


def test_a_full_disk_from_the_start_loses_nothing_later(writer: Writer, shape: ShapeKey, faulty: Any, back: Any):
    refuse(faulty, errno.ENOSPC, 100)
    with pytest.warns(EventLogWarning):
        assert not log(writer, shape, 0)
    faulty.before_write = None
    assert log(writer, shape, 1)
    writer.close()
    calls = [path for path in back.files() if LOCAL.size(path)]
    assert len(calls) == 1
    shapes = [item.record for item in back.items(calls[0]) if isinstance(item.record, schema.Log | schema.Dropped)]
    assert [type(record) for record in shapes] == [schema.Dropped, schema.Log]


def test_the_second_time_is_counted_anew(writer: Writer, shape: ShapeKey, faulty: Any, back: Any):
    log(writer, shape, 0)
    refuse(faulty, errno.ENOSPC, 100)
    with pytest.warns(EventLogWarning):
        log(writer, shape, 1)
    faulty.before_write = None
    log(writer, shape, 2)
    refuse(faulty, errno.ENOSPC, 100)
    log(writer, shape, 3)
    log(writer, shape, 4)
    faulty.before_write = None
    log(writer, shape, 5)
    writer.close()
    assert [record.count for record in back.of_kind(schema.Dropped)] == [1, 2]
    assert writer.lost == 3


def test_losses_at_the_end_are_said_when_the_writer_closes(writer: Writer, shape: ShapeKey, faulty: Any, back: Any):
    log(writer, shape, 0)
    refuse(faulty, errno.ENOSPC, 100)
    with pytest.warns(EventLogWarning):
        log(writer, shape, 1)
    faulty.before_write = None
    writer.close()
    assert [record.count for record in back.of_kind(schema.Dropped)] == [1]


@pytest.mark.parametrize("code", [errno.EFBIG, errno.EIO])
@pytest.mark.parametrize("taken", [0, 9])
def test_a_file_that_takes_no_more_is_left_for_a_new_one(
    writer: Writer, shape: ShapeKey, faulty: Any, back: Any, code: int, taken: int
):
    log(writer, shape, 0)
    log(writer, shape, 1)
    refuse(faulty, code, 2, taken=taken)
    assert log(writer, shape, 2)
    assert log(writer, shape, 3)
    writer.close()
    assert writer.lost == 0
    assert steps(back) == [0, 1, 2, 3]
    assert [path[-4:] for path in back.files()] == ["open", ".seg"]


def test_a_short_write_is_undone_and_made_again(writer: Writer, shape: ShapeKey, faulty: Any, back: Any):
    log(writer, shape, 0)
    log(writer, shape, 1)
    whole = faulty.write

    def short(fd: int, data: bytes) -> int:
        writer._write = whole
        return os.write(fd, data[:10])

    writer._write = short
    assert log(writer, shape, 2)
    writer.close()
    assert steps(back) == [0, 1, 2]


def test_flush_syncs_what_was_left_in_an_abandoned_file(writer: Writer, shape: ShapeKey, faulty: Any):
    log(writer, shape, 0)
    log(writer, shape, 1)
    refuse(faulty, errno.EFBIG, 2)
    assert log(writer, shape, 2)
    writer.sync()
    files = _files_by_call(faulty.calls)
    assert len(files) == 2
    for calls in files:
        assert "sync" in calls[calls.index("write") :], "a file with un-synced records was closed without a sync"


def _files_by_call(calls: list[tuple[str, Any]]) -> list[list[str]]:
    """Group calls by the file that a descriptor stood for, which may be used again after a close."""
    done: list[list[str]] = []
    current: dict[int, list[str]] = {}
    for kind, fd in calls:
        if isinstance(fd, int):
            current.setdefault(fd, []).append(kind)
            if kind == "close":
                done.append(current.pop(fd))
    return done + list(current.values())


def test_on_request_a_failure_raises_with_its_errno(store: str, faulty: Any, back: Any):
    writer = Writer(store, "p", config=RAISING, fs=faulty)
    shape = writer.shape("r", None, ("a",))
    log(writer, shape, 0)
    refuse(faulty, errno.ENOSPC, 100)
    with pytest.raises(StorageError, match="cannot write") as caught:
        log(writer, shape, 1)
    assert caught.value.errno == errno.ENOSPC
    faulty.before_write = None
    log(writer, shape, 2)
    writer.close()
    assert steps(back) == [0, 2]
    assert [record.count for record in back.of_kind(schema.Dropped)] == [1]


class NoSync(type(LOCAL)):  # type: ignore[misc]
    """Refuses to sync while `failing` is above 0."""

    def __init__(self) -> None:
        self.failing = 0

    def sync(self, fd: int, /) -> None:
        if self.failing:
            self.failing -= 1
            raise OSError(errno.EIO, "I/O error")
        os.fdatasync(fd)


def read_all(back: Any) -> tuple[list[int], int]:
    """Return the steps as a fold sees them, and how many records it met twice."""
    from eventlog import tail
    from eventlog.columns import Batch
    from eventlog.manifest import Watermark

    batch = Batch()
    (writer_id,) = back.writers()
    found = tail.WriterReader(LOCAL, back.root, "p", writer_id, Watermark(), batch).read()
    assert (found.gaps, found.damages) == ([], [])
    return sorted(int(step) for block in batch.metrics for step in block.step), found.watermark.duplicates


def test_after_a_failed_sync_the_segment_is_written_again_under_its_sealed_name(store: str, back: Any):
    fs = NoSync()
    writer = Writer(store, "p", config=QUIET, fs=fs)
    shape = writer.shape("r", None, ("a",))
    log(writer, shape, 0)
    writer.sync()
    log(writer, shape, 1)
    log(writer, shape, 2)
    fs.failing = 1
    writer.sync()
    log(writer, shape, 3)
    writer.close()
    assert read_all(back) == ([0, 1, 2, 3], 0)
    assert [os.path.basename(path) for path in back.files()] == ["00000001.seg", "00000002.seg"]


def test_a_segment_under_both_its_names_is_read_once(store: str, back: Any):
    fs = NoSync()
    writer = Writer(store, "p", config=QUIET, fs=fs)
    shape = writer.shape("r", None, ("a",))
    log(writer, shape, 0)
    fs.failing = 1
    writer.sync()
    log(writer, shape, 1)
    writer.close()
    sealed = back.files()[0]
    shutil.copyfile(sealed, sealed.removesuffix(".seg") + ".open")
    assert read_all(back) == ([0, 1], 0)


def test_a_disk_that_syncs_nothing_is_said_and_the_records_stay_readable(store: str, back: Any):
    fs = NoSync()
    writer = Writer(store, "p", config=QUIET, fs=fs)
    shape = writer.shape("r", None, ("a",))
    log(writer, shape, 0)
    fs.failing = 100
    with pytest.raises(DurabilityUnknownError, match="cannot sync"):
        writer.sync()
    log(writer, shape, 1)
    fs.failing = 0
    writer.close()
    assert read_all(back)[0] == [0, 1]


def test_a_segment_that_can_never_be_synced_holds_back_none_that_come_after_it(store: str, back: Any):
    fs = NoSync()
    writer = Writer(store, "p", config=WriterConfig(sync_interval_s=1000.0), fs=fs)
    shape = writer.shape("r", None, ("a",))
    log(writer, shape, 0)
    (first,) = back.files()
    Path(first).with_suffix(".seg").write_bytes(b"of a copy of this writer")
    fs.failing = 1
    for step in range(1, 4):
        with pytest.raises(DurabilityUnknownError, match="holds other records"):
            writer.sync()
        log(writer, shape, step)
        with pytest.raises(DurabilityUnknownError, match="holds other records"):
            writer.roll()
        log(writer, shape, -step)
    current = writer.current_segment()
    with pytest.raises(DurabilityUnknownError, match="holds other records"):
        writer.sync()
    assert current.synced_offset == current.offset > 0
    with pytest.raises(DurabilityUnknownError, match="holds other records"):
        writer.close()
    assert [os.path.basename(path) for path in back.files()] == [
        *("00000001.open", "00000001.seg", "00000002.seg", "00000003.seg", "00000004.seg", "00000005.seg")
    ]
    os.unlink(back.files()[1])
    writer.sync()
    assert read_all(back) == ([-3, -2, -1, 0, 1, 2, 3], 0)


def test_a_segment_that_is_retired_while_a_sync_is_at_others_and_fails_is_taken_over_once(store: str, back: Any):
    fs = NoSync()
    writer = Writer(store, "p", config=WriterConfig(sync_interval_s=1000.0), fs=fs)
    shape = writer.shape("r", None, ("a",))
    log(writer, shape, 0)
    copy = Path(back.files()[0]).with_suffix(".seg")
    copies = [copy, copy.with_stem("00000002")]
    for path in copies:
        path.write_bytes(b"of a copy of this writer")
    fs.failing = 1
    with pytest.raises(DurabilityUnknownError):
        writer.sync()
    log(writer, shape, 1)

    def roll(path: str, *more: Any) -> bytes:
        if writer.current_segment() is not None:
            writer._roll(final=False)
            fs.failing = 2
        return LOCAL.read(path, *more)

    fs.read = roll
    with pytest.raises(DurabilityUnknownError):
        writer.sync()
    fs.failing = 0
    for path in copies:
        path.unlink()
    writer.close()
    assert read_all(back) == ([0, 1], 0)


def interrupted(fs: Any, *, after: bool, taken: int = 0) -> None:
    """Raise KeyboardInterrupt in the next write: after it, or before it with some bytes already taken."""

    def before(fd: int, data: bytes) -> None:
        fs.before_write = None
        os.write(fd, data[:taken])
        raise KeyboardInterrupt

    def behind(_fd: int, _count: int) -> None:
        fs.after_write = None
        raise KeyboardInterrupt

    if after:
        fs.after_write = behind
    else:
        fs.before_write = before


@pytest.mark.parametrize(("moment", "taken"), [("after", 0), ("before", 0), ("before", 9), ("before", 15)])
@pytest.mark.parametrize("way", ["fast", "slow"])
def test_an_interrupt_in_the_middle_of_an_append_neither_doubles_nor_loses_a_seq(
    store: str, faulty: Any, back: Any, way: str, moment: str, taken: int
):
    writer = Writer(store, "p", config=QUIET, fs=faulty)
    shape = writer.shape("r", None, ("a",))
    log(writer, shape, 0)
    log(writer, shape, 1)
    interrupted(faulty, after=moment == "after", taken=taken)
    append = {
        "fast": lambda: log(writer, shape, 2),
        "slow": lambda: writer.append(schema.Heartbeat(2, "r")),
    }[way]
    with pytest.raises(KeyboardInterrupt):
        append()
    log(writer, shape, 3)
    writer.append(schema.Heartbeat(4, "r"))
    writer.close()
    assert [step for step in steps(back) if step != 2] == [0, 1, 3]
    assert back.of_kind(schema.Heartbeat)[-1] == schema.Heartbeat(4, "r")
    assert len(back.records()) in ((4, 5) if moment == "after" else (4,))


@pytest.mark.parametrize("moment", ["after", "before"])
def test_an_interrupt_while_a_segment_is_created_or_sealed_loses_nothing(
    store: str, faulty: Any, back: Any, moment: str
):
    writer = Writer(store, "p", config=QUIET, fs=faulty)
    shape = writer.shape("r", None, ("a",))
    interrupted(faulty, after=moment == "after", taken=3)
    with pytest.raises(KeyboardInterrupt):
        log(writer, shape, 0)
    log(writer, shape, 1)
    interrupted(faulty, after=moment == "after", taken=3)
    with pytest.raises(KeyboardInterrupt):
        writer.roll()
    log(writer, shape, 2)
    writer.close()
    calls = [call for path in back.files() if LOCAL.size(path) for call in [path]]
    assert calls
    assert read_all(back)[0] in ([1, 2], [0, 1, 2])


def test_an_interrupt_before_the_first_byte_does_not_stop_later_records(writer: Writer, shape: ShapeKey, back: Any):
    # The exception comes out of the encoder, when the writer has already said that it is busy.
    log(writer, shape, 0)
    log(writer, shape, 1)
    with pytest.raises((TypeError, OverflowError)):
        writer.log(shape, 1 << 70, shape.pack(1.0))
    assert log(writer, shape, 2)
    assert steps(back) == [0, 1, 2]
    writer.close()


class SlowFs(LocalFs):
    """A disk that takes its time to sync."""

    def sync(self, fd: int) -> None:
        time.sleep(0.02)
        os.fdatasync(fd)


@pytest.mark.parametrize("interval_s", [0.001, 1000.0])
def test_segments_that_roll_faster_than_they_are_sealed_do_not_use_up_the_descriptors(
    store: str, back: Any, interval_s: float
):
    writer = Writer(store, "p", config=WriterConfig(sync_interval_s=interval_s, segment_bytes=4096), fs=SlowFs())
    shape = writer.shape("r", None, ("a",))
    before, most = len(os.listdir("/proc/self/fd")), 0
    for step in range(7000):
        assert log(writer, shape, step)
        if step % 50 == 0:
            most = max(most, len(os.listdir("/proc/self/fd")) - before)
    writer.close()
    assert len(back.files()) > 60
    assert steps(back) == list(range(7000))
    assert most < 40


class FullFs(LocalFs):
    """A disk on which no name has room until it is told otherwise."""

    full = True

    def rename(self, source: str, target: str) -> None:
        if self.full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os.rename(source, target)


def test_dozens_of_segments_that_cannot_be_sealed_yet_cost_no_record(store: str, back: Any):
    fs = FullFs()
    writer = Writer(store, "p", config=WriterConfig(sync_interval_s=1000.0, segment_bytes=4096), fs=fs)
    shape = writer.shape("r", None, ("a",))
    assert all(log(writer, shape, step) for step in range(4000))
    with pytest.raises(DurabilityUnknownError):
        writer.sync()
    assert len(back.files()) > 33
    assert {path[-5:] for path in back.files()} == {".open"}
    fs.full = False
    writer.close()
    assert steps(back) == list(range(4000))
    assert {path[-4:] for path in back.files()} == {".seg"}


class SignalledFs(LocalFs):
    """A file system that is slow enough for a signal to come while a file gets its name."""

    def __init__(self) -> None:
        self.renamed: list[str] = []

    def rename(self, source: str, target: str) -> None:
        if source not in self.renamed:
            self.renamed.append(source)
            signal.raise_signal(signal.SIGUSR1)
        os.rename(source, target)


@pytest.fixture
def on_signal() -> Iterator[Any]:
    """Return a function that sets what SIGUSR1 calls; afterwards it is as it was."""
    before = signal.getsignal(signal.SIGUSR1)
    yield lambda call: signal.signal(signal.SIGUSR1, lambda *_: call())
    signal.signal(signal.SIGUSR1, before)


def test_a_signal_handler_that_syncs_while_log_seals_a_segment_lets_it_go_on(store: str, back: Any, on_signal: Any):
    fs = SignalledFs()
    writer = Writer(store, "p", config=WriterConfig(sync_interval_s=None, segment_bytes=4096), fs=fs)
    shape = writer.shape("r", None, ("a",))
    on_signal(writer.sync)
    assert all(log(writer, shape, step) for step in range(500))
    writer.close()
    assert len(fs.renamed) == len(back.files()) > 3
    assert steps(back) == list(range(500))
    assert {path[-4:] for path in back.files()} == {".seg"}
