"""The stores that the benchmarks work on: made once, kept in a cache directory, and never changed afterwards."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Callable, Iterator
from typing import Any, Final

import msgspec
import numpy as np

from compactor import compact, stage, work
from compactor import fold as folding
from compactor.commit import Change, commit
from compactor.config import CompactorConfig
from compactor.plan import Merge
from eventlog import WriterConfig, names, schema
from eventlog import manifest as manifests
from eventlog.columns import Batch, Decoder
from eventlog.fs import LOCAL
from eventlog.gather import Block
from eventlog.manifest import Watermark
from eventlog.run import Run, RunInfo
from eventlog.store import open_store

PROJECT: Final = "bench"
METRICS: Final = ("loss", "grad_norm", "accuracy", "entropy", "lr", "epoch", "loss_scale", "tokens_per_s")
RUNS: Final = 20
_START_NS: Final = 1_750_000_000_000_000_000
_BULK_ROWS: Final = 1_000_000
KINDS: Final = ("noisy", "half_constant")


def rows_of(kind: str, count: int, seed: int) -> list[tuple[float, ...]]:
    """Return the values of so many records: 8 noisy columns of float32 precision, or 4 such and 4 near-constant."""
    rng = np.random.default_rng(seed)
    noisy = rng.standard_normal((count, 8)).astype(np.float32) * np.linspace(1, 5, 8, dtype=np.float32)
    matrix = noisy.astype(np.float64)
    if kind == "half_constant":
        steps = np.arange(count)
        constant = [
            np.full(count, 3e-4),
            steps // 1000,
            np.where(steps % 2000 < 1999, 65536.0, 32768.0),
            np.ones(count),
        ]
        matrix[:, 4:] = np.stack(constant, axis=1)
    return [tuple(row) for row in matrix.tolist()]


class Clock:
    """Tells a time that moves on by about 50 ms, not evenly, at each look: as a training's does."""

    def __init__(self, seed: int) -> None:
        """Start at a fixed moment."""
        self._now = _START_NS
        self._jitter = np.random.default_rng(seed).integers(0, 5_000_000, 4096).tolist()
        self._index = 0

    def __call__(self) -> int:
        """Return the time."""
        self._index = (self._index + 1) & 4095
        self._now += 50_000_000 + self._jitter[self._index]
        return self._now


