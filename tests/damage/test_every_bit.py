"""A segment with every kind of record, cut at every byte and with every bit flipped, in front of every reader."""

from __future__ import annotations

import pytest
from damage_support import (
    CONFIG,
    MONTH_S,
    PROJECT,
    RECORDS,
    ROOT,
    THOROUGH,
    WRITER_ID,
    clean_rows,
    codes,
    every_kind,
    flipped,
    fold_dead,
    gaps_of,
    look,
    neighbour,
    quarantine,
    ranges,
    read,
    read_strictly,
    rows_of,
    seqs_of,
    store_with,
    without,
)

from compactor.status import project_status
from compactor.work import take_turn
from eventlog import frame, names, schema, segment
from eventlog.fs import LOCAL
from eventlog.inspect import inspect
from eventlog.testing import contents, forge
from eventlog.testing.forge import Placed
from eventlog.verify import verify

FORMS = pytest.mark.parametrize("sealed", [False, True], ids=["open", "sealed"])
_CHECK = (4, 5)


def payloads(sealed: bool) -> list[tuple[int, bytes]]:  # noqa: FBT001
    return read_strictly(every_kind(sealed=sealed).data, final=sealed)


def hit_by(bit: int, *, sealed: bool) -> Placed | None:
    """Return the frame that a flipped bit costs; None for the header, and for `check`, which is not looked at then."""
    hit = next(iter(every_kind(sealed=sealed).hit(bit // 8, bit // 8 + 1)), None)
    return None if hit is None or bit // 8 - hit.offset in _CHECK else hit


def is_told(hit: Placed, bit: int, *, sealed: bool) -> bool:
    """Say whether the gap of a lost record shows: by what follows it, or by the header of its own frame."""
    return sealed or hit.seq != len(RECORDS) or not 4 <= bit // 8 - hit.offset < frame.HEADER_BYTES


def test_the_segment_of_these_tests_has_every_kind_of_record():
    made = every_kind(sealed=True)
    assert {type(placed.record) for placed in made.frames} == {*schema.KINDS, schema.Unknown}
    assert {type(record) for record in RECORDS} >= set(schema.KINDS) - set(schema.STRUCTURAL)
    assert len(made.data) < 2000
    assert {row.seq for row in clean_rows()} == set(range(1, len(RECORDS) + 1))
    assert read(made.data, sealed=True).rows == list(clean_rows())


@pytest.mark.invariant(2)
@FORMS
def test_cut_at_any_byte_it_keeps_every_whole_frame_and_nothing_else(sealed):
    made = every_kind(sealed=sealed)
    for size in range(len(made.data)):
        data = made.data[:size]
        whole = [placed for placed in made.records if placed.end <= size]
        assert read_strictly(data, final=sealed) == payloads(sealed)[: len(whole)]
        found = read(data, sealed=sealed)
        assert found.rows == [row for row in clean_rows() if row.seq <= len(whole)]
        assert found.gaps == []
        end = max((placed.end for placed in made.frames if placed.end <= size), default=64)
        assert found.damages == ([(end if size >= 64 else 0, size)] if sealed else [])
        assert found.mark.seq == len(whole)


@pytest.mark.invariant(2)
@FORMS
def test_no_flipped_bit_becomes_data_or_costs_more_than_the_frame_it_hits(sealed):
    made = every_kind(sealed=sealed)
    for bit in range(len(made.data) * 8):
        data = flipped(made.data, bit)
        hit = hit_by(bit, sealed=sealed)
        lost = set() if hit is None or hit.seq is None else {hit.seq}
        assert read_strictly(data, final=sealed) == [pair for pair in payloads(sealed) if pair[0] not in lost], bit
        found = read(data, sealed=sealed)
        assert found.rows == without(clean_rows(), lost), bit
        at_end = not sealed and lost == {len(RECORDS)}
        assert found.gaps == ([] if at_end else ranges(lost)), bit
        in_header = [(0, 64)] if bit // 8 < 64 else []
        assert found.damages == (in_header if hit is None or at_end else [(hit.offset, hit.end)]), bit


def sample(size: int) -> range:
    """Return one bit of each byte, in turn; all of them when there is time."""
    return range(size * 8) if THOROUGH else range(0, size * 8, 9)


@pytest.mark.invariant(2)
@FORMS
def test_verify_and_inspect_name_the_bytes_and_the_seq_of_every_flipped_bit(sealed):
    made = every_kind(sealed=sealed)
    for bit in sample(len(made.data)):
        fs = store_with(flipped(made.data, bit), sealed=sealed)
        hit = hit_by(bit, sealed=sealed)
        lost = set() if hit is None or hit.seq is None else {hit.seq}
        report = verify(ROOT, fs=fs)
        (path,) = [f"{names.writer_dir(ROOT, PROJECT, WRITER_ID)}/{names.segment_name(1, sealed=sealed)}"]
        seen = inspect(path, fs=fs, limit=1)
        assert report.records == len(RECORDS) - len(lost)
        at_end = not sealed and lost == {len(RECORDS)}
        assert report.gaps == (0 if at_end else len(lost))
        harmless = hit is None and bit // 8 >= 64
        found = {finding.code: finding.message for finding in report.findings if finding.code != "dropped"}
        assert set(found) == (set() if harmless or at_end else {"damaged", "gap"} if lost else {"damaged"})
        where = (hit.offset, hit.end) if hit else (0, 64)
        assert harmless or at_end or f"bytes {where[0]} to {where[1]}" in found["damaged"]
        assert not lost or at_end or f"missing: {hit.seq} " in found["gap"]
        assert harmless == (not seen.problems and not any(entry["kind"] == "damage" for entry in seen.entries))


def classes(sealed: bool) -> list[int]:  # noqa: FBT001
    """Return a bit of every field of the header and of every frame."""
    made = every_kind(sealed=sealed)
    bits = [offset * 8 + 3 for offset in (0, 8, 12, 16, 24, 40, 58, 60)]
    for placed in made.frames:
        inside = (placed.offset + 1, placed.offset + 4, placed.offset + 6, placed.offset + 9, placed.offset + 11)
        middle = (placed.offset + 14 + placed.end) // 2
        bits += [at * 8 + at % 8 for at in (*inside, placed.offset + 14, middle, placed.end - 1)]
    return bits if THOROUGH else bits[::3]


@pytest.mark.invariant(7)
@FORMS
def test_a_fold_of_a_dead_writer_keeps_the_rest_says_what_is_lost_and_sets_the_bytes_aside(sealed):
    made, other = every_kind(sealed=sealed), neighbour()
    for bit in classes(sealed):
        hit = hit_by(bit, sealed=sealed)
        lost = set() if hit is None or hit.seq is None else {hit.seq}
        data = flipped(made.data, bit)
        fs = store_with(data, sealed=sealed)
        forge.put(fs, ROOT, PROJECT, other.header, other.data, sealed=False)
        look(fs)
        manifest = fold_dead(fs).manifest
        expected = sorted([*without(clean_rows(), lost), *rows_of(other)])
        assert sorted(contents.of_snapshot(fs, ROOT, manifest)) == expected, bit
        told = hit is not None and is_told(hit, bit, sealed=sealed)
        assert gaps_of(manifest) == (ranges(lost) if told else []), bit
        where = [(0, 64)] if bit // 8 < 64 else [(hit.offset, hit.end)] if hit else []
        assert list(quarantine(fs).values()) == [data[start:end] for start, end in where], bit
        status = project_status(fs, ROOT, PROJECT)
        assert (status.pending_bytes, status.quarantined) == (0, len(where)), bit
        assert status.gaps == (len(lost) if told else 0), bit
        expected_codes = ({"gap"} if lost and told else set()) | ({"quarantined"} if where else set())
        assert codes(fs) == expected_codes, bit
        look(fs)


@FORMS
@pytest.mark.parametrize("field", [1, 9, 20])
def test_a_damaged_segment_is_collected_in_the_end_and_what_was_lost_is_still_told(sealed, field):
    made = every_kind(sealed=sealed)
    hit = made.records[-1]
    fs = store_with(flipped(made.data, (hit.offset + field) * 8), sealed=sealed)
    folded = fold_dead(fs)
    folded.clock.advance(MONTH_S)
    turn = take_turn(fs, ROOT, PROJECT, CONFIG, time_ns=folded.clock.time_ns)
    assert turn.removed >= 1
    assert fs.names(names.writer_dir(ROOT, PROJECT, WRITER_ID)) == []
    assert contents.of_store(fs, ROOT, PROJECT) == without(clean_rows(), seqs_of([hit]))
    assert codes(fs) == {"quarantined", *(["gap"] if sealed or field != 9 else [])}
    assert list(quarantine(fs).values()) == [flipped(made.data, (hit.offset + field) * 8)[hit.offset : hit.end]]


def test_all_of_this_holds_on_a_real_disk_too(tmp_path):
    made = every_kind(sealed=True)
    hit = made.records[5]
    path = forge.put(LOCAL, str(tmp_path), PROJECT, made.header, flipped(made.data, hit.end * 8 - 1), sealed=True)
    turn = take_turn(LOCAL, str(tmp_path), PROJECT, CONFIG)
    assert turn.records == len(RECORDS) - 1
    report = verify(str(tmp_path))
    assert {finding.code for finding in report.findings} == {"dropped", "gap", "quarantined"}
    assert (report.gaps, report.records) == (1, len(RECORDS) - 1)
    assert LOCAL.read(path) == flipped(made.data, hit.end * 8 - 1)
    assert segment.parse_header(LOCAL.read(path), path) == made.header
