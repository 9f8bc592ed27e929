"""Export one table of one project as a single file: parquet, CSV or JSON lines."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from typing import IO, Any, Final, NamedTuple, Protocol

import msgspec
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from eventlog import arrow, jsonl, names, query
from eventlog.errors import ConflictError, UsageError
from eventlog.fs import LOCAL
from eventlog.store import Store

FORMATS: Final = ("parquet", "csv", "jsonl")


class Exported(NamedTuple):
    """A file that was made."""

    path: str
    rows: int
    size_bytes: int


class _Sink(Protocol):
    """Takes tables of one schema, one after the other."""

    def write(self, table: pa.Table, /) -> None:
        """Append rows."""

    def close(self) -> None:
        """Finish the file."""


def export(
    store: Store,
    project: str,
    path: str,
    *,
    table: str = "metrics",
    form: str = "parquet",
    narrow: bool = False,
    force: bool = False,
    progress: Callable[[int], None] | None = None,
) -> Exported:
    """Write a table to a file, which appears under its name when it is complete, or not at all.

    Numbers are written run by run, so that memory holds one run; `events` and `runs` are written at once. Runs that
    start while it runs are left out. Deleted runs are not exported.

    Parquet keeps every type. CSV has a header, quotes text that needs it, and an empty cell for what was not logged;
    NaN and infinities are nan, inf, -inf; lists and maps are JSON text. For JSON lines see `eventlog.jsonl`.

    Args:
        store: where from.
        project: its name.
        path: the file to make; its directory is made when it is missing.
        table: metrics, system, events or runs.
        form: parquet, csv or jsonl.
        narrow: one row a point instead of one a `log()`; for metrics only.
        force: replace a file of this name.
        progress: called with the number of rows written so far.

    Raises:
        UsageError: no such project, table or format, or the file is there already.
        ConflictError: a metric of a new name was logged meanwhile: try again.
        DataError: a file of the store is damaged.
        OSError: the file cannot be written; nothing is left behind.
    """
    _check(path, table, form, narrow=narrow, force=force)
    schema, batches = _read(store, project, table, narrow=narrow)
    directory = os.path.dirname(os.path.abspath(path))
    os.makedirs(directory, exist_ok=True)
    temporary = os.path.join(directory, names.temporary_name(os.path.basename(path)))
    try:
        rows = _write(temporary, _SINKS[form], schema, batches, progress)
        _check(path, table, form, narrow=narrow, force=force)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise
    LOCAL.sync_dir(directory)
    return Exported(path, rows, os.path.getsize(path))


def _write(
    path: str,
    make_sink: Callable[[IO[bytes], pa.Schema], _Sink],
    schema: pa.Schema,
    batches: Iterator[pa.Table],
    progress: Callable[[int], None] | None,
) -> int:
    rows = 0
    with open(path, "xb") as file:
        # Closed whatever happens: a writer that is left open writes to its file when it is thrown away.
        with contextlib.closing(make_sink(file, schema)) as sink:
            for batch in batches:
                sink.write(batch)
                rows += batch.num_rows
                if progress is not None:
                    progress(rows)
        file.flush()
        os.fsync(file.fileno())
    return rows


def _check(path: str, table: str, form: str, *, narrow: bool, force: bool) -> None:
    if form not in FORMATS:
        raise UsageError(f"there is no format {form!r}; there are: {', '.join(FORMATS)}")
    if table not in names.TABLES:
        raise UsageError(f"there is no table {table!r}; there are: {', '.join(names.TABLES)}")
    if narrow and table != "metrics":
        raise UsageError("only metrics have a narrow form")
    if os.path.isdir(path):
        raise UsageError(f"{path} is a directory")
    if os.path.exists(path) and not force:
        raise UsageError(f"{path} is there already; force replaces it")


def _read(store: Store, project: str, table: str, *, narrow: bool) -> tuple[pa.Schema, Iterator[pa.Table]]:
    if table == "runs":
        whole = store.runs(project)
        return whole.schema, iter([whole])
    if table == "events":
        whole = store.events(project)
        return whole.schema, iter([whole])
    run_ids = sorted(store.runs(project)["run_id"].to_pylist())
    columns = sorted(arrow.escape(name) for name in store.metric_names(project, table=table))
    if narrow:
        return query.NARROW, (store.metrics(project, runs=[run_id], narrow=True) for run_id in run_ids)
    schema = arrow.table_schema(table, columns)
    ask = store.metrics if table == "metrics" else store.system
    return schema, (_conform(ask(project, runs=[run_id]), schema) for run_id in run_ids)


def _conform(rows: pa.Table, schema: pa.Schema) -> pa.Table:
    new = sorted(set(rows.schema.names) - set(schema.names))
    if new:
        raise ConflictError(f"metrics of new names were logged meanwhile: {', '.join(new[:3])}; try again")
    names = frozenset(rows.schema.names)
    arrays = [rows[f.name] if f.name in names else pa.nulls(rows.num_rows, f.type) for f in schema]
    return pa.table(arrays, schema=schema)


class _Parquet:
    def __init__(self, file: IO[bytes], schema: pa.Schema) -> None:
        self._writer = pq.ParquetWriter(file, schema, compression="zstd")

    def write(self, table: pa.Table) -> None:
        self._writer.write_table(table)

    def close(self) -> None:
        self._writer.close()


class _Csv:
    def __init__(self, file: IO[bytes], schema: pa.Schema) -> None:
        fields = [pa.field(f.name, f.type if _fits_csv(f.type) else pa.string()) for f in schema]
        self._schema = pa.schema(fields)
        self._writer = pacsv.CSVWriter(file, self._schema)

    def write(self, table: pa.Table) -> None:
        columns = [_csv_column(table[field.name], field.type) for field in self._schema]
        self._writer.write_table(pa.table(columns, schema=self._schema))

    def close(self) -> None:
        self._writer.close()


def _fits_csv(kind: pa.DataType) -> bool:
    return not (pa.types.is_nested(kind) or pa.types.is_dictionary(kind))


def _csv_column(column: pa.ChunkedArray, kind: pa.DataType) -> Any:
    if not pa.types.is_nested(column.type):
        return column.cast(kind)
    is_map = pa.types.is_map(column.type)
    cells = [None if cell is None else dict(cell) if is_map else cell for cell in column.to_pylist()]
    texts = [None if cell is None else msgspec.json.encode(jsonl.speakable(cell)).decode() for cell in cells]
    return pa.array(texts, pa.string())


class _Lines:
    def __init__(self, file: IO[bytes], schema: pa.Schema) -> None:
        del schema
        self._file = file

    def write(self, table: pa.Table) -> None:
        self._file.writelines(jsonl.encode(row) for row in jsonl.rows(table))

    def close(self) -> None:
        """Do nothing: the file belongs to the caller."""


_SINKS: Final[dict[str, Callable[[IO[bytes], pa.Schema], _Sink]]] = {
    "parquet": _Parquet,
    "csv": _Csv,
    "jsonl": _Lines,
}
