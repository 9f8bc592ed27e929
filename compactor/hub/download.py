"""Download files of a bucket beside the store, check each, and give it its name; a broken download is continued."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from compactor.hub.plan import Limits, waves
from eventlog import names
from eventlog.errors import DataError
from eventlog.fs import Fs
from eventlog.hub.bucket import Bucket, Remote
from eventlog.parquet import sha256

_WAVES: Final = Limits(wave_files=64, wave_bytes=256 * 1024 * 1024)
_ABANDONED_NS: Final = 3600 * 10**9


def fetch(
    fs: Fs, root: str, bucket: Bucket, project: str, files: Sequence[Remote], digests: dict[str, str] | None = None
) -> None:
    """Bring files into the store under their own names; durable when this returns. None that is there is replaced.

    Args:
        fs: the file system.
        root: the store.
        bucket: where they are.
        project: in whose name they are kept until they are whole.
        files: of the bucket.
        digests: SHA-256 by path, for those whose manifest tells it; that of a blob is its name.

    Raises:
        StorageError: the Hub refused or could not be reached; waves that came whole are not asked for again.
        DataError: what came is not what the bucket, the manifest or the name says.
        OSError: as the file system raises it.
    """
    beside = names.restoring_dir(root, project)
    _clean(fs, beside)
    for wave in waves(files, _WAVES):
        fs.make_dirs(beside, durable=False)
        whole = {file: os.path.join(beside, _beside(file)) for file in wave}
        missing = [
            (file, os.path.join(beside, names.temporary_name("part")))
            for file, path in whole.items()
            if not _has_size(fs, path, file.size_bytes)
        ]
        try:
            bucket.download(missing)
            for file, path in missing:
                _check(fs, bucket, file, path, (digests or {}).get(file.path))
                fs.rename(path, whole[file])
        except BaseException:
            for _, path in missing:
                with contextlib.suppress(OSError):
                    fs.unlink(path)
            raise
        for directory, inside in _by_directory(wave):
            _put(fs, os.path.join(root, directory), [(whole[file], os.path.basename(file.path)) for file in inside])


def settle(fs: Fs, root: str, project: str, paths: Iterable[str]) -> None:
    """Make durable that files are there, which a download that was killed may have named without a sync.

    Each of its files stays beside until the name is durable, so that without any there is nothing to do.

    Args:
        fs: the file system.
        root: the store.
        project: for which files were downloaded.
        paths: of files that are there, in the store.

    Raises:
        OSError: as the file system raises it.
    """
    if fs.names(names.restoring_dir(root, project)):
        for directory in sorted({os.path.dirname(path) for path in paths}):
            fs.sync_dir(os.path.join(root, directory))


def forget(fs: Fs, root: str, project: str) -> None:
    """Remove what downloads that were killed have left beside; only when all that was wanted is settled.

    Raises:
        OSError: as the file system raises it.
    """
    beside = names.restoring_dir(root, project)
    _clean(fs, beside, whole=True)
    with contextlib.suppress(OSError):
        fs.rmdir(beside)


def _clean(fs: Fs, beside: str, *, whole: bool = False) -> None:
    """Remove what killed processes left half done; one that lives does not take so long for a wave."""
    for entry in fs.entries(beside):
        if (whole or names.is_temporary(entry.name)) and entry.mtime_ns < time.time_ns() - _ABANDONED_NS:
            with contextlib.suppress(FileNotFoundError):
                fs.unlink(os.path.join(beside, entry.name))


def _beside(file: Remote) -> str:
    """Return a name for a download: another for other bytes, so that what is there can be trusted."""
    return f"{file.xet_hash[:16]}-{file.path.replace('/', '!')[-200:]}"


def _has_size(fs: Fs, path: str, size_bytes: int) -> bool:
    try:
        return fs.size(path) == size_bytes
    except FileNotFoundError:
        return False


def _check(fs: Fs, bucket: Bucket, file: Remote, path: str, digest: str | None) -> None:
    name = os.path.basename(file.path)
    wanted = name if names.is_digest(name) else digest
    if wanted is not None and sha256(fs, path) != wanted:
        raise DataError(f"{bucket}/{file.path}", None, "the file in the bucket does not match its SHA-256")
    fd = fs.open(path)
    try:
        fs.sync(fd)
    finally:
        fs.close(fd)


def _by_directory(files: Sequence[Remote]) -> Iterator[tuple[str, list[Remote]]]:
    found: dict[str, list[Remote]] = {}
    for file in files:
        found.setdefault(os.path.dirname(file.path), []).append(file)
    yield from found.items()


def _put(fs: Fs, directory: str, files: Sequence[tuple[str, str]]) -> None:
    fs.make_dirs(directory)
    for path, name in files:
        final = os.path.join(directory, name)
        try:
            fs.link(path, final)
        except FileExistsError:
            if _continues(fs, path, final):
                fs.rename(path, final)
        except FileNotFoundError:
            fs.size(final)  # another process that downloads the same has put it there
    # Also when all were there: whoever put them there may have been killed before the names were synced.
    fs.sync_dir(directory)
    for path, _ in files:
        with contextlib.suppress(FileNotFoundError):
            fs.unlink(path)


def _continues(fs: Fs, path: str, final: str) -> bool:
    """Say whether a file begins with all of an open segment that is there, and has more of it."""
    here = fs.size(final)
    return final.endswith(".open") and here < fs.size(path) and fs.read(path, 0, here) == fs.read(final)
