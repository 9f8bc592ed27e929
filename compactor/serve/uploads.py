"""Uploaded files: streamed to disk under names of our own, then kept as blobs; what is not claimed is removed."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import threading
import time
from typing import Final

from compactor.serve.errors import RequestError, UnavailableError
from eventlog import names
from eventlog.blobs import Readable
from eventlog.fs import LOCAL, Fs, write_all

_TOKEN: Final = re.compile(r"[0-9a-f]{32}")
_KEPT_S: Final = 3600.0
_CHUNK_BYTES: Final = 1 << 20


class Upload:
    """An uploaded file, open for reading from its start. Not thread-safe."""

    def __init__(self, fs: Fs, path: str) -> None:
        """Open it.

        Raises:
            FileNotFoundError: it is not there.
        """
        self._fs = fs
        self._fd = fs.open(path)
        self._offset = 0

    def read(self, size: int, /) -> bytes:
        """Return the next bytes, at most `size`; b"" at the end.

        Raises:
            OSError: as the file system raises it.
        """
        data = self._fs.pread(self._fd, size, self._offset)
        self._offset += len(data)
        return data

    def close(self) -> None:
        """Close it."""
        self._fs.close(self._fd)


class Incoming:
    """Files between their upload and the call that says what they are. Thread-safe.

    A client knows a file by a random token, never by a path; what it calls the file is only a label. Nothing here
    is synced: after a crash what was uploaded and not yet kept as a blob is uploaded again.
    """

    def __init__(self, root: str, fs: Fs = LOCAL) -> None:
        """Take the store."""
        self._directory = names.incoming_dir(root)
        self._fs = fs
        self._lock = threading.Lock()
        self._born: dict[str, float] = {}
        self._cleaned = time.monotonic()

    def clean(self) -> None:
        """Remove what an earlier server or a client that went away has left.

        Raises:
            OSError: as the file system raises it.
        """
        now = time.monotonic()
        with self._lock:
            self._cleaned = now
            live = {token for token, born in self._born.items() if now - born < _KEPT_S}
            self._born = {token: self._born[token] for token in live}
        for name in self._fs.names(self._directory):
            if name not in live:
                with contextlib.suppress(FileNotFoundError):
                    self._fs.unlink(os.path.join(self._directory, name))

    def keep(self, source: Readable) -> str:
        """Keep what an open file holds, in bounded memory, and return its token.

        Raises:
            UnavailableError: there is no room; nothing is left of it.
        """
        token = secrets.token_hex(16)
        try:
            if time.monotonic() - self._cleaned > _KEPT_S:
                self.clean()
            with self._lock:
                self._born[token] = time.monotonic()
            self._fs.make_dirs(self._directory, durable=False)
            self._copy(source, os.path.join(self._directory, token))
        except BaseException as error:
            with contextlib.suppress(OSError):
                self.discard(token)
            if isinstance(error, OSError):
                raise UnavailableError(f"an upload could not be kept: {error}") from error
            raise
        return token

    def _copy(self, source: Readable, path: str) -> None:
        fd = self._fs.create(path)
        try:
            while data := source.read(_CHUNK_BYTES):
                write_all(self._fs, fd, data)
        finally:
            self._fs.close(fd)

    def open(self, token: str) -> contextlib.closing[Upload]:
        """Return an uploaded file, for reading.

        Raises:
            RequestError: this is nothing that the server gave out.
            UnavailableError: the server has restarted since: upload it again.
        """
        if _TOKEN.fullmatch(token) is None:
            raise RequestError("the uploaded file was not created by this server")
        try:
            return contextlib.closing(Upload(self._fs, os.path.join(self._directory, token)))
        except FileNotFoundError:
            raise UnavailableError("the uploaded file is gone: upload it again") from None

    def discard(self, token: str) -> None:
        """Remove a file; one that is gone is fine."""
        if _TOKEN.fullmatch(token) is None:
            return
        with self._lock:
            self._born.pop(token, None)
        with contextlib.suppress(FileNotFoundError):
            self._fs.unlink(os.path.join(self._directory, token))


def base_name(label: str | None, fallback: str) -> str:
    """Return the last part of what a client calls a file, of either platform; never a way out of anywhere."""
    name = (label or "").replace("\\", "/").rsplit("/", 1)[-1].replace("\0", "")
    return name if name not in ("", ".", "..") else fallback


def relative_path(label: str | None, fallback: str) -> str:
    """Return what a client calls a file of its project, with forward slashes and without any step upwards."""
    parts = [part for part in (label or "").replace("\\", "/").replace("\0", "").split("/") if part not in ("", ".")]
    if ".." in parts:
        raise RequestError("a file's path must not lead upwards")
    return "/".join(parts) or fallback
