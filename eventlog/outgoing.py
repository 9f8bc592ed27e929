"""What a store has to ship to another place: its blobs, and the segments to which nobody appends any more."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

from eventlog import names
from eventlog.segment import HEADER_BYTES

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    from eventlog.fs import Entry, Fs


class Shipped(NamedTuple):
    """What a shipment did.

    Attributes:
        copied: files.
        present: files that were there already, or whose records are in the snapshot there.
        left_open: segments that their writers hold.
        conflicts: where other records are than in a segment of the store, or other bytes than in a blob; neither the
            one nor the other was replaced.
        copied_bytes: of the files that were copied.
    """

    copied: int = 0
    present: int = 0
    left_open: int = 0
    conflicts: tuple[str, ...] = ()
    copied_bytes: int = 0

    def plus(self, other: Shipped) -> Shipped:
        """Return what both did together."""
        return Shipped(
            self.copied + other.copied,
            self.present + other.present,
            self.left_open + other.left_open,
            self.conflicts + other.conflicts,
            self.copied_bytes + other.copied_bytes,
        )


class File(NamedTuple):
    """A file of a store.

    Attributes:
        path: relative to the store, with `/`.
        size_bytes: of it.
        mtime_ns: when it was changed last.
    """

    path: str
    size_bytes: int
    mtime_ns: int


class SegmentOut(NamedTuple):
    """A segment to which nobody appends any more."""

    project: str
    writer_id: str
    segno: int
    file: File


class Outgoing(NamedTuple):
    """What a store has to ship.

    Attributes:
        blobs: in order.
        segments: the oldest of each project first, so that a shipment that is cut off leaves no hole.
        left_open: how many segments there are that their writers hold.
    """

    blobs: list[File]
    segments: list[SegmentOut]
    left_open: int


def outgoing(fs: Fs, root: str, projects: Collection[str] | None = None) -> Outgoing:
    """Return what a store has to ship: sealed segments, those that dead writers left open, and all blobs.

    The segments are listed before the blobs: a blob is durable before the record that names it, so no segment is
    among them of which a blob is missing.

    Args:
        fs: the file system.
        root: the store.
        projects: the segments of these; None for all. Which project names a blob is written in segments alone.

    Raises:
        OSError: as the file system raises it.
    """
    segments: list[SegmentOut] = []
    left_open = 0
    for encoded in fs.subdirs(names.segments_dir(root)):
        project = names.decode_name(encoded)
        if project is None or (projects is not None and project not in projects):
            continue
        for writer_id in filter(names.is_writer_id, fs.subdirs(names.project_segments_dir(root, project))):
            for entry in fs.entries(names.writer_dir(root, project, writer_id)):
                parsed = None if entry.is_dir else names.parse_segment_name(entry.name)
                if parsed is None:
                    continue
                file = _file(names.writer_dir("", project, writer_id), entry)
                size = file.size_bytes if parsed[1] else _size_unless_held(fs, os.path.join(root, file.path))
                if size is None:
                    left_open += 1
                elif size >= HEADER_BYTES:  # with less it holds nothing, and may be about to be locked
                    segments.append(SegmentOut(project, writer_id, parsed[0], file._replace(size_bytes=size)))
    segments.sort(key=lambda item: (item.project, item.segno, item.writer_id))
    return Outgoing(_blobs(fs, root), segments, left_open)


def by_directory(files: Iterable[File]) -> Iterator[tuple[str, list[File]]]:
    """Yield (directory, the files in it), in the order in which the directories are met first."""
    found: dict[str, list[File]] = {}
    for file in files:
        found.setdefault(os.path.dirname(file.path), []).append(file)
    yield from found.items()


def _blobs(fs: Fs, root: str) -> list[File]:
    above = names.blobs_dir("")
    return [
        _file(os.path.join(above, part), entry)
        for part in fs.subdirs(os.path.join(root, above))
        for entry in fs.entries(os.path.join(root, above, part))
        if names.is_digest(entry.name) and not entry.is_dir
    ]


def _file(directory: str, entry: Entry) -> File:
    return File(os.path.join(directory, entry.name), entry.size_bytes, entry.mtime_ns)


def _size_unless_held(fs: Fs, path: str) -> int | None:
    """Return how much an open segment holds, asked after its lock: it may have grown since it was listed."""
    try:
        return None if fs.is_locked(path) else fs.size(path)
    except FileNotFoundError:
        return None  # sealed since it was listed: it is there under its other name, for the next shipment
