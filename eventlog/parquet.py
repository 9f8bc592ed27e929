"""Parquet files of a snapshot: how they are written, the index in their footer, and reading just some rows of them."""

from __future__ import annotations

import bisect
import contextlib
import hashlib
import os
from collections.abc import Iterator, Sequence
from typing import IO, Any, Final

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from eventlog import arrow, names
from eventlog.arrow import Piece
from eventlog.errors import DataError
from eventlog.fs import Expecting, Fs
from eventlog.sink import Sink

ROW_GROUP_ROWS: Final = 65_536
_ROW_GROUP_CELLS: Final = 1 << 20
ROW_GROUP_BYTES: Final = 16 << 20
_INDEX_KEY: Final = b"eventlog.index"


class _Index(msgspec.Struct, array_like=True):
    """The pieces of a file: run and writer as indexes into two lists, then start, rows, first and last seq."""

    runs: list[str]
    writers: list[str]
    pieces: list[tuple[int, int, int, int, int, int]]


_index_decoder: Final = msgspec.json.Decoder(_Index)


def _encode_index(pieces: Sequence[Piece]) -> bytes:
    runs = sorted({piece.run_id for piece in pieces})
    writers = sorted({piece.writer_id for piece in pieces})
    run_code = {run: code for code, run in enumerate(runs)}
    writer_code = {writer: code for code, writer in enumerate(writers)}
    rows = [(run_code[p.run_id], writer_code[p.writer_id], p.start, p.rows, p.first_seq, p.last_seq) for p in pieces]
    return msgspec.json.encode(_Index(runs, writers, rows))


def _decode_index(data: bytes) -> list[Piece]:
    index = _index_decoder.decode(data)
    return [Piece(index.runs[run], index.writers[writer], *rest) for run, writer, *rest in index.pieces]


class Writer:
    """Stages one parquet file, row group by row group; durable under its final name after `finish`. Not thread-safe."""

    def __init__(
        self, fs: Fs, root: str, project: str, table: str, schema: pa.Schema, version: int, level: int = 0
    ) -> None:
        """Create the file.

        Args:
            fs: the file system.
            root: the store.
            project: the project.
            table: metrics, system, events or runs.
            schema: of the rows.
            version: that it is staged for.
            level: of the file. Level 0 is written fast, for it will soon be merged; from level 1 on files are
                smaller, and chunked by content, so that uploads of merged files share what they have in common.

        Raises:
            OSError: as the file system raises it.
        """
        self._fs = fs
        self._schema = schema
        self._name = names.data_file_name(version)
        self.path = names.data_file_path(table, self._name)
        self._directory = os.path.join(names.snapshot_dir(root, project), "data", table)
        fs.make_dirs(self._directory)
        self._full_path = os.path.join(self._directory, self._name)
        self._fd = fs.create(self._full_path)
        self._sink = Sink(fs, self._fd)
        self._file = pa.PythonFile(self._sink, mode="w")
        try:
            self._writer = pq.ParquetWriter(self._file, schema, **_options(table, schema, level))
            self._sink.check()
        except BaseException:
            self.discard()
            raise
        self.rows = 0

    def write(self, table: pa.Table) -> None:
        """Append one row group.

        Raises:
            OSError: as the file system raises it.
        """
        self._writer.write_table(table, row_group_size=max(table.num_rows, 1))
        self._sink.check()
        self.rows += table.num_rows

    def finish(self, pieces: Sequence[Piece]) -> tuple[int, str]:
        """Write the footer with the index, sync the file, and return (size in bytes, SHA-256).

        The name is durable only after `sync_directories`.

        Raises:
            OSError: as the file system raises it.
        """
        if pieces:
            self._writer.add_key_value_metadata({_INDEX_KEY: _encode_index(pieces)})
        self._writer.close()
        self._file.close()
        self._sink.check()
        self._fs.sync(self._fd)
        self._fs.close(self._fd)
        return self._sink.size, self._sink.digest.hexdigest()

    def discard(self) -> None:
        """Remove the staged file: it was not needed, or could not be finished."""
        # Arrow's destructor writes a footer: it must not reach a descriptor that may be somebody else's by then.
        self._sink.discarded = True
        with contextlib.suppress(OSError):
            self._fs.close(self._fd)
        with contextlib.suppress(FileNotFoundError):
            self._fs.unlink(self._full_path)


