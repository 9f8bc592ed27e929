"""Judge what crashes leave of a trace: every prefix, every crash, and of all disks each distinct one once."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, NamedTuple

import msgspec
import pyarrow as pa

from eventlog import names
from eventlog.errors import EventLogError
from eventlog.testing import sweep
from eventlog.testing.crashfs import CrashFs
from eventlog.testing.trace import Change, Replay, Trace, replays

Check = Callable[[CrashFs, Sequence[Any], bool], None]
"""Asserts of a disk, which it may change, that it holds what it must: by the notes so far, and whether power failed."""

_FAILURES: Final = (
    AssertionError,
    EventLogError,
    OSError,
    msgspec.MsgspecError,
    pa.ArrowException,
    ValueError,
    LookupError,
)


class Case(NamedTuple):
    """A piece of work and what must hold of every disk that a crash leaves of it.

    Attributes:
        name: for people.
        trace: what it did.
        check: what must hold.
    """

    name: str
    trace: Trace
    check: Check


class Judge:
    """Checks the disks of one case. Not thread-safe.

    Attributes:
        case: that it judges.
        judged: how many distinct disks were checked.
    """

    def __init__(self, case: Case, *, thorough: bool = False) -> None:
        """Take the case.

        Args:
            case: to judge.
            thorough: every combination of lost bytes and lost names; every byte of every file counts. Otherwise
                two disks are one when they differ only in what no reader opens: temporary files, uploads that are
                no blobs yet, and data files that no manifest names.
        """
        self.case = case
        self._thorough = thorough
        self._known: dict[tuple[bool, int, int], str | None] = {}

    @property
    def judged(self) -> int:
        """How many distinct disks were checked."""
        return len(self._known)

    def problem(self, replay: Replay) -> str | None:
        """Return what is wrong with a disk that a kill or a power loss would leave now, or None."""
        found = self.verdict(replay.fs.after_crash("kept"), replay.notes, power=False)
        if found is not None:
            return f"after a kill: {found}"
        for crash in sweep.power_losses(replay.fs, thorough=self._thorough):
            found = self.verdict(crash.fs, replay.notes, power=True)
            if found is not None:
                return f"after a power loss ({crash.mode}): {found}"
        return None

    def verdict(self, fs: CrashFs, notes: Sequence[Any], *, power: bool) -> str | None:
        """Return what is wrong with a disk, or None; asked again of an equal one, the same."""
        key = (power, len(notes), _fingerprint(fs.state(), every_byte=self._thorough))
        if key not in self._known:
            self._known[key] = self._check(fs, notes, power=power)
        return self._known[key]

    def _check(self, fs: CrashFs, notes: Sequence[Any], *, power: bool) -> str | None:
        try:
            self.case.check(fs, notes, power)
        except _FAILURES as error:
            lines = str(error).split("\n")
            return f"{type(error).__name__}: {lines[0][:200]}"
        return None

    def problems(self, changes: Sequence[Change] | None = None) -> Iterator[tuple[int, str]]:
        """Yield (number of changes that were made, problem) of each prefix that has one.

        Raises:
            OSError: the file system refuses a change.
        """
        for number, replay in replays(self.case.trace.start, self.case.trace.changes if changes is None else changes):
            found = self.problem(replay)
            if found is not None:
                yield number, found


def _fingerprint(state: dict[str, bytes | None], *, every_byte: bool) -> int:
    named = b"" if every_byte else b"".join(data or b"" for path, data in state.items() if "/manifests/" in path)
    return hash(frozenset((path, _content(path, data, named, every_byte)) for path, data in state.items()))


def _content(path: str, data: bytes | None, named: bytes, every_byte: bool) -> int | None:  # noqa: FBT001
    if data is None:
        return None
    if not every_byte:
        name = os.path.basename(path)
        unread = names.is_temporary(name) or f"/{names.INCOMING}/" in path
        if unread or (names.is_data_file_name(name) and name.encode() not in named):
            return 0
    return hash(data)
