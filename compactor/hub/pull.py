"""Bring what hosts have put into a bucket's inbox into the store: segments, and the blobs that they refer to."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from typing import NamedTuple

from compactor.hub.download import fetch, forget, settle
from eventlog import manifest as manifests
from eventlog import names
from eventlog.fs import Fs
from eventlog.hub.bucket import Bucket, Remote
from eventlog.hub.inbox import RemoteSegment, is_needed, segment_files


class Pulled(NamedTuple):
    """What was brought into the store."""

    segments: int = 0
    blobs: int = 0
    size_bytes: int = 0


def pull(fs: Fs, root: str, bucket: Bucket, project: str, listing: Iterable[Remote] | None = None) -> Pulled:
    """Bring segments that the store's newest snapshot may lack, in any order, and before them all blobs.

    Each appears under its name when it is whole and durable; one that is there is never replaced. Whether its records
    are folded already is for the fold to say: by their seqs they are folded once.

    Args:
        fs: the file system.
        root: the store.
        bucket: where the inbox is.
        project: its name.
        listing: of the project's segments in the bucket, when it is known already.

    Raises:
        StorageError: the Hub refused or could not be reached.
        DataError: what came is not what the bucket holds; or no manifest of the store is intact.
        OSError: as the file system raises it.
    """
    manifest, _ = manifests.load_newest(fs, root, project)
    if listing is None:
        listing = bucket.files(names.project_segments_dir("", project))
    needed = [
        found
        for found in segment_files(project, listing)
        if is_needed(manifest, found.writer_id, found.segno, found.file.size_bytes)
    ]
    here = {found for found in needed if _is_here(fs, root, found)}
    settle(fs, root, project, [found.file.path for found in here])
    wanted = [found for found in needed if found not in here]
    if not wanted:
        forget(fs, root, project)
        return Pulled()
    blobs = pull_blobs(fs, root, bucket, project)
    # The oldest first, so that what is cut off leaves no hole.
    files = [found.file for found in sorted(wanted, key=lambda found: (found.segno, found.writer_id))]
    fetch(fs, root, bucket, project, files)
    forget(fs, root, project)
    return Pulled(len(files), blobs.blobs, blobs.size_bytes + sum(file.size_bytes for file in files))


def pull_blobs(fs: Fs, root: str, bucket: Bucket, project: str) -> Pulled:
    """Bring all blobs that the store lacks; which project refers to one is written in segments alone.

    Raises:
        StorageError: the Hub refused or could not be reached.
        DataError: what came is not what the bucket holds.
        OSError: as the file system raises it.
    """
    here = {path for path, _ in local_blobs(fs, root)}
    settle(fs, root, project, here)
    files = [file for file in bucket.files(names.BLOBS) if _is_blob(file.path) and file.path not in here]
    fetch(fs, root, bucket, project, files)
    return Pulled(0, len(files), sum(file.size_bytes for file in files))


def local_blobs(fs: Fs, root: str) -> list[tuple[str, int]]:
    """Return (path relative to the store, size in bytes) of each blob.

    Raises:
        OSError: as the file system raises it.
    """
    directory = names.blobs_dir(root)
    return [
        (os.path.join(names.blobs_dir(""), part, entry.name), entry.size_bytes)
        for part in fs.subdirs(directory)
        for entry in fs.entries(os.path.join(directory, part))
        if names.is_digest(entry.name)
    ]


def _is_blob(path: str) -> bool:
    digest = os.path.basename(path)
    return names.is_digest(digest) and path == names.blob_path("", digest)


def _is_here(fs: Fs, root: str, found: RemoteSegment) -> bool:
    """Say whether the store has a segment, under this name or under that which it got when it was sealed.

    One that its dead writer left open may have been shipped before its end was on disk there, and again after that.
    """
    path = os.path.join(root, found.file.path)
    sealed = os.path.join(os.path.dirname(path), names.segment_name(found.segno, sealed=True))
    for name in {path, sealed}:
        with contextlib.suppress(FileNotFoundError):
            if fs.size(name) >= found.file.size_bytes or name == sealed:
                return True
    return False
