"""A clock that moves when a test says so."""

from __future__ import annotations

import threading
from typing import Final

START_NS: Final = 1_700_000_000_000_000_000


class FakeClock:
    """Time stands still between calls of `advance` and `set_back`, unless it ticks. Thread-safe."""

    def __init__(self, now_ns: int = START_NS, *, tick_ns: int = 0) -> None:
        """Set the clock.

        Args:
            now_ns: nanoseconds since 1970 UTC; default a day in 2023.
            tick_ns: how far each reading moves it.
        """
        self._now_ns = now_ns
        self._tick_ns = tick_ns
        self._lock = threading.Lock()

    def time_ns(self) -> int:
        """Return the time, nanoseconds since 1970 UTC; pass the bound method as a `time_ns` argument."""
        with self._lock:
            self._now_ns += self._tick_ns
            return self._now_ns

    def advance(self, seconds: float) -> None:
        """Move forward."""
        with self._lock:
            self._now_ns += round(seconds * 1e9)

    def set_back(self, seconds: float) -> None:
        """Move backward, as an administrator or NTP may."""
        self.advance(-seconds)
