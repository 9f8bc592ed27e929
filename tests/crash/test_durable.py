"""What was said to be durable is: when a sync falls into a roll, and when a killed process put a blob there first."""

from __future__ import annotations

import errno
import os

import pytest

from eventlog import schema
from eventlog.blobs import BlobStore
from eventlog.config import WriterConfig
from eventlog.errors import StorageError
from eventlog.fs import LocalFs
from eventlog.writer import Writer

QUIET = WriterConfig(sync_interval_s=None)


class NotingFs(LocalFs):
    """Notes which files and directories were synced."""

    def __init__(self) -> None:
        self.synced: list[str] = []

    def sync(self, fd):
        self.synced.append(os.path.basename(os.readlink(f"/proc/self/fd/{fd}")))
        os.fdatasync(fd)

    def sync_dir(self, path):
        self.synced.append(path)
        super().sync_dir(path)


@pytest.mark.parametrize("moment", ["retire", "detach"])
def test_a_sync_that_falls_into_a_roll_syncs_the_segment_that_is_retired(tmp_path, monkeypatch, moment):
    fs = NotingFs()
    writer = Writer(str(tmp_path), "p", config=QUIET, fs=fs)
    writer.append(schema.RunStart(1, "r", "p", "r"))
    owner = writer._sealer if moment == "retire" else writer
    original = getattr(owner, moment)

    def interleaved(*args, **kwargs):
        original(*args, **kwargs)
        fs.synced.clear()
        writer.sync()
        assert any(name.startswith("00000001") for name in fs.synced) or moment == "detach"
        seen.extend(fs.synced)

    seen: list[str] = []
    monkeypatch.setattr(owner, moment, interleaved)
    writer.roll()
    monkeypatch.undo()
    assert any(name.startswith("00000001") for name in seen)
    writer.close()


def test_a_blob_that_is_there_already_is_not_acknowledged_before_its_name_is_synced(tmp_path):
    class Failing(NotingFs):
        left = 1

        def sync_dir(self, path):
            if self.left and os.path.basename(path) == digest[:2]:
                self.left -= 1
                raise OSError(errno.EIO, "the disk failed")
            super().sync_dir(path)

    data = b"bytes of a blob"
    digest = BlobStore(str(tmp_path / "elsewhere")).put(data).digest
    fs = Failing()
    blobs = BlobStore(str(tmp_path / "store"), fs)
    with pytest.raises(OSError, match="the disk failed"):
        blobs.put(data)
    fs.synced.clear()
    assert blobs.put(data).digest == digest
    assert os.path.dirname(blobs.path(digest)) in fs.synced


def test_batches_that_a_full_disk_refuses_leave_no_files_behind(tmp_path):
    class Full(LocalFs):
        full = False

        def write(self, fd, data):
            if self.full and len(data) > 2000:
                raise OSError(errno.ENOSPC, "No space left on device")
            return os.write(fd, data)

    fs = Full()
    writer = Writer(str(tmp_path), "p", config=QUIET, fs=fs)
    batch = [schema.Alert(index, "r", "title " * 20) for index in range(50)]
    writer.append_all(batch[:1])
    fs.full = True
    for _ in range(20):
        with pytest.raises(StorageError):
            writer.append_all(batch)
    fs.full = False
    writer.append_all(batch)
    assert writer.next_seq == 52
    assert writer.lost == 0
    writer.close()
    assert len(os.listdir(tmp_path / "segments" / "p" / writer.writer_id)) == 1
