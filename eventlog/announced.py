"""Find the shapes that a segment announced before a place in it, for a reader that goes on there."""

from __future__ import annotations

from typing import Final

from eventlog import frame, schema, segment
from eventlog.segment import Damage

_PROBE_BYTES: Final = 4096


def load_shapes(file: segment.SegmentFile, shape_offset: int) -> dict[int, schema.Shape]:
    """Return the shapes that a segment announced up to and at `shape_offset`, following the chain of announcements.

    When a link of the chain is damaged, or leads anywhere but back, the segment is read from its start instead.
    """
    shapes: dict[int, schema.Shape] = {}
    offset = shape_offset
    while offset:
        data = file.read(offset, _PROBE_BYTES)
        found = frame.parse(data, 0)
        if found.outcome is frame.Outcome.INCOMPLETE:
            needed = int.from_bytes(data[6:10], "little") & frame.MAX_PAYLOAD_BYTES
            data = file.read(offset, needed + frame.HEADER_BYTES)
            found = frame.parse(data, 0)
        if found.outcome is not frame.Outcome.COMPLETE:
            return _scan_shapes(file, shape_offset)
        record = schema.decode(data[frame.HEADER_BYTES : found.end])
        if not isinstance(record, schema.Shape):
            return _scan_shapes(file, shape_offset)
        shapes.setdefault(record.shape, record)
        if record.previous_offset and not segment.HEADER_BYTES <= record.previous_offset < offset:
            return _scan_shapes(file, shape_offset)
        offset = record.previous_offset
    return shapes


def _scan_shapes(file: segment.SegmentFile, shape_offset: int) -> dict[int, schema.Shape]:
    shapes: dict[int, schema.Shape] = {}
    data = file.read()
    for part in segment.walk(data, segment.HEADER_BYTES, 0, final=True):
        if isinstance(part, Damage) or not part.structural:
            continue
        if part.offset > shape_offset:
            break
        record = schema.decode(data[part.offset + frame.HEADER_BYTES : part.end])
        if isinstance(record, schema.Shape):
            shapes[record.shape] = record
    return shapes
