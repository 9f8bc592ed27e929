"""What pyarrow writes a data file into: over the seam, with a hash, and never failing in the middle of Arrow's code."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from eventlog import fs as seam
from eventlog.fs import Fs

if TYPE_CHECKING:
    from typing_extensions import Buffer


class Sink:
    """A file object over the seam that hashes what passes through it; pyarrow writes into it.

    Arrow ends the whole process when a write fails at certain points, as where it chunks by content. So no write
    fails: what went wrong is kept, nothing more is written, and `check` raises it once Arrow has returned.

    Attributes:
        digest: of the bytes so far.
        size: of the file so far.
        discarded: nothing is written any more.
    """

    closed = False

    def __init__(self, fs: Fs, fd: int) -> None:
        """Take an open file."""
        self._fs = fs
        self._fd = fd
        self.digest = hashlib.sha256()
        self.size = 0
        self.discarded = False
        self._error: BaseException | None = None

    def check(self) -> None:
        """Raise what went wrong since the file was opened, if anything did.

        Raises:
            OSError: a write failed.
            KeyboardInterrupt: it was interrupted.
        """
        if self._error is not None:
            raise self._error

    def write(self, data: Buffer) -> int:
        """Take bytes; say that all were taken."""
        if self.discarded:
            return memoryview(data).nbytes
        try:
            seam.write_all(self._fs, self._fd, data)
        except BaseException as error:  # noqa: BLE001 - an interrupt must not meet Arrow's code either
            self._error = error
            self.discarded = True
            return memoryview(data).nbytes
        self.digest.update(data)
        count = memoryview(data).nbytes
        self.size += count
        return count

    def tell(self) -> int:
        """Return how many bytes were taken."""
        return self.size

    def writable(self) -> bool:
        """Say yes."""
        return True

    def readable(self) -> bool:
        """Say no."""
        return False

    def seekable(self) -> bool:
        """Say no."""
        return False

    def flush(self) -> None:
        """Do nothing: nothing is buffered here."""

    def close(self) -> None:
        """Do nothing: the descriptor belongs to the caller."""
