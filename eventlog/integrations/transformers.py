"""A callback for the transformers Trainer, which logs from inside the training process."""

from __future__ import annotations

import os
import warnings
import weakref
from collections.abc import Mapping, Sequence
from typing import Any, Final

from eventlog import session
from eventlog.config import read_environment
from eventlog.errors import DurabilityUnknownError, EventLogWarning, UsageError
from eventlog.run import Run

try:
    from transformers import TrainerCallback
    from transformers.integrations import rewrite_logs
except ImportError as error:
    raise ImportError("EventLogCallback needs transformers: pip install 'eventlog[transformers]'") from error

_FINAL: Final = ("train_runtime", "train_samples_per_second", "train_steps_per_second", "train_loss", "total_flos")
_started: Final[weakref.WeakSet[Run]] = weakref.WeakSet()


class EventLogCallback(TrainerCallback):  # type: ignore[misc]
    """Everything a Trainer logs is in the store when its `log()` has returned: pass it in `callbacks=[...]`.

    Names are those of the other trackers: `train/loss`, `eval/loss`, and `train/global_step`, which is also the step.
    The config is the model's and the arguments'; what is logged once at the end is also in the summary.

    Only world process zero logs. The run starts when training starts and is finished when training ends; what the
    same Trainer logs after that, as an evaluation does, goes on in the same run, which then ends with the process.
    A callback made without options uses the run that the script has open, if any, and leaves it open.

    Not thread-safe; a Trainer calls it from one thread.
    """

    def __init__(
        self,
        project: str | None = None,
        name: str | None = None,
        *,
        dir: str | os.PathLike[str] | None = None,  # noqa: A002 - as in init
        group: str | None = None,
        tags: Sequence[str] = (),
        resume: session.Resume | bool = "never",
    ) -> None:
        """Keep the options; nothing is written before training starts.

        Args:
            project: default `$EVENTLOG_PROJECT`, else `TrainingArguments.project`, else "default".
            name: the run's; default the trial's in a hyperparameter search, else `TrainingArguments.run_name`, else
                as in `eventlog.init`.
            dir: the store's directory, as in `eventlog.init`.
            group: runs that belong together; in a hyperparameter search the default is the name of the search.
            tags: labels.
            resume: as in `eventlog.init`. "allow" goes on in the latest run of that name, as is wanted when training
                goes on from a checkpoint.
        """
        super().__init__()
        self._project, self._name = project, name
        self._more: dict[str, Any] = {"dir": dir, "group": group, "tags": tuple(tags), "resume": resume}
        self._borrows = (project, name, dir, group, tuple(tags), resume) == (None, None, None, None, (), "never")
        self._run: Run | None = None
        self._run_id: str | None = None

    def setup(self, args: Any, state: Any, model: Any = None) -> Run | None:
        """Return the run, started or continued first where that is needed; None on all processes but the first.

        Args:
            args: the TrainingArguments.
            state: the TrainerState.
            model: what is trained, if known.

        Raises:
            UsageError: as `eventlog.init`.
            StorageError: as `eventlog.init`.
        """
        if self._run is None and state.is_world_process_zero:
            config = _config(args, model)
            self._run = _open_run(config) if self._borrows and self._run_id is None else None
            if self._run is None:
                self._run = self._start(args, state, config)
        return self._run

    def _start(self, args: Any, state: Any, config: dict[str, Any]) -> Run:
        name, options = self._name or getattr(args, "run_name", None), dict(self._more)
        if getattr(state, "trial_name", None) is not None:
            options["group"] = options["group"] or name or args.output_dir
            name = state.trial_name
        if self._run_id is not None:
            options["resume"] = "allow"
        project = self._project or read_environment().project or getattr(args, "project", None)
        run = session.init(project, name, config=config, id=self._run_id, **options)
        _started.add(run)
        self._run_id = run.id
        return run

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Start the run: a new one for each trial of a hyperparameter search.

        Raises:
            UsageError: as `eventlog.init`.
            StorageError: as `eventlog.init`.
        """
        del control
        if getattr(state, "is_hyper_param_search", False):
            self._end()
            self._run_id = None
        self.setup(args, state, kwargs.get("model"))

    def on_log(self, args: Any, state: Any, control: Any, logs: Mapping[str, Any] | None = None, **kwargs: Any) -> None:
        """Log everything at the trainer's step.

        Raises:
            UsageError: as `eventlog.init` and `Run.log`.
            StorageError: as `eventlog.init` and `Run.log`.
        """
        del control
        run = self.setup(args, state, kwargs.get("model"))
        if run is None or not logs:
            return
        run.log({**rewrite_logs(logs), "train/global_step": state.global_step}, step=state.global_step)
        final = {name: logs[name] for name in _FINAL if name in logs}
        if final:
            run.summary.update(final)

    def on_predict(self, args: Any, state: Any, control: Any, metrics: Mapping[str, Any], **kwargs: Any) -> None:
        """Log the metrics of a prediction at the trainer's step.

        Raises:
            UsageError: as `eventlog.init` and `Run.log`.
            StorageError: as `eventlog.init` and `Run.log`.
        """
        self.on_log(args, state, control, metrics, **kwargs)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Finish the run, durable; one that the script had open is made durable and left open.

        A disk that refuses to sync is a warning: the model is still to be saved.
        """
        del args, control, kwargs
        if self._run is not None and state.best_metric is not None:
            self._run.summary["best_metric"] = state.best_metric
        self._end()

    def _end(self) -> None:
        run, self._run = self._run, None
        if run is None:
            return
        try:
            if run in _started:
                run.finish()
            else:
                run.flush()
        except DurabilityUnknownError as error:
            warnings.warn(f"eventlog could not make {run!r} durable: {error}", EventLogWarning, stacklevel=3)


def _open_run(config: dict[str, Any]) -> Run | None:
    """Return the run that the script has open, after adding to its config; None when there is none.

    A run that another callback started is not the script's: its training may have been interrupted.
    """
    try:
        run = session.current_run()
        if run in _started:
            return None
        run.config.update(config)
    except UsageError:  # there is none, or it was finished
        return None
    return run


def _config(args: Any, model: Any) -> dict[str, Any]:
    """Return what the model and the arguments say; the arguments win."""
    config = _as_dict(getattr(model, "config", None))
    adapters = getattr(model, "peft_config", None)
    if isinstance(adapters, Mapping):
        config["peft_config"] = {str(name): _as_dict(adapter) for name, adapter in adapters.items()}
    config.update(args.to_sanitized_dict())
    count = getattr(model, "num_parameters", None)
    if callable(count):
        config["model/num_parameters"] = count()
    return config


def _as_dict(config: Any) -> dict[str, Any]:
    if isinstance(config, Mapping):
        return dict(config)
    return dict(config.to_dict()) if hasattr(config, "to_dict") else {}
