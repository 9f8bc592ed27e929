"""The shipper's loop: look, ship, say how far it is, and end when no job is left and all is there."""

from __future__ import annotations

import logging
import os
import random
import time
from typing import Any, Final

import msgspec

from eventlog.errors import EventLogError, StorageError
from eventlog.fs import LOCAL
from eventlog.hub.address import parse_bucket
from eventlog.hub.bucket import Bucket
from eventlog.hub.failures import passes
from eventlog.hub.ship import Memory, ship
from eventlog.outgoing import Shipped, outgoing
from eventlog.shipper import pace
from eventlog.shipper.desk import Desk, State
from eventlog.shipper.pace import Outcome

log = logging.getLogger("eventlog.shipper")
_LOOK_S: Final = 0.2
_NICENESS: Final = 10


class Shipper:
    """Ships one store to one bucket until it is not needed any more. One thread.

    It may be killed at any moment: what it had shipped is there, and the next shipper, or `eventlog ship`, goes on.
    """

    def __init__(self, root: str, bucket: str, *, held: int, interval_s: float) -> None:
        """Take what it was started with.

        Args:
            root: the store.
            bucket: its address.
            held: the descriptor with the lock that says that this shipper lives.
            interval_s: seconds between two looks at the store.
        """
        self._desk = Desk(root, bucket)
        self._held = held
        self._interval_s = interval_s
        self._memory = Memory()
        self._state = State(pid=os.getpid())
        self._failures = 0
        self._left_open = 0
        self._deserted_at: float | None = None

    def run(self) -> None:
        """Ship until no job lives and all is there, or could not be brought there for long.

        Raises:
            OSError: the store's own disk refused.
        """
        _log_to_stderr()
        os.nice(_NICENESS)  # the job comes first
        log.info("shipping %s to %s", self._desk.root, self._desk.bucket)
        self._desk.tell(self._state)
        while self._desk.is_mine(self._held):
            self._look_for_jobs()
            asks = self._desk.asks()
            self._ship(asks)
            if pace.may_end(self._outcome(asked=False)) and self._end():
                return
            self._wait(asks)
        log.warning("%s was removed: ending", self._desk.directory)

    def _outcome(self, *, asked: bool) -> Outcome:
        deserted_s = None if self._deserted_at is None else time.monotonic() - self._deserted_at
        return Outcome(self._failures, self._state.lasting, asked, deserted_s, self._left_open)

    def _look_for_jobs(self) -> None:
        """Note since when there is none, before a shipment, so that the shipment has what the last of them left."""
        if not self._desk.is_deserted():
            self._deserted_at = None
        elif self._deserted_at is None:
            self._deserted_at = time.monotonic()

    def _ship(self, asks: frozenset[str]) -> None:
        """Ship once, say how it went, and answer who asked, unless trying again may help."""
        try:
            bucket = Bucket(parse_bucket(self._desk.bucket))
            done = ship(self._desk.root, bucket, memory=self._memory, on_wave=lambda _: self._say())
        except (EventLogError, OSError) as error:
            self._fail(error)
        else:
            self._succeed(done)
        if not self._failures or self._state.lasting:
            self._desk.answer(asks)

    def _succeed(self, done: Shipped) -> None:
        if self._failures:
            log.info("shipping goes on")
        if done.copied:
            log.info("%d files shipped, %d bytes", done.copied, done.copied_bytes)
        if len(done.conflicts) > self._state.conflicts:
            log.error("%s holds other records than the store, and was not replaced", done.conflicts[-1])
        self._failures = 0
        self._left_open = done.left_open
        conflict = done.conflicts[0] if done.conflicts else ""
        self._say(error="", lasting=False, conflicts=len(done.conflicts), conflict=conflict)

    def _fail(self, error: EventLogError | OSError) -> None:
        self._failures += 1
        text = str(error)
        if text != self._state.error:
            log.error("%s (trying again)", text)
        self._say(error=text, lasting=not (isinstance(error, StorageError) and passes(error)))

    def _say(self, **changes: Any) -> None:
        """Tell the jobs what has changed, and what is known to be in the bucket."""
        found = outgoing(LOCAL, self._desk.root)
        files = [*found.blobs, *(item.file for item in found.segments)]
        left = {*self._memory.new(files), *self._memory.unequal(files)}
        sizes = [file.size_bytes for file in files if file not in left]
        state = msgspec.structs.replace(self._state, files=len(sizes), size_bytes=sum(sizes), **changes)
        if state != self._state:
            self._desk.tell(state)
        self._state = state

    def _wait(self, known: frozenset[str]) -> None:
        """Pause, but not when somebody new asks, or when the last job has ended."""
        outcome = self._outcome(asked=self._desk.is_waited_for())
        # Hosts that failed together shall not come back together.
        spread = random.uniform(0.5, 1.0) if outcome.failures else 1.0  # noqa: S311 - a pause, no secret
        until = time.monotonic() + pace.pause_s(outcome, self._interval_s) * spread
        while time.monotonic() < until:
            time.sleep(min(_LOOK_S, max(until - time.monotonic(), 0)))
            if self._desk.asks() - known:
                return
            if self._deserted_at is None and self._desk.is_deserted():
                return

    def _end(self) -> bool:
        """Give the lock back while no run can join; whoever joins right after finds it free, and starts another."""
        alone = self._desk.hold_off()
        if alone is None:
            return False
        self._desk.answer(self._desk.asks())
        log.info("no job is left: %s", f"not all is there: {self._state.error}" if self._failures else "all is there")
        os.close(self._held)
        os.close(alone)
        return True


def _log_to_stderr() -> None:
    """Log what this module says; stderr is the log file in the store, where tracebacks end up as well."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(process)d %(levelname)s %(message)s"))
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    log.propagate = False
