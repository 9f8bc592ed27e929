"""What is computed from rows keeps every extreme, every NaN and every order."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventlog import arrow, query, runrows
from eventlog.columns import EventRow
from eventlog.errors import UsageError
from eventlog.runs import At, RunPart, Stat

curves = st.lists(st.floats(width=64), min_size=1, max_size=300)


@given(curves, st.integers(4, 60))
def test_downsampling_never_loses_an_extreme_nor_an_end(values: list[float], max_points: int):
    curve = np.array(values, np.float64)
    chosen = query.downsample(curve, max_points)
    assert list(chosen) == sorted(set(chosen.tolist()))
    assert {0, len(values) - 1} <= set(chosen.tolist())
    kept = curve[chosen]
    numbers = curve[~np.isnan(curve)]
    assert bool(np.isnan(kept).any()) == bool(np.isnan(curve).any())
    if len(numbers):
        assert np.nanmin(kept) == numbers.min()
        assert np.nanmax(kept) == numbers.max()


@given(curves, st.integers(4, 60))
def test_downsampling_keeps_to_the_limit(values: list[float], max_points: int):
    assert len(query.downsample(np.array(values, np.float64), max_points)) <= max_points


def test_a_short_curve_is_kept_whole():
    assert query.downsample(np.array([1.0, 2.0, 3.0, 4.0]), 4).tolist() == [0, 1, 2, 3]


def test_one_spike_among_a_million_points_stays():
    curve = np.zeros(1_000_000)
    curve[654_321], curve[123_456] = 1.0, -1.0
    assert {654_321, 123_456} <= set(query.downsample(curve, 100).tolist())


def events(*rows: tuple[str, str, int]) -> pa.Table:
    return arrow.events_to_rows([EventRow(run, "text", "x", None, 1, w, seq, '""') for run, w, seq in rows]).table


def keys(table: pa.Table) -> list[tuple[str, str, int]]:
    columns = [table[name].to_pylist() for name in ("_run_id", "_writer", "_seq")]
    return list(zip(*columns, strict=True))


def test_united_tables_are_sorted_by_run_writer_and_seq():
    found = query.unite("events", [events(("b", "w", 2), ("a", "w", 9)), events(("a", "v", 1), ("b", "w", 1))], None)
    assert keys(found) == [("a", "v", 1), ("a", "w", 9), ("b", "w", 1), ("b", "w", 2)]


def metrics(**columns: list[float | None]) -> pa.Table:
    count = len(next(iter(columns.values())))
    fixed: dict[str, Any] = {
        "_run_id": pa.array(["r"] * count).dictionary_encode(),
        "_step": pa.array(range(count), pa.int64()),
        "_time": pa.array(range(count), pa.int64()).cast(arrow.TIME),
        "_writer": pa.array(["w"] * count).dictionary_encode(),
        "_seq": pa.array(range(1, count + 1), pa.int64()),
        "_rank": pa.nulls(count, pa.int32()),
    }
    schema = arrow.table_schema("metrics", columns)
    return pa.table([*fixed.values(), *(pa.array(c, pa.float64()) for c in columns.values())], schema=schema)


def test_tables_with_different_columns_unite_with_nulls():
    found = query.unite("metrics", [metrics(a=[1.0]), metrics(b=[2.0])], None)
    assert found["a"].to_pylist() == [1.0, None]
    assert found["b"].to_pylist() == [None, 2.0]
    assert query.unite("metrics", [], None).num_rows == 0


def test_only_the_columns_asked_for_come_in_the_order_asked():
    found = query.unite("metrics", [metrics(a=[1.0], b=[2.0])], ["b", "_seq", "missing"])
    assert found.schema.names == ["b", "_seq", "missing"]
    assert found["missing"].null_count == 1


def test_rows_without_any_of_the_columns_are_left_out_and_nan_is_a_value():
    table = metrics(a=[1.0, None, math.nan, None], b=[None, None, None, 4.0])
    assert query.with_any(table, ["a"]).num_rows == 2
    assert query.with_any(table, ["a", "b"]).num_rows == 3
    assert query.with_any(table, []).num_rows == 4


@pytest.mark.parametrize(
    ("steps", "expected"),
    [((1, 2), [1, 2]), ((None, 1), [0, 1]), ((2, None), [2, 3]), ((None, None), [0, 1, 2, 3]), (range(1, 3), [1, 2])],
    ids=str,
)
def test_steps_are_bounded_on_both_sides_inclusively(steps: Any, expected: list[int]):
    assert query.between_steps(metrics(a=[1.0] * 4), steps)["_step"].to_pylist() == expected


@pytest.mark.parametrize("steps", [range(0, 10, 2), 5, (1, 2, 3)], ids=str)
def test_other_forms_of_steps_are_refused(steps: Any):
    with pytest.raises(UsageError, match="steps is"):
        query.between_steps(metrics(a=[1.0]), steps)


def test_narrow_has_one_row_a_point_with_unescaped_names():
    found = query.narrow(metrics(**{"a": [1.0, None], "._odd": [math.nan, 4.0]}))
    assert found["name"].to_pylist() == ["_odd", "a", "_odd"] or found["name"].to_pylist() == ["a", "_odd", "_odd"]
    assert sorted(found["_seq"].to_pylist()) == [1, 1, 2]
    assert found.schema.names == query.NARROW.names
    assert query.narrow(metrics(a=[1.0]).select(arrow.table_schema("metrics", ()).names)).num_rows == 0


def test_the_runs_table_has_one_row_a_run_with_defaults_where_nothing_was_said():
    part = RunPart("r")
    part.stats["nan"] = Stat(1, 1, 0.0, None, None, None, None, math.nan, ("w", 1), math.nan, ("w", 1))
    part.config["lr"] = (At(1, "w", 1), 0.1)
    (row,) = (
        runrows.show(runrows.parts_to_table([part])).drop_columns(["created", "first_time", "last_time"]).to_pylist()
    )
    assert (row["run_id"], row["name"], row["status"], row["logs"]) == ("r", "r", "running", 0)
    assert row["config"] == '{"lr":0.1}'
    ((name, stat),) = row["metrics"]
    assert (name, stat["mean"], stat["min"], stat["count"]) == ("nan", None, None, 1)


def test_records_of_no_run_make_no_row():
    assert runrows.show(runrows.parts_to_table([RunPart("")])).num_rows == 0
