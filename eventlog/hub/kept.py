"""Bytes that are kept in memory, those used last, within a limit."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable

from eventlog import forks


class Kept:
    """Keeps what was fetched under the name of its content, so it never goes stale. Thread-safe."""

    def __init__(self, limit_bytes: int) -> None:
        """Keep at most so many bytes."""
        self.limit_bytes = limit_bytes
        self._found: OrderedDict[Hashable, bytes] = OrderedDict()
        self._size = 0
        self._lock = threading.Lock()
        forks.register(self)

    def become_child(self) -> None:
        """Have a lock of its own; another thread may have been about to change the size."""
        self._lock = threading.Lock()
        self._size = sum(map(len, self._found.values()))

    def __contains__(self, key: Hashable) -> bool:
        """Say whether it is kept; this is no use of it."""
        with self._lock:
            return key in self._found

    def get(self, key: Hashable) -> bytes | None:
        """Return what is kept under a key, or None."""
        with self._lock:
            data = self._found.get(key)
            if data is not None:
                self._found.move_to_end(key)
            return data

    def put(self, key: Hashable, data: bytes) -> None:
        """Keep bytes; those whose last use is longest ago go."""
        with self._lock:
            self._size += len(data) - len(self._found.pop(key, b""))
            self._found[key] = data
            while self._size > self.limit_bytes:
                self._size -= len(self._found.popitem(last=False)[1])
