"""How fast a curve of one run comes: warm and in a fresh process, beside the same files read in other ways."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any, Final

import duckdb
import fresh
import limits
import numpy as np
import pyarrow as pa
import pyarrow.dataset as pads
import pyarrow.parquet as pq
import stores

from eventlog.fs import LOCAL
from eventlog.parquet import DataFileReader
from eventlog.store import open_store

DEFAULT_RECORDS: Final = 625_000
_METRIC: Final = "loss"
_COLUMNS: Final = ["_step", "_time", _METRIC]
_QUERY: Final = f"SELECT _step, _time, {_METRIC} FROM read_parquet(?) WHERE _run_id = ? ORDER BY _writer, _seq"  # noqa: S608
_LOOKS: Final = 40


def measure(cache: str, records: int, repeat: int) -> dict[str, Any]:
    """Return the figures; subjects take turns, in one thread."""
    root = stores.snapshot(cache, "noisy", records)
    warm = [fresh.call("read", "time_warm", root=root) for _ in range(repeat)]
    processes: dict[str, list[dict[str, float]]] = {subject: [] for subject in _PROCESSES}
    for _ in range(repeat):
        for subject, times in processes.items():
            times.append(_time_process(root, subject))
    return {
        "parameters": {"records": records, "points": records * 8, "runs": stores.RUNS, "repeat": repeat},
        "rows": warm[0]["rows"],
        "warm_ms": {name: stores.median_of([each["ms"] for each in warm], name) for name in warm[0]["ms"]},
        "fresh_process_ms": {
            subject: {key: stores.median_of(each, key) for key in each[0]} for subject, each in processes.items()
        },
    }


class Subjects:
    """The ways to read one curve of one run, and what else a dashboard asks for."""

    def __init__(self, root: str) -> None:
        """Open everything, so that what is timed is warm."""
        self.root = root
        self.store = open_store(root)
        self.run_id = self.store.runs(stores.PROJECT)["run_id"][stores.RUNS // 2].as_py()
        self.paths = self.store.files(stores.PROJECT)
        self.dataset = pads.dataset(self.paths, format="parquet")
        self.duck = duckdb.connect()
        self.duck.execute("SET threads = 1")
        self.groups: list[tuple[Any, list[int]]] = []
        for path in self.paths:
            pieces = DataFileReader(LOCAL, path).pieces_of(self.run_id)
            groups = [
                index
                for index, (start, rows) in enumerate(DataFileReader(LOCAL, path).group_ranges())
                if any(piece.start < start + rows and start < piece.start + piece.rows for piece in pieces)
            ]
            if groups:
                self.groups.append((pq.ParquetFile(path), groups))

    def all(self) -> dict[str, Callable[[], Any]]:
        """Return what is timed, by name."""
        return {
            "curve": lambda: self.store.curve(stores.PROJECT, self.run_id, _METRIC),
            "curve_limit_row_groups": self.read_row_groups,
            "curve_pyarrow_dataset": self.read_dataset,
            "curve_duckdb": self.read_duckdb,
            "curve_2000_points": lambda: self.store.curve(stores.PROJECT, self.run_id, _METRIC, max_points=2000),
            "metrics_of_run": lambda: self.store.metrics(stores.PROJECT, runs=self.run_id),
            "runs": lambda: self.store.runs(stores.PROJECT),
            "open": lambda: open_store(self.root).metric_names(stores.PROJECT),
            "open_and_curve": lambda: open_store(self.root).curve(stores.PROJECT, self.run_id, _METRIC),
        }

    def read_row_groups(self) -> pa.Table:
        """Read just the row groups and columns that are needed: the limit."""
        return pa.concat_tables(
            file.read_row_groups(groups, columns=_COLUMNS, use_threads=False) for file, groups in self.groups
        )

    def read_dataset(self) -> pa.Table:
        """Filter a plain dataset over the same files."""
        wanted = pads.field("_run_id") == self.run_id
        return self.dataset.to_table(columns=_COLUMNS, filter=wanted, use_threads=False)

    def read_duckdb(self) -> pa.Table:
        """Ask duckdb the same of the same files."""
        return self.duck.sql(_QUERY, params=[self.paths, self.run_id]).to_arrow_table()


def time_warm(root: str) -> dict[str, Any]:
    """Time each way, in turns, in one process that has done it before; milliseconds."""
    limits.one_thread()
    subjects = Subjects(root).all()
    rows = {name: _rows(ask()) for name, ask in subjects.items()}
    times: dict[str, list[float]] = {name: [] for name in subjects}
    for _ in range(_LOOKS):
        for name, ask in subjects.items():
            began = time.perf_counter()
            ask()
            times[name].append((time.perf_counter() - began) * 1e3)
    return {"rows": rows, "ms": {name: float(np.median(each)) for name, each in times.items()}}


def _rows(answer: Any) -> int:
    return len(answer) if isinstance(answer, list) else int(answer.num_rows)


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
    """Time a fresh process that reads one curve: the import, the answer, and all of it."""
    store = open_store(root)
    run = store.runs(stores.PROJECT)["run_id"][stores.RUNS // 2].as_py()
    facts = {
        "project": stores.PROJECT,
        "run": run,
        "metric": _METRIC,
        "columns": _COLUMNS,
        "paths": store.files(stores.PROJECT),
        "query": _QUERY,
    }
    imports, answer = (text.format(**facts) for text in _PROCESSES[subject])
    script = _SCRIPT.format(imports=imports, answer=answer)
    began = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", script, root], stdout=subprocess.PIPE, check=True)
    seconds = time.perf_counter() - began
    imported, answered = (float(text) for text in done.stdout.split())
    return {"import": imported * 1e3, "answer": answered * 1e3, "process": seconds * 1e3}


def table(found: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Return the figures for people: what, eventlog's, and the limit's or a peer's."""
    warm, processes = found["warm_ms"], found["fresh_process_ms"]
    ours = processes["eventlog"]
    lines = [
        (f"one curve, {found['rows']['curve']:,} points, warm, ms", f"{warm['curve']:.2f}", ""),
        ("  limit: just the row groups it needs", "", f"{warm['curve_limit_row_groups']:.2f}"),
        ("  duckdb, the same files", "", f"{warm['curve_duckdb']:.2f}"),
        ("  pyarrow.dataset with a filter, the same files", "", f"{warm['curve_pyarrow_dataset']:.2f}"),
        ("  cut down to 2000 points", f"{warm['curve_2000_points']:.2f}", ""),
        ("  with a store opened anew", f"{warm['open_and_curve']:.2f}", ""),
        (f"all metrics of one run, {found['rows']['metrics_of_run']:,} rows, ms", f"{warm['metrics_of_run']:.2f}", ""),
        (f"the list of {found['rows']['runs']} runs, ms", f"{warm['runs']:.2f}", ""),
        ("open a store and name its metrics, ms", f"{warm['open']:.2f}", ""),
        ("one curve in a fresh process, after imports, ms", f"{ours['answer']:.1f}", ""),
        ("  the whole process, ms", f"{ours['process']:.0f}", ""),
    ]
    for peer in ("duckdb", "pyarrow_dataset"):
        lines.append((f"  {peer}, after imports", "", f"{processes[peer]['answer']:.1f}"))
        lines.append((f"  {peer}, the whole process", "", f"{processes[peer]['process']:.0f}"))
    return lines
