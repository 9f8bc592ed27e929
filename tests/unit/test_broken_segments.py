"""A segment that cannot be cut back after a failed write is left: nothing is appended behind what stands there."""

from __future__ import annotations

import errno
import os
import warnings

import pytest

from eventlog import schema
from eventlog.config import WriterConfig
from eventlog.errors import StorageError
from eventlog.fs import LocalFs
from eventlog.identity import RunInfo
from eventlog.run import Run
from eventlog.store import open_store
from eventlog.verify import verify
from eventlog.writer import Writer


class Stuck(LocalFs):
    """A disk on which the next write is cut short, and that refuses to truncate."""

    taken: int | None = None
    error: BaseException = OSError(errno.ENOSPC, "No space left on device")

    def write(self, fd, data, /):
        if self.taken is None:
            return super().write(fd, data)
        taken, self.taken = self.taken, None
        os.write(fd, bytes(data)[:taken])
        raise self.error

    def truncate(self, fd, size, /):  # noqa: ARG002
        raise OSError(errno.EDQUOT, "Disk quota exceeded")


def steps(root) -> list[int]:
    return sorted(open_store(root).metrics("p")["_step"].to_pylist())


@pytest.mark.parametrize("taken", [1, 13, 30])
@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "full"), OSError(errno.EIO, "bad"), KeyboardInterrupt()])
def test_what_is_logged_after_a_cut_back_that_failed_is_whole_and_what_is_dropped_is_counted(tmp_path, taken, error):
    fs = Stuck()
    run = Run(
        str(tmp_path), RunInfo(project="p", run_id="r", name="r"), config=WriterConfig(sync_interval_s=None), fs=fs
    )
    run.log({"x": 0.0}, step=0)
    fs.taken, fs.error = taken, error
    interrupted = False
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            run.log({"x": 1.0}, step=1)
        except KeyboardInterrupt:
            interrupted = True
        assert interrupted == isinstance(error, KeyboardInterrupt)
        run.log({"x": 2.0}, step=2)
        # What stands behind the last frame must not be taken for a part of this one.
        fs.taken, fs.error = taken, OSError(errno.ENOSPC, "full")
        run.log({"x": 3.0}, step=3)
        run.log({"x": 4.0}, step=4)
        run.finish()
    kept = steps(tmp_path)
    report = verify(str(tmp_path))
    assert set(kept) >= {0, 2, 4}
    assert report.dropped == 5 - len(kept) - interrupted
    assert (report.lost, report.doubled, report.gaps) == (0, 0, 0)


@pytest.mark.parametrize("taken", [1, 14, 30, 60])
def test_what_stands_behind_the_last_frame_is_not_taken_for_a_part_of_the_next(tmp_path, taken):
    fs = Stuck()
    writer = Writer(str(tmp_path), "p", config=WriterConfig(sync_interval_s=None), fs=fs)
    kept = [True]
    writer.append(schema.Alert(0, "r", "title 0"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for number in range(1, 7):
            # Each second one is cut short.
            fs.taken = taken if number % 2 else None
            kept.append(writer.append(schema.Alert(number, "r", f"title {number} {'long ' * 10}")))
    writer.close()
    rows = open_store(tmp_path).events("p", kinds="alert").to_pylist()
    report = verify(str(tmp_path))
    assert (len(rows), report.dropped) == (sum(kept), 7 - sum(kept))
    assert (report.lost, report.doubled, report.gaps) == (0, 0, 0)


def test_a_batch_after_a_cut_back_that_failed_goes_to_another_segment(tmp_path):
    fs = Stuck()
    writer = Writer(str(tmp_path), "p", config=WriterConfig(sync_interval_s=None, on_error="raise"), fs=fs)
    alerts = [schema.Alert(number, "r", f"title {number}") for number in range(6)]
    writer.append_all(alerts[:1])
    fs.taken = 50
    with pytest.raises(StorageError):
        writer.append_all(alerts[1:4])
    kept = writer.next_seq - 1
    writer.append_all(alerts[4:])
    writer.close()
    titles = [row["name"] for row in open_store(tmp_path).events("p", kinds="alert").to_pylist()]
    assert len(titles) == kept + 2
    report = verify(str(tmp_path))
    assert (report.lost, report.doubled, report.gaps) == (0, 0, 0)


def test_a_seal_that_was_cut_short_and_cannot_be_removed_ends_the_segment(tmp_path):
    fs = Stuck()
    run = Run(
        str(tmp_path), RunInfo(project="p", run_id="r", name="r"), config=WriterConfig(sync_interval_s=None), fs=fs
    )
    run.log({"x": 0.0}, step=0)
    fs.taken = 9
    with pytest.raises(StorageError):
        run._writer.roll()
    run.log({"x": 1.0}, step=1)
    run.finish()
    assert steps(tmp_path) == [0, 1]
    report = verify(str(tmp_path))
    assert (report.lost, report.doubled, report.gaps, report.dropped) == (0, 0, 0, 0)
