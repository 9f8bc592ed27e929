"""The error tree, sorted by what a caller can do about each error.

* EventLogError
  * UsageError -- fix the call.
  * StorageError -- fix the environment (disk, permissions, mount), then retry.
  * ConflictError -- somebody else moved on; reload and retry.
  * DurabilityUnknownError -- assume neither that the data is durable nor that it is lost.
  * DataError -- bytes on disk disagree with FORMAT.md.
    * NewerFormatError -- the bytes are of a version that this release does not read.
"""

from __future__ import annotations

from typing import Any, Final

FOREIGN_ERRORS: Final = (Exception,)
"""What code of the user raises when it is asked for a value, a text or a length: anything, and it must not stop
training."""
_SHOWN_CHARACTERS: Final = 200


class EventLogError(Exception):
    """Base of every error that eventlog and compactor raise on purpose."""


class UsageError(EventLogError, ValueError):
    """The call is wrong: a bad name, a bad option, a run that does not exist."""


class StorageError(EventLogError, OSError):
    """The environment refused: disk full, no permission, an unsuitable mount."""


class ConflictError(EventLogError):
    """The store moved on since it was read: re-open it and retry."""


class DurabilityUnknownError(EventLogError):
    """A sync failed: the data may or may not survive a power loss."""


class DataError(EventLogError):
    """Bytes on disk are not what FORMAT.md says.

    Attributes:
        path: the file, as given by the caller.
        offset: byte offset of the first bad byte, or None when the whole file is meant.
        reason: one clause that says what is wrong.
    """

    def __init__(self, path: str, offset: int | None, reason: str) -> None:
        """Keep the three facts as fields and join them for the message."""
        self.path = path
        self.offset = offset
        self.reason = reason
        where = path if offset is None else f"{path} at byte {offset}"
        super().__init__(f"{where}: {reason}")

    def __reduce__(self) -> tuple[type[DataError], tuple[str, int | None, str]]:
        """Pickle the three facts, so that the error can pass from a worker process."""
        return type(self), (self.path, self.offset, self.reason)


class NewerFormatError(DataError):
    """The file was written by a newer format version; upgrade eventlog to read it."""


class EventLogWarning(UserWarning):
    """Something could not be kept, or not kept where it was asked; the message says what and why."""


def describe(error: BaseException) -> str:
    """Return an error's type and text, never long, also of one that cannot say what it is."""
    try:
        text = str(error)
    except FOREIGN_ERRORS:
        text = "it cannot say why"
    return f"{type(error).__name__}: {_short(text)}"


def shown(value: Any) -> str:
    """Return what to call a value in a message: its repr where it has one, never long."""
    try:
        return _short(repr(value))
    except FOREIGN_ERRORS:
        return f"this {type(value).__name__}"


def _short(text: str) -> str:
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[: _SHOWN_CHARACTERS - 3]}..."
