"""One run as rows of a page's tables: sampled numbers and typed values together, in the order of time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from compactor.page.configs import text_of
from compactor.page.media import Media
from compactor.serve.curves import Curves
from compactor.serve.project import Project
from compactor.serve.sampler import Rows, iso_times
from compactor.serve.typed import TRACES
from eventlog.runs import RunPart

NUMBER: Final = "n:"
OTHER: Final = "o:"
"""What begins the column of a name here, until all runs have said which names they have."""
TIMESTAMP: Final = "timestamp"
STEP: Final = "step"


def metric_rows(project: Project, part: RunPart, points: int, media: Media) -> pa.Table:
    """Return the rows of a run's metrics and of all its typed values but traces.

    Args:
        project: where from.
        part: of the run.
        points: about so many rows of numbers.
        media: takes what the values refer to.

    Returns:
        Columns timestamp and step, a float64 column `n:NAME` for numbers, a text column `o:NAME` for other values.
    """
    typed = project.typed(part.run_id, lambda rows: rows.decoded())
    shown = [
        {name: media.placed(value) for name, value in row.items() if _is_shown(name, value, part)} for row in typed
    ]
    return _united([*_sampled(project, part, "metrics", points), _typed(shown)], with_step=True)


def system_rows(project: Project, part: RunPart, points: int) -> pa.Table:
    """Return the rows of a run's system metrics: as `metric_rows`, without steps."""
    return _united(_sampled(project, part, "system", points), with_step=False)


def _is_shown(name: str, value: Any, part: RunPart) -> bool:
    """Leave out traces, which have a table of their own, and whole numbers that are charted as floats already."""
    if isinstance(value, int) and not isinstance(value, bool) and name in part.stats:
        return name == STEP
    items = value if isinstance(value, list) and value else [value]
    return not all(isinstance(item, dict) and item.get("_type") in TRACES for item in items)


def _sampled(project: Project, part: RunPart, table: str, points: int) -> list[pa.Table]:
    curves = Curves(table, points)
    if part.records.get(table):
        curves.add_table(project.view(lambda view: view.rows(table, [part.run_id], None)))
    return [_numbers(names, rows) for names, rows in curves.rows()]


def _numbers(names: Sequence[str], rows: Rows) -> pa.Table:
    columns = {
        TIMESTAMP: pa.array(iso_times(rows.time_ns), pa.string()),
        STEP: pa.array(rows.step, pa.int64(), mask=np.logical_not(rows.has_step)),
    }
    for index, name in enumerate(names):
        values, present = (np.ascontiguousarray(each[:, index]) for each in (rows.values, rows.present))
        columns[NUMBER + name] = pa.array(values, pa.float64(), mask=np.logical_not(present))
    return pa.table(columns)


def _typed(rows: Sequence[dict[str, Any]]) -> pa.Table:
    rows = [row for row in rows if row.keys() - {TIMESTAMP, STEP}]
    names = sorted({name for row in rows for name in row} - {TIMESTAMP, STEP})
    columns = {
        TIMESTAMP: pa.array([row[TIMESTAMP] for row in rows], pa.string()),
        STEP: pa.array([row.get(STEP) for row in rows], pa.int64()),
    }
    for name in names:
        cells = [row.get(name) for row in rows]
        columns[OTHER + name] = pa.array([None if cell is None else text_of(cell) for cell in cells], pa.string())
    return pa.table(columns)


def _united(parts: Sequence[pa.Table], *, with_step: bool) -> pa.Table:
    empty = pa.table({TIMESTAMP: pa.array([], pa.string()), STEP: pa.array([], pa.int64())})
    table = pa.concat_tables([empty, *parts], promote_options="default").combine_chunks()
    # All are in UTC and of one form, so that their texts sort as their times do; equal ones keep their order.
    table = table.take(pc.sort_indices(table[TIMESTAMP]))
    return table if with_step else table.drop_columns([STEP])
