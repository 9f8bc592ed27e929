"""A disk that refuses: training goes on, losses are counted and told, and what was kept is kept exactly once."""

import errno
import gc
import threading
import warnings

import pyarrow as pa
import pytest

from compactor.config import CompactorConfig
from compactor.fold import fold
from eventlog import names, parquet, tail, values
from eventlog.columns import Batch
from eventlog.config import WriterConfig
from eventlog.errors import DurabilityUnknownError, EventLogWarning, StorageError
from eventlog.manifest import Watermark
from eventlog.run import Run, RunInfo
from eventlog.testing import CrashFs, sweep
from eventlog.writer import Writer

ROOT, PROJECT = "/store", "p"


def writer_on(fs: CrashFs, **settings: object) -> Writer:
    return Writer(ROOT, PROJECT, config=WriterConfig(sync_interval_s=None, **settings), fs=fs)


def log(writer: Writer, *numbers: int) -> list[int]:
    """Log each number; return those that were kept."""
    shape = writer.shape("run-a", None, ("x",))
    return [number for number in numbers if writer.log(shape, number, shape.pack(float(number)))]


def read(fs: CrashFs) -> tuple[list[int], Batch]:
    """Return the steps of all rows, and the batch; assert that there is no gap and no damage but a torn tail."""
    batch = Batch()
    for writer_id in tail.writers(fs, ROOT, PROJECT):
        found = tail.WriterReader(fs, ROOT, PROJECT, writer_id, Watermark(), batch).read()
        assert found.gaps == []
    steps = [int(step) for block in batch.metrics if block.step is not None for step in block.step]
    numbers = [int(value) for block in batch.metrics for value in block.values[:, 0]]
    assert steps == numbers
    return sorted(steps), batch


def segments(fs: CrashFs) -> list[str]:
    (writer_id,) = tail.writers(fs, ROOT, PROJECT)
    return [entry.name for entry in fs.entries(names.writer_dir(ROOT, PROJECT, writer_id))]


@pytest.mark.invariant(12)
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
@pytest.mark.parametrize("short_write_bytes", [None, 0, 1, 20])
def test_a_full_disk_costs_counted_records_and_logging_resumes_when_there_is_space(code, short_write_bytes):
    fs = CrashFs()
    writer = writer_on(fs)
    kept = log(writer, *range(5))
    fs.fail_next("write", code, None, short_write_bytes)
    with pytest.warns(EventLogWarning, match=errno.errorcode[code]) as caught:
        assert log(writer, *range(5, 12)) == []
    assert len(caught) == 1
    fs.heal()
    kept += log(writer, *range(12, 17))
    writer.close()
    assert kept == [*range(5), *range(12, 17)]
    steps, batch = read(fs.after_crash("lost"))
    assert steps == kept
    assert (batch.dropped, writer.lost) == (7, 7)
    (told,) = [row for row in batch.events if row.kind == "dropped"]
    assert values.from_json(told.payload)["count"] == 7
    assert errno.errorcode[code] in values.from_json(told.payload)["reason"]
    assert told.seq == 6


@pytest.mark.invariant(12)
def test_a_disk_that_is_full_from_the_start_is_told_of_by_the_first_record_that_fits():
    fs = CrashFs()
    fs.fail_next("mkdir", errno.ENOSPC, None)
    writer = writer_on(fs)
    with pytest.warns(EventLogWarning, match="ENOSPC"):
        assert log(writer, 0, 1, 2) == []
    fs.heal()
    assert log(writer, 3) == [3]
    writer.close()
    steps, batch = read(fs)
    assert (steps, batch.dropped) == ([3], 3)


@pytest.mark.invariant(12)
def test_losses_are_told_of_on_close_when_nothing_was_logged_after_them():
    fs = CrashFs()
    fs.fail_next("create", errno.ENOSPC, None)
    writer = writer_on(fs)
    with pytest.warns(EventLogWarning, match="ENOSPC"):
        log(writer, 0, 1, 2)
    fs.heal()
    writer.close()
    assert read(fs)[1].dropped == 3


