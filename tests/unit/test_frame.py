"""Frames: what was built is parsed, every damage is told, and the next good frame is found."""

from __future__ import annotations

import zlib

import pytest

from eventlog import frame
from eventlog.frame import Outcome


@pytest.mark.parametrize("payload", [b"x", b"\0", b"abc" * 1000, bytes(range(256))])
@pytest.mark.parametrize("seq", [0, 1, frame.MAX_SEQ])
@pytest.mark.parametrize("structural", [False, True])
def test_what_was_built_is_parsed(payload: bytes, seq: int, structural: bool):  # noqa: FBT001 - a parameter of the case
    data = b"before" + frame.build(payload, seq, structural=structural) + b"after"
    found = frame.parse(data, 6)
    assert found == frame.Frame(Outcome.COMPLETE, 6 + 14 + len(payload), seq, structural)
    assert frame.payload(data, 6, found.end) == payload
    assert frame.parse(memoryview(data), 6) == found


def test_every_prefix_is_incomplete():
    whole = frame.build(b"payload", 3)
    for size in range(len(whole)):
        found = frame.parse(whole[:size], 0)
        assert found.outcome is Outcome.INCOMPLETE
        if size >= frame.HEADER_BYTES:
            assert (found.end, found.seq) == (len(whole), 3)


def test_no_flipped_bit_is_ever_complete_except_in_the_redundant_check():
    whole = frame.build(b"payload", 3)
    for bit in range(len(whole) * 8):
        data = bytearray(whole)
        data[bit // 8] ^= 1 << bit % 8
        found = frame.parse(bytes(data), 0)
        if 4 <= bit // 8 < 6:
            assert found == frame.parse(whole, 0)
        else:
            assert found.outcome is not Outcome.COMPLETE


def test_a_bad_body_still_says_where_the_frame_ends():
    data = bytearray(frame.build(b"payload", 3) + frame.build(b"next", 4))
    data[16] ^= 1
    found = frame.parse(bytes(data), 0)
    assert (found.outcome, found.end, found.seq) == (Outcome.BAD_BODY, 21, 3)
    assert frame.parse(bytes(data), found.end).outcome is Outcome.COMPLETE


def test_zeros_are_no_frame():
    assert frame.parse(bytes(100), 0).outcome is Outcome.BAD_HEADER
    assert frame.resync(bytes(1 << 20), 0, 0) == -1


def test_an_empty_payload_is_no_frame_even_with_good_checksums():
    start = zlib.crc32(frame.pack_length_seq(0, 0))
    data = frame.pack_header(start, start & 0xFFFF, 0, 0)
    assert frame.parse(data, 0).outcome is Outcome.BAD_HEADER


def test_the_next_good_frame_is_found_after_garbage():
    good = frame.build(b"payload", 3)
    for garbage in (b"", b"\0" * 14, b"\xff" * 100, frame.build(b"old", 1), good[:-1]):
        data = garbage + good
        assert frame.resync(data, 0, 2) == len(garbage)


def test_a_frame_from_the_past_is_not_taken():
    data = frame.build(b"payload", 3)
    assert frame.resync(data, 0, 3) == 0
    assert frame.resync(data, 0, 4) == -1


def test_a_seq_that_cannot_be_reached_yet_is_not_taken():
    data = frame.build(b"payload", 1000)
    assert frame.resync(data, 0, 3) == -1


def test_a_frame_inside_the_payload_of_a_damaged_one_is_taken_only_with_a_fitting_seq():
    inner = frame.build(b"inner", 7)
    data = bytearray(frame.build(inner, 0))
    data[6] ^= 1
    assert frame.resync(bytes(data), 1, 0) == -1


def test_large_seqs_and_long_lengths_are_found():
    seq = frame.MAX_SEQ - 1
    data = b"\1" * 37 + frame.build(b"x" * 70_000, seq)
    assert frame.resync(data, 0, seq - 2) == 37
