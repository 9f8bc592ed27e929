"""Blocks of a segment torn, zeroed, swapped, doubled or gone, and whole files that are foreign, newer or cut."""

from __future__ import annotations

import struct
import zlib

import pytest
from damage_support import (
    CONFIG,
    PROJECT,
    RECORDS,
    ROOT,
    WRITER_ID,
    clean_rows,
    codes,
    every_kind,
    fold_dead,
    gaps_of,
    look,
    neighbour,
    overwritten,
    quarantine,
    ranges,
    read,
    rows_of,
    seqs_of,
    store_with,
    without,
)

from compactor.fold import fold
from compactor.status import project_status
from eventlog import frame, names, segment
from eventlog.errors import NewerFormatError
from eventlog.fs import LOCAL
from eventlog.inspect import inspect
from eventlog.testing import contents, forge
from eventlog.verify import verify

MADE = every_kind(sealed=True)
OPEN = every_kind(sealed=False)


def check(data: bytes, lost: set[int], *, exact: bool = True) -> None:
    """Fold a sealed segment whose lost records are these, or at most these, and hold everything said of it to it."""
    fs = store_with(data, sealed=True)
    other = neighbour()
    forge.put(fs, ROOT, PROJECT, other.header, other.data, sealed=False)
    look(fs)
    codes(fs)
    manifest = fold_dead(fs).manifest
    found = [row for row in contents.of_snapshot(fs, ROOT, manifest) if row.writer_id == WRITER_ID]
    assert set(found) <= set(clean_rows())
    missing = {row.seq for row in clean_rows()} - {row.seq for row in found}
    assert missing == lost if exact else missing <= lost
    assert found == without(clean_rows(), missing)
    assert gaps_of(manifest) == ranges(missing)
    assert contents.of_snapshot(fs, ROOT, manifest)[-3:] or rows_of(other)
    assert codes(fs) >= ({"gap"} if missing else set())
    assert quarantine(fs)
    look(fs)


def shapes_hit(start: int, end: int) -> set[int]:
    """Return the seqs of records that may be left without their shape when both of its copies are hit."""
    hit = MADE.hit(start, end)
    return {placed.offset for placed in hit if placed.seq is None}


@pytest.mark.parametrize("junk", [bytes(512), b"\xff" * 512, bytes(range(256)) * 2], ids=["zeros", "ones", "noise"])
def test_a_torn_block_costs_the_frames_in_it_and_is_told(junk):
    last_shape = MADE.records[3].offset
    for start in range(last_shape, len(MADE.data), 97):
        end = min(start + len(junk), len(MADE.data))
        data = overwritten(MADE.data, start, junk)
        lost = seqs_of(MADE.hit(start, end))
        if end >= MADE.frames[-1].offset:
            # The seal is hit too: what was lost at the end is not told by a gap, but by what was set aside.
            found = read(data, sealed=True)
            assert found.rows == without(clean_rows(), lost)
            assert found.damages[-1][1] == len(MADE.data)
        else:
            check(data, lost)


def test_a_torn_first_block_costs_no_row_that_it_does_not_hold():
    """The announcements of shapes are gone with it: such records are kept as what they are, without their names."""
    data = overwritten(MADE.data, 100, bytes(120))
    found = read(data, sealed=True)
    hit = seqs_of(MADE.hit(100, 220))
    assert {row.seq for row in found.rows} == {row.seq for row in clean_rows()} - hit
    odd = [row for row in found.rows if row not in clean_rows()]
    assert odd
    assert all(dict(row.cells)["kind"] == "unknown:log_without_shape" for row in odd)


@pytest.mark.parametrize("first", range(8, 18, 3))
def test_swapped_frames_and_blocks_become_no_other_record(first):
    a, b = MADE.frames[first], MADE.frames[first + 1]
    swapped = MADE.data[: a.offset] + MADE.data[b.offset : b.end] + MADE.data[a.offset : a.end] + MADE.data[b.end :]
    check(swapped, seqs_of([a]))
    blocks = bytearray(MADE.data)
    start = a.offset
    blocks[start : start + 64], blocks[start + 64 : start + 128] = (
        MADE.data[start + 64 : start + 128],
        MADE.data[start : start + 64],
    )
    check(bytes(blocks), seqs_of(MADE.hit(start, start + 128)), exact=False)


@pytest.mark.parametrize("start", range(230, 800, 111))
def test_a_block_that_stands_there_twice_costs_at_most_the_frame_it_splits(start):
    data = MADE.data[: start + 200] + MADE.data[start : start + 200] + MADE.data[start + 200 :]
    check(data, seqs_of(MADE.hit(start + 200, start + 201)), exact=False)


@pytest.mark.parametrize("start", range(230, 800, 29))
def test_a_block_that_is_gone_costs_only_the_frames_it_held(start):
    gone = 150
    data = MADE.data[:start] + MADE.data[start + gone :]
    check(data, seqs_of(MADE.hit(start, start + gone)))


@pytest.mark.parametrize("zeros", [1, 13, 14, 512, 100_000])
def test_a_tail_of_zeros_is_normal_in_an_open_segment_and_set_aside_in_a_sealed_one(zeros):
    found = read(OPEN.data + bytes(zeros), sealed=False, dead=True)
    assert (found.rows, found.gaps, found.damages) == (list(clean_rows()), [], [])
    found = read(MADE.data + bytes(zeros), sealed=True)
    assert (found.rows, found.gaps) == (list(clean_rows()), [])
    assert found.damages == [(len(MADE.data), len(MADE.data) + zeros)]


