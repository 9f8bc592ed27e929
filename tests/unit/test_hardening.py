"""What an expert's review found: odd environments and odd values never stop training, and never stop a fold."""

from __future__ import annotations

import os
import threading

import pytest

import eventlog
from compactor.config import CompactorConfig
from compactor.fold import fold
from eventlog import manifest as manifests
from eventlog.errors import DataError, EventLogWarning, UsageError
from eventlog.fs import LOCAL, LocalFs
from eventlog.identity import RunInfo
from eventlog.run import Run
from eventlog.store import open_store

QUIET = eventlog.WriterConfig(sync_interval_s=None)


def start(root, *, rank: int | None = None, fs: LocalFs | None = None) -> Run:
    info = RunInfo(project="p", run_id="r", name="named", rank=rank, config={"lr": 1})
    return Run(str(root), info, config=QUIET, fs=fs or LOCAL)


def test_a_rank_that_no_column_holds_does_not_stop_a_fold(tmp_path):
    run = start(tmp_path, rank=3_000_000_000)
    run.log({"x": 1.0})
    run.finish()
    fold(LOCAL, str(tmp_path), "p", CompactorConfig())
    assert open_store(tmp_path).metrics("p")["_rank"].to_pylist() == [None]


class FullDisk(LocalFs):
    full = True

    def write(self, fd, data, /):
        if self.full:
            raise OSError(28, "No space left on device")
        return os.write(fd, data)


def test_a_disk_that_is_full_at_init_leaves_no_files_and_the_run_keeps_its_name(tmp_path):
    fs = FullDisk()
    with pytest.warns(EventLogWarning, match="ENOSPC"):
        run = start(tmp_path, fs=fs)
    for _ in range(50):
        run.log({"x": 0.0})
    (directory,) = (tmp_path / "segments" / "p").iterdir()
    assert list(directory.iterdir()) == []
    fs.full = False
    run.log({"x": 1.0})
    run.finish()
    assert run.lost == 50
    (row,) = open_store(tmp_path).runs("p").select(["name", "config", "status"]).to_pylist()
    assert row == {"name": "named", "config": '{"lr":1}', "status": "finished"}


def test_a_process_that_may_start_no_thread_still_logs(tmp_path, monkeypatch):
    def refuse(_thread):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    with pytest.warns(EventLogWarning, match="no thread"):
        run = eventlog.init(project="p", dir=tmp_path)
    run.log({"x": 1.0})
    run.finish()
    assert open_store(tmp_path).metrics("p").num_rows == 1


def test_whatever_a_value_raises_is_a_warning_and_the_rest_is_kept(tmp_path):
    class Hostile:
        size = 1

        def item(self):
            raise KeyError("no")

    run = start(tmp_path)
    with pytest.warns(EventLogWarning, match="'odd' was not kept"):
        run.log({"odd": Hostile(), "x": 1.0})
    run.finish()
    assert open_store(tmp_path).metrics("p")["x"].to_pylist() == [1.0]


def test_names_that_are_no_text_are_escaped(tmp_path):
    run = eventlog.init("p", name="caf\udce9", group="\udce9", tags=["\udce9"], dir=tmp_path, settings=QUIET)
    run.define_metric("x", step_metric=object())
    with pytest.raises(UsageError, match="log_system"):
        run.log_system([1])
    run.finish()
    assert open_store(tmp_path).runs("p")["name"].to_pylist() == ["caf\\udce9"]


def test_a_directory_with_a_segments_name_is_no_segment(tmp_path):
    run = start(tmp_path)
    run.log({"x": 1.0})
    run.finish()
    (tmp_path / "segments" / "p" / run.writer_id / "00000009.seg").mkdir()
    assert open_store(tmp_path).metrics("p").num_rows == 1


def test_a_store_whose_only_manifest_is_damaged_is_an_error_and_not_empty(tmp_path):
    run = start(tmp_path)
    run.log({"x": 1.0})
    run.finish()
    version = fold(LOCAL, str(tmp_path), "p", CompactorConfig()).manifest.version
    path = manifests.names.manifest_path(str(tmp_path), "p", version)
    data = bytearray(LOCAL.read(path))
    data[60] ^= 1
    with open(path, "wb") as file:
        file.write(data)
    with pytest.raises(DataError, match="checksum"):
        open_store(tmp_path).metrics("p")
    with pytest.raises(DataError, match="checksum"):
        fold(LOCAL, str(tmp_path), "p", CompactorConfig())


def test_a_fold_of_many_small_events_goes_in_batches(tmp_path):
    run = start(tmp_path)
    for _ in range(3000):
        run.log({f"k{index}": True for index in range(100)})
    run.finish()
    folded = fold(LOCAL, str(tmp_path), "p", CompactorConfig())
    assert folded.commits > 1
    assert sum(file.rows for file in folded.manifest.of_table("events")) >= 300_000
