"""Segments made by hand with checksums that hold: each record is kept or set aside, and nobody else has to wait."""

from __future__ import annotations

import contextlib
import struct
import zlib
from typing import Any

import msgspec
import pytest
from damage_support import (
    CONFIG,
    MONTH_S,
    PROJECT,
    ROOT,
    THOROUGH,
    WRITER_ID,
    codes,
    fold_dead,
    look,
    neighbour,
    quarantine,
    rows_of,
    store_with,
)
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from compactor.fold import fold
from compactor.status import project_status
from compactor.work import take_turn
from eventlog import nesting, schema
from eventlog.errors import DataError
from eventlog.inspect import inspect
from eventlog.manifest import Manifest
from eventlog.store import Store
from eventlog.testing import CrashFs, contents, forge, strategies
from eventlog.testing.contents import Row
from eventlog.testing.forge import Part
from eventlog.verify import verify

HUGE = (1 << 64) - 1
ONE = struct.pack("<d", 1.0)
NAN_BITS = ("010000000000f8ff", "ffffffffffffff7f")
GOOD = Part(schema.encode(schema.Log(5, 1, 0, ONE)))
HEAD = forge.header()


def packed(*fields: Any) -> Part:
    return Part(msgspec.msgpack.encode(list(fields)))


def nested(depth: int) -> bytes:
    return b"\x91" * depth + b"\xc0"


def made_of(parts: list[Part], *, sealed: bool) -> forge.Forged:
    begun = [forge.start(HEAD), *forge.shape(0, ["x"]), *parts]
    return forge.forge([*begun, forge.seal(HEAD, len(parts))] if sealed else begun, HEAD)


def survive(data: bytes, *, sealed: bool) -> tuple[CrashFs, Manifest, list[Row]]:
    """Put a segment in front of everybody; return its rows after a fold. Only errors of ours may come, of inspect."""
    fs = store_with(data, sealed=sealed)
    other = neighbour()
    forge.put(fs, ROOT, PROJECT, other.header, other.data, sealed=False)
    (name,) = fs.names(f"{ROOT}/segments/{PROJECT}/{WRITER_ID}")
    with contextlib.suppress(DataError):
        inspect(f"{ROOT}/segments/{PROJECT}/{WRITER_ID}/{name}", fs=fs)
    look(fs)
    verify(ROOT, fs=fs)
    before = contents.of_store(fs, ROOT, PROJECT)
    folded = fold_dead(fs)
    after = contents.of_store(fs, ROOT, PROJECT)
    mine = [row for row in after if row.writer_id == WRITER_ID]
    assert [row for row in after if row.writer_id != WRITER_ID] == rows_of(other)
    assert set(before) <= set(after)
    look(fs)
    assert codes(fs) <= {"quarantined", "gap", "blob_missing", "misplaced"}
    assert (verify(ROOT, fs=fs).lost, verify(ROOT, fs=fs).doubled) == (0, 0)
    assert fold(fs, ROOT, PROJECT, CONFIG, time_ns=folded.clock.time_ns).commits == 0
    assert project_status(fs, ROOT, PROJECT).pending_bytes == 0
    folded.clock.advance(MONTH_S)
    take_turn(fs, ROOT, PROJECT, CONFIG, time_ns=folded.clock.time_ns)
    assert contents.of_store(fs, ROOT, PROJECT) == after
    return fs, folded.manifest, mine


