"""What a publisher remembers of a bucket between its starts, and what others tell its lag from."""

from __future__ import annotations

import os
import time
from typing import Final

import msgspec

from eventlog import manifest as manifests
from eventlog import names
from eventlog.fs import Fs, put_if_absent, rename_staged, staged, write_all


class ProjectState(msgspec.Struct, frozen=True, kw_only=True):
    """What was published of a project last.

    Attributes:
        epoch: in which this store published; 0 for never.
        version: of the snapshot that the bucket shows.
        published_ns: when all was there that the store had, by this machine's clock; 0 for never.
        error: what keeps the rest from being published; "" for nothing.
    """

    epoch: int = 0
    version: int = 0
    published_ns: int = 0
    error: str = ""


class BucketState(msgspec.Struct, frozen=True, kw_only=True):
    """What a publisher remembers.

    Attributes:
        bucket: its address.
        owner: the id that the store gave itself for it.
        projects: by name.
    """

    bucket: str
    owner: str
    projects: dict[str, ProjectState] = {}

    def of(self, project: str) -> ProjectState:
        """Return what was published of a project last."""
        return self.projects.get(project, ProjectState())


class Lag(msgspec.Struct, frozen=True, kw_only=True):
    """How far a bucket is behind its store, for one project.

    Attributes:
        bucket: its address.
        version: of the snapshot that it shows.
        behind_versions: how many newer snapshots the store has.
        lag_s: for how long something has been waiting to be published; 0 when nothing is.
        published_age_s: since all was there; None for never.
        error: what keeps the rest from being published; "" for nothing.
    """

    bucket: str
    version: int
    behind_versions: int
    lag_s: float
    published_age_s: float | None
    error: str


_decoder: Final = msgspec.json.Decoder(BucketState)


def load(fs: Fs, root: str, bucket: str) -> BucketState:
    """Return what is remembered of a bucket; a store that has never published there gives itself an id for it.

    Raises:
        OSError: as the file system raises it.
    """
    path = names.bucket_state_path(root, bucket)
    directory, name = os.path.split(path)
    found = _read(fs, path)
    if found is not None:
        if not found.projects:
            # Nothing was saved since: whoever made it may have been killed before its name was synced.
            fs.sync_dir(directory)
        return found
    fs.make_dirs(directory)
    fresh = BucketState(bucket=bucket, owner=names.new_id())
    if not put_if_absent(fs, directory, name, msgspec.json.encode(fresh)):
        found = _read(fs, path)
        if found is not None:
            return found  # another process was first
        # Damaged: as after a deletion, another id, so that whoever had the old one is noticed.
        save(fs, root, fresh)
    return fresh


def _read(fs: Fs, path: str) -> BucketState | None:
    try:
        return _decode(fs.read(path))
    except FileNotFoundError:
        return None


def _decode(data: bytes) -> BucketState | None:
    try:
        return _decoder.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None


def save(fs: Fs, root: str, state: BucketState) -> None:
    """Remember; durable when this returns.

    Raises:
        OSError: as the file system raises it.
    """
    path = names.bucket_state_path(root, state.bucket)
    directory, name = os.path.split(path)
    with staged(fs, directory, name) as (temporary, fd):
        write_all(fs, fd, msgspec.json.encode(state))
    rename_staged(fs, temporary, path)
    fs.sync_dir(directory)


def note_error(fs: Fs, root: str, bucket: str, project: str, error: str) -> None:
    """Remember what keeps a project, or with "" all of them, from being published, until the next publish.

    Raises:
        OSError: as the file system raises it.
    """
    known = load(fs, root, bucket)
    changed = {
        name: msgspec.structs.replace(known.of(name), error=error)
        for name in ([project] if project else known.projects)
    }
    save(fs, root, msgspec.structs.replace(known, projects={**known.projects, **changed}))


def lags(fs: Fs, root: str, project: str, now_ns: int | None = None) -> list[Lag]:
    """Return how far each bucket that the store was published to is behind it, for one project.

    Raises:
        OSError: as the file system raises it.
    """
    directory = names.hub_dir(root)
    found: list[Lag] = []
    for name in fs.names(directory):
        is_state = name.endswith(".json") and not names.is_temporary(name)
        state = _decode(fs.read(os.path.join(directory, name))) if is_state else None
        if state is not None:
            found.append(_lag(fs, root, project, state, time.time_ns() if now_ns is None else now_ns))
    return found


def _lag(fs: Fs, root: str, project: str, state: BucketState, now_ns: int) -> Lag:
    last = state.of(project)
    waiting = [version for version in manifests.versions(fs, root, project) if version > last.version]
    since_ns = now_ns
    if waiting:
        since_ns = fs.changed_ns(names.manifest_path(root, project, waiting[0]))
    return Lag(
        bucket=state.bucket,
        version=last.version,
        behind_versions=len(waiting),
        lag_s=max(now_ns - since_ns, 0) / 1e9,
        published_age_s=(now_ns - last.published_ns) / 1e9 if last.published_ns else None,
        error=last.error,
    )
