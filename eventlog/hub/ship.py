"""Ship a store's blobs and segments into the inbox of a bucket, from where the one who publishes there folds them."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Final, NamedTuple

from eventlog import conflicts, names
from eventlog import manifest as manifests
from eventlog.errors import DataError, StorageError, UsageError
from eventlog.fs import LOCAL, Fs
from eventlog.hub.bucket import Bucket, Remote, hash_of
from eventlog.hub.inbox import is_needed, newest_or_empty
from eventlog.manifest import Manifest, Watermark
from eventlog.outgoing import File, SegmentOut, Shipped, outgoing
from eventlog.segment import SegmentFile

_WAVE_FILES: Final = 256
_WAVE_BYTES: Final = 128 * 1024 * 1024
_CHUNK_BYTES: Final = 1 << 20


class Memory:
    """What this process has learnt of the files of one store in one bucket, so that it need not ask again.

    A file that has changed since is asked for again. Not thread-safe.
    """

    def __init__(self) -> None:
        """Know nothing."""
        self._known: dict[str, tuple[File, bool]] = {}

    def new(self, files: Iterable[File]) -> list[File]:
        """Return those of which nothing is known."""
        return [file for file in files if self._known.get(file.path, (None,))[0] != file]

    def unequal(self, files: Iterable[File]) -> list[File]:
        """Return those that are in the bucket with other bytes."""
        return [file for file in files if self._known.get(file.path) == (file, False)]

    def note(self, files: Iterable[File], *, equal: bool) -> None:
        """Remember that files are in the bucket, as they are here or with other bytes."""
        self._known.update((file.path, (file, equal)) for file in files)


def ship(
    root: str,
    bucket: Bucket,
    *,
    fs: Fs = LOCAL,
    projects: Collection[str] | None = None,
    memory: Memory | None = None,
    on_wave: Callable[[Shipped], None] | None = None,
) -> Shipped:
    """Upload what a bucket lacks of a store; it is there, whole and as it is here, when this returns.

    Blobs go first, then sealed segments, and those that dead writers left open, the oldest first. What the bucket's
    newest snapshot holds is left out. A segment that is there with other records is a conflict: it stays as it is,
    here and there. Safe to repeat and to interrupt, also by kill -9: what is there already is not sent again.

    Args:
        root: the store; a local directory.
        bucket: where to.
        fs: what lists the store and asks for locks.
        projects: ship segments of these only; None for all. Blobs belong to no project, so all of them are shipped.
        memory: of the shipments before to the same bucket in this process; what it knows costs no request.
        on_wave: is given what was done so far, after each wave of uploads.

    Raises:
        StorageError: the Hub refused or could not be reached; each file is there whole or not at all.
        DataError: what the bucket holds under the name of a segment cannot be read.
        OSError: as the file system raises it.
    """
    found = outgoing(fs, root, projects)
    memory = memory or Memory()
    _leave_out_folded(fs, root, bucket, found.segments, memory)
    parts = (found.blobs, [item.file for item in found.segments])
    waves = [wave for part in parts for wave in _waves(memory.new(part))]
    known = _known(bucket, [*parts[0], *parts[1]], memory)
    shipped = known._replace(left_open=found.left_open)
    for wave in waves:
        shipped = shipped.plus(_ship_wave(root, bucket, wave, memory))
        if on_wave is not None:
            on_wave(shipped)
    return shipped


def send(bucket: Bucket, root: str, paths: Iterable[str], *, memory: Memory | None = None) -> Shipped:
    """Upload exactly these blobs and segments of a store, in two or three requests for a hundred of them.

    They are there when this returns, like after `ship`, unless it names them as conflicts. Blobs go before segments.

    Args:
        bucket: where to.
        root: the store; a local directory.
        paths: of files to which nobody appends, in the store; one that is gone is left out.
        memory: as for `ship`.

    Raises:
        UsageError: a path is no blob and no segment of the store.
        StorageError: the Hub refused or could not be reached; each file is there whole or not at all.
        DataError: what the bucket holds under the name of a segment cannot be read.
        OSError: as the file system raises it.
    """
    memory = memory or Memory()
    files: list[File] = []
    gone = 0
    for path in paths:
        name = os.path.relpath(path, root)
        if not name.startswith((f"{names.BLOBS}/", f"{names.SEGMENTS}/")):
            raise UsageError(f"{path} is no blob and no segment of {root}")
        try:
            stat = os.stat(path)
        except FileNotFoundError:
            gone += 1
        else:
            files.append(File(name, stat.st_size, stat.st_mtime_ns))
    shipped = _known(bucket, files, memory).plus(Shipped(left_open=gone))
    for is_blob in (True, False):
        for wave in _waves([file for file in memory.new(files) if _is_blob(file) is is_blob]):
            shipped = shipped.plus(_ship_wave(root, bucket, wave, memory))
    return shipped


def _known(bucket: Bucket, files: Collection[File], memory: Memory) -> Shipped:
    unequal = memory.unequal(files)
    return Shipped(present=len(files) - len(memory.new(files)) - len(unequal), conflicts=_conflicts(bucket, unequal))


def _conflicts(bucket: Bucket, unequal: Iterable[File]) -> tuple[str, ...]:
    return tuple(f"{bucket}/{file.path}" for file in unequal)


# What has to go.


def _leave_out_folded(fs: Fs, root: str, bucket: Bucket, segments: Sequence[SegmentOut], memory: Memory) -> None:
    """Note the segments whose records the snapshot in the bucket holds, and those of which it holds other records."""
    new = {*memory.new(item.file for item in segments)}
    held: dict[str, Manifest] = {}
    for item in segments:
        if item.file not in new:
            continue
        if item.project not in held:
            held[item.project] = _held(bucket, item.project)
        manifest = held[item.project]
        if not is_needed(manifest, item.writer_id, item.segno, item.file.size_bytes):
            memory.note([item.file], equal=not _is_replaced(fs, root, manifest, item))


def _held(bucket: Bucket, project: str) -> Manifest:
    try:
        return newest_or_empty(bucket, project)
    except DataError:
        return manifests.empty(project)  # what is folded cannot be told: then all segments are sent, and folded once


def _is_replaced(fs: Fs, root: str, manifest: Manifest, item: SegmentOut) -> bool:
    """Say whether the snapshot holds other records under this segment's name: its writer was copied."""
    end = (manifest.writers.get(item.writer_id, Watermark()).ends or {}).get(item.segno)
    directory, name = os.path.split(os.path.join(root, item.file.path))
    file = SegmentFile(fs, directory, item.segno, sealed=name == names.segment_name(item.segno, sealed=True))
    try:
        return end is not None and conflicts.is_replaced(file, end)
    except FileNotFoundError:
        return False  # collected since it was listed


