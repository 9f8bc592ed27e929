"""Uploaded files: streamed to disk under names of our own, then kept as blobs; what is not claimed is removed."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import threading
import time
from typing import IO, Final

from compactor.serve.errors import RequestError, UnavailableError
from eventlog import names

_TOKEN: Final = re.compile(r"[0-9a-f]{32}")
_KEPT_S: Final = 3600.0


class Incoming:
    """Files between their upload and the call that says what they are. Thread-safe.

    A client knows a file by a random token, never by a path; what it calls the file is only a label.
    """

    def __init__(self, root: str) -> None:
        """Take the store."""
        self._directory = names.incoming_dir(root)
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
        if os.path.isdir(self._directory):
            for name in os.listdir(self._directory):
                if name not in live:
                    with contextlib.suppress(FileNotFoundError):
                        os.unlink(os.path.join(self._directory, name))

    def create(self) -> tuple[str, IO[bytes]]:
        """Return a new token and the file to write to.

        Raises:
            UnavailableError: there is no room.
        """
        token = secrets.token_hex(16)
        try:
            if time.monotonic() - self._cleaned > _KEPT_S:
                self.clean()
            with self._lock:
                self._born[token] = time.monotonic()
            os.makedirs(self._directory, exist_ok=True)
            return token, open(os.path.join(self._directory, token), "xb")
        except OSError as error:
            raise UnavailableError(f"an upload could not be kept: {error}") from error

    def open(self, token: str) -> IO[bytes]:
        """Return an uploaded file, for reading.

        Raises:
            RequestError: this is nothing that the server gave out.
            UnavailableError: the server has restarted since: upload it again.
        """
        if _TOKEN.fullmatch(token) is None:
            raise RequestError("the uploaded file was not created by this server")
        try:
            return open(os.path.join(self._directory, token), "rb")
        except FileNotFoundError:
            raise UnavailableError("the uploaded file is gone: upload it again") from None

    def discard(self, token: str) -> None:
        """Remove a file; one that is gone is fine."""
        if _TOKEN.fullmatch(token) is None:
            return
        with self._lock:
            self._born.pop(token, None)
        try:
            os.unlink(os.path.join(self._directory, token))
        except FileNotFoundError:
            return


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
