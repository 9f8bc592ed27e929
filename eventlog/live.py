"""The tail of one project as a reader holds it: what was read stays decoded, and each look reads only what is new."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Final

import numpy as np
import pyarrow as pa

from eventlog import arrow, names, tail
from eventlog.columns import Batch
from eventlog.errors import ConflictError, NewerFormatError
from eventlog.fs import Fs
from eventlog.gather import Block
from eventlog.glance import Glance
from eventlog.manifest import Gap, Manifest, Watermark
from eventlog.runs import RunPart

_KEPT_BYTES: Final = 128 * 1024 * 1024


class LiveTail:
    """Records after a manifest's watermarks. Not thread-safe: its store holds a lock.

    Attributes:
        marks: how far each writer was read.
        refused: writers of a newer format, with the reason.
        gaps: records missing from the tail.
        batches: what each look brought.
        looks: how often a look found something new.
    """

    def __init__(self, fs: Fs, root: str, manifest: Manifest) -> None:
        """Start at the manifest's watermarks."""
        self._fs = fs
        self._root = root
        self.manifest = manifest
        self.marks: dict[str, Watermark] = dict(manifest.writers)
        self.refused: dict[str, str] = {}
        self.gaps: list[Gap] = []
        self.batches: list[Batch] = []
        self._bytes = 0
        self._glance = Glance(fs, root, manifest.project)
        self._around_gaps: dict[str, frozenset[int]] = {}
        self.looks = 0

    def refresh(self, upto: Mapping[str, Watermark] | None = None) -> None:
        """Read what was appended since the last look; a writer whose files look the same is not read.

        Args:
            upto: read no further than these watermarks.

        Raises:
            ConflictError: a segment was collected: these watermarks are too old to read on from.
            OSError: a file cannot be read.
        """
        batch = Batch()
        for writer_id in self._glance.living(self.marks):
            if self._glance.is_same(writer_id):
                continue
            changed_ns = self._glance.changed_ns(writer_id)
            mark = self.marks.get(writer_id, Watermark())
            reader = tail.WriterReader(self._fs, self._root, self.manifest.project, writer_id, mark, batch)
            try:
                found = reader.read(last_seq=_until(upto, writer_id))
            except NewerFormatError as error:
                self.refused[writer_id] = str(error)
                continue
            except FileNotFoundError as error:
                raise ConflictError(f"{error.filename} was collected meanwhile: open the store again") from None
            self.marks[writer_id] = found.watermark
            if upto is None:
                self._glance.remember(writer_id, changed_ns, found.watermark)
            self.gaps += found.gaps
            if found.gaps:
                self._around_gaps[writer_id] = self._segnos(writer_id)
            self._bytes += reader.used_bytes
        if batch.records:
            self.batches.append(batch)
            self.looks += 1

    def has_late_segments(self) -> bool:
        """Say whether a segment has turned up that was passed over as missing: then only a new tail shows its rows."""
        return any(
            segno not in known and segno <= self.marks[writer_id].segno
            for writer_id, known in self._around_gaps.items()
            for segno in self._segnos(writer_id)
        )

    def _segnos(self, writer_id: str) -> frozenset[int]:
        listed = self._fs.names(names.writer_dir(self._root, self.manifest.project, writer_id))
        parsed = (names.parse_segment_name(name) for name in listed)
        return frozenset(found[0] for found in parsed if found is not None)

    @property
    def is_large(self) -> bool:
        """Whether it holds so much that it should not be kept."""
        return self._bytes > _KEPT_BYTES

    def parts(self) -> Iterator[RunPart]:
        """Yield what the records say about runs."""
        for batch in self.batches:
            yield from batch.runs.parts.values()

    def metric_names(self, table: str) -> set[str]:
        """Return the names of all metrics in a table."""
        return {name for batch in self.batches for block in _blocks(batch, table) for name in block.names}

    def blocks(self, table: str, runs: Collection[str] | None) -> list[Block]:
        """Return the blocks of these runs, in the order they were read."""
        found = [block for batch in self.batches for block in _blocks(batch, table)]
        return [block for block in found if runs is None or block.run_id in runs]

    def table(self, table: str, runs: Collection[str] | None, since: Mapping[str, int] | None = None) -> pa.Table:
        """Return the rows of these runs, sorted; with `since`, those whose seq is above their writer's in it."""
        if table == "events":
            rows = [
                row
                for batch in self.batches
                for row in batch.events
                if (runs is None or row.run_id in runs) and (since is None or row.seq > since.get(row.writer_id, 0))
            ]
            return arrow.events_to_rows(rows).table
        blocks = self.blocks(table, runs)
        if since is not None:
            blocks = [part for block in blocks if (part := _after(block, since.get(block.writer_id, 0))) is not None]
        return arrow.blocks_to_rows(table, blocks).table


def _until(upto: Mapping[str, Watermark] | None, writer_id: str) -> int:
    if upto is None:
        return tail.NO_LIMIT
    return upto[writer_id].seq if writer_id in upto else 0


def _blocks(batch: Batch, table: str) -> list[Block]:
    return batch.metrics if table == "metrics" else batch.system


def _after(block: Block, seq: int) -> Block | None:
    start = int(np.searchsorted(block.seq, seq, side="right"))
    if start == len(block.seq):
        return None
    return block._replace(
        seq=block.seq[start:],
        time_ns=block.time_ns[start:],
        step=None if block.step is None else block.step[start:],
        has_step=None if block.has_step is None else block.has_step[start:],
        values=block.values[start:],
    )
