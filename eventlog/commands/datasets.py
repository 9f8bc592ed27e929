"""`eventlog import`, and the part of `export` that writes datasets: to a repository of the Hub or to a directory."""

from __future__ import annotations

from collections.abc import Sequence

import click

from eventlog.commands.output import PathOf, check_local, console, emit, json_option, quiet_client, store_argument
from eventlog.errors import UsageError
from eventlog.exporting.dataset import ExportedDataset, export_dataset
from eventlog.exporting.target import Directory, Target
from eventlog.hub.address import is_remote
from eventlog.hub.datasets import DatasetRepo, parse_dataset
from eventlog.importing import sources
from eventlog.importing.perform import Imported, import_runs
from eventlog.present import clean, count, size

_SHOWN = 5


def export_to(root: str, project: str, to: str, *, private: bool, as_json: bool) -> None:
    """Export a project to a dataset, and say what was done.

    Raises:
        UsageError: there is no such project or place, or it holds another project, or is public and was not to be.
        ConflictError: the dataset was changed meanwhile: try again.
        DataError: a file of the store is damaged.
        StorageError: the place refused; it shows the old dataset or the new one.
    """
    with console(stderr=True).status(f"{clean(to)}") as status:
        target, created = _target(to, private=private)
        done = export_dataset(root, project, target, progress=lambda text: status.update(clean(text)))
    if as_json:
        emit({"to": to, "created": created, **done._asdict()})
    else:
        _tell_export(to, done)
    if done.missing_blobs:
        listed = ", ".join(done.missing_blobs[:_SHOWN])
        click.echo(f"{len(done.missing_blobs)} blobs are missing in the store, or damaged: {listed}", err=True)


def _target(to: str, *, private: bool) -> tuple[Target, bool]:
    if not is_remote(to):
        if private:
            raise UsageError("--private is for a dataset on the Hub")
        return Directory(to), False
    repo = DatasetRepo(parse_dataset(to))
    quiet_client()
    return repo, repo.open_or_create(private=private)


def _tell_export(to: str, done: ExportedDataset) -> None:
    if not done.changed:
        click.echo(f"{clean(to)} is what {clean(done.project)} is: {count(done.runs)} runs, nothing to do")
        return
    click.echo(
        f"{clean(to)}: {count(done.runs)} runs, {count(done.rows)} rows; "
        f"{count(done.written_files)} files written ({size(done.written_bytes)}), {count(done.removed_files)} removed"
    )


@click.command("import")
@click.argument("source", metavar="SOURCE", type=PathOf())
@store_argument
@click.option("--project", help="Only this project of the source; default all.")
@click.option("--into", help="The project here; default that of the source.")
@click.option("--again", is_flag=True, help="Import runs that are there already once more, under new ids.")
@json_option
def import_(source: str, store: str, project: str | None, into: str | None, *, again: bool, as_json: bool) -> None:
    """Append the runs in SOURCE to STORE, which is made when it is missing; nothing in it is replaced.

    SOURCE is what `eventlog export --to` wrote, or an export of Trackio: a directory, or hf://datasets/OWNER/NAME. All
    of a project comes in at once, or nothing. Runs that are there already are left out.
    """
    check_local(store)
    with console(stderr=True).status(f"{clean(source)}") as status:
        done = import_runs(
            _place(source),
            store,
            project=project,
            into=into,
            again=again,
            progress=lambda text: status.update(clean(text)),
        )
    if as_json:
        emit([one._asdict() for one in done])
        return
    for one in done:
        _tell_import(one)


def _place(source: str) -> sources.Place:
    if not is_remote(source):
        return sources.Directory(source)
    repo = DatasetRepo(parse_dataset(source))
    quiet_client()
    repo.open()
    return repo


def _tell_import(done: Imported) -> None:
    click.echo(f"{clean(done.into)}: {count(done.runs)} runs imported, {count(done.records)} records")
    if done.renamed:
        click.echo(f"  {count(len(done.renamed))} have new ids, for theirs are taken: {_listed(list(done.renamed))}")
    if done.present:
        listed = _listed(done.present)
        click.echo(
            f"  {count(len(done.present))} were there already and were left out: {listed}; see --again", err=True
        )
    if done.grown:
        click.echo(
            f"  {count(len(done.grown))} of them have other rows in the source now: {_listed(done.grown)}", err=True
        )
    for reason, number in sorted(done.left_out.items()):
        click.echo(f"  not kept: {count(number)} {clean(reason)}", err=True)


def _listed(ids: Sequence[str]) -> str:
    shown = ", ".join(clean(run_id) or "what belongs to no run" for run_id in ids[:_SHOWN])
    return shown if len(ids) <= _SHOWN else f"{shown}, ..."
