"""Sweeps: stop a piece of work at each of its steps, crash in each way, and hand over every disk that results."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from eventlog.testing.crashfs import CrashFs
from eventlog.testing.disk import CRASH_MODES, CrashMode
from eventlog.testing.faults import Operation, Stopped


class Stop(NamedTuple):
    """A disk on which the work was stopped.

    Attributes:
        step: at which change, from 1; one more than there are when the work came to its end.
        at: the change that was not done, or None at the end.
        fs: the disk, still with un-synced changes.
    """

    step: int
    at: Operation | None
    fs: CrashFs


class Crash(NamedTuple):
    """A disk after a crash; `mode` and `seed` as in `CrashFs.after_crash`."""

    mode: CrashMode
    seed: int | None
    fs: CrashFs


def stops(
    start: CrashFs, work: Callable[[CrashFs], object], *, every: int = 1, half_written: bool = False
) -> Iterator[Stop]:
    """Yield the disk after the work was stopped at its first change, at its second, and so on, and at its end.

    Args:
        start: the disk before; not changed.
        work: is run on a copy of it each time.
        every: take only each so many-th step.
        half_written: a write that is stopped has written half of its bytes.
    """
    step = 1
    while True:
        fs = start.after_crash("kept")
        fs.stop_after(step, half_written=half_written)
        with contextlib.suppress(Stopped):
            work(fs)
        yield Stop(step, fs.stopped_at, fs)
        if fs.stopped_at is None:
            return
        step += every


def crashes(
    fs: CrashFs, seeds: Sequence[int | None] = (None, 1), modes: Sequence[CrashMode] = CRASH_MODES
) -> Iterator[Crash]:
    """Yield the disk after each kind of crash, with each seed; "kept" needs no seed and comes once."""
    for mode in modes:
        for seed in (None,) if mode == "kept" else seeds:
            yield Crash(mode, seed, fs.after_crash(mode, seed=seed))
