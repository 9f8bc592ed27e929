"""The run: what a training script holds."""

from __future__ import annotations

import os
import sys
import threading
import time
import warnings
import weakref
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Final, Literal, Self

import msgspec

from eventlog import schema, values
from eventlog.blobs import BlobStore
from eventlog.config import WriterConfig
from eventlog.errors import DurabilityUnknownError, EventLogWarning, UsageError
from eventlog.forks import after_fork_in_child, alive_page
from eventlog.fs import LOCAL, Fs
from eventlog.identity import RunInfo
from eventlog.mirror import Mirror
from eventlog.shapes import ShapeKey
from eventlog.writer import Writer

Level = Literal["info", "warn", "error"]
_MAX_STEP: Final = (1 << 63) - 1
_MIN_STEP: Final = -(1 << 63)
_open_runs: weakref.WeakSet[Run] = weakref.WeakSet()


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
            UsageError: the project's name cannot be a directory.
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
        self._writer.begin()
        self._parent_writer_id = self._writer.writer_id
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
            UsageError: the run has finished, or `data` is no mapping.
            StorageError: not kept, and the config says `on_error="raise"`.
        """
        if not alive_page[0]:
            after_fork_in_child()
        try:
            shape = self._last
            if shape is None or [*data] != shape.listed:
                shape = self._last = self._known.get((*data,))
        except TypeError:
            raise UsageError(f"log() takes a dict of names and values, not {type(data).__name__}") from None
        if shape is not None and type(data) is dict and [*map(type, data.values())] == shape.floats:
            if type(step) is int and _MIN_STEP <= step <= _MAX_STEP:
                self._step = step + 1
                self._writer.log(shape, step, shape.pack(*data.values()))
                return
            if step is None and self._step <= _MAX_STEP:
                with self._writer.lock:
                    number = self._step
                    self._step = number + 1
                    self._writer.log(shape, number, shape.pack(*data.values()))
                return
        self._log_any(data, step)

    def _log_any(self, data: Mapping[str, Any], step: Any) -> None:
        if not isinstance(data, Mapping):
            raise UsageError(f"log() takes a dict of names and values, not {type(data).__name__}")
        data = dict(data)
        result = values.sort_out(data, self._blobs, self._writer.config.inline_bytes)
        for name, problem in result.problems.items():
            self._warn(name, f"{name!r} was not kept: {problem}")
        metric_names = tuple(result.numbers)
        writer = self._writer
        with writer.lock:
            number = self._checked_step(self._step if step is None else step)
            if number is not None:
                self._step = number + 1
            shape = writer.shape(self.id, self._info.rank, metric_names)
            if metric_names == tuple(data) and len(self._known) < 100_000:
                self._known[metric_names] = shape
            writer.log(shape, number, shape.pack(*result.numbers.values()), result.others or None)

    def _checked_step(self, step: Any) -> int | None:
        step = values.unwrap_scalar(step)
        if isinstance(step, float) and step.is_integer():
            step = int(step)
        if isinstance(step, int) and not isinstance(step, bool) and _MIN_STEP <= step <= _MAX_STEP:
            return int(step)
        shown = "an integer" if isinstance(step, int) and not isinstance(step, bool) else repr(step)
        self._warn("step", f"step={shown} is not a 64-bit integer; the record is kept without a step")
        return None

    def log_system(self, data: Mapping[str, Any]) -> None:
        """Keep one sample of system metrics; values that are no numbers are warned about.

        Raises:
            UsageError: the run has finished.
            StorageError: not kept, and the config says `on_error="raise"`.
        """
        if not isinstance(data, Mapping):
            raise UsageError(f"log_system() takes a dict of names and values, not {type(data).__name__}")
        result = values.sort_out(data, self._blobs, self._writer.config.inline_bytes)
        for name in (*result.problems, *result.others):
            self._warn(name, f"{name!r} was not kept: system metrics are numbers")
        shape = self._writer.shape(self.id, self._info.rank, tuple(result.numbers))
        self._writer.system(shape, shape.pack(*result.numbers.values()))

    def _publish_config(self, changes: dict[str, Any]) -> dict[str, Any]:
        plain = self._plain(changes)
        self._writer.append(schema.ConfigPatch(self._writer.time_ns(), self.id, plain))
        return {str(key): value for key, value in changes.items() if str(key) in plain}

    def _publish_summary(self, changes: dict[str, Any]) -> dict[str, Any]:
        plain = self._plain(changes)
        self._writer.append(schema.SummarySet(self._writer.time_ns(), self.id, plain))
        return {str(key): value for key, value in changes.items() if str(key) in plain}

    def _plain(self, changes: Mapping[str, Any]) -> dict[str, Any]:
        kept, problems = values.plain_mapping(changes, self._blobs)
        for name, problem in problems.items():
            self._warn(name, f"{name!r} was not kept: {problem}")
        return kept

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
        if goal not in (None, "minimize", "maximize"):
            raise UsageError('goal must be "minimize" or "maximize"')
        if summary not in (None, "min", "max", "mean", "last", "none"):
            raise UsageError('summary must be "min", "max", "mean", "last" or "none"')
        step_metric = None if step_metric is None else values.printable(str(step_metric))
        record = schema.MetricDef(
            self._writer.time_ns(), self.id, values.printable(str(name)), step_metric, goal, summary
        )
        self._writer.append(record)

    def alert(self, title: str, text: str = "", level: Level | str = "warn", step: int | None = None) -> None:
        """Keep a message for people.

        Args:
            title: one line.
            text: the rest.
            level: "info", "warn" or "error".
            step: where in the run; default the step of the last `log()`.

        Raises:
            UsageError: the level is none of these, or the run has finished.
        """
        level = str(getattr(level, "value", level)).lower().replace("warning", "warn")
        if level not in ("info", "warn", "error"):
            raise UsageError('level must be "info", "warn" or "error"')
        if step is None:
            step = self._step - 1 if self._step else None
        record = schema.Alert(
            self._writer.time_ns(),
            self.id,
            values.printable(str(title)),
            values.printable(str(text)),
            level,
            self._checked_step(step) if step is not None else None,
            os.urandom(16).hex(),
        )
        self._writer.append(record)

    def flush(self) -> None:
        """Make everything logged so far durable: it survives a power loss.

        Raises:
            DurabilityUnknownError: the disk refused to sync.
        """
        self._writer.sync()

    def on_sealed(self, callback: Callable[[str], None]) -> None:
        """Have `callback` called with the path of each segment after it was sealed, in the thread that sealed it."""
        self._writer.on_sealed = callback

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

        In a forked child it only closes the child's writer: the run goes on in the parent.

        Args:
            status: "finished", "failed" or "killed".
            exit_code: of the process.

        Raises:
            DurabilityUnknownError: the last records could not be synced.
        """
        with self._finish_lock:
            if self._finished:
                return
            self._finished = True
        _open_runs.discard(self)
        if os.getpid() == self._owner:
            self._writer.append(schema.RunEnd(self._writer.time_ns(), self.id, status, exit_code))
        self._writer.close()

    def _warn(self, key: str, message: str) -> None:
        if key not in self._warned_keys:
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


def finish_open_runs() -> None:
    """Finish what the process left open; runs at interpreter exit."""
    failed = getattr(sys, "last_value", None) is not None
    for run in list(_open_runs):
        try:
            run.finish("failed", 1) if failed else run.finish()
        except (DurabilityUnknownError, OSError) as error:
            warnings.warn(f"eventlog could not finish {run!r}: {error}", EventLogWarning, stacklevel=1)
