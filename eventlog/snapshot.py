"""One snapshot of one project: the rows of exactly the files that its manifest names."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Final, NamedTuple

import numpy as np
import pyarrow as pa

from eventlog import arrow, forks, names, runrows
from eventlog.arrow import Piece
from eventlog.errors import ConflictError, DataError
from eventlog.fs import Fs
from eventlog.manifest import DataFile, Manifest
from eventlog.parquet import DataFileReader, sha256

_OPEN_FILES: Final = 128
_COMPARED_BYTES: Final = 1 << 20


class ReaderCache:
    """Open data files, the most recently used ones. Thread-safe: a file never changes, so it never goes stale.

    Attributes:
        fs: the file system that they are on.
    """

    def __init__(self, fs: Fs, limit: int = _OPEN_FILES) -> None:
        """Keep at most `limit` files open."""
        self.fs = fs
        self._limit = limit
        self._readers: OrderedDict[str, DataFileReader] = OrderedDict()
        self._lock = threading.Lock()
        forks.register(self)

    def become_child(self) -> None:
        """Have a lock of its own."""
        self._lock = threading.Lock()

    def get(self, path: str, file: DataFile | None = None) -> DataFileReader:
        """Return the open file.

        Pages have checksums of their own, but neither their headers nor the footer have. So a file is compared with
        the manifest when it is opened: a small one byte by byte, a large one, of which little may be wanted, by size.

        Args:
            path: the file.
            file: what the manifest says of it.

        Raises:
            ConflictError: it was collected: re-open the store.
            DataError: it is damaged.
        """
        with self._lock:
            reader = self._readers.get(path)
            if reader is not None:
                self._readers.move_to_end(path)
                return reader
        try:
            if file is not None:
                self._compare(path, file)
            reader = DataFileReader(self.fs, path)
        except FileNotFoundError:
            raise ConflictError(f"{path} was collected since this snapshot was opened: open the store again") from None
        with self._lock:
            self._readers[path] = reader
            while len(self._readers) > self._limit:
                self._readers.popitem(last=False)
        return reader

    def _compare(self, path: str, file: DataFile) -> None:
        same = self.fs.size(path) == file.size_bytes
        if same and file.size_bytes <= _COMPARED_BYTES:
            same = sha256(self.fs, path) == file.sha256
        if not same:
            raise DataError(path, None, "the file is not what its manifest says")


class Selected(NamedTuple):
    """Some rows of a file: the pieces they are in, and the ranges to read."""

    reader: DataFileReader
    pieces: list[Piece]


class Snapshot:
    """The rows of one version. Thread-safe, immutable; whole as long as its files are within the grace period."""

    def __init__(self, fs: Fs, root: str, manifest: Manifest, cache: ReaderCache) -> None:
        """Take the manifest; files are opened when they are first needed."""
        self._fs = fs
        self._base = names.snapshot_dir(root, manifest.project)
        self._cache = cache
        self.manifest = manifest
        self._parts: pa.Table | None = None

    def paths(self, table: str) -> list[str]:
        """Return the full paths of a table's files."""
        return [os.path.join(self._base, file.path) for file in self.manifest.of_table(table)]

    def metric_names(self, table: str) -> set[str]:
        """Return the names of all metrics in a table."""
        sets = {file.names for file in self.manifest.of_table(table) if file.names >= 0}
        return {name for number in sets for name in self.manifest.name_sets[number]}

    def select(self, table: str, runs: Collection[str] | None, metric: str | None = None) -> Iterator[Selected]:
        """Yield the files that may hold rows of these runs, and of a metric, with the pieces in question.

        Raises:
            ConflictError: a file was collected.
            DataError: a file is damaged.
        """
        lowest, highest = (min(runs), max(runs)) if runs else ("", "")
        for file in self.manifest.of_table(table):
            if runs is not None and (not runs or file.max_run < lowest or file.min_run > highest):
                continue
            if metric is not None and not self._has_metric(file, metric):
                continue
            reader = self._cache.get(os.path.join(self._base, file.path), file)
            if runs is None:
                yield Selected(reader, reader.pieces)
                continue
            pieces = [piece for run in sorted(runs) for piece in reader.pieces_of(run)]
            if pieces:
                yield Selected(reader, pieces)

    def _has_metric(self, file: DataFile, metric: str) -> bool:
        return file.names >= 0 and metric in self.manifest.name_sets[file.names]

    def tables(self, table: str, runs: Collection[str] | None, columns: Sequence[str] | None) -> Iterator[pa.Table]:
        """Yield the rows of these runs, file by file; files without any of the metric columns asked for are left out.

        Raises:
            ConflictError: a file was collected.
            DataError: a file is damaged.
        """
        fixed = {field.name for field in arrow.STRUCTURAL[table]}
        metrics = None if columns is None else [column for column in columns if column not in fixed]
        for reader, pieces in self.select(table, runs):
            if metrics and not any(reader.has_column(column) for column in metrics):
                continue
            ranges = None if runs is None else [(piece.start, piece.rows) for piece in pieces]
            yield reader.read(columns, ranges)

    def since(self, table: str, cursor: Mapping[str, int]) -> Iterator[pa.Table]:
        """Yield the rows whose seq is above their writer's in `cursor`.

        Raises:
            ConflictError: a file was collected.
            DataError: a file is damaged.
        """
        for reader, pieces in self.select(table, None):
            for piece in pieces:
                known = cursor.get(piece.writer_id, 0)
                if piece.last_seq <= known:
                    continue
                rows = reader.read(None, [(piece.start, piece.rows)])
                if piece.first_seq <= known:
                    after = np.searchsorted(rows["_seq"].to_numpy(), known, side="right")
                    rows = rows.slice(int(after))
                yield rows

    def parts(self) -> pa.Table:
        """Return the parts of all runs, merged, one row a run, as `runrows.merge_tables`; made once.

        Raises:
            ConflictError: a file was collected.
            DataError: a file is damaged.
        """
        if self._parts is None:
            files = self.manifest.of_table("runs")
            readers = [self._cache.get(os.path.join(self._base, file.path), file) for file in files]
            self._parts = runrows.merge_tables(reader.read(runrows.PARTS.names) for reader in readers)
        return self._parts
