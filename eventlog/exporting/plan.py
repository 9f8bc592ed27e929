"""Divide runs among packs, so that an export writes what is new and leaves the rest as it is. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from eventlog.exporting.layout import Pack, PackedRun

MOST_CELLS: Final = 1 << 25
"""How many cells the runs of a pack may have, unless one run has more: 256 MiB before compression."""


class RunNow(NamedTuple):
    """A run as it is now: its rows, and about how many cells they have."""

    packed: PackedRun
    cells: int


class Planned(NamedTuple):
    """A pack to be: what is there already, or the runs to write, in this order."""

    number: int
    run_ids: tuple[str, ...]
    unchanged: Pack | None


def plan_packs(before: Iterable[Pack], runs: Sequence[RunNow], *, most_cells: int = MOST_CELLS) -> list[Planned]:
    """Return the packs of an export, in the order of their numbers.

    A run stays in its pack. A pack stays as it is when its runs are all there and have as many rows as they had, for
    rows are only ever added. New runs fill the last pack, and then new ones; what does not fit any more moves there.

    Args:
        before: the packs that are there.
        runs: all runs, in the order in which new ones are packed.
        most_cells: how full a pack may be.
    """
    now = {run.packed.run_id: run for run in runs}
    placed: set[str] = set()
    kept: dict[int, list[RunNow]] = {}
    same: dict[int, Pack] = {}
    for pack in before:
        there = [now[run.run_id] for run in pack.runs if run.run_id in now and run.run_id not in placed]
        whole = [run.packed for run in there] == pack.runs
        fitting = there if whole else _fitting(there, most_cells)
        if fitting:
            kept[pack.number] = fitting
            placed |= {run.packed.run_id for run in fitting}
        if whole and fitting:
            same[pack.number] = pack
    free = max(kept, default=-1) + 1
    new = [run for run in runs if run.packed.run_id not in placed]
    last = max(kept, default=None)
    if new and last is not None:
        room = most_cells - sum(run.cells for run in kept[last])
        taken = _fitting(new, room, at_least=0)
        if taken:
            kept[last] += taken
            same.pop(last, None)
            new = new[len(taken) :]
    while new:
        taken = _fitting(new, most_cells)
        kept[free] = taken
        free, new = free + 1, new[len(taken) :]
    return [
        Planned(number, tuple(run.packed.run_id for run in kept[number]), same.get(number)) for number in sorted(kept)
    ]


def _fitting(runs: Sequence[RunNow], most_cells: int, *, at_least: int = 1) -> list[RunNow]:
    """Return the first runs that fit together."""
    total = 0
    for index, run in enumerate(runs):
        total += run.cells
        if total > most_cells and index >= at_least:
            return list(runs[:index])
    return list(runs)
