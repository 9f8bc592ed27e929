"""Collect: delete what retention listed, after checking that the snapshot which covers it is whole."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from typing import Final, NamedTuple

from compactor import retention
from compactor.config import CompactorConfig
from compactor.survey import survey
from eventlog import conflicts, names, parquet, segment
from eventlog import manifest as manifests
from eventlog.errors import DataError, NewerFormatError
from eventlog.fs import Fs
from eventlog.manifest import Manifest


class Collected(NamedTuple):
    """What a collection did.

    Attributes:
        removed: paths that are gone.
        size_bytes: what they took.
        kept: paths that were listed but must stay, with the reason.
        broken: a file of the newest snapshot is not what its manifest says.
    """

    removed: list[str]
    size_bytes: int
    kept: dict[str, str]
    broken: bool = False


NOTHING: Final = Collected([], 0, {})


def collect(
    fs: Fs, root: str, project: str, config: CompactorConfig, *, time_ns: Callable[[], int] = time.time_ns
) -> Collected:
    """Delete what retention lists. Killed at any step it leaves only less to delete.

    Segments go last, and only when every file of the newest snapshot has the bytes that its manifest says.

    Raises:
        NewerFormatError: a manifest is of a newer format: nothing is deleted.
        OSError: as the file system raises it.
    """
    kept_manifests, damaged = _load_all(fs, root, project)
    if kept_manifests:
        # Whoever linked the newest may have been killed before it synced the name.
        fs.sync_dir(names.manifests_dir(root, project))
    listed = retention.list_expired(root, project, survey(fs, root, project), kept_manifests, config, time_ns())
    result = Collected([], 0, {})
    if damaged:
        # What a damaged manifest names is unknown, so nothing that it may need can go.
        reason = f"a manifest is damaged: {damaged[0]}"
        return result._replace(kept=dict.fromkeys([*listed.data_files, *listed.sealed, *listed.abandoned], reason))
    expired = [names.manifest_path(root, project, version) for version in listed.manifests]
    result = _remove(fs, expired, result)
    if expired:
        fs.sync_dir(names.manifests_dir(root, project))
    result = _remove(fs, [*listed.data_files, *listed.staging], result)
    if not (listed.sealed or listed.abandoned):
        return result
    broken = _first_broken_file(fs, root, kept_manifests[-1])
    if broken is not None:
        return result._replace(kept=dict.fromkeys([*listed.sealed, *listed.abandoned], broken), broken=True)
    stay = dict.fromkeys((path for path in listed.abandoned if is_held(fs, path)), "its writer is alive")
    stay |= _in_conflict(fs, root, [*listed.sealed, *listed.abandoned], kept_manifests[-1])
    result = _remove(fs, [path for path in (*listed.sealed, *listed.abandoned) if path not in stay], result)
    _remove_empty_writers(fs, root, project, kept_manifests[-1])
    return result._replace(kept=stay)


def is_held(fs: Fs, path: str) -> bool:
    """Say whether a process holds an open segment; one that was sealed since it was listed is not open any more."""
    try:
        return fs.is_locked(path)
    except FileNotFoundError:
        return False


def _in_conflict(fs: Fs, root: str, paths: list[str], newest: Manifest) -> dict[str, str]:
    """Return which segments hold other records than were folded, with the reason: what nobody has folded must not go.

    One that was copied over a folded segment is like nothing that a fold has seen.
    """
    found = {
        os.path.join(root, item.source): item.reason
        for item in newest.quarantined
        if item.reason.startswith(conflicts.CONFLICT)
    }
    stay: dict[str, str] = {}
    for path in paths:
        directory, name = os.path.split(path)
        mark, parsed = newest.writers.get(os.path.basename(directory)), names.parse_segment_name(name)
        end = (mark.ends or {}).get(parsed[0]) if mark is not None and parsed is not None else None
        if path in found:
            stay[path] = found[path]
        elif end is not None and parsed is not None:
            file = segment.SegmentFile(fs, directory, parsed[0], sealed=parsed[1])
            with contextlib.suppress(FileNotFoundError):
                if conflicts.is_replaced(file, end):
                    stay[path] = conflicts.REPLACED
    return stay


def _load_all(fs: Fs, root: str, project: str) -> tuple[list[Manifest], list[DataError]]:
    kept: list[Manifest] = []
    damaged: list[DataError] = []
    for version in manifests.versions(fs, root, project):
        try:
            kept.append(manifests.load(fs, root, project, version))
        except NewerFormatError:
            raise
        except DataError as error:
            damaged.append(error)
        except FileNotFoundError:
            continue
    return kept, damaged


def _remove(fs: Fs, paths: list[str], result: Collected) -> Collected:
    for path in paths:
        try:
            size = fs.size(path)
            fs.unlink(path)
        except FileNotFoundError:
            continue
        result = Collected([*result.removed, path], result.size_bytes + size, result.kept)
    return result


def _first_broken_file(fs: Fs, root: str, newest: Manifest) -> str | None:
    """Say which file of a snapshot is not what its manifest says; None when all are."""
    base = names.snapshot_dir(root, newest.project)
    for file in newest.files:
        path = os.path.join(base, file.path)
        try:
            if fs.size(path) != file.size_bytes or parquet.sha256(fs, path) != file.sha256:
                return f"{path} does not match its checksum"
        except FileNotFoundError:
            return f"{path} is missing"
    return None


def _remove_empty_writers(fs: Fs, root: str, project: str, newest: Manifest) -> None:
    for writer_id, mark in newest.writers.items():
        directory = names.writer_dir(root, project, writer_id)
        if mark.done and not fs.entries(directory):
            with contextlib.suppress(OSError):
                fs.rmdir(directory)
