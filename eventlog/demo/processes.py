"""The processes of the demo: started, listened to, killed, and never left behind."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from types import FrameType
from typing import Any, Self

import msgspec

from eventlog.demo import poll, replay


@contextlib.contextmanager
def signals_deferred() -> Iterator[None]:
    """Hold back what would interrupt this process until the body has ended: a child that is started is then known."""
    caught: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        del frame
        caught.append(number)

    previous = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
    if caught:
        signal.raise_signal(caught[0])


class Child:
    """A process that writes lines to its standard output. Use it as a context manager: at the end it is gone."""

    def __init__(self, *arguments: str) -> None:
        """Start `python -m` with these arguments."""
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed in __exit__
        self._process = subprocess.Popen(  # noqa: S603 - our own interpreter and modules
            [sys.executable, "-m", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            # What a demo logs is for nobody's bucket.
            env={name: value for name, value in os.environ.items() if name != "EVENTLOG_BUCKET"},
        )
        self._rest = b""
        os.set_blocking(self.fileno(), False)

    def fileno(self) -> int:
        """Return the descriptor that its lines come from, for `select`."""
        if self._process.stdout is None:
            raise RuntimeError("the process has no standard output")
        return self._process.stdout.fileno()

    @property
    def exit_code(self) -> int | None:
        """The exit code, negative for a signal; None while it runs."""
        return self._process.poll()

    def lines(self) -> list[bytes]:
        """Return the lines that it wrote since the last call, without waiting."""
        data = self._rest
        with contextlib.suppress(BlockingIOError):
            while part := os.read(self.fileno(), 65_536):
                data += part
        *lines, self._rest = data.split(b"\n")
        return lines

    def kill(self) -> None:
        """Send SIGKILL and wait until it is gone; what it wrote before can still be read."""
        self._process.kill()
        self._process.wait()

    def terminate(self, timeout_s: float) -> int | None:
        """Send SIGTERM and return the exit code; None, after a kill, when it did not end in time."""
        self._process.terminate()
        return self.wait(timeout_s)

    def close_input(self) -> None:
        """End its standard input."""
        if self._process.stdin is not None:
            self._process.stdin.close()

    def wait(self, timeout_s: float) -> int | None:
        """Return the exit code; None, after a kill, when it did not end in time."""
        try:
            return self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.kill()
            return None

    def complaint(self) -> str:
        """Return what it wrote to standard error so far."""
        self._errors.seek(0)
        return self._errors.read().decode(errors="replace").strip()

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *error: object) -> None:
        """Make sure that it is gone."""
        if self._process.poll() is None:
            self.kill()
        for stream in (self._process.stdin, self._process.stdout, self._errors):
            if stream is not None:
                stream.close()


class Writer(Child):
    """A training process.

    Attributes:
        name: of the run.
        first: how many lines earlier processes of the run had logged.
        done: how many lines are logged, as far as it said.
    """

    def __init__(self, job: replay.Job) -> None:
        """Start it."""
        super().__init__("eventlog.demo.replay", _text(job))
        self.name = job.name
        self.first: int | None = None
        self.done = 0

    def listen(self) -> int:
        """Read how far it is, and return that."""
        for line in self.lines():
            self.done = int(line)
            if self.first is None:
                self.first = self.done - 1
        return self.done

    @property
    def returned(self) -> int:
        """How many calls of `log()` returned in this process, as far as it said."""
        return 0 if self.first is None else self.done - self.first


class Reader(Child):
    """The polling process.

    Attributes:
        seen: what it said last.
    """

    def __init__(self, job: poll.Job) -> None:
        """Start it."""
        super().__init__("eventlog.demo.poll", _text(job))
        self.seen = poll.Seen()

    def listen(self) -> poll.Seen:
        """Read what it saw, and return that."""
        lines = self.lines()
        if lines:
            self.seen = msgspec.json.decode(lines[-1], type=poll.Seen)
        return self.seen


class Compactor(Child):
    """The compactor, as `compactor run` starts it, but quicker to fold, so that there is something to see."""

    def __init__(self, root: str) -> None:
        """Start it."""
        super().__init__("compactor", "run", root, "--fold-interval", "0.3", "--sweep-interval", "0.2")


def _text(job: Any) -> str:
    return msgspec.json.encode(job).decode()
