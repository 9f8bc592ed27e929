"""A look at a project in a bucket: which segments and manifests are there, so that no record is missed."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from typing import NamedTuple

from eventlog import names
from eventlog.fs import Entry
from eventlog.hub.bucket import Bucket, Remote
from eventlog.hub.inbox import manifests_in


class Look(NamedTuple):
    """The segments and manifests of a project, as they were together.

    Attributes:
        files: by path.
        entries: what is in each directory, by path, in name order.
        newest: the highest version that has a manifest; 0 when there is none.
    """

    files: dict[str, Remote]
    entries: dict[str, list[Entry]]
    newest: int


def look(bucket: Bucket, project: str, before: Look | None = None) -> Look:
    """Look at a project in a bucket, in three requests.

    Segments are listed before manifests. A publisher deletes a segment only after it has published a manifest that
    covers it, so each record is in a segment of the listing, or in a snapshot that is not older than the newest one.
    A listing may be behind; what it lacks of what was there before is asked for by name, so no look shows less.

    Args:
        bucket: where.
        project: its name.
        before: the look before this one.

    Raises:
        StorageError: the Hub refused or could not be reached.
    """
    segments = {file.path: file for file in bucket.files(names.project_segments_dir("", project))}
    missed = [] if before is None else [file.path for file in before.files.values() if _is_behind(file, segments)]
    if missed:
        segments |= bucket.info(missed)
    # From the newest that was there on, for the listing may lack that one, too.
    manifests = manifests_in(bucket, project, known=0 if before is None else max(before.newest - 1, 0))
    found = [*segments.values(), *manifests.values()]
    return Look({file.path: file for file in found}, tree(found), max(manifests, default=0))


def _is_behind(file: Remote, listed: dict[str, Remote]) -> bool:
    """Say whether a listing lacks a segment that was there, or has less of it: a segment grows, and is deleted once."""
    if not file.path.startswith(f"{names.SEGMENTS}/"):
        return False
    now = listed.get(file.path)
    return now is None or now.size_bytes < file.size_bytes


def tree(files: Iterable[Remote]) -> dict[str, list[Entry]]:
    """Return what is in each directory above these files, by path, in name order."""
    found: dict[str, dict[str, Entry]] = {}
    for file in files:
        above, name = os.path.split(file.path)
        entry = Entry(name, is_dir=False, size_bytes=file.size_bytes, mtime_ns=file.uploaded_ns)
        while name not in (inside := found.setdefault(above, {})):
            inside[name] = entry
            above, name = os.path.split(above)
            entry = Entry(name, is_dir=True, size_bytes=0, mtime_ns=file.uploaded_ns)
            if not name:
                break
    return {path: [inside[name] for name in sorted(inside)] for path, inside in found.items()}


def fingerprint(entries: Iterable[Entry]) -> int:
    """Return a number for what is in a directory: another one when a name or a size is another, and below 2^56 + 1."""
    text = "\0".join(f"{entry.name}\0{entry.size_bytes}" for entry in entries).encode("utf-8", "surrogatepass")
    return 1 + int.from_bytes(hashlib.blake2b(text, digest_size=7).digest())
