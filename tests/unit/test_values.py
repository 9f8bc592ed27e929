"""Values: numbers and the rest are told apart, everything is kept exactly, and nothing that is logged raises."""

from __future__ import annotations

import dataclasses
import datetime as dt
import enum
import math
import os
import struct
import uuid
from collections import OrderedDict
from typing import Any

import msgspec
import numpy as np
import pytest

from eventlog import values
from eventlog.blobs import BlobStore


class TorchLike:
    """A scalar as torch has them: `size` is a method."""

    def __init__(self, numbers: list[float], ndim: int) -> None:
        self.numbers, self.ndim = numbers, ndim

    def __repr__(self) -> str:
        return f"TorchLike({self.numbers}, {self.ndim})"

    def size(self) -> tuple[int, ...]:
        return (len(self.numbers),) * self.ndim

    def numel(self) -> int:
        return len(self.numbers)

    def item(self) -> float:
        if len(self.numbers) != 1:
            raise RuntimeError("only one element tensors can be converted to Python scalars")
        return self.numbers[0]

    def tolist(self) -> Any:
        return self.numbers if self.ndim else self.numbers[0]


class JaxLike:
    """A scalar as jax has them: `size` is a number."""

    size, ndim = 1, 0

    def __repr__(self) -> str:
        return "JaxLike()"

    def item(self) -> float:
        return 2.5


@pytest.fixture
def blobs(store: str) -> BlobStore:
    return BlobStore(store)


def sort(data: dict[Any, Any], blobs: BlobStore, inline_bytes: int = 65536) -> values.Sorted:
    return values.sort_out(data, blobs, inline_bytes)


@pytest.mark.parametrize(
    ("value", "number"),
    [
        (1.5, 1.5),
        (3, 3.0),
        (-(2**53), -(2.0**53)),
        (2**53, 2.0**53),
        (np.float64(0.1), 0.1),
        (np.float32(0.5), 0.5),
        (np.float16(0.5), 0.5),
        (np.int8(-3), -3.0),
        (np.uint64(7), 7.0),
        (np.array(2.5), 2.5),
        (TorchLike([1.25], 0), 1.25),
        (JaxLike(), 2.5),
        (enum.IntEnum("E", "A").A, 1.0),
        (5e-324, 5e-324),
        (-0.0, -0.0),
    ],
    ids=repr,
)
def test_numbers_are_numbers(blobs: BlobStore, value: Any, number: float):
    sorted_out = sort({"x": value}, blobs)
    assert struct.pack("<d", sorted_out.numbers["x"]) == struct.pack("<d", number)
    assert type(sorted_out.numbers["x"]) is float
    assert (sorted_out.others, sorted_out.problems) == ({}, {})


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan, np.float32("nan")], ids=repr)
def test_numbers_that_are_not_finite_are_numbers(blobs: BlobStore, value: Any):
    number = sort({"x": value}, blobs).numbers["x"]
    assert number == float(value) or (math.isnan(number) and math.isnan(value))


@pytest.mark.parametrize(
    ("value", "exact"),
    [
        (2**53 + 1, 2**53 + 1),
        (-(2**53) - 1, -(2**53) - 1),
        (-(2**63), -(2**63)),
        (2**64 - 1, 2**64 - 1),
        (2**64, {"_type": "int", "value": str(2**64)}),
        (-(2**63) - 1, {"_type": "int", "value": str(-(2**63) - 1)}),
        (np.uint64(2**64 - 1), 2**64 - 1),
    ],
    ids=repr,
)
def test_large_integers_are_charted_and_kept_exactly(blobs: BlobStore, value: Any, exact: Any):
    sorted_out = sort({"x": value}, blobs)
    assert sorted_out.numbers == {"x": float(int(value))}
    assert sorted_out.others == {"x": exact}


