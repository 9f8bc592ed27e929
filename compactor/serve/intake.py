"""Intake: what clients send to one project becomes records, each once, durable before the answer."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

import msgspec

from compactor.serve.errors import RequestError, UnavailableError
from compactor.serve.receipts import Received, receipts_since
from compactor.serve.seen import Seen
from compactor.serve.wire import (
    NO_ID,
    AlertEntry,
    LogEntry,
    SystemEntry,
    checked_name,
    id_key,
    restore,
    restore_config,
    time_ns,
    whole,
)
from eventlog import names, schema, tail, values
from eventlog.blobs import BlobRef, BlobStore
from eventlog.config import WriterConfig
from eventlog.errors import DurabilityUnknownError, StorageError, UsageError
from eventlog.feed import Feed
from eventlog.fs import LOCAL
from eventlog.runs import RunPart
from eventlog.writer import Writer

log = logging.getLogger("compactor")


class Known(msgspec.Struct):
    """What the intake has to know of a run to go on with it."""

    config: dict[str, Any]
    next_step: int


class Runs(Protocol):
    """Where the intake learns of runs that it did not start itself."""

    def find(self, run_id: str) -> RunPart | None:
        """Return what is known of a run, with everything that was appended before the call."""

    def feed(self) -> Feed:
        """Return a feed of the project that nobody else uses."""


class Totals(msgspec.Struct):
    """What an intake took, for the telemetry."""

    records: int = 0
    repeats: int = 0
    refused: int = 0


_Records = tuple[list[schema.Record], list[schema.Record]]
"""What goes before the receipt, and what it is for."""


class Intake:
    """Takes batches for one project. Thread-safe.

    A batch is appended with one write(2): all of it or nothing, whatever kills the process. Its records follow a
    receipt with the clients' ids, so that a repeat is known for ever, and by every later server. One process
    at a time takes for a project: it holds a lock, so that no two can take the same batch at the same time.

    Attributes:
        project: its name.
        totals: what it took so far.
        artifacts_lock: held by who chooses the number of an artifact's version.
    """

    def __init__(self, root: str, project: str, runs: Runs, *, config: WriterConfig | None = None) -> None:
        """Prepare; the writer, the lock and the index come with the first batch.

        Raises:
            UsageError: the project's name cannot be a directory.
        """
        names.encode_name(project)
        self.project = project
        self.totals = Totals()
        self._root = root
        self._runs = runs
        self._config = config or WriterConfig(on_error="raise")
        self._blobs = BlobStore(root)
        self.artifacts_lock = threading.Lock()
        self._lock = threading.Lock()
        self._known: dict[str, Known] = {}
        self._writer: Writer | None = None
        self._seen: Seen | None = None
        self._lock_fd = -1
        self._closed = False

    def take_logs(self, entries: Sequence[LogEntry]) -> None:
        """Keep a batch of logs; durable when this returns. Entries whose `log_id` was received before are left out.

        Raises:
            RequestError: an entry is bad; nothing was kept.
            UnavailableError: it could not be kept, or not be made durable: send it again.
        """
        for entry in entries:
            checked_name(entry.run, "a run's name")
        self._take(
            [id_key(entry.log_id) for entry in entries],
            lambda fresh: self._log_records([entries[index] for index in fresh]),
        )

    def take_system(self, entries: Sequence[SystemEntry]) -> None:
        """Keep a batch of system metrics, as `take_logs`.

        Raises:
            RequestError: an entry is bad; nothing was kept.
            UnavailableError: as `take_logs`.
        """
        for entry in entries:
            checked_name(entry.run, "a run's name")
        self._take(
            [id_key(entry.log_id) for entry in entries],
            lambda fresh: self._system_records([entries[index] for index in fresh]),
        )

    def take_alerts(self, entries: Sequence[AlertEntry]) -> None:
        """Keep a batch of alerts, as `take_logs`.

        Raises:
            RequestError: an entry is bad; nothing was kept.
            UnavailableError: as `take_logs`.
        """
        for entry in entries:
            checked_name(entry.run, "a run's name")
            if entry.level not in ("info", "warn", "error"):
                raise RequestError(f'an alert\'s level is "info", "warn" or "error", not {entry.level!r}')
        self._take(
            [id_key(entry.alert_id) for entry in entries],
            lambda fresh: self._alert_records([entries[index] for index in fresh]),
        )

    def append(self, make: Callable[[int], schema.Record]) -> None:
        """Keep one record, made from the time; durable when this returns.

        Raises:
            UnavailableError: as `take_logs`.
        """
        self._take([NO_ID], lambda _: ([], [make(time.time_ns())]))

    def put_blob(self, file: Any) -> BlobRef:
        """Keep what an open file holds as a blob; durable when this returns.

        Raises:
            UnavailableError: it could not be kept.
        """
        try:
            return self._blobs.put_file(file)
        except OSError as error:
            raise UnavailableError(f"a file could not be kept: {error}") from error

    def _take(self, keys: list[bytes], make: Callable[[list[int]], _Records]) -> None:
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

    def _append(self, writer: Writer, seen: Seen, ids: list[bytes], make: Callable[[], _Records]) -> None:
        try:
            before, records = make()
            named = any(key != NO_ID for key in ids)
            receipt = [schema.Receipt(time.time_ns(), "", b"".join(ids))] if named else []
            writer.append_all([*before, *receipt, *records])
        except BaseException as error:
            # What was noted of runs may not be stored: ask the store again.
            self._known.clear()
            if isinstance(error, UsageError):
                raise RequestError(str(error)) from error
            raise
        seen.add(key for key in ids if key != NO_ID)
        self.totals.records += len(records)
        if seen.is_full:
            self._save(writer, seen)

    def _open(self) -> tuple[Writer, Seen]:
        if self._closed:
            raise UnavailableError("the server is shutting down")
        if self._writer is None or self._seen is None:
            self._take_lock()
            sync_inherited(self._root, self.project)
            self._seen = self._load_seen()
            self._writer = Writer(self._root, self.project, config=self._config)
        return self._writer, self._seen

    def _take_lock(self) -> None:
        if self._lock_fd >= 0:
            return
        directory = names.index_dir(self._root, self.project)
        os.makedirs(directory, exist_ok=True)
        fd = os.open(os.path.join(directory, "lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        if not LOCAL.lock(fd):
            os.close(fd)
            raise UnavailableError(f"another server takes what is sent to project {self.project!r} in this store")
        self._lock_fd = fd

    def _load_seen(self) -> Seen:
        seen = Seen(names.index_dir(self._root, self.project))
        cursor = dict(seen.cursor)
        for received in receipts_since(self._runs.feed(), seen.cursor):
            self._note(seen, received, cursor)
        if cursor != seen.cursor:
            seen.save(cursor)
        return seen

    def _note(self, seen: Seen, received: Received, cursor: dict[str, int]) -> None:
        cursor[received.writer_id] = max(cursor.get(received.writer_id, 0), received.seq)
        seen.add(key for key in received.keys if key != NO_ID)
        if seen.is_full:
            # The cursor stays behind until all is read: receipts come in no order across writers.
            seen.save(seen.cursor)

    def _save(self, writer: Writer, seen: Seen) -> None:
        try:
            seen.save({**seen.cursor, writer.writer_id: writer.next_seq - 1})
        except OSError as error:
            # The receipts are in the store; the index can be written the next time.
            log.warning("the index of received ids could not be saved: %s", error)

    def _start(self, entry: LogEntry | SystemEntry | AlertEntry, config: dict[str, Any] | None) -> list[schema.Record]:
        """Return the records that a run needs before this entry: its start, or what is new in its config."""
        run_id = run_id_of(entry)
        known = self._known.get(run_id)
        if known is None:
            part = self._runs.find(run_id)
            if part is not None:
                settings = {key: value for key, (_, value) in part.config.items()}
                known = Known(settings, 0 if part.last_step is None else part.last_step + 1)
                self._known[run_id] = known
        if known is None:
            self._known[run_id] = Known(dict(config or {}), 0)
            return [run_start(self.project, run_id, entry.run, config or {})]
        changed = {k: v for k, v in (config or {}).items() if k not in known.config or known.config[k] != v}
        known.config.update(changed)
        return [schema.ConfigPatch(time.time_ns(), run_id, changed)] if changed else []

    def _log_records(self, entries: Iterable[LogEntry]) -> _Records:
        writer = self._writer
        before: list[schema.Record] = []
        records: list[schema.Record] = []
        now_ns = time.time_ns()
        for index, entry in enumerate(entries):
            config = self._plain(restore_config(entry.config)) if entry.config else None
            before += self._start(entry, config)
            run_id = run_id_of(entry)
            known = self._known[run_id]
            step = known.next_step if entry.step is None else whole(entry.step)
            if step is not None:
                known.next_step = max(known.next_step, step + 1)
            sorted_out = values.sort_out(restore(entry.metrics), self._blobs, self._config.inline_bytes)
            others = dict(sorted_out.others)
            for name, problem in sorted_out.problems.items():
                others[f"{name} (not kept: {problem})"] = None
            shape = writer.shape(run_id, None, tuple(sorted_out.numbers))  # type: ignore[union-attr]
            packed = shape.pack(*sorted_out.numbers.values())
            moment = time_ns(entry.timestamp) or now_ns + index
            records.append(schema.Log(moment, step, shape.number, packed, others or None))
        return before, records

    def _system_records(self, entries: Iterable[SystemEntry]) -> _Records:
        writer = self._writer
        before: list[schema.Record] = []
        records: list[schema.Record] = []
        now_ns = time.time_ns()
        for index, entry in enumerate(entries):
            before += self._start(entry, None)
            run_id = run_id_of(entry)
            numbers = values.sort_out(restore(entry.metrics), self._blobs, self._config.inline_bytes).numbers
            shape = writer.shape(run_id, None, tuple(numbers))  # type: ignore[union-attr]
            moment = time_ns(entry.timestamp) or now_ns + index
            records.append(schema.System(moment, shape.number, shape.pack(*numbers.values())))
        return before, records

    def _alert_records(self, entries: Iterable[AlertEntry]) -> _Records:
        before: list[schema.Record] = []
        records: list[schema.Record] = []
        now_ns = time.time_ns()
        for index, entry in enumerate(entries):
            before += self._start(entry, None)
            moment = time_ns(entry.timestamp) or now_ns + index
            title, text = values.printable(entry.title), values.printable(entry.text or "")
            step, alert_id = whole(entry.step), values.printable(entry.alert_id or "")
            records.append(schema.Alert(moment, run_id_of(entry), title, text, entry.level, step, alert_id))
        return before, records

    def _plain(self, config: dict[str, Any]) -> dict[str, Any]:
        return values.plain_mapping(config, self._blobs)[0]

    def close(self) -> None:
        """Take nothing more, seal what was taken, and save the index; calling it again does nothing."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            if self._writer is not None and self._seen is not None:
                self._save(self._writer, self._seen)
                self._writer.close()
            if self._lock_fd >= 0:
                os.close(self._lock_fd)
                self._lock_fd = -1


