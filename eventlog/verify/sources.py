"""Find the segments of one writer and say which are what they seem: the plain way, as `verify` goes."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Final, NamedTuple

from eventlog import conflicts, names, segment
from eventlog.errors import DataError, NewerFormatError
from eventlog.fs import Fs
from eventlog.manifest import End, Quarantined
from eventlog.segment import Header
from eventlog.verify.report import Code

_PROBE_BYTES: Final = 4096

Say = Callable[[Code, str, str], None]
"""Takes a finding: its code, the file or writer, and the message."""


class Source(NamedTuple):
    """A segment file, under the name that it had when it was listed."""

    path: str
    sealed: bool
    header: Header


class Sources:
    """The segments of one writer.

    Attributes:
        torn_bytes: in open segments that have not even a whole header yet: normal.
    """

    def __init__(
        self,
        fs: Fs,
        root: str,
        project: str,
        writer_id: str,
        quarantined: list[Quarantined],
        ends: dict[int, End],
        say: Say,
    ) -> None:
        """Take the writer, the bytes that the manifest knows to be damaged, its ends, and where findings go."""
        self._fs = fs
        self._root = root
        self._writer_id = writer_id
        self._directory = names.writer_dir(root, project, writer_id)
        self._known_damage = _damage_by_segment(writer_id, quarantined)
        self._ends = ends
        self._say = say
        self.torn_bytes = 0

    def find(self) -> list[Source]:
        """Return the segments whose headers can be read, in the order of their first seq.

        Raises:
            OSError: a file cannot be read.
        """
        forms: dict[int, set[bool]] = {}
        # A listing is no snapshot: a segment that is sealed while it runs can be missing under both names.
        for entry in [*self._fs.entries(self._directory), *self._fs.entries(self._directory)]:
            parsed = names.parse_segment_name(entry.name)
            if parsed is not None:
                forms.setdefault(parsed[0], set()).add(parsed[1])
        found = [self._source(segno, both=len(sealed) > 1, sealed=any(sealed)) for segno, sealed in forms.items()]
        sources = [source for source in found if source is not None]
        return sorted(sources, key=lambda source: (source.header.first_seq, source.header.segno))

    def read(self, source: Source) -> tuple[bytes, str, bool] | None:
        """Return a segment's bytes, its path relative to the store, and whether it is sealed by now.

        None when it was collected meanwhile.

        Raises:
            OSError: it cannot be read.
        """
        try:
            return self._fs.read(source.path), self._relative(source.path), source.sealed
        except FileNotFoundError:
            path = self._path(source.header.segno, sealed=True)
        try:
            return self._fs.read(path), self._relative(path), True
        except FileNotFoundError:
            return None

    def _path(self, segno: int, *, sealed: bool) -> str:
        return os.path.join(self._directory, names.segment_name(segno, sealed=sealed))

    def _relative(self, path: str) -> str:
        return os.path.relpath(path, self._root)

    def _source(self, segno: int, *, both: bool, sealed: bool) -> Source | None:
        path = self._path(segno, sealed=sealed)
        if both:
            self._compare(segno)
        try:
            start = self._fs.read(path, 0, _PROBE_BYTES)
        except FileNotFoundError:
            return None if sealed else self._source(segno, both=False, sealed=True)
        header = self._header(start, path, segno, sealed=sealed)
        if header is None:
            return None
        if header.writer_id != self._writer_id or header.segno != segno:
            self._say("misplaced", self._relative(path), f"says it is segment {header.segno} of {header.writer_id}")
            return None
        if self._is_replaced(segno, sealed=sealed):
            self._say("conflict", self._relative(path), _said(conflicts.REPLACED))
            return None
        return Source(path, sealed, header)

    def _is_replaced(self, segno: int, *, sealed: bool) -> bool:
        if segno not in self._ends:
            return False
        file = segment.SegmentFile(self._fs, self._directory, segno, sealed=sealed)
        try:
            return conflicts.is_replaced(file, self._ends[segno])
        except FileNotFoundError:
            return False  # it was collected meanwhile

    def _header(self, start: bytes, path: str, segno: int, *, sealed: bool) -> Header | None:
        where = self._relative(path)
        try:
            return segment.parse_header(start[: segment.HEADER_BYTES], where)
        except NewerFormatError as error:
            self._say("newer_format", where, error.reason)
            return None
        except DataError as error:
            header = segment.recover_header(start)
            if header is None and not sealed and len(start) < segment.HEADER_BYTES:
                self.torn_bytes += len(start)
                return None
            kept = "its copy is intact" if header else "neither copy is intact: its records cannot be read"
            self.damage(segno, 0, min(len(start), segment.HEADER_BYTES), where, f"{error.reason}; {kept}")
            return header

    def _compare(self, segno: int) -> None:
        """Both names of one segment are there: one is an earlier copy of the other, or they differ in origin."""
        try:
            older = self._fs.read(self._path(segno, sealed=False))
            newer = self._fs.read(self._path(segno, sealed=True))
        except FileNotFoundError:
            return
        if not conflicts.do_agree(older, newer):
            where = self._relative(self._path(segno, sealed=False))
            self._say("conflict", where, _said(conflicts.UNEQUAL))

    def damage(self, segno: int, offset: int, end: int, where: str, reason: str) -> None:
        """Report damage, unless the manifest knows it: then it is reported as quarantined, once, from there."""
        if any(start <= offset and end <= stop for start, stop in self._known_damage.get(segno, ())):
            return
        self._say("damaged", where, f"bytes {offset} to {end} hold no record: {reason}")


def _said(reason: str) -> str:
    return reason.removeprefix(f"{conflicts.CONFLICT}: ")


def _damage_by_segment(writer_id: str, quarantined: list[Quarantined]) -> dict[int, list[tuple[int, int]]]:
    found: dict[int, list[tuple[int, int]]] = {}
    for item in quarantined:
        directory, _, name = item.source.rpartition("/")
        parsed = names.parse_segment_name(name)
        if parsed is not None and directory.endswith("/" + writer_id):
            found.setdefault(parsed[0], []).append((item.offset, item.offset + item.size_bytes))
    return found