def test_an_integer_beyond_float64_is_kept_exactly_and_not_charted(blobs: BlobStore):
    sorted_out = sort({"x": 10**400}, blobs)
    assert sorted_out.numbers == {}
    assert values.from_json(values.to_json(sorted_out.others["x"])) == 10**400
    assert sorted_out.problems == {}


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (True, True),
        (np.bool_(False), False),
        ("text", "text"),
        (np.str_("text"), "text"),
        ("", ""),
        (None, None),
        ([1, 2.5, "x", None], [1, 2.5, "x", None]),
        ((1, (2,)), [1, [2]]),
        ({}, {}),
        ([], []),
        (np.array([1, 2]), [1, 2]),
        (np.array([[1.5], [2.5]]), [[1.5], [2.5]]),
        (np.array(["a", "b"]), ["a", "b"]),
        (np.array([True]), [True]),
        (np.array([1.0]), [1.0]),
        (np.array([]), []),
        (TorchLike([1.0, 2.0], 1), [1.0, 2.0]),
        (TorchLike([1.0], 1), [1.0]),
        ([np.float32(0.5), np.int64(3)], [0.5, 3]),
        ([{"a": {"b": 1}}], [{"a": {"b": 1}}]),
        ([{1: 2}], [{"1": 2}]),
        (enum.Enum("E", {"A": "a"}).A, "a"),
        (dt.date(2024, 1, 2), "2024-01-02"),
        (uuid.UUID(int=1), str(uuid.UUID(int=1))),
        (2**70, None),
    ],
    ids=repr,
)
def test_everything_else_keeps_its_type(blobs: BlobStore, value: Any, plain: Any):
    sorted_out = sort({"x": value}, blobs)
    assert sorted_out.problems == {}
    if plain is not None or value is None:
        assert sorted_out.others == {"x": plain}
        assert type(sorted_out.others["x"]) is type(plain)


def test_dataclasses_and_structs_are_kept_as_maps(blobs: BlobStore):
    @dataclasses.dataclass
    class Point:
        x: int
        y: float

    class Struct(msgspec.Struct):
        a: str

    assert sort({"p": Point(1, 2.5), "s": Struct("t")}, blobs).others == {"p": {"x": 1, "y": 2.5}, "s": {"a": "t"}}


def test_lists_with_nan_keep_it(blobs: BlobStore):
    kept = sort({"x": [1.0, math.nan, -math.inf]}, blobs).others["x"]
    assert kept[0] == 1.0
    assert math.isnan(kept[1])
    assert kept[2] == -math.inf


def test_nested_dicts_flatten_with_slashes(blobs: BlobStore):
    nested = OrderedDict(a={"b": {"c": 1.0}, "d": "t"}, e=2.0)
    sorted_out = sort(nested, blobs)
    assert sorted_out.numbers == {"a/b/c": 1.0, "e": 2.0}
    assert sorted_out.others == {"a/d": "t"}


def test_a_dict_with_a_type_is_a_value(blobs: BlobStore):
    assert sort({"x": {"_type": "mine", "a": 1}}, blobs).others == {"x": {"_type": "mine", "a": 1}}


def test_a_name_that_occurs_twice_after_flattening_is_kept_once_and_named(blobs: BlobStore):
    sorted_out = sort({"a/b": 1.0, "a": {"b": 2.0}, "c": 3.0}, blobs)
    assert sorted_out.numbers == {"a/b": 1.0, "c": 3.0}
    assert list(sorted_out.problems) == ["a/b"]
    assert list(sort({1: 1.0, "1": "x"}, blobs).problems) == ["1"]


def test_keys_that_are_no_text_become_text(blobs: BlobStore):
    assert sort({1: 1.0, (2, 3): 2.0, None: 3.0}, blobs).numbers == {"1": 1.0, "(2, 3)": 2.0, "None": 3.0}


@pytest.mark.parametrize(
    "bad",
    [
        object(),
        {1: object()},
        [object()],
        1j,
        "\ud800",
        ["\ud800"],
        [{"\ud800": 1}],
        len,
        TorchLike([1.0, 2.0], 0).item,
    ],
    ids=lambda value: type(value).__name__ + repr(value)[:12],
)
def test_what_cannot_be_kept_is_named_and_the_rest_is_kept(blobs: BlobStore, bad: Any):
    sorted_out = sort({"bad": bad, "good": 1.0, "text": "t"}, blobs)
    assert sorted_out.numbers == {"good": 1.0}
    assert sorted_out.others == {"text": "t"}
    assert [name for name in sorted_out.problems if name.startswith("bad")] == list(sorted_out.problems)
    assert sorted_out.problems


def test_names_with_surrogates_are_named_in_a_printable_form(blobs: BlobStore):
    sorted_out = sort({"a\ud800": 1.0, "b": 2.0}, blobs)
    assert sorted_out.numbers == {"b": 2.0}
    assert list(sorted_out.problems) == ["a\\ud800"]


def test_values_that_raise_when_asked_are_problems(blobs: BlobStore):
    class Broken:
        ndim, size = 0, 1

        def item(self) -> float:
            raise RuntimeError("CUDA error")

    assert "CUDA error" in sort({"x": Broken()}, blobs).problems["x"]


