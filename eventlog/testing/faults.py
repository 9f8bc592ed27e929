"""What can go wrong on a simulated disk: the process stops at a change, or single operations fail."""

from __future__ import annotations

import os
import threading
from typing import Final, NamedTuple

MUTATING: Final = frozenset(
    {"create", "write", "truncate", "sync", "sync_dir", "rename", "link", "unlink", "rmdir", "mkdir"}
)


class Stopped(BaseException):
    """The simulated process was killed here. Not an Exception: nothing that handles errors survives a kill."""


class Operation(NamedTuple):
    """One change that was asked for: the name of the operation and the path it was about."""

    name: str
    path: str


class _Fault:
    def __init__(self, op: str, errno: int, count: int | None, short_write_bytes: int | None, where: str) -> None:
        self.op = op
        self.errno = errno
        self.count = count
        self.short_write_bytes = short_write_bytes
        self.where = where

    def hits(self, op: str, path: str) -> bool:
        due = self.count != 0 or self.short_write_bytes is not None
        return due and op == self.op and self.where in path


class Faults:
    """The operations so far and the troubles to come. Not thread-safe: its file system holds a lock.

    Attributes:
        operations: every change that was begun, in order.
        stopped_at: the change that was the first not to be done any more.
    """

    def __init__(self) -> None:
        """Start without any trouble."""
        self.operations: list[Operation] = []
        self.stopped_at: Operation | None = None
        self._left: int | None = None
        self._half_written = False
        self._faults: list[_Fault] = []
        self._fail_at: dict[int, int] = {}

    def stop_after(self, operations: int, *, half_written: bool) -> None:
        """See `CrashFs.stop_after`."""
        self._left = operations - 1
        self._half_written = half_written

    def add(self, op: str, errno: int, count: int | None, short_write_bytes: int | None, where: str) -> None:
        """See `CrashFs.fail_next`."""
        self._faults.append(_Fault(op, errno, count, short_write_bytes, where))

    def fail_at(self, operations: int, errno: int) -> None:
        """See `CrashFs.fail_at`."""
        self._fail_at[len(self.operations) + operations] = errno

    def heal(self) -> None:
        """Forget the failures that are still to come."""
        self._faults.clear()
        self._fail_at.clear()

    def takes_half(self) -> bool:
        """Say, once, whether the write that comes is the one that a stop cuts in half."""
        due = self._half_written and self._left == 0
        if due:
            self._half_written = False
        return due

    def begin(self, name: str, path: str) -> int | None:
        """Note a change; return how short it has to be when it is a write that is cut.

        Raises:
            Stopped: the process ends here.
            OSError: the operation fails.
        """
        if name in MUTATING:
            if self._left == 0:
                self.stopped_at = self.stopped_at or Operation(name, path)
                raise Stopped(f"{name} {path}")
            if self._left is not None:
                self._left -= 1
            self.operations.append(Operation(name, path))
            errno = self._fail_at.pop(len(self.operations), None)
            if errno is not None:
                raise OSError(errno, os.strerror(errno), path)
        for fault in self._faults:
            if fault.hits(name, path):
                return _strike(fault, path)
        return None


def _strike(fault: _Fault, path: str) -> int:
    if fault.short_write_bytes is not None:
        short, fault.short_write_bytes = fault.short_write_bytes, None
        return short
    if fault.count is not None:
        fault.count -= 1
    raise OSError(fault.errno, os.strerror(fault.errno), path)


class Faulty:
    """What can be told to go wrong with a simulated file system. Thread-safe."""

    def __init__(self) -> None:
        """Start without any trouble."""
        self._faults = Faults()
        self._lock = threading.RLock()

    @property
    def operations(self) -> list[Operation]:
        """Every change that was begun so far, in order."""
        return self._faults.operations

    @property
    def stopped_at(self) -> Operation | None:
        """The change at which the process was stopped, or None."""
        return self._faults.stopped_at

    def stop_after(self, operations: int, *, half_written: bool = False) -> None:
        """Raise `Stopped` at the n-th change from now on, which is not done any more, and at every one after it.

        Args:
            operations: n, from 1.
            half_written: when the n-th is a write, half of its bytes are written before.
        """
        with self._lock:
            self._faults.stop_after(operations, half_written=half_written)

    def fail_next(
        self, op: str, errno: int, count: int | None = 1, short_write_bytes: int | None = None, *, where: str = ""
    ) -> None:
        """Make operations fail.

        Args:
            op: a method's name; "mkdir" for a directory that `make_dirs` makes.
            errno: of the OSError that is raised.
            count: how many times in a row; None is until `heal`.
            short_write_bytes: for "write": before it fails, one write takes at most so many bytes and says so.
            where: only on paths that contain this text.
        """
        with self._lock:
            self._faults.add(op, errno, count, short_write_bytes, where)

    def fail_at(self, operations: int, errno: int) -> None:
        """Make the n-th change from now on fail, once.

        Args:
            operations: n, from 1.
            errno: of the OSError that is raised.
        """
        with self._lock:
            self._faults.fail_at(operations, errno)

    def heal(self) -> None:
        """Forget the faults that are still to come; what failed syncs lost stays lost."""
        with self._lock:
            self._faults.heal()
