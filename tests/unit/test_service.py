"""The service goes on when the store cannot be listed for a while, and says so once."""

from __future__ import annotations

import errno
import logging

import eventlog
from compactor.config import CompactorConfig
from compactor.service import Service
from eventlog.fs import LocalFs
from eventlog.store import open_store


class Unlisted(LocalFs):
    failing = True

    def subdirs(self, path):
        if self.failing:
            raise OSError(errno.EIO, "Input/output error", path)
        return super().subdirs(path)


def test_a_store_that_cannot_be_listed_is_complained_of_once_and_folded_when_it_can(tmp_path, caplog):
    with eventlog.init(project="p", name="a", dir=tmp_path) as run:
        run.log({"x": 1.0})
    fs = Unlisted()
    service = Service(str(tmp_path), CompactorConfig(), fs=fs)
    with caplog.at_level(logging.ERROR, "compactor"):
        service.sweep()
        service.sweep()
    assert len(caplog.records) == 1
    assert "cannot be listed" in caplog.text
    fs.failing = False
    service.sweep()
    assert open_store(tmp_path).manifest("p").version == 1


def test_in_the_end_everything_is_folded_once_more_whether_it_is_due_or_not(tmp_path):
    service = Service(str(tmp_path), CompactorConfig(fold_interval_s=3600))
    run = eventlog.init(project="p", name="a", dir=tmp_path)
    run.log({"x": 1.0}, step=0)
    service.sweep()
    run.log({"x": 2.0}, step=1)
    service.sweep()
    assert open_store(tmp_path).at(1).metrics("p").num_rows == 1
    service.stop()
    service.fold_rest()
    assert open_store(tmp_path).at(2).metrics("p").num_rows == 2
    run.finish()
