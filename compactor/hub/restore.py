"""Take a project over from a bucket: its snapshot, and the segments beside it; what the store has is merged forward."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

import msgspec

from compactor.hub.claim import following
from compactor.hub.download import fetch, settle
from compactor.hub.errors import DivergedError
from compactor.hub.lineage import lacking
from compactor.hub.pull import pull, pull_blobs
from compactor.survey import segments_of
from eventlog import manifest as manifests
from eventlog import names, segment
from eventlog.errors import DataError, StorageError, UsageError
from eventlog.fs import Fs
from eventlog.hub import inbox
from eventlog.hub.bucket import Bucket, Remote
from eventlog.hub.inbox import Published
from eventlog.manifest import Manifest, Watermark


class Restored(msgspec.Struct, frozen=True, kw_only=True):
    """What a restore did in a project.

    Attributes:
        project: its name.
        action: `none` when the store had everything, `restored` when it took the bucket's snapshot as it is, `merged`
            when it goes on from that snapshot and folds again what it had beyond it.
        version: of the snapshot now.
        from_version: of the bucket's snapshot; 0 when it has none.
        files: data files that were downloaded.
        segments: segments that were.
        blobs: blobs that were.
        size_bytes: of all that was downloaded.
    """

    project: str
    action: str
    version: int
    from_version: int
    files: int
    segments: int
    blobs: int
    size_bytes: int


def restore(
    fs: Fs,
    root: str,
    bucket: Bucket,
    project: str,
    *,
    version: int | None = None,
    time_ns: Callable[[], int] = time.time_ns,
) -> Restored:
    """Bring a project of a bucket into a store. Readers see the old snapshot, then the new one, whole.

    Files are downloaded beside, each is compared with what its manifest says, and the manifest is put in place last.
    Cut off, it goes on where it was. What the store has beyond the bucket stays: those segments are folded again.

    Args:
        fs: the file system.
        root: the store; its directory is created.
        bucket: where from.
        project: its name.
        version: of the snapshot; None for the newest. An older one goes only into a store without this project.
        time_ns: the clock.

    Raises:
        UsageError: the bucket has nothing of the project, or not this version.
        DivergedError: the store holds records that the bucket lacks, and their segments are gone.
        DataError: a file in the bucket is damaged, or none of its manifests is intact.
        StorageError: the Hub refused or could not be reached.
        OSError: as the file system raises it.
    """
    theirs = _find(bucket, project, version)
    while True:
        try:
            return _take_over(fs, root, bucket, project, theirs, version, time_ns)
        except StorageError:
            newest = _find(bucket, project, version)
            if (newest and newest.file) == (theirs and theirs.file):
                raise
            # The publisher went on, and may have deleted files of the snapshot that it superseded.
            theirs = newest


def _find(bucket: Bucket, project: str, version: int | None) -> Published | None:
    if version is None:
        return inbox.newest(bucket, project)
    path = names.manifest_path("", project, version)
    found = bucket.info([path])
    if path not in found:
        raise UsageError(f"{bucket} has no version {version} of {project!r}")
    return inbox.load(bucket, found[path])


def _take_over(
    fs: Fs,
    root: str,
    bucket: Bucket,
    project: str,
    theirs: Published | None,
    version: int | None,
    time_ns: Callable[[], int],
) -> Restored:
    mine, _ = manifests.load_newest(fs, root, project)
    if version is not None and mine.version not in (0, version):
        text = f"the store has version {mine.version} of {project!r} already: restore version {version} elsewhere"
        raise UsageError(text)
    wanted = theirs is not None and (mine.version == 0 or bool(lacking(mine, theirs.manifest)))
    if theirs is not None and wanted:
        _refuse_loss(fs, root, bucket, mine, theirs.manifest)
    # Before the snapshot and the segments, for their records refer to them.
    blobs = pull_blobs(fs, root, bucket, project)
    action, files = "none", []
    if theirs is not None and wanted:
        files = _download(fs, root, bucket, theirs)
        action = _adopt(fs, root, bucket, theirs, time_ns)
    elif mine.version:
        fs.sync_dir(names.manifests_dir(root, project))  # a restore may have been killed before it did
    pulled = pull(fs, root, bucket, project)
    if theirs is None and not pulled.segments and project not in inbox.projects(bucket):
        raise UsageError(f"{bucket} has nothing of {project!r}")
    return Restored(
        project=project,
        action=action,
        version=manifests.load_newest(fs, root, project)[0].version,
        from_version=0 if theirs is None else theirs.manifest.version,
        files=len(files),
        segments=pulled.segments,
        blobs=blobs.blobs + pulled.blobs,
        size_bytes=sum(file.size_bytes for file in files) + blobs.size_bytes + pulled.size_bytes,
    )


def _download(fs: Fs, root: str, bucket: Bucket, theirs: Published) -> list[Remote]:
    """Bring the files that a snapshot names and the store lacks, and the copies of damaged bytes."""
    project, base = theirs.manifest.project, names.snapshot_dir("", theirs.manifest.project)
    named = {os.path.join(base, file.path): file for file in theirs.manifest.files}
    wanted = [path for path, file in named.items() if not _is_whole(fs, os.path.join(root, path), file.size_bytes)]
    found = bucket.info(wanted)
    for path in wanted:
        if path not in found:
            raise StorageError(2, f"{bucket}/{path} is gone, which version {theirs.manifest.version} names")
        if found[path].size_bytes != named[path].size_bytes:
            raise DataError(f"{bucket}/{path}", None, "the file in the bucket has another size than its manifest says")
    aside = names.quarantine_dir("", project)
    set_aside = [
        file
        for file in bucket.files(aside)
        if file.path == os.path.join(aside, name := os.path.basename(file.path)) and names.is_quarantine_file(name)
    ]
    copies = [file for file in set_aside if not _is_whole(fs, os.path.join(root, file.path), file.size_bytes)]
    files = [*(found[path] for path in wanted), *copies]
    lacks = {file.path for file in files}
    settle(fs, root, project, {*named, *(file.path for file in set_aside)} - lacks)
    fetch(fs, root, bucket, project, files, {path: file.sha256 for path, file in named.items()})
    return files


def _is_whole(fs: Fs, path: str, size_bytes: int) -> bool:
    try:
        return fs.size(path) == size_bytes
    except FileNotFoundError:
        return False


def _adopt(fs: Fs, root: str, bucket: Bucket, theirs: Published, time_ns: Callable[[], int]) -> str:
    """Put the bucket's manifest in place: the very file where its version is free here, else under the next one."""
    project = theirs.manifest.project
    directory = names.manifests_dir(root, project)
    fs.make_dirs(directory)
    while True:
        mine, _ = manifests.load_newest(fs, root, project)
        if mine.version and not lacking(mine, theirs.manifest):
            return "none"  # another process has done the same
        _refuse_loss(fs, root, bucket, mine, theirs.manifest)
        if manifests.newest_version(fs, root, project) < theirs.manifest.version and not lacking(theirs.manifest, mine):
            if manifests.publish_bytes(fs, root, theirs.manifest, theirs.data):
                return "restored"
            continue
        child = following(
            fs, root, theirs.manifest, theirs.manifest.version, "restore", time_ns(), theirs.manifest.publisher
        )
        if manifests.publish(fs, root, child):
            return "merged"


