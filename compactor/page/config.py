"""Settings of the export of a page."""

from __future__ import annotations

import math
from typing import Final

import msgspec

from compactor.serve.sampler import COLUMNS
from eventlog.errors import UsageError

FEWEST_POINTS: Final = 4 * COLUMNS
"""A sampler keeps the extremes of all its metrics, so fewer rows are not to be had."""


class PageConfig(msgspec.Struct, frozen=True, kw_only=True):
    """How a page is kept up to date.

    Attributes:
        interval_s: look for what is new so often. Default 60 s.
        points: about so many rows of numbers for each run, and of its system metrics as many; every metric's extremes
            are among them. Default 3000, and fewer where more than 100 runs share what a browser can hold.
        grace_s: media that no run shows any more stay so long for pages that are open. Default 1 h.
    """

    interval_s: float = 60.0
    points: int | None = None
    grace_s: float = 3600.0

    def __post_init__(self) -> None:
        """Check the ranges.

        Raises:
            UsageError: naming the field that is out of its range.
        """
        if not (math.isfinite(self.interval_s) and 0 < self.interval_s <= 1e9):
            raise UsageError("interval_s must be positive, and at most 1e9")
        if self.points is not None and not FEWEST_POINTS <= self.points <= 1_000_000:
            raise UsageError(f"points must be {FEWEST_POINTS} to 1,000,000")
        if not (math.isfinite(self.grace_s) and 0 <= self.grace_s <= 1e9):
            raise UsageError("grace_s must be from 0 to 1e9")
