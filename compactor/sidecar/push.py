"""What a sidecar does with its bucket: restore the store from it, then publish, and go on by shipping when fenced."""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Callable
from typing import Final

from compactor.hub.errors import FencedError
from compactor.hub.publish import Published
from compactor.hub.restore import Restored
from compactor.hub.sync import Sync, SyncConfig
from eventlog import names
from eventlog.errors import EventLogError
from eventlog.fs import LOCAL
from eventlog.hub.bucket import Bucket
from eventlog.hub.ship import Memory, ship

log = logging.getLogger("compactor")
_FIRST_WAIT_S: Final = 1.0
_MOST_WAIT_S: Final = 30.0
_TRIES: Final = 3


def mark_restoring(root: str) -> str:
    """Note in a store that it is about to be restored, and return the path of the note.

    Raises:
        OSError: as the file system raises it.
    """
    path = names.restoring_mark(root)
    LOCAL.make_dirs(names.hub_dir(root), durable=False)
    try:
        LOCAL.close(LOCAL.create(path))
    except FileExistsError:
        return path  # of a start that was killed
    return path


class Push:
    """Restores once, then publishes until it is stopped. One thread; `stop` is thread-safe.

    When another store has taken the bucket over, such as that of the container which replaces this one, what was
    acknowledged here still has to get there: its segments are shipped into the inbox, from where the other folds them.
    """

    def __init__(
        self,
        root: str,
        bucket: Bucket,
        config: SyncConfig,
        *,
        on_restored: Callable[[Restored], None] | None = None,
        on_published: Callable[[Published], None] | None = None,
    ) -> None:
        """Take what `Sync` takes."""
        self._root = root
        self._bucket = bucket
        self._config = config
        self._sync = Sync(root, bucket, config, on_restored=on_restored, on_published=on_published)
        self._stop = threading.Event()
        self._told = ""

    def stop(self) -> None:
        """End `run` after one more push, for what was sealed last."""
        self._stop.set()
        self._sync.stop()

    @property
    def stopped(self) -> bool:
        """Whether `stop` was called."""
        return self._stop.is_set()

    def run(self) -> None:
        """Restore, and push at each interval until stopped, and once more then."""
        self._restore()
        try:
            self._sync.run()
        except FencedError as error:
            log.warning("%s; from now on this store ships its segments there", error)
            self._ship()

    def _restore(self) -> None:
        """Try until the bucket is restored; before that the server keeps what it takes.

        A project that cannot be restored, however often it is tried, must not keep the others from being served.
        """
        wait_s = _FIRST_WAIT_S
        tries = 0
        while not self.stopped:
            tries += 1
            try:
                self._sync.restore(on_lasting=_tell_lasting if tries >= _TRIES else None)
            except (EventLogError, OSError) as error:
                self._complain(f"cannot restore {self._root} from {self._bucket}: {error}")
            else:
                try:
                    LOCAL.unlink(names.restoring_mark(self._root))
                except FileNotFoundError:
                    return  # of an earlier start of this process
                return
            self._stop.wait(wait_s * random.uniform(0.5, 1))  # noqa: S311 - a pause, no secret
            wait_s = min(wait_s * 2, _MOST_WAIT_S)

    def _ship(self) -> None:
        memory = Memory()
        while True:
            last = self.stopped
            try:
                ship(self._root, self._bucket, memory=memory)
                self._told = ""
            except (EventLogError, OSError) as error:
                self._complain(f"cannot ship to {self._bucket}: {error}")
            if last:
                return
            self._stop.wait(self._config.interval_s)

    def _complain(self, text: str) -> None:
        """Log a failure once, not at each try."""
        if text != self._told:
            log.error("%s (trying again)", text)
            self._told = text


def _tell_lasting(project: str, error: EventLogError) -> None:
    log.error("project %s is not restored, and not published until somebody has looked: %s", project, error)
