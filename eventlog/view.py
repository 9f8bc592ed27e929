"""A view: one snapshot and its tail, read at one moment; a record is in one of the two, never in both."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from itertools import pairwise
from typing import Final, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from eventlog import arrow, query, runrows
from eventlog.errors import UsageError
from eventlog.live import LiveTail
from eventlog.resume import Earlier
from eventlog.runs import RunPart
from eventlog.snapshot import Snapshot

TRIES: Final = 20
"""How often a tail is read again while snapshots are published, before it is given up."""


class _Piece(NamedTuple):
    """Some points of a curve, of one writer, in seq order."""

    writer_id: str
    first_seq: int
    last_seq: int
    rows: pa.Table


class _Known(NamedTuple):
    """What tells a run from others."""

    run_id: str
    name: str
    last_step: int | None
    deleted: bool


class View:
    """What answers come from. Not thread-safe: its store holds a lock.

    Attributes:
        snapshot: the immutable part.
        tail: what came after it; None when the store is pinned to the snapshot.
        newest: the newest version that was there before the snapshot was read; it may be damaged.
    """

    def __init__(self, snapshot: Snapshot, tail: LiveTail | None, newest: int = 0) -> None:
        """Take both halves."""
        self.snapshot = snapshot
        self.tail = tail
        self.newest = newest
        self._parts: pa.Table | None = None
        self._shown: dict[bool, pa.Table] = {}
        self._known: dict[str, _Known] = {}
        self._looks = -1

    def parts(self) -> pa.Table:
        """Return the parts of all runs, merged, one row a run; made again only when the tail has grown.

        Raises:
            ConflictError: a file was collected.
            DataError: a file is damaged.
        """
        looks = self.tail.looks if self.tail is not None else 0
        if self._parts is None or self._looks != looks:
            parts = self.tail.parts() if self.tail is not None else ()
            self._parts = runrows.add_parts(self.snapshot.parts(), parts)
            self._shown.clear()
            self._known.clear()
            self._looks = looks
        return self._parts

    def runs(self, *, deleted: bool) -> pa.Table:
        """Return the table of runs, with or without deleted ones.

        Raises:
            ConflictError: a file was collected.
            DataError: a file is damaged.
        """
        parts = self.parts()
        if deleted not in self._shown:
            self._shown[deleted] = runrows.show(parts, deleted=deleted)
        return self._shown[deleted]

    def known(self) -> dict[str, _Known]:
        """Return what tells runs from each other, by id, deleted ones too.

        Raises:
            ConflictError: a file was collected.
            DataError: a file is damaged.
        """
        shown = self.runs(deleted=True)
        if not self._known:
            columns = (shown[name].to_pylist() for name in ("run_id", "name", "last_step", "deleted"))
            self._known = {row[0]: _Known(*row) for row in zip(*columns, strict=True)}
        return self._known

    def find(self, *, name: str | None = None, run_id: str | None = None) -> Earlier | None:
        """Return the run with this id, or the latest of this name, if it is not deleted."""
        if run_id is not None:
            found = self.known().get(run_id)
        else:
            # They are in the order of creation.
            named = (run for run in reversed(self.known().values()) if run.name == name and not run.deleted)
            found = next(named, None)
        return None if found is None or found.deleted else Earlier(found.run_id, found.name, found.last_step)

    def one_run(self, run: str) -> str:
        """Return the id of a run given by id or name.

        Raises:
            UsageError: there is no such run.
        """
        found = self.find(run_id=run) or self.find(name=run)
        if found is None:
            raise UsageError(f"there is no run {run!r} in project {self.snapshot.manifest.project!r}")
        return found.run_id

    def wanted(self, runs: Sequence[str] | None) -> Collection[str] | None:
        """Return the ids of the runs asked for, by id or name, without deleted ones; None for all.

        Raises:
            UsageError: there is no such run.
        """
        known = self.known()
        deleted = {run.run_id for run in known.values() if run.deleted}
        if runs is None:
            # Events of no run, such as `dropped`, are there whatever was deleted.
            return {"", *(run_id for run_id in known if run_id not in deleted)} if deleted else None
        found: set[str] = set()
        for run in runs:
            matching = {run} if run in known else {key for key, each in known.items() if each.name == run}
            if not matching:
                raise UsageError(f"there is no run {run!r} in project {self.snapshot.manifest.project!r}")
            found |= matching
        return found - deleted

    def rows(self, table: str, runs: Sequence[str] | None, columns: Sequence[str] | None) -> pa.Table:
        """Return the rows of these runs, sorted; with only these columns when they are given.

        Raises:
            UsageError: there is no such run.
            ConflictError: a file was collected.
            DataError: a file is damaged.
        """
        return self._united(table, self.wanted(runs), columns)

    def rows_of(self, table: str, run_ids: Collection[str]) -> pa.Table:
        """Return the rows of exactly these runs, sorted, deleted ones too; "" is what belongs to no run.

        Raises:
            ConflictError: a file was collected.
            DataError: a file is damaged.
        """
        return self._united(table, run_ids, None)

    def _united(self, table: str, wanted: Collection[str] | None, columns: Sequence[str] | None) -> pa.Table:
        found = list(self.snapshot.tables(table, wanted, columns))
        if self.tail is not None:
            found.append(self.tail.table(table, wanted))
        return query.unite(table, found, columns)

    def since(self, table: str, cursor: Mapping[str, int]) -> pa.Table:
        """Return the rows whose seq is above their writer's in the cursor, sorted.

        Raises:
            ConflictError: a file was collected.
            DataError: a file is damaged.
        """
        parts = list(self.snapshot.since(table, cursor))
        if self.tail is not None:
            parts.append(self.tail.table(table, None, cursor))
        rows = query.unite(table, parts, None)
        wanted = self.wanted(None)
        if wanted is None:
            return rows
        return rows.filter(pc.is_in(rows["_run_id"].cast(pa.string()), pa.array(sorted(wanted), pa.string())))

    def reached(self) -> dict[str, int]:
        """Return how far each writer was read, as a cursor."""
        marks = self.tail.marks if self.tail is not None else self.snapshot.manifest.writers
        return {writer_id: mark.seq for writer_id, mark in marks.items()}

    def curve(self, run_id: str, name: str) -> pa.Table:
        """Return all points of a metric of a run, in the order of (_writer, _seq).

        Raises:
            ConflictError: a file was collected.
            DataError: a file is damaged.
        """
        columns = ["_step", "_time", arrow.escape(name)]
        pieces = [*self._folded_pieces(run_id, name, columns), *self._tail_pieces(run_id, name, columns)]
        if not pieces:
            return query.CURVE.empty_table()
        pieces.sort(key=lambda piece: piece[:2])
        table = pa.concat_tables([piece.rows for piece in pieces])
        if any(a.writer_id == b.writer_id and a.last_seq >= b.first_seq for a, b in pairwise(pieces)):
            table = table.take(pa.array(_order(pieces)))
        points = table[columns[2]]
        if points.null_count:
            table = table.filter(pc.is_valid(points))
        return pa.table([table[column] for column in columns], schema=query.CURVE)

    def _folded_pieces(self, run_id: str, name: str, columns: list[str]) -> list[_Piece]:
        found: list[_Piece] = []
        for reader, pieces in self.snapshot.select("metrics", [run_id], name):
            rows = reader.read([*columns, "_seq"], [(piece.start, piece.rows) for piece in pieces])
            start = 0
            for piece in pieces:
                found.append(_Piece(piece.writer_id, piece.first_seq, piece.last_seq, rows.slice(start, piece.rows)))
                start += piece.rows
        return found

    def _tail_pieces(self, run_id: str, name: str, columns: list[str]) -> list[_Piece]:
        found: list[_Piece] = []
        for block in self.tail.blocks("metrics", [run_id]) if self.tail is not None else ():
            if name in block.names:
                at = block.names.index(name)
                only = block._replace(names=(name,), values=block.values[:, at : at + 1])
                rows = arrow.blocks_to_rows("metrics", [only]).table.select([*columns, "_seq"])
                found.append(_Piece(block.writer_id, int(block.seq[0]), int(block.seq[-1]), rows))
        return found


def _order(pieces: list[_Piece]) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Return the order of points by (writer, seq) when pieces overlap."""
    codes = np.unique([piece.writer_id for piece in pieces], return_inverse=True)[1]
    writers = np.repeat(codes, [piece.rows.num_rows for piece in pieces])
    seqs = np.concatenate([piece.rows["_seq"].to_numpy() for piece in pieces])
    return np.lexsort((seqs, writers))


def name_of(part: RunPart) -> str:
    """Return a run's name for people; its id when nothing gave it one."""
    return part.name[1] if part.name else part.run_id


def started(part: RunPart) -> tuple[int, str]:
    """Return what orders runs by their creation."""
    return (part.start[0].time_ns if part.start else 0, part.run_id)
