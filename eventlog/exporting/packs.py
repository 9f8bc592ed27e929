"""Write the files of a pack: parquet of bounded size, with the same columns in all files of a table."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable
from typing import Any, Final, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from eventlog import arrow
from eventlog.errors import ConflictError
from eventlog.exporting import layout
from eventlog.exporting.layout import DataFile, Pack, PackedRun
from eventlog.exporting.reading import RunRows
from eventlog.verify.references import references

SHARD_BYTES: Final = 256 << 20
_GROUP_CELLS: Final = 1 << 22
_MOST_ROWS: Final = 1 << 17


class Made(NamedTuple):
    """A pack, and where each of its files is on this machine, by its name in the dataset."""

    pack: Pack
    local: dict[str, str]


class Shards:
    """Takes the rows of one table, run after run, and writes files of about `shard_bytes`. Not thread-safe.

    The bytes of a file depend on its rows alone, and a row that changes changes few of them: chunks are cut by content.
    """

    def __init__(self, directory: str, table: str, number: int, schema: pa.Schema, shard_bytes: int) -> None:
        """Take where files go for now, and what they are to be called."""
        self._directory = directory
        self._table = table
        self._number = number
        self._schema = schema
        self._shard_bytes = shard_bytes
        self._group_rows = min(max(_GROUP_CELLS // max(len(schema), 1), 1), _MOST_ROWS)
        self._pending: list[pa.Table] = []
        self._pending_rows = 0
        self._sink: Any = None
        self._writer: Any = None
        self._rows = 0
        self.files: list[DataFile] = []
        self.local: dict[str, str] = {}

    def add(self, rows: pa.Table) -> None:
        """Take rows.

        Raises:
            ConflictError: they have columns that the table has not.
            OSError: a file cannot be written.
        """
        for start in range(0, rows.num_rows, self._group_rows):
            part = _conform(rows.slice(start, self._group_rows), self._schema)
            self._pending.append(part)
            self._pending_rows += part.num_rows
            if self._pending_rows >= self._group_rows:
                self._flush()

    def _flush(self) -> None:
        if not self._pending_rows:
            return
        if self._writer is None:
            self._open()
        self._writer.write_table(pa.concat_tables(self._pending).combine_chunks())
        self._rows += self._pending_rows
        self._pending, self._pending_rows = [], 0
        if self._sink.tell() >= self._shard_bytes:
            self._close_file()

    def _open(self) -> None:
        self._sink = open(self._path(), "wb")  # noqa: SIM115 - closed with its writer, rows later
        self._writer = pq.ParquetWriter(
            self._sink, self._schema, compression="zstd", use_content_defined_chunking=True, write_page_index=True
        )

    def _path(self) -> str:
        return os.path.join(self._directory, f"{self._table}-{self._number}-{len(self.files)}")

    def _close_file(self) -> None:
        path = self._path()
        self._writer.close()
        self._sink.close()
        digest = layout.sha256_of(path)
        name = layout.data_path(self._table, self._number, len(self.files), digest)
        self.local[name] = path
        self.files.append(DataFile(name, self._rows, os.path.getsize(path), digest))
        self._writer = self._sink = None
        self._rows = 0

    def finish(self) -> list[DataFile]:
        """Write what is left, and return the files.

        Raises:
            OSError: a file cannot be written.
        """
        self._flush()
        if self._writer is not None:
            self._close_file()
        return self.files

    def close(self) -> None:
        """Close what an error left open."""
        if self._writer is not None:
            with contextlib.suppress(OSError):
                self._writer.close()
            self._sink.close()


def schemas(columns: dict[str, list[str]]) -> dict[str, pa.Schema]:
    """Return the schemas of the tables of a dataset, in which texts are plain strings."""
    made = {table: arrow.plain_schema(arrow.table_schema(table, columns[table])) for table in ("metrics", "system")}
    return {**made, "events": arrow.plain_schema(arrow.table_schema("events", ()))}


def write_pack(
    directory: str,
    number: int,
    run_ids: Iterable[str],
    read: Callable[[str], RunRows],
    tables: dict[str, pa.Schema],
    *,
    shard_bytes: int = SHARD_BYTES,
    progress: Callable[[int], None] = lambda _: None,
) -> Made:
    """Write the files of a pack into a directory, one run in memory at a time.

    Args:
        directory: where files are written, under names of no meaning.
        number: of the pack.
        run_ids: its runs, in order.
        read: returns the rows of a run.
        tables: the schemas of all tables.
        shard_bytes: a file is ended when it has grown to this.
        progress: called with the number of rows of each run.

    Raises:
        ConflictError: a metric of a new name was logged meanwhile: try again.
        DataError: a file of the store is damaged.
        OSError: a file cannot be written.
    """
    with contextlib.ExitStack() as stack:
        shards = {
            table: stack.enter_context(contextlib.closing(Shards(directory, table, number, schema, shard_bytes)))
            for table, schema in tables.items()
        }
        runs: list[PackedRun] = []
        blobs: set[str] = set()
        for run_id in run_ids:
            rows = read(run_id)
            for table, part in zip(RunRows._fields, rows, strict=True):
                shards[table].add(part)
            kinds, payloads = (rows.events[name].to_pylist() for name in ("kind", "payload"))
            for kind, payload in zip(kinds, payloads, strict=True):
                blobs.update(reference.digest for reference in references(kind, payload))
            runs.append(PackedRun(run_id, *(part.num_rows for part in rows)))
            progress(sum(part.num_rows for part in rows))
        files = {table: made.finish() for table, made in shards.items()}
        local = {name: path for made in shards.values() for name, path in made.local.items()}
    return Made(Pack(number, runs, files, sorted(blobs)), local)


def write_runs(
    directory: str, runs: pa.Table, *, shard_bytes: int = SHARD_BYTES
) -> tuple[list[DataFile], dict[str, str]]:
    """Write the table of runs, and return its files, and where they are on this machine by their names.

    Raises:
        OSError: a file cannot be written.
    """
    with contextlib.closing(Shards(directory, "runs", 0, runs.schema, shard_bytes)) as shards:
        shards.add(runs)
        return shards.finish(), shards.local


def _conform(rows: pa.Table, schema: pa.Schema) -> pa.Table:
    there = frozenset(rows.schema.names)
    new = sorted(there - set(schema.names))
    if new:
        raise ConflictError(f"metrics of new names were logged meanwhile: {', '.join(new[:3])}; try again")
    arrays = [
        rows[field.name].cast(field.type) if field.name in there else pa.nulls(rows.num_rows, field.type)
        for field in schema
    ]
    return pa.table(arrays, schema=schema)
