"""Segment files: their header, and the rules by which an open and a sealed one are read."""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final, NamedTuple

from eventlog import frame, names, schema
from eventlog.errors import DataError, NewerFormatError
from eventlog.frame import Outcome

if TYPE_CHECKING:
    from eventlog.fs import Fs

MAGIC: Final = b"\x89EVLOG\r\n"
VERSION: Final = 1
HEADER_BYTES: Final = 64
OUT_OF_ORDER: Final = "records stand behind a later one of their writer"
MAX_FIRST_SEQ: Final = 1 << 62

_HEADER: Final = struct.Struct("<8sHHIQq26s2xI")


class Header(NamedTuple):
    """The facts at the start of a segment."""

    writer_id: str
    segno: int
    first_seq: int
    created_ns: int


class Stretch(NamedTuple):
    """`count` good frames of `frame_bytes` each, one after the other, with consecutive seqs from `seq`."""

    offset: int
    frame_bytes: int
    count: int  # type: ignore[assignment]  # nobody counts values in a stretch
    seq: int
    structural: bool

    @property
    def end(self) -> int:
        """The offset after the last frame."""
        return self.offset + self.frame_bytes * self.count


class Damage(NamedTuple):
    """Bytes that hold no good frame; `at_end` when no good frame follows in the data at hand."""

    offset: int
    end: int
    reason: str
    at_end: bool


Extend = Callable[[bytes, Stretch], Stretch]
"""Lengthens a stretch of one frame over the like frames that follow it; see `eventlog.columns`."""


def build_header(header: Header) -> bytes:
    """Return the 64 bytes that start a segment."""
    body = _HEADER.pack(
        MAGIC, VERSION, 0, header.segno, header.first_seq, header.created_ns, header.writer_id.encode("ascii"), 0
    )[:-4]
    return body + struct.pack("<I", zlib.crc32(body))


def parse_header(data: bytes, path: str) -> Header:
    """Return what the first 64 bytes say.

    Raises:
        NewerFormatError: an intact header of a version that this release does not read.
        DataError: the bytes are no intact header.
    """
    if len(data) < HEADER_BYTES:
        raise DataError(path, len(data), "the header is incomplete")
    magic, version, _, segno, first_seq, created_ns, raw_id, crc = _HEADER.unpack_from(data)
    if magic != MAGIC or zlib.crc32(data[: HEADER_BYTES - 4]) != crc:
        raise DataError(path, 0, "the header does not match its checksum")
    if version != VERSION:
        message = f"segment format version {version} is not supported, only {VERSION}: upgrade eventlog"
        raise NewerFormatError(path, 8, message)
    header = Header(raw_id.decode("ascii", "replace"), segno, first_seq, created_ns)
    if not _is_possible(header):
        raise DataError(path, 0, "the header says what no writer writes")
    return header


def _is_possible(header: Header) -> bool:
    """Say whether a writer can have written this: numbers that fit their columns, and an id of the form of ids."""
    in_range = 1 <= header.first_seq <= MAX_FIRST_SEQ and -(1 << 63) <= header.created_ns < 1 << 63
    return in_range and names.is_writer_id(header.writer_id)


def recover_header(data: bytes) -> Header | None:
    """Return the header as the first frame repeats it, or None when that is damaged too."""
    if len(data) < HEADER_BYTES or frame.parse(data, HEADER_BYTES).outcome is not Outcome.COMPLETE:
        return None
    end = frame.parse(data, HEADER_BYTES).end
    record = schema.decode(frame.payload(data, HEADER_BYTES, end))
    if not isinstance(record, schema.SegmentStart):
        return None
    header = Header(record.writer_id, record.segno, record.first_seq, record.created_ns)
    return header if _is_possible(header) else None


def walk(
    data: bytes,
    offset: int,
    expected_seq: int,
    *,
    at_eof: bool = True,
    final: bool = False,
    extend: Extend | None = None,
) -> Iterator[Stretch | Damage]:
    """Yield the good frames from `offset` on in order, and the damage between them.

    The walk is the same for open and for sealed segments; they differ in what an end means, and that is for
    the caller to say: bytes after the last item are an incomplete frame. In an open segment those, and
    damage that is `at_end`, are the torn tail, which is normal. In a sealed segment both are loss.

    Args:
        data: the segment's bytes, or a window of them that starts at a frame.
        offset: where in `data` the first frame starts.
        expected_seq: the seq, relative to the segment, that the next record should have.
        at_eof: `data` reaches to the end of the file. When it does not, damage at the end of the window is
            not yielded: it has to be looked at again with more of the file.
        final: nothing will be appended any more, so a frame that goes on beyond the end never becomes complete: it
            is damage, and what stands behind it is searched for.
        extend: makes stretches longer than one frame.
    """
    size = len(data)
    while offset < size:
        found = frame.parse(data, offset)
        if found.outcome is Outcome.COMPLETE:
            stretch = Stretch(offset, found.end - offset, 1, found.seq, found.structural)
            if extend is not None and not found.structural:
                stretch = extend(data, stretch)
            yield stretch
            offset = stretch.end
            expected_seq = max(expected_seq, stretch.seq + (0 if found.structural else stretch.count))
            continue
        if found.outcome is Outcome.INCOMPLETE and not (final and at_eof):
            return
        good = _next_good(data, offset, found, expected_seq, at_eof=at_eof)
        if good < 0 and not at_eof:
            return
        yield Damage(offset, size if good < 0 else good, found.outcome.value, at_end=good < 0)
        if good < 0:
            return
        offset = good


