"""A bucket as a file system that can only be read: what a store's read side asks of one, in few requests."""

from __future__ import annotations

import errno
import itertools
import os
import threading
import time
from collections.abc import Callable, Iterator
from typing import IO, Final, NoReturn, cast

from eventlog import forks, names
from eventlog import manifest as manifests
from eventlog.errors import ConflictError, DataError, StorageError
from eventlog.fs import Entry
from eventlog.hub import inbox
from eventlog.hub.address import parse_bucket
from eventlog.hub.bucket import Bucket, Remote, hash_of_bytes
from eventlog.hub.kept import Kept
from eventlog.hub.look import Look, fingerprint, look, tree
from eventlog.hub.pool import Pool
from eventlog.hub.ranged import AHEAD, Range, RangedFile
from eventlog.hub.readonly import ReadOnly

_WHOLE_BYTES: Final = 8 * 1024 * 1024
"""Files up to this are fetched whole, compared with their hash, and kept."""
_BLOCK_BYTES: Final = 1024 * 1024
"""Larger ones are fetched in blocks of this, several at once when they are read one after the other."""
_KEPT_BYTES: Final = 128 * 1024 * 1024
_MOST_KNOWN: Final = 20_000
"""Of so many files it is remembered what was asked; those asked first are forgotten first."""


