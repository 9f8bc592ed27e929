"""Segments: their header, the walk over frames and damage, and the plain way to read records."""

from __future__ import annotations

import struct
import zlib

import pytest

from eventlog import frame, schema, segment
from eventlog.errors import DataError, NewerFormatError
from eventlog.segment import Damage, Header, Item, Stretch

HEADER = Header("0" * 26, 3, 10, 1_700_000_000_000_000_000)


def records(count: int) -> list[schema.Heartbeat]:
    return [schema.Heartbeat(index, "run") for index in range(count)]


def frames(count: int) -> list[bytes]:
    return [frame.build(schema.encode(record), seq) for seq, record in enumerate(records(count))]


def good(parts: list[Stretch | Damage]) -> list[int]:
    return [part.seq for part in parts if isinstance(part, Stretch)]


def test_a_header_comes_back():
    data = segment.build_header(HEADER)
    assert len(data) == segment.HEADER_BYTES
    assert segment.parse_header(data + b"rest", "path") == HEADER


@pytest.mark.parametrize("size", [0, 1, 63])
def test_a_short_header_is_refused(size: int):
    with pytest.raises(DataError, match="incomplete"):
        segment.parse_header(segment.build_header(HEADER)[:size], "path")


def test_no_flipped_bit_in_a_header_goes_unseen():
    whole = segment.build_header(HEADER)
    for bit in range(len(whole) * 8):
        data = bytearray(whole)
        data[bit // 8] ^= 1 << bit % 8
        with pytest.raises(DataError, match="checksum") as caught:
            segment.parse_header(bytes(data), "path")
        assert not isinstance(caught.value, NewerFormatError)


def test_an_intact_header_of_another_version_is_refused_by_name():
    data = bytearray(segment.build_header(HEADER))
    struct.pack_into("<H", data, 8, 9)
    struct.pack_into("<I", data, 60, zlib.crc32(bytes(data[:60])))
    with pytest.raises(NewerFormatError, match="version 9 is not supported, only 1: upgrade"):
        segment.parse_header(bytes(data), "path")


def test_a_damaged_header_is_recovered_from_the_first_frame():
    start = schema.SegmentStart(*HEADER, "p", "host", 1, "boot", "test")
    data = bytes(64) + frame.build(schema.encode(start), 0, structural=True)
    assert segment.recover_header(data) == HEADER


@pytest.mark.parametrize("data", [b"", bytes(64), bytes(200), bytes(64) + frame.build(schema.encode(records(1)[0]), 0)])
def test_without_a_start_frame_nothing_is_recovered(data: bytes):
    assert segment.recover_header(data) is None


def test_a_walk_finds_every_frame_in_order():
    parts = list(segment.walk(b"".join(frames(5)), 0, 0))
    assert good(parts) == [0, 1, 2, 3, 4]
    assert [part.end for part in parts][-1] == len(b"".join(frames(5)))


def test_any_prefix_is_a_prefix_of_the_records_and_no_damage():
    data = b"".join(frames(4))
    for size in range(len(data) + 1):
        parts = list(segment.walk(data[:size], 0, 0))
        assert good(parts) == list(range(len(good(parts))))
        assert not any(isinstance(part, Damage) for part in parts)


def test_one_bad_body_costs_one_frame():
    parts = frames(5)
    damaged = bytearray(parts[2])
    damaged[-1] ^= 1
    found = list(segment.walk(b"".join([*parts[:2], bytes(damaged), *parts[3:]]), 0, 0))
    assert good(found) == [0, 1, 3, 4]
    (damage,) = [part for part in found if isinstance(part, Damage)]
    assert (damage.offset, damage.end, damage.at_end) == (len(b"".join(parts[:2])), len(b"".join(parts[:3])), False)


def test_one_bad_header_costs_one_frame():
    parts = frames(5)
    found = list(segment.walk(b"".join([*parts[:2], b"\xff" * 14 + parts[2][14:], *parts[3:]]), 0, 0))
    assert good(found) == [0, 1, 3, 4]


def test_a_tail_of_zeros_is_damage_at_the_end():
    data = b"".join(frames(2))
    found = list(segment.walk(data + bytes(5000), 0, 0))
    assert found[-1] == Damage(len(data), len(data) + 5000, "the header does not match its checksum", at_end=True)


def test_damage_at_the_end_of_a_window_is_left_for_the_next_look():
    data = b"".join(frames(2))
    assert good(list(segment.walk(data + bytes(500), 0, 0, at_eof=False))) == [0, 1]
    assert len(list(segment.walk(data + bytes(500), 0, 0, at_eof=False))) == 2


def test_structural_frames_take_no_seq():
    seal = frame.build(schema.encode(schema.Seal(2, 12, final=True)), 2, structural=True)
    data = segment.build_header(HEADER) + frames(2)[0] + frames(2)[1] + seal
    items = list(segment.items(data, HEADER))
    assert [(item.seq, type(item.record)) for item in items if isinstance(item, Item)] == [
        (10, schema.Heartbeat),
        (11, schema.Heartbeat),
        (12, schema.Seal),
    ]


def test_items_are_the_records_and_the_damage_between_them():
    parts = frames(3)
    parts[1] = bytes(len(parts[1]))
    data = segment.build_header(HEADER) + b"".join(parts)
    found = list(segment.items(data, HEADER))
    assert [item.record for item in found if isinstance(item, Item)] == [records(3)[0], records(3)[2]]
    assert isinstance(found[1], Damage)
