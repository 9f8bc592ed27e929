"""The processes of the demo as one crew: started, listened to together, and all gone at the end."""

from __future__ import annotations

import select
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Final, Protocol, Self

from eventlog.demo import poll, replay
from eventlog.demo.processes import Compactor, Reader, Writer, signals_deferred
from eventlog.demo.recorded import PROJECT, Recording
from eventlog.errors import EventLogError

_TICK_S: Final = 0.02
_POLL_S: Final = 0.1


class DemoError(EventLogError):
    """A process of the demo ended when it should not have."""


class Display(Protocol):
    """Who is told what happens."""

    def event(self, text: str) -> None:
        """Something happened."""

    def progress(self, done: dict[str, int], rows: dict[str, int], polls: int) -> None:
        """So many lines of each run are logged, so many rows were seen by the reader, in so many looks."""


class Crew:
    """Trainings, a reader and a compactor, as processes. Use it as a context manager: at the end they are gone.

    Attributes:
        writers: the present training of each run, by name.
        reader: the polling process.
        compactor: the present compactor.
        returned: calls of `log()` that returned in trainings that were killed, as they said.
    """

    def __init__(self, root: str, seconds: float, recordings: dict[str, Recording], display: Display) -> None:
        """Start everybody.

        Args:
            root: the store's directory, which exists.
            seconds: how long the trainings take.
            recordings: what they log, by name.
            display: who is told how far they are.
        """
        self._root = root
        self._seconds = seconds
        self._recordings = recordings
        self._display = display
        self.writers: dict[str, Writer] = {}
        with ExitStack() as started:
            self._children = started
            for name in recordings:
                self._start_writer(name, resume=False)
            job = poll.Job(root=root, project=PROJECT, interval_s=_POLL_S)
            with signals_deferred():
                self.reader = started.enter_context(Reader(job))
            with signals_deferred():
                self.compactor = started.enter_context(Compactor(root))
            # From here on __exit__ ends them; before, an error or Ctrl-C in between does.
            self._children = started.pop_all()
        self.returned = 0

    def _start_writer(self, name: str, *, resume: bool) -> None:
        job = replay.Job(root=self._root, project=PROJECT, name=name, seconds=self._seconds, resume=resume)
        with signals_deferred():
            self.writers[name] = self._children.enter_context(Writer(job))

    def share(self, name: str) -> float:
        """Return how much of a recording is logged, 0 to 1."""
        return self.writers[name].done / len(self._recordings[name].lines)

    def kill_writer(self, name: str) -> int:
        """Send SIGKILL to a training; return how many lines it had acknowledged."""
        victim = self.writers[name]
        victim.kill()
        acknowledged = victim.listen()
        self.returned += victim.returned
        return acknowledged

    def resume_writer(self, name: str, done: int) -> None:
        """Start a training anew, which goes on after what is in the store: `done` lines."""
        self._start_writer(name, resume=True)
        self.writers[name].done = done

    def restart_compactor(self) -> None:
        """Start a new compactor after the old one was killed."""
        with signals_deferred():
            self.compactor = self._children.enter_context(Compactor(self._root))

    def wait_until(self, reached: Callable[[], bool], timeout_s: float = 60.0) -> bool:
        """Listen to everybody until something is so; say whether it is. Wakes as soon as a training says something.

        Raises:
            DemoError: a process ended when it should not have; the message is what it said.
        """
        deadline = time.monotonic() + timeout_s
        while not reached():
            if time.monotonic() > deadline:
                return False
            running = [writer for writer in self.writers.values() if writer.exit_code is None]
            select.select(running, [], [], _TICK_S)
            self._listen()
        return True

    def _listen(self) -> None:
        for writer in self.writers.values():
            writer.listen()
            if writer.exit_code:
                raise DemoError(f"the training {writer.name} ended with {writer.exit_code}: {writer.complaint()}")
        for child in (self.reader, self.compactor):
            if child.exit_code is not None:
                what = type(child).__name__.lower()
                raise DemoError(f"the {what} ended with {child.exit_code}: {child.complaint()}")
        seen = self.reader.listen()
        self._display.progress({name: w.done for name, w in self.writers.items()}, seen.rows, seen.polls)

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *error: object) -> None:
        """Kill who is left."""
        self._children.close()
