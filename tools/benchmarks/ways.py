"""The ways to read one curve of the same files: ours, the limit, and what other readers of parquet make of them."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any, Final

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

METRIC: Final = "loss"
COLUMNS: Final = ["_step", "_time", METRIC]
QUERY: Final = f"SELECT _step, _time, {METRIC} FROM read_parquet(?) WHERE _run_id = ? ORDER BY _writer, _seq"  # noqa: S608
_LOOKS: Final = 40
_LONGEST_S: Final = 2.0
_POLL_RUNS: Final = 20


class Ways:
    """The ways to read one curve of one run, and what else a dashboard asks for."""

    def __init__(self, root: str) -> None:
        """Open everything, so that what is timed is warm."""
        # Polars counts its threads when it is imported.
        os.environ["POLARS_MAX_THREADS"] = "1"
        import duckdb
        import polars as pl

        self.root = root
        self.store = open_store(root)
        runs = self.store.runs(stores.PROJECT)["run_id"].to_pylist()
        self.run_id = runs[len(runs) // 2]
        self.polled = runs[-_POLL_RUNS:]
        self.paths = self.store.files(stores.PROJECT)
        self.dataset = pads.dataset(self.paths, format="parquet")
        self.duck = duckdb.connect()
        self.duck.execute("SET threads = 1")
        self.polars = pl
        self.lazy = pl.scan_parquet(self.paths)
        self.groups: list[tuple[Any, list[int]]] = []
        for path in self.paths:
            reader = DataFileReader(LOCAL, path)
            pieces = reader.pieces_of(self.run_id)
            groups = [
                index
                for index, (start, rows) in enumerate(reader.group_ranges())
                if any(piece.start < start + rows and start < piece.start + piece.rows for piece in pieces)
            ]
            if groups:
                self.groups.append((pq.ParquetFile(path), groups))

    def all(self) -> dict[str, Callable[[], Any]]:
        """Return what is timed, by name."""
        store, project, run = self.store, stores.PROJECT, self.run_id
        return {
            "curve": lambda: store.curve(project, run, METRIC),
            "curve_limit_row_groups": self.read_row_groups,
            "curve_pyarrow_dataset": self.read_dataset,
            "curve_duckdb": self.read_duckdb,
            "curve_polars": self.read_polars,
            "curve_2000_points": lambda: store.curve(project, run, METRIC, max_points=2000),
            "poll": lambda: [store.curve(project, each, METRIC, max_points=3000) for each in self.polled],
            "metrics_of_run": lambda: store.metrics(project, runs=run),
            "runs": lambda: store.runs(project),
            "open": lambda: open_store(self.root).metric_names(project),
            "open_and_curve": lambda: open_store(self.root).curve(project, run, METRIC),
        }

    def read_row_groups(self) -> pa.Table:
        """Read just the row groups and columns that are needed: the limit."""
        return pa.concat_tables(
            file.read_row_groups(groups, columns=COLUMNS, use_threads=False) for file, groups in self.groups
        )

    def read_dataset(self) -> pa.Table:
        """Filter a plain dataset over the same files."""
        wanted = pads.field("_run_id") == self.run_id
        return self.dataset.to_table(columns=COLUMNS, filter=wanted, use_threads=False)

    def read_duckdb(self) -> pa.Table:
        """Ask duckdb the same of the same files."""
        return self.duck.sql(QUERY, params=[self.paths, self.run_id]).to_arrow_table()

    def read_polars(self) -> pa.Table:
        """Ask polars the same of the same files."""
        wanted = self.lazy.filter(self.polars.col("_run_id").cast(self.polars.String) == self.run_id)
        return wanted.select(COLUMNS).collect()


def time_warm(root: str) -> dict[str, Any]:
    """Time each way, in turns, in one process that has done it before; milliseconds."""
    limits.one_thread()
    ways = Ways(root).all()
    rows = {name: _rows(ask()) for name, ask in ways.items()}
    times: dict[str, list[float]] = {name: [] for name in ways}
    for look in range(_LOOKS):
        for name, ask in ways.items():
            if look >= 3 and sum(times[name]) > _LONGEST_S * 1e3:
                continue
            began = time.perf_counter()
            ask()
            times[name].append((time.perf_counter() - began) * 1e3)
    return {
        "rows": rows,
        "ms": {name: float(np.median(each)) for name, each in times.items()},
        "peak_rss_mib": fresh.peak_rss_bytes() / 2**20,
    }


def _rows(answer: Any) -> int:
    return len(answer) if isinstance(answer, list) or not hasattr(answer, "num_rows") else int(answer.num_rows)


def time_run_list(root: str) -> dict[str, float]:
    """Time the list of runs: in a store that was just opened, again, and after a run logged something."""
    limits.one_thread()
    store = open_store(root)
    first = _time(lambda: store.runs(stores.PROJECT))
    again = [_time(lambda: store.runs(stores.PROJECT)) for _ in range(_LOOKS)]
    changed: list[float] = []
    with stores.appended(root) as log:
        for _ in range(_LOOKS // 4):
            log()
            changed.append(_time(lambda: store.runs(stores.PROJECT)))
    return {
        "runs": store.runs(stores.PROJECT).num_rows,
        "opened_ms": first,
        "unchanged_ms": float(np.median(again)),
        "changed_ms": float(np.median(changed)),
    }


def _time(ask: Callable[[], Any]) -> float:
    began = time.perf_counter()
    ask()
    return (time.perf_counter() - began) * 1e3
