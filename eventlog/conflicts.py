"""Tell when two different records claim one (writer_id, seq): a writer was copied, and both copies went on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from eventlog import frame, segment
from eventlog.errors import DataError
from eventlog.manifest import End, Watermark
from eventlog.segment import Damage, Extend, Header, SegmentFile, Stretch

CONFLICT: Final = "conflict"
"""How the reason begins with which a whole segment is set aside."""
REPLACED: Final = f"{CONFLICT}: holds other records than those that were read under this name before"
OVERLAPS: Final = f"{CONFLICT}: holds other records under seqs that an earlier segment holds"
UNEQUAL: Final = f"{CONFLICT}: the open and the sealed file of this segment hold different bytes"
_PROBE_BYTES: Final = 4096
_MOST_ENDS: Final = 64


def end_of(data: bytes, part: Stretch, start: int) -> End:
    """Return the end that a stretch makes; `data` begins at offset `start` of the segment."""
    last = part.end - part.frame_bytes
    return End(start + last, int.from_bytes(data[last : last + 4], "little"))


def kept_ends(ends: dict[int, End], segnos: set[int]) -> dict[int, End]:
    """Return the ends that a watermark keeps: of the newest segments that are still there, a bounded number."""
    return {segno: ends[segno] for segno in sorted(ends.keys() & segnos)[-_MOST_ENDS:]}


def reason(
    file: SegmentFile, header: Header, mark: Watermark, expected_seq: int, segnos: set[int], extend: Extend
) -> str | None:
    """Return why a segment must not be read on after what was read before it, or None.

    Args:
        file: the segment.
        header: what it says about itself.
        mark: how far its writer was read before.
        expected_seq: of the record that comes next.
        segnos: of all segments of the writer that have a file.
        extend: as for `segment.walk`.

    Raises:
        OSError: a file cannot be read.
    """
    if header.segno == mark.segno:
        end = (mark.ends or {}).get(mark.segno)
        replaced = end is not None and not mark.is_settled(file.size()) and is_replaced(file, end)
        return REPLACED if replaced else None
    if header.first_seq >= expected_seq:
        return None
    earlier = sorted((segno for segno in segnos if segno < header.segno), reverse=True)
    other = _is_other(file, header, expected_seq, [file.sibling(segno) for segno in earlier], extend)
    return OVERLAPS if other else None


def is_replaced(file: SegmentFile, end: End) -> bool:
    """Say whether a segment holds another record where `end` was read, or one that spans that place.

    Records of two processes differ at least in their time, so the last one that was taken stands for all before it.
    A frame that is damaged now, or a file that is cut off before it, is no other record.

    Raises:
        OSError: the file cannot be read, or is gone.
    """
    found = _crc_at(file, end.offset)
    if found is not None:
        return found != end.crc
    for part in segment.walk(file.read(), segment.HEADER_BYTES, 0):
        if part.offset < end.offset < part.end:
            return not isinstance(part, Damage)
    return False


def _crc_at(file: SegmentFile, offset: int) -> int | None:
    """Return the `crc` of the frame at an offset, or None when no complete one is there."""
    data = file.read(offset, _PROBE_BYTES)
    if frame.parse(data, 0).outcome is frame.Outcome.INCOMPLETE and len(data) == _PROBE_BYTES:
        needed = int.from_bytes(data[6:10], "little") & frame.MAX_PAYLOAD_BYTES
        data = file.read(offset, needed + frame.HEADER_BYTES)
    whole = frame.parse(data, 0).outcome is frame.Outcome.COMPLETE
    return int.from_bytes(data[:4], "little") if whole else None


def _is_other(
    source: SegmentFile, header: Header, expected_seq: int, earlier: list[SegmentFile], extend: Extend
) -> bool:
    """Say whether a segment's records below `expected_seq` are others than those of earlier segments.

    The last of them stands for all. The newest earlier segment that begins before it had it; where that is damaged,
    nothing shows that it was another. When there is none any more, nothing shows that it was the same.
    """
    data = source.read()
    seq = -1
    for part in _records(data, extend):
        if header.first_seq + part.seq < expected_seq:
            seq = min(header.first_seq + part.seq + part.count, expected_seq) - 1
    if seq < 0:
        return False
    mine = _payload(data, header, seq, extend)
    for file in earlier:
        try:
            theirs = segment.parse_header(file.read(0, segment.HEADER_BYTES), file.path)
            if theirs.first_seq <= seq:
                return _payload(file.read(), theirs, seq, extend) not in (None, mine)
        except (DataError, FileNotFoundError):
            continue
    return True


def _records(data: bytes, extend: Extend) -> Iterator[Stretch]:
    for part in segment.walk(data, segment.HEADER_BYTES, 0, extend=extend):
        if not isinstance(part, Damage) and not part.structural:
            yield part


def _payload(data: bytes, header: Header, seq: int, extend: Extend) -> bytes | None:
    """Return the payload of the record with this seq of the writer, or None."""
    for part in _records(data, extend):
        index = seq - header.first_seq - part.seq
        if 0 <= index < part.count:
            start = part.offset + index * part.frame_bytes
            return bytes(frame.payload(data, start, start + part.frame_bytes))
    return None


def unequal_form(opened: SegmentFile, sealed: SegmentFile, end: End | None) -> SegmentFile | None:
    """Return which of a segment's two files does not count: None when they agree, as after a failed sync.

    The one that was read so far counts, else the sealed one.

    Raises:
        OSError: a file cannot be read.
    """
    try:
        agree = do_agree(opened.read(), sealed.read())
    except FileNotFoundError:
        return None
    if agree or opened.path == sealed.path:
        return None
    was_read = end is not None and _crc_at(opened, end.offset) == end.crc and _crc_at(sealed, end.offset) != end.crc
    return sealed if was_read else opened


def do_agree(opened: bytes, sealed: bytes) -> bool:
    """Say whether the sealed file of a segment begins with the open one, but for what a power loss left as zeros."""
    return sealed.startswith(opened.rstrip(b"\0"))
