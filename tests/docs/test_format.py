"""FORMAT.md says what the code does: every table, number, name and example in it is executed here."""

from __future__ import annotations

import hashlib
import math
import os
import re
import struct
import typing
import zlib
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pytest

from eventlog import arrow, checksum, columns, frame, manifest, names, parquet, runrows, runs, schema, segment, values

PATH = os.path.join(os.path.dirname(__file__), "..", "..", "eventlog", "FORMAT.md")
with open(PATH, encoding="utf-8") as _file:
    TEXT = _file.read()

WRITER = "01j00000000000000000000000"
TIME_NS = 1_700_000_000_000_000_000
TYPES = {"u16": "H", "u32": "I", "u64": "Q", "i64": "q"}


def section(title: str) -> str:
    match = re.search(rf"(?ms)^## {re.escape(title)}\n(.*?)(?=^## |\Z)", TEXT)
    assert match, title
    return match[1]


def table(title: str, first_cell: str) -> list[list[str]]:
    """Return the rows of the table in a section whose heading starts with a cell."""
    rows: list[list[str]] = []
    inside = False
    for line in section(title).splitlines():
        if line.startswith(f"| {first_cell} |"):
            inside = True
        elif inside and not line.startswith("|"):
            return rows
        elif inside and not line.startswith("|---"):
            rows.append([cell.strip() for cell in line.strip("|").split(" | ")])
    assert rows, (title, first_cell)
    return rows


def fields_after(title: str, heading: str) -> list[str]:
    """Return the first column of the table of fields under a heading such as `files[]`:."""
    part = section(title).split(f"`{heading}`:\n", 1)[1]
    found: list[str] = []
    for line in part.splitlines():
        if line.startswith("| `"):
            found.append(line.split("`")[1])
        elif found and not line.startswith("|"):
            break
    return found


def example() -> bytes:
    dump = section("Example").split("```hex\n")[1].split("```")[0]
    data = bytearray()
    for line in dump.splitlines():
        assert int(line[:6], 16) == len(data)
        part = bytes.fromhex(line[8:56].replace(" ", ""))
        shown = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in part)
        assert line[58:].strip("|") == shown
        data += part
    return bytes(data)


def example_log() -> schema.Log:
    return schema.Log(TIME_NS, 3, 0, struct.pack("<d", 0.5), {"note": "hi"})


# Segments and frames


def test_the_header_table_is_the_header():
    rows = table("Segment header", "offset")
    end = 0
    for offset, size, *_ in rows:
        assert int(offset) == end
        end += int(size)
    assert end == segment.HEADER_BYTES
    assert "64 bytes" in section("Grammar")
    built = segment.build_header(segment.Header(WRITER, 7, 8, 9))
    by_name = {row[3]: row for row in rows}
    for name, expected in (("version", 1), ("reserved", 0), ("segno", 7), ("first_seq", 8), ("created_ns", 9)):
        offset, _, kind, *_ = by_name[name]
        assert struct.unpack_from("<" + TYPES[kind], built, int(offset))[0] == expected
    assert struct.unpack_from("<I", built, int(by_name["crc"][0]))[0] == zlib.crc32(built[:60])
    at = int(by_name["writer_id"][0])
    assert built[at : at + 26].decode() == WRITER
    assert bytes.fromhex(by_name["magic"][4].split("`")[1].replace(" ", "")) == segment.MAGIC == built[:8]
    assert segment.VERSION == 1


def test_the_frame_table_is_the_frame():
    rows = table("Frame", "offset")
    assert [row[0] for row in rows] == ["0", "4", "6", "10", "14"]
    assert int(rows[-1][0]) == frame.HEADER_BYTES
    payload = b"payload"
    built = frame.build(payload, 5, structural=True)
    crc, check, length, seq = struct.unpack_from("<IHII", built)
    assert crc == zlib.crc32(built[6:])
    assert check == zlib.crc32(built[6:14]) & 0xFFFF
    assert length == len(payload) | 1 << 31
    assert seq == 5
    assert str(frame.MAX_PAYLOAD_BYTES) in rows[2][4]
    assert f"{frame.HEADER_BYTES} bytes and the payload" in section("Grammar")


