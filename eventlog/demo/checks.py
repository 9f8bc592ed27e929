"""What the demo holds against the store: every value that comes back is the recorded one, bit for bit, in its place."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from eventlog import arrow
from eventlog.demo.recorded import Recording
from eventlog.store import Store
from eventlog.values import from_json


class Expected:
    """A recording as columns, to compare rows with."""

    def __init__(self, recording: Recording) -> None:
        """Convert it once."""
        self.name = recording.name
        self.config = recording.config
        self.steps = np.array(recording.steps, np.int64)
        self.values: dict[str, NDArray[np.float64]] = {}
        self.present: dict[str, NDArray[np.bool_]] = {}
        for name, cells in recording.metrics.items():
            self.values[name] = np.array([0.0 if cell is None else cell for cell in cells], np.float64)
            self.present[name] = np.array([cell is not None for cell in cells], bool)

    @property
    def points(self) -> int:
        """How many values there are."""
        return sum(int(present.sum()) for present in self.present.values())

    def differences_in_start(self, rows: pa.Table) -> list[str]:
        """Say where rows, as `Store.metrics` returns them, differ from the start of the recording."""
        count = rows.num_rows
        if count > len(self.steps):
            return [f"{self.name}: {count} rows, but only {len(self.steps)} were recorded"]
        found: list[str] = []
        steps = rows["_step"]
        if steps.null_count or (steps.to_numpy() != self.steps[:count]).any():
            found.append(f"{self.name}: the steps of the first {count} rows are not the recorded ones")
        columns = {arrow.unescape(column): rows[column] for column in arrow.metric_columns("metrics", rows.schema)}
        for name in sorted({*columns, *self.values}):
            found += self._differences_in_metric(name, columns.get(name), count)
        return found

    def _differences_in_metric(self, name: str, column: pa.ChunkedArray | None, count: int) -> list[str]:
        present, bits = _cells(column, count)
        wanted = self.present[name][:count] if name in self.present else np.zeros(count, bool)
        wanted_bits = self.values[name][:count].view(np.uint64) if name in self.values else bits
        bad = (present != wanted) | (wanted & (bits != wanted_bits))
        if not bad.any():
            return []
        return [f"{self.name}: {int(bad.sum())} values of {name} differ, the first in row {int(bad.argmax())}"]

    def differences(self, rows: pa.Table) -> list[str]:
        """Say where rows differ from the whole recording."""
        missing = len(self.steps) - rows.num_rows
        found = [f"{self.name}: {missing} rows are missing at the end"] if missing > 0 else []
        return found + self.differences_in_start(rows)

    def differences_in_curve(self, curve: pa.Table, metric: str) -> list[str]:
        """Say where a curve, as `Store.curve` returns it, differs from the start of the recorded one."""
        steps = self.steps[self.present[metric]][: curve.num_rows]
        values = self.values[metric][self.present[metric]][: curve.num_rows]
        same = (
            len(values) == curve.num_rows
            and (curve["_step"].to_numpy() == steps).all()
            and (curve["value"].to_numpy().view(np.uint64) == values.view(np.uint64)).all()
        )
        return [] if same else [f"{self.name}: the curve of {metric} is not the start of the recorded one"]

    def differences_in_config(self, config: Any) -> list[str]:
        """Say whether a config differs from the recorded one, by value or by type."""
        same = msgspec.json.encode(config, order="sorted") == msgspec.json.encode(self.config, order="sorted")
        return [] if same else [f"{self.name}: the config is {config!r}, recorded was {self.config!r}"]


def _cells(column: pa.ChunkedArray | None, count: int) -> tuple[NDArray[np.bool_], NDArray[np.uint64]]:
    if column is None:
        return np.zeros(count, bool), np.zeros(count, np.uint64)
    present: NDArray[np.bool_] = pc.is_valid(column).to_numpy()
    values: NDArray[np.float64] = np.ascontiguousarray(pc.fill_null(column, 0.0).to_numpy())
    return present, values.view(np.uint64)


def compare_all(store: Store, project: str, expected: list[Expected]) -> dict[str, list[str]]:
    """Compare everything that was recorded with everything that the store returns; by run, what differs."""
    # Times are left out: without pandas, pyarrow cannot make Python objects of nanoseconds.
    columns = store.runs(project).select(["name", "run_id", "config", "status"])
    runs = {row["name"]: row for row in columns.to_pylist()}
    found: dict[str, list[str]] = {}
    for run in expected:
        row = runs.pop(run.name, None)
        if row is None:
            found[run.name] = [f"{run.name}: there is no such run"]
            continue
        differences = run.differences(store.metrics(project, runs=row["run_id"]))
        found[run.name] = differences + run.differences_in_config(from_json(row["config"]))
        if row["status"] != "finished":
            found[run.name].append(f"{run.name}: its status is {row['status']}, not finished")
    for name in runs:
        found[name] = [f"{name}: a run that nobody logged"]
    return found