def _refuse_loss(fs: Fs, root: str, bucket: Bucket, mine: Manifest, theirs: Manifest) -> None:
    """Check that the segments of all that the bucket lacks are here, for what it lacks is folded again from them."""
    gone = [writer_id for writer_id in lacking(theirs, mine) if not _has_segments(fs, root, mine, theirs, writer_id)]
    if gone:
        raise DivergedError(
            f"{root} and {bucket} both hold records of {mine.project!r} that the other lacks, and here the segments of "
            f"{', '.join(gone)} are gone. Restore into an empty directory, and bring the rest over with "
            "`eventlog export --to` and `eventlog import`"
        )


def _has_segments(fs: Fs, root: str, mine: Manifest, theirs: Manifest, writer_id: str) -> bool:
    """Say whether a writer's segments hold every record after a watermark up to another one."""
    mark, reached = theirs.writers.get(writer_id, Watermark()), mine.writers[writer_id]
    if reached.seq <= mark.seq:
        return False  # a gap that was filled here, from a segment before the watermark
    here = {item.segno: item for item in segments_of(fs, root, mine.project, writer_id)}
    first = max(mark.segno, 1)
    if first not in here or (first == mark.segno and here[first].size_bytes < mark.offset):
        first += 1
    if first not in here:
        return False
    header = segment.parse_header(fs.read(here[first].path, 0, segment.HEADER_BYTES), here[first].path)
    last = reached.segno if reached.offset else reached.segno - 1
    return header.first_seq <= mark.seq + 1 and all(segno in here for segno in range(first, last + 1))
