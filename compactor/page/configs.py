"""Configs of runs as columns: what has one type keeps it, and the rest is JSON text. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import pyarrow as pa

from compactor.page.layout import config_columns
from compactor.serve.typedrows import dump

_EXACT: Final = 1 << 53


def config_table(rows: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]]) -> pa.Table:
    """Return one row a run: what tells it from others, and a column for each key of any config.

    The page shows dicts that are columns badly: it would show each run the keys of the others. So they are flattened
    with `/`, as those in a `log()` are.

    Args:
        rows: (facts, config) of each run; the facts are texts, the same for all.
    """
    flat = [flattened(config) for _, config in rows]
    facts = ("run_id", "run_name", "created_at")
    columns = {name: pa.array([row[name] for row, _ in rows], pa.string()) for name in facts}
    for key, column in config_columns({key for config in flat for key in config}).items():
        columns[column] = typed_array([config.get(key) for config in flat])
    return pa.table(columns)


def flattened(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a config without dicts in it; one whose keys would meet others stays, as a value."""
    found: dict[str, Any] = {}
    for key, value in config.items():
        inside = flattened(value) if isinstance(value, dict) and value and "_type" not in value else {}
        parts = {f"{key}/{name}": item for name, item in inside.items()}
        if parts and not any(name in found or name in config for name in parts):
            found |= parts
        else:
            found[key] = value
    return found


def typed_array(values: Sequence[Any]) -> pa.Array:
    """Return values as a column of the one type that holds all of them, or else of text.

    Whole numbers inside of lists become float64: the page's reader breaks on others.
    """
    given = [value for value in values if value is not None]
    if all(isinstance(value, bool) for value in given) and given:
        return pa.array(values, pa.bool_())
    if all(_is_number(value) for value in given) and given:
        whole = all(isinstance(value, int) for value in given)
        return pa.array(values, pa.int64() if whole else pa.float64())
    if all(isinstance(value, list) and value for value in given) and given:
        items = [item for value in given for item in value]
        if all(_is_number(item) for item in items):
            numbers = [None if value is None else [*map(float, value)] for value in values]
            return pa.array(numbers, pa.list_(pa.float64()))
        if all(isinstance(item, str) for item in items):
            return pa.array(values, pa.list_(pa.string()))
    return pa.array([None if value is None else text_of(value) for value in values], pa.string())


def text_of(value: Any) -> str:
    """Return a text as it is, and everything else as JSON."""
    return value if isinstance(value, str) else dump(value).decode()


def _is_number(value: Any) -> bool:
    if isinstance(value, bool):
        return False
    return isinstance(value, float) or (isinstance(value, int) and -_EXACT <= value <= _EXACT)
