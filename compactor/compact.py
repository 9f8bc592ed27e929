"""Compact: merge files of one level into larger, sorted ones, in bounded memory, checking every row on the way."""

from __future__ import annotations

import os
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from compactor import stage
from compactor.commit import StagedFile
from compactor.plan import Merge
from eventlog import arrow, names, parquet, runrows
from eventlog.arrow import Piece
from eventlog.checksum import MASK
from eventlog.errors import DataError
from eventlog.fs import Fs
from eventlog.manifest import DataFile, Manifest
from eventlog.proof import rows_checksum
from eventlog.runs import RunParts

_Key = tuple[str, str]


def merge(fs: Fs, root: str, manifest: Manifest, planned: Merge) -> list[StagedFile]:
    """Stage the files that replace those of a planned merge; rows, order and checksum are those of the inputs.

    Raises:
        DataError: an input is damaged, or the output would not have the inputs' checksum; nothing is staged.
        OSError: as the file system raises it; what was staged is removed.
    """
    version = manifest.version + 1
    if planned.table == "runs":
        return [_merge_runs(fs, root, manifest.project, planned, version)]
    return [_Merging(fs, root, manifest.project, planned, version).run()]


def _merge_runs(fs: Fs, root: str, project: str, planned: Merge, version: int) -> StagedFile:
    merged = RunParts()
    for file in planned.files:
        reader = parquet.DataFileReader(fs, os.path.join(names.snapshot_dir(root, project), file.path))
        for part in runrows.table_to_parts(reader.read(None)):
            merged.add(part)
    return stage.stage_parts(fs, root, project, merged.parts.values(), version, planned.level + 1)


class _Cursor:
    """Reads one input from front to back, holding one row group."""

    def __init__(self, reader: parquet.DataFileReader) -> None:
        self.reader = reader
        self.pieces: dict[_Key, list[Piece]] = {}
        for piece in reader.pieces:
            self.pieces.setdefault((piece.run_id, piece.writer_id), []).append(piece)
        self._groups = reader.group_ranges()
        self._held = -1
        self._table: pa.Table = reader.schema.empty_table()

    def chunks(self, key: _Key) -> Iterator[pa.Table]:
        """Yield the rows of a run and writer, a row group's worth at a time."""
        for piece in self.pieces.get(key, ()):
            for index, (start, rows) in enumerate(self._groups):
                first, last = max(start, piece.start), min(start + rows, piece.start + piece.rows)
                if first < last:
                    if index != self._held:
                        self._table = self.reader.read(None, [(start, rows)])
                        self._held = index
                    chunk = self._table.slice(first - start, last - first)
                    if last == start + rows:
                        # It is read through: a merge holds a row group of each input that it is in the middle of.
                        self._held, self._table = -1, self.reader.schema.empty_table()
                    yield chunk


