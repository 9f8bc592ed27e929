"""Write a page's tables: parquet that the page's reader takes, run by run, in bounded memory."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from compactor.page.layout import ID_COLUMNS, metric_columns
from compactor.page.rows import NUMBER, OTHER, STEP, TIMESTAMP
from eventlog.fs import LOCAL
from eventlog.sink import Sink

# Snappy, and no encoding but the plain one and dictionaries: of others the page's reader takes no notice, or breaks.
# Pages end where the content says, so that the Hub knows most of a table again that has grown.
_FORM: Final[dict[str, Any]] = {
    "compression": "snappy",
    "use_dictionary": True,
    "version": "2.6",
    "store_schema": False,
    "use_content_defined_chunking": True,
}
_CELLS_AT_ONCE: Final = 4_000_000
_IDS: Final = [pa.field(name, pa.string()) for name in ID_COLUMNS]


class Spooled(NamedTuple):
    """The rows of one run, in a file of this machine.

    Attributes:
        run_id, name: of the run.
        path: of the file, which holds Arrow's own form.
        columns: names of its columns.
    """

    run_id: str
    name: str
    path: str
    columns: tuple[str, ...]

    def load(self) -> Iterator[pa.Table]:
        """Yield the rows, as many at once as they were spooled.

        Raises:
            OSError: the file cannot be read.
        """
        with pa.OSFile(self.path) as file, pa.ipc.open_file(file) as reader:
            for index in range(reader.num_record_batches):
                yield pa.Table.from_batches([reader.get_batch(index)])


def spool(path: str, tables: Iterable[pa.Table], run_id: str, name: str) -> Spooled:
    """Write the rows of one run, at least one table of them, to a file, which is made or replaced.

    Raises:
        OSError: it cannot be written.
    """
    each = iter(tables)
    first = next(each)
    with _file(path) as file, pa.ipc.new_file(file, first.schema) as writer:
        for table in itertools.chain([first], each):
            writer.write_table(table)
    return Spooled(run_id, name, path, tuple(first.column_names))


@contextlib.contextmanager
def _file(path: str) -> Iterator[Sink]:
    """Make or replace a file that Arrow writes, in which it never sees a write fail."""
    with open(path, "wb", buffering=0) as file:
        sink = Sink(LOCAL, file.fileno())
        yield sink
        sink.check()


class Form(NamedTuple):
    """What the table of all runs looks like.

    Attributes:
        schema: of the table.
        columns: what a column of a run is called there; by default as before.
    """

    schema: pa.Schema
    columns: Mapping[str, str]

    @classmethod
    def of(cls, types: Mapping[str, pa.DataType]) -> Form:
        """Return the form of a table whose columns all runs have."""
        return cls(pa.schema([*_IDS, *map(pa.field, types, types.values())]), {})


def wide(runs: Sequence[Spooled], *, with_step: bool) -> Form:
    """Return the form of a table with a column, or two, for each name that any of these runs logged."""
    columns = final_columns(name for run in runs for name in run.columns)
    fields = [*_IDS, pa.field(TIMESTAMP, pa.string()), *[pa.field(STEP, pa.int64())] * with_step]
    fields += [pa.field(columns[name], _type(name)) for name in sorted(columns)]
    return Form(pa.schema(fields), columns)


def write_runs(path: str, runs: Iterable[Spooled], form: Form) -> int:
    """Write the rows of all runs as one table, and return their number.

    Raises:
        OSError: a file cannot be read or written.
    """
    rows = 0
    with _file(path) as file, contextlib.closing(pq.ParquetWriter(file, form.schema, **_FORM)) as writer:
        tables = (_conformed(run, table, form) for run in runs for table in run.load())
        for group in _grouped(tables, len(form.schema)):
            writer.write_table(group)
            rows += group.num_rows
    return rows


def final_columns(names: Iterable[str]) -> dict[str, str]:
    """Return the column that each column of a spooled run becomes."""
    found = set(names)
    numbers = {name.removeprefix(NUMBER) for name in found if name.startswith(NUMBER)}
    others = {name.removeprefix(OTHER) for name in found if name.startswith(OTHER)}
    first, second = metric_columns(numbers, others)
    return {NUMBER + name: to for name, to in first.items()} | {OTHER + name: to for name, to in second.items()}


def _type(name: str) -> pa.DataType:
    return pa.float64() if name.startswith(NUMBER) else pa.string()


def _conformed(run: Spooled, table: pa.Table, form: Form) -> pa.Table:
    rows = table.num_rows
    found = {form.columns.get(name, name): table[name] for name in table.column_names}
    found["run_id"] = pa.chunked_array([pa.repeat(run.run_id, rows)])
    found["run_name"] = pa.chunked_array([pa.repeat(run.name, rows)])
    return pa.table([found.get(f.name, pa.nulls(rows, f.type)) for f in form.schema], schema=form.schema)


def _grouped(tables: Iterable[pa.Table], width: int) -> Iterator[pa.Table]:
    """Put tables into row groups of so many cells: each column of each group costs the page a look."""
    gathered: list[pa.Table] = []
    rows = 0
    for table in tables:
        gathered.append(table)
        rows += table.num_rows
        if rows * width >= _CELLS_AT_ONCE:
            yield pa.concat_tables(gathered)
            gathered, rows = [], 0
    if gathered:
        yield pa.concat_tables(gathered)


def write_table(path: str, table: pa.Table) -> None:
    """Write a small table.

    Raises:
        OSError: it cannot be written.
    """
    with _file(path) as file, contextlib.closing(pq.ParquetWriter(file, table.schema, **_FORM)) as writer:
        writer.write_table(table)
