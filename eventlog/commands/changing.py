"""`eventlog admin`: rename, delete and undelete runs, by records that say so. Nothing is ever edited."""

from __future__ import annotations

import time
from typing import Any

import click

from eventlog import mounts, schema
from eventlog.commands.output import emit, json_option, open_existing, store_argument
from eventlog.config import WriterConfig, read_environment
from eventlog.errors import ConflictError, StorageError, UsageError
from eventlog.fs import LOCAL, Fs
from eventlog.present import clean
from eventlog.store import Store
from eventlog.values import printable
from eventlog.writer import Writer

_project_argument = click.argument("project")
_run_argument = click.argument("run")


@click.group()
def admin() -> None:
    """Rename, delete and undelete runs. RUN is an id, or a name that only one run has.

    Each command appends a record; nothing that was logged is changed, so each can be taken back.
    """


@admin.command()
@store_argument
@_project_argument
@_run_argument
@click.argument("name")
@json_option
def rename(store: str, project: str, run: str, name: str, *, as_json: bool) -> None:
    """Give RUN another NAME."""
    if not name:
        raise UsageError("a run needs a name that is not empty")
    if name != printable(name):
        raise UsageError(f"a name must be text that UTF-8 can hold, not {name!r}")
    _change(store, project, run, "rename", {"name": name}, as_json=as_json)


@admin.command()
@store_argument
@_project_argument
@_run_argument
@json_option
def delete(store: str, project: str, run: str, *, as_json: bool) -> None:
    """Hide RUN from every reader; `undelete` brings it back."""
    _change(store, project, run, "delete", {}, as_json=as_json)


@admin.command()
@store_argument
@_project_argument
@_run_argument
@json_option
def undelete(store: str, project: str, run: str, *, as_json: bool) -> None:
    """Bring RUN back."""
    _change(store, project, run, "undelete", {}, as_json=as_json)


def _change(store: str, project: str, run: str, action: str, values: dict[str, Any], *, as_json: bool) -> None:
    opened = open_existing(store)
    run_id = _resolve(opened, project, run)
    mount = mounts.unsuitable_mount(opened.root)
    if mount is not None and read_environment().writer.network_mount != "allow":
        raise StorageError(95, f"{opened.root} is on a {mount} mount; EVENTLOG_NETWORK_MOUNT=allow takes the risk")
    writer_id = append_change(opened.root, project, run_id, action, values)
    _check(opened, project, run_id, action, values)
    if as_json:
        emit({"project": project, "run_id": run_id, "action": action, "values": values, "writer_id": writer_id})
        return
    click.echo(f"{action}d {clean(run_id)} in {clean(project)}")


def append_change(root: str, project: str, run_id: str, action: str, values: dict[str, Any], *, fs: Fs = LOCAL) -> str:
    """Append the record that changes a run, durable when this returns; return the id of the writer that did.

    Raises:
        StorageError: it could not be appended.
        DurabilityUnknownError: it could not be synced.
    """
    writer = Writer(root, project, config=WriterConfig(on_error="raise", sync_interval_s=None), fs=fs)
    writer.append(schema.Admin(time.time_ns(), run_id, action, values))
    writer.close()
    return writer.writer_id


def _resolve(store: Store, project: str, run: str) -> str:
    rows = store.runs(project, deleted=True).select(["run_id", "name"]).to_pylist()
    if any(row["run_id"] == run for row in rows):
        return run
    found = [str(row["run_id"]) for row in rows if row["name"] == run]
    if len(found) != 1:
        what = f"there are {len(found)} runs named {run!r}: {', '.join(found)}" if found else f"there is no run {run!r}"
        raise UsageError(f"{what} in project {project!r}")
    return found[0]


def _check(store: Store, project: str, run_id: str, action: str, values: dict[str, Any]) -> None:
    """The latest record by its clock wins: one that was made by a clock ahead of ours still does."""
    rows = store.runs(project, deleted=True).select(["run_id", "name", "deleted"]).to_pylist()
    row = next(row for row in rows if row["run_id"] == run_id)
    done = row["name"] == values["name"] if action == "rename" else row["deleted"] == (action == "delete")
    if not done:
        raise ConflictError(f"run {run_id} has a later change, by a clock ahead of this one: set the clock, then retry")
