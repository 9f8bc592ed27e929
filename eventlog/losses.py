"""Losses: how many records a writer could not keep, and why, until it can write that down."""

from __future__ import annotations

import errno
import warnings

from eventlog import schema
from eventlog.errors import EventLogWarning


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

    def add(self, error: OSError, time_ns: int) -> str:
        """Count one record, and return the reason for people."""
        if not self.pending:
            self._since_ns = time_ns
        self.pending += 1
        self.total += 1
        self._reason = f"{errno.errorcode.get(error.errno or 0, 'OSError')}: {error.strerror or error}"
        return self._reason

    def record(self, time_ns: int) -> schema.Dropped:
        """Return the record that tells of what is pending; the caller sets `pending` to 0 once it is written."""
        return schema.Dropped(time_ns, "", self.pending, self._reason, self._since_ns)

    def warn_once(self, text: str, stacklevel: int) -> None:
        """Warn, the first time only."""
        if not self._warned:
            self._warned = True
            warnings.warn(text, EventLogWarning, stacklevel=stacklevel + 1)
