"""What may go: pure. A rule lists, and only what it listed is collected."""

from __future__ import annotations

import os
from itertools import pairwise
from typing import NamedTuple

from compactor.config import CompactorConfig
from compactor.survey import SegmentFile, Survey, unreadable_segments
from eventlog import names, segment
from eventlog.manifest import Manifest, Watermark


class Listed(NamedTuple):
    """What retention lists, each with full paths.

    Attributes:
        manifests: versions that were superseded longer than the grace period ago.
        data_files: parquet files that no kept manifest names and that are older than the grace period.
        sealed: sealed segments that are folded and past their retention.
        abandoned: open segments likewise; they go only when no process holds them.
        staging: leftovers of killed processes, older than the grace period.
    """

    manifests: list[int]
    data_files: list[str]
    sealed: list[str]
    abandoned: list[str]
    staging: list[str]


def list_expired(
    root: str, project: str, survey: Survey, kept: list[Manifest], config: CompactorConfig, now_ns: int
) -> Listed:
    """Return what may go.

    Args:
        root: the store.
        project: the project.
        survey: of the project's files, made after `kept` was loaded or before: neither matters, for files only
            become unneeded, and new ones are younger than the grace period.
        kept: every intact manifest, oldest first.
        config: the rules.
        now_ns: the time.
    """
    grace_ns = int(config.grace_s * 1e9)
    expired = [manifest.version for manifest, successor in pairwise(kept) if successor.created_ns <= now_ns - grace_ns]
    gone = set(expired)
    named = {file.path for manifest in kept if manifest.version not in gone for file in manifest.files}
    data_files = [
        os.path.join(names.snapshot_dir(root, project), path)
        for table, entries in survey.data.items()
        for entry in entries
        if (path := names.data_file_path(table, entry.name)) not in named and entry.mtime_ns <= now_ns - grace_ns
    ]
    staging = [path for path, entry in survey.staging.items() if entry.mtime_ns <= now_ns - grace_ns]
    sealed, abandoned = _segments(survey, kept, config, now_ns)
    return Listed(expired, data_files, sealed, abandoned, staging)


def _segments(
    survey: Survey, kept: list[Manifest], config: CompactorConfig, now_ns: int
) -> tuple[list[str], list[str]]:
    """List segments that every manifest a reader may still hold covers: the oldest that is not expired decides.

    So does the newest: where a snapshot of a bucket was taken over, it may be behind what was folded here before.
    """
    sealed: list[str] = []
    abandoned: list[str] = []
    if config.segment_retention_s is None or not kept:
        return sealed, abandoned
    retention_ns = int(max(config.segment_retention_s, config.grace_s) * 1e9)
    settled = [manifest for manifest in kept if manifest.created_ns <= now_ns - int(config.grace_s * 1e9)]
    if not settled:
        return sealed, abandoned
    deciding = [(manifest, unreadable_segments(manifest, in_conflict=False)) for manifest in (settled[-1], kept[-1])]
    for writer_id, segments in survey.writers.items():
        marks = [(manifest.writers.get(writer_id, Watermark()), unreadable) for manifest, unreadable in deciding]
        for item in segments:
            settled_in_all = all(_is_settled(writer_id, item, mark, unreadable) for mark, unreadable in marks)
            if settled_in_all and item.mtime_ns <= now_ns - retention_ns:
                (sealed if item.sealed else abandoned).append(item.path)
    return sealed, abandoned


def _is_settled(writer_id: str, item: SegmentFile, mark: Watermark, unreadable: set[tuple[str, int, int]]) -> bool:
    """Say whether all that a segment holds is in the snapshot or the quarantine, or was never a record."""
    if item.segno == mark.segno:
        return mark.is_settled(item.size_bytes)
    never_begun = not item.sealed and item.size_bytes < segment.HEADER_BYTES
    return item.segno < mark.segno or never_begun or (writer_id, item.segno, item.size_bytes) in unreadable
