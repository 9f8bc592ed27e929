"""A batch that a full disk cuts short, and whose beginning a fold has read, is completed when it is sent again."""

from __future__ import annotations

import errno
import os
import shutil

import pytest

from compactor.config import CompactorConfig
from compactor.serve.config import ServeConfig
from compactor.serve.errors import UnavailableError
from compactor.serve.hub import Hub
from compactor.serve.wire import LogEntry
from compactor.work import take_turn
from eventlog.config import WriterConfig
from eventlog.fs import LOCAL, LocalFs
from eventlog.store import open_store
from eventlog.verify import verify

ENTRIES = [LogEntry("p", "a", {"x": float(step)}, step=step, log_id=f"l{step}") for step in range(6)]


class Full(LocalFs):
    """A disk that takes so many bytes of a write, lets a compactor look, and then has no room."""

    room: int | None = None
    root = ""

    def write(self, fd, data, /):
        if self.room is None or len(data) < 100:
            return super().write(fd, data)
        taken, self.room = self.room, None
        os.write(fd, bytes(data)[:taken])
        take_turn(LOCAL, self.root, "p", CompactorConfig())
        raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("room", range(0, 280, 20))
def test_what_is_missing_of_a_batch_is_taken_although_others_came_meanwhile_and_the_index_was_lost(tmp_path, room):
    fs = Full()
    fs.root = str(tmp_path)
    writers = WriterConfig(sync_interval_s=None, on_error="raise")
    hub = Hub(fs.root, ServeConfig(write_token="t"), fs=fs, writers=writers)
    hub.intake("p").take_logs(ENTRIES[:1])
    fs.room = room
    with pytest.raises(UnavailableError, match="No space left"):
        hub.intake("p").take_logs(ENTRIES)
    others = [LogEntry("p", "b", {"y": float(step)}, step=step, log_id=f"m{step}") for step in range(9)]
    hub.intake("p").take_logs(others)
    hub.close()
    shutil.rmtree(tmp_path / "index", ignore_errors=True)
    again = Hub(fs.root, ServeConfig(write_token="t"), fs=fs, writers=writers)
    again.intake("p").take_logs(ENTRIES)
    again.intake("p").take_logs(others)
    again.close()
    rows = open_store(tmp_path).metrics("p").to_pylist()
    assert sorted(row["x"] for row in rows if row["x"] is not None) == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]
    assert sorted(row["y"] for row in rows if row["y"] is not None) == [float(step) for step in range(9)]
    report = verify(fs.root, blobs=True)
    assert (report.findings, report.lost, report.doubled, report.gaps) == ([], 0, 0, 0)


@pytest.mark.parametrize("room", range(0, 280, 10))
def test_what_a_fold_saw_of_a_batch_that_was_cut_short_stays_and_the_repeat_adds_the_rest(tmp_path, room):
    fs = Full()
    fs.root = str(tmp_path)
    hub = Hub(
        fs.root, ServeConfig(write_token="t"), fs=fs, writers=WriterConfig(sync_interval_s=None, on_error="raise")
    )
    intake = hub.intake("p")
    intake.take_logs(ENTRIES[:1])
    fs.room = room
    with pytest.raises(UnavailableError, match="No space left"):
        intake.take_logs(ENTRIES)
    assert fs.room is None
    intake.take_logs(ENTRIES[::-1])
    intake.take_logs(ENTRIES)
    hub.close()
    take_turn(LOCAL, fs.root, "p", CompactorConfig())
    assert sorted(open_store(tmp_path).metrics("p")["x"].to_pylist()) == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]
    report = verify(fs.root, blobs=True)
    assert (report.findings, report.lost, report.doubled, report.gaps) == ([], 0, 0, 0)
    assert open_store(tmp_path).manifest("p").quarantined == []
