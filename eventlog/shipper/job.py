"""A run's part in shipping: it keeps a shipper alive, hears what is wrong with it, and waits for it in the end."""

from __future__ import annotations

import contextlib
import importlib.util
import itertools
import os
import shlex
import sys
import threading
import time
import weakref
from collections.abc import Callable
from typing import Final, Protocol

from eventlog import names
from eventlog.aside import warn_aside
from eventlog.config import WriterConfig
from eventlog.errors import FOREIGN_ERRORS, StorageError, describe
from eventlog.fs import LOCAL
from eventlog.hub.address import parse_bucket
from eventlog.outgoing import outgoing
from eventlog.shipper.desk import Desk, State
from eventlog.shipper.launch import START_TIMEOUT_S, launch
from eventlog.shipper.pace import LINGER_S

_NEEDED: Final = ("huggingface_hub", "hf_xet", "tenacity")
_LOOK_S: Final = 0.05
_MOST_LAUNCHES: Final = 3
_LEAST_PATIENCE_S: Final = 1.0
_patience_s: Final[dict[str, float]] = {}
"""By directory: for how many seconds this process may still wait for a shipper that did not answer the last time."""
_warned: Final[set[str]] = set()
_told_unfinished: Final[set[str]] = set()
_numbers: Final = itertools.count()
_open: Final[weakref.WeakSet[Shipping]] = weakref.WeakSet()
"""Those of this process that have not ended."""


class Writes(Protocol):
    """What is asked of a writer."""

    root: str
    config: WriterConfig
    on_sealed: Callable[[str], None] | None


def follow(writer: Writes) -> Shipping | None:
    """Have what a writer seals shipped, when its settings name a bucket."""
    if writer.config.bucket is None:
        return None
    shipping = Shipping(writer.root, writer.config)
    writer.on_sealed = shipping.after(None)
    return shipping


