"""Shapes: the tuples of metric names that a writer knows, each with the number that records hold instead."""

from __future__ import annotations

import itertools
import struct


class ShapeKey:
    """A tuple of metric names of one run, known to a writer. Immutable.

    Attributes:
        number: what records hold instead of the names.
        pack: turns that many floats into the bytes of `Log.values`.
        listed: the names as a list, to compare the keys of a call with.
        floats: `[float] * len(names)`, to compare the types of a call's values with.
    """

    __slots__ = ("floats", "listed", "names", "number", "pack", "rank", "run_id")

    def __init__(self, number: int, run_id: str, rank: int | None, metric_names: tuple[str, ...]) -> None:
        """Prepare the packer."""
        self.number = number
        self.run_id = run_id
        self.rank = rank
        self.names = metric_names
        self.listed = list(metric_names)
        self.pack = struct.Struct(f"<{len(metric_names)}d").pack
        self.floats = [float] * len(metric_names)


class Shapes:
    """The shapes of one writer, numbered in the order in which they were first asked for."""

    def __init__(self) -> None:
        """Start without any."""
        self._numbers = itertools.count()
        self._known: dict[tuple[str, int | None, tuple[str, ...]], ShapeKey] = {}
        self._by_number: dict[int, ShapeKey] = {}

    def get(self, run_id: str, rank: int | None, metric_names: tuple[str, ...]) -> ShapeKey:
        """Return the shape of these names, in this order, for a run and a rank."""
        key = self._known.get((run_id, rank, metric_names))
        if key is None:
            # No lock: a signal handler that logs may come in between. Each step is atomic, and a number that is
            # made in vain harms nobody.
            key = ShapeKey(next(self._numbers), run_id, rank, metric_names)
            self._by_number[key.number] = key
            key = self._known.setdefault((run_id, rank, metric_names), key)
        return key

    def __getitem__(self, number: int) -> ShapeKey:
        """Return the shape of a number."""
        return self._by_number[number]
