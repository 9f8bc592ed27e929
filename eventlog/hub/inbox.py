"""What a bucket holds of a project: the newest snapshot, and the segments that hosts have put beside it.

A bucket has the layout of a store. Any host may add sealed segments and blobs to it, in any order, late or twice, for
their names are theirs alone; only one publisher adds snapshots, and deletes.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, MutableMapping
from typing import NamedTuple

from eventlog import manifest as manifests
from eventlog import names
from eventlog.errors import DataError, NewerFormatError
from eventlog.hub.bucket import Bucket, Remote
from eventlog.manifest import Manifest, Watermark


class Published(NamedTuple):
    """A snapshot in a bucket: its manifest, and the manifest's file."""

    manifest: Manifest
    data: bytes
    file: Remote


class RemoteSegment(NamedTuple):
    """A segment in a bucket."""

    writer_id: str
    segno: int
    file: Remote


def projects(bucket: Bucket) -> list[str]:
    """Return the projects that a bucket has anything of, in order.

    Raises:
        StorageError: the Hub refused or could not be reached.
    """
    found = {names.decode_name(name) for part in (names.SNAPSHOTS, names.SEGMENTS) for name in bucket.folders(part)}
    return sorted(name for name in found if name is not None)


def newest(
    bucket: Bucket,
    project: str,
    listing: Iterable[Remote] | None = None,
    known: MutableMapping[str, Published] | None = None,
) -> Published | None:
    """Return the newest snapshot of a project whose manifest is intact, or None when there is none.

    The listing may be behind, so manifests after the last of it are asked for by name.

    Args:
        bucket: where.
        project: its name.
        listing: of its manifests, when it is known already.
        known: snapshots by the hash of their manifest's file: those are not downloaded, and others are added.

    Raises:
        NewerFormatError: the newest is of a newer format.
        DataError: there are manifests, and none is intact.
        StorageError: the Hub refused or could not be reached.
    """
    found = manifests_in(bucket, project, listing)
    problems: list[DataError] = []
    for version in sorted(found, reverse=True):
        try:
            return load(bucket, found[version], known)
        except NewerFormatError:
            raise
        except DataError as error:
            problems.append(error)
    if problems:
        raise problems[0]
    return None


def manifests_in(
    bucket: Bucket, project: str, listing: Iterable[Remote] | None = None, known: int = 0
) -> dict[int, Remote]:
    """Return the files of a project's manifests by version, the newest for certain: as `newest`, without reading any.

    Args:
        bucket: where.
        project: its name.
        listing: of its manifests, when it is known already.
        known: a version that was there; newer ones are asked for by name.

    Raises:
        StorageError: the Hub refused or could not be reached.
    """
    directory = names.manifests_dir("", project)
    found = manifest_files(project, bucket.files(directory) if listing is None else listing)
    while True:
        ahead = _ahead(bucket, project, max(known, *found, 0))
        found |= ahead
        if not ahead:
            return found


def _ahead(bucket: Bucket, project: str, version: int) -> dict[int, Remote]:
    """Ask for the manifests that may follow one: a compactor may have made several between two publishes."""
    paths = [names.manifest_path("", project, following) for following in range(version + 1, version + 101)]
    return manifest_files(project, bucket.info(paths).values())


def load(bucket: Bucket, file: Remote, known: MutableMapping[str, Published] | None = None) -> Published:
    """Return the snapshot whose manifest is in a file of a bucket; `known` as in `newest`.

    Raises:
        DataError: it is damaged, or of a newer format.
        StorageError: the Hub refused or could not be reached, or the file is gone.
    """
    known = {} if known is None else known
    if file.xet_hash not in known:
        data = bucket.read(file)
        known[file.xet_hash] = Published(manifests.from_bytes(data, f"{bucket}/{file.path}"), data, file)
    return known[file.xet_hash]


def manifest_files(project: str, listing: Iterable[Remote]) -> dict[int, Remote]:
    """Return the files among these that are manifests of a project, by version."""
    directory = names.manifests_dir("", project)
    found: dict[int, Remote] = {}
    for file in listing:
        parent, name = os.path.split(file.path)
        version = names.parse_manifest_name(name)
        if parent == directory and version is not None:
            found[version] = file
    return found


def segment_files(project: str, listing: Iterable[Remote]) -> list[RemoteSegment]:
    """Return the files among these that are segments of a project."""
    directory = names.project_segments_dir("", project)
    found: list[RemoteSegment] = []
    for file in listing:
        parent, name = os.path.split(file.path)
        above, writer_id = os.path.split(parent)
        parsed = names.parse_segment_name(name)
        if above == directory and parsed is not None and names.is_writer_id(writer_id):
            found.append(RemoteSegment(writer_id, parsed[0], file))
    return found


def is_unfolded(manifest: Manifest, writer_id: str, segno: int, size_bytes: int) -> bool:
    """Say whether a segment holds records after the watermark of its writer, which a reader takes from it."""
    mark = manifest.writers.get(writer_id, Watermark())
    if mark.done or segno < mark.segno:
        return False
    return segno > mark.segno or not mark.is_settled(size_bytes)


def is_needed(manifest: Manifest, writer_id: str, segno: int, size_bytes: int) -> bool:
    """Say whether a segment is unfolded, or may hold some of the records that are missing in a snapshot."""
    late = any(gap.writer_id == writer_id for gap in manifest.gaps)
    return late or is_unfolded(manifest, writer_id, segno, size_bytes)


def newest_or_empty(bucket: Bucket, project: str) -> Manifest:
    """Return the newest manifest of a project in a bucket, or the empty one.

    Raises:
        DataError: there are manifests, and none is intact, or the newest is of a newer format.
        StorageError: the Hub refused or could not be reached.
    """
    found = newest(bucket, project)
    return manifests.empty(project) if found is None else found.manifest
