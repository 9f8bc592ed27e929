"""One call with everything: each kind of value that `log()` takes comes back from the file exactly, or is named."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest

import eventlog
from eventlog import EventLogWarning, values
from eventlog.blobs import BlobStore
from eventlog.columns import Batch
from eventlog.fs import LOCAL
from eventlog.manifest import Watermark
from eventlog.tail import WriterReader


@dataclasses.dataclass
class Sample:
    prompt: str
    scores: list[float]


EVERYTHING: dict[Any, Any] = {
    "float": 1.5,
    "int": 3,
    "nan": math.nan,
    "inf": math.inf,
    "-inf": -math.inf,
    "numpy": np.float32(0.25),
    "numpy int": np.int64(7),
    "zero-dim": np.array(2.0),
    "beyond 2**53": 2**53 + 1,
    "beyond 2**64": 2**70,
    "bool": True,
    "numpy bool": np.bool_(False),
    "text": "ü 🙂",
    "none": None,
    "list": [1, math.nan, "x", None, [True]],
    "array": np.arange(3),
    "nested": {"a": {"b": 2.0}, "c": "t"},
    "bytes": b"\x00\xff",
    "dataclass": Sample("p", [0.5]),
    "histogram": eventlog.Histogram([1.0, 2.0], bins=2),
    "table": eventlog.Table(["a"], [[1], ["x"]]),
    "markdown": eventlog.Markdown("# t"),
    "html": eventlog.Html("<b>"),
    "trace": eventlog.Trace([{"role": "user"}]),
    "image": eventlog.Image(b"png", name="i.png"),
    "audio": eventlog.Audio([0.0], sample_rate=8000),
    "video": eventlog.Video(b"mp4", caption="c"),
    "file": eventlog.File(b"file"),
    5: 5.0,
    "_step": 6.0,
    "": 7.0,
    "with\nnewline": 8.0,
}


@pytest.fixture
def call(start: Any, back: Any) -> Any:
    run = start()
    run.log({**EVERYTHING, "bad": "fine"}, step=4)
    run.finish()
    return back.only_call()


def test_the_numbers_come_back(call: Any):
    expected = {
        "float": 1.5,
        "int": 3.0,
        "inf": math.inf,
        "-inf": -math.inf,
        "numpy": 0.25,
        "numpy int": 7.0,
        "zero-dim": 2.0,
        "beyond 2**53": float(2**53 + 1),
        "beyond 2**64": float(2**70),
        "nested/a/b": 2.0,
        "5": 5.0,
        "_step": 6.0,
        "": 7.0,
        "with\nnewline": 8.0,
    }
    numbers = dict(call.numbers)
    assert math.isnan(numbers.pop("nan"))
    assert numbers == expected
    assert call.step == 4


def test_everything_else_comes_back(call: Any, store: str):
    others = dict(call.others)
    assert others.pop("beyond 2**53") == 2**53 + 1
    assert others.pop("beyond 2**64") == {"_type": "int", "value": str(2**70)}
    assert (others.pop("bool"), others.pop("numpy bool"), others.pop("none")) == (True, False, None)
    assert others.pop("text") == "ü 🙂"
    listed = others.pop("list")
    assert math.isnan(listed[1])
    assert [listed[0], *listed[2:]] == [1, "x", None, [True]]
    assert others.pop("array") == [0, 1, 2]
    assert others.pop("nested/c") == "t"
    assert others.pop("dataclass") == {"prompt": "p", "scores": [0.5]}
    blobs = BlobStore(store)
    for name, data in {"bytes": b"\x00\xff", "image": b"png", "video": b"mp4", "file": b"file"}.items():
        assert blobs.get(others.pop(name)["sha256"]) == data
    assert blobs.get(others.pop("audio")["sha256"]).startswith(b"RIFF")
    types = {name: value["_type"] for name, value in others.items() if isinstance(value, dict)}
    assert types == {name: name for name in ("histogram", "table", "markdown", "html", "trace")}
    assert others.pop("bad") == "fine"
    assert set(others) == set(types)


def test_the_rows_of_a_fold_are_the_same_values(call: Any, back: Any):
    batch = Batch()
    (writer_id,) = back.writers()
    WriterReader(LOCAL, back.root, "p", writer_id, Watermark(), batch).read()
    (block,) = batch.metrics
    row = dict(zip(block.names, block.values[0].tolist(), strict=True))
    assert {name: value for name, value in row.items() if name != "nan"} == {
        name: value for name, value in call.numbers.items() if name != "nan"
    }
    rows = {event.name: event for event in batch.events if event.seq == call.seq}
    assert set(rows) == set(call.others)
    assert values.from_json(rows["beyond 2**64"].payload) == 2**70
    assert values.from_json(rows["beyond 2**53"].payload) == 2**53 + 1
    assert [rows[name].kind for name in ("text", "bool", "none", "list", "image")] == [
        "text",
        "bool",
        "null",
        "json",
        "image",
    ]


def test_one_bad_value_costs_itself_and_is_named(start: Any, back: Any):
    with pytest.warns(EventLogWarning, match="'bad' was not kept") as caught:
        start().log({**EVERYTHING, "bad": object()})
    assert len(caught) == 1
    call = back.only_call()
    assert len(call.numbers) == 15
    assert "bad" not in call.others


@pytest.mark.parametrize("size", [1, 2, 100, 5000])
def test_calls_with_many_names_come_back(start: Any, back: Any, size: int):
    run = start()
    data = {f"layer/{index}": float(index) for index in range(size)}
    for _ in range(40):
        run.log(data)
    run.finish()
    assert all(call.numbers == data for call in back.calls())
    assert len(back.records()) == 42


def test_the_same_names_in_another_order_and_other_names_do_not_mix(start: Any, back: Any):
    run = start()
    logged = [
        {"a": 1.0, "b": 2.0},
        {"b": 3.0, "a": 4.0},
        {"a": 5.0},
        {"a": 6.0, "b": 7, "c": "x"},
        {"a": 8.0, "b": 9.0},
        {},
        {"c": "y"},
    ]
    for data in logged * 3:
        run.log(data)
    run.finish()
    assert [{**call.numbers, **call.others} for call in back.calls()] == logged * 3
    back.records()


def test_a_metric_may_change_between_integer_and_float_without_losing_the_fast_way(start: Any, back: Any):
    run = start()
    for value in (1.0, 2, np.float64(3.0), np.float32(4.0), 5.0):
        run.log({"a": value})
    assert [call.numbers["a"] for call in back.calls()] == [1.0, 2.0, 3.0, 4.0, 5.0]
    assert len({call.writer_id for call in back.calls()}) == 1


def test_subclasses_of_dict_and_mappings_are_taken(start: Any, back: Any):
    from collections import OrderedDict, defaultdict
    from types import MappingProxyType

    run = start()
    run.log(OrderedDict(a=1.0))
    run.log(defaultdict(float, a=2.0))
    run.log(MappingProxyType({"a": 3.0}))
    assert [call.numbers["a"] for call in back.calls()] == [1.0, 2.0, 3.0]