def _waves(files: Sequence[File]) -> Iterator[list[File]]:
    """Cut into what one upload takes, so that a shipment that is cut off has to repeat little."""
    wave: list[File] = []
    size = 0
    for file in files:
        if wave and (len(wave) == _WAVE_FILES or size + file.size_bytes > _WAVE_BYTES):
            yield wave
            wave, size = [], 0
        wave.append(file)
        size += file.size_bytes
    if wave:
        yield wave


# One wave.


class _Sorted(NamedTuple):
    """The files of a wave by what is to be done with them."""

    missing: list[File]
    present: list[File]
    unequal: list[File]


def _ship_wave(root: str, bucket: Bucket, wave: Sequence[File], memory: Memory) -> Shipped:
    here = [file for file in wave if os.path.exists(os.path.join(root, file.path))]
    gone = Shipped(left_open=len(wave) - len(here))
    try:
        done = _sort(root, bucket, here)
        _upload(root, bucket, done.missing)
    except FileNotFoundError as error:
        if isinstance(error, StorageError) or all(os.path.exists(os.path.join(root, file.path)) for file in here):
            raise
        return _ship_wave(root, bucket, wave, memory)
    memory.note((*done.missing, *done.present), equal=True)
    memory.note(done.unequal, equal=False)
    return gone.plus(
        Shipped(
            copied=len(done.missing),
            present=len(done.present),
            conflicts=_conflicts(bucket, done.unequal),
            copied_bytes=sum(file.size_bytes for file in done.missing),
        )
    )


def _sort(root: str, bucket: Bucket, wave: Sequence[File]) -> _Sorted:
    remotes = bucket.info([file.path for file in wave])
    hashed = [file for file in wave if file.path in remotes and not _is_blob(file)]
    hashes = dict(zip(hashed, hash_of([os.path.join(root, file.path) for file in hashed]), strict=True))
    found = _Sorted([], [], [])
    for file in wave:
        remote = remotes.get(file.path)
        if remote is None:
            found.missing.append(file)
        elif remote.size_bytes == file.size_bytes and hashes.get(file, remote.xet_hash) == remote.xet_hash:
            found.present.append(file)
        elif _is_blob(file):
            whole = _sha256(os.path.join(root, file.path)) == os.path.basename(file.path)
            (found.missing if whole else found.unequal).append(file)
        else:
            _sort_unequal(root, bucket, file, remote, found)
    return found


def _sort_unequal(root: str, bucket: Bucket, file: File, remote: Remote, found: _Sorted) -> None:
    """Compare the bytes: an open segment that was shipped before its end was there may have grown since."""
    with open(os.path.join(root, file.path), "rb") as opened:
        mine = opened.read()
    theirs = bucket.read(remote)
    if conflicts.do_agree(mine, theirs):
        found.present.append(file)
    elif conflicts.do_agree(theirs, mine):
        found.missing.append(file)
    else:
        found.unequal.append(file)


def _upload(root: str, bucket: Bucket, files: Sequence[File]) -> None:
    if not files:
        return
    sources = [os.path.join(root, file.path) for file in files]
    hashes = hash_of(sources)
    bucket.upload([(source, file.path) for source, file in zip(sources, files, strict=True)])
    there = bucket.info([file.path for file in files])
    for file, wanted in zip(files, hashes, strict=True):
        remote = there.get(file.path)
        if remote is None or (remote.size_bytes, remote.xet_hash) != (file.size_bytes, wanted):
            text = f"{bucket}/{file.path}: the bucket has not got what was uploaded; shipping it again may help"
            raise StorageError(errno.EIO, text)


def _is_blob(file: File) -> bool:
    return file.path.startswith(f"{names.BLOBS}/")


def _sha256(path: str) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while data := file.read(_CHUNK_BYTES):
            digest.update(data)
    return digest.hexdigest()
