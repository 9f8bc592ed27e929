"""Sets of seqs as ranges: what is there, what is missing, what is there twice. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
_NONE: Final[Ints] = np.empty(0, np.int64)


class Spans:
    """A set of integers as ranges, ascending and apart, both ends included. Immutable.

    Memory is 16 bytes a range; seqs of one writer are mostly one range.
    """

    __slots__ = ("firsts", "lasts")

    def __init__(self, firsts: Ints, lasts: Ints) -> None:
        """Take ranges that are in order and apart already."""
        self.firsts = firsts
        self.lasts = lasts

    def __len__(self) -> int:
        """Count the integers, not the ranges."""
        return int((self.lasts - self.firsts + 1).sum())

    def __iter__(self) -> Iterator[tuple[int, int]]:
        """Yield (first, last) of each range."""
        return zip(self.firsts.tolist(), self.lasts.tolist(), strict=True)

    def __or__(self, other: Spans) -> Spans:
        """Return what is in either."""
        return union(np.concatenate([self.firsts, other.firsts]), np.concatenate([self.lasts, other.lasts]))

    def __sub__(self, other: Spans) -> Spans:
        """Return what is in this one only."""
        if not len(self.firsts) or not len(other.firsts):
            return self
        low, high = int(self.firsts[0]), int(self.lasts[-1])
        # The holes of `other` between low and high; what is left is where they meet this one.
        starts = np.concatenate([[low], np.maximum(other.lasts + 1, low)])
        ends = np.concatenate([np.minimum(other.firsts - 1, high), [high]])
        holes = starts <= ends
        return self & Spans(starts[holes], ends[holes])

    def __and__(self, other: Spans) -> Spans:
        """Return what is in both."""
        firsts: list[Ints] = []
        lasts: list[Ints] = []
        start = np.searchsorted(other.lasts, self.firsts, side="left")
        end = np.searchsorted(other.firsts, self.lasts, side="right")
        counts = np.maximum(end - start, 0)
        mine = np.repeat(np.arange(len(self.firsts)), counts)
        theirs = np.arange(int(counts.sum())) - np.repeat(np.cumsum(counts) - counts, counts) + np.repeat(start, counts)
        firsts.append(np.maximum(self.firsts[mine], other.firsts[theirs]))
        lasts.append(np.minimum(self.lasts[mine], other.lasts[theirs]))
        return Spans(np.concatenate(firsts), np.concatenate(lasts))

    def __eq__(self, other: object) -> bool:
        """Say whether both hold the same integers."""
        if not isinstance(other, Spans):
            return NotImplemented
        return np.array_equal(self.firsts, other.firsts) and np.array_equal(self.lasts, other.lasts)

    __hash__ = None  # type: ignore[assignment]

    def __str__(self) -> str:
        """Show the first few ranges."""
        both = zip(self.firsts[:5].tolist(), self.lasts[:5].tolist(), strict=True)
        shown = [f"{first}-{last}" if last > first else str(first) for first, last in both]
        return ", ".join(shown) + (f" and {len(self.firsts) - 5} more ranges" if len(self.firsts) > 5 else "")


EMPTY: Final = Spans(_NONE, _NONE)


def span(first: int, last: int) -> Spans:
    """Return the integers from `first` to `last`, none when `last` is lower."""
    return Spans(np.array([first], np.int64), np.array([last], np.int64)) if first <= last else EMPTY


def of_ranges(ranges: Iterable[tuple[int, int]]) -> Spans:
    """Return the union of ranges in any order."""
    both = np.array(list(ranges), np.int64).reshape(-1, 2)
    return union(both[:, 0], both[:, 1])


def union(firsts: Ints, lasts: Ints) -> Spans:
    """Return the union of ranges in any order, which may overlap."""
    if not len(firsts):
        return EMPTY
    order = np.argsort(firsts, kind="stable")
    firsts, lasts = firsts[order], np.maximum.accumulate(lasts[order])
    starts = np.concatenate([[True], firsts[1:] > lasts[:-1] + 1])
    ends = np.concatenate([starts[1:], [True]])
    return Spans(firsts[starts], lasts[ends])


def repeated(firsts: Ints, lasts: Ints) -> Spans:
    """Return what more than one of these ranges holds."""
    if len(firsts) < 2:
        return EMPTY
    order = np.argsort(firsts, kind="stable")
    firsts, lasts = firsts[order], lasts[order]
    reached = np.maximum.accumulate(lasts)[:-1]
    both = firsts[1:] <= reached
    return union(firsts[1:][both], np.minimum(lasts[1:], reached)[both])


def ranges_of(numbers: Ints) -> tuple[Ints, Ints]:
    """Return (firsts, lasts) of the ranges in sorted integers without repetition."""
    if not len(numbers):
        return _NONE, _NONE
    breaks = np.flatnonzero(np.diff(numbers) != 1)
    return numbers[np.concatenate([[0], breaks + 1])], numbers[np.concatenate([breaks, [len(numbers) - 1]])]
