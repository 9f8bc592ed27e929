"""Status: what a store holds and how far its snapshots are behind, told from listings and manifests alone."""

from __future__ import annotations

import time

import msgspec

from compactor.collect import is_held
from compactor.plan import plan_fold
from compactor.survey import survey
from eventlog import manifest as manifests
from eventlog import tail
from eventlog.conflicts import CONFLICT
from eventlog.fs import Fs


class ProjectStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One project.

    Attributes:
        project: its name.
        version: of the newest snapshot, 0 before the first fold.
        snapshot_age_s: since it was published; None before the first fold.
        files: parquet files by table.
        rows: rows by table.
        snapshot_bytes: size of the parquet files.
        writers: all that are known.
        writers_live: those whose process holds its segment now.
        segments: files.
        segment_bytes: their size.
        pending_bytes: of segments that are not folded yet.
        last_append_age_s: since a segment changed; None when there are none.
        records: folded.
        gaps: records known to be missing.
        dropped: records that writers say they could not keep.
        duplicates: records met twice and left out.
        quarantined: damaged byte ranges set aside.
        conflicts: of these, whole segments that hold other records under seqs which are taken.
        problems: damaged manifests.
    """

    project: str
    version: int
    snapshot_age_s: float | None
    files: dict[str, int]
    rows: dict[str, int]
    snapshot_bytes: int
    writers: int
    writers_live: int
    segments: int
    segment_bytes: int
    pending_bytes: int
    last_append_age_s: float | None
    records: int
    gaps: int
    dropped: int
    duplicates: int
    quarantined: int
    conflicts: int
    problems: list[str]


def status(fs: Fs, root: str) -> list[ProjectStatus]:
    """Return the status of every project.

    Raises:
        OSError: as the file system raises it.
        NewerFormatError: a manifest is of a newer format.
    """
    return [project_status(fs, root, project) for project in tail.projects(fs, root)]


def project_status(fs: Fs, root: str, project: str) -> ProjectStatus:
    """Return the status of one project; see `status`."""
    now_ns = time.time_ns()
    manifest, problems = manifests.load_newest(fs, root, project)
    found = survey(fs, root, project)
    segments = [item for items in found.writers.values() for item in items]
    newest = max((item.mtime_ns for item in segments), default=None)
    files: dict[str, int] = {}
    rows: dict[str, int] = {}
    for file in manifest.files:
        files[file.table] = files.get(file.table, 0) + 1
        rows[file.table] = rows.get(file.table, 0) + file.rows
    marks = manifest.writers.values()
    return ProjectStatus(
        project=project,
        version=manifest.version,
        snapshot_age_s=(now_ns - manifest.created_ns) / 1e9 if manifest.version else None,
        files=files,
        rows=rows,
        snapshot_bytes=sum(file.size_bytes for file in manifest.files),
        writers=len({*found.writers, *manifest.writers}),
        writers_live=sum(any(not s.sealed and is_held(fs, s.path) for s in items) for items in found.writers.values()),
        segments=len(segments),
        segment_bytes=sum(item.size_bytes for item in segments),
        pending_bytes=sum(writer.pending_bytes for writer in plan_fold(found, manifest)),
        last_append_age_s=None if newest is None else max(now_ns - newest, 0) / 1e9,
        records=sum(mark.records for mark in marks),
        gaps=sum(gap.last_seq - gap.first_seq + 1 for gap in manifest.gaps),
        dropped=sum(mark.dropped for mark in marks),
        duplicates=sum(mark.duplicates for mark in marks),
        quarantined=len(manifest.quarantined),
        conflicts=sum(item.reason.startswith(CONFLICT) for item in manifest.quarantined),
        problems=[str(problem) for problem in problems],
    )
