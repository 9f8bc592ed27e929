"""Calls that came before the store was restored, each in a durable file of its own until it has been done."""

from __future__ import annotations

import contextlib
import os
import threading
from typing import Final, NamedTuple

import msgspec

from compactor.serve.errors import UnavailableError
from eventlog import names
from eventlog.fs import Fs, put_if_absent

_REFUSED: Final = ".refused"


class _Head(msgspec.Struct):
    """The first line of a file: what the bytes after it are."""

    call: str
    received_ns: int


class HeldCall(NamedTuple):
    """A call that waits.

    Attributes:
        id: unique for ever; calls come in the order of their ids.
        name: of the call.
        received_ns: when it came.
        body: as the client sent it.
    """

    id: str
    name: str
    received_ns: int
    body: bytes


class Held:
    """The calls that wait in one store. Thread-safe; one process at a time."""

    def __init__(self, root: str, fs: Fs) -> None:
        """Take the store; nothing is made before the first call is kept."""
        self._directory = names.held_dir(root)
        self._fs = fs
        self._lock = threading.Lock()
        self._last = 0

    def keep(self, name: str, received_ns: int, body: bytes) -> None:
        """Keep a call; durable when this returns.

        Args:
            name: of the call.
            received_ns: when it came.
            body: as the client sent it.

        Raises:
            UnavailableError: there is no room, or the disk refused.
        """
        head = msgspec.json.encode(_Head(name, received_ns))
        try:
            with self._lock:
                self._fs.make_dirs(self._directory)
                if not self._last:
                    self._last = max(map(names.held_number, self._fs.names(self._directory)), default=0)
                self._last += 1
                put_if_absent(self._fs, self._directory, names.held_name(self._last), b"%s\n%s" % (head, body))
        except OSError as error:
            raise UnavailableError(f"the call could not be kept: {error}") from error

    def ids(self) -> list[str]:
        """Return the ids of the calls that wait, the oldest first.

        Raises:
            OSError: as the file system raises it.
        """
        return [name for name in self._fs.names(self._directory) if names.is_held(name)]

    def read(self, call_id: str) -> HeldCall:
        """Return a call.

        Raises:
            OSError: as the file system raises it.
            ValueError: the file is damaged.
        """
        head, _, body = self._fs.read(os.path.join(self._directory, call_id)).partition(b"\n")
        try:
            found = msgspec.json.decode(head, type=_Head)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise ValueError(str(error)) from error
        return HeldCall(call_id, found.call, found.received_ns, body)

    def done(self, call_id: str) -> None:
        """Forget a call whose records are durable.

        Raises:
            OSError: as the file system raises it.
        """
        with contextlib.suppress(FileNotFoundError):
            self._fs.unlink(os.path.join(self._directory, call_id))

    def clean(self) -> None:
        """Remove what a server that was killed has left half kept; while nobody keeps a call.

        Raises:
            OSError: as the file system raises it.
        """
        for name in filter(names.is_temporary, self._fs.names(self._directory)):
            with contextlib.suppress(FileNotFoundError):
                self._fs.unlink(os.path.join(self._directory, name))

    def refuse(self, call_id: str) -> None:
        """Set a call aside that cannot be done as it is; its file stays, under another name, for people to look at.

        Raises:
            OSError: as the file system raises it.
        """
        path = os.path.join(self._directory, call_id)
        self._fs.rename(path, path + _REFUSED)  # when that is lost, it is refused once more

    def refused(self) -> int:
        """Return how many calls are set aside.

        Raises:
            OSError: as the file system raises it.
        """
        return sum(name.endswith(_REFUSED) for name in self._fs.names(self._directory))
