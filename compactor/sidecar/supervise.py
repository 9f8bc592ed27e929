"""Keep child processes alive: each that ends is started again, and all end in order when the parent is told to."""

from __future__ import annotations

import ctypes
import logging
import random
import signal
import subprocess
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

log = logging.getLogger("compactor")
_LOOK_S: Final = 0.1
_FIRST_WAIT_S: Final = 0.5
_MOST_WAIT_S: Final = 30.0
_STEADY_S: Final = 60.0
_PR_SET_PDEATHSIG: Final = 1
_USAGE: Final = 2


@dataclass(frozen=True, slots=True)
class Child:
    """A process to keep alive.

    Attributes:
        name: for people.
        argv: the command.
        stdin: bytes that it reads once at its start.
        needed: when it refuses to work at its very first start, nothing is started again and all end.
    """

    name: str
    argv: Sequence[str]
    stdin: bytes = b""
    needed: bool = False


@dataclass(slots=True)
class _Kept:
    """A child and its process now."""

    child: Child
    process: subprocess.Popen[bytes] | None = None
    began: float = 0.0
    failures: int = 0
    due: float = field(default=0.0)
    starts: int = 0


class Supervisor:
    """Starts children, starts them again with growing pauses, and ends them one after another.

    A child is told by the kernel when this process dies, in whatever way, so that none goes on alone. One thread;
    `stop` is thread-safe, and may be called by a signal handler.
    """

    def __init__(self, children: Sequence[Child], *, stop_within_s: float) -> None:
        """Take the children.

        Args:
            children: in the order in which they are started, and in which they are ended.
            stop_within_s: after `stop` those that still live are killed so many seconds later.
        """
        self._kept = [_Kept(child) for child in children]
        self._stop_within_s = stop_within_s
        self._stop = threading.Event()

    def stop(self) -> None:
        """End `run` soon."""
        self._stop.set()

    @property
    def stopped(self) -> bool:
        """Whether `stop` was called."""
        return self._stop.is_set()

    def run(self) -> int:
        """Keep the children alive until stopped.

        Returns:
            0, or the exit code of a needed child that refused to work at its first start.

        Raises:
            OSError: a child cannot be started at all.
        """
        code = 0
        try:
            while not self.stopped and not code:
                for kept in self._kept:
                    code = code or self._look(kept)
                # Not the event's own wait: that would hold off the handlers of signals until it is over.
                time.sleep(_LOOK_S)
        finally:
            self._end()
        return code

    def _look(self, kept: _Kept) -> int:
        """Start a child that is due, or take note that it ended."""
        now = time.monotonic()
        if kept.process is None:
            if now >= kept.due:
                self._begin(kept, now)
            return 0
        code = kept.process.poll()
        if code is None:
            return 0
        kept.process = None
        if kept.child.needed and kept.starts == 1 and code == _USAGE:
            return code  # it has said why
        kept.failures = 0 if now - kept.began > _STEADY_S else kept.failures + 1
        self._pause(kept, now, f"ended with {_told(code)}")
        return 0

    def _begin(self, kept: _Kept, now: float) -> None:
        try:
            kept.process = _start(kept.child)
        except (OSError, subprocess.SubprocessError) as error:
            if not kept.starts:
                raise
            # The machine may be short of memory or processes for a while; the others go on.
            kept.failures += 1
            self._pause(kept, now, f"cannot be started: {error}")
        else:
            kept.began, kept.starts = now, kept.starts + 1

    def _pause(self, kept: _Kept, now: float, why: str) -> None:
        pause = min(_FIRST_WAIT_S * 2 ** min(kept.failures, 10), _MOST_WAIT_S) * random.uniform(0.5, 1)  # noqa: S311
        kept.due = now + pause
        log.error("the %s %s: starting it again in %.1f s", kept.child.name, why, pause)

    def _end(self) -> None:
        """Ask each in turn to end; the last ones have what time is left, and then are killed, which loses nothing."""
        deadline = time.monotonic() + self._stop_within_s
        for number, kept in enumerate(self._kept):
            if kept.process is None:
                continue
            kept.process.terminate()
            # Each of those that come later keeps a share, the last of them all that is left.
            rest = len(self._kept) - number
            share = (deadline - time.monotonic()) / (max(1, rest))
            try:
                kept.process.wait(max(share, _LOOK_S))
            except subprocess.TimeoutExpired:
                log.error("the %s did not end in time: killed", kept.child.name)  # noqa: TRY400 - it says all
                kept.process.kill()
                kept.process.wait()


def _start(child: Child) -> subprocess.Popen[bytes]:
    # A group of its own: what a terminal sends at Ctrl-C is for the parent, which ends them in order.
    process = subprocess.Popen(  # noqa: S603 - our own program
        [*child.argv],
        stdin=subprocess.PIPE,
        preexec_fn=_die_with_parent,  # noqa: PLW1509 - this process has one thread
        process_group=0,
    )
    if process.stdin is not None:
        try:
            process.stdin.write(child.stdin)
            process.stdin.close()
        except BrokenPipeError:
            log.error("the %s ended before it was told what to do", child.name)  # noqa: TRY400 - it says all
    return process


_LIBC: Final = ctypes.CDLL(None, use_errno=True)


def _die_with_parent() -> None:
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _told(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"