@pytest.mark.parametrize("length", [0, 1, (1 << 28) - 1, 1 << 28, (1 << 31) - 1, (1 << 32) - 1])
@pytest.mark.parametrize("right", [False, True], ids=["check-wrong", "check-right"])
def test_a_length_that_lies_costs_one_frame(length, right):
    victim = MADE.records[6]
    both = struct.pack("<II", length, victim.seq - 1)
    check_sum = (zlib.crc32(both) + (not right)) & 0xFFFF
    check(overwritten(MADE.data, victim.offset, struct.pack("<IH", 7, check_sum) + both), {victim.seq})


def test_a_huge_length_takes_no_memory(tmp_path):
    import resource

    victim = OPEN.records[-1]
    both = struct.pack("<II", (1 << 28) - 1, victim.seq - 1)
    data = overwritten(OPEN.data, victim.offset, struct.pack("<IH", 7, zlib.crc32(both) & 0xFFFF) + both)
    path = forge.put(LOCAL, str(tmp_path), PROJECT, OPEN.header, data, sealed=False)
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    with open("/proc/self/statm") as file:
        used = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + (128 << 20), hard))
    try:
        assert len(LOCAL.read(path, 100, (1 << 28) + 14)) == len(data) - 100
        report = verify(str(tmp_path))
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
    assert (report.records, report.gaps) == (len(RECORDS) - 1, 0)


def foreign() -> dict[str, bytes]:
    """Return segments that are not what their path says."""
    other = neighbour()
    second = forge.header(segno=2)
    return {
        "another writer's": other.data,
        "another number": forge.forge([forge.start(second)], second).data + MADE.data[200:],
        "no segment": b"%PDF-1.7 " * 99,
        "text": b"x",
        "nothing": b"",
    }


@pytest.mark.parametrize("what", foreign())
def test_a_foreign_file_is_set_aside_whole_and_stops_nobody(what):
    data = foreign()[what]
    fs = store_with(data, sealed=True)
    other = neighbour()
    forge.put(fs, ROOT, PROJECT, other.header, other.data, sealed=False)
    look(fs)
    folded = fold_dead(fs)
    assert contents.of_snapshot(fs, ROOT, folded.manifest) == rows_of(other)
    assert list(quarantine(fs).values()) == [data]
    assert "quarantined" in codes(fs) | {finding.code for finding in verify(ROOT, fs=fs).findings}
    assert project_status(fs, ROOT, PROJECT).pending_bytes == 0
    assert fold(fs, ROOT, PROJECT, CONFIG, time_ns=folded.clock.time_ns).commits == 0


def test_a_segment_of_a_newer_version_is_refused_by_name_and_kept():
    head = bytearray(MADE.data[:64])
    struct.pack_into("<H", head, 8, 2)
    struct.pack_into("<I", head, 60, zlib.crc32(bytes(head[:60])))
    data = bytes(head) + MADE.data[64:]
    fs = store_with(data, sealed=True)
    other = neighbour()
    forge.put(fs, ROOT, PROJECT, other.header, other.data, sealed=False)
    look(fs)
    folded = fold_dead(fs)
    again = fold(fs, ROOT, PROJECT, CONFIG, time_ns=folded.clock.time_ns)
    assert list(again.refused) == [WRITER_ID]
    assert "segment format version 2 is not supported" in again.refused[WRITER_ID]
    assert contents.of_snapshot(fs, ROOT, again.manifest) == rows_of(other)
    assert codes(fs) == {"newer_format"}
    path = f"{names.writer_dir(ROOT, PROJECT, WRITER_ID)}/{names.segment_name(1, sealed=True)}"
    assert fs.read(path) == data
    assert project_status(fs, ROOT, PROJECT).pending_bytes > 0
    with pytest.raises(NewerFormatError):
        inspect(path, fs=fs)


@pytest.mark.parametrize("end", ["cut", "damaged", "torn"])
def test_an_open_segment_that_its_writer_has_left_behind_is_judged_at_once(end):
    """The writer went on in the next segment, so nobody has to wait until it is dead."""
    last = OPEN.records[-1]
    first = OPEN.data[: last.offset]
    first += {"cut": b"", "torn": OPEN.data[last.offset : last.end - 2], "damaged": OPEN.data[last.offset : -1] + b"?"}[
        end
    ]
    again = end != "damaged"
    head = forge.header(2, len(RECORDS) + (not again))
    second = forge.forge([forge.start(head), *forge.shape(0, ["x"]), forge.record(last.record)], head)
    fs = store_with(first, sealed=False)
    forge.put(fs, ROOT, PROJECT, head, second.data, sealed=False)
    manifest = fold(fs, ROOT, PROJECT, CONFIG, time_ns=lambda: forge.NOW_NS).manifest
    assert gaps_of(manifest) == ([] if again else [(last.seq, last.seq)])
    assert list(quarantine(fs).values()) == ([] if again else [first[last.offset :]])
    assert manifest.writers[WRITER_ID].records == len(RECORDS)
    assert segment.is_torn(first[last.offset :]) == again
    assert frame.parse(second.data, 64).outcome is frame.Outcome.COMPLETE
    assert codes(fs) == (set() if again else {"gap", "quarantined"})
