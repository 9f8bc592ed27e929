"""The service: watch a store, fold what is new, for as long as the process runs.

Crash-only: there is no state outside the store, so being killed at any point needs no repair, and a clean
stop only saves the work of the current batch. Events of `watchfiles` are a hint that shortens the wait; the
sweep at every interval is the truth.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Protocol

import watchfiles

from compactor.attention import Attention
from compactor.config import CompactorConfig
from compactor.plan import plan_merges
from compactor.work import Turn, take_turn
from eventlog import names, tail
from eventlog.errors import DataError, EventLogError
from eventlog.fs import LOCAL, Fs
from eventlog.manifest import Manifest

log = logging.getLogger("compactor")
_COLLECT_INTERVAL_S = 60.0
_PAUSE_S = 0.5


class Service:
    """Folds, merges and collects in every project of a store until it is stopped. One thread; `stop` is thread-safe."""

    def __init__(
        self,
        root: str,
        config: CompactorConfig,
        *,
        fs: Fs = LOCAL,
        on_turn: Callable[[Turn], None] | None = None,
    ) -> None:
        """Take the store and the settings; `on_turn` is told of every turn that did something."""
        self.root = root
        self.config = config
        self._fs = fs
        self._on_turn = on_turn
        self._stop = threading.Event()
        self._wake = threading.Event()
        self._attention: dict[str, Attention] = {}
        self._folded_at: dict[str, float] = {}
        self._collected_at: dict[str, float] = {}
        self._failing: dict[str, str] = {}

    def stop(self) -> None:
        """End `run` after the batch that is being folded."""
        self._stop.set()
        self._wake.set()

    @property
    def stopped(self) -> bool:
        """Whether `stop` was called."""
        return self._stop.is_set()

    def run(self) -> None:
        """Work until stopped.

        Raises:
            OSError: the store's directory cannot be created.
        """
        self._fs.make_dirs(names.segments_dir(self.root), durable=False)
        watcher = threading.Thread(target=self._watch, name="compactor-watch", daemon=True)
        watcher.start()
        while not self._stop.is_set():
            began = time.monotonic()
            self.sweep()
            self._wake.wait(self.config.sweep_interval_s)
            # Writers that never pause would have everything looked at ten times a second.
            self._stop.wait(began + min(_PAUSE_S, self.config.fold_interval_s / 10) - time.monotonic())
            self._wake.clear()

    def _watch(self) -> None:
        """Shorten the wait when something changes; the service is as right without it, only slower."""
        try:
            for _ in watchfiles.watch(
                names.segments_dir(self.root), stop_event=self._stop, debounce=100, step=50, yield_on_timeout=False
            ):
                self._wake.set()
        except (OSError, RuntimeError) as error:
            log.warning("no file events (%s): sweeping every %.1f s instead", error, self.config.sweep_interval_s)

    def sweep(self) -> None:
        """Look at every project once, and do what is due. A project that fails does not stop the others."""
        try:
            projects = tail.projects(self._fs, self.root)
            self._failing.pop("", None)
        except OSError as error:
            self._complain("", f"the store cannot be listed: {error}")
            return
        for project in projects:
            if self._stop.is_set():
                return
            try:
                attention = self._attention.setdefault(project, Attention(self._fs, self.root, project))
                pending = attention.pending()
                if self._is_due(project, attention.manifest(), sum(pending.values())):
                    self._turn(project, pending)
                    self._failing.pop(project, None)
            except (EventLogError, OSError) as error:
                self._complain(project, f"project {project}: {error}")

    def fold_rest(self) -> None:
        """Fold what there is in every project once, whether it is due or not; for the end, after `run`.

        Raises:
            OSError: the store cannot be listed.
        """
        for project in tail.projects(self._fs, self.root):
            try:
                take_turn(self._fs, self.root, project, self.config, merging=False, collecting=False)
            except (EventLogError, OSError) as error:
                self._complain(project, f"project {project}: {error}")

    def _complain(self, project: str, message: str) -> None:
        """Log a failure once, not at each sweep."""
        if self._failing.get(project) != message:
            log.error("%s (trying again)", message)
            self._failing[project] = message

    def _is_due(self, project: str, manifest: Manifest, pending: int) -> bool:
        now = time.monotonic()
        waited = now - self._folded_at.get(project, float("-inf"))
        if pending >= self.config.fold_soon_bytes or (pending and waited >= self.config.fold_interval_s):
            return True
        if plan_merges(manifest, self.config) and project not in self._failing:
            return True
        return self._collection_is_due(project, now)

    def _collection_is_due(self, project: str, now: float) -> bool:
        return now - self._collected_at.get(project, float("-inf")) >= _COLLECT_INTERVAL_S

    def _turn(self, project: str, writers: Collection[str]) -> None:
        now = time.monotonic()
        collecting = self._collection_is_due(project, now)
        self._folded_at[project] = now
        if collecting:
            self._collected_at[project] = now
        turn = take_turn(
            self._fs,
            self.root,
            project,
            self.config,
            stopped=self._stop.is_set,
            # Now and then all are looked at: a segment may have turned up late.
            writers=None if collecting else writers,
            # To look for damage reads every file of the snapshot: what could not be mended waits for a minute.
            merging=collecting or project not in self._failing,
            collecting=collecting,
        )
        if turn.damaged:
            path, reason = next(iter(turn.damaged.items()))
            raise DataError(path, None, reason)
        if self._on_turn is not None and (turn.folds or turn.merges or turn.removed or turn.rebuilt):
            self._on_turn(turn)


class Stoppable(Protocol):
    """What works until it is told to stop."""

    @property
    def stopped(self) -> bool:
        """Whether `stop` was called."""

    def stop(self) -> None:
        """End the work soon."""


@contextmanager
def stopping_on_signals(service: Stoppable) -> Iterator[None]:
    """Stop the service on SIGTERM and SIGINT; a second signal ends the process at once, which loses nothing."""

    def handle(number: int, frame: FrameType | None) -> None:
        del frame
        if service.stopped:
            os._exit(128 + number)
        service.stop()

    previous = {number: signal.signal(number, handle) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
