"""`query_project`: read-only SQL over a project's tables with duckdb, which can reach no file and no network."""

from __future__ import annotations

import threading
from typing import Any, Final

import msgspec
import pyarrow as pa

from compactor.serve.errors import NotFoundError, RequestError, UnavailableError
from compactor.serve.hub import Hub
from compactor.serve.sampler import iso_times
from eventlog import names
from eventlog.errors import EventLogError
from eventlog.store import open_store

_MEMORY: Final = "512MB"
_MOST_BYTES: Final = 32 * 1024 * 1024
_ROWS_AT_ONCE: Final = 256


class Query(msgspec.Struct):
    """Arguments of `query_project`."""

    project: str
    query: str


def query_project(hub: Hub, call: Query) -> dict[str, Any]:
    """Return the rows of a query over the tables metrics, system, events and runs, complete to the last record."""
    try:
        import duckdb
    except ImportError:
        raise UnavailableError("SQL needs duckdb: pip install 'eventlog[sql]'") from None
    if hub.find(call.project) is None:
        raise NotFoundError(f"there is no project {call.project!r}")
    text = call.query.strip().rstrip(";").strip()
    connection = duckdb.connect(":memory:")
    timer = threading.Timer(hub.config.query_s, connection.interrupt)
    try:
        for setting in _CONFINED:
            connection.execute(setting)
        _check(duckdb, connection, text)
        for name in names.TABLES:
            connection.register(name, _table(hub, call.project, name))
        timer.start()
        # One row more than may be: it tells that there are too many, and the rest is never made.
        rows = _bounded(connection.sql(text).limit(hub.config.query_rows + 1))
    except duckdb.InterruptException:
        raise RequestError(f"the query took longer than {hub.config.query_s:g} s") from None
    except duckdb.Error as error:
        raise RequestError(f"the query failed: {error}") from None
    finally:
        timer.cancel()
        connection.close()
    if rows.num_rows > hub.config.query_rows:
        raise RequestError(f"the query returned more than {hub.config.query_rows} rows: add a LIMIT")
    try:
        columns = [_plain(column) for column in rows.columns]
    except (pa.ArrowException, ValueError, OverflowError) as error:
        raise RequestError(f"the answer cannot be shown, cast it to text: {error}") from None
    return {
        "project": call.project,
        "query": text,
        "columns": rows.column_names,
        "rows": [dict(zip(rows.column_names, row, strict=True)) for row in zip(*columns, strict=True)],
        "row_count": rows.num_rows,
    }


_CONFINED: Final = (
    "SET autoinstall_known_extensions = false",
    "SET autoload_known_extensions = false",
    f"SET memory_limit = '{_MEMORY}'",
    "SET temp_directory = ''",
    "SET threads = 1",
    "SET python_enable_replacements = false",
    "SET enable_external_access = false",
    "SET lock_configuration = true",
)


def _bounded(relation: Any) -> pa.Table:
    """Return the rows of a query.

    Raises:
        RequestError: they take too much memory.
    """
    reader = relation.to_arrow_reader(_ROWS_AT_ONCE)
    batches: list[pa.RecordBatch] = []
    for batch in reader:
        batches.append(batch)
        if sum(item.nbytes for item in batches) > _MOST_BYTES:
            raise RequestError(f"the answer has more than {_MOST_BYTES >> 20} MiB: ask for less")
    return pa.Table.from_batches(batches, schema=reader.schema)


def _check(duckdb: Any, connection: Any, text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise RequestError("the query is no valid Unicode") from None
    statements = connection.extract_statements(text)
    if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
        raise RequestError("only one SELECT (or WITH ... SELECT) can be asked")


def _table(hub: Hub, project: str, name: str) -> pa.Table:
    store = open_store(hub.root)
    try:
        if name == "runs":
            return store.runs(project)
        rows: pa.Table = getattr(store, name)(project)
    except EventLogError as error:
        raise UnavailableError(str(error)) from error
    fields = [field.with_type(pa.string()) if pa.types.is_dictionary(field.type) else field for field in rows.schema]
    return rows.cast(pa.schema(fields))


def _plain(column: pa.ChunkedArray) -> list[Any]:
    if pa.types.is_timestamp(column.type):
        times = column.cast(pa.timestamp("ns")).cast(pa.int64())
        stamps = iso_times(times.fill_null(0).to_numpy())
        return [stamp if there else None for stamp, there in zip(stamps, column.is_valid().to_pylist(), strict=True)]
    values: list[Any] = column.to_pylist()
    return [value if isinstance(value, bool | int | float | str | None) else _text(value) for value in values]


def _text(value: Any) -> Any:
    return value if isinstance(value, list | dict) else str(value)
