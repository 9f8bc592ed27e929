"""What only the compactor can run into."""

from __future__ import annotations

from eventlog.errors import ConflictError


class LostRaceError(ConflictError):
    """Somebody else committed what this change was made from: discard it and start over."""
