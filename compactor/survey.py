"""Look at a project's files without reading them: names, sizes and times, for plans to be made from."""

from __future__ import annotations

import os
from typing import NamedTuple

from eventlog import names, tail
from eventlog.conflicts import CONFLICT
from eventlog.fs import Entry, Fs
from eventlog.manifest import Manifest


class SegmentFile(NamedTuple):
    """A segment file as a listing shows it."""

    segno: int
    sealed: bool
    path: str
    size_bytes: int
    mtime_ns: int


class Survey(NamedTuple):
    """A project's files.

    Attributes:
        writers: the segments of each writer, by number.
        data: data files by table, as a listing shows them.
        staging: unfinished files that a killed process may have left, by path.
    """

    writers: dict[str, list[SegmentFile]]
    data: dict[str, list[Entry]]
    staging: dict[str, Entry]


def survey(fs: Fs, root: str, project: str) -> Survey:
    """List a project.

    Raises:
        OSError: as the file system raises it.
    """
    found: dict[str, list[SegmentFile]] = {}
    staging: dict[str, Entry] = {}
    for writer_id in tail.writers(fs, root, project):
        directory = names.writer_dir(root, project, writer_id)
        found[writer_id] = segments_of(fs, root, project, writer_id)
        _add_staging(fs, directory, staging)
    data: dict[str, list[Entry]] = {}
    snapshot = names.snapshot_dir(root, project)
    for table in names.TABLES:
        entries = fs.entries(os.path.join(snapshot, "data", table))
        data[table] = [entry for entry in entries if names.is_data_file_name(entry.name)]
    for directory in (names.manifests_dir(root, project), names.quarantine_dir(root, project), names.blobs_dir(root)):
        _add_staging(fs, directory, staging)
    return Survey(found, data, staging)


def _add_staging(fs: Fs, directory: str, staging: dict[str, Entry]) -> None:
    for entry in fs.entries(directory):
        if names.is_temporary(entry.name):
            staging[os.path.join(directory, entry.name)] = entry


def segments_of(fs: Fs, root: str, project: str, writer_id: str) -> list[SegmentFile]:
    """List the segments of one writer.

    Raises:
        OSError: as the file system raises it.
    """
    directory = names.writer_dir(root, project, writer_id)
    segments: list[SegmentFile] = []
    for entry in fs.entries(directory):
        parsed = names.parse_segment_name(entry.name)
        if parsed is not None:
            path = os.path.join(directory, entry.name)
            segments.append(SegmentFile(parsed[0], parsed[1], path, entry.size_bytes, entry.mtime_ns))
    return segments


def unreadable_segments(manifest: Manifest, *, in_conflict: bool = True) -> set[tuple[str, int, int]]:
    """Return (writer_id, segno, size in bytes) of the segments that were set aside whole: nothing waits in them.

    Those in conflict with another file hold good records; `in_conflict` says whether to return them too.
    """
    found: set[tuple[str, int, int]] = set()
    for item in manifest.quarantined:
        directory, _, name = item.source.rpartition("/")
        parsed = names.parse_segment_name(name)
        wanted = item.offset == 0 and (in_conflict or not item.reason.startswith(CONFLICT))
        if parsed is not None and wanted:
            found.add((os.path.basename(directory), parsed[0], item.size_bytes))
    return found
