"""Rows as Arrow tables: the schemas of the snapshot's tables, and the way from blocks, events and parts to them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
import pyarrow as pa

from eventlog.columns import EventRow
from eventlog.gather import Block

TIME: Final = pa.timestamp("ns", tz="UTC")
DICTIONARY: Final = pa.dictionary(pa.int32(), pa.string())
STRUCTURAL: Final[dict[str, tuple[pa.Field, ...]]] = {
    "metrics": (
        pa.field("_run_id", DICTIONARY),
        pa.field("_step", pa.int64()),
        pa.field("_time", TIME),
        pa.field("_writer", DICTIONARY),
        pa.field("_seq", pa.int64()),
        pa.field("_rank", pa.int32()),
    ),
    "system": (
        pa.field("_run_id", DICTIONARY),
        pa.field("_time", TIME),
        pa.field("_writer", DICTIONARY),
        pa.field("_seq", pa.int64()),
        pa.field("_rank", pa.int32()),
    ),
    "events": (
        pa.field("_run_id", DICTIONARY),
        pa.field("kind", DICTIONARY),
        pa.field("name", pa.string()),
        pa.field("_step", pa.int64()),
        pa.field("_time", TIME),
        pa.field("_writer", DICTIONARY),
        pa.field("_seq", pa.int64()),
        pa.field("payload", pa.large_string()),
    ),
}


class Piece(NamedTuple):
    """Rows of one run and one writer in a table: where they start, how many, and their first and last seq."""

    run_id: str
    writer_id: str
    start: int
    rows: int
    first_seq: int
    last_seq: int


class Rows(NamedTuple):
    """A table sorted by (_run_id, _writer, _seq), and its pieces in that order."""

    table: pa.Table
    pieces: list[Piece]


def escape(name: str) -> str:
    """Return the column of a metric: its name, with one dot before it when it starts with `_` or `.`."""
    return "." + name if name.startswith(("_", ".")) else name


def unescape(column: str) -> str:
    """Return the metric of a column."""
    return column.removeprefix(".")


def table_schema(table: str, columns: Iterable[str]) -> pa.Schema:
    """Return the schema of a table with these metric columns."""
    return pa.schema([*STRUCTURAL[table], *(pa.field(column, pa.float64()) for column in columns)])


def plain_schema(schema: pa.Schema) -> pa.Schema:
    """Return a schema with strings where it has dictionaries."""
    fields = [field.with_type(pa.string()) if field.type == DICTIONARY else field for field in schema]
    return pa.schema(fields)


def metric_columns(table: str, schema: pa.Schema) -> list[str]:
    """Return the metric columns of a schema."""
    fixed = {field.name for field in STRUCTURAL[table]}
    return [name for name in schema.names if name not in fixed]


def encode_dictionary(values: Sequence[str], counts: Sequence[int]) -> pa.DictionaryArray:
    """Return a dictionary column in which each value stands so many times in a row."""
    distinct = sorted(set(values))
    code = {value: index for index, value in enumerate(distinct)}
    codes = np.repeat(np.array([code[value] for value in values], np.int32), np.array(counts, np.int64))
    return pa.DictionaryArray.from_arrays(from_numpy(codes), pa.array(distinct, pa.string()))


def blocks_to_rows(table: str, blocks: Sequence[Block]) -> Rows:
    """Return blocks of `metrics` or `system` as one sorted table with the union of their names."""
    groups: dict[tuple[str, str], list[Block]] = {}
    for block in blocks:
        groups.setdefault((block.run_id, block.writer_id), []).append(block)
    keys = sorted(groups)
    pieces: list[Piece] = []
    orders: list[np.ndarray[Any, Any] | None] = []
    start = 0
    for key in keys:
        seq = np.concatenate([block.seq for block in groups[key]])
        order = np.argsort(seq, kind="stable") if (seq[1:] < seq[:-1]).any() else None
        orders.append(order)
        pieces.append(Piece(*key, start, len(seq), int(seq.min()), int(seq.max())))
        start += len(seq)
    columns = sorted({escape(name) for block in blocks for name in block.names})
    filled = _fill(
        table, start, columns, [(groups[k], p.start, o) for k, p, o in zip(keys, pieces, orders, strict=True)]
    )
    run_ids = encode_dictionary([p.run_id for p in pieces], [p.rows for p in pieces])
    writer_ids = encode_dictionary([p.writer_id for p in pieces], [p.rows for p in pieces])
    arrays = {"_run_id": run_ids, "_writer": writer_ids, **filled}
    schema = table_schema(table, columns)
    return Rows(pa.Table.from_arrays([arrays[name] for name in schema.names], schema=schema), pieces)


def _fill(table: str, rows: int, columns: list[str], groups: list[tuple[list[Block], int, Any]]) -> dict[str, pa.Array]:
    seq = np.empty(rows, np.int64)
    time_ns = np.empty(rows, np.int64)
    step = np.zeros(rows, np.int64)
    no_step = np.zeros(rows, bool)
    rank = np.zeros(rows, np.int32)
    no_rank = np.zeros(rows, bool)
    floats = {column: np.empty(rows, np.float64) for column in columns}
    missing = {column: np.ones(rows, bool) for column in columns}
    for blocks, start, order in groups:
        places = _places(blocks, start, order)
        for block, place in zip(blocks, places, strict=True):
            seq[place] = block.seq
            time_ns[place] = block.time_ns
            if block.step is None:
                no_step[place] = True
            else:
                step[place] = block.step
                if block.has_step is not None:
                    no_step[place] = ~block.has_step
            rank[place] = block.rank or 0
            no_rank[place] = block.rank is None
            for index, name in enumerate(block.names):
                column = escape(name)
                floats[column][place] = block.values[:, index]
                missing[column][place] = False
    arrays = {
        "_seq": from_numpy(seq),
        "_time": from_numpy(time_ns, kind=TIME),
        "_rank": _masked(rank, no_rank),
    }
    if table == "metrics":
        arrays["_step"] = _masked(step, no_step)
    for column in columns:
        arrays[column] = _masked(floats[column], missing[column])
    return arrays


def _masked(values: np.ndarray[Any, Any], missing: np.ndarray[Any, Any]) -> pa.Array:
    return from_numpy(values, ~missing if missing.any() else None)


def from_numpy(
    values: np.ndarray[Any, Any], valid: np.ndarray[Any, Any] | None = None, kind: pa.DataType | None = None
) -> pa.Array:
    """Return an array over the memory of a numpy array of numbers; NaN stays NaN.

    Unlike `pa.array`, it never imports pandas to see whether it was given something of pandas'.

    Args:
        values: contiguous.
        valid: False where the result is null.
        kind: the type of the result, of the same width; default that of `values`.
    """
    bitmap = None if valid is None else pa.py_buffer(np.packbits(valid, bitorder="little"))
    kind = kind or pa.from_numpy_dtype(values.dtype)
    return pa.Array.from_buffers(kind, len(values), [bitmap, pa.py_buffer(np.ascontiguousarray(values))])


def to_numpy(array: pa.Array) -> np.ndarray[Any, Any]:
    """Return the numbers of an array without nulls as a numpy array over the same memory; likewise without pandas."""
    return np.from_dlpack(array)


def from_bools(values: np.ndarray[Any, Any]) -> pa.Array:
    """Return an array over a numpy array of bools, likewise."""
    return pa.Array.from_buffers(pa.bool_(), len(values), [None, pa.py_buffer(np.packbits(values, bitorder="little"))])


def _places(blocks: list[Block], start: int, order: Any) -> list[Any]:
    """Return where the rows of each block go in the table."""
    if order is None:
        places: list[Any] = []
        for block in blocks:
            places.append(slice(start, start + len(block.seq)))
            start += len(block.seq)
        return places
    target = np.empty(len(order), np.int64)
    target[order] = np.arange(start, start + len(order))
    ends = np.cumsum([len(block.seq) for block in blocks])
    return np.split(target, ends[:-1])


def events_to_rows(events: Sequence[EventRow]) -> Rows:
    """Return rows of `events` as one sorted table."""
    ordered = sorted(events, key=lambda row: (row.run_id, row.writer_id, row.seq))
    pieces: list[Piece] = []
    for index, row in enumerate(ordered):
        last = pieces[-1] if pieces else None
        if last is not None and (last.run_id, last.writer_id) == (row.run_id, row.writer_id):
            pieces[-1] = last._replace(rows=last.rows + 1, last_seq=row.seq)
        else:
            pieces.append(Piece(row.run_id, row.writer_id, index, 1, row.seq, row.seq))
    counts = [piece.rows for piece in pieces]
    schema = table_schema("events", ())
    arrays = [
        encode_dictionary([piece.run_id for piece in pieces], counts),
        encode_dictionary([row.kind for row in ordered], [1] * len(ordered)),
        pa.array([row.name for row in ordered], pa.string()),
        pa.array([row.step for row in ordered], pa.int64()),
        pa.array([row.time_ns for row in ordered], pa.int64()).view(TIME),
        encode_dictionary([piece.writer_id for piece in pieces], counts),
        pa.array([row.seq for row in ordered], pa.int64()),
        pa.array([row.payload for row in ordered], pa.large_string()),
    ]
    return Rows(pa.Table.from_arrays(arrays, schema=schema), pieces)
