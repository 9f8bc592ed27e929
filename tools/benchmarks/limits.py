"""What a fold cannot beat: decode the same records and write the same wide table, and do nothing else.

Two forms of the input. `rows`: one record after another, which is what writers must write to be safe against
kill -9, decoded by msgspec into objects. `columns`: all values of a run packed side by side, as no writer of
single records could; what is left then is parquet. Both without frames, checksums, statistics and proof.
"""

from __future__ import annotations

import gc
import os
import time
from typing import Any, Final

import fresh
import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import stores

from eventlog import arrow, names

_GROUP_ROWS: Final = 65_536


class Row(msgspec.Struct, array_like=True, gc=False):
    """One record with its names interned."""

    time_ns: int
    step: int
    shape: int
    values: tuple[float, float, float, float, float, float, float, float]


class Columns(msgspec.Struct, array_like=True):
    """All records of a run, packed."""

    time_ns: bytes
    step: bytes
    values: bytes


def one_thread() -> None:
    """Keep pyarrow from using more than one core."""
    pa.set_cpu_count(1)
    pa.set_io_thread_count(1)


def prepare_rows(cache: str, kind: str, records: int) -> str:
    """Return a directory with one file of each form a run, made when it is not there."""
    final = os.path.join(cache, f"limit-{kind}-{records}")
    if os.path.isdir(final):
        return final
    unfinished = f"{final}.making-{os.getpid()}"
    os.makedirs(unfinished)
    for index in range(stores.RUNS):
        clock = stores.Clock(1 + index)
        rows = stores.rows_of(kind, records // stores.RUNS, 1000 + index)
        times = [clock() for _ in rows]
        packed = Columns(
            np.array(times, np.int64).tobytes(),
            np.arange(len(rows), dtype=np.int64).tobytes(),
            np.array(rows, np.float64).T.tobytes(),
        )
        with open(os.path.join(unfinished, f"{index:02d}.rows"), "wb") as file:
            file.write(msgspec.msgpack.encode([Row(*fields, 0, values) for fields, values in _zip(times, rows)]))
        with open(os.path.join(unfinished, f"{index:02d}.columns"), "wb") as file:
            file.write(msgspec.msgpack.encode(packed))
    os.rename(unfinished, final)
    return final


def _zip(times: list[int], rows: list[tuple[float, ...]]) -> list[tuple[tuple[int, int], tuple[float, ...]]]:
    return [((time_ns, step), values) for step, (time_ns, values) in enumerate(zip(times, rows, strict=True))]


def fold_rows(path: str, cache: str) -> dict[str, float]:
    """Decode rows and write them."""
    return _fold(path, cache, ".rows", _from_rows, msgspec.msgpack.Decoder(list[Row]))


def fold_columns(path: str, cache: str) -> dict[str, float]:
    """Decode packed columns and write them."""
    return _fold(path, cache, ".columns", _from_columns, msgspec.msgpack.Decoder(Columns))


def _from_rows(rows: list[Row]) -> list[Any]:
    values = zip(*[row.values for row in rows], strict=True)
    return [
        pa.array([row.step for row in rows], pa.int64()),
        pa.array([row.time_ns for row in rows], pa.int64()),
        *(pa.array(column, pa.float64()) for column in values),
    ]


def _from_columns(columns: Columns) -> list[Any]:
    matrix = np.frombuffer(columns.values, np.float64).reshape(8, -1)
    fixed = [pa.array(np.frombuffer(data, np.int64)) for data in (columns.step, columns.time_ns)]
    return [*fixed, *(pa.array(column) for column in matrix)]


def _fold(path: str, cache: str, ending: str, to_arrays: Any, decoder: Any) -> dict[str, float]:
    one_thread()
    target = os.path.join(cache, f"limit-{os.getpid()}.parquet")
    schema = arrow.table_schema("metrics", sorted(stores.METRICS))
    delta = dict.fromkeys(("_step", "_time", "_seq"), "DELTA_BINARY_PACKED")
    encoding = delta | dict.fromkeys(sorted(stores.METRICS), "BYTE_STREAM_SPLIT")
    options: dict[str, Any] = {
        "compression": "zstd",
        "compression_level": 1,
        "use_dictionary": ["_run_id", "_writer", "_rank"],
        "column_encoding": encoding,
        "write_page_index": True,
        "write_page_checksum": True,
        "use_content_defined_chunking": True,
        "data_page_version": "2.0",
    }
    points = 0
    gc.disable()
    wall, cpu = time.perf_counter(), time.process_time()
    with pq.ParquetWriter(target, schema, **options) as writer:
        for entry in sorted(entry for entry in os.listdir(path) if entry.endswith(ending)):
            with open(os.path.join(path, entry), "rb") as file:
                step, time_ns, *values = to_arrays(decoder.decode(file.read()))
            writer.write_table(_table(schema, step, time_ns, values), row_group_size=_GROUP_ROWS)
            points += len(step) * len(values)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    size = os.path.getsize(target)
    os.unlink(target)
    return {
        "points": points,
        "wall_s": wall,
        "cpu_s": cpu,
        "points_per_s": points / wall,
        "bytes_per_point": size / points,
        "peak_rss_mib": fresh.peak_rss_bytes() / 2**20,
    }


def _table(schema: pa.Schema, step: Any, time_ns: Any, values: list[Any]) -> pa.Table:
    rows = len(step)
    run_id = arrow.encode_dictionary([names.new_id()], [rows])
    seq = pa.array(np.arange(2, rows + 2, dtype=np.int64))
    fixed = [run_id, step, time_ns.view(arrow.TIME), run_id, seq, pa.nulls(rows, pa.int32())]
    return pa.Table.from_arrays([*fixed, *values], schema=schema)
