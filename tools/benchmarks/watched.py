"""Run a peer's process with a limit on its time, watch the memory of the helpers it starts, and leave none of them."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
import time
from typing import IO, Final

_LOOK_S: Final = 0.05
_LINES: Final = 3


class FailedError(Exception):
    """The process failed or was cut; the message is the reason, for people."""


class Helpers:
    """The programs that a process has started.

    What has only been forked, or is about to become another program, shows the memory of its parent, where it is
    counted already: it is told by its command line, which is the parent's.
    """

    def __init__(self) -> None:
        """Know none."""
        self._peaks: dict[tuple[int, int], int] = {}

    def look(self, pid: int) -> None:
        """See who is there, and how much memory each has had at most."""
        own = _lines_of(pid, "cmdline")
        for child in descendants(pid):
            born = _born(child)
            if born is not None:
                forked = _lines_of(child, "cmdline") == own
                known = self._peaks.get((child, born), 0)
                self._peaks[child, born] = known if forked else max(known, _peak_bytes(child))

    def peak_bytes(self) -> int:
        """Return the peaks added up."""
        return sum(self._peaks.values())

    def kill(self) -> None:
        """End those that are still there; a number that another process has by now is left alone."""
        for child, born in self._peaks:
            if _born(child) == born:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(child, signal.SIGKILL)


def run(command: list[str], environment: dict[str, str], limit_s: float) -> int:
    """Run a command to its end; return the peak memory of its helpers, in bytes.

    Raises:
        FailedError: it ended with an error, or was killed after the limit.
    """
    helpers = Helpers()
    deadline = time.monotonic() + limit_s
    with (
        tempfile.TemporaryFile() as said,
        subprocess.Popen(command, stdout=said, stderr=said, env=environment, start_new_session=True) as process,
    ):
        try:
            while process.poll() is None:
                if time.monotonic() > deadline:
                    raise FailedError(f"cut after {limit_s:.0f} s")
                helpers.look(process.pid)
                time.sleep(_LOOK_S)
        finally:
            end(process, helpers)
        if process.returncode:
            raise FailedError(last_lines(said) or f"ended with {process.returncode}")
    return helpers.peak_bytes()


def last_lines(said: IO[bytes]) -> str:
    """Return the end of what a process has said into a file, for people."""
    said.seek(0)
    return " / ".join(said.read().decode(errors="replace").strip().splitlines()[-_LINES:])


def end(process: subprocess.Popen[bytes], helpers: Helpers) -> None:
    """Kill what is left of a process that started a session, and of those helpers that made one of their own."""
    if process.poll() is None:
        helpers.look(process.pid)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    helpers.kill()


def descendants(pid: int) -> list[int]:
    """Return the children of a process, and theirs."""
    found: list[int] = []
    waiting = [pid]
    while waiting:
        parent = waiting.pop()
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            for task in os.listdir(f"/proc/{parent}/task"):
                with open(f"/proc/{parent}/task/{task}/children", encoding="ascii") as file:
                    children = [int(word) for word in file.read().split()]
                found += children
                waiting += children
    return found


def _peak_bytes(pid: int) -> int:
    for line in _lines_of(pid, "status"):
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0


def _born(pid: int) -> int | None:
    """Return when a process began, in the kernel's ticks; None when it is gone."""
    for line in _lines_of(pid, "stat"):
        return int(line.rpartition(")")[2].split()[19])
    return None


def _lines_of(pid: int, name: str) -> list[str]:
    try:
        with open(f"/proc/{pid}/{name}", encoding="utf-8", errors="replace") as file:
            return file.readlines()
    except (FileNotFoundError, ProcessLookupError):
        return []
