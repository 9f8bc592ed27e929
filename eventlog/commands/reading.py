"""`eventlog projects`, `runs` and `curve`: what is in a store."""

from __future__ import annotations

import math
import time
from collections import Counter
from typing import Any, Final

import click
import pyarrow as pa

from eventlog import jsonl
from eventlog.commands.output import console, emit, json_option, only_project, open_readable, show, store_argument
from eventlog.errors import UsageError
from eventlog.present import ago, clean, count, number, plot, sparkline
from eventlog.store import Store

_SPARK_WIDTH: Final = 24
_LIKELY: Final = ("loss", "train/loss", "train_loss", "eval/loss")


@click.command()
@store_argument
@json_option
def projects(store: str, *, as_json: bool) -> None:
    """List the projects of STORE."""
    opened = open_readable(store)
    found = [_project(opened, name) for name in opened.projects()]
    if as_json:
        emit(found)
        return
    numbers = ("runs", "logs", "version", "folded", "files")
    rows = [[fact["project"], *(count(fact[name]) for name in numbers)] for fact in found]
    show(["project", *numbers], rows, right=numbers)


def _project(store: Store, project: str) -> dict[str, Any]:
    runs = store.runs(project)
    manifest = store.manifest(project)
    return {
        "project": project,
        "runs": runs.num_rows,
        "logs": sum(runs["logs"].to_pylist()),
        "version": manifest.version,
        "folded": sum(mark.records for mark in manifest.writers.values()),
        "files": len(manifest.files),
    }


@click.command()
@store_argument
@click.argument("project", required=False)
@click.option("--metric", help="Draw this one; default a loss, else the metric that most runs have.")
@click.option("--limit", type=click.IntRange(1), default=50, show_default=True, help="Show the newest so many.")
@click.option("--deleted", is_flag=True, help="Also runs that were deleted.")
@json_option
def runs(store: str, project: str | None, metric: str | None, limit: int, *, deleted: bool, as_json: bool) -> None:
    """List the runs of PROJECT, newest last, with a curve of one metric."""
    opened = open_readable(store)
    project = only_project(opened, project)
    table = opened.runs(project, deleted=deleted)
    if as_json:
        emit(list(jsonl.rows(table)))
        return
    table = table.slice(max(table.num_rows - limit, 0))
    metric = metric or _likely_metric(table)
    headers = ["run", "name", "status", "step", "logs", "last seen", *([metric] if metric else [])]
    show(headers, [_run_row(opened, project, row, metric) for row in _run_facts(table)], right=("step", "logs"))


def _run_facts(table: pa.Table) -> list[dict[str, Any]]:
    columns = ["run_id", "name", "status", "last_step", "logs", "deleted"]
    rows: list[dict[str, Any]] = table.select(columns).to_pylist()
    for row, last in zip(rows, table["last_time"].cast(pa.int64()).to_pylist(), strict=True):
        row["last_time_ns"] = last
    return rows


def _likely_metric(table: pa.Table) -> str | None:
    names = Counter(name for cell in table["metrics"].to_pylist() for name, _ in cell)
    for likely in _LIKELY:
        if likely in names:
            return likely
    return max(sorted(names), key=lambda name: names[name]) if names else None


def _run_row(store: Store, project: str, row: dict[str, Any], metric: str | None) -> list[str]:
    step = "" if row["last_step"] is None else str(row["last_step"])
    status = "deleted" if row["deleted"] else row["status"]
    seen = ago(row["last_time_ns"], time.time_ns())
    cells = [row["run_id"], row["name"], status, step, count(row["logs"]), seen]
    if metric is None:
        return cells
    if row["deleted"]:
        return [*cells, ""]
    values = store.curve(project, row["run_id"], metric, max_points=_SPARK_WIDTH * 4)["value"].to_pylist()
    return [*cells, f"{sparkline(values, _SPARK_WIDTH)} {number(values[-1] if values else None)}"]


@click.command()
@store_argument
@click.argument("project")
@click.argument("run")
@click.argument("metric")
@click.option("--max-points", type=click.IntRange(4), help="At most so many points; every extreme stays. Default all.")
@json_option
def curve(store: str, project: str, run: str, metric: str, max_points: int | None, *, as_json: bool) -> None:
    """Draw METRIC of RUN, which is an id or a name. `--json` prints columns of the points."""
    opened = open_readable(store)
    if not as_json:
        # What the terminal can show is what a screen of points shows: extremes are never lost.
        max_points = max_points or 4096
    table = opened.curve(project, run, metric, max_points=max_points)
    if not table.num_rows:
        raise UsageError(f"run {run!r} has no metric {metric!r}; {_known(opened, project)}")
    if as_json:
        points = [*jsonl.rows(table)]
        columns = {key: [point.get(name) for point in points] for key, name in _CURVE_COLUMNS.items()}
        emit({"project": project, "run": run, "metric": metric, **columns})
        return
    _draw(table, f"{run} {metric}")


_CURVE_COLUMNS: Final = {"step": "_step", "time": "_time", "value": "value"}


def _known(store: Store, project: str) -> str:
    names = store.metric_names(project)
    shown = ", ".join(names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "")
    return f"metrics of the project: {shown}" if names else "the project has none"


def _draw(table: pa.Table, title: str) -> None:
    values = table["value"].to_pylist()
    steps = table["_step"].to_pylist()
    out = console()
    out.print(clean(title), style="bold", markup=False)
    for line in plot(values, min(out.width - 14, 100)):
        out.print(line, markup=False)
    valid = [index for index, value in enumerate(values) if not math.isnan(value)]
    facts = [f"last {number(values[-1])} at step {steps[-1]}"]
    if valid:
        low, high = min(valid, key=values.__getitem__), max(valid, key=values.__getitem__)
        facts.insert(0, f"min {number(values[low])} at step {steps[low]}")
        facts.insert(1, f"max {number(values[high])} at step {steps[high]}")
    out.print("   ".join(facts), markup=False)
