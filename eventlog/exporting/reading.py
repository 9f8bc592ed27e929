"""What an export reads of a project: which runs there are, and the rows of one run, all seen at one moment."""

from __future__ import annotations

from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from eventlog import arrow
from eventlog.exporting.layout import PackedRun
from eventlog.exporting.plan import RunNow
from eventlog.fs import LOCAL, Fs
from eventlog.snapshot import ReaderCache
from eventlog.view import View
from eventlog.views import Views

NO_RUN = ""
_CELLS_A_ROW = 6
_CELLS_AN_EVENT = 64
_A_PACK_OF_ITS_OWN = 1 << 62


class RunRows(NamedTuple):
    """The rows of one run, of one moment: a record that has a row in each of two tables has both or none here."""

    metrics: pa.Table
    system: pa.Table
    events: pa.Table


class Project:
    """A project of a store, as an export reads it. Not thread-safe."""

    def __init__(self, root: str, project: str, fs: Fs = LOCAL) -> None:
        """Take the store's directory and the project's name."""
        self.root = root
        self.name = project
        self._views = Views(fs, root, None, ReaderCache(fs))

    def runs(self) -> pa.Table:
        """Return the table of runs, as `Store.runs`.

        Raises:
            UsageError: no such project.
            DataError: a file is damaged.
        """
        return self._views.answer(self.name, lambda view: view.runs(deleted=False))

    def columns(self, table: str) -> list[str]:
        """Return the metric columns of a table, in order.

        Raises:
            UsageError: no such project.
        """

        def ask(view: View) -> set[str]:
            live = view.tail.metric_names(table) if view.tail else set()
            return view.snapshot.metric_names(table) | live

        return sorted(map(arrow.escape, self._views.answer(self.name, ask)))

    def rows(self, run_id: str) -> RunRows:
        """Return the rows of one run, sorted by (_writer, _seq); "" is what belongs to no run.

        Raises:
            DataError: a file is damaged.
        """
        return self._views.answer(
            self.name, lambda view: RunRows(*(view.rows_of(table, {run_id}) for table in RunRows._fields))
        )


def runs_now(runs: pa.Table) -> list[RunNow]:
    """Return what the plan has to know of each run in a table of runs, and of what belongs to no run.

    How many rows belong to no run is not known before they are read, so they count as changed, and fill a pack of
    their own.
    """
    points = [sum(stat["count"] for _, stat in cell) for cell in runs["metrics"].to_pylist()]
    found: list[RunNow] = []
    columns = (runs[name].to_pylist() for name in ("run_id", "logs", "system", "events"))
    for (run_id, logs, system, events), cells in zip(zip(*columns, strict=True), points, strict=True):
        weight = cells + _CELLS_A_ROW * (logs + 2 * system) + _CELLS_AN_EVENT * events
        found.append(RunNow(PackedRun(run_id, logs, system, events), weight))
    return [*found, RunNow(PackedRun(NO_RUN, 0, 0, -1), _A_PACK_OF_ITS_OWN)]


def plain_runs(runs: pa.Table) -> pa.Table:
    """Return the table of runs with types that every reader of parquet knows: a list of structs for the map."""
    stats = runs["metrics"].combine_chunks()
    stats = stats.chunk(0) if isinstance(stats, pa.ChunkedArray) else stats
    keys, items = stats.keys, stats.items
    fields = [pa.field("name", pa.string()), *items.type]
    structs = pa.StructArray.from_arrays([keys, *items.flatten()], fields=fields)
    lists = pa.ListArray.from_arrays(_offsets(stats), structs)
    return runs.set_column(runs.schema.get_field_index("metrics"), "metrics", lists)


def _offsets(maps: pa.MapArray) -> pa.Array:
    first = maps.offsets[0]
    return pc.subtract(maps.offsets, first)
