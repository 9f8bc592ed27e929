"""Threads that fetch several things at once, and leave nothing under way when one of them fails."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable
from concurrent import futures
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor
from typing import TypeVar

from eventlog import forks

_T = TypeVar("_T")


class Pool:
    """Threads that are started when they are needed. Thread-safe; a forked child has its own."""

    def __init__(self, threads: int) -> None:
        """Take how many things may be fetched at a time."""
        self._size = threads
        self._lock = threading.Lock()
        self._threads: tuple[int, ThreadPoolExecutor] | None = None
        forks.register(self)

    def become_child(self) -> None:
        """Have a lock and threads of its own."""
        self._lock = threading.Lock()
        self._threads = None

    def submit(self, fetch: Callable[[_T], bytes], wanted: _T) -> Future[bytes]:
        """Fetch one thing in a thread."""
        with self._lock:
            if self._threads is None or self._threads[0] != os.getpid():
                self._threads = os.getpid(), ThreadPoolExecutor(self._size, thread_name_prefix="eventlog-bucket")
            return self._threads[1].submit(fetch, wanted)

    def at_once(self, fetch: Callable[[_T], bytes], wanted: Iterable[_T]) -> list[bytes]:
        """Fetch several things, and return, or raise the first failure, when none is under way any more.

        After a failure, or when it is interrupted, what has not begun does not begin.
        """
        coming: list[Future[bytes]] = []
        try:
            coming.extend(self.submit(fetch, one) for one in wanted)
            futures.wait(coming, return_when=FIRST_EXCEPTION)
        finally:
            for one in coming:
                one.cancel()
            futures.wait(coming)
        return [one.result() for one in coming]  # they begin in order, so a failure stands before what was cancelled
