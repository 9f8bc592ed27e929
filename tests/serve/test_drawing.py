"""What the dashboard draws: every spike, every last row, whatever comes in whichever pieces; and no value breaks it."""

from __future__ import annotations

import json
import math
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compactor.serve.artifacts import Artifacts
from compactor.serve.curves import Curves
from compactor.serve.sampler import Rows, Sampler
from compactor.serve.typed import to_trackio
from eventlog.columns import EventRow
from eventlog.gather import Block


def rows_of(values: np.ndarray, present: np.ndarray, first: int) -> Rows:
    count = len(values)
    steps = np.arange(first, first + count)
    return Rows(np.zeros(count, np.int64), steps * 1_000_000, steps, np.ones(count, bool), values, present)


def feed(sampler: Sampler, values: np.ndarray, present: np.ndarray, cuts: list[int]) -> list[dict]:
    names = [f"m{index}" for index in range(values.shape[1])]
    for start, end in zip([0, *cuts], [*cuts, len(values)], strict=True):
        if end > start:
            sampler.add(names, rows_of(values[start:end], present[start:end], start))
    return [json.loads(text) for text in sampler.render()[1]]


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_in_whatever_pieces_rows_come_every_extreme_and_the_first_and_last_row_are_shown(data):
    count, width = data.draw(st.integers(1, 3000)), data.draw(st.integers(1, 6))
    rng = np.random.default_rng(data.draw(st.integers(0, 1000)))
    values = rng.standard_normal((count, width))
    values[rng.random((count, width)) < data.draw(st.sampled_from((0.0, 0.001, 0.3)))] = math.nan
    present = rng.random((count, width)) < data.draw(st.sampled_from((1.0, 0.5, 0.02)))
    cuts = sorted(data.draw(st.lists(st.integers(0, count), max_size=12)))
    most = data.draw(st.integers(40, 400))
    sampler = Sampler(most)
    rows = feed(sampler, values, present, cuts)
    steps = [row["step"] for row in rows]
    assert steps == sorted(set(steps))
    assert (steps[0], steps[-1]) == (0, count - 1)
    # The open bucket may show as many rows again as there are extremes.
    assert len(rows) <= most + 3 * width + 2
    for column in range(width):
        logged = values[present[:, column], column]
        shown = [row[f"m{column}"] for row in rows if f"m{column}" in row]
        finite = logged[~np.isnan(logged)]
        if len(finite):
            assert min(v for v in shown if v is not None) == finite.min()
            assert max(v for v in shown if v is not None) == finite.max()
        assert (None in shown) == bool(np.isnan(logged).any())
    for row in rows:
        for column in range(width):
            if f"m{column}" in row:
                number = values[row["step"], column]
                assert row[f"m{column}"] == (None if math.isnan(number) else number)


@pytest.mark.parametrize("count", [64, 4096, 8000, 8192])
def test_the_newest_row_is_shown_also_when_it_fills_a_bucket(count):
    sampler = Sampler(100)
    values = np.ones((count, 2))
    present = np.ones(values.shape, bool)
    shown = feed(sampler, values, present, list(range(1, count)))
    assert shown[-1]["step"] == count - 1


def test_rows_of_several_writers_come_out_in_the_order_of_time():
    curves = Curves("metrics", 1000)
    for index, start in enumerate((1000, 0, 500)):
        times = np.arange(start, start + 400) * 1_000_000
        steps = np.arange(start, start + 400)
        block = Block("r", None, f"w{index}", ("x",), steps + 1, times, steps, None, steps[:, None].astype(float))
        curves.add_blocks([block])
    times, texts = curves.render()
    assert (np.diff(times) >= 0).all()
    steps = [json.loads(text)["step"] for text in texts]
    assert steps == sorted(steps)


@pytest.mark.parametrize("columns", [65, 200])
def test_more_metrics_than_one_sampler_holds_keep_their_extremes(columns):
    curves = Curves("metrics", 3000)
    rng = np.random.default_rng(1)
    values = rng.standard_normal((2000, columns))
    names = tuple(f"m{index}" for index in range(columns))
    steps = np.arange(2000)
    curves.add_blocks([Block("r", None, "w", names, steps + 1, steps * 1_000_000, steps, None, values)])
    rows = [json.loads(text) for text in curves.render()[1]]
    for index, name in enumerate(names):
        shown = [row[name] for row in rows if name in row]
        assert (min(shown), max(shown)) == (values[:, index].min(), values[:, index].max())


def test_thousands_of_metrics_that_are_logged_one_by_one_cost_no_cell_for_each_other():
    blocks = []
    for index in range(3000):
        at, value = np.array([index + 1]), np.array([[index / 2]])
        blocks.append(Block("r", None, "w", (f"m{index}",), at, at * 1_000_000, at, None, value))
    curves = Curves("metrics", 3000)
    tracemalloc.start()
    curves.add_blocks(blocks)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20_000_000
    rows = [json.loads(text) for text in curves.render()[1]]
    assert [(row["step"], row[f"m{index}"]) for index, row in enumerate(rows)] == [
        (index + 1, index / 2) for index in range(3000)
    ]


@pytest.mark.parametrize(
    "value",
    [
        {"_type": ["x"]},
        {"_type": "table", "columns": 5, "data": [[1]]},
        {"_type": "table", "columns": ["a"], "data": 5},
        {"_type": "image", "sha256": 5},
        {"_type": "json", "sha256": "x"},
        {"_type": "histogram"},
        {"_type": "trace", "messages": 5},
        {"_type": None},
        [[{"_type": {}}]],
    ],
)
def test_a_typed_value_of_another_form_is_shown_and_breaks_nothing(value):
    json.dumps(to_trackio(value, lambda _: None, ""))


def test_a_value_in_a_blob_that_refers_to_blobs_is_followed_once():
    reference = {"_type": "json", "sha256": "a" * 64}
    asked = []

    def load(digest: str) -> object:
        asked.append(digest)
        return [reference, reference]

    to_trackio(reference, load, "")
    assert asked == ["a" * 64]


def test_aliases_move_forward_versions_end_and_links_count_once():
    def version(number: int, at: int, **fields: object) -> EventRow:
        payload = {"name": "m", "type": "t", "version": f"v{number}", "files": {}, **fields}
        return EventRow("r", "artifact_version", "m", None, at, "w", at, json.dumps(payload))

    rows = [version(0, 1, aliases=["best"]), version(1, 2, aliases=["best"]), version(0, 3, aliases=["best"])]
    artifacts = Artifacts(rows, [])
    assert artifacts.resolve("m", "best").version == 1
    assert artifacts.resolve("m", None).version == 1
    assert len(artifacts.links) == 2
    ended = Artifacts([*rows, version(2, 4, overwrite=True)], [])
    assert [item.version for item in ended.of_name("m")] == [2]
    assert ended.resolve("m", "best") is None
    assert len(ended.links) == 1
