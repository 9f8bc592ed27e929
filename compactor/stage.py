"""Stage the rows of a batch as parquet files: written and synced, but named by no manifest yet."""

from __future__ import annotations

from collections.abc import Iterable

from compactor.commit import StagedFile
from compactor.grouping import share_files
from eventlog import arrow, names, parquet, runrows
from eventlog.checksum import MASK, event_hash
from eventlog.columns import Batch, block_checksum
from eventlog.fs import Fs
from eventlog.gather import Block
from eventlog.manifest import DataFile
from eventlog.runs import RunPart


def stage_batch(fs: Fs, root: str, project: str, batch: Batch, version: int) -> list[StagedFile]:
    """Write a batch's rows; return the files, in a fixed order of tables and name sets.

    Raises:
        OSError: as the file system raises it; what was written is removed.
    """
    staged: list[StagedFile] = []
    try:
        for table, blocks in (("metrics", batch.metrics), ("system", batch.system)):
            for group in _grouped(blocks):
                rows = arrow.blocks_to_rows(table, group)
                checksum = sum(block_checksum(table, block) for block in group) & MASK
                staged.append(_write(fs, root, project, table, rows, checksum, version))
        if batch.events:
            checksum = sum(event_hash(row) for row in batch.events) & MASK
            staged.append(_write(fs, root, project, "events", arrow.events_to_rows(batch.events), checksum, version))
        if batch.runs.parts:
            staged.append(stage_parts(fs, root, project, batch.runs.parts.values(), version, 0))
    except BaseException:
        discard(fs, root, project, staged)
        raise
    return staged


def _grouped(blocks: list[Block]) -> list[list[Block]]:
    by_names: dict[frozenset[str], list[Block]] = {}
    for block in blocks:
        by_names.setdefault(frozenset(block.names), []).append(block)
    sets = list(by_names)
    sizes = [(names, sum(len(block.seq) for block in by_names[names])) for names in sets]
    return [[block for index in group for block in by_names[sets[index]]] for group in share_files(sizes)]


def _write(fs: Fs, root: str, project: str, table: str, rows: arrow.Rows, checksum: int, version: int) -> StagedFile:
    writer = parquet.Writer(fs, root, project, table, rows.table.schema, version)
    try:
        metric_names = tuple(arrow.unescape(c) for c in arrow.metric_columns(table, rows.table.schema))
        target = parquet.row_group_rows(len(metric_names), rows.table.nbytes // max(rows.table.num_rows, 1))
        for start, count in parquet.row_groups(rows.pieces, target):
            writer.write(rows.table.slice(start, count))
        size, digest = writer.finish(rows.pieces)
    except BaseException:
        writer.discard()
        raise
    file = DataFile(
        path=writer.path,
        table=table,
        rows=writer.rows,
        size_bytes=size,
        sha256=digest,
        checksum=f"{checksum:016x}",
        level=0,
        min_run=rows.pieces[0].run_id,
        max_run=rows.pieces[-1].run_id,
    )
    return StagedFile(file, metric_names if table != "events" else ())


def stage_parts(fs: Fs, root: str, project: str, parts: Iterable[RunPart], version: int, level: int) -> StagedFile:
    """Write parts of runs as one file.

    Raises:
        OSError: as the file system raises it; what was written is removed.
    """
    table = runrows.parts_to_table(parts)
    writer = parquet.Writer(fs, root, project, "runs", table.schema, version, level)
    try:
        writer.write(table)
        size, digest = writer.finish(())
    except BaseException:
        writer.discard()
        raise
    run_ids = table["_run_id"]
    file = DataFile(
        path=writer.path,
        table="runs",
        rows=table.num_rows,
        size_bytes=size,
        sha256=digest,
        checksum="",
        level=level,
        min_run=run_ids[0].as_py(),
        max_run=run_ids[-1].as_py(),
    )
    return StagedFile(file, ())


def discard(fs: Fs, root: str, project: str, staged: list[StagedFile]) -> None:
    """Remove staged files that were not committed; what cannot be removed is garbage for a later collect."""
    for item in staged:
        remove_file(fs, root, project, item.file.path)


def remove_file(fs: Fs, root: str, project: str, path: str) -> bool:
    """Remove a data file by its path in a manifest; False when it was gone or could not be removed."""
    try:
        fs.unlink(_full_path(root, project, path))
    except OSError:
        return False
    return True


def _full_path(root: str, project: str, path: str) -> str:
    return "/".join((names.snapshot_dir(root, project), path))
