"""Keep a bucket up to date with a store for as long as the process runs: what is in the inbox in, what is new out."""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Callable

import msgspec

from compactor.hub import state
from compactor.hub.errors import FencedError
from compactor.hub.plan import Limits
from compactor.hub.publish import BucketPublisher, Published
from compactor.hub.restore import Restored, restore
from eventlog import tail
from eventlog.errors import EventLogError, StorageError, UsageError
from eventlog.fs import LOCAL, Fs
from eventlog.hub import inbox
from eventlog.hub.bucket import Bucket

log = logging.getLogger("compactor")


class SyncConfig(msgspec.Struct, frozen=True, kw_only=True):
    """How a bucket is kept up to date.

    Attributes:
        interval_s: look at everything so often. Default 30 s: what a machine that is lost has not published.
        grace_s: how long superseded files stay in the bucket for its readers. Default 1 day.
        private: whether a bucket that has to be made is. Default yes.
    """

    interval_s: float = 30.0
    grace_s: float = 86_400.0
    private: bool = True

    def __post_init__(self) -> None:
        """Check the ranges.

        Raises:
            UsageError: naming the field that is out of its range.
        """
        if not (math.isfinite(self.interval_s) and 0 < self.interval_s <= 1e9):
            raise UsageError("interval_s must be positive, and at most 1e9")
        if not (math.isfinite(self.grace_s) and 0 <= self.grace_s <= 1e9):
            raise UsageError("grace_s must be from 0 to 1e9")

    def limits(self) -> Limits:
        """Return how a publish is cut."""
        return Limits(grace_ns=int(self.grace_s * 1e9))


class Sync:
    """Restores what a bucket has, and then publishes to it, until it is stopped. One thread; `stop` is thread-safe."""

    def __init__(
        self,
        root: str,
        bucket: Bucket,
        config: SyncConfig,
        *,
        fs: Fs = LOCAL,
        on_restored: Callable[[Restored], None] | None = None,
        on_published: Callable[[Published], None] | None = None,
    ) -> None:
        """Take the store and the bucket; `on_restored` and `on_published` are told of what was done.

        Args:
            root: the store; its directory is created.
            bucket: it is made when it is not there.
            config: settings.
            fs: the file system.
            on_restored: told of each project that was brought from the bucket.
            on_published: told of each publish that did something.
        """
        self._root = root
        self._bucket = bucket
        self._config = config
        self._fs = fs
        self._on_restored = on_restored or (lambda _: None)
        self._on_published = on_published or (lambda _: None)
        self._publisher = BucketPublisher(fs, root, bucket, config.limits())
        self._stop = threading.Event()
        self._failing: dict[str, str] = {}

    def stop(self) -> None:
        """End `run` after one more look, for what was sealed last."""
        self._stop.set()

    @property
    def stopped(self) -> bool:
        """Whether `stop` was called."""
        return self._stop.is_set()

    def restore(self, *, on_lasting: Callable[[str, EventLogError], None] | None = None) -> list[Restored]:
        """Bring every project that the bucket has and the store lacks into the store.

        Args:
            on_lasting: told of a project that trying again does not mend, such as one whose file in the bucket is
                damaged; the others are restored. None to raise it.

        Raises:
            StorageError: the Hub refused or could not be reached.
            EventLogError: as `restore.restore`; the projects before it are restored.
            OSError: as the file system raises it.
        """
        found: list[Restored] = []
        if self._bucket.exists():
            for project in inbox.projects(self._bucket):
                try:
                    found.append(restore(self._fs, self._root, self._bucket, project))
                except StorageError:
                    raise
                except EventLogError as error:
                    if on_lasting is None:
                        raise
                    on_lasting(project, error)
                else:
                    self._on_restored(found[-1])
        return found

    def once(self, *, take_over: bool = False) -> list[Published]:
        """Publish every project of the store and the bucket once.

        Args:
            take_over: publish although another store has taken the bucket over.

        Raises:
            EventLogError: as `BucketPublisher.publish`; the projects before it are published.
            OSError: as the file system raises it.
        """
        self._bucket.create(private=self._config.private)
        found: list[Published] = []
        for project in self._projects():
            found.append(self._publisher.publish(project, take_over=take_over))
            self._on_published(found[-1])
        return found

    def run(self) -> None:
        """Publish at each interval until stopped, and once more then. A project that fails does not stop the others.

        Raises:
            FencedError: another store has taken the bucket over.
        """
        while True:
            last = self.stopped
            self.sweep()
            if last:
                return
            self._stop.wait(self._config.interval_s)

    def sweep(self) -> None:
        """Publish what there is; what fails is told once, and tried again the next time.

        Raises:
            FencedError: another store has taken the bucket over.
        """
        try:
            self._bucket.create(private=self._config.private)
            projects = self._projects()
            self._failing.pop("", None)
        except (EventLogError, OSError) as error:
            self._complain("", error)
            return
        for project in projects:
            try:
                published = self._publisher.publish(project)
            except FencedError:
                raise
            except (EventLogError, OSError) as error:
                self._complain(project, error)
                continue
            self._failing.pop(project, None)
            if published.did_something:
                self._on_published(published)

    def _projects(self) -> list[str]:
        return sorted({*tail.projects(self._fs, self._root), *inbox.projects(self._bucket)})

    def _complain(self, project: str, error: Exception) -> None:
        """Log a failure once, not at each look, and keep it for `status` to show."""
        text = str(error)
        if self._failing.get(project) == text:
            return
        self._failing[project] = text
        log.error("%s: %s (trying again)", project or self._bucket, text)
        try:
            state.note_error(self._fs, self._root, str(self._bucket), project, text)
        except OSError as failure:
            log.error("what fails could not be kept for status: %s", failure)  # noqa: TRY400 - it says all
