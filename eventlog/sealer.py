"""The sealer: syncs what a writer appended, seals what it retired, and repeats what a failed sync put in doubt."""

from __future__ import annotations

import contextlib
import threading
import weakref
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from eventlog.aside import warn_aside
from eventlog.errors import FOREIGN_ERRORS, describe
from eventlog.fs import SPACE_ERRORS

if TYPE_CHECKING:
    from collections.abc import Callable

    from eventlog.append import OpenSegment

_MAX_RETIRED: Final = 32
_PATIENCE_S: Final = 1.0


class Owner(Protocol):
    """What a sealer asks of its writer."""

    on_sealed: Callable[[str], None] | None

    def current_segment(self) -> OpenSegment | None:
        """Return the segment that is being appended to."""

    def detach(self, distrusted: OpenSegment) -> None:
        """Stop appending to a segment; the next record starts a new one."""


class _Retired(NamedTuple):
    """A segment that nobody appends to any more.

    Attributes:
        segment: still open.
        complete: it ends with a seal frame; else it keeps its open name.
        distrusted: a sync of it failed.
    """

    segment: OpenSegment
    complete: bool
    distrusted: bool


class Sealer:
    """Syncs and seals for one writer. Thread-safe.

    `log()` never waits for it, unless dozens of segments wait there: retiring one only appends to a list.
    """

    def __init__(self, owner: Owner) -> None:
        """Take the writer."""
        self._owner = owner
        self._lock = threading.RLock()
        self._working = False
        self._retired: list[_Retired] = []

    def retire(self, segment: OpenSegment, *, complete: bool) -> None:
        """Take over a segment; it is sealed, or just synced when it is not complete, by the next `sync`."""
        self._retired.append(_Retired(segment, complete, distrusted=False))

    def sync_if_due(self, *, alone: bool) -> None:
        """Seal what was retired, if nobody else does it later or dozens of open descriptors have become a burden.

        A thread that is at it is waited for only in the second case, and not for long: it may need the writer's lock.

        Args:
            alone: there is no sync thread, which tries again what fails, and tells of it.

        Raises:
            OSError: as `sync`; only when alone.
        """
        if not alone and len(self._retired) <= _MAX_RETIRED:
            return
        if self._lock.acquire(timeout=0.0 if alone else _PATIENCE_S):
            try:
                self._work(self._publish_retired)
            except OSError:
                if alone:
                    raise
            finally:
                self._lock.release()

    def sync(self) -> None:
        """Make every record durable that was appended before the call, in the order in which it was appended.

        Raises:
            OSError: some could not be synced, and not be written and synced elsewhere either, and all others were;
                the next call tries again.
        """
        with self._lock:
            self._work(self._sync_all)

    def _work(self, step: Callable[[], OSError | None]) -> None:
        """Do a step, unless a signal handler came in while this thread is at one: that goes on afterwards.

        Raises:
            OSError: as the step returns it, which has then done what could be done.
        """
        if self._working:
            return
        self._working = True
        try:
            failure = step()
        finally:
            self._working = False
        if failure is not None:
            raise failure

    def _sync_all(self) -> OSError | None:
        # Asked first: a segment that is retired right after is published then, and synced with that.
        current = self._owner.current_segment()
        failure = self._publish_retired()
        if current is None or current.offset <= current.synced_offset:
            return failure
        if any(item.segment is current for item in self._retired):
            return failure  # it was retired meanwhile, and is tried again
        try:
            current.sync()
        except OSError:
            self._owner.detach(current)
            self._retired.append(_Retired(current, complete=False, distrusted=True))
            failure = self._publish_retired()
        return failure

    def _publish_retired(self) -> OSError | None:
        """Publish all that can be, keep what cannot for the next time, and return the first failure."""
        failure: OSError | None = None
        position = 0
        while position < len(self._retired):
            item = self._retired[position]
            if item.distrusted and failure is not None and failure.errno in SPACE_ERRORS:
                position += 1  # to write dozens of segments anew, each second, would not make room
                continue
            try:
                sealed = self._publish(item)
            except OSError as error:
                if item.distrusted:
                    failure = failure or error
                    position += 1
                else:
                    self._retired[position] = item._replace(distrusted=True)
                continue
            item.segment.close()
            self._retired.pop(position)
            if sealed is not None:
                self._tell(sealed)
        return failure

    def _publish(self, item: _Retired) -> str | None:
        """Return the sealed path; None for a segment that keeps its open name."""
        if item.distrusted:
            return item.segment.republish(complete=item.complete)
        if item.complete:
            return item.segment.publish()
        item.segment.sync()
        return None

    def _tell(self, sealed: str) -> None:
        """Call the user's function; what it raises must not end the thread that syncs."""
        if self._owner.on_sealed is None:
            return
        try:
            self._owner.on_sealed(sealed)
        except FOREIGN_ERRORS as error:
            warn_aside(f"on_sealed failed for {sealed}: {describe(error)}", 2)

    def drop_inherited(self) -> None:
        """Close, in a forked child, what the parent retired."""
        for item in self._retired:
            with contextlib.suppress(OSError):
                item.segment.close()


class Background(Protocol):
    """What the thread calls."""

    @property
    def closed(self) -> bool:
        """Whether there is nothing left to do."""

    def tick(self) -> None:
        """Do what is due; must not raise."""


def start_thread(target: Background, wake: threading.Event, interval_s: float, name: str) -> threading.Thread:
    """Start a daemon thread that ticks at each interval until `wake` is set; it does not keep `target` alive."""
    arguments = (weakref.ref(target), wake, interval_s)
    thread = threading.Thread(target=_loop, args=arguments, name=name, daemon=True)
    thread.start()
    return thread


def _loop(reference: weakref.ref[Background], wake: threading.Event, interval_s: float) -> None:
    closed = False
    while not closed:
        wake.wait(interval_s)
        target = reference()
        if target is None:
            return
        closed = target.closed
        target.tick()
        del target
