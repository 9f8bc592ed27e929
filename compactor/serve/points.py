"""The calls that read single values: one metric of a run, and everything around a moment; never sampled unasked."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from compactor.serve.hub import Hub
from compactor.serve.project import Project
from compactor.serve.sampler import iso_times
from compactor.serve.wire import time_ns
from eventlog import arrow
from eventlog.runs import RunPart


class MetricValues(msgspec.Struct):
    """Arguments of `get_metric_values`."""

    project: str
    run: str | None
    metric_name: str
    step: int | None = None
    around_step: int | None = None
    at_time: str | None = None
    window: int | float | None = None
    run_id: str | None = None
    max_points: int | None = None


class Snapshot(msgspec.Struct):
    """Arguments of `get_snapshot`."""

    project: str
    run: str | None = None
    run_id: str | None = None
    step: int | None = None
    around_step: int | None = None
    at_time: str | None = None
    window: int | float | None = None


def get_metric_values(hub: Hub, call: MetricValues) -> list[dict[str, Any]]:
    """Return every value of a metric of a run, in the order of time; with `max_points`, each n-th, first and last."""
    found = _run(hub, call.project, call.run, call.run_id)
    if found is None:
        return []
    project, part = found
    points: list[tuple[int, dict[str, Any]]] = []
    if call.metric_name in part.stats:
        curve = project.view(lambda view: view.curve(part.run_id, call.metric_name))
        points += _points(curve.filter(_mask(curve, call)), "value")
    for row in project.typed(part.run_id, lambda rows: rows.named(call.metric_name)):
        moment = time_ns(row["timestamp"]) or 0
        if _wanted(call, row["step"], moment):
            points.append((moment, {**row, "value": row.pop(call.metric_name)}))
    points.sort(key=lambda point: point[0])
    kept = [{"timestamp": item["timestamp"], "step": item["step"], "value": item["value"]} for _, item in points]
    return _evenly(kept, call.max_points)


def get_snapshot(hub: Hub, call: Snapshot) -> dict[str, list[dict[str, Any]]]:
    """Return the values of all metrics of a run at a step, around a step, or around a time."""
    found = _run(hub, call.project, call.run, call.run_id)
    if found is None:
        return {}
    project, part = found
    rows = project.view(lambda view: view.rows("metrics", [part.run_id], None))
    rows = rows.filter(_mask(rows, call))
    times = rows["_time"].cast(pa.int64()).to_numpy()
    order, stamps, steps = np.argsort(times, kind="stable"), iso_times(times), rows["_step"].to_pylist()
    shown: dict[str, list[dict[str, Any]]] = {}
    for column in arrow.metric_columns("metrics", rows.schema):
        # Only this column is looked at: a run may have thousands of them.
        at = order[pc.is_valid(rows[column]).to_numpy()[order]]
        numbers = pc.fill_null(rows[column], 0.0).to_numpy()[at].tolist()
        if numbers:
            shown[arrow.unescape(column)] = [
                {"timestamp": stamps[index], "step": steps[index], "value": value}
                for index, value in zip(at.tolist(), numbers, strict=True)
            ]
    return shown


def _run(hub: Hub, project: str, run: str | None, run_id: str | None) -> tuple[Project, RunPart] | None:
    state = hub.find(project)
    part = state.resolve(run, run_id) if state is not None else None
    return None if state is None or part is None else (state, part)


def _points(table: pa.Table, column: str) -> list[tuple[int, dict[str, Any]]]:
    times = table["_time"].cast(pa.int64()).to_numpy()
    steps, numbers = table["_step"].to_pylist(), table[column].to_pylist()
    return [
        (moment, {"timestamp": stamp, "step": step, "value": value})
        for moment, stamp, step, value in zip(times.tolist(), iso_times(times), steps, numbers, strict=True)
    ]


def _mask(table: pa.Table, call: MetricValues | Snapshot) -> pa.Array:
    times = table["_time"].cast(pa.int64()).to_numpy()
    steps = table["_step"].to_pylist()
    pairs = zip(steps, times.tolist(), strict=True)
    return arrow.from_bools(np.array([_wanted(call, step, moment) for step, moment in pairs], bool))


def _wanted(call: MetricValues | Snapshot, step: int | None, moment: int) -> bool:
    if call.step is not None:
        return step == call.step
    if call.around_step is not None and call.window is not None:
        return step is not None and abs(step - call.around_step) <= _whole(call.window)
    if call.at_time is not None and call.window is not None:
        middle = time_ns(call.at_time)
        return middle is not None and abs(moment - middle) <= _whole(call.window) * 1_000_000_000
    return True


def _whole(window: float) -> float:
    return window if isinstance(window, float) and not math.isfinite(window) else int(window)


def _evenly(rows: list[dict[str, Any]], most: int | None) -> list[dict[str, Any]]:
    if most is None or most < 1 or len(rows) <= most:
        return rows
    chosen = sorted({round(index * (len(rows) - 1) / max(most - 1, 1)) for index in range(most)})
    return [rows[index] for index in chosen] if most > 1 else [rows[-1]]
