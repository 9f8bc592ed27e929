"""Sweeps: stop a piece of work at each of its steps, crash in each way, and hand over every disk that results."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Final, NamedTuple

from eventlog.testing.crashfs import CrashFs
from eventlog.testing.disk import CRASH_MODES, CrashMode
from eventlog.testing.faults import Operation, Stopped

_MIXED: Final[tuple[tuple[CrashMode, int], ...]] = (("torn", 1), ("torn", 2), ("zeros", 1), ("holes", 1), ("holes", 2))


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


def orders(count: int, *, most: int) -> Iterator[frozenset[int]]:
    """Yield which of so many un-synced changes of names a power loss keeps, as POSIX allows: any of them, in any order.

    All choices when there are at most `most` changes. Else: none, all, each beginning (what a file system with a
    journal leaves), each one alone, and all but each one. So for every two changes there is a choice with the first
    and without the second, once with and once without all the others: a pair whose order matters shows.
    """
    if count <= most:
        yield from (frozenset(i for i in range(count) if bits >> i & 1) for bits in range(1 << count))
        return
    everything = frozenset(range(count))
    found = [frozenset(range(end)) for end in range(count + 1)]
    found += [kept for i in range(count) for kept in (frozenset((i,)), everything - {i})]
    yield from dict.fromkeys(found)


def power_losses(fs: CrashFs, *, thorough: bool = False) -> Iterator[Crash]:
    """Yield the disks that a power loss may leave.

    Un-synced bytes are lost, cut at a sector, zero, zero in places, or all there; un-synced changes of names are kept
    as `orders` says. `thorough` takes every combination of the two; else bytes that are lost or all there go with
    every choice of names, and the rest with all names.
    """
    count = fs.unsynced_names
    modes: tuple[CrashMode, ...] = ("lost", "whole") if fs.unsynced_bytes else ("lost",)
    for kept in orders(count, most=8 if thorough else 3):
        for mode in modes:
            yield Crash(mode, None, fs.after_crash(mode, kept_names=kept))
        for mode, seed in _MIXED if thorough and len(modes) > 1 else ():
            yield Crash(mode, seed, fs.after_crash(mode, seed=seed, kept_names=kept))
    for mode, seed in _MIXED if not thorough and len(modes) > 1 else ():
        yield Crash(mode, seed, fs.after_crash(mode, seed=seed, kept_names=range(count)))
