"""Rows as JSON lines: what is null is left out, and what JSON cannot say is said as text.

NaN and infinities are the strings "NaN", "Infinity" and "-Infinity"; times are RFC 3339 with nanoseconds. Columns that
hold JSON text already (payload, config, ...) are embedded as they are, where such floats are tagged dicts.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, Final

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

_JSON_COLUMNS: Final = frozenset({"payload", "config", "summary", "metric_defs", "start"})
_BATCH_ROWS: Final = 8192


def speakable(value: Any) -> Any:
    """Return a value with floats that JSON lacks as strings, all the way down."""
    if isinstance(value, float):
        if math.isfinite(value):
            return value
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, dict):
        return {key: speakable(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [speakable(inner) for inner in value]
    return value


def text(value: Any, *, indent: int = 2) -> str:
    """Return one JSON document; a struct becomes an object."""
    plain = msgspec.to_builtins(value) if isinstance(value, msgspec.Struct) else value
    return msgspec.json.format(msgspec.json.encode(speakable(plain)), indent=indent).decode()


def rows(table: pa.Table) -> Iterator[dict[str, Any]]:
    """Yield a table's rows as dicts for `encode`, nulls left out, a bounded number in memory at once."""
    for start in range(0, table.num_rows, _BATCH_ROWS):
        part = table.slice(start, _BATCH_ROWS)
        columns = [_plain(part[name], name) for name in part.schema.names]
        for cells in zip(*columns, strict=True):
            yield {name: cell for name, cell in zip(part.schema.names, cells, strict=True) if cell is not None}


def encode(row: dict[str, Any]) -> bytes:
    """Return a row of `rows` as one line, with its newline."""
    return msgspec.json.encode(row) + b"\n"


def _plain(column: pa.ChunkedArray, name: str) -> list[Any]:
    kind = column.type
    if pa.types.is_timestamp(kind):
        return pc.replace_substring(column.cast(pa.string()), " ", "T").to_pylist()  # type: ignore[no-any-return]
    cells: list[Any] = column.to_pylist()
    if pa.types.is_map(kind):
        return [None if cell is None else speakable(dict(cell)) for cell in cells]
    if name in _JSON_COLUMNS and (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        return [None if cell is None else msgspec.Raw(cell.encode()) for cell in cells]
    return [speakable(cell) for cell in cells] if pa.types.is_floating(kind) else cells
