"""A segment may be sealed between any two looks of a reader: nothing is lost, doubled or raised."""

from __future__ import annotations

import os

import pytest

import eventlog
from compactor.config import CompactorConfig
from compactor.work import take_turn
from eventlog.columns import Batch
from eventlog.errors import ConflictError
from eventlog.feed import Feed
from eventlog.fs import LOCAL, LocalFs
from eventlog.manifest import Watermark
from eventlog.snapshot import ReaderCache
from eventlog.store import Store
from eventlog.tail import WriterReader


class SealingFs(LocalFs):
    """Seals a segment just before a reader's n-th call."""

    def __init__(self, path: str, at: int) -> None:
        self._path = path
        self._left = at

    def _tick(self) -> None:
        self._left -= 1
        if self._left == 0:
            os.rename(self._path, self._path.replace(".open", ".seg"))

    def read(self, path, offset=0, size=-1):
        self._tick()
        return super().read(path, offset, size)

    def size(self, path):
        self._tick()
        return super().size(path)

    def entries(self, directory):
        self._tick()
        return super().entries(directory)


@pytest.mark.parametrize("resumed", [False, True])
@pytest.mark.parametrize("at", range(1, 12))
def test_a_segment_that_is_sealed_while_it_is_read(tmp_path, at, resumed):
    quiet = eventlog.WriterConfig(sync_interval_s=None)
    run = eventlog.init(project="p", name="a", dir=tmp_path, settings=quiet)
    for step in range(50):
        run.log({"x": float(step)}, step=step)
    writer_id = run.writer_id
    path = str(tmp_path / "segments" / "p" / writer_id / "00000001.open")
    mark, seen = Watermark(), 0
    if resumed:
        batch = Batch()
        mark = WriterReader(LocalFs(), str(tmp_path), "p", writer_id, mark, batch).read().watermark
        seen = batch.records
        for step in range(50, 80):
            run.log({"x": float(step)}, step=step)
    run._writer._segment.write_seal(final=False)
    batch = Batch()
    fs = SealingFs(path, at)
    found = WriterReader(fs, str(tmp_path), "p", writer_id, mark, batch).read()
    assert (found.gaps, found.damages) == ([], [])
    assert seen + batch.records == run._writer.next_seq - 1
    if os.path.exists(path.replace(".open", ".seg")):
        os.rename(path.replace(".open", ".seg"), path)
    run.finish()


class CollectingFs(LocalFs):
    """Folds everything just before a reader's n-th look at the store, and collects all that it may."""

    def __init__(self, root: str, at: int) -> None:
        self._root = root
        self._left = at

    def fold_at(self, at: int) -> None:
        self._left = at

    def _tick(self) -> None:
        self._left -= 1
        if self._left == 0:
            take_turn(LOCAL, self._root, "p", CompactorConfig(grace_s=0, segment_retention_s=0))

    def names(self, path):
        self._tick()
        return super().names(path)

    def subdirs(self, path):
        self._tick()
        return super().subdirs(path)

    def changed_ns(self, path):
        self._tick()
        return super().changed_ns(path)

    def entries(self, path):
        self._tick()
        return super().entries(path)

    def size(self, path):
        self._tick()
        return super().size(path)

    def read(self, path, offset=0, size=-1):
        self._tick()
        return super().read(path, offset, size)


@pytest.mark.parametrize("folded", [False, True])
@pytest.mark.parametrize("at", range(1, 25))
def test_what_is_folded_and_collected_between_two_looks_of_a_reader_is_in_its_answer(tmp_path, at, folded):
    quiet = eventlog.WriterConfig(sync_interval_s=None)
    for first in (0, 50) if folded else (0,):
        with eventlog.init(project="p", name="a", dir=tmp_path, settings=quiet, resume="allow") as run:
            for step in range(first, first + 50):
                run.log({"x": float(step)}, step=step)
        if folded and not first:
            take_turn(LOCAL, str(tmp_path), "p", CompactorConfig())
    fs = CollectingFs(str(tmp_path), at)
    store = Store(str(tmp_path), fs=fs)
    assert sorted(store.metrics("p", runs="a")["x"].to_pylist()) == [
        float(step) for step in range(100 if folded else 50)
    ]


def log(root, first):
    quiet = eventlog.WriterConfig(sync_interval_s=None)
    with eventlog.init(project="p", name="a", dir=root, settings=quiet, resume="allow") as run:
        for step in range(first, first + 50):
            run.log({"x": float(step)}, step=step)


@pytest.mark.parametrize("followed", [False, True])
@pytest.mark.parametrize("at", range(1, 25))
def test_what_is_folded_and_collected_while_a_feed_advances_is_in_its_view(tmp_path, at, followed):
    fs = CollectingFs(str(tmp_path), 0)
    feed = Feed(fs, str(tmp_path), "p", ReaderCache(fs))
    log(tmp_path, 0)
    if followed:
        feed.advance()
        log(tmp_path, 50)
    fs.fold_at(at)
    try:
        feed.advance()
        rows = feed.view.rows("metrics", None, ["x"])
    except ConflictError:
        feed = Feed(fs, str(tmp_path), "p", ReaderCache(fs))
        feed.advance()
        rows = feed.view.rows("metrics", None, ["x"])
    assert sorted(rows["x"].to_pylist()) == [float(step) for step in range(100 if followed else 50)]
