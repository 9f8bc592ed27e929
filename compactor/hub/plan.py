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
from typing import Final, TypeVar

from compactor.survey import Survey
from eventlog import names
from eventlog.errors import ConflictError, UsageError
from eventlog.manifest import Manifest, Watermark

_MOST_PATHS: Final = 1000
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class File:
    """A file of the store, named as in the bucket: relative to the store, with `/`."""

    path: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Remote:
    """A file as the bucket lists it; `uploaded_ns` is by the Hub's clock."""

    path: str
    size_bytes: int
    uploaded_ns: int


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

    wave_files: int = _MOST_PATHS
    wave_bytes: int = 1024 * 1024 * 1024
    grace_ns: int = 86_400 * 10**9

    def __post_init__(self) -> None:
        """Check the ranges.

        Raises:
            UsageError: naming the field that is out of its range.
        """
        if not 1 <= self.wave_files <= _MOST_PATHS:
            raise UsageError(f"wave_files must be from 1 to {_MOST_PATHS}")
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
        if item.sealed and _needs_segment(manifest, writer_id, item.segno, item.size_bytes)
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
    missing = [file for file in offered.files if not _is_there(file, there)]
    steps: list[Step] = [Upload(wave) for wave in _waves(missing, limits)]
    if not _is_there(offered.manifest_file, there):
        steps += [Verify(part) for part in _parts(offered.files)]
        steps.append(Publish(offered.manifest_file))
    else:
        steps += [Verify(part) for part in _parts(missing)]
    return (*steps, *_deletions(offered, there, published, limits, now_ns))


def _data_path(project: str, path: str) -> str:
    return os.path.join(names.snapshot_dir("", project), path)


def _needs_segment(manifest: Manifest, writer_id: str, segno: int, size_bytes: int) -> bool:
    """Say whether a reader of a snapshot needs a segment for what is not folded yet."""
    mark = manifest.writers.get(writer_id, Watermark())
    return segno > mark.segno or (segno == mark.segno and mark.offset < size_bytes)


def _is_there(file: File, there: dict[str, Remote]) -> bool:
    return file.path in there and there[file.path].size_bytes == file.size_bytes


def _check_alone(offered: Offer, there: dict[str, Remote], published: Sequence[Manifest]) -> None:
    """Refuse to publish over what another publisher has put into the bucket."""
    mine = offered.manifest
    for version in _versions(mine.project, there):
        if version > mine.version:
            raise ConflictError(f"the bucket has version {version} of {mine.project!r}, and this store {mine.version}")
    for manifest in published:
        if manifest.version == mine.version and manifest != mine:
            raise ConflictError(f"the bucket has another snapshot as version {mine.version} of {mine.project!r}")


def _versions(project: str, there: dict[str, Remote]) -> list[int]:
    """Return the versions whose manifests the bucket lists, ascending."""
    directory = names.manifests_dir("", project)
    found = (names.parse_manifest_name(os.path.basename(p)) for p in there if os.path.dirname(p) == directory)
    return sorted(version for version in found if version is not None)


def _waves(files: Sequence[File], limits: Limits) -> Iterator[tuple[File, ...]]:
    """Cut files into uploads, in their order."""
    wave: list[File] = []
    size = 0
    for file in files:
        if wave and (len(wave) == limits.wave_files or size + file.size_bytes > limits.wave_bytes):
            yield tuple(wave)
            wave, size = [], 0
        wave.append(file)
        size += file.size_bytes
    if wave:
        yield tuple(wave)


def _parts(items: Sequence[_T]) -> Iterator[tuple[_T, ...]]:
    """Cut what one call names."""
    for start in range(0, len(items), _MOST_PATHS):
        yield tuple(items[start : start + _MOST_PATHS])


def _deletions(
    offered: Offer, there: dict[str, Remote], published: Sequence[Manifest], limits: Limits, now_ns: int
) -> list[Step]:
    """Delete manifests that no reader holds any more, and then what only they needed."""
    project = offered.manifest.project
    known = {manifest.version for manifest in published}
    versions = _versions(project, there)
    if any(version not in known for version in versions):
        return []
    before_ns = now_ns - limits.grace_ns
    manifests = {version: names.manifest_path("", project, version) for version in versions}
    expired = {old for old, new in pairwise(versions) if there[manifests[new]].uploaded_ns <= before_ns}
    kept = [offered.manifest, *(manifest for manifest in published if manifest.version not in expired)]
    named = {_data_path(project, file.path) for manifest in kept for file in manifest.files}
    old = [remote for remote in there.values() if remote.uploaded_ns <= before_ns and remote.path not in named]
    spare = sorted(remote.path for remote in old if _is_spare(remote, project, kept))
    first = [Delete(part) for part in _parts(sorted(manifests[version] for version in expired))]
    return [*first, *(Delete(part) for part in _parts(spare))]


def _is_spare(remote: Remote, project: str, kept: Sequence[Manifest]) -> bool:
    """Say whether a file that no kept manifest names is a data file of this project, or a segment that none needs."""
    directory, name = os.path.split(remote.path)
    snapshot = names.snapshot_dir("", project) + "/"
    if remote.path.startswith(snapshot) and names.parse_data_file_path(remote.path.removeprefix(snapshot)) is not None:
        return True
    parent, writer_id = os.path.split(directory)
    parsed = names.parse_segment_name(name)
    if parent != names.project_segments_dir("", project) or not names.is_writer_id(writer_id) or parsed is None:
        return False
    return not any(_needs_segment(one, writer_id, parsed[0], remote.size_bytes) for one in kept)
