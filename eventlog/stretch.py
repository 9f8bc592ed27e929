"""The fast way through a segment: like frames that follow each other are checked and taken apart by numpy at once.

A training loop logs the same names again and again, so thousands of frames differ only in seq, time, step,
values and checksum. The first frame of such a stretch tells where those stand; every other byte must be the
same. Whatever does not fit is left to the plain way, record by record, and both give the same rows.
"""

from __future__ import annotations

from typing import Final, NamedTuple
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from eventlog import frame, schema
from eventlog.segment import Stretch

SHORTEST: Final = 32
_LONGEST: Final = 16_384
_FIXARRAY_6: Final = 0x96
_UINT64: Final = 0xCF
_NIL: Final = 0xC0
_BIN_SIZES: Final = {0xC4: 1, 0xC5: 2, 0xC6: 4}
_INT_TYPES: Final = {
    0xCC: ">u1",
    0xCD: ">u2",
    0xCE: ">u4",
    0xCF: ">u8",
    0xD0: ">i1",
    0xD1: ">i2",
    0xD2: ">i4",
    0xD3: ">i8",
}
_LOG: Final = schema.kind_number(schema.Log)
_TIME_AT: Final = 3
_STEP_AT: Final = 11


class Columns(NamedTuple):
    """The first `count` records of a stretch, column by column.

    Attributes:
        count: how many records these are, 0 when the stretch is not of the kind that fits.
        shape: the shape number of all of them.
        time_ns: int64[count].
        step: int64[count], or None when no record has a step.
        values: float64[count, names], a view into the segment's bytes.
    """

    count: int  # type: ignore[assignment]  # nobody counts values in columns
    shape: int
    time_ns: NDArray[np.int64]
    step: NDArray[np.int64] | None
    values: NDArray[np.float64]


def extend(data: bytes, stretch: Stretch) -> Stretch:
    """Lengthen a stretch of one good frame over the good frames of the same size and consecutive seq after it."""
    size, offset = stretch.frame_bytes, stretch.offset
    possible = min((len(data) - offset) // size, _LONGEST)
    if possible < SHORTEST:
        return stretch
    count = 1
    step = 64
    while count < possible:
        more = min(step, possible - count)
        good = _good_frames(data, offset + count * size, size, stretch.seq + count, more)
        count += good
        if good < more:
            break
        step = _LONGEST
    return stretch._replace(count=count)


def _good_frames(data: bytes, offset: int, size: int, seq: int, count: int) -> int:
    lengths = np.ndarray((count,), "<u4", data, offset + 6, (size,))
    seqs = np.ndarray((count,), "<u4", data, offset + 10, (size,))
    alike = (lengths == size - frame.HEADER_BYTES) & (seqs == np.arange(seq, seq + count, dtype=np.int64))
    count = count if alike.all() else int(alike.argmin())
    if not count:
        return 0
    bodies: list[bytes] = np.ndarray((count,), f"V{size - 6}", data, offset + 6, (size,)).tolist()
    found = np.fromiter(map(crc32, bodies), np.uint32, count)
    good = found == np.ndarray((count,), "<u4", data, offset, (size,))
    return count if good.all() else int(good.argmin())


def take_apart(data: bytes, stretch: Stretch) -> Columns:
    """Return the columns of as many records at the start of a stretch as are numeric logs of one form."""
    start = stretch.offset + frame.HEADER_BYTES
    first = data[start : stretch.offset + stretch.frame_bytes]
    layout = _layout(first) if stretch.count >= SHORTEST else None
    if layout is None:
        return Columns(0, 0, _NO_INTS, None, _NO_FLOATS)
    step_type, shape_at, values_at, width = layout
    size = stretch.frame_bytes
    fixed = [0, 1, 2, *range(shape_at, values_at), len(first) - 1]
    if step_type != "fixint":
        fixed.append(_STEP_AT)
    rows = np.ndarray((stretch.count, len(first)), "u1", data, start, (size, 1))
    template = np.frombuffer(first, "u1")
    same = np.ones(stretch.count, bool)
    for at in fixed:
        same &= rows[:, at] == template[at]
    if step_type == "fixint":
        same &= rows[:, _STEP_AT] < 0x80
    # Unsigned numbers beyond int64 are no time and no step: such records go the plain way.
    same &= rows[:, _TIME_AT] < 0x80
    if step_type == ">u8":
        same &= rows[:, _STEP_AT + 1] < 0x80
    count = stretch.count if same.all() else int(same.argmin())
    if count < SHORTEST:
        return Columns(0, 0, _NO_INTS, None, _NO_FLOATS)
    time_ns = np.ndarray((count,), ">u8", data, start + _TIME_AT, (size,)).astype(np.int64)
    if step_type is None:
        step = None
    elif step_type == "fixint":
        step = rows[:count, _STEP_AT].astype(np.int64)
    else:
        step = np.ndarray((count,), step_type, data, start + _STEP_AT + 1, (size,)).astype(np.int64)
    values = np.ndarray((count, width), "<f8", data, start + values_at, (size, 8))
    shape = int.from_bytes(first[shape_at + 1 : shape_at + 1 + _int_size(first[shape_at])], "big")
    return Columns(count, shape or (first[shape_at] if first[shape_at] < 0x80 else 0), time_ns, step, values)


_NO_INTS: Final[NDArray[np.int64]] = np.empty(0, np.int64)
_NO_FLOATS: Final[NDArray[np.float64]] = np.empty((0, 0), np.float64)


def _int_size(marker: int) -> int:
    return np.dtype(_INT_TYPES[marker]).itemsize if marker in _INT_TYPES else 0


def _layout(payload: bytes) -> tuple[str | None, int, int, int] | None:
    """Return (type of step, offset of shape, offset of values, number of values) of a numeric log, or None."""
    size = len(payload)
    if size < 16 or payload[:3] != bytes((_FIXARRAY_6, _LOG, _UINT64)) or payload[-1] != _NIL:
        return None
    marker = payload[_STEP_AT]
    step_type: str | None
    if marker < 0x80:
        step_type = "fixint"
    elif marker == _NIL:
        step_type = None
    elif marker in _INT_TYPES:
        step_type = _INT_TYPES[marker]
    else:
        return None
    shape_at = _STEP_AT + 1 + _int_size(marker)
    if shape_at >= size or not (payload[shape_at] < 0x80 or payload[shape_at] in (0xCC, 0xCD, 0xCE)):
        return None
    bin_at = shape_at + 1 + _int_size(payload[shape_at])
    if bin_at >= size or payload[bin_at] not in _BIN_SIZES:
        return None
    values_at = bin_at + 1 + _BIN_SIZES[payload[bin_at]]
    length = int.from_bytes(payload[bin_at + 1 : values_at], "big")
    if length % 8 or values_at + length + 1 != size:
        return None
    return step_type, shape_at, values_at, length // 8
