"""`init` and the module-level functions: the current run of this process."""

from __future__ import annotations

import atexit
import functools
import os
import sys
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import msgspec

from eventlog import arguments, mounts, names, nicknames, values
from eventlog.aside import warn_aside
from eventlog.blobs import BlobStore
from eventlog.config import Environment, WriterConfig, read_environment
from eventlog.errors import (
    FOREIGN_ERRORS,
    DurabilityUnknownError,
    EventLogWarning,
    StorageError,
    UsageError,
    describe,
    shown,
)
from eventlog.hub.address import is_remote
from eventlog.identity import RunInfo
from eventlog.run import Level, Run, keep, unfinished

if TYPE_CHECKING:
    from eventlog import resume as resuming
    from eventlog.spool import Spool

Resume = Literal["never", "allow", "must"]
_current: list[Run] = []
_registered: list[int] = []


def init(
    project: str | None = None,
    name: str | None = None,
    *,
    config: Mapping[str, Any] | None = None,
    group: str | None = None,
    tags: Sequence[str] = (),
    dir: str | os.PathLike[str] | None = None,  # noqa: A002 - the name that wandb users know
    resume: Resume | bool = "never",
    id: str | None = None,  # noqa: A002 - the name that wandb users know
    settings: WriterConfig | None = None,
) -> Run:
    """Start a run, or continue one, and make it the current run of this process.

    When it returns, the run is on disk and visible to readers.

    Args:
        project: where the run belongs; default `$EVENTLOG_PROJECT`, else "default".
        name: for people; default `$EVENTLOG_RUN_NAME`, else two words and a number.
        config: hyperparameters.
        group: runs that belong together.
        tags: labels.
        dir: the store's directory; default `$EVENTLOG_DIR`, else `./eventlog-store`.
        resume: "never" starts a new run; "allow" continues the latest run of that name, if any; "must"
            raises when there is none. True means "allow", False "never".
        id: the run's id, for several processes that log to one run; default `$EVENTLOG_RUN_ID`, else new.
        settings: of the writer; default what the environment says. Where they name no bucket, that of the
            environment counts, with what it says of shipping.

    Returns:
        The run; use it as a context manager, or call `finish()`.

    Raises:
        UsageError: a bad name or option, a config of more than 2**28 - 1 bytes, or `resume="must"` without such a
            run.
        DataError: as `eventlog.store.Store.find_run`, with `resume` only.
        StorageError: the store cannot be read to find the run that is to be resumed, is on a network mount and the
            settings say "refuse", or cannot be written and they say `on_error="raise"`.
    """
    environment = read_environment()
    wanted_root = _directory(dir, environment.store_dir)
    given = _given(project, name, id, environment)
    labels = _Labels(arguments.optional_text(group, "group"), _tags(tags))
    info = _identify(wanted_root, given, _mode(resume), environment)
    run = keep(_start(wanted_root, info, _config(config), labels, _settings(settings, environment)))
    if not _registered:
        _registered.append(1)
        atexit.register(finish_open_runs)
    _current[:] = [run]
    return run


class _Given(NamedTuple):
    """What the caller or the environment calls the run."""

    project: str | None
    name: str | None
    run_id: str | None


def _given(project: Any, name: Any, run_id: Any, environment: Environment) -> _Given:
    return _Given(
        (None if project is None else arguments.exact_text(project, "project")) or environment.project,
        arguments.optional_text(name, "name") or environment.name,
        arguments.optional_text(run_id, "id") or environment.run_id,
    )


class _Labels(NamedTuple):
    """What a run can be found by, beside its name."""

    group: str | None
    tags: list[str]


def _directory(given: Any, default: str) -> str:
    """Return the absolute path of the store.

    Raises:
        UsageError: no file system can have it, or it is an address on the Hub.
        StorageError: it is relative, and the current directory is gone.
    """
    try:
        raw = b"" if given is None else os.fsencode(given)
    except FOREIGN_ERRORS as error:
        raise UsageError(f"dir must be a path: {describe(error)}") from error
    if b"\0" in raw:
        raise UsageError("dir must be a path: it holds a NUL")
    place = os.fsdecode(raw) or default
    if is_remote(place):
        raise UsageError(
            f"records go to a directory of this machine first, and not to {place}: "
            f"set EVENTLOG_BUCKET to it to have them shipped there, and let dir or EVENTLOG_DIR name a directory"
        )
    try:
        return os.path.abspath(place)
    except OSError as error:
        raise StorageError(error.errno or 0, f"the current directory cannot be found: {error.strerror}") from error


def _tags(tags: Any) -> list[str]:
    try:
        listed = [tags] if isinstance(tags, str) else list(tags or ())
    except FOREIGN_ERRORS as error:
        raise UsageError(f"tags must be texts: {describe(error)}") from error
    return [arguments.text(tag, "tags") for tag in listed]


def _config(config: Any) -> dict[Any, Any]:
    try:
        return {} if config is None else dict(config)
    except FOREIGN_ERRORS as error:
        raise UsageError(f"config must be a mapping, as vars(args) is: {describe(error)}") from error


def _settings(settings: Any, environment: Environment) -> WriterConfig:
    if settings is None:
        return environment.writer
    if type(settings) is not WriterConfig:
        raise UsageError(f"settings must be a WriterConfig, not {shown(settings)}")
    writer = environment.writer
    if settings.bucket is None and writer.bucket is not None:
        # Like the store itself, where it goes is not for the script alone to say.
        return msgspec.structs.replace(
            settings,
            bucket=writer.bucket,
            ship_interval_s=writer.ship_interval_s,
            ship_flush_s=writer.ship_flush_s,
        )
    return settings