def test_cycles_and_deep_nesting_are_problems_and_no_recursion_errors(blobs: BlobStore):
    cycle: list[Any] = []
    cycle.append(cycle)
    deep: Any = 1
    for _ in range(10_000):
        deep = [deep]
    loop: dict[str, Any] = {}
    loop["x"] = loop
    sorted_out = sort({"cycle": cycle, "deep": deep, "loop": loop, "good": 1.0}, blobs)
    assert sorted_out.numbers == {"good": 1.0}
    assert len(sorted_out.problems) == 3


def test_bytes_become_blobs(blobs: BlobStore):
    for value in (b"data", bytearray(b"data"), memoryview(b"data")):
        kept = sort({"x": value}, blobs).others["x"]
        assert (kept["_type"], kept["size_bytes"]) == ("file", 4)
        assert blobs.get(kept["sha256"]) == b"data"


def test_large_values_become_blobs_of_json(blobs: BlobStore, store: str):
    value = [math.nan, *range(1000)]
    kept = sort({"x": value, "t": "ü" * 500, "small": "x"}, blobs, inline_bytes=256).others
    assert {key: kept["x"][key] for key in ("_type", "of")} == {"_type": "json", "of": "list"}
    assert kept["t"]["of"] == "str"
    assert kept["small"] == "x"
    back = values.from_json(blobs.get(kept["x"]["sha256"]))
    assert math.isnan(back[0])
    assert back[1:] == value[1:]
    assert values.from_json(blobs.get(kept["t"]["sha256"])) == "ü" * 500
    assert os.path.isdir(os.path.join(store, "blobs"))


def test_a_blob_that_cannot_be_written_is_a_problem_and_no_error(store: str, faulty: Any):
    def fail(_fd: int, _data: bytes) -> None:
        raise OSError(28, "No space left on device")

    faulty.before_write = fail
    sorted_out = sort({"x": b"data", "y": 1.0}, BlobStore(store, faulty))
    assert sorted_out.numbers == {"y": 1.0}
    assert "No space left" in sorted_out.problems["x"]


JSON_CASES: list[tuple[Any, str]] = [
    (None, "null"),
    (True, "true"),
    (1, "1"),
    (2**64 - 1, "18446744073709551615"),
    (1.0, "1.0"),
    (-0.0, "-0.0"),
    (5e-324, "5e-324"),
    ("ü\n", '"ü\\n"'),
    ([1, [2.5]], "[1,[2.5]]"),
    ({"b": 1, "a": 2}, '{"b":1,"a":2}'),
    (math.inf, '{"_type":"float","value":"inf"}'),
    (-math.inf, '{"_type":"float","value":"-inf"}'),
]


@pytest.mark.parametrize(("value", "text"), JSON_CASES, ids=repr)
def test_json_is_lossless(value: Any, text: str):
    assert values.to_json(value).decode() == text
    back = values.from_json(text)
    assert back == value
    assert type(back) is type(value)


def test_json_keeps_nan_and_big_integers():
    assert math.isnan(values.from_json(values.to_json(math.nan)))
    assert values.from_json(b'{"_type":"int","value":"%d"}' % 10**30) == 10**30


def test_json_of_bytes_and_of_what_msgpack_may_hold_else():
    assert values.to_json({"a": b"\x00\xff"}) == b'{"a":{"_type":"bytes","hex":"00ff"}}'
    assert values.to_json({1: 2, "1": 3}) == b'{"_type":"map","items":[[1,2],["1",3]]}'
    assert values.to_json(msgspec.msgpack.Ext(5, b"x")) == b'{"_type":"ext","code":5,"hex":"78"}'


@pytest.mark.parametrize(
    "logged",
    [
        {"_type": "float", "value": "abc"},
        {"_type": "int", "value": "12.5"},
        {"_type": "int", "value": "1" * 5000},
        {"_type": "int", "value": ""},
    ],
    ids=["no_float", "no_int", "long", "empty"],
)
def test_a_users_dict_that_looks_like_a_tagged_number_does_not_stop_the_reader(logged: dict[str, str]):
    assert values.from_json(values.to_json(logged)) == logged


@pytest.mark.parametrize(
    ("plain", "kind"),
    [
        ("x", "text"),
        (True, "bool"),
        (1, "int"),
        (1.5, "float"),
        (None, "null"),
        ([], "json"),
        ({"a": 1}, "json"),
        ({"_type": "table"}, "table"),
        ({"_type": 5}, "json"),
    ],
)
def test_kinds_of_values(plain: Any, kind: str):
    assert values.kind_of(plain) == kind