def plain_outcome(data: bytes, offset: int) -> str:
    """Decide as "Reading a segment" says, and no other way."""
    if len(data) - offset < 14:
        return "incomplete"
    crc, check, flagged, _ = struct.unpack_from("<IHII", data, offset)
    length = flagged & 0x0FFFFFFF
    end = offset + 14 + length
    if length >= 1 and end <= len(data) and zlib.crc32(data[offset + 6 : end]) == crc:
        return "complete"
    if zlib.crc32(data[offset + 6 : offset + 14]) & 0xFFFF != check or length == 0:
        return "bad header"
    return "incomplete" if end > len(data) else "bad body"


WORDS = {
    frame.Outcome.COMPLETE: "complete",
    frame.Outcome.INCOMPLETE: "incomplete",
    frame.Outcome.BAD_BODY: "bad body",
    frame.Outcome.BAD_HEADER: "bad header",
}


def test_the_rules_for_one_offset_are_those_of_the_code_under_every_single_bit_flip():
    good = frame.build(b"abc", 0) + frame.build(b"defgh", 1)
    seen = set()
    for bit in range(len(good) * 8):
        data = bytearray(good)
        data[bit // 8] ^= 1 << bit % 8
        word = plain_outcome(bytes(data), 0)
        assert WORDS[frame.parse(bytes(data), 0).outcome] == word
        seen.add(word)
    for end in range(len(good)):
        assert WORDS[frame.parse(good[:end], 0).outcome] == plain_outcome(good[:end], 0)
    assert seen >= {"complete", "bad header", "bad body"}


def plain_resync(data: bytes, offset: int, expected: int) -> int:
    highest = expected + (len(data) - offset) // 14 + 1
    for at in range(offset, len(data)):
        if plain_outcome(data, at) == "complete" and expected <= struct.unpack_from("<I", data, at + 10)[0] <= highest:
            return at
    return -1


def test_the_rule_for_searching_on_is_that_of_the_code():
    rng = np.random.default_rng(1)
    frames = b"".join(frame.build(bytes(rng.integers(0, 256, 20, np.uint8)), seq) for seq in range(30))
    for _ in range(200):
        data = bytearray(frames)
        at = int(rng.integers(0, len(data) - 40))
        data[at : at + 40] = bytes(rng.integers(0, 256, 40, np.uint8))
        offset, expected = int(rng.integers(0, len(data))), int(rng.integers(0, 40))
        assert frame.resync(bytes(data), offset, expected) == plain_resync(bytes(data), offset, expected)


# Records


def type_text(kind: Any) -> str:
    arguments = typing.get_args(kind)
    if kind is Any:
        return "any"
    if typing.get_origin(kind) is typing.Annotated:
        return type_text(arguments[0])
    if typing.get_origin(kind) is list:
        return f"[{type_text(arguments[0])}]"
    if typing.get_origin(kind) is dict:
        return f"{{{type_text(arguments[0])}: {type_text(arguments[1])}}}"
    if type(None) in arguments:
        return type_text(arguments[0]) + "?"
    return str(kind.__name__)


def test_the_table_of_kinds_is_the_schema():
    expected = []
    for kind in schema.KINDS:
        parts = [
            f"`{field.name}` {type_text(field.type)}" + ("" if field.required else " *")
            for field in msgspec.structs.fields(kind)
        ]
        expected.append([str(schema.kind_number(kind)), schema._NAMES[kind], ", ".join(parts)])
    assert table("Records", "number") == expected


def test_the_defaults_of_missing_fields_are_those_in_the_text():
    stated = {"pid": 0, "mode": "new", "level": "warn", "overwrite": False}
    for kind in schema.KINDS:
        for field in msgspec.structs.fields(kind):
            if not field.required:
                default = field.default if field.default_factory is msgspec.NODEFAULT else field.default_factory()
                assert default == stated.get(field.name, default if default in (None, "", [], {}) else object())


def test_the_structural_kinds_are_those_named():
    assert sorted(schema.kind_number(kind) for kind in schema.STRUCTURAL) == [3, 4, 5]
    assert "Kinds 3, 4 and 5 are structural" in section("Records")


def test_kinds_other_than_log_and_system_start_with_time_and_run():
    for kind in schema.KINDS:
        if kind not in (schema.Log, schema.System, *schema.STRUCTURAL):
            assert kind.__struct_fields__[:2] == ("time_ns", "run_id")


def test_unknown_payloads_get_the_kinds_that_the_text_names():
    pack = msgspec.msgpack.encode
    cases = {
        "unknown:99": pack([99, 1, "r"]),
        "unknown:7": pack([7, "no time"]),
        "unknown:undecodable": b"\xc1",
        "unknown:unkeyed": pack({"a": 1}),
    }
    for kind, payload in cases.items():
        assert schema.kind_of(schema.decode(payload)) == kind
        assert (f"`{kind}`" in section("Records")) == (kind[-1] not in "79")


def test_fields_of_the_future_are_ignored_and_missing_ones_have_their_default():
    pack = msgspec.msgpack.encode
    assert schema.decode(pack([12, 1, "r", "later"])) == schema.Heartbeat(1, "r")
    assert schema.decode(pack([10, 1, "r", "title"])) == schema.Alert(1, "r", "title", "", "warn", None, "")


@pytest.mark.parametrize("kind", [schema.Log, schema.System])
def test_records_without_their_shape_get_the_kind_that_the_text_names(kind: type[schema.Record]):
    batch = columns.Batch()
    decoder = columns.Decoder(WRITER, batch)
    record = example_log() if kind is schema.Log else schema.System(TIME_NS, 0, struct.pack("<d", 0.5))
    decoder.add_record(record, 1)
    assert f"`{batch.events[0].kind}`" in section("Shapes")


# Values


def test_the_table_of_json_text_is_what_the_code_writes():
    examples = [math.nan, math.inf, -math.inf, {"_type": "int", "value": str(2**70)}, b"\x00\xff"]
    examples += [msgspec.msgpack.Ext(5, b"x"), {1: True}]
    rows = table("Values", "value")
    assert [row[1].strip("`") for row in rows] == [values.to_json(value).decode() for value in examples]


@pytest.mark.parametrize("number", [1.0, -0.0, 0.1, 1e16, 1e300, 5e-324, 123456789012345680.0])
def test_json_floats_have_a_dot_or_an_exponent_and_keep_their_bits(number: float):
    text = values.to_json(number).decode()
    assert "." in text or "e" in text
    assert struct.pack("<d", float(text)) == struct.pack("<d", number)


def test_integers_are_exact_up_to_the_number_in_the_text():
    assert "2**53" in section("Values")
    assert values.EXACT_INT == 2**53


# Names


def test_every_path_in_the_text_is_built_and_parsed_by_the_code():
    segment_open, sealed, blob, a_manifest, data_file, damaged, _ = (
        row[0].strip("`") for row in table("Names in a store", "path")
    )
    base = names.writer_dir("", "demo", WRITER)
    assert segment_open == f"{base}/{names.segment_name(1, sealed=False)}"
    assert sealed == f"{base}/{names.segment_name(1, sealed=True)}"
    assert names.parse_segment_name(os.path.basename(sealed)) == (1, True)
    assert names.is_writer_id(WRITER)
    assert blob == names.blob_path("", os.path.basename(blob))
    assert a_manifest == names.manifest_path("", "demo", 1)
    assert names.parse_manifest_name(os.path.basename(a_manifest)) == 1
    path = os.path.relpath(data_file, names.snapshot_dir("", "demo"))
    assert names.parse_data_file_path(path) == ("metrics", os.path.basename(data_file))
    assert damaged == f"{names.quarantine_dir('', 'demo')}/{names.quarantine_name(WRITER, 1, 401, 439)}.bin"
    assert all(f"{name}" in data_file or name in TEXT for name in names.TABLES)


def test_project_names_are_encoded_as_in_the_text():
    for project, directory in ([cell.strip("`") for cell in row] for row in table("Names in a store", "project")):
        assert names.encode_name(project) == directory
        assert names.decode_name(directory) == project


def test_the_alphabet_of_writer_ids_is_that_of_the_code():
    assert f"`{names._ALPHABET}`" in section("Names in a store")
    assert int.from_bytes(_bits(names.new_id(TIME_NS // 1_000_000))[:6], "big") == TIME_NS // 1_000_000


def _bits(writer_id: str) -> bytes:
    number = 0
    for letter in writer_id:
        number = number * 32 + names._ALPHABET.index(letter)
    return number.to_bytes(16, "big")


def test_temporary_names_start_as_the_text_says():
    assert names.temporary_name("x").startswith(".tmp-")
    assert "`.tmp-`" in section("Names in a store")


# Manifest and parquet


@pytest.mark.parametrize(
    ("heading", "struct_type"),
    [
        ("manifest", manifest.Manifest),
        ("files[]", manifest.DataFile),
        ("writers{}", manifest.Watermark),
        ("gaps[]", manifest.Gap),
        ("quarantined[]", manifest.Quarantined),
        ("publisher{}", manifest.Publisher),
    ],
)
def test_the_fields_of_a_manifest_are_those_of_the_struct_in_order(heading: str, struct_type: type[msgspec.Struct]):
    assert fields_after("Manifest", heading) == list(struct_type.__struct_fields__)


def test_the_envelope_of_a_manifest_is_as_described():
    data = manifest.to_bytes(manifest.empty("demo"))
    match = re.fullmatch(rb'\{"crc32":"([0-9a-f]{8})","manifest":(\{.*\})\}\n', data)
    assert match is not None
    assert int(match[1], 16) == zlib.crc32(match[2])
    assert manifest.FORMAT == 1


def test_members_that_a_reader_does_not_know_are_ignored():
    body = msgspec.json.encode(manifest.empty("demo"))[:-1] + b',"later":{"x":1}}'
    data = b'{"crc32":"%08x","manifest":%s}\n' % (zlib.crc32(body), body)
    assert manifest.from_bytes(data, "path") == manifest.empty("demo")


def test_the_columns_of_the_tables_are_those_of_the_code():
    shown = {"timestamp[ns, tz=UTC]": "timestamp[ns, UTC]"}
    for name, listed in table("Parquet", "table"):
        fields = list(runrows.PARTS) if name == "runs" else arrow.STRUCTURAL[name]
        expected = []
        for field in fields:
            kind = str(field.type)
            kind = "dictionary of string" if kind.startswith("dictionary<values=string, indices=int32") else kind
            kind = "list of string" if kind == str(pa.list_(pa.string())) else kind
            kind = "list of struct" if kind.startswith("list<") else kind
            expected.append(f"`{field.name}` {shown.get(kind, kind)}")
        assert listed == ", ".join(expected)


def test_columns_of_metrics_are_escaped_as_in_the_text():
    for metric, column in ([cell.strip("`") for cell in row] for row in table("Parquet", "metric")):
        assert arrow.escape(metric) == column
        assert arrow.unescape(column) == metric


def test_the_index_in_the_footer_is_as_described():
    pieces = [arrow.Piece("r2", "w1", 0, 5, 1, 9), arrow.Piece("r2", "w2", 5, 1, 4, 4)]
    assert parquet._INDEX_KEY == b"eventlog.index"
    assert "`eventlog.index`" in section("Parquet")
    assert msgspec.json.decode(parquet._encode_index(pieces)) == [
        ["r2"],
        ["w1", "w2"],
        [[0, 0, 0, 5, 1, 9], [0, 1, 5, 1, 4, 4]],
    ]


def test_the_fields_of_a_part_of_a_run_are_those_of_the_struct():
    rows = [row[0].strip("`") for row in table("Parquet", "field")]
    assert rows == list(runs.RunPart.__struct_fields__)
    stats = [field.name for field in runrows.PARTS.field("metrics").type.value_type]
    listed = section("Parquet").split("list of one struct a metric:")[1].split(". NaN")[0]
    assert re.findall(r"`(\w+)`", listed) == stats


# Checksum: the definition once more, in plain Python


def key(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def mix(x: int) -> int:
    x %= 2**64
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 % 2**64
    x = (x ^ x >> 27) * 0x94D049BB133111EB % 2**64
    return x ^ x >> 31


def plain_row_hash(
    name: str, who: tuple[str, str, int | None], seq: int, ints: dict[str, int], floats: dict[str, float]
) -> int:
    run_id, writer_id, rank = who
    base = mix(seq + key(f"{name}\0{run_id}\0{writer_id}\0{'' if rank is None else rank}"))
    cells = sum(mix(number + key(column)) for column, number in ints.items())
    for metric, number in floats.items():
        bits = 0x7FF8000000000000 if math.isnan(number) else struct.unpack("<Q", struct.pack("<d", number))[0]
        cells += mix(bits + key("m:" + metric))
    return mix(base ^ cells % 2**64)


def plain_event_hash(cells: list[str | int | None]) -> int:
    return key("".join("-" if c is None else f"{len(str(c))}:{c}" for c in cells))


def stated_checksum(name: str) -> int:
    rows = dict(table("Order-free checksum", "table"))
    return int(rows[name].strip("`"), 16)


def test_the_checksum_of_the_example_follows_from_the_definition():
    ints = {"_time": TIME_NS, "_step": 3}
    assert plain_row_hash("metrics", ("r1", WRITER, None), 1, ints, {"loss": 0.5}) == stated_checksum("metrics")
    assert plain_event_hash(["r1", "text", "note", 3, TIME_NS, WRITER, 1, '"hi"']) == stated_checksum("events")


def test_the_checksum_of_the_code_follows_from_the_definition():
    metrics = {"a": np.array([1.0, math.nan, -0.0]), "_b": np.array([math.inf, 5e-324, -1.5])}
    steps, has_step = np.array([-5, 0, 2**63 - 1]), np.array([True, False, True])
    times, seqs = np.array([TIME_NS, -1, 0]), np.array([1, 2, 2**40])
    for rank in (None, 0, 3):
        block = columns.Block(
            "run",
            rank,
            WRITER,
            tuple(metrics),
            seqs,
            times,
            steps,
            has_step,
            np.column_stack(list(metrics.values())),
        )
        expected = 0
        for row in range(3):
            ints = {"_time": int(times[row])} | ({"_step": int(steps[row])} if has_step[row] else {})
            floats = {name: float(column[row]) for name, column in metrics.items()}
            expected += plain_row_hash("metrics", ("run", WRITER, rank), int(seqs[row]), ints, floats)
        assert columns.block_checksum("metrics", block) == expected % 2**64
    assert checksum.event_hash(["r", None, -1]) == plain_event_hash(["r", None, -1])


# Example


def test_the_example_is_what_the_code_builds():
    start = schema.SegmentStart(WRITER, 1, 1, TIME_NS, "demo", "host", 7, "", "docs")
    shape = frame.build(schema.encode(schema.Shape(0, "r1", None, ["loss"], 0)), 0, structural=True)
    built = segment.build_header(segment.Header(WRITER, 1, 1, TIME_NS))
    built += frame.build(schema.encode(start), 0, structural=True)
    built += shape + shape
    built += frame.build(schema.encode(example_log()), 0)
    assert example() == built


def test_the_example_reads_as_the_text_says():
    data = example()
    header = segment.parse_header(data, "example")
    assert header == segment.Header(WRITER, 1, 1, TIME_NS)
    read = [item for item in segment.items(data, header) if isinstance(item, segment.Item)]
    assert [schema.kind_of(item.record) for item in read] == ["segment_start", "shape", "shape", "log"]
    assert (read[-1].seq, read[-1].record) == (1, example_log())
    assert read[-1].end == len(data)


def test_the_notes_on_the_example_stand_where_they_say():
    data = example()
    for offset, listed, *_ in table("Example", "offset"):
        part = bytes.fromhex(listed.strip("`").replace(" ", ""))
        assert data[int(offset) : int(offset) + len(part)] == part


def test_the_lines_are_not_too_long():
    for line in TEXT.splitlines():
        assert len(line) <= 120 or line.startswith("|"), line