class Shipping:
    """Has what a run seals shipped to a bucket. Thread-safe. It never raises, and only `end` waits for the Hub.

    Only the start of a run and its end wait for the start of a shipper.

    A forked child has that of its parent, and says by it that it lives.
    """

    def __init__(self, root: str, config: WriterConfig) -> None:
        """See that a shipper lives; what is in the way is warned about.

        Args:
            root: the store that the run writes to.
            config: with a bucket.
        """
        self._config = config
        self._desk = Desk(root, str(parse_bucket(config.bucket or "")))
        self._joined: int | None = None
        self._starting: threading.Thread | None = None
        missing = [name for name in _NEEDED if name not in sys.modules and importlib.util.find_spec(name) is None]
        self._is_off = bool(missing)
        self._place = (root, self._desk.bucket)
        self._owner = os.getpid()
        self._number = next(_numbers)
        _open.add(self)
        if missing:
            self._warn_once(f"the Hub needs {missing[0]}: pip install 'eventlog[hub]'")
            return
        try:
            self._attend()
        except OSError as error:
            self._warn_once(str(error))
        except BaseException:
            self._leave()
            raise

    def _attend(self, timeout_s: float = START_TIMEOUT_S) -> bool:
        """Be there, and start a shipper unless one lives; return whether one was started.

        Raises:
            OSError: the store's own disk refused, or no process can be started in time.
        """
        if self._joined is None:
            self._desk.make()
            self._joined = self._desk.join()
        return launch(self._desk, self._config.ship_interval_s, timeout_s)

    def after(self, callback: Callable[[str], None] | None) -> Callable[[str], None]:
        """Return a function to be called with each sealed segment: it calls `callback`, and looks after the shipper."""

        def sealed(path: str) -> None:
            try:
                if callback is not None:
                    callback(path)
            finally:
                self._look()

        return sealed

    def _look(self) -> None:
        """Have a shipper started where the last one was killed, and pass on what it says, once.

        This is called in log(), or while the sealer's lock is held.
        """
        if self._is_off:
            return
        try:
            if self._joined is None:
                self._desk.make()  # it could not be made, or not be joined, at the start
            if not self._desk.is_attended() and (self._starting is None or not self._starting.is_alive()):
                self._starting = threading.Thread(target=self._restart, name="eventlog-ship", daemon=True)
                self._starting.start()
            state = self._desk.state()
        except (OSError, RuntimeError) as error:  # the latter when no thread can be started
            self._warn_once(str(error))
            return
        if state is not None and state.error:
            self._warn_once(state.error)

    def _restart(self) -> None:
        """Start a shipper; what is in the way is warned about."""
        try:
            launch(self._desk, self._config.ship_interval_s)
        except OSError as error:
            self._warn_once(str(error))

    def end(self, *, wait: bool) -> None:
        """Leave; the youngest waits for a shipment of all that was sealed, and warns of what is not there in time.

        Args:
            wait: as long as the settings say, or for a moment when the last one waited in vain.
        """
        if self._is_off:
            return
        self._is_off = True
        _open.discard(self)
        try:
            beside = [other._number for other in list(_open) if other._is_beside(self)]  # noqa: SLF001 - its kind
            if wait and max(beside, default=-1) < self._number:
                self._flush(self._config.ship_flush_s)
                self._tell_unfinished(len(beside))
        except FOREIGN_ERRORS as error:  # the run itself has ended well
            self._warn(f"it is not known what is there: {describe(error)}. {self._command()} ships all of it")
        finally:
            self._leave()

    def _leave(self) -> None:
        if self._joined is not None:
            with contextlib.suppress(OSError):  # a job that became a daemon has closed all that it had
                os.close(self._joined)
            self._joined = None

    def _is_beside(self, other: Shipping) -> bool:
        """Say whether both are of this very process, which a child's copies are not, and ship the same."""
        return self._owner == other._owner and self._place == other._place

    def _tell_unfinished(self, runs: int) -> None:
        """Warn, once, of what cannot be there yet: a notebook that begins run after run may not know of it."""
        if runs and self._config.ship_flush_s and self._desk.directory not in _told_unfinished:
            _told_unfinished.add(self._desk.directory)
            text = "run of this process is not finished" if runs == 1 else "runs of this process are not finished"
            self._warn(f"{runs} {text}; what is not sealed of it is shipped after its finish(), or at the exit")

    def _flush(self, limit_s: float) -> None:
        began = time.monotonic()
        patience_s = _patience_s.get(self._desk.directory, limit_s)
        answered, problem = limit_s == 0, ""
        try:
            if limit_s:
                answered = self._await_answer(began + max(patience_s, min(limit_s, _LEAST_PATIENCE_S)))
        except OSError as error:
            problem = str(error)
        finally:
            # Also when somebody has no patience left and interrupts.
            waited_s = time.monotonic() - began
            _patience_s[self._desk.directory] = limit_s if answered else max(patience_s - waited_s, 0)
            late = "" if answered else f"it was not done after {waited_s:.1f} s (EVENTLOG_SHIP_FLUSH_S is {limit_s:g})"
            self._report(problem or late)

    def _await_answer(self, until: float) -> bool:
        """Ask, and return whether that was answered in time; a shipper that is killed meanwhile is started again.

        Raises:
            OSError: the store's own disk refused, or no shipper can be started.
        """
        launches = int(self._attend(max(until - time.monotonic(), _LEAST_PATIENCE_S)))
        ask = names.ask_name()  # known before it is there, for whatever interrupts this
        try:
            self._desk.ask(ask, until - time.monotonic())
            while not self._desk.is_answered(ask):
                left_s = until - time.monotonic()
                if left_s <= 0:
                    return False
                launches += self._attend(max(left_s, _LEAST_PATIENCE_S))
                if launches > _MOST_LAUNCHES:
                    raise StorageError(0, f"the process that ships ends at once; {self._desk.log_path} says why")
                time.sleep(_LOOK_S)
        finally:
            self._desk.answer([ask])
        return True

    def _report(self, problem: str) -> None:
        """Warn of what is not in the bucket."""
        left = "it is not known what is there"
        try:
            state = self._desk.state() or State(pid=0)
            left = self._left(state.files, state.size_bytes) or left
            problem = state.error or problem
            if state.conflicts:
                self._warn(f"{state.conflict} holds other records than the store, and is not replaced")
        except OSError as error:
            problem = problem or str(error)
        if problem:
            trying = f"it is tried on for {LINGER_S / 60:.0f} minutes after the last job's end"
            self._warn(f"{left}: {problem}. All is kept in the store; {trying}, and {self._command()} does it later")

    def _left(self, files: int, size_bytes: int) -> str:
        found = outgoing(LOCAL, self._desk.root)
        sizes = [file.size_bytes for file in (*found.blobs, *(item.file for item in found.segments))]
        files, size_bytes = len(sizes) - files, sum(sizes) - size_bytes
        return f"{files} segments and blobs ({size_bytes} bytes) are not known to be there" if files > 0 else ""

    def _command(self) -> str:
        return f"`{shlex.join(['eventlog', 'ship', *self._place])}`"

    def _warn_once(self, why: str) -> None:
        """Warn that nothing is shipped now, once a process and store: the rest is told in the end."""
        if self._desk.directory not in _warned:
            _warned.add(self._desk.directory)
            self._warn(f"nothing is shipped now: {why}. All is kept in the store; {self._command()} ships it")

    def _warn(self, text: str) -> None:
        warn_aside(f"eventlog cannot ship {self._desk.root} to {self._desk.bucket}: {text}", 6)
