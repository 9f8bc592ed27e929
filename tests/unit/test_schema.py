"""Records: each comes back from its payload, and no payload is ever an error."""

from __future__ import annotations

import random

import msgspec
import pytest

from eventlog import schema

EXAMPLES: list[schema.Record] = [
    schema.Log(1, None, 0, b"", None),
    schema.Log(1, -5, 2**40, b"12345678", {"a": [1, None, {"b": 2**64 - 1}]}),
    schema.System(1, 0, b""),
    schema.Shape(0, "r", None, ["a", "ü"], 0),
    schema.SegmentStart("w", 1, 1, 1, "p", "h", 1, "", "s"),
    schema.Seal(1, 2, final=False),
    schema.RunStart(1, "r", "p", "n", config={"x": float("inf")}),
    schema.ConfigPatch(1, "r", {"a": 1}),
    schema.SummarySet(1, "r", {"a": b"bytes"}),
    schema.MetricDef(1, "r", "m"),
    schema.Alert(1, "r", "t"),
    schema.Console(1, "r", "stdout", "text"),
    schema.Heartbeat(1, "r"),
    schema.ArtifactVersion(1, "r", "n", "t", "v"),
    schema.ArtifactUse(1, "r", "n", "v"),
    schema.Admin(1, "r", "delete"),
    schema.Dropped(1, "", 3, "why", 0),
    schema.RunEnd(1, "r", "finished", 0),
    schema.Receipt(1, "", b"123456789012"),
    schema.Upload(1, "r", "p/a/1/x.png", "0" * 64, 3, 1),
]


def test_there_is_an_example_of_every_kind():
    assert {type(record) for record in EXAMPLES} == set(schema.KINDS)


@pytest.mark.parametrize("record", EXAMPLES, ids=lambda record: repr(record)[:24])
def test_every_record_comes_back(record: schema.Record):
    assert schema.decode(schema.encode(record)) == record
    assert schema.decode(memoryview(schema.encode(record))) == record


def test_kinds_have_distinct_numbers_and_names():
    assert len({schema.kind_number(kind) for kind in schema.KINDS}) == len(schema.KINDS)
    assert len({schema.kind_of(record) for record in EXAMPLES}) == len(schema.KINDS)


def test_an_unknown_kind_is_carried_along_as_it_is():
    record = schema.decode(msgspec.msgpack.encode([99, 1, "r", {"x": [1]}]))
    assert record == schema.Unknown("unknown:99", [1, "r", {"x": [1]}])
    assert schema.kind_of(record) == "unknown:99"
    with pytest.raises(TypeError):
        schema.kind_number(schema.Unknown)


def test_a_known_kind_with_other_types_is_carried_along():
    record = schema.decode(msgspec.msgpack.encode([12, "no time", "r"]))
    assert record == schema.Unknown("unknown:12", ["no time", "r"])


def test_fields_that_come_later_are_ignored_and_missing_ones_have_defaults():
    assert schema.decode(msgspec.msgpack.encode([12, 1, "r", "new"])) == schema.Heartbeat(1, "r")
    assert schema.decode(msgspec.msgpack.encode([15, 1, "r", "delete"])) == schema.Admin(1, "r", "delete")


@pytest.mark.parametrize(
    "payload",
    [b"", b"\xc1", b"\x93", b"\xc0", b"\x90", b"\x80", b"\xa3ab", b"\x92\x0c\xff\xa1\xff", b"\x91" * 100_000 + b"\xc0"],
)
def test_no_payload_is_an_error(payload: bytes):
    assert isinstance(schema.decode(payload), schema.Unknown)


def test_no_random_payload_is_an_error():
    rng = random.Random(1)
    whole = [schema.encode(record) for record in EXAMPLES]
    for _ in range(5_000):
        data = bytearray(rng.choice(whole))
        for _ in range(rng.randrange(1, 4)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        assert isinstance(schema.decode(bytes(data)), schema.Record)


def test_records_cannot_be_changed():
    with pytest.raises(AttributeError):
        schema.Heartbeat(1, "r").time_ns = 2  # type: ignore[misc]
