"""Audit the data files of one snapshot against its manifest, row by row, in bounded memory."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from eventlog import arrow, names, parquet, runrows
from eventlog.arrow import Piece
from eventlog.checksum import MASK
from eventlog.errors import DataError
from eventlog.fs import Fs
from eventlog.manifest import DataFile, Manifest
from eventlog.proof import rows_checksum
from eventlog.runs import RunParts
from eventlog.verify import spans
from eventlog.verify.recount import Recount
from eventlog.verify.references import Reference, references
from eventlog.verify.report import Code
from eventlog.verify.sources import Say
from eventlog.verify.spans import EMPTY, Ints, Spans

_TABLES: Final = ("metrics", "system", "events")


class Folded:
    """What the snapshot's rows say about one writer.

    Attributes:
        checksums: by table, of its rows.
    """

    def __init__(self) -> None:
        """Start with no rows."""
        self.checksums: dict[str, int] = {}
        self._numbers: list[tuple[Ints, Ints]] = []
        self._events: dict[int, list[tuple[Ints, Ints]]] = {}
        self._rows = 0
        self._twice: list[tuple[Ints, Ints]] = []
        self._twice_rows = 0

    def add(self, table: str, number: int, rows: pa.Table) -> None:
        """Take in rows of one piece of the file of this number in the manifest, within one row group."""
        seq = rows["_seq"].combine_chunks().to_numpy()
        distinct, counts = np.unique(seq, return_counts=True)
        ranges = spans.ranges_of(distinct)
        if table == "events":
            self._events.setdefault(number, []).append(ranges)
            self._add_twice(*_events_twice(rows, seq, distinct[counts > 1]))
            return
        self._numbers.append(ranges)
        repeated = distinct[counts > 1]
        self._add_twice(repeated, len(seq) - len(distinct))

    def _add_twice(self, seqs: Ints, rows: int) -> None:
        self._twice.append(spans.ranges_of(seqs))
        self._twice_rows += rows

    def present(self) -> Spans:
        """Return the seqs of all rows."""
        return _united([*self._numbers, *(ranges for found in self._events.values() for ranges in found)])

    def doubled(self) -> tuple[int, Spans]:
        """Return how many rows there are too many, and of which seqs.

        A record is at most one row of metrics or system; its rows of events are in one file.
        """
        events = [_united(found) for found in self._events.values()]
        twice = spans.repeated(*_joined([(found.firsts, found.lasts) for found in events]))
        surplus = sum(len(found) for found in events) - len(_united([(f.firsts, f.lasts) for f in events]))
        numbers = _joined(self._numbers)
        twice = twice | spans.repeated(*numbers) | _united(self._twice)
        surplus += int((numbers[1] - numbers[0] + 1).sum()) - len(spans.union(*numbers)) + self._twice_rows
        return surplus, twice


def _joined(ranges: list[tuple[Ints, Ints]]) -> tuple[Ints, Ints]:
    if not ranges:
        return EMPTY.firsts, EMPTY.lasts
    return np.concatenate([firsts for firsts, _ in ranges]), np.concatenate([lasts for _, lasts in ranges])


def _united(ranges: list[tuple[Ints, Ints]]) -> Spans:
    return spans.union(*_joined(ranges))


def _events_twice(rows: pa.Table, seq: Ints, repeated: Ints) -> tuple[Ints, int]:
    """Return which records have the same event twice, and how many such rows; one record may have several events."""
    if not len(repeated):
        return repeated, 0
    several = rows.filter(pa.array(np.isin(seq, repeated)))
    keys = list(zip(several["_seq"].to_pylist(), several["name"].to_pylist(), strict=True))
    if len(set(keys)) == len(keys):
        return repeated[:0], 0
    known: set[Any] = set()
    twice = [key[0] for key in keys if key in known or known.add(key)]  # type: ignore[func-returns-value]
    return np.unique(np.array(twice, np.int64)), len(twice)


class Audit:
    """Goes through the files of one manifest; call `run` once.

    Attributes:
        writers: what the rows say, by writer.
        checksums: of all rows, by table.
        recount: what the rows say about runs.
    """

    def __init__(
        self, fs: Fs, root: str, manifest: Manifest, say: Say, name_blobs: Callable[[Reference], None]
    ) -> None:
        """Take the manifest, and where findings and references to blobs go."""
        self._fs = fs
        self._root = root
        self._base = names.snapshot_dir(root, manifest.project)
        self._manifest = manifest
        self._say = say
        self._name_blobs = name_blobs
        self._whole = True
        self._claimed = RunParts()
        self.writers: dict[str, Folded] = {}
        self.checksums: dict[str, int] = dict.fromkeys(_TABLES, 0)
        self.recount = Recount()

    def run(self, progress: Callable[[str], None]) -> None:
        """Read every file.

        Raises:
            OSError: a file is there but cannot be read.
        """
        for number, file in enumerate(self._manifest.files):
            path = os.path.join(self._base, file.path)
            where = os.path.relpath(path, self._root)
            progress(where)
            try:
                self._whole = self._check_bytes(file, path, where) and self._read(number, file, where) and self._whole
            except FileNotFoundError:
                self._whole = False
                self._say("file_missing", where, f"the manifest names it, with {file.rows} rows, and it is not there")
        if self._whole:
            for run_id, text in self.recount.compare(self._claimed).items():
                self._say("runs_wrong", f"run {run_id}" if run_id else "records of no run", text)

    def _check_bytes(self, file: DataFile, path: str, where: str) -> bool:
        """Say whether the bytes are those that were published; nothing else is parsed."""
        size = self._fs.size(path)
        if size != file.size_bytes:
            self._say("file_changed", where, f"has {size} bytes, the manifest says {file.size_bytes}")
        elif parquet.sha256(self._fs, path) != file.sha256:
            self._say("file_changed", where, "its bytes do not match the SHA-256 in the manifest")
        else:
            return True
        return False

    def _read(self, number: int, file: DataFile, where: str) -> bool:
        try:
            reader = parquet.DataFileReader(self._fs, os.path.join(self._base, file.path))
            if file.table == "runs":
                self._read_runs(file, where, reader)
            else:
                _FileAudit(self, number, file, where, reader).run()
        except DataError as error:
            self._say("file_changed", where, error.reason)
            return False
        return True

    def _read_runs(self, file: DataFile, where: str, reader: parquet.DataFileReader) -> None:
        table = reader.read(None)
        parts = runrows.table_to_parts(table)
        if len(parts) != file.rows:
            self._say("rows_wrong", where, f"has {len(parts)} rows, the manifest says {file.rows}")
        if not runrows.agree(table, parts):
            self._say("runs_wrong", where, "its plain columns do not say what its parts say")
        for part in parts:
            self._claimed.add(part)

    def take(self, table: str, number: int, piece: Piece, rows: pa.Table) -> None:
        """Take in the rows of one piece within one row group of the file of this number in the manifest."""
        self.writers.setdefault(piece.writer_id, Folded()).add(table, number, rows)
        self.recount.add(table, piece, rows)
        if table == "events":
            found = rows.filter(pc.match_substring(rows["payload"], "sha256"))
            for kind, payload in zip(found["kind"].to_pylist(), found["payload"].to_pylist(), strict=True):
                for reference in references(kind, payload):
                    self._name_blobs(reference)

    def take_checksum(self, table: str, writer_id: str, checksum: int) -> None:
        """Take in the checksum of some rows of one writer."""
        sums = self.writers.setdefault(writer_id, Folded()).checksums
        sums[table] = (sums.get(table, 0) + checksum) & MASK
        self.checksums[table] = (self.checksums[table] + checksum) & MASK

    def say(self, code: Code, where: str, message: str) -> None:
        """Report a finding."""
        self._say(code, where, message)

    def metric_names(self, file: DataFile) -> set[str]:
        """Return the names that the manifest gives a file's metrics."""
        known = 0 <= file.names < len(self._manifest.name_sets)
        return set(self._manifest.name_sets[file.names]) if known else set()