LOG_OTHERS = b"\x96\x01\x05\x01\x00\xc4\x08" + ONE + b"\x81\xa1a"
KEPT: dict[str, list[Part]] = {
    "odd-length": [packed(1, 5, 1, 0, ONE + b"1", None), packed(2, 5, 0, b"")],
    "no shape": [packed(1, 5, 1, 77, ONE, None), packed(2, 5, -1, ONE)],
    "beyond int64": [packed(1, HUGE, 1, 0, ONE, None), packed(1, 5, HUGE, 0, ONE, None), packed(2, HUGE, 0, ONE)],
    "lowest": [packed(1, -(2**63), -(2**63), 0, ONE, None), packed(2, -1, 0, ONE)],
    "NaN payloads": [packed(1, 5, 1, 0, bytes.fromhex(bits), None) for bits in NAN_BITS],
    "extensions": [Part(LOG_OTHERS + b"\xd4\x07\x01"), Part(LOG_OTHERS + b"\xd6\xff\x00\x00\x00\x01")],
    "keys": [
        Part(LOG_OTHERS + key)
        for key in (b"\x81\x01\x02", b"\x81\x91\x01\x02", b"\x82\xc0\x02\xc2\x01", b"\x81\x81\x01\x02\x03")
    ],
    "more keys": [Part(LOG_OTHERS + b"\x81\xc4\x01a\x01"), Part(LOG_OTHERS + b"\x82\xa11\x01\x01\x02")],
    "no msgpack": [Part(data) for data in (b"\xc1", b"\xff", b"\xa5abc", b"\x90", b"\x91\xc3", b"\x80", b"\x01\x02")],
    "huge facts": [packed(6, HUGE, "r", "p", "n", None, [], {}, "h", "u", HUGE, HUGE, HUGE, [], {}, {}, "new", None)],
    "huge time": [packed(6, HUGE, "r", "p", "n"), packed(10, HUGE, "r", "t", "x", "lev", HUGE, "id")],
    "odd facts": [packed(6, -5, "r", "p", "n", None, [], {}, "h", "u", -(2**63), -1, -(2**63), [], {}, {}, "what")],
    "exit code": [packed(17, 5, "r", "odd", HUGE), packed(17, 5, "r", "odd", -1)],
    "dropped": [packed(16, 5, "", HUGE, "x", HUGE)] * 3 + [packed(16, 5, "", -5, "x", -1)],
    "uploads": [packed(19, HUGE, "r", "../..", "zz", HUGE, HUGE), packed(18, 5, "", b"123")],
    "tombstones": [
        packed(15, 5, "r", "rename", {"name": 5}),
        packed(15, 5, "r", "tag", {"tags": [1, None, {}]}),
        packed(15, HUGE, "r", "move", {}),
    ],
    "unknown kinds": [packed(99, 5, "r"), packed("x", 1), packed(HUGE), packed(-1, "r")],
    "structural in records": [
        forge.shape(3, ["z"])[0]._replace(structural=False),
        forge.start(HEAD)._replace(structural=False),
        packed(5, 1, 2, True),
        packed(1, 5, 1, 3, ONE, None),
    ],
    "names": [
        *forge.shape(1, ["", "_x", "._x", ".", "a.b", "\0", "x" * 5000, "\u202e", "_run_id"]),
        packed(1, 5, 1, 1, ONE * 9, None),
    ],
    "no distinct names": [*forge.shape(1, ["a", "a"]), packed(1, 5, 1, 1, ONE * 2, None)],
    "ranks": [*forge.shape(1, ["a"], rank=2**63), *forge.shape(2, ["a"], rank=-4), packed(1, 5, 1, 1, ONE, None)],
    "shapes that lead nowhere": [
        Part(msgspec.msgpack.encode([3, 1, "r", None, ["a"], at]), structural=True)
        for at in (0, 64, 1 << 40, HUGE, -7, 211, 212)
    ]
    + [packed(1, 5, 1, 1, ONE, None)],
    "a shape told anew": [
        *forge.shape(1, ["a"]),
        packed(1, 5, 1, 1, ONE, None),
        *forge.shape(1, ["a"], run_id="q"),
        packed(1, 5, 1, 1, ONE, None),
    ],
    "names of other columns": [packed(1, 5, 1, 0, ONE, {"x": 2, "": 3, "_time": "a", "n" * 70_000: 1})],
    "references": [
        packed(13, 5, "r", "n", "t", "v", "d", [], {}, {"a": 1, "b": {"sha256": "q", "size_bytes": HUGE}}),
    ],
} | {f"{depth} deep": [Part(LOG_OTHERS + nested(depth)), Part(b"\x94\x07\x05\xa1r\x81\xa1a" + nested(depth)),
     Part(b"\x94\x63\x05\xa1r" + nested(depth))] for depth in (64, 250, 260, 480, 970, 5000, 100_000)}  # fmt: skip


