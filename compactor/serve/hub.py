"""What a server holds: its store, and for each project what it takes and what it shows."""

from __future__ import annotations

import logging
import math
import os
import threading
from collections import OrderedDict

from compactor.serve.config import ServeConfig
from compactor.serve.errors import RequestError
from compactor.serve.held import Held
from compactor.serve.intake import Intake
from compactor.serve.project import Project
from compactor.serve.uploads import Incoming
from eventlog import names, tail
from eventlog.blobs import BlobStore
from eventlog.config import WriterConfig
from eventlog.errors import EventLogError, UsageError
from eventlog.fs import LOCAL, Fs
from eventlog.snapshot import ReaderCache

_MOST_PROJECTS = 1000
_REREAD_S = 5.0
log = logging.getLogger("compactor")


class Hub:
    """The projects of one store. Thread-safe.

    Attributes:
        root: the store's directory.
        config: settings.
        fs: the file system that it is on.
        blobs: the store's blobs.
        incoming: files that are being uploaded.
        held: calls that wait until the store is restored.
    """

    def __init__(self, root: str, config: ServeConfig, *, fs: Fs = LOCAL, writers: WriterConfig | None = None) -> None:
        """Prepare; nothing is read or written before the first request.

        Args:
            root: the store's directory.
            config: settings.
            fs: the file system that it is on.
            writers: settings of the writers, for tests.
        """
        self.root = root
        self.config = config
        self.fs = fs
        self._writers = writers
        # Segments that others have put into the bucket's inbox come with ids that were received elsewhere.
        self._reread_s = _REREAD_S if config.bucket else math.inf
        self.blobs = BlobStore(root, fs)
        self.incoming = Incoming(root, fs)
        self.held = Held(root, fs)
        self._cache = ReaderCache(fs)
        self._lock = threading.Lock()
        self._projects: OrderedDict[str, Project] = OrderedDict()
        self._intakes: dict[str, Intake] = {}

    def names(self) -> list[str]:
        """Return the names of all projects.

        Raises:
            OSError: the store cannot be listed.
        """
        return tail.projects(self.fs, self.root)

    def find(self, project: str) -> Project | None:
        """Return the state of a project, or None when there is no such project."""
        return self.state(project) if project in self._projects or project in self.names() else None

    def state(self, project: str) -> Project:
        """Return the state of a project, whether it is there yet or not."""
        with self._lock:
            known = self._projects.get(project)
            if known is None:
                known = self._projects[project] = Project(self.root, project, self._cache, self.config.cache_bytes)
            self._projects.move_to_end(project)
            others = list(self._projects.values())[:-1]
        # All projects share one limit; each keeps to it by itself, and the one asked for longest ago gives way.
        total = known.cached_bytes + sum(other.cached_bytes for other in others)
        for other in others:
            if total <= self.config.cache_bytes:
                break
            total -= other.cached_bytes
            other.drop_cached()
        return known

    def intake(self, project: str) -> Intake:
        """Return what takes for a project; a new project comes to be with its first record.

        Raises:
            RequestError: the name cannot be one, or there are too many projects.
        """
        self.check_project(project)
        with self._lock:
            known = self._intakes.get(project)
            if known is None and len(self._intakes) >= _MOST_PROJECTS:
                raise RequestError(f"this server takes for at most {_MOST_PROJECTS} projects")
        if known is None:
            state = self.state(project)
            with self._lock:
                known = self._intakes.setdefault(
                    project,
                    Intake(self.root, project, state, config=self._writers, fs=self.fs, reread_s=self._reread_s),
                )
        return known

    def check_project(self, project: str) -> None:
        """Check that a project can have this name.

        Raises:
            RequestError: it cannot.
        """
        try:
            names.encode_name(project)
        except UsageError as error:
            raise RequestError(str(error)) from None

    def intakes(self) -> list[Intake]:
        """Return everything that takes."""
        with self._lock:
            return list(self._intakes.values())

    def is_restoring(self) -> bool:
        """Say whether the store has a bucket, and is still being restored from it.

        Raises:
            OSError: as the file system raises it.
        """
        return bool(self.config.bucket) and os.path.basename(mark := names.restoring_mark(self.root)) in self.fs.names(
            os.path.dirname(mark)
        )

    def roll(self) -> None:
        """Seal what was taken so far, so that it can be copied.

        Raises:
            StorageError: it cannot be sealed.
            DurabilityUnknownError: the disk refused to sync it.
        """
        for intake in self.intakes():
            intake.roll()

    def writer_ids(self) -> set[str]:
        """Return the writers of all that was taken."""
        return {writer_id for intake in self.intakes() if (writer_id := intake.writer_id) is not None}

    def projects(self) -> list[Project]:
        """Return the states that are in memory."""
        with self._lock:
            return list(self._projects.values())

    def close(self) -> None:
        """Take nothing more and seal what was taken."""
        for intake in self.intakes():
            try:
                intake.close()
            except (EventLogError, OSError) as error:
                log.error("project %s could not be sealed: %s", intake.project, error)  # noqa: TRY400 - it says all
