"""What a reader waits for at 1, 10 and 100 M points: a curve, a poll of 20 runs, the list of runs, opening a store."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any, Final

import elsewhere
import fresh
import stores
from charts import Panel
from grids import Grid, number
from ways import COLUMNS, METRIC, QUERY

from eventlog.store import open_store

DEFAULT_RECORDS: Final = 12_500_000
DEFAULT_REPEAT: Final = 3
NAMES: Final = ("eventlog", *elsewhere.PEERS)
_ROWS: Final = 31_250
_SMALL_RUNS: Final = 10_000
_SMALL_ROWS: Final = 20
_WAYS: Final = {
    "curve": "one curve",
    "curve_limit_row_groups": "  limit: just the row groups it needs",
    "curve_duckdb": "  duckdb, the same files",
    "curve_polars": "  polars, the same files",
    "curve_pyarrow_dataset": "  pyarrow.dataset with a filter, the same files",
    "curve_2000_points": "  cut down to 2000 points",
    "open_and_curve": "  with a store opened anew",
    "poll": "20 runs of 3000 points",
    "metrics_of_run": "all metrics of one run",
    "runs": "the list of the runs",
    "open": "open a store and name its metrics",
}


def measure(cache: str, records: int, repeat: int, only: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return the figures; subjects take turns, in one thread, at a hundredth, a tenth and all of the records."""
    small = max(records // 1250, 20)
    listed = stores.bulk(cache, min(_SMALL_RUNS, small), _SMALL_ROWS)
    few = max(records // 100, 100)
    return {
        "parameters": {"records": records, "repeat": repeat, "rows_a_run": _rows_a_run(few)},
        "sizes": {str(size * 8): _at(cache, size, few, repeat) for size in (few, few * 10, few * 100)},
        "run_list": _medians([fresh.call("ways", "time_run_list", root=listed) for _ in range(repeat)]),
        "elsewhere": elsewhere.measure(cache, _rows_a_run(few), repeat, only or NAMES),
    }


def _rows_a_run(few: int) -> int:
    return min(_ROWS, few // 4)


def _at(cache: str, records: int, few: int, repeat: int) -> dict[str, Any]:
    rows = _rows_a_run(few)
    root = stores.bulk(cache, records // rows, rows)
    warm = [fresh.call("ways", "time_warm", root=root) for _ in range(repeat)]
    processes: dict[str, list[dict[str, float]]] = {subject: [] for subject in _PROCESSES}
    for _ in range(repeat):
        for subject, times in processes.items():
            times.append(_time_process(root, subject))
    return {
        "runs": records // rows,
        "files": stores.metric_files(root),
        "bytes_per_point": stores.metric_bytes(root) / (records * 8),
        "rows": warm[0]["rows"],
        "warm_ms": _medians([each["ms"] for each in warm]),
        "fresh_process_ms": {subject: _medians(each) for subject, each in processes.items()},
    }


def _medians(results: list[dict[str, Any]]) -> dict[str, float]:
    return {key: stores.median_of(results, key) for key in results[0]}


_PROCESSES: Final = {
    "eventlog": (
        "from eventlog.store import open_store",
        "open_store(root).curve({project!r}, {run!r}, {metric!r})",
    ),
    "pyarrow_dataset": (
        "import pyarrow.dataset as ds",
        "ds.dataset({paths!r}).to_table(columns={columns!r}, filter=ds.field('_run_id') == {run!r})",
    ),
    "duckdb": (
        "import duckdb, pyarrow",
        "duckdb.sql({query!r}, params=[{paths!r}, {run!r}]).to_arrow_table()",
    ),
}
_SCRIPT: Final = """
import sys, time
root = sys.argv[1]
began = time.perf_counter()
{imports}
imported = time.perf_counter()
{answer}
print(imported - began, time.perf_counter() - imported)
"""


def _time_process(root: str, subject: str) -> dict[str, float]:
    """Time a fresh process that reads one curve: the import, and the answer; milliseconds."""
    store = open_store(root)
    runs = store.runs(stores.PROJECT)["run_id"]
    facts = {
        "project": stores.PROJECT,
        "run": runs[len(runs) // 2].as_py(),
        "metric": METRIC,
        "columns": COLUMNS,
        "paths": store.files(stores.PROJECT),
        "query": QUERY,
    }
    imports, answer = (text.format(**facts) for text in _PROCESSES[subject])
    script = _SCRIPT.format(imports=imports, answer=answer)
    # As pip installs a package: compiled.
    variables = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    command = [sys.executable, "-c", script, root]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, env=variables)
    imported, answered = (float(text) for text in done.stdout.split())
    return {"import": imported * 1e3, "answer": answered * 1e3}


def tables(found: dict[str, Any]) -> Iterator[Grid]:
    """Yield the tables for people."""
    sizes = found["sizes"]
    heads = [f"{int(points) / 1e6:g} M points, {size['runs']} runs" for points, size in sizes.items()]
    rows = [[text, *(number(size["warm_ms"][way]) for size in sizes.values())] for way, text in _WAYS.items()]
    yield Grid("warm, one thread, ms", ["", *heads], rows)
    rows = [
        [f"{subject}, after its imports", *(number(s["fresh_process_ms"][subject]["answer"]) for s in sizes.values())]
        for subject in _PROCESSES
    ]
    rows += [
        [f"{subject}, its imports", *(number(s["fresh_process_ms"][subject]["import"]) for s in sizes.values())]
        for subject in _PROCESSES
    ]
    yield Grid("one curve in a fresh process, ms", ["", *heads], rows)
    listed = found["run_list"]
    yield Grid(
        f"the list of {listed['runs']:,.0f} runs, ms",
        ["", "eventlog"],
        [
            ["just opened", number(listed["opened_ms"])],
            ["again", number(listed["unchanged_ms"])],
            ["again, after a run logged", number(listed["changed_ms"])],
        ],
    )
    yield elsewhere.grid(found["elsewhere"])


def panels(found: dict[str, Any]) -> list[Panel]:
    """Return what `--plot` draws: cost against size."""
    sizes = found["sizes"]
    points = [int(points) for points in sizes]
    ways = ("curve", "curve_limit_row_groups", "curve_duckdb", "curve_polars", "curve_pyarrow_dataset")
    curves = {_label(way): [size["warm_ms"][way] for size in sizes.values()] for way in ways}
    ours = {_WAYS[way]: [size["warm_ms"][way] for size in sizes.values()] for way in ("poll", "runs", "open")}
    common = {"unit": "ms, less is better", "labels": points, "kind": "lines", "across": "points in the store"}
    return [
        Panel(title="One curve, warm", series=curves, **common),
        Panel(title="What else a dashboard asks eventlog for", series=ours, **common),
    ]


def _label(way: str) -> str:
    return {"curve": "eventlog", "curve_limit_row_groups": "limit"}.get(way, way.removeprefix("curve_"))


def reading(found: dict[str, Any]) -> list[str]:
    """Return what the figures say, in sentences."""
    sizes = list(found["sizes"].values())
    grown = sizes[-1]["warm_ms"]["curve"] / sizes[0]["warm_ms"]["curve"]
    peers = {way: sizes[-1]["warm_ms"][way] for way in ("curve_duckdb", "curve_polars", "curve_pyarrow_dataset")}
    best = min(peers, key=lambda way: peers[way])
    ratio = peers[best] / sizes[-1]["warm_ms"]["curve"]
    return [
        f"A curve takes {grown:.2f} times as long in a store with 100 times the points.",
        f"In the largest store the fastest other reader, {_label(best)}, takes {ratio:.1f} times as long.",
    ]
