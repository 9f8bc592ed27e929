"""One run as rows of a page's tables: sampled numbers and typed values together, in the order of time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

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
_CELLS_AT_ONCE: Final = 1_000_000


def metric_rows(project: Project, part: RunPart, points: int, media: Media) -> Iterator[pa.Table]:
    """Yield the rows of a run's metrics and of all its typed values but traces, at least one table, of one schema.

    Args:
        project: where from.
        part: of the run.
        points: about so many rows of numbers.
        media: takes what the values refer to.

    Yields:
        Columns timestamp and step, a float64 column `n:NAME` for numbers, a text column `o:NAME` for other values.
    """
    typed = project.typed(part.run_id, lambda rows: rows.decoded())
    shown = [
        {name: media.placed(value) for name, value in row.items() if _is_shown(name, value, part)} for row in typed
    ]
    return _united([*_sampled(project, part, "metrics", points), _typed(shown)], with_step=True)


def system_rows(project: Project, part: RunPart, points: int) -> Iterator[pa.Table]:
    """Yield the rows of a run's system metrics: as `metric_rows`, without steps."""
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


def _united(parts: Sequence[pa.Table], *, with_step: bool) -> Iterator[pa.Table]:
    """Yield the rows of all parts, a bounded number of cells at a time, sorted by time.

    What one `log()` held is in one row again: the parts have no columns in common, and its time and step tell it from
    others. Of those with the same time and step, the first in one part goes with the first in another.
    """
    slots: dict[tuple[str, int | None, int], int] = {}
    places = [_places(part, slots) for part in parts]
    # All times are in UTC and of one form, so that their texts sort as they do; equal ones keep their order.
    order = sorted(slots, key=lambda slot: slot[0])
    position = np.empty(len(slots), np.int64)
    position[[slots[slot] for slot in order]] = np.arange(len(slots))
    indexes = [_index(position[place], len(slots)) for place in places]
    width = sum(part.num_columns for part in parts) + 2
    height = max(_CELLS_AT_ONCE // width, 1)
    for start in range(0, max(len(order), 1), height):
        chosen = order[start : start + height]
        columns = {TIMESTAMP: pa.array([slot[0] for slot in chosen], pa.string())}
        if with_step:
            columns[STEP] = pa.array([slot[1] for slot in chosen], pa.int64())
        for part, index in zip(parts, indexes, strict=True):
            rows = index[start : start + height]
            taken = part.drop_columns([TIMESTAMP, STEP]).take(pa.array(rows, mask=rows < 0))
            columns |= dict(zip(taken.column_names, taken.columns, strict=True))
        yield pa.table(columns)


def _places(part: pa.Table, slots: dict[tuple[str, int | None, int], int]) -> list[int]:
    """Return the slot of each row, a new one where there is none yet."""
    seen: Counter[tuple[str, int | None]] = Counter()
    found = []
    for key in zip(part[TIMESTAMP].to_pylist(), part[STEP].to_pylist(), strict=True):
        found.append(slots.setdefault((*key, seen[key]), len(slots)))
        seen[key] += 1
    return found


def _index(position: NDArray[np.int64], rows: int) -> NDArray[np.int64]:
    """Return for each row of all the row of a part, -1 for none."""
    index = np.full(rows, -1, np.int64)
    index[position] = np.arange(len(position))
    return index
