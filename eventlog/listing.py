"""List the segments of a writer in order, and what each of them says about itself."""

from __future__ import annotations

from typing import Final, NamedTuple

from eventlog import conflicts, names, segment
from eventlog.errors import DataError, NewerFormatError
from eventlog.fs import Fs
from eventlog.manifest import End
from eventlog.segment import Header, SegmentFile

_PROBE_BYTES: Final = 4096
BAD_HEADER: Final = "the header does not match its checksum"


class Source(NamedTuple):
    """A segment that has to be read.

    Attributes:
        segno: its number.
        sealed: its file has the sealed name.
        file: its bytes.
        header: what it says about itself; None when it cannot be read.
        reason: why not, or what is wrong with one copy of the header; "" for nothing.
        followed: its writer has gone on in a later segment, so nothing is appended to this one any more.
        other: its file under the other name, when that holds other records: it does not count.
    """

    segno: int
    sealed: bool
    file: SegmentFile
    header: Header | None
    reason: str = ""
    followed: bool = False
    other: SegmentFile | None = None

    @property
    def ended(self) -> bool:
        """Whether it is certain that nothing is appended to it any more."""
        return self.sealed or self.followed


class Listed(NamedTuple):
    """The segments of a writer.

    Attributes:
        segnos: of all that have a file.
        sources: those that have to be read, in order.
    """

    segnos: set[int]
    sources: list[Source]


def listed(fs: Fs, directory: str, writer_id: str, first_segno: int, ends: dict[int, End]) -> Listed:
    """Return the segments of a writer, and from a number on what they say; `ends` is what was read of them before.

    Raises:
        NewerFormatError: one is of a newer format.
        OSError: one cannot be read.
    """
    forms: dict[int, set[bool]] = {}
    # A listing is no snapshot: a segment that is sealed meanwhile can be missing under both its names, once.
    for _ in range(2):
        for entry in fs.entries(directory):
            parsed = names.parse_segment_name(entry.name)
            if parsed is not None and not entry.is_dir:
                forms.setdefault(parsed[0], set()).add(parsed[1])
        wanted = sorted(segno for segno in forms if segno >= first_segno)
        if wanted and len(wanted) == wanted[-1] - (first_segno or 1) + 1:
            break
    found: list[Source] = []
    for segno in wanted:
        sealed, other = _choose(fs, directory, segno, forms[segno], ends.get(segno))
        source = _source(SegmentFile(fs, directory, segno, sealed=sealed), writer_id, segno, sealed=sealed)
        if source is not None:
            found.append(source._replace(other=other))
    last = max((source.segno for source in found if source.header is not None), default=0)
    return Listed(set(forms), [source._replace(followed=source.segno < last) for source in found])


def _choose(fs: Fs, directory: str, segno: int, forms: set[bool], end: End | None) -> tuple[bool, SegmentFile | None]:
    """Say whether the sealed file of a segment counts; return the file that does not when it holds other records."""
    if len(forms) == 1:
        return True in forms, None
    opened, sealed = (SegmentFile(fs, directory, segno, sealed=form) for form in (False, True))
    other = conflicts.unequal_form(opened, sealed, end)
    return other is not sealed, other


def _source(file: SegmentFile, writer_id: str, segno: int, *, sealed: bool) -> Source | None:
    """Return what a segment says, or None when it is gone."""
    try:
        header, reason = _header(file)
    except FileNotFoundError:
        return None
    if header is None:
        return Source(segno, sealed, file, None, "neither copy of the segment's header is intact")
    if header.writer_id != writer_id or header.segno != segno:
        return Source(segno, sealed, file, None, f"is segment {header.segno} of {header.writer_id}")
    return Source(segno, sealed, file, header, reason)


def _header(file: SegmentFile) -> tuple[Header | None, str]:
    try:
        return segment.parse_header(file.read(0, segment.HEADER_BYTES), file.path), ""
    except NewerFormatError:
        raise
    except DataError:
        return segment.recover_header(file.read(0, _PROBE_BYTES)), BAD_HEADER
