"""Take tables of numbers apart: for each row its names, and its values packed as a record holds them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from eventlog import arrow


class NumberRow(NamedTuple):
    """A row of metrics or of system metrics.

    Attributes:
        names: of the metrics that were logged.
        packed: their values, eight bytes each.
    """

    names: tuple[str, ...]
    packed: bytes
    step: int | None
    time_ns: int
    rank: int | None


def number_rows(table: str, batch: pa.RecordBatch) -> Iterator[tuple[str, str, int, NumberRow]]:
    """Yield (run_id, writer_id, seq, row) of each row, in order.

    Raises:
        KeyError: a column is missing.
        ValueError, TypeError, pa.ArrowException: a column is of another type.
    """
    names, patterns, packed = _pack(batch, arrow.metric_columns(table, batch.schema))
    times = batch["_time"].cast(pa.int64()).to_pylist()
    steps = batch["_step"].to_pylist() if table == "metrics" else [None] * batch.num_rows
    keys = (batch[name].to_pylist() for name in ("_run_id", "_writer", "_seq"))
    ranks = batch["_rank"].to_pylist()
    for index, (run_id, writer_id, seq) in enumerate(zip(*keys, strict=True)):
        row = NumberRow(names[patterns[index]], packed[index], steps[index], times[index], ranks[index])
        yield run_id, writer_id, seq, row


def _pack(batch: pa.RecordBatch, columns: list[str]) -> tuple[list[tuple[str, ...]], list[int], list[bytes]]:
    """Return the different sets of names, which of them each row has, and the packed values of each row."""
    rows = batch.num_rows
    used = [column for column in columns if batch[column].null_count < rows]
    values = np.empty((rows, len(used)), "<f8")
    valid = np.empty((rows, len(used)), bool)
    for at, column in enumerate(used):
        array = batch[column]
        if not pa.types.is_float64(array.type):
            raise TypeError(f"the column {column!r} holds {array.type}, not float64")
        values[:, at] = pc.fill_null(array, 0.0).to_numpy(zero_copy_only=False)
        valid[:, at] = pc.is_valid(array).to_numpy(zero_copy_only=False)
    if not used:
        return [()], [0] * rows, [b""] * rows
    bits = np.packbits(valid, axis=1)
    different, first, pattern = np.unique(bits, axis=0, return_index=True, return_inverse=True)
    pattern = pattern.reshape(rows)
    packed: list[bytes] = [b""] * rows
    names: list[tuple[str, ...]] = []
    for number in range(len(different)):
        chosen = valid[first[number]]
        names.append(tuple(arrow.unescape(used[at]) for at in np.flatnonzero(chosen)))
        places = np.flatnonzero(pattern == number)
        data: Any = np.ascontiguousarray(values[places][:, chosen]).tobytes()
        width = 8 * int(chosen.sum())
        for at, place in enumerate(places.tolist()):
            packed[place] = data[at * width : (at + 1) * width]
    return names, pattern.tolist(), packed
