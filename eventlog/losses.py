"""Losses: how many records a writer could not keep, and why, until it can write that down."""

from __future__ import annotations

import errno

from eventlog import schema
from eventlog.aside import warn_aside
from eventlog.errors import StorageError


class Losses:
    """The count of what was not kept. Not thread-safe: its writer holds a lock.

    Attributes:
        total: since the start.
        pending: of these, how many no `dropped` record tells of yet.
    """

    def __init__(self) -> None:
        """Start with nothing lost and nobody warned."""
        self.total = 0
        self.pending = 0
        self._reason = ""
        self._since_ns = 0
        self._warned = False

    def add(self, error: OSError, time_ns: int) -> None:
        """Count one record."""
        if not self.pending:
            self._since_ns = time_ns
        self.pending += 1
        self.total += 1
        self._reason = reason_of(error)

    def complain(self, error: OSError, root: str, on_error: str) -> None:
        """Raise or warn, as the settings say, that something could not be written.

        Raises:
            StorageError: `on_error` is "raise".
        """
        message = f"eventlog cannot write to {root}: {reason_of(error)}"
        if on_error == "raise":
            raise StorageError(error.errno or 0, message) from error
        text = f"{message}. Training goes on; losses are counted, and logging resumes when it can."
        self.warn_once(text, 7)

    def record(self, time_ns: int) -> schema.Dropped:
        """Return the record that tells of what is pending; the caller sets `pending` to 0 once it is written."""
        return schema.Dropped(time_ns, "", self.pending, self._reason, self._since_ns)

    def warn_once(self, text: str, stacklevel: int) -> None:
        """Warn, the first time only; never raises, for the loss must not cost more than it did."""
        if not self._warned:
            self._warned = True
            warn_aside(text, stacklevel + 1)


def reason_of(error: OSError) -> str:
    """Return an error's name and text, for people."""
    return f"{errno.errorcode.get(error.errno or 0, 'OSError')}: {error.strerror or error}"
