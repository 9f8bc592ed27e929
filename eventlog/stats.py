"""Statistics of blocks: what the rows of a block say about their run and each of its metrics."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from eventlog.gather import Block
from eventlog.runs import RunParts, Stat


def summarise(runs: RunParts, table: str, block: Block) -> None:
    """Add what a block says about its run: counts, times, steps, and the statistics of each metric."""
    part = runs.part(block.run_id)
    part.count_rows(table, len(block.seq), int(block.time_ns.min()), int(block.time_ns.max()))
    if table != "metrics":
        return
    if block.step is not None:
        steps = block.step if block.has_step is None else block.step[block.has_step]
        if len(steps):
            part.reach_step(int(steps.max()))
    for index, name in enumerate(block.names):
        with np.errstate(invalid="ignore", over="ignore"):  # what a sum of floats comes to is its mean
            part.add_stat(name, _column_stat(block, block.values[:, index]))


def _column_stat(block: Block, column: NDArray[np.float64]) -> Stat:
    column = np.ascontiguousarray(column)
    total = float(column.sum())
    nans = 0
    numbers = column
    if math.isnan(total):
        valid = ~np.isnan(column)
        nans = int(len(column) - valid.sum())
        numbers = column[valid]
        total = float(numbers.sum()) if len(numbers) else 0.0
    first, last = 0, len(column) - 1
    low = high = None
    low_step = high_step = None
    if len(numbers):
        low, high = float(numbers.min()), float(numbers.max())
        low_step = _lowest_step(block, column == low)
        high_step = _lowest_step(block, column == high)
    return Stat(
        count=len(column),
        nans=nans,
        total=total,
        min=low,
        min_step=low_step,
        max=high,
        max_step=high_step,
        first=float(column[first]),
        first_at=(block.writer_id, int(block.seq[first])),
        last=float(column[last]),
        last_at=(block.writer_id, int(block.seq[last])),
    )


def _lowest_step(block: Block, rows: NDArray[np.bool_]) -> int | None:
    if block.step is None:
        return None
    steps = block.step[rows if block.has_step is None else rows & block.has_step]
    return int(steps.min()) if len(steps) else None
