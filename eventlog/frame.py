"""Frames: the header and checksums around one payload, and how to find the next good one after damage. Pure.

A frame is 14 bytes of header and the payload, integers little-endian::

    crc u32 | check u16 | length u32 | seq u32 | payload

`crc` covers everything after `check`. `check` is the low half of the CRC over length and seq alone: when
the body is bad it says whether the length can still be trusted, so that one bad body costs one frame.
The top bit of `length` marks a structural frame, which takes no seq of its own.
"""

from __future__ import annotations

import enum
import re
import struct
import zlib
from typing import Final, NamedTuple

from eventlog.errors import UsageError

HEADER_BYTES: Final = 14
MAX_PAYLOAD_BYTES: Final = (1 << 28) - 1
MAX_SEQ: Final = (1 << 32) - 1
STRUCTURAL_FLAG: Final = 1 << 31

_HEADER: Final = struct.Struct("<IHII")
_LENGTH_SEQ: Final = struct.Struct("<II")
pack_header: Final = _HEADER.pack
pack_length_seq: Final = _LENGTH_SEQ.pack
_ZEROS: Final = bytes(HEADER_BYTES)
_NOT_ZERO: Final = re.compile(rb"[^\x00]")


class Outcome(enum.Enum):
    """What stands at an offset."""

    COMPLETE = "complete"
    INCOMPLETE = "the frame goes on beyond the end"
    BAD_BODY = "the body does not match its checksum"
    BAD_HEADER = "the header does not match its checksum"


class Frame(NamedTuple):
    """The result of looking at one offset: `end`, `seq` and `structural` hold unless the header is bad."""

    outcome: Outcome
    end: int
    seq: int
    structural: bool


def build(payload: bytes, seq: int, *, structural: bool = False) -> bytes:
    """Return the frame for a payload.

    Args:
        payload: an encoded record, 1 to 2**28 - 1 bytes.
        seq: the record's seq less the segment's first seq, below 2**32; for a structural frame, that of
            the next record.
        structural: mark the frame as one that takes no seq of its own.

    Raises:
        UsageError: the payload is too large.
    """
    if len(payload) > MAX_PAYLOAD_BYTES:
        raise too_large(len(payload))
    length = len(payload) | (STRUCTURAL_FLAG if structural else 0)
    start = zlib.crc32(pack_length_seq(length, seq))
    return pack_header(zlib.crc32(payload, start), start & 0xFFFF, length, seq) + payload


def parse(data: bytes | memoryview, offset: int) -> Frame:
    """Look at the frame that starts at `offset`; never reads past the end and never raises."""
    start = offset + HEADER_BYTES
    if start > len(data):
        return Frame(Outcome.INCOMPLETE, len(data), 0, structural=False)
    crc, check, flagged, seq = _HEADER.unpack_from(data, offset)
    length = flagged & MAX_PAYLOAD_BYTES
    structural = flagged >= STRUCTURAL_FLAG
    end = start + length
    if end <= len(data) and length and zlib.crc32(data[offset + 6 : end]) == crc:
        return Frame(Outcome.COMPLETE, end, seq, structural)
    if zlib.crc32(data[offset + 6 : start]) & 0xFFFF != check or not length:
        return Frame(Outcome.BAD_HEADER, start, 0, structural=False)
    outcome = Outcome.BAD_BODY if end <= len(data) else Outcome.INCOMPLETE
    return Frame(outcome, end, seq, structural)


def payload(data: bytes | memoryview, offset: int, end: int) -> bytes | memoryview:
    """Return the payload of the complete frame at `offset`."""
    return data[offset + HEADER_BYTES : end]


def resync(data: bytes, offset: int, expected_seq: int) -> int:
    """Return where the first good frame at or after `offset` starts, or -1.

    Only a frame whose whole checksum holds and whose seq can follow `expected_seq` is taken: damage
    never becomes a record.
    """
    remaining = len(data) - offset
    highest_seq = expected_seq + remaining // HEADER_BYTES + 1
    candidates = _candidates(remaining, expected_seq, highest_seq)
    position = offset
    while True:
        match = candidates.search(data, position)
        if match is None:
            return -1
        position = match.start()
        if data.startswith(_ZEROS, position):
            nonzero = _NOT_ZERO.search(data, position)
            if nonzero is None:
                return -1
            position = max(position + 1, nonzero.start() - HEADER_BYTES + 1)
            continue
        seq = _HEADER.unpack_from(data, position)[3]
        if expected_seq <= seq <= highest_seq and parse(data, position).outcome is Outcome.COMPLETE:
            return position
        position += 1


def _candidates(remaining: int, lowest_seq: int, highest_seq: int) -> re.Pattern[bytes]:
    """Match, at the speed of C, every position whose length and seq have possible top bytes."""
    longest = min(remaining, MAX_PAYLOAD_BYTES) >> 24
    lengths = b"[\\x00-\\x%02x\\x80-\\x%02x]" % (longest, 0x80 | longest)
    seqs = b"[\\x%02x-\\x%02x]" % (lowest_seq >> 24 & 0xFF, min(highest_seq, MAX_SEQ) >> 24)
    return re.compile(rb"(?s)(?=.{9}" + lengths + rb".{3}" + seqs + rb")")


def too_large(size_bytes: int) -> UsageError:
    """Return the error for a payload that no frame can hold."""
    return UsageError(f"a record of {size_bytes} bytes is too large, at most {MAX_PAYLOAD_BYTES}")