def write_runs(root: str, kind: str, records: int, seed: int, runs: int = RUNS) -> None:
    """Log so many records, shared out evenly among the runs, each by a writer of its own."""
    settings = WriterConfig(sync_interval_s=None)
    for index in range(runs):
        info = RunInfo(project=PROJECT, run_id=names.new_id(), name=f"run-{seed}-{index:02d}")
        run = Run(root, info, config=settings, time_ns=Clock(seed + index))
        for step, values in enumerate(rows_of(kind, records // runs, seed * 1000 + index)):
            run.log(dict(zip(METRICS, values, strict=True)), step)
        run.finish()


def fold(root: str) -> folding.Folded:
    """Fold all that is new, as the compactor would."""
    return folding.fold(LOCAL, root, PROJECT, CompactorConfig())


def compact_all(root: str) -> None:
    """Merge all files of each table into one, as the compactor would by and by."""
    for table in names.TABLES:
        manifest, _ = manifests.load_newest(LOCAL, root, PROJECT)
        files = manifest.of_table(table)
        if len(files) > 1:
            staged = compact.merge(LOCAL, root, manifest, Merge(table, max(f.level for f in files), tuple(files)))
            change = Change(action="compact", added=staged, removed=[file.path for file in files])
            commit(LOCAL, root, PROJECT, change)


def drop_superseded(root: str) -> None:
    """Remove the segments, and the data files that the newest manifest does not name: to save room in the cache."""
    manifest, _ = manifests.load_newest(LOCAL, root, PROJECT)
    base = names.snapshot_dir(root, PROJECT)
    named = {os.path.join(base, file.path) for file in manifest.files}
    for directory, _, entries in os.walk(os.path.join(base, "data")):
        for entry in entries:
            if os.path.join(directory, entry) not in named:
                os.unlink(os.path.join(directory, entry))
    shutil.rmtree(names.segments_dir(root))
    os.makedirs(names.project_segments_dir(root, PROJECT))


def metric_bytes(root: str) -> int:
    """Return the size of the snapshot's files of metrics."""
    manifest, _ = manifests.load_newest(LOCAL, root, PROJECT)
    return sum(file.size_bytes for file in manifest.of_table("metrics"))


def metric_files(root: str) -> int:
    """Return how many files of metrics the snapshot has."""
    return len(manifests.load_newest(LOCAL, root, PROJECT)[0].of_table("metrics"))


def metric_rows(root: str) -> int:
    """Return how many rows of metrics the snapshot has."""
    manifest, _ = manifests.load_newest(LOCAL, root, PROJECT)
    return sum(file.rows for file in manifest.of_table("metrics"))


def segment_bytes(root: str) -> int:
    """Return the size of all segments."""
    total = 0
    for directory, _, entries in os.walk(names.segments_dir(root)):
        total += sum(os.path.getsize(os.path.join(directory, entry)) for entry in entries)
    return total


def _made(cache: str, name: str) -> tuple[str, str, bool]:
    final = os.path.join(cache, name)
    unfinished = f"{final}.making-{os.getpid()}"
    return final, unfinished, os.path.isdir(final)


def segments(cache: str, kind: str, records: int, seed: int = 1) -> str:
    """Return a store that holds only segments, made when it is not there."""
    final, unfinished, there = _made(cache, f"segments-{kind}-{records}-{seed}")
    if not there:
        write_runs(unfinished, kind, records, seed)
        os.rename(unfinished, final)
    return final


def snapshot(cache: str, kind: str, records: int, times: int = 1) -> str:
    """Return a store that holds only a compacted snapshot of `times` batches of records, made when it is not there."""
    final, unfinished, there = _made(cache, f"snapshot-{kind}-{records}x{times}")
    if not there:
        for batch in range(times):
            write_runs(unfinished, kind, records, 100 + batch)
            fold(unfinished)
            shutil.rmtree(names.segments_dir(unfinished))
        compact_all(unfinished)
        os.makedirs(names.project_segments_dir(unfinished, PROJECT))
        drop_superseded(unfinished)
        os.rename(unfinished, final)
    return final


def bulk(cache: str, runs: int, rows: int) -> str:
    """Return a store that holds only a snapshot, merged as the service would have; made when it is not there.

    Its rows never were in segments: they are folded from memory, so that a billion points take a minute.

    Args:
        cache: where it is kept.
        runs: how many.
        rows: of each run; 8 metrics a row.
    """
    final, unfinished, there = _made(cache, f"bulk-{runs}x{rows}")
    if not there:
        os.makedirs(names.project_segments_dir(unfinished, PROJECT))
        at_once = max(_BULK_ROWS // rows, 1)
        for first in range(0, runs, at_once):
            _fold_bulk(unfinished, range(first, min(first + at_once, runs)), rows)
            work.merge_all(LOCAL, unfinished, PROJECT, CompactorConfig())
        drop_superseded(unfinished)
        os.rename(unfinished, final)
    return final


def _fold_bulk(root: str, runs: range, rows: int) -> None:
    batch = Batch()
    marks: dict[str, Watermark] = {}
    for index in runs:
        run_id, writer_id = names.new_id(), names.new_id()
        decoder = Decoder(writer_id, batch)
        decoder.start_segment({})
        start = schema.RunStart(time_ns=_START_NS + index, run_id=run_id, project=PROJECT, name=f"run-{index:05d}")
        decoder.add_record(msgspec.structs.replace(start, config={"seed": index, "lr": 3e-4}), 1)
        decoder.finish()
        rng = np.random.default_rng(index)
        times = _START_NS + np.cumsum(rng.integers(50_000_000, 55_000_000, rows))
        values = rng.standard_normal((rows, len(METRICS)), np.float32).astype(np.float64)
        seq = np.arange(2, rows + 2)
        batch.add_block("metrics", Block(run_id, None, writer_id, METRICS, seq, times, np.arange(rows), None, values))
        marks[writer_id] = Watermark(seq=rows + 1, segno=1, records=rows + 1, done=True)
    parent, _ = manifests.load_newest(LOCAL, root, PROJECT)
    staged = stage.stage_batch(LOCAL, root, PROJECT, batch, parent.version + 1)
    before = dict.fromkeys(marks, Watermark())
    commit(LOCAL, root, PROJECT, Change(action="fold", added=staged, before=before, after=marks))


@contextlib.contextmanager
def appended(root: str) -> Iterator[Callable[[], None]]:
    """Yield what logs one record to a run of a store whose snapshot stays as it is; what it wrote is removed."""
    directory = names.project_segments_dir(root, PROJECT)
    before = set(os.listdir(directory))
    run_id = open_store(root).runs(PROJECT)["run_id"][0].as_py()
    info = RunInfo(project=PROJECT, run_id=run_id, name="run", mode="attach")
    run = Run(root, info, config=WriterConfig(sync_interval_s=None))
    try:
        yield lambda: run.log(dict.fromkeys(METRICS, 1.0))
    finally:
        run.finish()
        for writer in set(os.listdir(directory)) - before:
            shutil.rmtree(os.path.join(directory, writer))


@contextlib.contextmanager
def linked_copy(cache: str, *sources: str) -> Iterator[str]:
    """Yield a store with the files of some stores, hard-linked, for they never change; removed afterwards."""
    target = os.path.join(cache, f"copy-{os.getpid()}-{time.monotonic_ns()}")
    try:
        for source in sources:
            shutil.copytree(source, target, copy_function=os.link, dirs_exist_ok=True)
        yield target
    finally:
        shutil.rmtree(target, ignore_errors=True)


def median_of(results: list[dict[str, Any]], key: str) -> float:
    """Return the median of one figure of several repetitions."""
    return float(np.median([result[key] for result in results]))
