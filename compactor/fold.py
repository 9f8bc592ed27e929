"""Fold: turn what writers appended since their watermarks into new parquet files, batch by batch, in bounded memory."""

from __future__ import annotations

import functools
import gc
import os
import time
from collections.abc import Callable, Collection
from typing import NamedTuple

import msgspec

from compactor import quarantine, stage
from compactor.commit import Change, commit
from compactor.config import CompactorConfig
from compactor.errors import LostRaceError
from compactor.late import gather_late
from eventlog import conflicts, names, tail
from eventlog import manifest as manifests
from eventlog.columns import Batch
from eventlog.errors import DataError, NewerFormatError
from eventlog.fs import Fs
from eventlog.manifest import Gap, Manifest, Watermark


class Folded(NamedTuple):
    """What a fold did.

    Attributes:
        manifest: the newest now.
        records: how many records were folded.
        commits: how many manifests were published.
        lost_races: how often somebody else committed first.
        refused: writers that could not be read, with the reason.
    """

    manifest: Manifest
    records: int
    commits: int
    lost_races: int
    refused: dict[str, str]


class _Gathered(NamedTuple):
    batch: Batch
    change: Change
    damages: list[tail.Damaged]
    more: bool
    refused: dict[str, str]


def fold(
    fs: Fs,
    root: str,
    project: str,
    config: CompactorConfig,
    *,
    time_ns: Callable[[], int] = time.time_ns,
    stopped: Callable[[], bool] = lambda: False,
    writers: Collection[str] | None = None,
) -> Folded:
    """Fold everything that is new in a project; each batch is one commit, durable when it is done.

    Args:
        fs: the file system.
        root: the store.
        project: the project.
        config: settings.
        time_ns: the clock.
        stopped: asked between batches; True ends the fold early.
        writers: look at these only; None is all.

    Raises:
        OSError: as the file system raises it.
        DataError: a commit would break a rule, or the newest manifest is of a newer format.
    """
    records = commits = lost = 0
    refused: dict[str, str] = {}
    while True:
        parent, _ = manifests.load_newest(fs, root, project)
        gathered = gather(fs, root, parent, config, time_ns(), writers)
        refused |= gathered.refused
        if not gathered.change.after and not gathered.damages:
            return Folded(parent, records, commits, lost, refused)
        try:
            parent = _publish(fs, root, parent, gathered, time_ns)
        except LostRaceError:
            lost += 1
            continue
        records += gathered.batch.records
        commits += 1
        if not gathered.more or stopped():
            return Folded(parent, records, commits, lost, refused)


def gather(
    fs: Fs,
    root: str,
    parent: Manifest,
    config: CompactorConfig,
    now_ns: int,
    writers: Collection[str] | None = None,
) -> _Gathered:
    """Read one batch after the watermarks of `parent`, of these writers or of all."""
    batch = Batch()
    before: dict[str, Watermark] = {}
    after: dict[str, Watermark] = {}
    gaps: list[Gap] = []
    damages: list[tail.Damaged] = []
    refused: dict[str, str] = {}
    left = config.batch_bytes
    more = False
    missing_before_ns = now_ns - int(config.missing_grace_s * 1e9)
    is_dead = functools.partial(_is_dead, fs, now_ns - int(config.grace_s * 1e9))
    for writer_id in tail.writers(fs, root, parent.project) if writers is None else sorted(writers):
        mark = parent.writers.get(writer_id, Watermark())
        if mark.done:
            continue
        if left <= 0:
            more = True
            break
        reader = tail.WriterReader(fs, root, parent.project, writer_id, mark, batch)
        try:
            found = reader.read(left, missing_before_ns=missing_before_ns, is_dead=is_dead)
        except NewerFormatError as error:
            # One writer of a newer release must not stop the others; it is folded after an upgrade.
            refused[writer_id] = str(error)
            continue
        left -= reader.used_bytes
        more = more or found.more
        gaps += found.gaps
        damages += found.damages
        if found.watermark != mark:
            before[writer_id], after[writer_id] = mark, found.watermark
    late = gather_late(fs, root, parent, batch)
    for writer_id, count in late.records.items():
        reached = after.get(writer_id, parent.writers[writer_id])
        before[writer_id] = parent.writers[writer_id]
        after[writer_id] = msgspec.structs.replace(reached, records=reached.records + count)
    change = Change(action="fold", before=before, after=after, gaps=[*gaps, *late.left], filled=late.filled)
    return _Gathered(batch, change, _unknown(damages, root, parent), more, refused)


def _is_dead(fs: Fs, before_ns: int, path: str) -> bool:
    """Say whether the writer of an open segment is gone: long silent, and nobody holds its lock.

    A writer that is only stopped holds its lock. Where the file system has no locks, silence decides; a writer that
    goes on after all is read on, see `Watermark.ended_bytes`.
    """
    directory, name = os.path.split(path)
    silent = any(entry.name == name and entry.mtime_ns <= before_ns for entry in fs.entries(directory))
    try:
        return silent and not fs.is_locked(path)
    except FileNotFoundError:
        return False


def _name(damage: tail.Damaged) -> str:
    end = damage.offset + damage.size_bytes
    return names.quarantine_name(damage.writer_id, damage.segno, damage.offset, end)


def _unknown(damages: list[tail.Damaged], root: str, parent: Manifest) -> list[tail.Damaged]:
    """Return what was not set aside before; an open file in conflict is set aside once, however it grows."""
    known = {item.name for item in parent.quarantined}
    told = {item.source for item in parent.quarantined if item.reason.startswith(conflicts.CONFLICT)}
    new = [damage for damage in damages if _name(damage) not in known]
    return [d for d in new if not d.reason.startswith(conflicts.CONFLICT) or os.path.relpath(d.path, root) not in told]


def _publish(fs: Fs, root: str, parent: Manifest, gathered: _Gathered, time_ns: Callable[[], int]) -> Manifest:
    project = parent.project
    set_aside = quarantine.set_aside(fs, root, project, gathered.damages)
    collecting = gc.isenabled()
    gc.disable()
    try:
        staged = stage.stage_batch(fs, root, project, gathered.batch, parent.version + 1)
    finally:
        if collecting:
            gc.enable()
    change = msgspec.structs.replace(gathered.change, added=staged, quarantined=set_aside)
    try:
        return commit(fs, root, project, change, time_ns=time_ns)
    except (LostRaceError, DataError):
        # Only when it is certain that nothing was published; after any other error the files may be named by a
        # manifest, and if they are not, collect removes them.
        stage.discard(fs, root, project, staged)
        raise
