"""Mutations: each sync and each publication left out, each deletion made early, and where a judge notices it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, NamedTuple

from eventlog import names
from eventlog.testing.judge import Judge
from eventlog.testing.trace import Change, Line, Replay, replays

_SYNCS: Final = ("sync", "sync_dir")
_PUBLICATIONS: Final = ("rename", "link", "mkdir")
_DELETIONS: Final = ("unlink", "rmdir")
_SEAM: Final = "eventlog/fs.py"
_TRIES: Final = 4


class Site(NamedTuple):
    """A place in the code that makes a change: the operation, and the lines from the seam to the first outside it."""

    name: str
    lines: tuple[Line, ...]

    def __str__(self) -> str:
        """Return the operation and the lines."""
        return f"{self.name} at {' < '.join(map(str, self.lines))}"


class Caught(NamedTuple):
    """How a mutation was noticed.

    Attributes:
        case: which test does.
        before: what must not happen without it, or before it: a site, or a note.
        problem: what the test says.
    """

    case: str
    before: str
    problem: str


def site_of(change: Change) -> Site:
    """Return the place that made a change."""
    end = next((i for i, line in enumerate(change.lines) if line.file != _SEAM), len(change.lines) - 1)
    return Site(change.name, change.lines[: end + 1])


def _shown(change: Change) -> str:
    if change.name == "note":
        return f"note {change.value!r}"[:60]
    if change.name == "write":
        return f"write to {os.path.basename(change.path)}"
    return str(site_of(change))


class Mutations:
    """What was noticed, over all cases. Not thread-safe.

    A change that is left out is noticed at the first later change after which a crash shows it: so it must come
    before that one, and that order is tested too. A deletion is made earlier and earlier instead; deletions of
    temporary files are garbage, and have no order.

    Attributes:
        caught: by site.
        missed: by site, the cases in which it was left out, or made early, unnoticed.
        lines: of the store through which a sync was reached, with whether it was noticed.
    """

    def __init__(self) -> None:
        """Start with nothing."""
        self.caught: dict[Site, Caught] = {}
        self.missed: dict[Site, list[str]] = {}
        self.lines: dict[Line, bool] = {}

    def add(self, judge: Judge, *, tries: int = _TRIES) -> None:
        """Mutate every place of a case that was not noticed yet.

        Args:
            judge: of the case; what it knows already is not checked again.
            tries: how many of a place's changes are mutated at most, from the first and the last inwards.
        """
        places: dict[tuple[Site, tuple[Line, ...]], list[int]] = {}
        changes = judge.case.trace.changes
        for number, change in enumerate(changes):
            if change.name in _SYNCS or change.name in _PUBLICATIONS or _is_ordered(change):
                places.setdefault((site_of(change), change.lines), []).append(number)
        for (site, lines), numbers in places.items():
            if site.name in _SYNCS:
                for line in lines:
                    self.lines.setdefault(line, False)
            wanted = site not in self.caught or (site.name in _SYNCS and not all(self.lines[line] for line in lines))
            if wanted and site_is_of_store(site):
                self._try(judge, site, lines, _from_both_ends(numbers)[:tries])

    def _try(self, judge: Judge, site: Site, lines: tuple[Line, ...], numbers: list[int]) -> None:
        for number in numbers:
            found = _early(judge, number) if site.name in _DELETIONS else _left_out(judge, number)
            if found is not None:
                self.caught.setdefault(site, found)
                self.missed.pop(site, None)
                if site.name in _SYNCS:
                    self.lines.update(dict.fromkeys(lines, True))
                return
        if site not in self.caught:
            self.missed.setdefault(site, []).append(judge.case.name)


def site_is_of_store(site: Site) -> bool:
    """Say whether a change was made by the store's code, not by a test that prepares something."""
    return bool(site.lines)


def _is_ordered(change: Change) -> bool:
    unread = (names.INCOMING, names.IMPORTS, names.RESTORING)
    garbage = names.is_temporary(os.path.basename(change.path)) or any(f"/{name}/" in change.path for name in unread)
    return change.name in _DELETIONS and not garbage


def _from_both_ends(numbers: Sequence[int]) -> list[int]:
    mixed = [number for pair in zip(numbers, reversed(numbers), strict=True) for number in pair]
    return list(dict.fromkeys(mixed))


def _left_out(judge: Judge, number: int) -> Caught | None:
    changes = judge.case.trace.changes
    rest = _without(changes, number)
    try:
        for made, replay in replays(judge.case.trace.start, rest):
            if made > number:
                problem = judge.problem(replay)
                if problem is not None:
                    return Caught(judge.case.name, _shown(rest[made - 1]), problem)
    except (OSError, KeyError):
        # What follows cannot be done without it: the file system itself notices.
        return Caught(judge.case.name, "what follows", "the file system refuses what follows")
    return None


def _without(changes: Sequence[Change], number: int) -> list[Change]:
    return [*changes[:number], *changes[number + 1 :]]


def _early(judge: Judge, number: int) -> Caught | None:
    """Return what it must not come before: the last change before which it is noticed."""
    changes = judge.case.trace.changes
    found: Caught | None = None
    for made, replay in _before(judge, number):
        early = Replay(replay.fs)
        try:
            early.apply(changes[number])
        except OSError:
            if changes[number].name == "rmdir":
                # What is in the directory has to go first: the file system itself notices.
                found = Caught(judge.case.name, f"not yet {_shown(changes[made])}", "the file system refuses it")
            continue
        early.notes = list(replay.notes)
        problem = judge.problem(early)
        if problem is not None:
            found = Caught(judge.case.name, f"not yet {_shown(changes[made])}", problem)
    return found


def _before(judge: Judge, number: int) -> Iterator[tuple[int, Replay]]:
    for made, replay in replays(judge.case.trace.start, judge.case.trace.changes[:number]):
        if made < number:
            yield made, replay


def table(caught: Iterable[tuple[Site, Caught]]) -> list[str]:
    """Return what was noticed and where, one line a site."""
    return sorted(f"{site} -> {found.case}: before {found.before}: {found.problem}" for site, found in caught)
