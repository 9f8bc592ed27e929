"""Blobs: named by their content, durable when put, checked when read."""

from __future__ import annotations

import hashlib
import io
import os
import threading
from typing import Any

import pytest

from eventlog import names
from eventlog.blobs import BlobRef, BlobStore
from eventlog.errors import DataError, UsageError
from eventlog.fs import LOCAL

DATA = b"some bytes"
DIGEST = hashlib.sha256(DATA).hexdigest()


def everything(root: str) -> list[str]:
    return [os.path.join(base, name) for base, _, found in os.walk(root) for name in found]


def test_bytes_come_back(store: str):
    blobs = BlobStore(store)
    assert blobs.put(DATA) == BlobRef(DIGEST, len(DATA))
    assert blobs.get(DIGEST) == DATA
    assert everything(store) == [names.blob_path(store, DIGEST)]


def test_nothing_is_created_before_the_first_put(store: str):
    BlobStore(store)
    assert not os.path.exists(store)


def test_the_same_bytes_are_kept_once(store: str):
    blobs = BlobStore(store)
    inode = os.stat(names.blob_path(store, blobs.put(DATA).digest)).st_ino
    blobs.put(DATA)
    assert os.stat(names.blob_path(store, DIGEST)).st_ino == inode
    assert len(everything(store)) == 1


@pytest.mark.parametrize("size", [0, 1, (1 << 20) - 1, 1 << 20, (1 << 20) + 1, 3 << 20])
def test_files_of_any_size_come_back(store: str, size: int):
    data = os.urandom(size)
    ref = BlobStore(store).put_file(io.BytesIO(data))
    assert ref.size_bytes == size
    assert BlobStore(store).get(ref.digest) == data


def test_a_blob_is_synced_before_it_has_its_name_and_the_name_after(store: str, faulty: Any):
    BlobStore(store, faulty).put(DATA)
    kinds = [kind for kind, _ in faulty.calls]
    link = kinds.index("link")
    assert "sync" in kinds[:link]
    assert "sync_dir" in kinds[link:]


def test_a_failed_put_leaves_nothing_behind(store: str, faulty: Any):
    def fail(_fd: int, _data: bytes) -> None:
        raise OSError(28, "full")

    faulty.before_write = fail
    with pytest.raises(OSError, match="full"):
        BlobStore(store, faulty).put(DATA)
    assert everything(store) == []


def test_changed_bytes_are_found(store: str):
    blobs = BlobStore(store)
    blobs.put(DATA)
    with open(names.blob_path(store, DIGEST), "r+b") as file:
        file.write(b"S")
    with pytest.raises(DataError, match="digest"):
        blobs.get(DIGEST)


def test_what_is_not_there_is_said_to_be_so(store: str):
    with pytest.raises(FileNotFoundError):
        BlobStore(store).get(DIGEST)
    with pytest.raises(UsageError):
        BlobStore(store).get("../../etc/passwd")


def test_many_threads_may_put_the_same_bytes(store: str):
    errors: list[BaseException] = []

    def put() -> None:
        try:
            for number in range(20):
                BlobStore(store, LOCAL).put(b"%d" % number)
        except BaseException as error:  # noqa: BLE001 - handed to the main thread
            errors.append(error)

    threads = [threading.Thread(target=put) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert len(everything(store)) == 20