def sync_inherited(root: str, project: str) -> None:
    """Make durable what a server that was killed had appended: a repeat of it will be answered as kept.

    Raises:
        OSError: as the file system raises it.
    """
    for writer_id in tail.writers(LOCAL, root, project):
        directory = names.writer_dir(root, project, writer_id)
        for name in LOCAL.names(directory):
            if name.endswith(".open"):
                with contextlib.suppress(FileNotFoundError), open(os.path.join(directory, name), "rb") as file:
                    LOCAL.sync(file.fileno())
        LOCAL.sync_dir(directory)


def run_id_of(entry: LogEntry | SystemEntry | AlertEntry) -> str:
    """Return the id of an entry's run; older clients know only its name.

    Raises:
        RequestError: the id is no valid name.
    """
    return checked_name(entry.run_id or entry.run, "a run's id")


def run_start(project: str, run_id: str, name: str, config: dict[str, Any]) -> schema.RunStart:
    """Return the start of a run that a client logs over HTTP."""
    group, user = config.get("_Group"), config.get("_Username")
    return schema.RunStart(
        time.time_ns(),
        run_id,
        project,
        name,
        group if isinstance(group, str) else None,
        [],
        config,
        user=user if isinstance(user, str) else "",
    )


def _fresh(keys: Sequence[bytes], seen: Seen) -> list[int]:
    """Return which entries of a batch were not received before, each id once; those without an id are all new."""
    fresh: list[int] = []
    now: set[bytes] = set()
    for index, (key, known) in enumerate(zip(keys, seen.contains(keys), strict=True)):
        if key == NO_ID or not (known or key in now):
            fresh.append(index)
            now.add(key)
    return fresh
