"""Recount what the derived table of runs says, from the rows of the other tables."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, Final

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from eventlog import arrow, schema, values
from eventlog.arrow import Piece
from eventlog.runs import At, RunPart, RunParts

_TELLING: Final[dict[str, type[schema.Record]]] = {
    "run_start": schema.RunStart,
    "admin": schema.Admin,
    "run_end": schema.RunEnd,
    "dropped": schema.Dropped,
}
_FACTS: Final = ("name", "group", "tags", "status", "deleted")


class _Extent:
    """Of one metric of one run: how many cells, which of them are lowest and highest, first and last."""

    __slots__ = ("count", "first", "first_at", "last", "last_at", "max", "min", "nans")

    def __init__(self) -> None:
        self.count = 0
        self.nans = 0
        self.min = math.inf
        self.max = -math.inf
        self.first = self.last = math.nan
        self.first_at: tuple[str, int] | None = None
        self.last_at: tuple[str, int] | None = None

    def add(self, writer_id: str, seq: NDArray[np.int64], cells: NDArray[np.float64]) -> None:
        self.count += len(cells)
        nans = int(np.isnan(cells).sum())
        self.nans += nans
        if nans < len(cells):
            self.min = min(self.min, float(np.nanmin(cells)))
            self.max = max(self.max, float(np.nanmax(cells)))
        first, last = (writer_id, int(seq[0])), (writer_id, int(seq[-1]))
        if self.first_at is None or first < self.first_at:
            self.first, self.first_at = float(cells[0]), first
        if self.last_at is None or last > self.last_at:
            self.last, self.last_at = float(cells[-1]), last

    def facts(self) -> tuple[object, ...]:
        some = self.count > self.nans
        low, high = (self.min, self.max) if some else (None, None)
        return self.count, self.nans, low, high, _same_nan(self.first), _same_nan(self.last)


def _same_nan(number: float) -> object:
    return "nan" if math.isnan(number) else number


class _Run:
    """What the rows say about one run."""

    def __init__(self, run_id: str) -> None:
        self.part = RunPart(run_id)
        self.records: dict[str, int] = {}
        self.first_time_ns: int | None = None
        self.last_time_ns: int | None = None
        self.metrics_step: int | None = None
        self.any_step: int | None = None
        self.extents: dict[str, _Extent] = {}

    def count(self, what: str, rows: int) -> None:
        if rows:
            self.records[what] = self.records.get(what, 0) + rows

    def cover(self, times: NDArray[np.int64]) -> None:
        if len(times):
            low, high = int(times.min()), int(times.max())
            self.first_time_ns = low if self.first_time_ns is None else min(low, self.first_time_ns)
            self.last_time_ns = high if self.last_time_ns is None else max(high, self.last_time_ns)


class Recount:
    """Gathers rows, piece by piece, and compares with the parts that the snapshot has. Memory grows with runs."""

    def __init__(self) -> None:
        """Start with no rows."""
        self._runs: dict[str, _Run] = {}
        self.dropped: dict[str, int] = {}

    def add(self, table: str, piece: Piece, rows: pa.Table) -> None:
        """Take in rows of one run and one writer, in seq order.

        Args:
            table: metrics, system or events.
            piece: whose they are.
            rows: the rows.
        """
        run = self._runs.setdefault(piece.run_id, _Run(piece.run_id))
        run.count(table, rows.num_rows)
        times = rows["_time"].combine_chunks().cast(pa.int64()).to_numpy()
        if table == "events":
            run.cover(times[times != 0])
            self._add_events(run, piece.writer_id, rows)
        else:
            run.cover(times)
        if table != "system":
            _reach_step(run, table, rows)
        if table == "metrics":
            seq = rows["_seq"].combine_chunks().to_numpy()
            for column in arrow.metric_columns(table, rows.schema):
                _add_cells(run, arrow.unescape(column), piece.writer_id, seq, rows[column].combine_chunks())

    def _add_events(self, run: _Run, writer_id: str, rows: pa.Table) -> None:
        kinds = rows["kind"].cast(pa.string())
        run.count("alerts", int(pc.sum(pc.equal(kinds, "alert")).as_py() or 0))
        telling = rows.filter(pc.is_in(kinds, pa.array(list(_TELLING), pa.string())))
        columns = (telling["kind"], telling["_time"].cast(pa.int64()), telling["_seq"], telling["payload"])
        for kind, time_ns, seq, payload in zip(*(column.to_pylist() for column in columns), strict=True):
            record = _record(kind, payload)
            if record is None:
                continue
            run.part.apply(record, At(time_ns, writer_id, seq))
            if isinstance(record, schema.Dropped):
                self.dropped[writer_id] = self.dropped.get(writer_id, 0) + record.count

    def compare(self, claimed: RunParts) -> dict[str, str]:
        """Return, by run, how the parts that a snapshot has differ from what its rows say; {} when they agree."""
        differences: dict[str, str] = {}
        for run_id in sorted({*self._runs, *claimed.parts}):
            found = _differences(self._runs.get(run_id), claimed.parts.get(run_id))
            if found:
                differences[run_id] = "; ".join(found[:3]) + (f" and {len(found) - 3} more" if len(found) > 3 else "")
        return differences


def _reach_step(run: _Run, table: str, rows: pa.Table) -> None:
    highest = pc.max(rows["_step"]).as_py()
    if highest is None:
        return
    run.any_step = highest if run.any_step is None else max(highest, run.any_step)
    if table == "metrics":
        run.metrics_step = highest if run.metrics_step is None else max(highest, run.metrics_step)


def _add_cells(run: _Run, name: str, writer_id: str, seq: NDArray[np.int64], cells: pa.Array) -> None:
    if cells.null_count == len(cells):
        return
    if cells.null_count:
        seq = seq[pc.is_valid(cells).to_numpy(zero_copy_only=False)]
        cells = cells.drop_null()
    run.extents.setdefault(name, _Extent()).add(writer_id, seq, cells.to_numpy())


def _record(kind: str, payload: str) -> Any:
    """Return the record that made a row of events, or None when a user's value of that kind made it."""
    try:
        fields = values.from_json(payload)
    except (msgspec.MsgspecError, ValueError):
        return None
    if not isinstance(fields, dict) or "_type" in fields:
        return None
    try:
        return msgspec.convert(list(_in_order(_TELLING[kind], fields)), _TELLING[kind])
    except msgspec.ValidationError:
        return None


