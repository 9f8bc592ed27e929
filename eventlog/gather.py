"""Blocks: rows of numbers of one run, writer and set of names, gathered from single records and whole chunks."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from eventlog import schema
from eventlog import stretch as fast


class Block(NamedTuple):
    """Rows of `metrics` or `system`: of one run, one writer and one set of names, in seq order.

    Attributes:
        run_id: of the run.
        rank: of the writer's process, or None.
        writer_id: of the writer.
        names: the metrics, one a column of `values`.
        seq: int64[rows].
        time_ns: int64[rows].
        step: int64[rows], or None when no row has a step.
        has_step: bool[rows], or None when all rows have one.
        values: float64[rows, names].
    """

    run_id: str
    rank: int | None
    writer_id: str
    names: tuple[str, ...]
    seq: NDArray[np.int64]
    time_ns: NDArray[np.int64]
    step: NDArray[np.int64] | None
    has_step: NDArray[np.bool_] | None
    values: NDArray[np.float64]


class Gathering:
    """Rows of one run and one set of names, on their way to a block: single records and whole chunks, in seq order."""

    def __init__(self, table: str, shape: schema.Shape) -> None:
        """Take the table and what the rows have in common."""
        self.table = table
        self.run_id = shape.run_id
        # What does not fit the column is no rank of any launcher.
        self.rank = shape.rank if shape.rank is not None and 0 <= shape.rank < 1 << 31 else None
        self.names = tuple(shape.names)
        self._chunks: list[_Chunk] = []
        self._seqs: list[int] = []
        self._times: list[int] = []
        self._steps: list[int | None] = []
        self._values: list[bytes] = []

    def add_one(self, seq: int, time_ns: int, step: int | None, packed: bytes) -> None:
        """Add the record of one call."""
        self._seqs.append(seq)
        self._times.append(time_ns)
        self._steps.append(step)
        self._values.append(packed)

    def add_columns(self, first_seq: int, columns: fast.Columns) -> None:
        """Add what was taken apart at once."""
        self._settle()
        seq = np.arange(first_seq, first_seq + columns.count, dtype=np.int64)
        has_step = None if columns.step is not None else np.zeros(columns.count, bool)
        step = columns.step if columns.step is not None else np.zeros(columns.count, np.int64)
        self._chunks.append(_Chunk(seq, columns.time_ns, step, has_step, columns.values))

    def _settle(self) -> None:
        if not self._seqs:
            return
        has_step = np.array([s is not None for s in self._steps], bool)
        step = np.array([0 if s is None else s for s in self._steps], np.int64)
        matrix = np.frombuffer(b"".join(self._values), "<f8").reshape(len(self._seqs), len(self.names))
        times, seqs = np.array(self._times, np.int64), np.array(self._seqs, np.int64)
        self._chunks.append(_Chunk(seqs, times, step, None if has_step.all() else has_step, matrix))
        self._seqs, self._times, self._steps, self._values = [], [], [], []

    def block(self, writer_id: str) -> Block:
        """Return everything as one block."""
        self._settle()
        chunks = self._chunks
        rows = sum(len(chunk.seq) for chunk in chunks)
        matrix = np.empty((rows, len(self.names)), np.float64, order="F")
        at = 0
        for chunk in chunks:
            matrix[at : at + len(chunk.seq)] = chunk.values
            at += len(chunk.seq)
        has_step = None
        if any(chunk.has_step is not None for chunk in chunks):
            has_step = np.concatenate([np.ones(len(c.seq), bool) if c.has_step is None else c.has_step for c in chunks])
        step = None if has_step is not None and not has_step.any() else np.concatenate([c.step for c in chunks])
        return Block(
            self.run_id,
            self.rank,
            writer_id,
            self.names,
            np.concatenate([c.seq for c in chunks]),
            np.concatenate([c.time_ns for c in chunks]),
            step,
            has_step if step is not None else None,
            matrix,
        )


class _Chunk(NamedTuple):
    seq: NDArray[np.int64]
    time_ns: NDArray[np.int64]
    step: NDArray[np.int64]
    has_step: NDArray[np.bool_] | None
    values: NDArray[np.float64]
