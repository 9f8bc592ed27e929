"""The views of a store's projects: kept from answer to answer, renewed when a snapshot is published or collected."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

from eventlog import forks, names
from eventlog import manifest as manifests
from eventlog import tail as tails
from eventlog.errors import ConflictError, UsageError
from eventlog.fs import Fs
from eventlog.live import LiveTail
from eventlog.manifest import Manifest
from eventlog.snapshot import ReaderCache, Snapshot
from eventlog.view import TRIES, View

_T = TypeVar("_T")


class Views:
    """Answers questions about projects from views that are as new as the question. Thread-safe.

    Attributes:
        cache: open data files, shared by all views.
    """

    def __init__(self, fs: Fs, root: str, version: int | None, cache: ReaderCache) -> None:
        """Take the store, and the version to stay at, or None for the newest and its tail."""
        self._fs = fs
        self._root = root
        self._version = version
        self.cache = cache
        self._views: dict[str, View] = {}
        self._lock = threading.RLock()
        forks.register(self)

    def become_child(self) -> None:
        """Have a lock of its own; what another thread had half renewed at the fork is given up."""
        if self._lock.acquire(blocking=False):
            self._lock.release()
        else:
            self._views = {}
        self._lock = threading.RLock()

    def manifest(self, project: str) -> Manifest:
        """Return the manifest that answers come from now; version 0 is the empty snapshot before the first fold.

        Raises:
            UsageError: the project does not exist, or never had the pinned version.
            ConflictError: the pinned version was collected.
            DataError: the pinned manifest is damaged, or of a newer format.
        """
        names.encode_name(project)
        if self._version is None:
            return manifests.load_newest(self._fs, self._root, project)[0]
        try:
            return manifests.load(self._fs, self._root, project, self._version)
        except FileNotFoundError:
            newest = (manifests.versions(self._fs, self._root, project) or [0])[-1]
            if self._version > newest:
                raise UsageError(
                    f"project {project!r} has no version {self._version}, the newest is {newest}"
                ) from None
            raise ConflictError(f"version {self._version} of {project!r} was collected") from None

    def _view(self, project: str) -> View:
        """Return what to answer from, with the tail read to its present end. The caller holds the lock."""
        known = self._views.get(project)
        if known is None:
            projects = tails.projects(self._fs, self._root)
            if project not in projects:
                raise UsageError(f"there is no project {project!r} in {self._root}; there are: {projects}")
        if known is None or self._is_old(project, known):
            known = self._views[project] = self._new_view(project, known)
        for _ in range(TRIES):
            if known.tail is None:
                return known
            self._refresh(project, known.tail)
            if self._newest(project) == known.newest:
                return known
            # Segments that a snapshot covers may have been collected before they were listed here, and nothing else
            # tells that their records are missing.
            known = self._views[project] = self._new_view(project, known)
        raise ConflictError(f"snapshots of {project!r} are published faster than they can be read")

    def _refresh(self, project: str, tail: LiveTail) -> None:
        """Read a tail to its end. One that could not be read holds less of some writers than its marks say."""
        try:
            tail.refresh()
        except BaseException:
            self._views.pop(project, None)
            raise

    def _is_old(self, project: str, known: View) -> bool:
        if known.tail is None:
            return False
        return self._newest(project) != known.newest or known.tail.is_large or known.tail.has_late_segments()

    def _newest(self, project: str) -> int:
        return manifests.newest_version(self._fs, self._root, project)

    def _new_view(self, project: str, known: View | None) -> View:
        newest = self._newest(project)
        manifest = self.manifest(project)
        if known is not None and known.snapshot.manifest.version == manifest.version:
            snapshot = known.snapshot
        else:
            snapshot = Snapshot(self._fs, self._root, manifest, self.cache)
        return View(snapshot, LiveTail(self._fs, self._root, manifest) if self._version is None else None, newest)

    def answer(self, project: str, ask: Callable[[View], _T]) -> _T:
        """Ask a view; when its files were collected while it was asked, ask a new one."""
        with self._lock:
            try:
                return ask(self._view(project))
            except ConflictError:
                if self._version is not None:
                    raise
                self._views.pop(project, None)
                return ask(self._view(project))
