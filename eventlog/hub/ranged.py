"""A file of a bucket as pyarrow reads it: in ranges, of which those that are known to come are fetched ahead."""

from __future__ import annotations

import atexit
import bisect
import io
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import CancelledError, Future
from typing import TYPE_CHECKING, Final

from eventlog import forks

if TYPE_CHECKING:
    from typing_extensions import Buffer

Range = tuple[int, int]
"""From the first byte to before the last."""

HOLE_BYTES: Final = 128 * 1024
"""Ranges with at most this between them are fetched together: a trip to the Hub costs more than these bytes."""
PART_BYTES: Final = 8 * 1024 * 1024
"""Ranges are fetched together up to this: more would wait for one connection instead of using several."""
_END_BYTES: Final = 64 * 1024
"""What pyarrow reads of the end of a parquet file first."""
AHEAD: Final = 8
"""How many parts are fetched at a time."""
_RELEASE_S: Final = 1.0


_handed: Final[dict[int, weakref.ref[memoryview]]] = {}


@atexit.register
def _await_release() -> None:
    """Wait until pyarrow's threads have let go of what they read, a second at most.

    They do so shortly after an answer is there, and need the interpreter for it. One that is ending by then ends them
    instead, and that aborts the process.
    """
    until = time.monotonic() + _RELEASE_S
    while _handed and time.monotonic() < until:
        time.sleep(0.001)


def joined(ranges: Iterable[Range]) -> list[Range]:
    """Return ascending ranges with those joined that are worth one request."""
    found: list[Range] = []
    for start, end in ranges:
        if found and start - found[-1][1] <= HOLE_BYTES and end - found[-1][0] <= PART_BYTES:
            found[-1] = (found[-1][0], max(end, found[-1][1]))
        else:
            found.append((start, end))
    return found


class _Plan:
    """Parts that will be read, fetched some ahead of the reader, and dropped when it has passed them."""

    def __init__(self, parts: list[Range], submit: Callable[[Range], Future[bytes]]) -> None:
        self._parts = parts
        self._submit = submit
        self._coming: dict[int, Future[bytes]] = {}

    def drop(self) -> None:
        """Fetch nothing more that has not begun to come."""
        for part in self._coming.values():
            part.cancel()

    def part_of(self, start: int, end: int) -> tuple[int, Future[bytes]] | None:
        """Return where the part begins that holds a range, and its bytes to come; None when no part holds it."""
        index = bisect.bisect_right(self._parts, (start, 1 << 62)) - 1
        if index < 0 or end > self._parts[index][1]:
            return None
        for passed in [known for known in self._coming if known < index]:
            del self._coming[passed]
        for following in range(index, min(index + AHEAD, len(self._parts))):
            if following not in self._coming:
                self._coming[following] = self._submit(self._parts[following])
        return self._parts[index][0], self._coming[index]


class RangedFile(io.RawIOBase):
    """A file that is read in ranges. Thread-safe but for its position, as pyarrow locks it.

    What was announced with `expect` is fetched in few and large requests, several at a time; each other read is one
    request. At most `AHEAD` parts are in memory.
    """

    def __init__(
        self, size_bytes: int, fetch: Callable[[Range], bytes], submit: Callable[[Range], Future[bytes]]
    ) -> None:
        """Take the size, and what fetches a range at once, or in a thread; nothing is fetched yet.

        The end is expected to be read first.
        """
        super().__init__()
        self._size = size_bytes
        self._fetch = fetch
        self._submit = submit
        self._at = 0
        self._lock = threading.Lock()
        self._plan = _Plan([(max(size_bytes - _END_BYTES, 0), size_bytes)], submit)
        forks.register(self)

    def become_child(self) -> None:
        """Have a lock of its own, and wait for nothing that only the parent's threads fetch."""
        self._lock = threading.Lock()
        self._plan = _Plan([], self._submit)

    def expect(self, ranges: Sequence[Range]) -> None:
        """Say what is read next, and let go of the rest; several threads that do so are right, and slower."""
        with self._lock:
            self._plan.drop()
            self._plan = _Plan(joined(ranges), self._submit)

    def readable(self) -> bool:
        """Say yes."""
        return True

    def seekable(self) -> bool:
        """Say yes."""
        return True

    def tell(self) -> int:
        """Return the position."""
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        """Move the position; nothing is fetched."""
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        return self._at

    def read(self, size: int | None = -1, /) -> bytes:
        """Return the next bytes: as many as asked for, unless the file ends."""
        end = self._size if size is None or size < 0 else min(self._at + size, self._size)
        data = self._bytes(self._at, max(end, self._at))
        self._at += len(data)
        return data

    def read_buffer(self, size: int, /) -> memoryview:
        """Return the next bytes as pyarrow asks for them, and remember them until it has let go of them."""
        view = memoryview(self.read(size))
        key = id(view)
        _handed[key] = weakref.ref(view, lambda _: _handed.pop(key, None))
        return view

    def readinto(self, buffer: Buffer, /) -> int:
        """Fill a buffer."""
        view = memoryview(buffer).cast("B")
        data = self.read(len(view))
        view[: len(data)] = data
        return len(data)

    def _bytes(self, start: int, end: int) -> bytes:
        if start >= end:
            return b""
        with self._lock:
            found = self._plan.part_of(start, end)
        if found is None:
            return self._fetch((start, end))
        base, part = found
        try:
            return part.result()[start - base : end - base]
        except CancelledError:  # another thread expects something else by now
            return self._fetch((start, end))