@pytest.mark.invariant(12)
def test_a_run_on_a_full_disk_goes_on_and_ends():
    fs = CrashFs()
    run = Run(
        ROOT, RunInfo(project=PROJECT, run_id="run-a", name="a"), config=WriterConfig(sync_interval_s=None), fs=fs
    )
    run.log({"x": 0.0}, step=0)
    fs.fail_next("write", errno.ENOSPC, None)
    with pytest.warns(EventLogWarning, match="ENOSPC"):
        run.log({"x": 1.0, "note": "text"}, step=1)
    run.log({"x": 2.0, "note": "text"}, step=2)
    run.log({"x": 3.0}, step=3)
    assert run.lost == 3
    fs.heal()
    run.log({"x": 4.0}, step=4)
    run.finish()
    steps, batch = read(fs.after_crash("lost"))
    assert (steps, batch.dropped) == ([0, 4], 3)
    assert "run_end" in {row.kind for row in batch.events}


def test_a_full_disk_raises_when_that_was_asked_for():
    fs = CrashFs()
    writer = writer_on(fs, on_error="raise")
    log(writer, 0)
    fs.fail_next("write", errno.ENOSPC, None)
    with pytest.raises(StorageError, match="ENOSPC") as caught:
        log(writer, 1)
    assert caught.value.errno == errno.ENOSPC
    fs.heal()
    assert log(writer, 2) == [2]
    writer.close()
    steps, batch = read(fs)
    assert (steps, batch.dropped) == ([0, 2], 1)


@pytest.mark.parametrize("taken_bytes", [0, 1, 13, 14, 30])
def test_a_short_write_is_made_whole(taken_bytes):
    fs = CrashFs()
    writer = writer_on(fs)
    kept = log(writer, 0, 1)
    fs.fail_next("write", 0, 0, taken_bytes)
    kept += log(writer, 2, 3)
    writer.close()
    assert kept == [0, 1, 2, 3]
    assert read(fs)[0] == kept


@pytest.mark.parametrize("code", [errno.EFBIG, errno.EIO])
@pytest.mark.parametrize("short_write_bytes", [None, 9])
def test_a_file_that_refuses_to_grow_is_left_for_a_new_one(code, short_write_bytes):
    fs = CrashFs()
    writer = writer_on(fs)
    kept = log(writer, 0, 1, 2)
    fs.fail_next("write", code, None, short_write_bytes, where=names.segment_name(1, sealed=False))
    kept += log(writer, 3, 4, 5)
    assert kept == [*range(6)]
    assert len(segments(fs)) == 2
    writer.sync()
    assert read(fs.after_crash("lost"))[0] == kept
    writer.close()
    assert read(fs.after_crash("lost"))[0] == kept
    assert writer.lost == 0


def test_a_file_that_can_neither_grow_nor_shrink_costs_nothing_that_was_kept():
    fs = CrashFs()
    writer = writer_on(fs)
    kept = log(writer, 0, 1, 2)
    first = names.segment_name(1, sealed=False)
    fs.fail_next("write", errno.EIO, None, 7, where=first)
    fs.fail_next("truncate", errno.EIO, None, where=first)
    kept += log(writer, 3, 4)
    writer.close()
    assert kept == [0, 1, 2, 3, 4]
    assert read(fs)[0] == kept
    assert read(fs.after_crash("lost"))[0] == kept


@pytest.mark.invariant(2)
def test_records_of_a_failed_sync_are_written_again_and_count_once():
    fs = CrashFs()
    writer = writer_on(fs)
    kept = log(writer, 0, 1)
    writer.sync()
    kept += log(writer, 2, 3)
    fs.fail_next("sync", errno.EIO)
    writer.sync()
    assert read(fs)[0] == kept
    kept += log(writer, 4)
    writer.close()
    for crash in sweep.crashes(fs, seeds=(None, 1, 2)):
        assert read(crash.fs)[0] == kept
    manifest = fold(fs, ROOT, PROJECT, CompactorConfig()).manifest
    (mark,) = manifest.writers.values()
    assert (mark.seq, mark.records, mark.done) == (5, 5, True)


