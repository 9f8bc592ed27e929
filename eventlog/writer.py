"""The writer: one process's appender, which also rolls, syncs, closes, and becomes another one in a forked child."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING

from eventlog import forks, frame, schema, sealer
from eventlog.appender import Appender
from eventlog.errors import FOREIGN_ERRORS, DurabilityUnknownError, StorageError, UsageError, describe
from eventlog.fs import LOCAL, SPACE_ERRORS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import msgspec

    from eventlog.config import WriterConfig
    from eventlog.fs import Fs
    from eventlog.shapes import ShapeKey


class Writer(Appender):
    """An appender that takes part in the life of its process. Thread-safe.

    After a fork the child's copy becomes a new writer with an id of its own.
    """

    def __init__(
        self,
        root: str,
        project: str,
        *,
        config: WriterConfig | None = None,
        fs: Fs = LOCAL,
        time_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        """Prepare as `Appender`, and listen for forks.

        Raises:
            UsageError: the project's name cannot be a directory.
        """
        super().__init__(root, project, config=config, fs=fs, time_ns=time_ns)
        forks.register(self)

    @property
    def next_seq(self) -> int:
        """The seq that the next record will get."""
        open_segment = self._segment
        if open_segment is None:
            return self._next_seq
        return open_segment.header.first_seq + open_segment.next_seq

    @property
    def lost(self) -> int:
        """How many records could not be kept since the start."""
        return self._losses.total

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._closed

    def _segment_opened(self) -> None:
        interval_s = self.config.sync_interval_s
        if interval_s is not None and self._thread is None:
            name = f"eventlog-sync-{self.writer_id[-6:]}"
            try:
                self._thread = sealer.start_thread(self, self._wake, interval_s, name)
            except RuntimeError as error:
                self._losses.warn_once(f"no thread for background syncs: {error}. flush() still syncs", 4)

    def system(self, shape: ShapeKey, values: bytes) -> bool:
        """Append one `System` record; as `log` otherwise."""
        with self.lock:
            return self._append_slowly(schema.System(self.time_ns(), shape.number, values), shape.number)

    def append_all(self, records: Sequence[schema.Record | msgspec.Raw]) -> None:
        """Append several records with one write(2); not for signal handlers.

        A full disk may cut it short: then the first records stay, for a reader may have seen them, and `next_seq` says
        how many. What could not be kept is the caller's to keep: it is not counted in `lost`.

        Args:
            records: with whatever times they have; a `Raw` is a payload of a kind that this release does not know.

        Raises:
            StorageError: not all were kept.
            UsageError: the writer is closed, or a record is too large; none was kept.
        """
        payloads = [schema.encode(record) for record in records]
        largest = max(map(len, payloads), default=0)
        if largest > frame.MAX_PAYLOAD_BYTES:
            raise frame.too_large(largest)
        shapes = sorted({record.shape for record in records if isinstance(record, schema.Log | schema.System)})
        with self.lock:
            if self._closed or self._busy:
                raise UsageError("the writer is closed" if self._closed else "append_all cannot interrupt an append")
            self._busy = True
            try:
                self._append_together(payloads, shapes)
            except OSError as error:
                if self._segment is not None and error.errno not in SPACE_ERRORS:
                    self._abandon(self._segment)
                message = f"{len(records)} records could not be kept in {self.root}: {error.strerror or error}"
                raise StorageError(error.errno or 0, message) from error
            finally:
                self._busy = False
                if self._deferred:
                    self._catch_up()

    def _append_together(self, payloads: list[bytes], shapes: list[int]) -> None:
        self._append_prepared(None, None)
        open_segment = self._segment or self._open()
        for number in shapes:
            if number not in open_segment.shapes:
                key = self._shapes[number]
                open_segment.announce(schema.Shape(number, key.run_id, key.rank, list(key.names), 0))
        open_segment.append_all(payloads)
        if open_segment.offset >= self.config.segment_bytes:
            self._ask_for_roll()

    def roll(self) -> None:
        """Seal the open segment and start the next with the next record.

        Raises:
            DurabilityUnknownError: the sealed segment could not be synced.
            StorageError: the seal could not be written.
        """
        with self.lock:
            try:
                self._roll(final=False)
            except OSError as error:
                raise StorageError(error.errno or 0, f"cannot seal a segment in {self.root}: {error}") from error
        self.sync()

    def sync(self) -> None:
        """Make every record durable that was appended before the call.

        Raises:
            DurabilityUnknownError: the disk refused; the records stay readable, and were written again
                to a new segment where that was possible.
        """
        try:
            self._sealer.sync()
        except OSError as error:
            raise DurabilityUnknownError(f"cannot sync {self.root}: {error}") from error

    def tick(self) -> None:
        """Roll what is old, sync what is new, and warn once of a failure; called by the sync thread. Never raises."""
        try:
            self._roll_if_old()
            self.sync()
        except DurabilityUnknownError as error:
            self._losses.warn_once(f"{error}. Records stay readable, but may not survive a power loss.", 1)
        except (*FOREIGN_ERRORS, SystemExit) as error:  # nobody would start another thread
            text = f"{describe(error)} while {self.root} was synced. It is tried again; `flush()` raises what fails"
            self._losses.warn_once(text, 1)

    def _roll_if_old(self) -> None:
        with self.lock:
            current = self._segment
            old = time.monotonic() - self._born_s >= self.config.rolls_after_s
            if old and not self._busy and current is not None and current.next_seq:
                with contextlib.suppress(OSError):
                    self._roll(final=False)

    def close(self) -> None:
        """Seal and sync everything; afterwards nothing can be appended. Calling it again does nothing.

        In a signal handler that interrupted an append, the append comes first and the sync thread does the rest.

        Raises:
            DurabilityUnknownError: the last records could not be synced.
        """
        with self.lock:
            if self._busy:
                self._deferred.append(None)
                return
            self._seal_for_good()
        self.sync()

    def become_child(self) -> None:
        """Turn this copy, in a forked child, into a writer of its own. The parent's files are only closed."""
        if self._segment is not None:
            with contextlib.suppress(OSError):
                self._segment.close()
        self._sealer.drop_inherited()
        closed = self._closed
        self._reset()
        self._closed = closed
