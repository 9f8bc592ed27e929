"""Values as Trackio's parquet export holds them, made into what a `log()` would have been given. Pure."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final

from eventlog import nesting

MEDIA_PREFIX: Final = "trackio."
_TABLE: Final = "trackio.table"
_TYPED_TEXT: Final = re.compile(r'\s*\[?\s*\{\s*"_type"\s*:\s*"')
_FLOATS: Final = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_FRACTION: Final = re.compile(r"([.,]\d{6})(\d+)")
_LEAST, _MOST = -(1 << 63), (1 << 63) - 1


def value_of(cell: Any) -> Any:
    """Return the value in a cell that is not null.

    Columns of structs have every key of every row; what is null in one is taken for absent, as in the whole table. A
    typed value may stand there as JSON text, and floats that JSON lacks as text.
    """
    if isinstance(cell, str):
        if cell in _FLOATS:
            return _FLOATS[cell]
        return _typed(cell) if _TYPED_TEXT.match(cell) else cell
    if isinstance(cell, dict):
        if cell.get("_type") == _TABLE:
            return {key: _floats(item) for key, item in cell.items() if item is not None}
        return {key: value_of(item) for key, item in cell.items() if item is not None}
    if isinstance(cell, list):
        return [value_of(item) for item in cell]
    if isinstance(cell, datetime | date):
        return cell.isoformat()
    return cell


def _typed(text: str) -> Any:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return text
    if nesting.is_deep(value):
        return text
    first = value[0] if isinstance(value, list) and value else value
    return _floats(value) if isinstance(first, dict) and isinstance(first.get("_type"), str) else text


def _floats(value: Any) -> Any:
    if isinstance(value, str):
        return _FLOATS.get(value, value)
    if isinstance(value, dict):
        return {key: _floats(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_floats(item) for item in value]
    return value


def media_of(value: Any) -> Iterator[dict[str, Any]]:
    """Yield the typed values in a value that name a file, so that the name can be changed in place."""
    if isinstance(value, dict):
        kind = value.get("_type")
        if isinstance(kind, str) and kind.startswith(MEDIA_PREFIX) and isinstance(value.get("file_path"), str):
            yield value
        for item in value.values():
            yield from media_of(item)
    elif isinstance(value, list):
        for item in value:
            yield from media_of(item)


def time_of(cell: Any) -> int | None:
    """Return the nanoseconds of a time: ISO text, which is UTC without a zone, or a time as such; None for others."""
    if isinstance(cell, str):
        return _time_of_text(cell.strip())
    if isinstance(cell, datetime):
        return _nanoseconds(cell, 0)
    return None


def _time_of_text(text: str) -> int | None:
    found = _FRACTION.search(text)
    rest = int(found[2][:3].ljust(3, "0")) if found else 0
    try:
        moment = datetime.fromisoformat(_FRACTION.sub(r"\1", text, count=1))
    except ValueError:
        return None
    return _nanoseconds(moment, rest)


def _nanoseconds(moment: datetime, rest: int) -> int | None:
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    nanoseconds = (aware - _EPOCH) // timedelta(microseconds=1) * 1000 + rest
    return nanoseconds if _LEAST <= nanoseconds <= _MOST else None


def step_of(cell: Any) -> int | None:
    """Return a step as a 64-bit integer, or None when it is none."""
    if isinstance(cell, bool) or not isinstance(cell, int | float):
        return None
    if isinstance(cell, float) and not cell.is_integer():
        return None
    return int(cell) if _LEAST <= cell <= _MOST else None
