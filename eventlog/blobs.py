"""Content-addressed blobs: put bytes in, durable before the record that names them; get them out, checked."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from eventlog import names
from eventlog.errors import DataError
from eventlog.fs import LOCAL, staged, write_all

if TYPE_CHECKING:
    from collections.abc import Iterator

    from eventlog.fs import Fs

_CHUNK_BYTES: Final = 1 << 20


class Readable(Protocol):
    """What bytes are read from, such as a file that is open in binary mode."""

    def read(self, size: int, /) -> bytes:
        """Return the next bytes, at most `size`; b"" at the end."""


class BlobRef(NamedTuple):
    """The name and size of a blob."""

    digest: str
    size_bytes: int


class BlobStore:
    """The blobs of one store. Thread-safe and process-safe: the name of a blob is its content's SHA-256."""

    def __init__(self, root: str, fs: Fs = LOCAL) -> None:
        """Take the store's directory; nothing is created before the first `put`."""
        self._root = root
        self._fs = fs

    def put(self, data: bytes) -> BlobRef:
        """Keep bytes; durable when this returns.

        Raises:
            OSError: not kept.
        """
        return self._put_chunks(iter((data,)))

    def put_file(self, file: Readable) -> BlobRef:
        """Keep what an open file holds, in bounded memory; durable when this returns.

        Raises:
            OSError: not kept.
        """
        return self._put_chunks(iter(lambda: file.read(_CHUNK_BYTES), b""))

    def _put_chunks(self, chunks: Iterator[bytes]) -> BlobRef:
        import hashlib

        staging = names.blobs_dir(self._root)
        self._fs.make_dirs(staging)
        digest = hashlib.sha256()
        size = 0
        with staged(self._fs, staging, "blob") as (temporary, fd):
            for chunk in chunks:
                write_all(self._fs, fd, chunk)
                digest.update(chunk)
                size += len(chunk)
        ref = BlobRef(digest.hexdigest(), size)
        final = names.blob_path(self._root, ref.digest)
        directory = os.path.dirname(final)
        try:
            self._fs.make_dirs(directory)
            self._fs.link(temporary, final)
        except FileExistsError:
            pass  # whoever put it there may have been killed before the name was synced
        finally:
            self._fs.unlink(temporary)
        self._fs.sync_dir(directory)
        return ref

    def path(self, digest: str) -> str:
        """Return where a blob is, or would be.

        Raises:
            UsageError: `digest` is no digest.
        """
        return names.blob_path(self._root, digest)

    def get(self, digest: str) -> bytes:
        """Return a blob's bytes, checked against its name.

        Raises:
            UsageError: `digest` is no digest.
            FileNotFoundError: there is no such blob.
            DataError: its bytes have changed.
        """
        import hashlib

        path = names.blob_path(self._root, digest)
        data = self._fs.read(path)
        if hashlib.sha256(data).hexdigest() != digest:
            raise DataError(path, None, "the bytes do not match the digest that is the blob's name")
        return data
