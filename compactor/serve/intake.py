"""Intake: what clients send to one project becomes records, each once, durable before the answer."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import threading
import time
from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from compactor.serve.errors import RequestError, UnavailableError
from compactor.serve.making import Maker, Records, Runs
from compactor.serve.receipts import Received, receipts_since
from compactor.serve.seen import MEMORY_KEYS, Seen
from compactor.serve.wire import (
    NO_ID,
    AlertEntry,
    LogEntry,
    SystemEntry,
    id_key,
)
from eventlog import names, schema, tail
from eventlog.blobs import BlobRef, BlobStore, Readable
from eventlog.config import WriterConfig
from eventlog.errors import DurabilityUnknownError, StorageError, UsageError
from eventlog.fs import LOCAL, Fs
from eventlog.writer import Writer

log = logging.getLogger("compactor")
_CLOSE_S: Final = 5.0


class Totals(msgspec.Struct):
    """What an intake took, for the telemetry."""

    records: int = 0
    repeats: int = 0
    refused: int = 0


class Intake:
    """Takes batches for one project. Thread-safe.

    A batch is appended with one write(2): all of it or nothing, whatever kills the process; only a full disk may keep
    its beginning. Its records follow a receipt with the clients' ids, so that a repeat is known for ever, and by every
    later server, and so that what is missing of a batch is completed by it. One process
    at a time takes for a project: it holds a lock, so that no two can take the same batch at the same time.
    Entries are those that `check_entry` let pass: who has a batch for several projects checks all of it first.

    Attributes:
        project: its name.
        totals: what it took so far.
        artifacts_lock: held by who chooses the number of an artifact's version.
    """

    def __init__(
        self,
        root: str,
        project: str,
        runs: Runs,
        *,
        config: WriterConfig | None = None,
        fs: Fs = LOCAL,
        memory_keys: int = MEMORY_KEYS,
        reread_s: float = math.inf,
    ) -> None:
        """Prepare; the writer, the lock and the index come with the first batch.

        Args:
            root: the store.
            project: its name.
            runs: where runs are known.
            config: settings of the writer.
            fs: the file system.
            memory_keys: so many ids are kept in memory at most.
            reread_s: look for receipts of other writers before a batch, when the last look was so long ago.

        Raises:
            UsageError: the project's name cannot be a directory.
        """
        names.encode_name(project)
        self.project = project
        self.totals = Totals()
        self._root = root
        self._runs = runs
        self._config = config or WriterConfig(on_error="raise")
        self._fs = fs
        self._memory_keys = memory_keys
        self._blobs = BlobStore(root, fs)
        self._maker = Maker(project, runs, root, self._config.inline_bytes, fs)
        self.artifacts_lock = threading.Lock()
        self._lock = threading.Lock()
        self._writer: Writer | None = None
        self._seen: Seen | None = None
        self._lock_fd = -1
        self._closed = False
        self._reread_s = reread_s
        self._cursor: dict[str, int] = {}
        self._read_at = 0.0

    @property
    def writer_id(self) -> str | None:
        """The writer of what is taken now; None before the first batch."""
        return None if self._writer is None else self._writer.writer_id

    def take_logs(self, entries: Sequence[LogEntry]) -> None:
        """Keep a batch of logs; durable when this returns. Entries whose `log_id` was received before are left out.

        Raises:
            RequestError: an entry is bad; nothing was kept.
            UnavailableError: it could not be kept, or not be made durable: send it again.
        """
        self._take(
            [id_key(entry.log_id) for entry in entries],
            lambda fresh: self._maker.logs(self._writing(), [entries[index] for index in fresh]),
        )

    def take_system(self, entries: Sequence[SystemEntry]) -> None:
        """Keep a batch of system metrics, as `take_logs`.

        Raises:
            RequestError: an entry is bad; nothing was kept.
            UnavailableError: as `take_logs`.
        """
        self._take(
            [id_key(entry.log_id) for entry in entries],
            lambda fresh: self._maker.system(self._writing(), [entries[index] for index in fresh]),
        )

    def take_alerts(self, entries: Sequence[AlertEntry]) -> None:
        """Keep a batch of alerts, as `take_logs`.

        Raises:
            RequestError: an entry is bad; nothing was kept.
            UnavailableError: as `take_logs`.
        """
        self._take(
            [id_key(entry.alert_id) for entry in entries],
            lambda fresh: self._maker.alerts([entries[index] for index in fresh]),
        )

    def append(self, make: Callable[[int], schema.Record], run_id: str = "", run: str = "") -> None:
        """Keep one record, made from the time; durable when this returns.

        Args:
            make: returns the record.
            run_id: of a run that begins with it, if it is not known yet.
            run: its name.

        Raises:
            UnavailableError: as `take_logs`.
        """
        self._take([NO_ID], lambda _: (self._maker.start(run_id, run, None) if run else [], [make(time.time_ns())]))

    def put_blob(self, file: Readable) -> BlobRef:
        """Keep what an open file holds as a blob; durable when this returns.

        Raises:
            UnavailableError: it could not be kept.
        """
        try:
            return self._blobs.put_file(file)
        except OSError as error:
            raise UnavailableError(f"a file could not be kept: {error}") from error

    def _take(self, keys: list[bytes], make: Callable[[list[int]], Records]) -> None:
        try:
            with self._lock:
                writer, seen = self._open()
                fresh = _fresh(keys, seen)
                if fresh:
                    self._append(writer, seen, [keys[index] for index in fresh], lambda: make(fresh))
                self.totals.repeats += len(keys) - len(fresh)
            # Outside the lock: while one request waits for the disk, others append, and the next sync is for all.
            writer.sync()
        except (StorageError, DurabilityUnknownError) as error:
            self.totals.refused += len(keys)
            raise UnavailableError(str(error)) from error
        except OSError as error:
            self.totals.refused += len(keys)
            raise UnavailableError(f"the batch could not be kept: {error}") from error

    def _append(self, writer: Writer, seen: Seen, ids: list[bytes], make: Callable[[], Records]) -> None:
        began = writer.next_seq
        try:
            before, records = make()
            named = any(key != NO_ID for key in ids)
            receipt = [schema.Receipt(time.time_ns(), "", b"".join(ids))] if named else []
            writer.append_all([*before, *receipt, *records])
        except BaseException as error:
            # What was noted of runs may not be stored: ask the store again.
            self._maker.forget()
            if writer.next_seq != began:
                self._start_over()
            if isinstance(error, UsageError):
                raise RequestError(str(error)) from error
            raise
        seen.add(key for key in ids if key != NO_ID)
        self.totals.records += len(records)
        if seen.is_full:
            self._save(writer, seen)

    def _start_over(self) -> None:
        """Go on with another writer, and read back what was received.

        The beginning of a batch is kept. Its receipt counts records by their seqs, so no other record may take those
        that are missing.
        """
        writer, self._writer, self._seen = self._writer, None, None
        if writer is not None:
            try:
                writer.close()
            except DurabilityUnknownError as error:
                log.warning("a batch of project %r was cut short: %s", self.project, error)

    def _open(self) -> tuple[Writer, Seen]:
        if self._closed:
            raise UnavailableError("the server is shutting down")
        if self._writer is None or self._seen is None:
            self._take_lock()
            sync_inherited(self._fs, self._root, self.project)
            self._seen = self._load_seen()
            self._writer = Writer(self._root, self.project, config=self._config, fs=self._fs)
        elif time.monotonic() - self._read_at >= self._reread_s:
            self._read_receipts(self._seen)
        return self._writer, self._seen

    def _writing(self) -> Writer:
        return self._open()[0]

    def _take_lock(self) -> None:
        if self._lock_fd >= 0:
            return
        # The index may be deleted at any time; this directory may not.
        directory = names.project_segments_dir(self._root, self.project)
        self._fs.make_dirs(directory)
        fd = self._fs.open(directory)
        if not self._fs.lock(fd):
            self._fs.close(fd)
            raise UnavailableError(f"another server takes what is sent to project {self.project!r} in this store")
        self._lock_fd = fd

    def _load_seen(self) -> Seen:
        seen = Seen(names.index_dir(self._root, self.project), fs=self._fs, memory_keys=self._memory_keys)
        self._cursor = dict(seen.cursor)
        self._read_receipts(seen)
        if self._cursor != seen.cursor:
            seen.save(self._cursor)
        return seen

    def _read_receipts(self, seen: Seen) -> None:
        if self._writer is not None:
            self._cursor[self._writer.writer_id] = self._writer.next_seq - 1
        cursor = dict(self._cursor)
        for received in receipts_since(self._runs.feed(), self._cursor):
            self._note(seen, received, cursor)
        self._cursor = cursor
        self._read_at = time.monotonic()

    def _note(self, seen: Seen, received: Received, cursor: dict[str, int]) -> None:
        cursor[received.writer_id] = max(cursor.get(received.writer_id, 0), received.seq)
        seen.add(key for key in received.keys if key != NO_ID)
        if seen.is_full:
            # The cursor stays behind until all is read: receipts come in no order across writers.
            seen.save(seen.cursor)

    def _save(self, writer: Writer, seen: Seen) -> None:
        try:
            # The index must never outlive what it tells of: after a power loss a repeat would be answered as kept.
            writer.sync()
            seen.save({**seen.cursor, writer.writer_id: writer.next_seq - 1})
        except (OSError, DurabilityUnknownError) as error:
            # The receipts are in the store; the index can be written the next time.
            log.warning("the index of received ids could not be saved: %s", error)

    def roll(self) -> None:
        """Seal what was taken so far, so that it can be copied.

        Raises:
            StorageError: it cannot be sealed.
            DurabilityUnknownError: the disk refused to sync it.
        """
        with self._lock:
            if self._writer is not None and not self._closed:
                self._writer.roll()

    def close(self) -> None:
        """Take nothing more, seal what was taken, and save the index; calling it again does nothing.

        While a batch waits for what is read of a long store, nothing is sealed: that has to be done at the next start,
        as after a kill.
        """
        if not self._lock.acquire(timeout=_CLOSE_S):
            log.warning("project %r is busy: its segment is left open", self.project)
            return
        try:
            self._end()
        finally:
            self._lock.release()

    def _end(self) -> None:
        if self._closed:
            return
        self._closed = True
        if self._writer is not None:
            if self._seen is not None:
                self._save(self._writer, self._seen)
            self._writer.close()
        if self._lock_fd >= 0:
            self._fs.close(self._lock_fd)
            self._lock_fd = -1


def sync_inherited(fs: Fs, root: str, project: str) -> None:
    """Make durable what a server that was killed had appended: a repeat of it will be answered as kept.

    Raises:
        OSError: as the file system raises it.
    """
    for writer_id in tail.writers(fs, root, project):
        directory = names.writer_dir(root, project, writer_id)
        for name in fs.names(directory):
            if name.endswith(".open"):
                with contextlib.suppress(FileNotFoundError):
                    # Its name is durable: a segment holds no record before that.
                    _sync_file(fs, os.path.join(directory, name))


def _sync_file(fs: Fs, path: str) -> None:
    fd = fs.open(path)
    try:
        fs.sync(fd)
    finally:
        fs.close(fd)


def _fresh(keys: Sequence[bytes], seen: Seen) -> list[int]:
    """Return which entries of a batch were not received before, each id once; those without an id are all new."""
    fresh: list[int] = []
    now: set[bytes] = set()
    for index, (key, known) in enumerate(zip(keys, seen.contains(keys), strict=True)):
        if key == NO_ID or not (known or key in now):
            fresh.append(index)
            now.add(key)
    return fresh
