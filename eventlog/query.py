"""What is computed from rows: down-sampled curves, the narrow view, the table of runs. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from eventlog import arrow
from eventlog.errors import UsageError

CURVE: Final = pa.schema(
    [pa.field("_step", pa.int64()), pa.field("_time", arrow.TIME), pa.field("value", pa.float64())]
)
NARROW: Final = pa.schema(
    [
        pa.field("_run_id", arrow.DICTIONARY),
        pa.field("name", pa.string()),
        pa.field("_step", pa.int64()),
        pa.field("_time", arrow.TIME),
        pa.field("value", pa.float64()),
        pa.field("_writer", arrow.DICTIONARY),
        pa.field("_seq", pa.int64()),
    ]
)


def downsample(values: NDArray[np.float64], max_points: int) -> NDArray[np.int64]:
    """Return the indexes of at most `max_points` points that show every extreme of a curve.

    The points are cut into buckets of equal size; each gives its lowest and its highest point, and one NaN
    when it has any. The first and the last point are always there. This is M4's idea (Jugel et al., VLDB 2014)
    without its time axis: no spike can vanish.

    Args:
        values: the curve, in order.
        max_points: at least 4.
    """
    count = len(values)
    if count <= max_points:
        return np.arange(count)
    invalid = np.isnan(values)
    has_nan = bool(invalid.any())
    buckets = max((max_points - 2) // (3 if has_nan else 2), 1)
    size = -(-count // buckets)
    used = -(-count // size)
    padding = used * size - count
    low = np.where(invalid, np.inf, values) if has_nan else values
    high = np.where(invalid, -np.inf, values) if has_nan else values
    starts = np.arange(used) * size
    lowest = np.pad(low, (0, padding), constant_values=np.inf).reshape(used, size).argmin(axis=1) + starts
    highest = np.pad(high, (0, padding), constant_values=-np.inf).reshape(used, size).argmax(axis=1) + starts
    chosen = [np.array([0, count - 1]), lowest, highest]
    if has_nan:
        padded = np.pad(invalid, (0, padding)).reshape(used, size)
        chosen.append((padded.argmax(axis=1) + starts)[padded.any(axis=1)])
    indexes = np.unique(np.concatenate(chosen))
    return indexes[indexes < count]


def sort_rows(table: pa.Table) -> pa.Table:
    """Return rows sorted by (_run_id, _writer, _seq), stable."""
    if table.num_rows < 2:
        return table
    keys = pa.table(
        {
            "run": table["_run_id"].cast(pa.string()),
            "writer": table["_writer"].cast(pa.string()),
            "seq": table["_seq"],
        }
    )
    order = pc.sort_indices(keys, sort_keys=[("run", "ascending"), ("writer", "ascending"), ("seq", "ascending")])
    return table.take(order)


def unite(table: str, parts: Sequence[pa.Table], columns: Sequence[str] | None) -> pa.Table:
    """Return tables with different metric columns as one, sorted; columns in a fixed order.

    Args:
        table: metrics, system or events.
        parts: the tables.
        columns: all that the result has; None is the structural ones and every metric that occurs.
    """
    if columns is None:
        present = sorted({column for part in parts for column in arrow.metric_columns(table, part.schema)})
        columns = [*(field.name for field in arrow.STRUCTURAL[table]), *([] if table == "events" else present)]
    fixed = {field.name: field for field in arrow.STRUCTURAL[table]}
    schema = pa.schema([fixed.get(column, pa.field(column, pa.float64())) for column in columns])
    conformed = [_conform(part, schema) for part in parts if part.num_rows]
    if not conformed:
        return schema.empty_table()
    together = pa.concat_tables(conformed).unify_dictionaries()
    return together if len(conformed) == 1 else sort_rows(together)


def _conform(part: pa.Table, schema: pa.Schema) -> pa.Table:
    names = frozenset(part.schema.names)  # Arrow makes the list anew each time, and a run may have thousands
    columns = [part[field.name] if field.name in names else pa.nulls(part.num_rows, field.type) for field in schema]
    return pa.table(columns, schema=schema)


def with_any(table: pa.Table, columns: Sequence[str]) -> pa.Table:
    """Return the rows in which at least one of the columns has a value."""
    mask = None
    for column in columns:
        valid = pc.is_valid(table[column])
        mask = valid if mask is None else pc.or_(mask, valid)
    return table if mask is None or table.num_rows == 0 else table.filter(mask)


Steps = tuple[int | None, int | None]


def between_steps(table: pa.Table, steps: Steps | range) -> pa.Table:
    """Return the rows with a step from the first to the second, both included; None is no bound. A range as usual.

    Raises:
        UsageError: it is neither.
    """
    low, high = _bounds(steps)
    mask = pc.is_valid(table["_step"])
    if low is not None:
        mask = pc.and_(mask, pc.greater_equal(table["_step"], low))
    if high is not None:
        mask = pc.and_(mask, pc.less_equal(table["_step"], high))
    return table.filter(pc.fill_null(mask, fill_value=False))


def _bounds(steps: Any) -> Steps:
    if isinstance(steps, range):
        return (steps.start, steps.stop - 1) if steps.step == 1 else _refuse_steps(steps)
    try:
        low, high = steps
    except (TypeError, ValueError):
        return _refuse_steps(steps)
    return low, high


def _refuse_steps(steps: Any) -> Steps:
    raise UsageError(f"steps is (first, last) or a range with step 1, not {steps!r}")


def narrow(table: pa.Table) -> pa.Table:
    """Return a wide table of metrics with one row a point, ordered by name within what the rows are ordered by."""
    parts: list[pa.Table] = []
    for column in arrow.metric_columns("metrics", table.schema):
        points = table.filter(pc.is_valid(table[column]))
        parts.append(
            pa.table(
                [
                    points["_run_id"],
                    pa.repeat(pa.scalar(arrow.unescape(column)), points.num_rows),
                    points["_step"],
                    points["_time"],
                    points[column],
                    points["_writer"],
                    points["_seq"],
                ],
                schema=NARROW,
            )
        )
    return sort_rows(pa.concat_tables(parts).unify_dictionaries()) if parts else NARROW.empty_table()
