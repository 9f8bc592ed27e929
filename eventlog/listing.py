"""List the segments of a writer in order, and what each of them says about itself."""

from __future__ import annotations

from typing import Final, NamedTuple

from eventlog import names, segment
from eventlog.errors import DataError, NewerFormatError
from eventlog.fs import Fs
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
    """

    segno: int
    sealed: bool
    file: SegmentFile
    header: Header | None
    reason: str = ""
    followed: bool = False

    @property
    def ended(self) -> bool:
        """Whether it is certain that nothing is appended to it any more."""
        return self.sealed or self.followed


def sources(fs: Fs, directory: str, writer_id: str, first_segno: int) -> list[Source]:
    """Return the segments of a writer from a number on, in order.

    Raises:
        NewerFormatError: one is of a newer format.
        OSError: one cannot be read.
    """
    listed: dict[int, bool] = {}
    # A listing is no snapshot: a segment that is sealed meanwhile can be missing under both its names, once.
    for _ in range(2):
        for entry in fs.entries(directory):
            parsed = names.parse_segment_name(entry.name)
            if parsed is not None and parsed[0] >= first_segno and not entry.is_dir:
                listed[parsed[0]] = listed.get(parsed[0], False) or parsed[1]
        if listed and len(listed) == max(listed) - (first_segno or 1) + 1:
            break
    opened = ((segno, SegmentFile(fs, directory, segno, sealed=listed[segno])) for segno in sorted(listed))
    found = [source for segno, file in opened if (source := _source(file, writer_id, segno, sealed=listed[segno]))]
    last = max((source.segno for source in found if source.header is not None), default=0)
    return [source._replace(followed=source.segno < last) for source in found]


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
