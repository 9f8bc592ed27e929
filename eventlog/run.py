"""The run: what a training script holds."""

from __future__ import annotations

import contextlib
import itertools
import os
import threading
import time
import warnings
import weakref
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Final, Literal, Self

import msgspec

from eventlog import arguments, schema, values
from eventlog.arguments import MAX_STEP, MIN_STEP
from eventlog.blobs import BlobStore
from eventlog.config import WriterConfig
from eventlog.errors import FOREIGN_ERRORS, DurabilityUnknownError, EventLogWarning, UsageError, shown
from eventlog.forks import after_fork_in_child, alive_page
from eventlog.fs import LOCAL, Fs
from eventlog.identity import RunInfo
from eventlog.mirror import Mirror
from eventlog.shapes import ShapeKey
from eventlog.shipper.job import follow
from eventlog.writer import Writer

Level = Literal["info", "warn", "error"]
_MAX_WARNED: Final = 10_000
_open_runs: weakref.WeakSet[Run] = weakref.WeakSet()
_kept: Final[set[Run]] = set()
_numbers: Final = itertools.count()


class Run:
    """A run: log numbers and other values to it. Thread-safe; after a fork the child logs to the same run.

    When a method that logs has returned, what it logged survives kill -9 of this process; after `flush()` or
    `finish()` it survives a power loss. Made by `eventlog.init`.

    Attributes:
        id: unique in the store.
        name: for people.
        project: the project's name.
        config: hyperparameters, a mapping; changes are logged.
        summary: results, a mapping; changes are logged.
        dir: the store's directory that this process writes to.
    """

    def __init__(
        self,
        root: str,
        info: RunInfo,
        *,
        config: WriterConfig | None = None,
        fs: Fs = LOCAL,
        time_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        """Open a writer and announce the run; `eventlog.init` is the way in for users.

        Raises:
            UsageError: the project's name cannot be a directory, or the config has more than 2**28 - 1 bytes.
            StorageError: nothing can be written and the config says `on_error="raise"`.
        """
        self._info = info
        self._writer = Writer(root, info.project, config=config, fs=fs, time_ns=time_ns)
        self._blobs = BlobStore(self._writer.root, fs)
        self._known: dict[tuple[Any, ...], ShapeKey] = {}
        self._last: ShapeKey | None = None
        self._system: dict[tuple[str, ...], ShapeKey] = {}
        self._step = info.first_step
        self._owner = os.getpid()
        self._warned_keys: set[str] = set()
        self._finished = False
        self._finish_lock = threading.RLock()
        self.id = info.run_id
        self.name = info.name
        self.project = info.project
        self.dir = self._writer.root
        self.config = Mirror(info.config, self._publish_config)
        self.summary = Mirror({}, self._publish_summary)
        self._started = info.start(self._writer.time_ns())
        self._writer.preamble = self._preamble
        try:
            self._writer.begin()
            self._shipping = follow(self._writer)
        except BaseException:
            with contextlib.suppress(DurabilityUnknownError):
                self._writer.close()  # nobody else can: no thread and no file of it stays open
            raise
        self._parent_writer_id = self._writer.writer_id
        self._number = next(_numbers)
        _open_runs.add(self)

    def _preamble(self) -> list[schema.Record]:
        if os.getpid() == self._owner:
            return [self._started]
        return [self._info.start(self._writer.time_ns(), parent=self._parent_writer_id)]

    def log(self, data: Mapping[str, Any], step: int | None = None) -> None:
        """Keep one record of named values; on return it survives kill -9.

        Numbers become metrics, everything else becomes events; nested dicts flatten with `/`. A value that
        cannot be kept is warned about by name, once a name, and the rest is kept.

        Args:
            data: values by name. Numbers (also of numpy, torch, jax), bools, strings, None, lists, dicts,
                bytes, and the types of `eventlog.media`.
            step: an integer from -2**63 to 2**63 - 1; default one more than in the call before. Steps may
                repeat, decrease or be missing.

        Raises:
            UsageError: the run has finished, `data` is no mapping or cannot be read, or the record has more
                than 2**28 - 1 bytes.
            StorageError: not kept, and the config says `on_error="raise"`.
        """
        if not alive_page[0]:
            after_fork_in_child()
        shape = None
        if type(data) is dict:
            try:
                shape = self._last
                if shape is None or [*data] != shape.listed:
                    shape = self._last = self._known.get((*data,))
                if shape is not None and [*map(type, data.values())] != shape.floats:
                    shape = None
            except FOREIGN_ERRORS:
                shape = None  # a name that cannot be compared or hashed; the careful way says so
        if shape is not None:
            if type(step) is int and MIN_STEP <= step <= MAX_STEP:
                self._step = step + 1
                self._writer.log(shape, step, shape.pack(*data.values()))
                return
            if step is None and self._step <= MAX_STEP:
                with self._writer.lock:
                    number = self._step
                    self._step = number + 1
                    self._writer.log(shape, number, shape.pack(*data.values()))
                return
        self._log_any(data, step)

    def _log_any(self, data: Mapping[str, Any], step: Any) -> None:
        taken = arguments.mapping(data, "log")
        result = values.sort_out(taken, self._blobs, self._writer.config.inline_bytes)
        metric_names = tuple(result.numbers)
        writer = self._writer
        with writer.lock:
            number, problem = arguments.step_of(self._step if step is None else step)
            if number is not None:
                self._step = number + 1
            shape = writer.shape(self.id, self._info.rank, metric_names)
            plain_names = {*map(type, taken)} == {str}  # others may compare as they like
            if plain_names and metric_names == tuple(taken) and len(self._known) < 100_000:
                self._known[metric_names] = shape
            writer.log(shape, number, shape.pack(*result.numbers.values()), result.others or None)
        # Last, for the user may have made errors of warnings.
        for name, reason in result.problems.items():
            self._warn(name, f"{shown(name)} was not kept: {reason}")
        if problem:
            self._warn("step", problem)

    def log_system(self, data: Mapping[str, Any]) -> None:
        """Keep one sample of system metrics; values that are no numbers are warned about.

        Raises:
            UsageError: the run has finished.
            StorageError: not kept, and the config says `on_error="raise"`.
        """
        result = values.sort_out(arguments.mapping(data, "log_system"), self._blobs, self._writer.config.inline_bytes)
        shape = self._writer.shape(self.id, self._info.rank, tuple(result.numbers))
        self._writer.system(shape, shape.pack(*result.numbers.values()))
        for name in (*result.problems, *result.others):
            self._warn(name, f"{shown(name)} was not kept: system metrics are numbers")

    def _publish_config(self, changes: dict[Any, Any]) -> dict[str, Any]:
        plain = values.plain_mapping(changes, self._blobs)
        self._writer.append(schema.ConfigPatch(self._writer.time_ns(), self.id, plain.kept))
        return self._given(plain)

    def _publish_summary(self, changes: dict[Any, Any]) -> dict[str, Any]:
        plain = values.plain_mapping(changes, self._blobs)
        self._writer.append(schema.SummarySet(self._writer.time_ns(), self.id, plain.kept))
        return self._given(plain)

    def _given(self, plain: values.PlainMapping) -> dict[str, Any]:
        for name, problem in plain.problems.items():
            self._warn(name, f"{shown(name)} was not kept: {problem}")
        return plain.given

    def define_metric(
        self, name: str, *, step_metric: str | None = None, goal: str | None = None, summary: str | None = None
    ) -> None:
        """Say how a metric wants to be shown.

        Args:
            name: the metric; a trailing `*` matches any rest.
            step_metric: the metric that is its x axis.
            goal: "minimize" or "maximize".
            summary: "min", "max", "mean", "last" or "none".

        Raises:
            UsageError: an argument is none of these, or the run has finished.
        """
        goal, summary = arguments.word(goal, "goal"), arguments.word(summary, "summary")
        if goal not in (None, "minimize", "maximize"):
            raise UsageError('goal must be "minimize" or "maximize"')
        if summary not in (None, "min", "max", "mean", "last", "none"):
            raise UsageError('summary must be "min", "max", "mean", "last" or "none"')
        name, axis = arguments.text(name, "name"), arguments.optional_text(step_metric, "step_metric")
        self._writer.append(schema.MetricDef(self._writer.time_ns(), self.id, name, axis, goal, summary))

    def alert(self, title: str, text: str = "", level: Level | str = "warn", step: int | None = None) -> None:
        """Keep a message for people.

        Args:
            title: one line.
            text: the rest.
            level: "info", "warn" or "error".
            step: where in the run; default the step of the last `log()`.

        Raises:
            UsageError: the level is none of these, a text cannot be read, or the run has finished.
        """
        title, text = arguments.text(title, "title"), arguments.text(text, "text")
        level = (arguments.word(level, "level") or "").lower().replace("warning", "warn")
        if level not in ("info", "warn", "error"):
            raise UsageError('level must be "info", "warn" or "error"')
        if step is None:
            step = self._step - 1 if self._step else None
        number, problem = (None, "") if step is None else arguments.step_of(step)
        moment, alert_id = self._writer.time_ns(), os.urandom(16).hex()
        self._writer.append(schema.Alert(moment, self.id, title, text, level, number, alert_id))
        if problem:
            self._warn("step", problem)

    def flush(self) -> None:
        """Make everything logged so far durable: it survives a power loss.

        Raises:
            DurabilityUnknownError: the disk refused to sync.
        """
        self._writer.sync()

    def on_sealed(self, callback: Callable[[str], None]) -> None:
        """Have `callback` called with the path of each segment after it was sealed, in the thread that sealed it.

        What it raises is warned about.

        Raises:
            UsageError: it cannot be called.
        """
        if not callable(callback):
            raise UsageError(f"on_sealed() takes a function of a path, not {shown(callback)}")
        self._writer.on_sealed = callback if self._shipping is None else self._shipping.after(callback)

    @property
    def writer_id(self) -> str:
        """The id of this process's writer."""
        return self._writer.writer_id

    @property
    def lost(self) -> int:
        """How many records this process could not keep."""
        return self._writer.lost

    def finish(self, status: str = "finished", exit_code: int = 0) -> None:
        """End the run in this process: durable when this returns. Calling it again does nothing.

        With a bucket it also waits until all is there, at most `ship_flush_s`, unless a younger run goes on here.
        In a forked child it only closes the child's writer: the run goes on in the parent.

        Args:
            status: "finished", "failed" or "killed".
            exit_code: of the process.

        Raises:
            UsageError: an argument is none of these; the run goes on.
            DurabilityUnknownError: the last records could not be synced.
        """
        status = arguments.word(status, "status") or ""
        if status not in ("finished", "failed", "killed"):
            raise UsageError('status must be "finished", "failed" or "killed"')
        code, _ = arguments.step_of(exit_code)
        if code is None:
            raise UsageError(f"exit_code must be a 64-bit integer, not {shown(exit_code)}")
        with self._finish_lock:
            if self._finished:
                return
            self._finished = True
        _open_runs.discard(self)
        _kept.discard(self)
        is_owner = os.getpid() == self._owner
        try:
            if is_owner:
                self._writer.append(schema.RunEnd(self._writer.time_ns(), self.id, status, code))
            self._writer.close()
        finally:
            if self._shipping is not None:
                self._shipping.end(wait=is_owner)

    def _warn(self, key: str, message: str) -> None:
        if key not in self._warned_keys and len(self._warned_keys) < _MAX_WARNED:
            self._warned_keys.add(key)
            warnings.warn(f"eventlog run {self.name!r}: {message}", EventLogWarning, stacklevel=4)

    def __enter__(self) -> Self:
        """Return the run."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Finish: as failed when the body raised."""
        if kind is None or (isinstance(error, SystemExit) and error.code in (None, 0)):
            self.finish()
        else:
            self.finish("failed", 1)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle as the run's identity: the other process attaches to it with a writer of its own."""
        info = msgspec.structs.replace(self._info, mode="attach", config={}, first_step=self._step)
        return (attach, (self.dir, info, self._writer.config))

    def __repr__(self) -> str:
        """Name project, run and id."""
        return f"Run(project={self.project!r}, name={self.name!r}, id={self.id!r})"


def attach(root: str, info: RunInfo, config: WriterConfig | None = None) -> Run:
    """Return a run object in another process of the same run, such as a spawned DataLoader worker."""
    return Run(root, info, config=config)


def keep(run: Run) -> Run:
    """Keep a run among the unfinished ones until it has finished, also when nobody else has it any more."""
    _kept.add(run)
    return run


def unfinished() -> list[Run]:
    """Return the runs of this process that have not finished, in the order in which they began."""
    return sorted(_open_runs, key=lambda run: run._number)  # noqa: SLF001 - our own