def sync_directories(fs: Fs, root: str, project: str, tables: set[str]) -> None:
    """Make the names of staged files durable.

    Raises:
        OSError: as the file system raises it.
    """
    for table in sorted(tables):
        fs.sync_dir(os.path.join(names.snapshot_dir(root, project), "data", table))


def _options(table: str, schema: pa.Schema, level: int) -> dict[str, Any]:
    delta = [name for name in ("_step", "_time", "_seq") if name in schema.names]
    encoding = dict.fromkeys(delta, "DELTA_BINARY_PACKED")
    fixed = {field.name for field in arrow.STRUCTURAL.get(table, ())}
    dictionary: list[str] | bool = [n for n in ("_run_id", "_writer", "_rank", "kind", "name") if n in fixed]
    if table in ("metrics", "system"):
        encoding |= dict.fromkeys(arrow.metric_columns(table, schema), "BYTE_STREAM_SPLIT")
    return {
        "compression": "zstd",
        "compression_level": 3 if level else 1,
        "use_dictionary": dictionary or False,
        "column_encoding": encoding or None,
        "write_page_index": True,
        "write_page_checksum": True,
        "use_content_defined_chunking": level > 0,
        "data_page_version": "2.0",
        "version": "2.6",
    }


def row_group_rows(columns: int, row_bytes: int = 0) -> int:
    """Return how many rows a row group should have, so that it stays small enough to hold several in memory."""
    rows = min(ROW_GROUP_ROWS, max(_ROW_GROUP_CELLS // max(columns, 1), 1024))
    return max(min(rows, ROW_GROUP_BYTES // row_bytes), 1) if row_bytes else rows


def row_groups(pieces: Sequence[Piece], target_rows: int = ROW_GROUP_ROWS) -> Iterator[tuple[int, int]]:
    """Yield (start, rows) of row groups that do not mix many runs: cut between runs if that fits, within long ones."""
    start = end = 0
    run_start = 0
    for index, piece in enumerate(pieces):
        end = piece.start + piece.rows
        last_of_run = index + 1 == len(pieces) or pieces[index + 1].run_id != piece.run_id
        if not last_of_run:
            continue
        if end - start > target_rows and run_start > start:
            yield start, run_start - start
            start = run_start
        while end - start > target_rows:
            yield start, target_rows
            start += target_rows
        run_start = end
    if end > start:
        yield start, end - start


class DataFileReader:
    """An open parquet file of a snapshot: its footer is read once, its rows on demand. Thread-safe.

    Attributes:
        path: of the file.
        source: what pyarrow opens: the path, or a file of pyarrow's. Its threads let go of the latter only after this
            has, else they may do so while Python ends, which aborts it.
        schema: of the file.
        pieces: which rows belong to which run and writer.
    """

    def __init__(self, fs: Fs, path: str) -> None:
        """Read the footer.

        Raises:
            FileNotFoundError: the file is gone.
            DataError: the file is no intact parquet file of ours.
        """
        self.path = path
        try:
            source: str | IO[bytes] = fs.source(path)
            self.source: Any = source if isinstance(source, str) else pa.PythonFile(source, mode="r")
            self._file = pq.ParquetFile(self.source, pre_buffer=False, page_checksum_verification=True)
        except (pa.ArrowException, OSError) as error:
            raise damage(path, error, "not an intact parquet file") from None
        self._expecting = source if isinstance(source, Expecting) else None
        self.schema: pa.Schema = self._file.schema_arrow
        self._columns: dict[str, int] = {
            self._file.schema.column(i).path: i for i in range(len(self._file.schema.names))
        }
        metadata = self._file.metadata
        self.rows: int = metadata.num_rows
        self._starts: list[int] = [0]
        for group in range(metadata.num_row_groups):
            self._starts.append(self._starts[-1] + metadata.row_group(group).num_rows)
        index = (metadata.metadata or {}).get(_INDEX_KEY)
        try:
            self.pieces: list[Piece] = [] if index is None else _decode_index(index)
        except (msgspec.MsgspecError, IndexError, TypeError) as error:
            raise DataError(path, None, f"the index in the footer is damaged: {error}") from None
        self._by_run: dict[str, list[Piece]] = {}
        for piece in self.pieces:
            self._by_run.setdefault(piece.run_id, []).append(piece)

    def pieces_of(self, run_id: str) -> list[Piece]:
        """Return the pieces of one run."""
        return self._by_run.get(run_id, [])

    def has_column(self, column: str) -> bool:
        """Say whether there is such a column."""
        return column in self._columns

    def read(self, columns: Sequence[str] | None, ranges: Sequence[tuple[int, int]] | None = None) -> pa.Table:
        """Return some columns of some rows.

        Args:
            columns: those that exist are read, in this order; None is all.
            ranges: (start, rows), ascending and apart; None is all rows.

        Raises:
            DataError: the bytes cannot be decoded.
        """
        wanted = None if columns is None else [c for c in columns if self.has_column(c) or c in self.schema.names]
        try:
            if ranges is None:
                self._expect(range(self._file.num_row_groups), wanted)
                return self._file.read(columns=wanted, use_threads=False)
            return self._read_ranges(wanted, ranges)
        except (pa.ArrowException, OSError) as error:
            raise damage(self.path, error, "cannot be decoded") from None
        finally:
            if self._expecting is not None:
                self._expecting.expect(())  # else an open file holds the bytes that were read last

    def _read_ranges(self, columns: list[str] | None, ranges: Sequence[tuple[int, int]]) -> pa.Table:
        groups: list[int] = []
        slices: list[tuple[int, int]] = []
        loaded = 0
        for start, rows in ranges:
            end = start + rows
            group = bisect.bisect_right(self._starts, start) - 1
            while group < len(self._starts) - 1 and self._starts[group] < end:
                if not groups or groups[-1] != group:
                    groups.append(group)
                    loaded += self._starts[group + 1] - self._starts[group]
                base = loaded - self._starts[group + 1]
                first = max(start, self._starts[group])
                slices.append((base + first, min(end, self._starts[group + 1]) - first))
                group += 1
        self._expect(groups, columns)
        table = self._file.read_row_groups(groups, columns=columns, use_threads=False)
        if slices == [(0, table.num_rows)]:
            return table
        return pa.concat_tables([table.slice(start, rows) for start, rows in _joined(slices)])

    def _expect(self, groups: Sequence[int], columns: Sequence[str] | None) -> None:
        """Announce what is about to be read to a file that wants to know."""
        if self._expecting is not None:
            self._expecting.expect(sorted(_byte_ranges(self._file.metadata, groups, columns)))

    def group_ranges(self) -> list[tuple[int, int]]:
        """Return (start, rows) of each row group."""
        return [(a, b - a) for a, b in zip(self._starts, self._starts[1:], strict=False)]


def _byte_ranges(
    metadata: pq.FileMetaData, groups: Sequence[int], columns: Sequence[str] | None
) -> Iterator[tuple[int, int]]:
    """Yield where the bytes of some columns are, as (start, end); a column of lists or maps has parts of its own."""
    wanted = None if columns is None else frozenset(columns)
    for number in groups:
        group = metadata.row_group(number)
        for index in range(group.num_columns):
            column = group.column(index)
            path = column.path_in_schema
            if wanted is None or path in wanted or path.split(".")[0] in wanted:
                start = min(filter(None, (column.dictionary_page_offset, column.data_page_offset)))
                yield start, start + column.total_compressed_size


def damage(path: str, error: Exception, what: str) -> Exception:
    """Return the error of ours for one of pyarrow's; an error of the operating system stays what it is.

    pyarrow reports damaged bytes as OSError too, but without an errno.
    """
    if isinstance(error, OSError) and error.errno is not None:
        return error
    return DataError(path, None, f"{what}: {error}")


def _joined(slices: list[tuple[int, int]]) -> list[tuple[int, int]]:
    joined: list[tuple[int, int]] = []
    for start, rows in slices:
        if joined and joined[-1][0] + joined[-1][1] == start:
            joined[-1] = (joined[-1][0], joined[-1][1] + rows)
        else:
            joined.append((start, rows))
    return joined or [(0, 0)]


def sha256(fs: Fs, path: str) -> str:
    """Return the SHA-256 of a file, read in bounded memory.

    Raises:
        OSError: it cannot be read.
    """
    digest = hashlib.sha256()
    offset = 0
    while data := fs.read(path, offset, 4 << 20):
        digest.update(data)
        offset += len(data)
    return digest.hexdigest()
