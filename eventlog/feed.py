"""Follow one project for a consumer that keeps state of its own: each record once, whatever the compactor does."""

from __future__ import annotations

from typing import NamedTuple

from eventlog import manifest as manifests
from eventlog.columns import Batch
from eventlog.errors import ConflictError
from eventlog.fs import Fs
from eventlog.live import LiveTail
from eventlog.manifest import Manifest
from eventlog.snapshot import ReaderCache, Snapshot
from eventlog.view import TRIES, View


class News(NamedTuple):
    """What an advance brought.

    Attributes:
        reset: forget what was known and load it from the view again; `batches` is empty then.
        batches: the new records, in order; they are in the view too.
    """

    reset: bool
    batches: list[Batch]


class Feed:
    """A project's view, and what came to it since the last look. Not thread-safe.

    Records that are folded between two looks are read from their segments, so a fold costs the consumer nothing.
    Only when that cannot be (segments collected, or records that arrived late in a gap) it has to load again.

    Attributes:
        view: as of the last advance; everything that was announced, and nothing else, is in it.
    """

    view: View

    def __init__(self, fs: Fs, root: str, project: str, cache: ReaderCache) -> None:
        """Take the project; nothing is read before the first advance."""
        self._fs = fs
        self._root = root
        self._project = project
        self._cache = cache
        self._tail: LiveTail | None = None
        self._taken = 0

    def advance(self) -> News:
        """Read what is new.

        Raises:
            ConflictError: files were collected while they were read. After this and every other error the next
                advance starts again.
            DataError: the newest manifest is of a newer format, or none is intact.
            OSError: a file cannot be read.
        """
        try:
            return self._restart() if self._tail is None else self._continue(self._tail)
        except BaseException:
            # Some writers may have been read further than what was announced of them.
            self._tail = None
            raise

    def _restart(self) -> News:
        for _ in range(TRIES):
            newest = manifests.newest_version(self._fs, self._root, self._project)
            manifest, _ = manifests.load_newest(self._fs, self._root, self._project)
            self._open(manifest)
            # Else segments that a newer snapshot covers may have been collected before they were listed.
            if manifests.newest_version(self._fs, self._root, self._project) == newest:
                return News(reset=True, batches=[])
        raise ConflictError(f"snapshots of {self._project!r} are published faster than they can be read")

    def _open(self, manifest: Manifest, upto: LiveTail | None = None) -> list[Batch]:
        """Open a snapshot and its tail; return the batches of records beyond those that `upto` had read."""
        tail = LiveTail(self._fs, self._root, manifest)
        if upto is not None:
            tail.refresh(upto.marks)
        known = len(tail.batches)
        tail.refresh()
        self.view = View(Snapshot(self._fs, self._root, manifest, self._cache), tail)
        self._tail, self._taken = tail, len(tail.batches)
        return tail.batches[known:]

    def _continue(self, tail: LiveTail) -> News:
        if tail.has_late_segments():
            return self._restart()
        newest = self._refresh(tail)
        news = tail.batches[self._taken :]
        self._taken = len(tail.batches)
        if newest == tail.manifest.version:
            return News(reset=False, batches=news)
        manifest, _ = manifests.load_newest(self._fs, self._root, self._project)
        if manifest.version == tail.manifest.version:
            return News(reset=False, batches=news)
        if not _continues(tail, manifest):
            return self._restart()
        return News(reset=False, batches=[*news, *self._open(manifest, tail)])

    def _refresh(self, tail: LiveTail) -> int:
        """Read the tail to its end, and return the newest version: one that was there before the tail was read."""
        for _ in range(TRIES):
            newest = manifests.newest_version(self._fs, self._root, self._project)
            tail.refresh()
            if manifests.newest_version(self._fs, self._root, self._project) == newest:
                return newest
        raise ConflictError(f"snapshots of {self._project!r} are published faster than they can be read")


def _continues(tail: LiveTail, manifest: Manifest) -> bool:
    """Whether a snapshot holds nothing that the old tail has not shown: it was read beyond, and no gap has closed."""
    gaps = set(manifest.gaps)
    return all(gap in gaps for gap in (*tail.manifest.gaps, *tail.gaps)) and all(
        writer_id in tail.marks and tail.marks[writer_id].seq >= mark.seq
        for writer_id, mark in manifest.writers.items()
    )