def _mode(resume: Any) -> str:
    if resume is None or resume is True or resume is False:
        return "allow" if resume else "never"
    mode = arguments.text(resume, "resume")
    if mode not in ("never", "allow", "must"):
        raise UsageError(f'resume must be "never", "allow" or "must", not {shown(mode)}')
    return mode


def _start(
    wanted_root: str,
    info: RunInfo,
    config: dict[Any, Any],
    labels: _Labels,
    settings: WriterConfig,
) -> Run:
    root, spool = _place(wanted_root, settings)
    plain = values.plain_mapping(config, BlobStore(root))
    for key, problem in plain.problems.items():
        warnings.warn(f"config key {shown(key)} was not kept: {problem}", EventLogWarning, stacklevel=3)
    info = msgspec.structs.replace(info, group=labels.group, tags=labels.tags, config=plain.kept)
    run = Run(root, info, config=settings)
    if spool is not None:
        spool.follow(run)
    return run


def _place(root: str, settings: WriterConfig) -> tuple[str, Spool | None]:
    """Return the directory to write to: the store itself, or a local spool when the store is on an unsuitable mount."""
    mount = mounts.unsuitable_mount(root)
    if mount is None or settings.network_mount == "allow":
        return root, None
    if settings.network_mount == "refuse":
        raise StorageError(
            95,
            f"{root} is on a {mount} mount, where append, rename and fsync are not reliable. Choose a local "
            "directory, or set EVENTLOG_NETWORK_MOUNT=spool to write locally and copy sealed segments over",
        )
    from eventlog.spool import Spool

    spool = Spool.for_store(root, settings.spool_dir)
    warnings.warn(
        f"{root} is on a {mount} mount: records are written to {spool.directory} and sealed segments are copied "
        "over. After a crash, `eventlog ship` copies the rest",
        EventLogWarning,
        stacklevel=3,
    )
    return spool.directory, spool


def _identify(root: str, given: _Given, mode: str, environment: Environment) -> RunInfo:
    project = given.project or "default"
    name, run_id = (None if text is None else values.printable(text) for text in given[1:])
    names.encode_name(project)
    if mode == "must" and name is None and run_id is None:
        raise UsageError('resume="must" needs the name or the id of the run')
    ranks = RunInfo(project=project, run_id="", name="", rank=environment.rank, world_size=environment.world_size)
    earlier = None
    if mode != "never" and (name is not None or run_id is not None):
        earlier = _find_earlier(root, project, name, run_id)
    if earlier is not None:
        step = 0 if earlier.last_step is None else earlier.last_step + 1
        return msgspec.structs.replace(ranks, run_id=earlier.run_id, name=earlier.name, mode="resume", first_step=step)
    if mode == "must":
        what = f"id {run_id!r}" if run_id is not None else f"name {name!r}"
        raise UsageError(f'resume="must": project {project!r} in {root} has no run of {what}')
    shared = run_id is not None and (environment.rank or 0) > 0
    label = name or (nicknames.name_for(run_id) if run_id is not None else nicknames.fresh())
    return msgspec.structs.replace(
        ranks, run_id=run_id or names.new_id(), name=label, mode="attach" if shared else "new"
    )


def _find_earlier(root: str, project: str, name: str | None, run_id: str | None) -> resuming.Earlier | None:
    """Ask the store where pyarrow is installed, for it also knows runs whose segments were collected."""
    if not os.path.isdir(root):
        return None
    import importlib.util

    from eventlog import resume as resuming

    if importlib.util.find_spec("pyarrow") and importlib.util.find_spec("numpy"):
        from eventlog.store import open_store

        find = open_store(root).find_run
    else:
        find = functools.partial(resuming.find_run, root)
    try:
        return find(project, name=name, run_id=run_id)
    except OSError as error:
        raise StorageError(error.errno or 0, f"{root} cannot be read to find the run: {error}") from error


def current_run() -> Run:
    """Return the run that `init` started last.

    Raises:
        UsageError: there is none.
    """
    if not _current:
        raise UsageError("no run: call eventlog.init(project=...) first")
    return _current[0]


def log(data: Mapping[str, Any], step: int | None = None) -> None:
    """Log to the current run: see `Run.log`.

    Raises:
        UsageError: there is no current run, or as `Run.log`.
        StorageError: as `Run.log`.
    """
    current_run().log(data, step=step)


def log_system(data: Mapping[str, Any]) -> None:
    """Log system metrics to the current run: see `Run.log_system`.

    Raises:
        UsageError: there is no current run, or as `Run.log_system`.
        StorageError: as `Run.log_system`.
    """
    current_run().log_system(data)


def alert(title: str, text: str = "", level: Level | str = "warn", step: int | None = None) -> None:
    """Send an alert from the current run: see `Run.alert`.

    Raises:
        UsageError: there is no current run, or as `Run.alert`.
        StorageError: as `Run.alert`.
    """
    current_run().alert(title, text, level, step)


def finish(status: str = "finished", exit_code: int = 0) -> None:
    """Finish the current run: see `Run.finish`. Without one it does nothing.

    Raises:
        DurabilityUnknownError: as `Run.finish`.
    """
    if _current:
        _current.pop().finish(status, exit_code)


def finish_open_runs() -> None:
    """Finish what the process left open, in the order in which it began; runs at interpreter exit."""
    failed = getattr(sys, "last_value", None) is not None
    for run in unfinished():
        try:
            run.finish("failed", 1) if failed else run.finish()
        except (DurabilityUnknownError, OSError) as error:
            warn_aside(f"eventlog could not finish {run!r}: {error}")
