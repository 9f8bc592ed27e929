"""Rows of events out of a snapshot's tables, a bounded number at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

import numpy as np
import pyarrow as pa

from eventlog.arrow import Piece
from eventlog.columns import EventRow

_ROWS_AT_ONCE: Final = 65_536


def stretches(pieces: Iterable[Piece]) -> Iterator[tuple[int, int]]:
    """Yield (start, rows) that cover pieces, each of a bounded number of rows."""
    for piece in pieces:
        for start in range(piece.start, piece.start + piece.rows, _ROWS_AT_ONCE):
            yield start, min(_ROWS_AT_ONCE, piece.start + piece.rows - start)


def event_rows(table: pa.Table) -> list[EventRow]:
    """Return the rows of a table of events."""
    columns = [
        table["_run_id"].cast(pa.string()).to_pylist(),
        table["kind"].cast(pa.string()).to_pylist(),
        table["name"].to_pylist(),
        table["_step"].to_pylist(),
        np.asarray(table["_time"].cast(pa.int64())).tolist(),
        table["_writer"].cast(pa.string()).to_pylist(),
        table["_seq"].to_pylist(),
        table["payload"].to_pylist(),
    ]
    return [EventRow(*row) for row in zip(*columns, strict=True)]