@pytest.mark.parametrize("what", KEPT)
def test_whatever_a_frame_with_a_good_checksum_holds_its_record_is_kept(what):
    parts = [*KEPT[what], GOOD]
    made = made_of(parts, sealed=False)
    fs, manifest, mine = survive(made.data, sealed=False)
    assert {row.seq for row in mine} == {placed.seq for placed in made.records}
    assert manifest.gaps == []
    assert quarantine(fs) == {}


def test_a_record_of_a_run_told_anew_is_of_the_run_that_was_told_last():
    _, _, mine = survive(made_of(KEPT["a shape told anew"], sealed=False).data, sealed=False)
    assert [row.run_id for row in mine] == ["r", "q"]


def test_nan_payloads_are_kept_bit_by_bit():
    _, _, mine = survive(made_of(KEPT["NaN payloads"], sealed=False).data, sealed=False)
    assert [dict(row.cells)["x"] for row in mine] == list(NAN_BITS)


def test_numbers_that_no_column_holds_do_not_stop_the_table_of_runs():
    fs, _, _ = survive(made_of([*KEPT["huge time"], *KEPT["exit code"]], sealed=False).data, sealed=False)
    (run,) = Store(ROOT, fs=fs).runs(PROJECT).to_pylist()
    assert (run["name"], run["status"], run["exit_code"]) == ("n", "odd", -1)


@pytest.mark.parametrize("depth", [nesting.MAX_DEPTH - 10, nesting.MAX_DEPTH + 1])
def test_what_is_nested_too_deeply_is_kept_as_bytes(depth):
    _, _, mine = survive(made_of([Part(LOG_OTHERS + nested(depth))], sealed=False).data, sealed=False)
    kinds = {dict(row.cells).get("kind") for row in mine if row.table == "events"}
    assert kinds == ({"json"} if depth < nesting.MAX_DEPTH else {"unknown:nested_too_deeply"})


SET_ASIDE: dict[str, tuple[list[Part], set[int]]] = {
    "a seal that promises too much": ([GOOD, Part(msgspec.msgpack.encode([5, 1, 2**62, True]), structural=True)], {1}),
    "a seal that promises too little": ([GOOD, Part(msgspec.msgpack.encode([5, 0, 1, True]), structural=True)], {1}),
    "a record without a seq": ([GOOD, GOOD._replace(structural=True), GOOD], {1, 2}),
    "a seq that jumps back": ([GOOD, GOOD, GOOD._replace(seq=0), GOOD._replace(seq=2)], {1, 2, 3}),
    "a seq that stands twice": ([GOOD, packed(1, 9, 9, 0, ONE, None)._replace(seq=0), GOOD], {1, 2}),
    "a seq that jumps far": ([GOOD, GOOD._replace(seq=2**32 - 1), GOOD._replace(seq=2)], {1, 2**32}),
}


@pytest.mark.parametrize("what", SET_ASIDE)
def test_what_contradicts_its_place_is_set_aside_and_nothing_is_concluded_from_it(what):
    parts, kept = SET_ASIDE[what]
    fs, manifest, mine = survive(made_of(parts, sealed=False).data, sealed=False)
    assert {row.seq for row in mine} == kept
    assert len(quarantine(fs)) == 1
    assert sum(gap.last_seq - gap.first_seq + 1 for gap in manifest.gaps) == max(kept) - len(kept)
    assert not manifest.writers[WRITER_ID].done