def _next_good(data: bytes, offset: int, bad: frame.Frame, expected_seq: int, *, at_eof: bool) -> int:
    """Return where the first good frame after a bad one starts, or -1."""
    search_from = offset + 1
    if bad.outcome is Outcome.BAD_BODY:
        after = frame.parse(data, bad.end).outcome
        if after is Outcome.INCOMPLETE and not at_eof:
            return -1
        # Where no frame stands at the end of this one, bytes are gone from it, and a good one may begin within.
        search_from = bad.end if after is Outcome.COMPLETE else search_from
    return frame.resync(data, search_from, expected_seq)


def is_torn(rest: bytes) -> bool:
    """Say whether the bytes after the last good frame are what a kill or a power loss leaves of the last append.

    That is the beginning of one frame, or nothing but zeros; anything else was damaged.
    """
    return not rest.strip(b"\0") or frame.parse(rest, 0).outcome is Outcome.INCOMPLETE


def promised(rest: bytes, expected_seq: int) -> int:
    """Return the seq after the last record whose frame has an intact header in bytes that hold no good frame.

    The frames of these records are damaged, so the records are known to be lost.

    Args:
        rest: the bytes after the last good frame.
        expected_seq: the seq, relative to the segment, that the next record should have had.
    """
    offset, following = 0, expected_seq
    while (found := frame.parse(rest, offset)).outcome is Outcome.BAD_BODY:
        if following <= found.seq <= following + len(rest) // frame.HEADER_BYTES:
            following = found.seq + (0 if found.structural else 1)
        offset = found.end
    return following


def contradiction(record: schema.AnyRecord, part: Stretch | Item, header: Header) -> str | None:
    """Say what is wrong with a good structural frame; None when a writer can have written it.

    From such a frame nothing is concluded: a seal that promises what its own frame denies would make a gap of
    records that were never logged.
    """
    if isinstance(record, schema.Seal):
        seq = part.seq - header.first_seq if isinstance(part, Item) else part.seq
        if (record.records, record.next_seq) != (seq, header.first_seq + seq):
            return "the seal does not say where its segment ends"
    elif not isinstance(record, (*schema.STRUCTURAL, schema.Unknown)):
        return f"a structural frame holds a {schema.kind_of(record)} record"
    return None


class Item(NamedTuple):
    """One record of a segment.

    Attributes:
        seq: the writer's, or that of the next record for a structural one.
        offset, end: of its frame.
        record: what it holds.
        structural: whether the frame says that it takes no seq, whatever it holds.
    """

    seq: int
    offset: int
    end: int
    record: schema.AnyRecord
    structural: bool


def items(data: bytes, header: Header, *, final: bool = False) -> Iterator[Item | Damage]:
    """Yield every record of a segment one by one, structural ones too, and the damage between them.

    The plain, slow way to read, without numpy: the independent check on the fast one. `final` as for `walk`.
    """
    for part in walk(data, HEADER_BYTES, 0, final=final):
        if isinstance(part, Damage):
            yield part
            continue
        record = schema.decode(frame.payload(data, part.offset, part.end))
        yield Item(header.first_seq + part.seq, part.offset, part.end, record, part.structural)


class SegmentFile:
    """A segment's bytes, under whichever of its two names it has at the moment: it may be sealed at any time."""

    def __init__(self, fs: Fs, directory: str, segno: int, *, sealed: bool) -> None:
        """Take where it is, and the name that it was last seen under."""
        self._fs = fs
        self.path = os.path.join(directory, names.segment_name(segno, sealed=sealed))
        self._sealed_path = os.path.join(directory, names.segment_name(segno, sealed=True))

    def sibling(self, segno: int) -> SegmentFile:
        """Return another segment of the same writer, under whichever name it has."""
        return SegmentFile(self._fs, os.path.dirname(self.path), segno, sealed=False)

    def read(self, offset: int = 0, size: int = -1) -> bytes:
        """Return its bytes from `offset` on.

        Raises:
            FileNotFoundError: it is gone.
        """
        try:
            return self._fs.read(self.path, offset, size)
        except FileNotFoundError:
            self.path = self._sealed_path
            return self._fs.read(self.path, offset, size)

    def size(self) -> int:
        """Return how many bytes it has.

        Raises:
            FileNotFoundError: it is gone.
        """
        try:
            return self._fs.size(self.path)
        except FileNotFoundError:
            self.path = self._sealed_path
            return self._fs.size(self.path)
