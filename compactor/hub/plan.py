"""What a publish does, decided from what a store offers and a bucket lists: pure, so that it can be printed and tested.

A bucket is changed by batches that may fail in part, its listing may be some writes behind, and nothing in it can be
swapped atomically. So the order of the steps alone keeps a reader safe: what a manifest needs is uploaded and verified
before the manifest goes up, alone; and only what no manifest needs that a reader may hold is deleted, after that.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeVar

from compactor.survey import Survey
from eventlog import names
from eventlog.errors import ConflictError, UsageError
from eventlog.hub.bucket import MOST_PATHS, Remote, in_parts
from eventlog.hub.inbox import is_needed, is_unfolded, manifest_files, segment_files
from eventlog.manifest import Manifest


@dataclass(frozen=True, slots=True)
class File:
    """A file of the store, named as in the bucket: relative to the store, with `/`."""

    path: str
    size_bytes: int


_Sized = TypeVar("_Sized", File, Remote)


@dataclass(frozen=True, slots=True)
class Offer:
    """What a store has to publish.

    Attributes:
        manifest: the newest snapshot.
        manifest_file: its file.
        files: every other file that a reader of this snapshot may need, each of a name that never gets another content.
    """

    manifest: Manifest
    manifest_file: File
    files: tuple[File, ...]


@dataclass(frozen=True, slots=True)
class Limits:
    """How a publish is cut.

    Attributes:
        wave_files: most files of one upload, which one batch call names. Default and most: 1000, the Hub's own limit.
        wave_bytes: most bytes of one upload, unless a single file has more. Default 1 GiB: what is lost when it is cut.
        grace_ns: how long files stay after they were superseded, for readers of the bucket. Default 1 day.
    """

    wave_files: int = MOST_PATHS
    wave_bytes: int = 1024 * 1024 * 1024
    grace_ns: int = 86_400 * 10**9

    def __post_init__(self) -> None:
        """Check the ranges.

        Raises:
            UsageError: naming the field that is out of its range.
        """
        if not 1 <= self.wave_files <= MOST_PATHS:
            raise UsageError(f"wave_files must be from 1 to {MOST_PATHS}")
        if self.wave_bytes < 1:
            raise UsageError("wave_bytes must be positive")
        if self.grace_ns < 0:
            raise UsageError("grace_ns must not be negative")


@dataclass(frozen=True, slots=True)
class Upload:
    """Upload these files in one call; a part of them may be there already after an earlier try."""

    files: tuple[File, ...]


@dataclass(frozen=True, slots=True)
class Verify:
    """Ask the bucket, not its listing, for these files; go on only when all are there with these sizes."""

    files: tuple[File, ...]


@dataclass(frozen=True, slots=True)
class Publish:
    """Upload the manifest, in a call of its own."""

    file: File


@dataclass(frozen=True, slots=True)
class Delete:
    """Delete these paths; one that is not there any more counts as deleted."""

    paths: tuple[str, ...]


Step = Upload | Verify | Publish | Delete


def offer(survey: Survey, manifest: Manifest, manifest_bytes: int, loose: Iterable[File] = ()) -> Offer:
    """Return what a project has to publish at a snapshot.

    Args:
        survey: of the project's files, made after the manifest was loaded, so that no segment between is missed.
        manifest: the newest, of version 1 or higher.
        manifest_bytes: the size of its file.
        loose: blobs of the store, and copies in the project's quarantine.

    Raises:
        UsageError: the manifest is the empty one, which has no file.
    """
    if manifest.version < 1:
        raise UsageError("an empty snapshot cannot be published: fold first")
    project = manifest.project
    data = [File(_data_path(project, file.path), file.size_bytes) for file in manifest.files]
    tail = [
        File(os.path.join(names.writer_dir("", project, writer_id), os.path.basename(item.path)), item.size_bytes)
        for writer_id, segments in survey.writers.items()
        for item in segments
        if item.sealed and is_unfolded(manifest, writer_id, item.segno, item.size_bytes)
    ]
    path = names.manifest_path("", project, manifest.version)
    files = {file.path: file for file in (*loose, *data, *tail)}
    return Offer(manifest, File(path, manifest_bytes), tuple(files[name] for name in sorted(files)))


def plan_publish(
    offered: Offer, listing: Sequence[Remote], published: Sequence[Manifest], limits: Limits, now_ns: int
) -> tuple[Step, ...]:
    """Return the steps of a publish, to be done in this order; none when the bucket has all of it and nothing to spare.

    Cut off after any step, the bucket shows the old snapshot or the new one, whole; planned again, the rest follows.

    Args:
        offered: what the store has.
        listing: all files of the bucket. When it is behind, files are uploaded once more or deleted later, no worse;
            but another publisher may go unseen, so ask for the manifest of this version and the next by name.
        published: the project's manifests in the bucket, as far as they could be read, with those that this publisher
            put there and has not deleted, which the listing may not show yet. While one that is listed is not among
            them, what it needs is unknown, and nothing is deleted.
        limits: how to cut the work.
        now_ns: the time, by the Hub's clock.

    Raises:
        ConflictError: the bucket has a newer snapshot, or another one of this version: this store is not its publisher.
    """
    there = {remote.path: remote for remote in listing}
    _check_alone(offered, there, published)
    other = set(unequal_segments(offered, listing))
    files = [file for file in offered.files if file not in other]
    missing = [file for file in files if not _is_there(file, there)]
    new = set(missing)
    steps: list[Step] = [Upload(wave) for wave in waves(missing, limits)]
    if not _is_there(offered.manifest_file, there):
        # Blobs that are listed have been looked at before, and nobody deletes them.
        asked = [file for file in files if file in new or not file.path.startswith(names.BLOBS)]
        steps += [Verify(tuple(part)) for part in in_parts(asked)]
        steps.append(Publish(offered.manifest_file))
    else:
        steps += [Verify(tuple(part)) for part in in_parts(missing)]
    return (*steps, *_deletions(offered, there, published, limits, now_ns))


def unequal_segments(offered: Offer, listing: Iterable[Remote]) -> list[File]:
    """Return the segments that the bucket has with another size: a writer was copied, and neither file is replaced."""
    there = {found.file.path: found.file for found in segment_files(offered.manifest.project, listing)}
    return [file for file in offered.files if file.path in there and not _is_there(file, there)]


def _data_path(project: str, path: str) -> str:
    return os.path.join(names.snapshot_dir("", project), path)


def _is_there(file: File, there: dict[str, Remote]) -> bool:
    return file.path in there and there[file.path].size_bytes == file.size_bytes


def _check_alone(offered: Offer, there: dict[str, Remote], published: Sequence[Manifest]) -> None:
    """Refuse to publish over what another publisher has put into the bucket."""
    mine = offered.manifest
    for version in manifest_files(mine.project, there.values()):
        if version > mine.version:
            raise ConflictError(f"the bucket has version {version} of {mine.project!r}, and this store {mine.version}")
    for manifest in published:
        if manifest.version == mine.version and manifest != mine:
            raise ConflictError(f"the bucket has another snapshot as version {mine.version} of {mine.project!r}")


def waves(files: Sequence[_Sized], limits: Limits) -> Iterator[tuple[_Sized, ...]]:
    """Cut files into uploads or downloads, in their order."""
    wave: list[_Sized] = []
    size = 0
    for file in files:
        if wave and (len(wave) == limits.wave_files or size + file.size_bytes > limits.wave_bytes):
            yield tuple(wave)
            wave, size = [], 0
        wave.append(file)
        size += file.size_bytes
    if wave:
        yield tuple(wave)


def _deletions(
    offered: Offer, there: dict[str, Remote], published: Sequence[Manifest], limits: Limits, now_ns: int
) -> list[Step]:
    """Delete manifests that no reader holds any more, and then what only they needed."""
    project = offered.manifest.project
    known = {manifest.version for manifest in published}
    manifests = manifest_files(project, there.values())
    versions = sorted(manifests)
    if any(version not in known for version in versions):
        return []
    before_ns = now_ns - limits.grace_ns
    expired = {old for old, new in pairwise(versions) if manifests[new].uploaded_ns <= before_ns}
    kept = [offered.manifest, *(manifest for manifest in published if manifest.version not in expired)]
    named = {_data_path(project, file.path) for manifest in kept for file in manifest.files}
    old = [remote for remote in there.values() if remote.uploaded_ns <= before_ns and remote.path not in named]
    folded = [
        found.file.path
        for found in segment_files(project, old)
        if not any(is_needed(one, found.writer_id, found.segno, found.file.size_bytes) for one in kept)
    ]
    spare = sorted([*folded, *(remote.path for remote in old if _is_data_file(remote, project))])
    first = [Delete(tuple(part)) for part in in_parts(sorted(manifests[version].path for version in expired))]
    return [*first, *(Delete(tuple(part)) for part in in_parts(spare))]


def _is_data_file(remote: Remote, project: str) -> bool:
    snapshot = names.snapshot_dir("", project) + "/"
    name = remote.path.removeprefix(snapshot)
    return remote.path.startswith(snapshot) and names.parse_data_file_path(name) is not None