class _Merging:
    """One output of a merge, while it is made."""

    def __init__(self, fs: Fs, root: str, project: str, planned: Merge, version: int) -> None:
        base = names.snapshot_dir(root, project)
        self._table = planned.table
        self._level = planned.level + 1
        self._files = planned.files
        self._cursors = [_Cursor(parquet.DataFileReader(fs, os.path.join(base, file.path))) for file in planned.files]
        columns = sorted(
            {c for cursor in self._cursors for c in arrow.metric_columns(self._table, cursor.reader.schema)}
        )
        if self._table == "events":
            columns = []
        self._schema = arrow.table_schema(self._table, columns)
        self._columns = columns
        self._writer = parquet.Writer(fs, root, project, self._table, self._schema, version, self._level)
        self._pieces: list[Piece] = []
        self._pending: list[pa.Table] = []
        self._pending_rows = 0
        self._pending_bytes = 0
        self._rows = 0
        self._checksum = 0
        self._target = parquet.row_group_rows(len(columns))

    def run(self) -> StagedFile:
        """Merge everything and finish the file."""
        try:
            for key in sorted({key for cursor in self._cursors for key in cursor.pieces}):
                self._merge_key(key)
            self._flush()
            expected = self._checked()
            size, digest = self._writer.finish(self._pieces)
        except BaseException:
            self._writer.discard()
            raise
        file = DataFile(
            path=self._writer.path,
            table=self._table,
            rows=self._rows,
            size_bytes=size,
            sha256=digest,
            checksum=f"{expected:016x}",
            level=self._level,
            min_run=self._pieces[0].run_id,
            max_run=self._pieces[-1].run_id,
        )
        return StagedFile(file, tuple(arrow.unescape(column) for column in self._columns))

    def _checked(self) -> int:
        """Return the checksum of the output, which must be that of the inputs."""
        expected = sum(int(file.checksum, 16) for file in self._files) & MASK
        if self._checksum & MASK != expected or self._rows != sum(file.rows for file in self._files):
            raise DataError(self._files[0].path, None, "a merge would change rows: refused, inputs are kept")
        return expected

    def _merge_key(self, key: _Key) -> None:
        if self._pending_rows >= self._target and (not self._pieces or self._pieces[-1].run_id != key[0]):
            self._flush()
        start, first, last = self._rows, -1, -1
        for table in in_seq_order([cursor.chunks(key) for cursor in self._cursors if key in cursor.pieces]):
            seqs = table["_seq"]
            first = seqs[0].as_py() if first < 0 else first
            last = seqs[-1].as_py()
            self._add(conform(table, self._schema))
        self._pieces.append(Piece(*key, start, self._rows - start, first, last))

    def _add(self, table: pa.Table) -> None:
        self._pending.append(table)
        self._rows += table.num_rows
        self._pending_rows += table.num_rows
        self._pending_bytes += table.nbytes
        if self._pending_rows >= self._target or self._pending_bytes >= parquet.ROW_GROUP_BYTES:
            self._flush()

    def _flush(self) -> None:
        if not self._pending_rows:
            return
        table = pa.concat_tables(self._pending).unify_dictionaries().combine_chunks()
        self._checksum += rows_checksum(self._table, table)
        for start in range(0, table.num_rows, self._target):
            self._writer.write(table.slice(start, self._target))
        self._pending, self._pending_rows, self._pending_bytes = [], 0, 0


def conform(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """Return a table with a wider schema; columns that it lacks are null."""
    if table.schema.names == schema.names:
        return table.cast(schema)
    arrays = [
        table[field.name] if field.name in table.schema.names else pa.nulls(table.num_rows, field.type)
        for field in schema
    ]
    return pa.table(arrays, schema=schema)


def in_seq_order(inputs: list[Iterator[pa.Table]]) -> Iterator[pa.Table]:
    """Yield the rows of several inputs, each in seq order, as tables in overall seq order.

    Holds one chunk an input. Folds of one writer do not overlap, so most often this only takes turns.
    """
    heads: list[tuple[pa.Table, Iterator[pa.Table]]] = []
    for source in inputs:
        table = next(source, None)
        if table is not None:
            heads.append((table, source))
    while heads:
        heads.sort(key=lambda head: int(head[0]["_seq"][0].as_py()))
        first, source = heads[0]
        bound = heads[1][0]["_seq"][0].as_py() if len(heads) > 1 else None
        if bound is not None and first["_seq"][-1].as_py() >= bound:
            yield _interleave(heads)
            continue
        yield first
        following = next(source, None)
        heads[0:1] = [] if following is None else [(following, source)]


def _interleave(heads: list[tuple[pa.Table, Iterator[pa.Table]]]) -> pa.Table:
    """Take from all heads what can be ordered now: up to the lowest of their last seqs."""
    bound = min(int(table["_seq"][-1].as_py()) for table, _ in heads)
    taken: list[pa.Table] = []
    remaining: list[tuple[pa.Table, Iterator[pa.Table]]] = []
    for table, source in heads:
        count = int(np.searchsorted(table["_seq"].to_numpy(), bound, side="right"))
        if count:
            taken.append(table.slice(0, count))
        rest: pa.Table | None = table.slice(count)
        if rest is not None and not rest.num_rows:
            rest = next(source, None)
        if rest is not None:
            remaining.append((rest, source))
    heads[:] = remaining
    together = pa.concat_tables(taken, promote_options="default").unify_dictionaries()
    order = pc.sort_indices(together["_seq"])
    return together.take(order)
