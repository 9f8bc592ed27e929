"""Runs as Arrow tables: the parts that files of `runs` hold, one row each, and the table of runs that readers get.

A row of a part has what merging needs (`part`, `metrics`) and, beside it, the same as plain columns. A run that is
told of by one part only is shown from these columns as they are, without any work per run.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import Any, Final

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from eventlog.arrow import TIME, from_bools, from_numpy, to_numpy
from eventlog.runs import RunPart, RunParts, Stat
from eventlog.values import from_json, to_json

_STAT: Final = pa.struct(
    [
        pa.field("name", pa.string()),
        pa.field("count", pa.int64()),
        pa.field("nans", pa.int64()),
        pa.field("total", pa.float64()),
        pa.field("min", pa.float64()),
        pa.field("min_step", pa.int64()),
        pa.field("max", pa.float64()),
        pa.field("max_step", pa.int64()),
        pa.field("first", pa.float64()),
        pa.field("first_writer", pa.string()),
        pa.field("first_seq", pa.int64()),
        pa.field("last", pa.float64()),
        pa.field("last_writer", pa.string()),
        pa.field("last_seq", pa.int64()),
    ]
)
_PLAIN: Final = (
    pa.field("name", pa.string()),
    pa.field("group", pa.string()),
    pa.field("tags", pa.list_(pa.string())),
    pa.field("status", pa.string()),
    pa.field("exit_code", pa.int64()),
    pa.field("config", pa.string()),
    pa.field("summary", pa.string()),
    pa.field("metric_defs", pa.string()),
    pa.field("created", TIME),
    pa.field("first_time", TIME),
    pa.field("last_time", TIME),
    pa.field("last_step", pa.int64()),
    pa.field("host", pa.string()),
    pa.field("user", pa.string()),
    pa.field("world_size", pa.int64()),
    pa.field("start", pa.string()),
    pa.field("logs", pa.int64()),
    pa.field("system", pa.int64()),
    pa.field("events", pa.int64()),
    pa.field("alerts", pa.int64()),
    pa.field("dropped", pa.int64()),
    pa.field("deleted", pa.bool_()),
)
PARTS: Final = pa.schema(
    [
        pa.field("_run_id", pa.string()),
        pa.field("part", pa.large_string()),
        pa.field("metrics", pa.list_(_STAT)),
        *_PLAIN,
    ]
)
_SUMMARY: Final = pa.struct(
    [
        pa.field("first", pa.float64()),
        pa.field("last", pa.float64()),
        pa.field("min", pa.float64()),
        pa.field("min_step", pa.int64()),
        pa.field("max", pa.float64()),
        pa.field("max_step", pa.int64()),
        pa.field("mean", pa.float64()),
        pa.field("count", pa.int64()),
    ]
)
RUNS: Final = pa.schema([pa.field("run_id", pa.string()), *_PLAIN, pa.field("metrics", pa.map_(pa.string(), _SUMMARY))])
_part_decoder: Final = msgspec.json.Decoder(RunPart)


def parts_to_table(parts: Iterable[RunPart]) -> pa.Table:
    """Return parts of runs as the table that `runs` files hold, ordered by run."""
    ordered = sorted(parts, key=lambda part: part.run_id)
    plain = [_plain(part) for part in ordered]
    texts = [to_json(msgspec.to_builtins(without_stats(part))).decode() for part in ordered]
    return pa.Table.from_arrays(
        [
            pa.array([part.run_id for part in ordered], pa.string()),
            pa.array(texts, pa.large_string()),
            _stats_to_array(ordered),
            *(pa.array([row[field.name] for row in plain], field.type) for field in _PLAIN),
        ],
        schema=PARTS,
    )


def _stats_to_array(parts: list[RunPart]) -> pa.ListArray:
    stats = [(name, stat) for part in parts for name, stat in sorted(part.stats.items())]
    offsets = np.concatenate([[0], np.cumsum([len(part.stats) for part in parts])]).astype(np.int32)
    columns: dict[str, list[Any]] = {
        "name": [name for name, _ in stats],
        "first_writer": [stat.first_at[0] for _, stat in stats],
        "first_seq": [stat.first_at[1] for _, stat in stats],
        "last_writer": [stat.last_at[0] for _, stat in stats],
        "last_seq": [stat.last_at[1] for _, stat in stats],
    }
    for field in ("count", "nans", "total", "min", "min_step", "max", "max_step", "first", "last"):
        columns[field] = [getattr(stat, field) for _, stat in stats]
    children = pa.StructArray.from_arrays([pa.array(columns[f.name], f.type) for f in _STAT], fields=list(_STAT))
    return pa.ListArray.from_arrays(from_numpy(offsets), children, type=pa.list_(_STAT))


def _plain(part: RunPart) -> dict[str, Any]:
    """Return what a part tells by itself; None where it tells nothing."""
    start = part.start[1] if part.start else {}
    return {
        "name": part.name[1] if part.name else None,
        "group": part.group[1] if part.group else None,
        "tags": part.tags[1] if part.tags else None,
        "status": part.status[1] if part.status else None,
        "exit_code": part.status[2] if part.status else None,
        "config": _text({key: value for key, (_, value) in sorted(part.config.items())}),
        "summary": _text({key: value for key, (_, value) in sorted(part.summary.items())}),
        "metric_defs": _text({key: value for key, (_, value) in sorted(part.metric_defs.items())}),
        "created": start.get("time_ns", part.first_time_ns),
        "first_time": part.first_time_ns,
        "last_time": part.last_time_ns,
        "last_step": part.last_step,
        "host": start.get("host"),
        "user": start.get("user"),
        "world_size": start.get("world_size"),
        "start": _text(start),
        "logs": part.records.get("metrics", 0),
        "system": part.records.get("system", 0),
        "events": part.records.get("events", 0),
        "alerts": part.records.get("alerts", 0),
        "dropped": part.dropped,
        "deleted": part.is_deleted,
    }


def _text(value: dict[str, Any]) -> str:
    return to_json(value).decode() if value else "{}"


def without_stats(part: RunPart) -> RunPart:
    """Return a part without its statistics."""
    return msgspec.structs.replace(part, stats={})


def table_to_parts(table: pa.Table, *, stats: bool = True) -> list[RunPart]:
    """Return the parts in a table as `parts_to_table` makes it.

    Args:
        table: any number of chunks.
        stats: also read the statistics of metrics.
    """
    parts = [_decode_part(text) for text in table["part"].to_pylist()]
    if not stats:
        return parts
    at = 0
    for chunk in table["metrics"].chunks:
        lengths = np.diff(chunk.offsets.to_numpy())
        flat = chunk.flatten()
        columns = {field.name: flat.field(field.name).to_pylist() for field in _STAT}
        row = 0
        for part, length in zip(parts[at : at + len(chunk)], lengths.tolist(), strict=True):
            for index in range(row, row + length):
                part.stats[columns["name"][index]] = _stat(columns, index)
            row += length
        at += len(chunk)
    return parts


def _decode_part(text: str) -> RunPart:
    """Decode a part straight from its text, unless values in it had to be tagged because JSON lacks them."""
    return msgspec.convert(from_json(text), RunPart) if '"_type"' in text else _part_decoder.decode(text)


def _stat(columns: dict[str, list[Any]], index: int) -> Stat:
    return Stat(
        columns["count"][index],
        columns["nans"][index],
        columns["total"][index],
        columns["min"][index],
        columns["min_step"][index],
        columns["max"][index],
        columns["max_step"][index],
        columns["first"][index],
        (columns["first_writer"][index], columns["first_seq"][index]),
        columns["last"][index],
        (columns["last_writer"][index], columns["last_seq"][index]),
    )


def merge_tables(tables: Iterable[pa.Table]) -> pa.Table:
    """Return tables of parts as one with one row a run; only rows of runs that are in several are decoded.

    So are those of files from before the plain columns, which have the parts alone.
    """
    whole = (table if table.schema.names == PARTS.names else parts_to_table(table_to_parts(table)) for table in tables)
    largest_first = sorted(whole, key=lambda table: -int(table.num_rows))
    return functools.reduce(_merge_two, largest_first) if largest_first else pa.Table.from_batches([], PARTS)


def _merge_two(large: pa.Table, small: pa.Table) -> pa.Table:
    both = pc.is_in(small["_run_id"], _ids(large))
    common = small.filter(both)
    rest = pa.concat_tables([large, small.filter(pc.invert(both))])
    return add_parts(rest, table_to_parts(common)) if common.num_rows else rest


def add_parts(table: pa.Table, parts: Iterable[RunPart]) -> pa.Table:
    """Return a table of parts, one row a run, with more parts taken in; only rows of their runs are decoded."""
    added = RunParts(parts)
    if not added.parts:
        return table
    there = pc.is_in(table["_run_id"], pa.array(sorted(added.parts), pa.string()))
    for known in table_to_parts(table.filter(there)):
        added.add(known)
    return pa.concat_tables([table.filter(pc.invert(there)), parts_to_table(added.parts.values())])


def agree(table: pa.Table, parts: Iterable[RunPart]) -> bool:
    """Say whether the plain columns of a table of parts, if it has any, tell what its parts tell."""
    columns = [field.name for field in _PLAIN]
    if not set(columns) & set(table.schema.names):
        return True
    expected = parts_to_table(parts).select(columns)
    return table.schema.names == PARTS.names and bool(table.select(columns).equals(expected))


def _ids(table: pa.Table) -> pa.Array:
    return table["_run_id"].combine_chunks()


def show(table: pa.Table, *, deleted: bool = True) -> pa.Table:
    """Return the table of runs, ordered by creation, from a table of parts with one row a run.

    Args:
        table: as `merge_tables` returns it.
        deleted: also show runs that were deleted.
    """
    # Without pa.scalar, pa.array and Array.to_numpy: each of them imports pandas where that is installed, for 0.2 s.
    table = table.filter(from_bools(to_numpy(pc.binary_length(table["_run_id"]).combine_chunks()) > 0))
    if not deleted:
        table = table.filter(pc.invert(table["deleted"]))
    keys = pa.table({"created": _filled(table["created"].cast(pa.int64()), 0), "run_id": table["_run_id"]})
    order = pc.sort_indices(keys, sort_keys=[("created", "ascending"), ("run_id", "ascending")])
    table = table.take(order).combine_chunks()
    changed = {
        "run_id": table["_run_id"],
        "name": pc.coalesce(table["name"], table["_run_id"]),
        "tags": _filled(table["tags"], []),
        "status": _filled(table["status"], "running"),
        "exit_code": _filled(table["exit_code"], 0),
        "metrics": _show_stats(table["metrics"]),
    }
    columns = [changed[name] if name in changed else table[name] for name in RUNS.names]
    return pa.Table.from_arrays(columns, schema=RUNS)


def _filled(column: pa.ChunkedArray, value: Any) -> pa.ChunkedArray:
    return pc.coalesce(column, pa.scalar(value, column.type)) if column.null_count else column


def _show_stats(column: pa.ChunkedArray) -> pa.Array:
    lists = column.combine_chunks()
    stats = lists.flatten()
    lengths = to_numpy(pc.list_value_length(lists))
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    numbers = to_numpy(pc.subtract(stats.field("count"), stats.field("nans")))
    means = to_numpy(stats.field("total")) / np.maximum(numbers, 1)
    mean = from_numpy(means, numbers > 0)
    items = [mean if field.name == "mean" else stats.field(field.name) for field in _SUMMARY]
    shown = pa.StructArray.from_arrays(items, fields=list(_SUMMARY))
    return pa.MapArray.from_arrays(from_numpy(offsets), stats.field("name"), shown)
