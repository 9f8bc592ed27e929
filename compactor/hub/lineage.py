"""Which of two snapshots of one project holds more, and who may publish next: pure."""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum

import msgspec

from compactor.hub.errors import FencedError
from eventlog.manifest import Gap, Manifest, Publisher, Watermark
from eventlog.verify.spans import Spans, of_ranges


class Next(Enum):
    """What a store has to do before it may publish."""

    PUBLISH = "publish"
    CLAIM = "claim"
    MERGE = "merge"


def lacking(mine: Manifest, theirs: Manifest) -> list[str]:
    """Return the writers of whom another snapshot of the project has folded records that this one has not."""
    lacks: list[str] = []
    for writer_id, mark in theirs.writers.items():
        behind = mine.writers.get(writer_id, Watermark()).seq < mark.seq
        if behind or len(_missing(mine.gaps, writer_id, mark.seq) - _missing(theirs.gaps, writer_id, mark.seq)):
            lacks.append(writer_id)
    return lacks


def _missing(gaps: Iterable[Gap], writer_id: str, last_seq: int) -> Spans:
    ranges = ((gap.first_seq, min(gap.last_seq, last_seq)) for gap in gaps if gap.writer_id == writer_id)
    return of_ranges(both for both in ranges if both[0] <= both[1])


def decide(owner: str, held_epoch: int, mine: Manifest, theirs: Manifest | None) -> tuple[Next, int]:
    """Return what to do before publishing, and the epoch to do it in.

    Args:
        owner: the id of this store for the bucket.
        held_epoch: the epoch in which it has published there before; 0 for never.
        mine: its newest snapshot.
        theirs: the newest in the bucket; None when there is none.

    Raises:
        FencedError: another store has taken the bucket over since this one published there.
    """
    my, their = mine.publisher, msgspec.UNSET if theirs is None else theirs.publisher
    their_epoch = their.epoch if isinstance(their, Publisher) else 0
    is_mine = my == Publisher(owner=owner, epoch=held_epoch)
    if isinstance(their, Publisher) and held_epoch and their.owner != owner and their.epoch >= held_epoch:
        raise FencedError(mine.project, their, held_epoch)
    if theirs is not None and lacking(mine, theirs):
        return Next.MERGE, 0
    if is_mine and (theirs is None or (my == their and mine.version >= theirs.version)):
        return Next.PUBLISH, held_epoch
    return Next.CLAIM, max(their_epoch, held_epoch) + 1
