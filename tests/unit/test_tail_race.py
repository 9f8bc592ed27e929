"""A segment may be sealed between any two looks of a reader: nothing is lost, doubled or raised."""

from __future__ import annotations

import os

import pytest

import eventlog
from eventlog.columns import Batch
from eventlog.fs import LocalFs
from eventlog.manifest import Watermark
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
