"""What there is to do, decided from what was seen: pure, so that it can be printed, tested and replayed."""

from __future__ import annotations

from typing import NamedTuple

from compactor.config import CompactorConfig
from compactor.grouping import share_files
from compactor.survey import SegmentFile, Survey, unreadable_segments
from eventlog import names, segment
from eventlog.manifest import DataFile, Manifest, Watermark


class PendingWriter(NamedTuple):
    """A writer with bytes after its watermark."""

    writer_id: str
    pending_bytes: int


class Merge(NamedTuple):
    """Files of one table and level that become one level higher."""

    table: str
    level: int
    files: tuple[DataFile, ...]


class Plan(NamedTuple):
    """What a compactor would do now in one project."""

    project: str
    version: int
    fold: tuple[PendingWriter, ...]
    merges: tuple[Merge, ...]

    @property
    def pending_bytes(self) -> int:
        """How many bytes of segments wait to be folded."""
        return sum(writer.pending_bytes for writer in self.fold)


def plan(survey: Survey, manifest: Manifest, config: CompactorConfig) -> Plan:
    """Return what to do; the plan of a store on which a plan was carried out is empty."""
    return Plan(manifest.project, manifest.version, plan_fold(survey, manifest), plan_merges(manifest, config))


def plan_fold(survey: Survey, manifest: Manifest) -> tuple[PendingWriter, ...]:
    """Return the writers that have bytes after their watermarks."""
    found: list[PendingWriter] = []
    unreadable = unreadable_segments(manifest)
    for writer_id, segments in survey.writers.items():
        mark = manifest.writers.get(writer_id, Watermark())
        pending = 0 if mark.done else pending_bytes(writer_id, segments, mark, unreadable)
        if pending:
            found.append(PendingWriter(writer_id, pending))
    return tuple(found)


def pending_bytes(
    writer_id: str, segments: list[SegmentFile], mark: Watermark, unreadable: set[tuple[str, int, int]]
) -> int:
    """Return how many bytes a writer's segments have after its watermark, without those that nobody can read."""
    pending = 0
    for item in segments:
        if (writer_id, item.segno, item.size_bytes) in unreadable:
            continue
        if item.segno == mark.segno and not mark.is_settled(item.size_bytes):
            pending += max(item.size_bytes - max(mark.offset, segment.HEADER_BYTES), 0)
        elif item.segno > mark.segno:
            pending += max(item.size_bytes - segment.HEADER_BYTES, 0)
    return pending


def plan_merges(manifest: Manifest, config: CompactorConfig) -> tuple[Merge, ...]:
    """Return the merges that keep the number of files logarithmic: the oldest `fanout` of a level become one.

    At most one merge a table; the next plan has the next.
    """
    merges: list[Merge] = []
    for table in names.TABLES:
        by_level: dict[int, list[DataFile]] = {}
        for file in manifest.of_table(table):
            if file.size_bytes < config.max_file_bytes:
                by_level.setdefault(file.level, []).append(file)
        for level, files in sorted(by_level.items()):
            fan = _first_fan(manifest, files, config.fanout)
            if fan:
                merges.append(Merge(table, level, fan))
                break
    return tuple(merges)


def _first_fan(manifest: Manifest, files: list[DataFile], fanout: int) -> tuple[DataFile, ...]:
    """Return the oldest files of a level that can share one file, as many as become one; () when there are too few."""
    if len(files) < fanout:
        return ()
    sets = [(frozenset(manifest.name_sets[f.names]) if f.names >= 0 else frozenset[str](), f.rows) for f in files]
    groups = [sorted(group) for group in share_files(sets) if len(group) >= fanout]
    return tuple(files[index] for index in min(groups)[:fanout]) if groups else ()
