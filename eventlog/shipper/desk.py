"""Where the jobs that log into a store meet its shipper: who is alive, what is asked for, and how far it is."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterable
from typing import Final

import msgspec

from eventlog import names
from eventlog.fs import LOCAL

_LOCK: Final = "lock"
_JOBS: Final = "jobs"
_STATE: Final = "state.json"
_LOG: Final = "log"
_LOG_BYTES: Final = 1 << 20
_JOIN_TRIES: Final = 200
_JOIN_PAUSE_S: Final = 0.01


class State(msgspec.Struct, frozen=True, kw_only=True):
    """What a shipper last said.

    Attributes:
        pid: of its process.
        files: how many files of the store it knows to be in the bucket.
        size_bytes: of them.
        error: why the last shipment failed; "" when it did not.
        lasting: trying again will not help by itself.
        conflicts: how many files there are in the bucket with other records than here.
        conflict: where one of them is.
    """

    pid: int
    files: int = 0
    size_bytes: int = 0
    error: str = ""
    lasting: bool = False
    conflicts: int = 0
    conflict: str = ""


class Desk:
    """A directory in a store, one a bucket. Thread-safe; holds no state.

    Locks are advisory ones of the kernel, so nobody who was killed is taken to be alive: the shipper has that on `lock`
    alone, and each run shares that on `jobs` until it has finished. A job asks for a shipment by a file, which the
    shipper removes when a shipment that began later has ended.

    Every method raises OSError as the file system does.
    """

    def __init__(self, root: str, bucket: str) -> None:
        """Take the store and the address of the bucket; nothing is made yet."""
        self.root = root
        self.bucket = bucket
        self.directory = names.shipper_dir(root, bucket)
        self.log_path = self._path(_LOG)

    def _path(self, name: str) -> str:
        return os.path.join(self.directory, name)

    def make(self) -> None:
        """Make the directory; it need not survive a power loss."""
        LOCAL.make_dirs(self.directory, durable=False)

    # Who is alive.

    def _lock(self, name: str, kind: int) -> int | None:
        """Return a descriptor that holds a lock until it is closed everywhere, or None when others have it."""
        fd = os.open(self._path(name), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(fd, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            return None
        except BaseException:
            os.close(fd)
            raise
        return fd

    def take(self) -> int | None:
        """Return the descriptor that only a living shipper has, or None when one lives."""
        return self._lock(_LOCK, fcntl.LOCK_EX)

    def is_mine(self, held: int) -> bool:
        """Say whether what `take` gave is still the lock; not when somebody has deleted the directory."""
        try:
            return os.path.samestat(os.stat(self._path(_LOCK)), os.fstat(held))
        except FileNotFoundError:
            return False

    def is_attended(self) -> bool:
        """Say whether a shipper lives."""
        fd = self.take()
        if fd is not None:
            os.close(fd)
        return fd is None

    def join(self) -> int:
        """Return the descriptor that says that a run lives, also in forked children that inherit it.

        Raises:
            TimeoutError: a shipper that was about to end was stopped in that moment.
        """
        for _ in range(_JOIN_TRIES):
            fd = self._lock(_JOBS, fcntl.LOCK_SH)
            if fd is not None:
                return fd
            time.sleep(_JOIN_PAUSE_S)
        raise TimeoutError(f"{self._path(_JOBS)} is locked by a process that does not go on")

    def hold_off(self) -> int | None:
        """Return a descriptor that keeps runs from joining until it is closed, or None when some live."""
        return self._lock(_JOBS, fcntl.LOCK_EX)

    def is_deserted(self) -> bool:
        """Say whether no run lives."""
        fd = self.hold_off()
        if fd is not None:
            os.close(fd)
        return fd is not None

    # What is asked for.

    def ask(self, ask: str, wait_s: float) -> None:
        """Ask for a shipment of all that is sealed by now, under a fresh name of `names.ask_name`.

        Until when it is waited for is the file's time, so that an ask of a job that was killed loses its urgency.
        """
        fd = os.open(self._path(ask), os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        try:
            until_s = time.time() + wait_s
            os.utime(fd, (until_s, until_s))
        finally:
            os.close(fd)

    def is_answered(self, ask: str) -> bool:
        """Say whether such a shipment has ended; `state` says how."""
        return not os.path.exists(self._path(ask))

    def asks(self) -> frozenset[str]:
        """Return what is asked for and not answered."""
        return frozenset(filter(names.is_ask, LOCAL.names(self.directory)))

    def is_waited_for(self) -> bool:
        """Say whether some job still waits for what it asked."""
        now_s = time.time()
        asked = [entry for entry in LOCAL.entries(self.directory) if names.is_ask(entry.name)]
        return any(entry.mtime_ns > now_s * 1e9 for entry in asked)

    def answer(self, asks: Iterable[str]) -> None:
        """Remove what was asked for; the state comes first."""
        for ask in asks:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._path(ask))

    # How far it is.

    def tell(self, state: State) -> None:
        """Replace the state."""
        temporary = self._path(names.temporary_name(_STATE))
        with open(temporary, "xb") as file:
            file.write(msgspec.json.encode(state))
        os.replace(temporary, self._path(_STATE))

    def state(self) -> State | None:
        """Return what the shipper last said, or None when it has said nothing that can be read."""
        try:
            return msgspec.json.decode(LOCAL.read(self._path(_STATE)), type=State)
        except (FileNotFoundError, msgspec.DecodeError):
            return None

    def forget(self) -> None:
        """Remove what a shipper before said, and what it was about to say when it was killed."""
        for name in LOCAL.names(self.directory):
            if name == _STATE or names.is_temporary(name):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(self._path(name))

    def open_log(self) -> int:
        """Return a descriptor that appends to the log, which is begun anew when it has grown long."""
        with contextlib.suppress(FileNotFoundError):
            if os.stat(self.log_path).st_size > _LOG_BYTES:
                os.replace(self.log_path, f"{self.log_path}.old")
        return os.open(self.log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