class BucketFs(ReadOnly):
    """The file system of a store in a bucket, read-only. Thread-safe.

    Paths begin with the bucket's address. Segments and manifests are listed together, in a *look*, which is made
    when versions are asked for and the last one is older than `look_s`. So an answer comes from one moment, and
    answers that follow each other closely share it. What was fetched is kept in memory under its hash, within a limit.

    Beside what the operating system would raise, methods raise StorageError when the Hub refused or could not be
    reached, and those that read raise ConflictError when a segment or a data file of the look is gone: the next look
    is a new one.

    Attributes:
        root: the bucket's address, with which all paths begin.
    """

    def __init__(
        self,
        bucket: Bucket,
        *,
        look_s: float = 5.0,
        kept_bytes: int = _KEPT_BYTES,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Take the bucket; nothing is asked yet.

        Args:
            bucket: where the store is.
            look_s: how many seconds a look is good for; 0 looks again for each answer. Default 5 s: who polls makes
                three requests each time, of some hundred that the Hub allows in five minutes.
            kept_bytes: how much to keep in memory of what was fetched.
            monotonic: the clock, in seconds.
        """
        self._bucket = bucket
        self.root = str(bucket)
        self._look_s = look_s
        self._monotonic = monotonic
        self._kept = Kept(kept_bytes)
        self._looks: dict[str, tuple[float, Look]] = {}
        self._outdated: set[str] = set()
        self._tops: dict[str, tuple[float, list[Entry]]] = {}
        self._known: dict[str, Remote] = {}
        self._blobs_listed = False
        self._lock = threading.RLock()
        self._pool = Pool(AHEAD)
        forks.register(self)

    def become_child(self) -> None:
        """Have a lock of its own: another thread may have held it, for as long as a trip to the Hub takes."""
        self._lock = threading.RLock()

    @classmethod
    def at(cls, address: str) -> BucketFs:
        """Return the file system at an address, `hf://buckets/OWNER/NAME[/PREFIX]`, of a bucket that is there.

        Raises:
            UsageError: it is no such address, or the client of the Hub is not installed.
            StorageError: there is no such bucket for this token, or the Hub could not be reached.
        """
        found = cls(Bucket(parse_bucket(address)))
        found.entries(names.snapshots_dir(found.root))
        return found

    # What is there.

    def entries(self, path: str) -> list[Entry]:
        """List a directory in name order; of segments and manifests, what the present look has."""
        name = self._name(path)
        project = _project_of(name)
        if project is not None:
            return self._look(project, anew=name == names.manifests_dir("", project)).entries.get(name, [])
        if name in (names.SEGMENTS, names.SNAPSHOTS):
            return self._top(name)
        return tree(self._bucket.files(name)).get(name, [])

    def names(self, path: str) -> list[str]:
        """Name what is in a directory, likewise."""
        return [entry.name for entry in self.entries(path)]

    def subdirs(self, path: str) -> list[str]:
        """Name the directories in a directory, likewise."""
        return [entry.name for entry in self.entries(path) if entry.is_dir]

    def is_dir(self, path: str) -> bool:
        """Say whether there is anything below a path."""
        return bool(self.entries(path))

    def size(self, path: str) -> int:
        """Return a file's size in bytes."""
        return self._file(self._name(path)).size_bytes

    def changed_ns(self, path: str) -> int:
        """Return when a file was uploaded; of a directory, which has no time, a number that changes when it does."""
        found = self.entries(path)
        return fingerprint(found) if found else self._file(self._name(path)).uploaded_ns

    def is_locked(self, path: str) -> bool:
        """Say no: nobody appends to a file in a bucket."""
        del path
        return False

    def _name(self, path: str) -> str:
        return path.removeprefix(self.root).strip("/")

    def _top(self, name: str) -> list[Entry]:
        with self._lock:
            at_s, found = self._tops.get(name, (float("-inf"), []))
            if self._monotonic() - at_s >= self._look_s:
                at_s = self._monotonic()
                found = [Entry(folder, True, 0, 0) for folder in self._bucket.folders(name)]
                self._tops[name] = at_s, found
            return found

    def _look(self, project: str, *, anew: bool = False) -> Look:
        """Return the present look at a project. Looks are made one at a time, so none replaces a newer one."""
        with self._lock:
            at_s, last = self._looks.get(project, (float("-inf"), None))
            old = project in self._outdated or self._monotonic() - at_s >= self._look_s
            if last is None or (anew and old):
                at_s = self._monotonic()
                last = look(self._bucket, project, last)
                self._looks[project] = at_s, last
                self._outdated.discard(project)
            return last

    def _file(self, name: str) -> Remote:
        """Return a file, by the look that it belongs to, or as the Hub says when asked for it by name."""
        project = _project_of(name)
        found = self._known.get(name) if project is None else self._look(project).files.get(name)
        if found is None and not name.startswith(f"{names.SEGMENTS}/"):
            found = self._asked(name)
        if found is None:
            if project is None:
                self._look_again(name)
            raise _missing(f"{self.root}/{name}")
        return found

    def _look_again(self, name: str) -> None:
        """Let the next look be a new one: a file is not there that this one has, or that its manifest names."""
        parts = name.split("/")
        project = names.decode_name(parts[1]) if len(parts) > 1 else None
        with self._lock:
            self._known.pop(name, None)
            if project is not None:
                self._outdated.add(project)

    def _asked(self, name: str) -> Remote | None:
        """Ask for a file by its name, and for others that are likely to be wanted with it."""
        if name.startswith(f"{names.BLOBS}/") and not self._blobs_listed:
            found = {file.path: file for file in self._bucket.files(names.BLOBS)}
            self._blobs_listed = True
        else:
            found = self._bucket.info({name, *self._beside(name)})
        with self._lock:
            self._known |= itertools.islice(found.items(), _MOST_KNOWN)
            for oldest in list(itertools.islice(self._known, max(len(self._known) - _MOST_KNOWN, 0))):
                del self._known[oldest]
        return found.get(name)

    def _beside(self, name: str) -> list[str]:
        """Name the other data files of the newest snapshot when this is one of them."""
        parts = name.split("/")
        project = names.decode_name(parts[1]) if len(parts) == 5 and parts[0] == names.SNAPSHOTS else None
        if project is None:
            return []
        base = names.snapshot_dir("", project)
        paths = [f"{base}/{file.path}" for file in self._newest(project).files]
        return paths if name in paths else []

    def _newest(self, project: str) -> manifests.Manifest:
        """Return the newest manifest of the look, which was read before; the empty one when it cannot be read."""
        try:
            return manifests.load(self, self.root, project, self._look(project).newest)
        except (DataError, FileNotFoundError):
            return manifests.empty(project)  # only what is fetched ahead depends on it

    # Bytes.

    def read(self, path: str, offset: int = 0, size: int = -1) -> bytes:
        """Return a file's bytes from `offset`, at most `size` of them when it is not negative."""
        name = self._name(path)
        if name.startswith(f"{names.BLOBS}/"):
            return self._blob(name)[offset:][: None if size < 0 else size]
        file = self._file(name)
        end = file.size_bytes if size < 0 else min(offset + size, file.size_bytes)
        if offset >= end:
            return b""
        if file.size_bytes <= _WHOLE_BYTES:
            return self._whole(file)[offset:end]
        if size < 0:
            ranges = [(at, min(at + _WHOLE_BYTES, end)) for at in range(offset, end, _WHOLE_BYTES)]
            return b"".join(self._pool.at_once(lambda wanted: self._fetch(file, wanted), ranges))
        return self._blocks(file, offset, end)

    def source(self, path: str) -> IO[bytes]:
        """Return what pyarrow reads: a file that is kept from memory, another one in ranges."""
        file = self._file(self._name(path))

        def fetch(wanted: Range) -> bytes:
            data = self._kept.get((file.path, file.xet_hash))
            return self._fetch(file, wanted) if data is None else data[slice(*wanted)]

        ranged = RangedFile(file.size_bytes, fetch, lambda wanted: self._pool.submit(fetch, wanted))
        return cast("IO[bytes]", ranged)

    def _blob(self, name: str) -> bytes:
        """Return a blob in one request, without asking for it first; who reads it compares it with its digest."""
        try:
            return self._bucket.fetch(name)
        except StorageError as error:
            if error.errno != errno.ENOENT:
                raise
            raise _missing(f"{self.root}/{name}") from error

    def _whole(self, file: Remote) -> bytes:
        """Return a small file, from memory when it was fetched before."""
        data = self._kept.get((file.path, file.xet_hash))
        if data is None:
            data, *_ = self._pool.at_once(self._keep, [file, *self._fitting(file)])
        return data

    def _keep(self, file: Remote) -> bytes:
        """Return a small file and keep it; one that is not what its hash says is fetched once more."""
        key = (file.path, file.xet_hash)
        data = self._kept.get(key)
        for _ in range(2):
            if data is not None:
                return data
            data = self._fetch(file, (0, file.size_bytes))
            if hash_of_bytes(data) == file.xet_hash:
                self._kept.put(key, data)
            else:
                data = None
        if data is not None:
            return data
        if self._bucket.info([file.path]).get(file.path, file).xet_hash != file.xet_hash:
            self._gone(file)
        raise DataError(f"{self.root}/{file.path}", None, "what was downloaded is not what the bucket holds")

    def _after(self, file: Remote) -> Iterator[Remote]:
        """Yield what a reader of this file will want next, in its order: the rest of the unfolded tail, or of runs."""
        parts = file.path.split("/")
        project = names.decode_name(parts[1]) or ""
        if parts[0] == names.SEGMENTS:
            manifest = self._newest(project)
            segments = sorted(inbox.segment_files(project, self._look(project).files.values()))
            for writer_id, segno, other in itertools.dropwhile(lambda found: found.file != file, segments):
                if other != file and inbox.is_unfolded(manifest, writer_id, segno, other.size_bytes):
                    yield other
        elif parts[2:4] == ["data", "runs"]:
            beside = [path for path in self._beside(file.path) if path.split("/")[3] == "runs"]
            following = (self._known.get(path) for path in itertools.dropwhile(lambda path: path != file.path, beside))
            yield from (other for other in following if other is not None and other != file)

    def _fitting(self, file: Remote) -> Iterator[Remote]:
        """Yield those that come after a file and are small and not kept yet.

        They end where half of what may be kept is full, those that are kept included, which count as used now: so none
        is pushed out before it was read, and what was read before is not fetched again.
        """
        left = self._kept.limit_bytes // 2 - file.size_bytes
        for other in self._after(file):
            left -= other.size_bytes
            if left < 0:
                return
            if 0 < other.size_bytes <= _WHOLE_BYTES and self._kept.get((other.path, other.xet_hash)) is None:
                yield other

    def _blocks(self, file: Remote, offset: int, end: int) -> bytes:
        """Return a range of a large file from blocks of it, fetched ahead when the block before is there already."""
        first, last = offset // _BLOCK_BYTES, (end - 1) // _BLOCK_BYTES
        blocks = [self._kept.get((file.path, file.xet_hash, number)) for number in range(first, last + 1)]
        if None in blocks:
            reads_on = (file.path, file.xet_hash, first - 1) in self._kept
            stop = max(last + 1, first + AHEAD if reads_on else 0) * _BLOCK_BYTES
            data = self._fetch(file, (first * _BLOCK_BYTES, min(stop, file.size_bytes)))
            blocks = [data[at : at + _BLOCK_BYTES] for at in range(0, len(data), _BLOCK_BYTES)]
            for number, block in enumerate(blocks, first):
                self._kept.put((file.path, file.xet_hash, number), cast("bytes", block))
        start = first * _BLOCK_BYTES
        return b"".join(cast("list[bytes]", blocks))[offset - start : end - start]

    def _fetch(self, file: Remote, wanted: Range) -> bytes:
        try:
            return self._bucket.fetch(file.path, *wanted)
        except StorageError as error:
            if error.errno != errno.ENOENT:
                raise
            self._gone(file, error)

    def _gone(self, file: Remote, error: StorageError | None = None) -> NoReturn:
        """Say that a file is not there any more, or is another one, and let the next look be a new one."""
        self._look_again(file.path)
        if names.parse_manifest_name(os.path.basename(file.path)) is not None:
            raise _missing(f"{self.root}/{file.path}") from error
        text = "was collected or replaced since this snapshot was opened: open the store again"
        raise ConflictError(f"{self.root}/{file.path} {text}") from error


def _project_of(name: str) -> str | None:
    """Return the project whose look has this file or directory: segments and manifests; None for anything else."""
    parts = name.split("/")
    in_look = parts[0] == names.SEGMENTS or (parts[0] == names.SNAPSHOTS and parts[2:3] == ["manifests"])
    return names.decode_name(parts[1]) if in_look and len(parts) > 1 else None


def _missing(path: str) -> FileNotFoundError:
    return FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
