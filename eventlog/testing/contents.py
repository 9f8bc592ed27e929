"""Everything that a store holds as plain rows, read in several independent ways, so that tests can compare them."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

from eventlog import arrow, names, parquet, runrows, segment, tail
from eventlog import manifest as manifests
from eventlog.columns import Batch, Decoder
from eventlog.fs import Fs
from eventlog.gather import Block
from eventlog.manifest import Manifest, Watermark
from eventlog.runs import RunParts

if TYPE_CHECKING:
    import pyarrow as pa

_FLOAT = struct.Struct("<d")


class Row(NamedTuple):
    """One row, hashable; floats are the hex of their eight bytes, so that NaNs compare and payloads count."""

    table: str
    writer_id: str
    seq: int
    run_id: str
    rank: int | None
    step: int | None
    time_ns: int
    cells: tuple[tuple[str, str], ...]


def cell(number: float) -> str:
    """Return what stands for a float in a row."""
    return _FLOAT.pack(number).hex()


def of_batch(batch: Batch) -> list[Row]:
    """Return the rows of a batch, sorted."""
    rows = [row for block in batch.metrics for row in _block_rows("metrics", block)]
    rows += [row for block in batch.system for row in _block_rows("system", block)]
    for event in batch.events:
        cells = (("kind", event.kind), ("name", event.name), ("payload", event.payload))
        where = ("events", event.writer_id, event.seq, event.run_id)
        rows.append(Row(*where, None, event.step, event.time_ns, cells))
    return _in_order(rows)


def _block_rows(table: str, block: Block) -> Iterable[Row]:
    for index, seq in enumerate(block.seq.tolist()):
        has_step = block.step is not None and (block.has_step is None or block.has_step[index])
        step = int(block.step[index]) if block.step is not None and has_step else None
        packed = zip(block.names, block.values[index].tolist(), strict=True)
        cells = tuple(sorted((name, cell(value)) for name, value in packed))
        time_ns = int(block.time_ns[index])
        yield Row(table, block.writer_id, seq, block.run_id, block.rank, step, time_ns, cells)


def of_table(table: str, rows: pa.Table) -> list[Row]:
    """Return the rows of an Arrow table of `metrics`, `system` or `events`, sorted."""
    times = rows["_time"].cast("int64").to_pylist()
    plain = rows.drop_columns(["_time"]).to_pylist()
    return _in_order(_table_row(table, row, time_ns) for row, time_ns in zip(plain, times, strict=True))


def _table_row(table: str, row: dict[str, Any], time_ns: int) -> Row:
    where = (table, row["_writer"], row["_seq"], row["_run_id"])
    if table == "events":
        cells = tuple((name, row[name]) for name in ("kind", "name", "payload"))
        return Row(*where, None, row["_step"], time_ns, cells)
    fixed = {field.name for field in arrow.STRUCTURAL[table]}
    numbers = ((arrow.unescape(c), v) for c, v in row.items() if c not in fixed and v is not None)
    cells = tuple(sorted((name, cell(value)) for name, value in numbers))
    return Row(*where, row["_rank"], row.get("_step"), time_ns, cells)


def _in_order(rows: Iterable[Row]) -> list[Row]:
    return sorted(rows, key=lambda row: (row.table, row.writer_id, row.seq, row.cells))


def of_segments(fs: Fs, root: str, project: str) -> list[Row]:
    """Return the rows of all retained segments, read record by record without any fast path."""
    batch = Batch()
    for writer_id in tail.writers(fs, root, project):
        directory = names.writer_dir(root, project, writer_id)
        files = [fs.read(f"{directory}/{entry.name}") for entry in fs.entries(directory)]
        read_plainly(writer_id, [data for data in files if len(data) >= segment.HEADER_BYTES], batch)
    return of_batch(batch)


def read_plainly(writer_id: str, files: list[bytes], batch: Batch) -> None:
    """Add the records of a writer's segments to a batch one by one, each seq once; headers must be intact."""
    decoder = Decoder(writer_id, batch)
    expected = 1
    headers = [segment.parse_header(data, writer_id) for data in files]
    for header, data in sorted(zip(headers, files, strict=True), key=lambda pair: (pair[0].first_seq, pair[0].segno)):
        decoder.start_segment({})
        for item in segment.items(data, header):
            if isinstance(item, segment.Damage):
                continue
            if item.structural:
                decoder.add_structural(item.record)
            elif item.seq >= expected:
                batch.records += 1
                decoder.add_record(item.record, item.seq)
                expected = item.seq + 1
    decoder.finish()


def of_tail(fs: Fs, root: str, manifest: Manifest) -> list[Row]:
    """Return the rows after the watermarks of a manifest."""
    batch = Batch()
    for writer_id in tail.writers(fs, root, manifest.project):
        mark = manifest.writers.get(writer_id, Watermark())
        if not mark.done:
            tail.WriterReader(fs, root, manifest.project, writer_id, mark, batch).read()
    return of_batch(batch)


def of_snapshot(fs: Fs, root: str, manifest: Manifest) -> list[Row]:
    """Return the rows of a snapshot's files.

    Raises:
        FileNotFoundError: the manifest names a file that is gone.
        DataError: a file is damaged.
    """
    rows: list[Row] = []
    base = names.snapshot_dir(root, manifest.project)
    for file in manifest.files:
        reader = parquet.DataFileReader(fs, f"{base}/{file.path}")
        if file.table != "runs":
            rows += of_table(file.table, reader.read(None))
    return _in_order(rows)


def of_store(fs: Fs, root: str, project: str) -> list[Row]:
    """Return what a reader sees: the newest snapshot and the tail after it, doubles included.

    Raises:
        FileNotFoundError: the manifest names a file that is gone.
        DataError: a file is damaged.
    """
    newest, _ = manifests.load_newest(fs, root, project)
    return _in_order([*of_snapshot(fs, root, newest), *of_tail(fs, root, newest)])


def runs_of_snapshot(fs: Fs, root: str, manifest: Manifest) -> RunParts:
    """Return the merged parts of runs of a snapshot."""
    base = names.snapshot_dir(root, manifest.project)
    merged = RunParts()
    for file in manifest.of_table("runs"):
        for part in runrows.table_to_parts(parquet.DataFileReader(fs, f"{base}/{file.path}").read(None)):
            merged.add(part)
    return merged


def by_run(rows: Iterable[Row]) -> dict[str, list[list[tuple[Any, ...]]]]:
    """Return what rows tell, whoever wrote them: for each run its records in order, each as what its rows say.

    Two stores that hold the same runs are equal in this, though their writers and seqs differ.
    """
    records: dict[str, dict[tuple[str, int], list[tuple[Any, ...]]]] = {}
    for row in rows:
        said = (row.table, row.rank is None, row.rank or 0, row.step is None, row.step or 0, row.time_ns, row.cells)
        records.setdefault(row.run_id, {}).setdefault((row.writer_id, row.seq), []).append(said)
    return {run_id: [sorted(found[key]) for key in sorted(found)] for run_id, found in records.items()}
