"""The appender: numbers records, frames them and hands them to the kernel, whatever happens on the way."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from typing import TYPE_CHECKING, Final
from zlib import crc32

from eventlog import frame, names, schema, sealer, segment
from eventlog.append import OpenSegment
from eventlog.config import WriterConfig
from eventlog.errors import DurabilityUnknownError, UsageError
from eventlog.fs import LOCAL, SPACE_ERRORS
from eventlog.losses import Losses
from eventlog.schema import Log
from eventlog.shapes import ShapeKey, Shapes

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Sequence

    from eventlog.fs import Fs

_NOTHING: Final[frozenset[int]] = frozenset()
_encode: Final = schema.encode
_LOG: Final = schema.kind_number(Log)
_pack_header: Final = frame.pack_header
_pack_length_seq: Final = frame.pack_length_seq


class Appender:
    """Appends records to segments of its own; when a method that appends has returned, they survive kill -9.

    Thread-safe, and safe to use in a signal handler that interrupts it.

    Attributes:
        root: the store's directory.
        project: the project that all records belong to.
        config: settings.
        time_ns: the clock.
        writer_id: unique per process start.
        lock: re-entrant; callers that need two appends side by side hold it.
        on_sealed: called with the path of each segment after it was sealed, in the thread that sealed it.
        preamble: asked for records to put before the first one; used by forked children.
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
        """Prepare; nothing is created on disk before the first record.

        Args: as the attributes; `config` None is the defaults, `fs` is the file system.

        Raises:
            UsageError: the project's name cannot be a directory.
        """
        names.encode_name(project)
        self.root = os.path.abspath(root)
        self.project = project
        self.config = config or WriterConfig()
        self._fs = fs
        self._write = fs.write
        self._roll_at_bytes = self.config.segment_bytes
        self.time_ns = time_ns
        self._losses = Losses()
        self._shapes = Shapes()  # a forked child keeps them: its run still holds their numbers
        self.on_sealed: Callable[[str], None] | None = None
        self.preamble: Callable[[], Sequence[schema.Record]] | None = None
        self._reset()

    def _reset(self) -> None:
        self.writer_id = names.new_id(self.time_ns() // 1_000_000)
        self.lock = threading.RLock()
        self._sealer = sealer.Sealer(self)
        self._busy = False
        self._deferred: list[schema.Record | None] = []
        self._closed = False
        self._opened = False
        self._segment: OpenSegment | None = None
        self._segno = 0
        self._next_seq = 1
        self._born_s = 0.0
        self._roll_due = False
        self._ready: Container[int] = _NOTHING
        self._losses.pending = 0
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None

    def shape(self, run_id: str, rank: int | None, metric_names: tuple[str, ...]) -> ShapeKey:
        """Return the shape of these names, in this order, for a run; announced in a segment when first used there."""
        return self._shapes.get(run_id, rank, metric_names)

    def log(
        self, shape: ShapeKey, step: int | None, values: bytes, others: dict[str, schema.Plain] | None = None
    ) -> bool:
        """Append one `Log` record with one write(2).

        Args:
            shape: of this writer.
            step: the user's step, a 64-bit integer, or None.
            values: what `shape.pack` returned.
            others: the values that are no numbers.

        Returns:
            False when the record could not be kept; it is counted in `lost`.

        Raises:
            StorageError: could not be kept, and the config says `on_error="raise"`.
            UsageError: the writer is closed, or the record is too large.
        """
        with self.lock:
            number = shape.number
            if number not in self._ready or self._busy:
                return self._append_slowly(Log(self.time_ns(), step, number, values, others), number)
            open_segment = self._segment
            self._busy = True
            data = b""
            try:
                # The same bytes as those of a Log, without making one.
                payload = _encode((_LOG, self.time_ns(), step, number, values, others))
                length = len(payload)
                if length > frame.MAX_PAYLOAD_BYTES:
                    raise frame.too_large(length)  # noqa: TRY301 - the state must be settled all the same
                offset, seq = open_segment.state  # type: ignore[union-attr]  # what is ready is announced in it
                start = crc32(_pack_length_seq(length, seq))
                data = _pack_header(crc32(payload, start), start & 0xFFFF, length, seq) + payload
                if self._write(open_segment.fd, data) != len(data):  # type: ignore[union-attr]
                    return self._append_after_failure(payload, number, data)
                offset += len(data)
                open_segment.state = (offset, seq + 1)  # type: ignore[union-attr]
            except OSError:
                return self._append_after_failure(payload, number, data)
            except BaseException:
                self._settle(open_segment, data)  # type: ignore[arg-type]
                raise
            finally:
                self._busy = False
                if self._deferred:
                    self._catch_up()
            if offset >= self._roll_at_bytes:
                self._ask_for_roll()
            return True

    def append(self, record: schema.Record) -> bool:
        """Append one record of any kind that takes a seq.

        Returns:
            False when the record could not be kept; it is counted in `lost`.

        Raises:
            StorageError: could not be kept, and the config says `on_error="raise"`.
            UsageError: the writer is closed, or the record is too large.
        """
        with self.lock:
            return self._append_slowly(record, None)

    def begin(self) -> None:
        """Write the preamble now; when that fails it comes before the first record that can be kept.

        Raises:
            StorageError: it could not be written, and the config says `on_error="raise"`.
        """
        with self.lock:
            try:
                self._append_prepared(None, None)
            except OSError as error:
                self._losses.complain(error, self.root, self.config.on_error)

    def _append_slowly(self, record: schema.Record, shape: int | None) -> bool:
        if self._closed:
            raise UsageError(
                "the writer is closed: the run has finished; call init() again, with resume to continue it"
            )
        if self._busy:
            # A signal handler logs while log() is at work in the same thread: it comes right after.
            self._deferred.append(record)
            return True
        payload = schema.encode(record)
        if len(payload) > frame.MAX_PAYLOAD_BYTES:
            raise frame.too_large(len(payload))
        self._busy = True
        try:
            return self._try_append(payload, shape)
        finally:
            self._busy = False
            if self._deferred:
                self._catch_up()

    def _catch_up(self) -> None:
        """Do what a signal handler asked for while an append was at work in the same thread."""
        while self._deferred:
            record = self._deferred.pop(0)
            if record is None:
                self._seal_for_good()
            else:
                self._append_slowly(record, record.shape if isinstance(record, Log | schema.System) else None)

    def _append_after_failure(self, payload: bytes, shape: int, data: bytes) -> bool:
        """Remove what a failed or short write of `log` left, then try the careful way."""
        if self._segment is not None and self._settle(self._segment, data):
            return True
        return self._try_append(payload, shape)

    def _settle(self, open_segment: OpenSegment, data: bytes) -> bool:
        """Keep an interrupted frame if it is whole, and say so: a reader may have seen it. Else remove its beginning.

        Where that fails, the segment is left, so that no seq is used twice.
        """
        try:
            return open_segment.settle(data)
        except OSError:
            self._abandon(open_segment)
            return False

    def _try_append(self, payload: bytes, shape: int | None) -> bool:
        try:
            self._append_prepared(payload, shape)
        except OSError as error:
            if error.errno not in SPACE_ERRORS and self._append_in_new_segment(payload, shape):
                return True
            return self._drop(error)
        return True

    def _append_in_new_segment(self, payload: bytes, shape: int | None) -> bool:
        """Retry once elsewhere: a full file (EFBIG) or a bad block (EIO) need not be the next one's fate."""
        if self._segment is not None:
            self._abandon(self._segment)
        with contextlib.suppress(OSError):
            self._append_prepared(payload, shape)
            return True
        return False

    def _append_prepared(self, payload: bytes | None, shape: int | None) -> None:
        """Bring everything up that the record needs before it, then append it, if there is one.

        Raises:
            OSError: the record was not appended.
        """
        if self._roll_due:
            self._roll(final=False)
        if self._segment is not None and self._segment.is_broken:
            self._abandon(self._segment)
        open_segment = self._segment or self._open()
        if not self._opened:
            for record in self.preamble() if self.preamble else ():
                open_segment.append(schema.encode(record))
            self._opened = True
        if self._losses.pending:
            self._append_dropped(open_segment)
        if shape is not None and shape not in open_segment.shapes:
            key = self._shapes[shape]
            open_segment.announce(schema.Shape(shape, key.run_id, key.rank, list(key.names), 0))
        if payload is not None:
            open_segment.append(payload)
        self._ready = open_segment.shapes
        if open_segment.offset >= self.config.segment_bytes:
            self._ask_for_roll()

    def _append_dropped(self, open_segment: OpenSegment) -> None:
        open_segment.append(schema.encode(self._losses.record(self.time_ns())))
        self._losses.pending = 0

    def _open(self) -> OpenSegment:
        self._segno += 1
        header = segment.Header(self.writer_id, self._segno, self._next_seq, self.time_ns())
        self._segment = OpenSegment(self._fs, self.root, header, self.project)
        self._born_s = time.monotonic()
        self._segment_opened()
        return self._segment

    def _segment_opened(self) -> None:
        """Do what a new segment calls for; a writer starts its sync thread."""

    def current_segment(self) -> OpenSegment | None:
        """Return the segment that is being appended to, if any."""
        return self._segment

    def _drop(self, error: OSError) -> bool:
        self._losses.add(error, self.time_ns())
        self._ready = _NOTHING
        self._losses.complain(error, self.root, self.config.on_error)
        return False

    def _ask_for_roll(self) -> None:
        self._roll_due = True
        self._ready = _NOTHING

    def detach(self, distrusted: OpenSegment) -> None:
        """Stop appending to a segment and leave it as it is, under its open name; the next record starts a new one."""
        with self.lock:
            if self._segment is distrusted:
                self._next_seq = distrusted.header.first_seq + distrusted.next_seq
                self._segment = None
                self._ready = _NOTHING
                self._roll_due = False

    def _abandon(self, open_segment: OpenSegment) -> None:
        """Go on in a new segment; what the old one holds still gets synced."""
        self._retire(open_segment, complete=False)

    def _retire(self, open_segment: OpenSegment, *, complete: bool) -> None:
        """Hand a segment over, in this order, so that a sync in another thread meets it in one of the two places."""
        try:
            self._sealer.retire(open_segment, complete=complete)
        finally:
            self.detach(open_segment)

    def _roll(self, *, final: bool) -> None:
        """Retire the open segment; the sync thread seals it, or this call when there is none or dozens wait for it.

        Raises:
            OSError: the seal frame could not be written, and the segment goes on; or the segment is retired, but
                could not be sealed yet.
        """
        open_segment = self._segment
        self._roll_due = False
        if open_segment is None:
            return
        if open_segment.is_broken:
            self._abandon(open_segment)
            return
        open_segment.write_seal(final=final)
        self._retire(open_segment, complete=True)
        self._sealer.sync_if_due(alone=self._thread is None)

    def _seal_for_good(self) -> None:
        if self._closed:
            return
        self._closed = True
        try:
            if self._losses.pending:
                with contextlib.suppress(OSError):
                    self._append_prepared(None, None)
            self._roll(final=True)
        except OSError as error:
            if self._segment is not None:
                self._abandon(self._segment)
            raise DurabilityUnknownError(f"cannot seal the last segment in {self.root}: {error}") from error
        finally:
            self._wake.set()
