"""Rebuild: replace damaged data files by what the segments still hold, proven equal by rows and checksum."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from compactor import stage
from compactor.commit import Change, StagedFile, commit
from compactor.config import CompactorConfig
from compactor.errors import LostRaceError
from eventlog import manifest as manifests
from eventlog import names, parquet
from eventlog.checksum import MASK
from eventlog.columns import Batch
from eventlog.errors import DataError
from eventlog.fs import Fs
from eventlog.gather import Block
from eventlog.manifest import DataFile, Manifest, Watermark
from eventlog.tail import WriterReader

_Seqs = NDArray[np.int64]


class Rebuilt(NamedTuple):
    """What a rebuild did.

    Attributes:
        files: paths of damaged files that were replaced, relative to the snapshot.
        damaged: those that could not be, with the reason; they stay, and so do all segments.
    """

    files: list[str]
    damaged: dict[str, str]


def broken_files(fs: Fs, root: str, manifest: Manifest) -> list[DataFile]:
    """Return the files of a snapshot that are missing or are not what their manifest says; reads every byte.

    Raises:
        OSError: a file cannot be read at all.
    """
    base = names.snapshot_dir(root, manifest.project)
    return [file for file in manifest.files if not _is_whole(fs, os.path.join(base, file.path), file)]


def _is_whole(fs: Fs, path: str, file: DataFile) -> bool:
    try:
        return fs.size(path) == file.size_bytes and parquet.sha256(fs, path) == file.sha256
    except FileNotFoundError:
        return False


def rebuild(
    fs: Fs, root: str, project: str, config: CompactorConfig, *, time_ns: Callable[[], int] = time.time_ns
) -> Rebuilt:
    """Find the damaged files of a project's snapshot and replace those whose records are still in segments.

    The rows that intact files lack are decoded again. They are committed only if their number and their order-free
    checksum are those that the manifest gives for the damaged files: so nothing is lost, doubled or invented.
    Memory is bounded by a batch and by the seqs of one writer.

    Raises:
        DataError: the newest manifest is of a newer format.
        OSError: as the file system raises it.
    """
    while True:
        manifest, _ = manifests.load_newest(fs, root, project)
        broken = broken_files(fs, root, manifest)
        if not broken:
            return Rebuilt([], {})
        try:
            return _replace(fs, root, manifest, broken, config, time_ns)
        except LostRaceError:
            continue


def _replace(
    fs: Fs,
    root: str,
    manifest: Manifest,
    broken: list[DataFile],
    config: CompactorConfig,
    time_ns: Callable[[], int],
) -> Rebuilt:
    staged: list[StagedFile] = []
    replaced: list[DataFile] = []
    damaged: dict[str, str] = {}
    try:
        staged, found = _stage_missing(fs, root, manifest, broken, config)
        for table in sorted({file.table for file in broken}):
            lost = [file for file in broken if file.table == table]
            reason = _unproven(table, lost, staged, manifest, found)
            if reason is None:
                replaced += manifest.of_table(table) if table == "runs" else lost
                continue
            damaged |= dict.fromkeys((file.path for file in lost), reason)
            stage.discard(fs, root, manifest.project, [item for item in staged if item.file.table == table])
            staged = [item for item in staged if item.file.table != table]
        if replaced:
            change = Change(action="rebuild", added=staged, removed=[file.path for file in replaced])
            commit(fs, root, manifest.project, change, time_ns=time_ns)
    except (LostRaceError, DataError):
        stage.discard(fs, root, manifest.project, staged)
        raise
    paths = {file.path for file in replaced}
    return Rebuilt([file.path for file in broken if file.path in paths], damaged)


def _unproven(
    table: str, lost: list[DataFile], staged: list[StagedFile], manifest: Manifest, found: dict[str, int]
) -> str | None:
    """Say why what was staged for a table does not prove to be what was lost; None when it does."""
    if table == "runs":
        wanted = {writer_id: mark.records for writer_id, mark in manifest.writers.items()}
        got, needed = sum(found.values()), sum(wanted.values())
        same = found == wanted
    else:
        files = [item.file for item in staged if item.file.table == table]
        got, needed = sum(file.rows for file in files), sum(file.rows for file in lost)
        same = got == needed and _checksum(files) == _checksum(lost)
    if same:
        return None
    what = "records" if table == "runs" else "rows"
    return f"cannot be rebuilt: segments that are kept hold {got} of its {needed} {what}"


def _checksum(files: list[DataFile]) -> int:
    return sum(int(file.checksum, 16) for file in files) & MASK


def _stage_missing(
    fs: Fs, root: str, manifest: Manifest, broken: list[DataFile], config: CompactorConfig
) -> tuple[list[StagedFile], dict[str, int]]:
    """Stage the rows that intact files lack, of the tables with broken ones; count the records read, by writer."""
    tables = {file.table for file in broken}
    intact = _Intact(fs, root, manifest, broken)
    staged: list[StagedFile] = []
    found: dict[str, int] = {}
    together = Batch()
    for batch in _batches(fs, root, manifest, config, found):
        missing = Batch()
        if "metrics" in tables:
            missing.metrics = _lacking(batch.metrics, "metrics", intact)
        if "system" in tables:
            missing.system = _lacking(batch.system, "system", intact)
        if "events" in tables:
            missing.events = [row for row in batch.events if not intact.holds("events", row.writer_id, row.seq)]
        if "runs" in tables:
            for part in batch.runs.parts.values():
                together.runs.add(part)
        staged += stage.stage_batch(fs, root, manifest.project, missing, manifest.version + 1)
    staged += stage.stage_batch(fs, root, manifest.project, together, manifest.version + 1)
    return staged, found


def _batches(fs: Fs, root: str, manifest: Manifest, config: CompactorConfig, found: dict[str, int]) -> Iterator[Batch]:
    """Yield every folded record that segments still hold, in batches of bounded size."""
    batch, left = Batch(), config.batch_bytes
    for writer_id, mark in sorted(manifest.writers.items()):
        at = Watermark()
        while True:
            reader = WriterReader(fs, root, manifest.project, writer_id, at, batch)
            read = reader.read(left, last_seq=mark.seq)
            at = read.watermark
            left -= reader.used_bytes
            if left <= 0:
                yield batch
                batch, left = Batch(), config.batch_bytes
            if not read.more:
                break
        found[writer_id] = at.records
    yield batch


class _Intact:
    """Which records intact files hold, one table and writer in memory at a time."""

    def __init__(self, fs: Fs, root: str, manifest: Manifest, broken: list[DataFile]) -> None:
        base = names.snapshot_dir(root, manifest.project)
        lost = {file.path for file in broken}
        tables = {file.table for file in broken} - {"runs"}
        self._readers = {
            table: [
                parquet.DataFileReader(fs, os.path.join(base, file.path))
                for file in manifest.of_table(table)
                if file.path not in lost
            ]
            for table in tables
        }
        self._gaps: dict[str, list[tuple[int, int]]] = {}
        for gap in manifest.gaps:
            self._gaps.setdefault(gap.writer_id, []).append((gap.first_seq, gap.last_seq))
        self._cached: dict[str, tuple[str, _Seqs]] = {}
        self._cached_set: tuple[str, frozenset[int]] = ("", frozenset())

    def seqs(self, table: str, writer_id: str) -> _Seqs:
        """Return the seqs of a writer that need no rebuilding: those of intact rows, and those of gaps."""
        cached = self._cached.get(table)
        if cached is not None and cached[0] == writer_id:
            return cached[1]
        held = [np.arange(first, last + 1, dtype=np.int64) for first, last in self._gaps.get(writer_id, ())]
        for reader in self._readers[table]:
            ranges = [(piece.start, piece.rows) for piece in reader.pieces if piece.writer_id == writer_id]
            if ranges:
                held.append(reader.read(["_seq"], ranges)["_seq"].combine_chunks().to_numpy())
        seqs = np.unique(np.concatenate(held)) if held else np.empty(0, np.int64)
        self._cached[table] = (writer_id, seqs)
        return seqs

    def holds(self, table: str, writer_id: str, seq: int) -> bool:
        """Say whether a record needs no rebuilding."""
        if self._cached_set[0] != writer_id:
            self._cached_set = (writer_id, frozenset(self.seqs(table, writer_id).tolist()))
        return seq in self._cached_set[1]


def _lacking(blocks: list[Block], table: str, intact: _Intact) -> list[Block]:
    """Return the rows of blocks that intact files lack."""
    lacking: list[Block] = []
    for block in blocks:
        wanted = np.isin(block.seq, intact.seqs(table, block.writer_id), assume_unique=True, invert=True)
        if not wanted.any():
            continue
        kept = block._replace(
            seq=block.seq[wanted],
            time_ns=block.time_ns[wanted],
            step=None if block.step is None else block.step[wanted],
            has_step=None if block.has_step is None else block.has_step[wanted],
            values=np.asfortranarray(block.values[wanted]),
        )
        if kept.has_step is not None and not kept.has_step.any():
            kept = kept._replace(step=None, has_step=None)
        lacking.append(kept)
    return lacking
