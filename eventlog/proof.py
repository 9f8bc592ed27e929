"""Recompute the order-free checksum from the rows of a table, as a check on how they got there."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from eventlog import arrow
from eventlog.checksum import MASK, RowHashes, event_hash, identity


def rows_checksum(table: str, rows: pa.Table) -> int:
    """Return the order-free checksum of rows of `metrics`, `system` or `events`, in any order."""
    if not rows.num_rows:
        return 0
    if table == "events":
        return _events_checksum(rows)
    seq = rows["_seq"].combine_chunks().to_numpy()
    hashes = RowHashes(_identities(table, rows), seq)
    hashes.add_ints("_time", rows["_time"].combine_chunks().cast(pa.int64()).to_numpy())
    if table == "metrics":
        step = rows["_step"].combine_chunks()
        hashes.add_ints("_step", step.fill_null(0).to_numpy(zero_copy_only=False), _valid(step))
    for column in arrow.metric_columns(table, rows.schema):
        cells = rows[column].combine_chunks()
        if cells.null_count == len(cells):
            continue
        hashes.add_floats(arrow.unescape(column), cells.fill_null(0.0).to_numpy(zero_copy_only=False), _valid(cells))
    return hashes.total()


def _valid(column: pa.Array) -> np.ndarray[Any, np.dtype[np.bool_]] | None:
    return None if column.null_count == 0 else pc.is_valid(column).to_numpy(zero_copy_only=False)


def _identities(table: str, rows: pa.Table) -> np.ndarray[Any, np.dtype[np.uint64]]:
    runs, run_codes = _coded(rows["_run_id"])
    writers, writer_codes = _coded(rows["_writer"])
    ranks = rows["_rank"].combine_chunks().fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
    combined = (run_codes * len(writers) + writer_codes) * (int(ranks.max()) + 2) + ranks + 1
    distinct, first, inverse = np.unique(combined, return_index=True, return_inverse=True)
    del distinct
    numbers = [
        identity(table, runs[run_codes[i]], writers[writer_codes[i]], None if ranks[i] < 0 else int(ranks[i]))
        for i in first.tolist()
    ]
    return np.array(numbers, np.uint64)[inverse]


def _coded(column: pa.ChunkedArray) -> tuple[list[str], np.ndarray[Any, np.dtype[np.int64]]]:
    encoded = column.cast(pa.string()).combine_chunks().dictionary_encode()
    return encoded.dictionary.to_pylist(), encoded.indices.to_numpy().astype(np.int64)


def _events_checksum(rows: pa.Table) -> int:
    columns = [
        rows["_run_id"].cast(pa.string()).to_pylist(),
        rows["kind"].cast(pa.string()).to_pylist(),
        rows["name"].to_pylist(),
        rows["_step"].to_pylist(),
        rows["_time"].cast(pa.int64()).to_pylist(),
        rows["_writer"].cast(pa.string()).to_pylist(),
        rows["_seq"].to_pylist(),
        rows["payload"].to_pylist(),
    ]
    return sum(event_hash(row) for row in zip(*columns, strict=True)) & MASK
