"""Make records of the entries that clients send: pure but for blobs, and for what is known of runs."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any, Protocol

import msgspec

from compactor.serve.errors import RequestError
from compactor.serve.wire import (
    AlertEntry,
    LogEntry,
    SystemEntry,
    checked_name,
    restore,
    restore_config,
    time_ns,
    whole,
)
from eventlog import schema, values
from eventlog.blobs import BlobRef, BlobStore
from eventlog.feed import Feed
from eventlog.fs import Fs
from eventlog.runs import RunPart
from eventlog.writer import Writer


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


Records = tuple[list[schema.Record], list[schema.Record]]
"""What goes before the receipt, and what it is for."""


class _Blobs(BlobStore):
    """Blobs that remember what went wrong: a value must not be left out of a batch because the disk is full."""

    failed: OSError | None = None

    def put(self, data: bytes) -> BlobRef:
        """Keep bytes, as `BlobStore.put`."""
        try:
            return super().put(data)
        except OSError as error:
            self.failed = error
            raise

    def check(self) -> None:
        """Raise what went wrong since the last check.

        Raises:
            OSError: a blob could not be written.
        """
        failed, self.failed = self.failed, None
        if failed is not None:
            raise failed


class Maker:
    """Makes the records of one project. Not thread-safe: its intake holds a lock."""

    def __init__(self, project: str, runs: Runs, root: str, inline_bytes: int, fs: Fs) -> None:
        """Take the project and its store; a value that is larger than `inline_bytes` becomes a blob."""
        self._project = project
        self._runs = runs
        self._blobs = _Blobs(root, fs)
        self._inline_bytes = inline_bytes
        self._known: dict[str, Known] = {}

    def forget(self) -> None:
        """Ask the store again about every run: what was made last may not have been kept."""
        self._known.clear()

    def start(self, run_id: str, name: str, config: dict[str, Any] | None) -> list[schema.Record]:
        """Return the records that a run needs before an entry: its start, or what is new in its config."""
        known = self._known.get(run_id)
        if known is None:
            part = self._runs.find(run_id)
            if part is not None and part.start is not None:
                settings = {key: value for key, (_, value) in part.config.items()}
                known = Known(settings, 0 if part.last_step is None else part.last_step + 1)
                self._known[run_id] = known
        if known is None:
            self._known[run_id] = Known(dict(config or {}), 0)
            return [run_start(self._project, run_id, name, config or {})]
        changed = {k: v for k, v in (config or {}).items() if k not in known.config or known.config[k] != v}
        known.config.update(changed)
        if isinstance(changed.get("_Group"), str):
            # The run began with something that does not tell its group: system metrics, an alert, a picture.
            return [run_start(self._project, run_id, name, changed, mode="attach")]
        return [schema.ConfigPatch(time.time_ns(), run_id, changed)] if changed else []

    def logs(self, writer: Writer, entries: Iterable[LogEntry]) -> Records:
        """Return the records of logs, and what their runs need before them."""
        before: list[schema.Record] = []
        records: list[schema.Record] = []
        now_ns = time.time_ns()
        for index, entry in enumerate(entries):
            config = self._plain(restore_config(entry.config)) if entry.config else None
            run_id = run_id_of(entry)
            before += self.start(run_id, entry.run, config)
            known = self._known[run_id]
            step = whole(known.next_step if entry.step is None else entry.step)
            if step is not None:
                known.next_step = max(known.next_step, step + 1)
            sorted_out = self._sort_out(entry.metrics)
            others = dict(sorted_out.others)
            for name, problem in sorted_out.problems.items():
                others[f"{name} (not kept: {problem})"] = None
            shape = writer.shape(run_id, None, tuple(sorted_out.numbers))
            packed = shape.pack(*sorted_out.numbers.values())
            moment = time_ns(entry.timestamp) or now_ns + index
            records.append(schema.Log(moment, step, shape.number, packed, others or None))
        return before, records

    def system(self, writer: Writer, entries: Iterable[SystemEntry]) -> Records:
        """Return the records of system metrics, likewise; what is no number is left out."""
        before: list[schema.Record] = []
        records: list[schema.Record] = []
        now_ns = time.time_ns()
        for index, entry in enumerate(entries):
            run_id = run_id_of(entry)
            before += self.start(run_id, entry.run, None)
            numbers = self._sort_out(entry.metrics).numbers
            shape = writer.shape(run_id, None, tuple(numbers))
            moment = time_ns(entry.timestamp) or now_ns + index
            records.append(schema.System(moment, shape.number, shape.pack(*numbers.values())))
        return before, records

    def alerts(self, entries: Iterable[AlertEntry]) -> Records:
        """Return the records of alerts, likewise."""
        before: list[schema.Record] = []
        records: list[schema.Record] = []
        now_ns = time.time_ns()
        for index, entry in enumerate(entries):
            run_id = run_id_of(entry)
            before += self.start(run_id, entry.run, None)
            moment = time_ns(entry.timestamp) or now_ns + index
            title, text = values.printable(entry.title), values.printable(entry.text or "")
            step, alert_id = whole(entry.step), values.printable(entry.alert_id or "")
            records.append(schema.Alert(moment, run_id, title, text, entry.level, step, alert_id))
        return before, records

    def _plain(self, config: dict[str, Any]) -> dict[str, Any]:
        kept, _, problems = values.plain_mapping(config, self._blobs)
        self._blobs.check()
        return {**kept, **{f"{key} (not kept: {problem})": None for key, problem in problems.items()}}

    def _sort_out(self, metrics: dict[str, Any]) -> values.Sorted:
        sorted_out = values.sort_out(restore(metrics), self._blobs, self._inline_bytes)
        self._blobs.check()
        return sorted_out


def check_entry(entry: LogEntry | SystemEntry | AlertEntry) -> None:
    """Let an entry pass whose run has a name and an id, and whose level there is.

    Raises:
        RequestError: it has not.
    """
    checked_name(entry.run, "a run's name")
    run_id_of(entry)
    if isinstance(entry, AlertEntry) and entry.level not in ("info", "warn", "error"):
        raise RequestError(f'an alert\'s level is "info", "warn" or "error", not {values.printable(entry.level)!r}')


def run_id_of(entry: LogEntry | SystemEntry | AlertEntry) -> str:
    """Return the id of an entry's run; older clients know only its name.

    Raises:
        RequestError: the id is no valid name.
    """
    return checked_name(entry.run_id or entry.run, "a run's id")


def run_start(project: str, run_id: str, name: str, config: dict[str, Any], *, mode: str = "new") -> schema.RunStart:
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
        mode=mode,
    )