class _FileAudit:
    """One file of rows: read row group by row group, each once."""

    def __init__(self, audit: Audit, number: int, file: DataFile, where: str, reader: parquet.DataFileReader) -> None:
        self._audit = audit
        self._number = number
        self._file = file
        self._where = where
        self._reader = reader
        self._pieces: list[Piece] = []
        self._sorted = True
        self._checksum = 0
        self._rows = 0

    def run(self) -> None:
        for start, rows in self._reader.group_ranges():
            self._read_group(self._reader.read(None, [(start, rows)]))
        file, say, where = self._file, self._audit.say, self._where
        if self._rows != file.rows:
            say("rows_wrong", where, f"has {self._rows} rows, the manifest says {file.rows}")
        found = f"{self._checksum & MASK:016x}"
        if found != file.checksum:
            say("checksum_wrong", where, f"its rows have the checksum {found}, the manifest says {file.checksum}")
        if not self._sorted:
            say("order_wrong", where, "its rows are not sorted by run, writer and seq")
        elif self._pieces != self._reader.pieces:
            say("index_wrong", where, "the index in its footer does not say where which rows are")
        if self._pieces and (file.min_run, file.max_run) != (self._pieces[0].run_id, self._pieces[-1].run_id):
            say("index_wrong", where, "the manifest does not say which runs are in it")
        columns = arrow.metric_columns(file.table, self._reader.schema)
        if {arrow.unescape(column) for column in columns} != self._audit.metric_names(file):
            say("index_wrong", where, "the manifest does not say which metrics are in it")

    def _read_group(self, rows: pa.Table) -> None:
        runs, run_codes = _coded(rows["_run_id"])
        writers, writer_codes = _coded(rows["_writer"])
        changes = np.flatnonzero((np.diff(run_codes) != 0) | (np.diff(writer_codes) != 0)) + 1
        starts = [0, *changes.tolist()] if rows.num_rows else []
        for start, end in zip(starts, [*starts[1:], rows.num_rows], strict=True):
            part = rows.slice(start, end - start)
            self._add_piece(runs[run_codes[start]], writers[writer_codes[start]], part)
        for code, writer_id in enumerate(writers):
            mine = rows if len(writers) == 1 else rows.filter(pa.array(writer_codes == code))
            checksum = rows_checksum(self._file.table, mine)
            self._checksum += checksum
            self._audit.take_checksum(self._file.table, writer_id, checksum)
        self._rows += rows.num_rows

    def _add_piece(self, run_id: str, writer_id: str, rows: pa.Table) -> None:
        seq = rows["_seq"].combine_chunks().to_numpy()
        piece = Piece(run_id, writer_id, self._rows, rows.num_rows, int(seq[0]), int(seq[-1]))
        table = self._file.table
        least = 0 if table == "events" else 1
        self._sorted = self._sorted and bool((np.diff(seq) >= least).all())
        last = self._pieces[-1] if self._pieces else None
        if last is not None and (last.run_id, last.writer_id) == (run_id, writer_id):
            self._sorted = self._sorted and piece.first_seq - last.last_seq >= least
            self._pieces[-1] = last._replace(rows=last.rows + piece.rows, last_seq=piece.last_seq)
        else:
            at = last.start + last.rows if last is not None else 0
            self._sorted = self._sorted and (last is None or (last.run_id, last.writer_id) < (run_id, writer_id))
            self._pieces.append(piece._replace(start=at))
        self._audit.take(table, self._number, piece, rows)


def _coded(column: pa.ChunkedArray) -> tuple[list[str], NDArray[np.int64]]:
    encoded = column.cast(pa.string()).combine_chunks().dictionary_encode()
    return encoded.dictionary.to_pylist(), encoded.indices.to_numpy().astype(np.int64)