def test_when_nothing_can_be_synced_that_is_said_and_made_good_later():
    fs = CrashFs()
    writer = writer_on(fs)
    kept = log(writer, 0, 1)
    fs.fail_next("sync", errno.EIO, None)
    for _ in range(2):
        with pytest.raises(DurabilityUnknownError):
            writer.sync()
    kept += log(writer, 2)
    fs.heal()
    writer.sync()
    assert read(fs.after_crash("lost"))[0] == kept
    kept += log(writer, 3)
    writer.close()
    assert read(fs.after_crash("lost"))[0] == kept


def repeated_late(fs: CrashFs) -> list[int]:
    """Log so that the copy of a retired segment is made after its successor was begun, as a slow sync thread does."""
    writer = writer_on(fs)
    kept = log(writer, *range(150))
    writer._thread = threading.main_thread()  # as if the sync thread was to seal what is retired
    with writer.lock:
        writer._roll(final=False)
    writer._thread = None
    kept += log(writer, *range(150, 300))
    assert segments(fs) == ["00000001.open", "00000002.open"]
    fs.fail_next("sync", errno.EIO, where=names.segment_name(1, sealed=False))
    writer.sync()
    return kept


def test_a_copy_that_is_numbered_after_its_successor_is_read_before_it():
    fs = CrashFs()
    kept = repeated_late(fs)
    for crash in sweep.crashes(fs, seeds=(None, 1, 2)):
        assert read(crash.fs)[0] == kept


def test_a_store_with_such_a_copy_is_folded_once_and_then_left_alone():
    fs = CrashFs()
    kept = repeated_late(fs)
    manifest = fold(fs, ROOT, PROJECT, CompactorConfig()).manifest
    assert sum(file.rows for file in manifest.of_table("metrics")) == len(kept)
    again = fold(fs, ROOT, PROJECT, CompactorConfig())
    assert (again.commits, again.manifest.version) == (0, manifest.version)


def test_such_a_copy_is_folded_in_small_batches_without_losing_what_follows_it():
    fs = CrashFs()
    kept = repeated_late(fs)
    lost_first = fs.after_crash("lost")
    for disk in (fs, lost_first):
        for _ in range(4):
            manifest = fold(disk, ROOT, PROJECT, CompactorConfig(batch_bytes=4096)).manifest
        assert sum(file.rows for file in manifest.of_table("metrics")) == len(kept)
        assert manifest.gaps == []


@pytest.mark.invariant(12)
@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC])
def test_a_writer_in_which_any_one_step_fails_keeps_what_it_says_it_kept(code):
    step = 0
    while True:
        step += 1
        fs = CrashFs()
        fs.fail_at(step, code)
        writer = writer_on(fs, segment_bytes=4096)
        kept: list[int] = []
        synced: list[int] = []
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", EventLogWarning)
            for start in range(0, 160, 20):
                kept += log(writer, *range(start, start + 20))
                try:
                    writer.sync()
                    synced = list(kept)
                except DurabilityUnknownError:
                    continue
            try:
                writer.close()
                synced = list(kept)
            except DurabilityUnknownError:
                pass
        steps, batch = read(fs)
        assert steps == kept
        assert (160 - len(kept), batch.dropped) == (writer.lost, writer.lost)
        for crash in sweep.crashes(fs):
            assert set(read(crash.fs)[0]) >= set(synced)
        if step > len(fs.operations):
            break
    assert step > 100


def test_a_discarded_parquet_file_writes_nothing_into_the_file_that_gets_its_descriptor():
    fs = CrashFs()
    schema = pa.schema([("x", pa.float64())])
    staged = parquet.Writer(fs, ROOT, PROJECT, "metrics", schema, 1)
    staged.write(pa.table({"x": pa.array([1.0] * 100)}))
    staged.discard()
    fd = fs.create("/segment")
    fs.write(fd, b"records")
    del staged
    gc.collect()
    assert fs.read("/segment") == b"records"