def _in_order(form: type[schema.Record], fields: dict[str, Any]) -> Iterator[Any]:
    """Yield a record as it is encoded: its number, then its fields as far as the writer's release knew them."""
    yield schema.kind_number(form)
    for name in form.__struct_fields__:
        if name not in fields:
            return
        yield fields[name]


def _differences(run: _Run | None, part: RunPart | None) -> list[str]:
    if run is None or part is None:
        return ["there are rows of it but no part" if part is None else "there is a part of it but no rows"]
    found = [
        f"{what}: {getattr(part, what)!r} where the rows say {getattr(run, what)!r}"
        for what in ("records", "first_time_ns", "last_time_ns")
        if getattr(part, what) != getattr(run, what)
    ]
    for what in _FACTS:
        mine, theirs = getattr(run.part, what), getattr(part, what)
        if (mine and mine[1:]) != (theirs and theirs[1:]):
            found.append(f"{what}: {theirs and theirs[1:]} where the rows say {mine and mine[1:]}")
    if part.dropped != run.part.dropped:
        found.append(f"dropped: {part.dropped} where the rows say {run.part.dropped}")
    # Steps of values that are no numbers count, steps of alerts do not: rows alone cannot tell the two apart.
    low, high = run.metrics_step, run.any_step
    if (low is not None and (part.last_step is None or part.last_step < low)) or (
        part.last_step is not None and (high is None or part.last_step > high)
    ):
        found.append(f"last_step: {part.last_step} where the rows say {low} to {high}")
    return found + _stat_differences(run, part)


def _stat_differences(run: _Run, part: RunPart) -> list[str]:
    found: list[str] = []
    for name in sorted({*run.extents, *part.stats}):
        extent, stat = run.extents.get(name), part.stats.get(name)
        mine = extent.facts() if extent else None
        theirs = None
        if stat is not None:
            first, last = _same_nan(stat.first), _same_nan(stat.last)
            theirs = (stat.count, stat.nans, stat.min, stat.max, first, last)
        if mine != theirs:
            found.append(f"metric {name!r} (count, nans, min, max, first, last): {theirs} where the rows say {mine}")
    return found
