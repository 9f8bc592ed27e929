"""What can end a publisher."""

from __future__ import annotations

from eventlog.errors import ConflictError
from eventlog.manifest import Publisher


class FencedError(ConflictError):
    """Another store has taken the bucket over: this one must not publish there any more.

    Attributes:
        project: whose.
        publisher: who publishes it now.
    """

    def __init__(self, project: str, publisher: Publisher, held_epoch: int) -> None:
        """Take who publishes now, and the epoch in which this store did."""
        self.project = project
        self.publisher = publisher
        super().__init__(
            f"{project!r} is published by another store now ({publisher.owner}, epoch {publisher.epoch}; this one had "
            f"epoch {held_epoch}). Nothing of this store is lost: `eventlog ship` brings what the bucket lacks, and "
            "`compactor sync --take-over` publishes from here again"
        )


class DivergedError(ConflictError):
    """Store and bucket both hold records that the other lacks, and the segments of this store's are gone."""
