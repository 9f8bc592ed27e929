"""A tracker for accelerate, which logs from inside the training process: `Accelerator(log_with="eventlog")`."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Final

from eventlog import session
from eventlog.errors import DurabilityUnknownError, EventLogWarning, UsageError
from eventlog.media import Image, Table
from eventlog.run import Run

try:
    from accelerate import tracking
    from accelerate.state import PartialState
except ImportError as error:
    raise ImportError("EventLogTracker needs accelerate: pip install 'eventlog[accelerate]'") from error


class EventLogTracker(tracking.GeneralTracker):  # type: ignore[misc]
    """What an Accelerator logs is in the store when its `log()` has returned. Thread-safe once it was started.

    Only the main process logs. After this module was imported, `Accelerator(log_with="eventlog")` works from accelerate
    1.15 on, the first that lets trackers be registered; `Accelerator(log_with=EventLogTracker("project"))` works before
    that, too.

    Attributes:
        name: "eventlog": the key of `init_kwargs` and `log_kwargs`.
        requires_logging_directory: False; the store is `dir=`, else as in `eventlog.init`.
        main_process_only: True.
    """

    name: str = "eventlog"
    requires_logging_directory: bool = False
    main_process_only: bool = True

    def __init__(self, project: str | None = None, **options: Any) -> None:
        """Keep the options; nothing is written before `start`.

        Args:
            project: where the run belongs; an Accelerator passes the `project_name` of `init_trackers`.
            options: of `eventlog.init`: name, dir, config, group, tags, resume, id, settings.
        """
        super().__init__()
        self._project, self._options = project, options
        self._run: Run | None = None
        if not hasattr(tracking.GeneralTracker, "start"):  # an accelerate that expects trackers to start when made
            self.start()

    def start(self) -> None:
        """Start the run, on the main process; an Accelerator calls it.

        Raises:
            UsageError: as `eventlog.init`.
            StorageError: as `eventlog.init`.
            TypeError: an option that `eventlog.init` does not have.
        """
        if self._run is None and self._logs_here():
            self._run = session.init(self._project, **self._options)

    def _logs_here(self) -> bool:
        return not self.main_process_only or bool(PartialState().is_main_process)

    @property
    def tracker(self) -> Run:
        """The run.

        Raises:
            UsageError: it was not started, or this is not the main process.
        """
        if self._run is None:
            raise UsageError("this EventLogTracker has no run: it starts in init_trackers(), on the main process")
        return self._run

    def store_init_configuration(self, values: Mapping[str, Any]) -> None:
        """Add to the run's config.

        Raises:
            UsageError: the run has not started, or has finished.
        """
        if self._logs_here():
            self.tracker.config.update(values)

    def log(self, values: Mapping[str, Any], step: int | None = None, **kwargs: Any) -> None:
        """Log, as `Run.log`.

        Args:
            values: by name.
            step: default one more than in the call before.
            kwargs: of `Run.log`, which has no others today.

        Raises:
            UsageError: the run has not started, or has finished.
            StorageError: as `Run.log`.
            TypeError: an argument that `Run.log` does not have.
        """
        if self._logs_here():
            self.tracker.log(values, step=step, **kwargs)

    def log_images(self, values: Mapping[str, Sequence[Any]], step: int | None = None, **kwargs: Any) -> None:
        """Log lists of images by name.

        Args:
            values: by name, a list or batch of what `eventlog.Image` takes: PIL images, arrays, paths or bytes.
            step: as in `log`.
            kwargs: of `eventlog.Image`, for all of them: name, caption.

        Raises:
            UsageError: a value is no image, or as `log`.
            StorageError: as `log`.
        """
        if self._logs_here():
            found = {name: [Image(image, **kwargs) for image in images] for name, images in values.items()}
            self.tracker.log(found, step=step)

    def log_table(
        self,
        table_name: str,
        columns: Sequence[str] | None = None,
        data: Sequence[Sequence[Any]] | None = None,
        dataframe: Any = None,
        step: int | None = None,
        **kwargs: Any,
    ) -> None:
        """Log a table.

        Args:
            table_name: its name.
            columns: names of the columns.
            data: the rows.
            dataframe: of pandas or polars, instead of columns and rows.
            step: as in `log`.
            kwargs: as in `log`.

        Raises:
            UsageError: a row has another length than the columns, or as `log`.
            StorageError: as `log`.
        """
        self.log({table_name: Table(columns, data, dataframe)}, step=step, **kwargs)

    def finish(self) -> None:
        """Finish the run, durable. A disk that refuses to sync is a warning: other trackers are still to be finished.

        Calling it again, or without a run, does nothing.
        """
        if self._run is None:
            return
        try:
            self._run.finish()
        except DurabilityUnknownError as error:
            warnings.warn(f"eventlog could not finish {self._run!r}: {error}", EventLogWarning, stacklevel=2)


# Public since accelerate 1.15; before that names were a closed enum, and only instances can be passed.
_register: Final = getattr(tracking, "register_tracker_class", None)
if _register is not None:
    _register(EventLogTracker)
