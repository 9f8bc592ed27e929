"""The numbers of one run as the dashboard draws them: sampled as they come, and rendered once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from compactor.serve.sampler import COLUMNS, Rows, Sampler, concatenate
from eventlog import arrow
from eventlog.gather import Block


class Curves:
    """All metrics of one run, at most about `max_points` rows. Not thread-safe: its project holds a lock."""

    def __init__(self, table: str, max_points: int) -> None:
        """Start without rows; `table` is metrics or system."""
        self._with_step = table == "metrics"
        self._max = max_points
        self._samplers: list[Sampler] = []
        self._by_name: dict[str, int] = {}

    @property
    def size_bytes(self) -> int:
        """About how much memory it takes."""
        return sum(sampler.size_bytes for sampler in self._samplers)

    @property
    def names(self) -> set[str]:
        """The names of all metrics."""
        return set(self._by_name)

    def add_blocks(self, blocks: Sequence[Block]) -> None:
        """Add what came in one look, of all writers and shapes, in the order of time.

        Each sampler gets the rows that have its metrics, and no cell for other ones: thousands of names that
        are logged one by one would else cost their square.
        """
        names: dict[int, dict[str, int]] = {}
        parts: dict[int, list[Rows]] = {}
        for block in blocks:
            columns: dict[int, list[tuple[int, int]]] = {}
            for at, name in enumerate(block.names):
                number = self._sampler(name)
                known = names.setdefault(number, {})
                columns.setdefault(number, []).append((known.setdefault(name, len(known)), at))
            for number, pairs in columns.items():
                parts.setdefault(number, []).append(_part(block, pairs))
        for number, listed in names.items():
            self._add_to(number, [*listed], _in_time(concatenate(parts[number])))

    def add_table(self, table: pa.Table) -> None:
        """Add the rows of a table of metrics or system, as `View.rows` returns it."""
        if not table.num_rows:
            return
        columns = arrow.metric_columns("metrics" if self._with_step else "system", table.schema)
        present = np.column_stack([pc.is_valid(table[c]).to_numpy() for c in columns]) if columns else None
        values = np.column_stack([_floats(table[c]) for c in columns]) if columns else None
        count = table.num_rows
        step, has_step = np.zeros(count, np.int64), np.zeros(count, bool)
        if self._with_step:
            has_step = pc.is_valid(table["_step"]).to_numpy()
            step = pc.fill_null(table["_step"], 0).to_numpy()
        time_ns = table["_time"].cast(pa.int64()).to_numpy()
        nothing = np.empty((count, 0))
        rows = Rows(
            np.zeros(count, np.int64),
            time_ns,
            step,
            has_step,
            nothing if values is None else values,
            nothing.astype(bool) if present is None else present,
        )
        self._add([arrow.unescape(column) for column in columns], rows)

    def _add(self, names: list[str], rows: Rows) -> None:
        rows = _in_time(rows)
        groups: dict[int, list[int]] = {}
        for at, name in enumerate(names):
            groups.setdefault(self._sampler(name), []).append(at)
        for number, columns in groups.items():
            part = rows._replace(values=rows.values[:, columns], present=rows.present[:, columns])
            self._add_to(number, [names[at] for at in columns], part)

    def _add_to(self, number: int, names: list[str], rows: Rows) -> None:
        some = np.logical_or.reduce(rows.present, axis=1)
        if some.any():
            self._samplers[number].add(names, rows if some.all() else rows.take(some))

    def _sampler(self, name: str) -> int:
        known = self._by_name.get(name)
        if known is None:
            if not self._samplers or not self._samplers[-1].has_room():
                # Thousands of metrics share the points, but each keeps its extremes.
                points = max(self._max // (1 + len(self._samplers)), 4 * COLUMNS)
                self._samplers.append(Sampler(points, with_step=self._with_step))
            self._samplers[-1].column(name)
            known = self._by_name[name] = len(self._samplers) - 1
        return known

    def rows(self) -> list[tuple[list[str], Rows]]:
        """Return the rows that are shown, with the names of their columns; a metric is in one of the parts only."""
        found = ((sampler.names, sampler.rows()) for sampler in self._samplers)
        return [(names[: rows.values.shape[1]], rows) for names, rows in found if rows is not None]

    def render(self) -> tuple[NDArray[np.int64], list[bytes]]:
        """Return the times of the rows, ascending, and each row as a JSON object."""
        return merge_by_time([sampler.render() for sampler in self._samplers])


def merge_by_time(
    parts: Sequence[tuple[NDArray[np.int64], list[bytes]]],
) -> tuple[NDArray[np.int64], list[bytes]]:
    """Return rows of several sources in the order of time."""
    parts = [part for part in parts if len(part[1])]
    if not parts:
        return np.empty(0, np.int64), []
    if len(parts) == 1 and not (np.diff(parts[0][0]) < 0).any():
        return parts[0]
    times = np.concatenate([part[0] for part in parts])
    texts = [text for part in parts for text in part[1]]
    order = np.argsort(times, kind="stable")
    return times[order], [texts[index] for index in order.tolist()]


def _part(block: Block, pairs: Sequence[tuple[int, int]]) -> Rows:
    """Return the rows of a block with some of its columns; each pair is the place that one gets, and that it has."""
    places, columns = (list(each) for each in zip(*pairs, strict=True))
    count, width = len(block.seq), 1 + max(places)
    values, present = np.zeros((count, width)), np.zeros((count, width), bool)
    values[:, places] = block.values[:, columns]
    present[:, places] = True
    step = np.zeros(count, np.int64) if block.step is None else block.step
    has_step = np.full(count, block.step is not None) if block.has_step is None else block.has_step
    return Rows(block.seq, block.time_ns, step, has_step, values, present)


def _in_time(rows: Rows) -> Rows:
    times = rows.time_ns
    return rows.take(np.argsort(times, kind="stable")) if (times[1:] < times[:-1]).any() else rows


def _floats(column: pa.ChunkedArray) -> NDArray[np.float64]:
    return pc.fill_null(column, 0.0).to_numpy()  # type: ignore[no-any-return]