HEADERS = {
    "no seq": {"first_seq": 0},
    "the last seq": {"first_seq": 2**64 - 1},
    "beyond int64": {"first_seq": 2**63},
}


@pytest.mark.parametrize("what", HEADERS)
def test_a_header_that_no_writer_writes_is_no_header(what):
    head = HEAD._replace(**HEADERS[what])
    data = forge.forge([forge.start(head), *forge.shape(0, ["x"]), GOOD], head).data
    fs, manifest, mine = survive(data, sealed=True)
    assert mine == []
    assert list(quarantine(fs).values()) == [data]
    assert WRITER_ID not in manifest.writers


def test_a_writers_id_that_is_no_text_is_no_header_and_its_copy_stands_in():
    data = bytearray(made_of([GOOD], sealed=False).data)
    data[32:36] = b"\xff\xfe\x80\x81"
    struct.pack_into("<I", data, 60, zlib.crc32(bytes(data[:60])))
    _, _, mine = survive(bytes(data), sealed=False)
    assert [row.seq for row in mine] == [1]


KEYS = st.text(max_size=4) | st.integers(-5, 5)
ANY = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), HUGE) | strategies.floats() | st.binary(max_size=9)
    | st.text(max_size=6) | st.sampled_from(["r", "", "p", "_type", "sha256"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=8,
)  # fmt: skip
FIELDS = st.tuples(st.integers(0, 21) | ANY, st.lists(ANY, max_size=18)).map(lambda pair: [pair[0], *pair[1]])


@st.composite
def plausible(draw: st.DrawFn) -> list[Any]:
    """The fields of a real record, a few of them replaced."""
    record = draw(strategies.records() | st.builds(schema.Log, ANY, ANY, st.integers(0, 2), st.binary(max_size=24)))
    number = schema.kind_number(type(record)) if type(record) in schema.KINDS else 99
    fields = [number, *msgspec.structs.astuple(record)]
    for _ in range(draw(st.integers(0, 2))):
        fields[draw(st.integers(0, len(fields) - 1))] = draw(ANY)
    return fields


PAYLOADS = st.one_of(
    plausible().map(msgspec.msgpack.encode), FIELDS.map(msgspec.msgpack.encode), st.binary(min_size=1, max_size=30)
)
SHAPES = st.builds(
    lambda number, names, run, rank, at: Part(
        msgspec.msgpack.encode([3, number, run, rank, names, at]), structural=True
    ),
    st.integers(0, 2),
    st.lists(strategies.metric_names(), max_size=3),
    st.sampled_from(["r", "q", ""]),
    st.none() | st.integers(-1, HUGE),
    st.integers(-1, 500) | st.just(HUGE),
)
PARTS = st.one_of(
    PAYLOADS.map(Part),
    PAYLOADS.map(Part),
    SHAPES,
    st.just(GOOD),
    st.builds(Part, PAYLOADS, st.just(True), st.none()),
    st.builds(Part, PAYLOADS, st.booleans(), st.integers(0, 9) | st.just(2**31)),
)


@settings(max_examples=1000 if THOROUGH else 60, phases=[Phase.explicit, Phase.generate])  # to shrink takes minutes
@given(st.lists(PARTS, max_size=8), st.booleans())
def test_no_segment_made_by_hand_raises_or_loses_a_record_in_silence(parts, sealed):
    made = made_of(parts, sealed=sealed)
    fs, manifest, mine = survive(made.data, sealed=sealed)
    seqs = [placed.seq for placed in made.records if placed.seq is not None]
    rising = [seq for index, seq in enumerate(seqs) if seq > max(seqs[:index], default=0)]
    assert {row.seq for row in mine} == set(rising)
    mark = manifest.writers[WRITER_ID]
    assert mark.records == len(rising)
    assert mark.seq - mark.records == sum(gap.last_seq - gap.first_seq + 1 for gap in manifest.gaps)
    assert len(rising) == len(seqs) or quarantine(fs)
