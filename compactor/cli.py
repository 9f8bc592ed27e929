"""The `compactor` command: run, plan, status, and those that have modules of their own."""

from __future__ import annotations

import os
from typing import Any

import click
import msgspec
from rich.console import Console
from rich.table import Table

from compactor.commands.beside import bucket_of, bucket_options, run_beside_bucket
from compactor.commands.deploying import deploy_command
from compactor.commands.output import log_to_stderr
from compactor.commands.paging import static_export
from compactor.commands.serving import serve
from compactor.commands.syncing import restore_command, sync
from compactor.config import CompactorConfig
from compactor.plan import plan
from compactor.service import Service, stopping_on_signals
from compactor.status import status
from compactor.survey import survey
from compactor.work import Turn, take_turn
from eventlog import manifest as manifests
from eventlog import mounts, tail
from eventlog.commands.output import ErrorGroup, LocalPath, open_existing
from eventlog.errors import StorageError, UsageError
from eventlog.fs import LOCAL

_STORE = click.argument("store", type=LocalPath(file_okay=False))
_JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of a table.")


class _Group(ErrorGroup):
    """The commands of `compactor`, and how their errors are told."""

    program = "compactor"


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
def cli() -> None:
    """Fold the segments of a store into snapshots."""


def _settings(**options: Any) -> CompactorConfig:
    return CompactorConfig(**{name: value for name, value in options.items() if value is not None})


@cli.command()
@_STORE
@click.option("--once", is_flag=True, help="Do everything that there is to do now, then end.")
@click.option("--project", help="With --once: only this project.")
@click.option("--fold-interval", "fold_interval_s", type=float, help="Seconds between folds while little is new. [5]")
@click.option("--sweep-interval", "sweep_interval_s", type=float, help="Seconds between looks at everything. [2]")
@click.option("--batch-bytes", type=int, help="Bytes of segments that a fold holds at once. [24 MiB]")
@click.option("--fanout", type=int, help="Files of one level that become one of the next. [4]")
@click.option("--grace", "grace_s", type=float, help="Seconds that superseded files stay for readers. [3600]")
@click.option("--keep-segments", "segment_retention_s", type=float, help="Seconds that folded segments stay. [7 days]")
@click.option("--keep-segments-forever", is_flag=True, help="Never delete folded segments.")
@bucket_options
@_JSON
def run(
    store: str, *, once: bool, project: str | None, keep_segments_forever: bool, as_json: bool, **options: Any
) -> None:
    """Fold as a service until SIGTERM, or --once.

    Several compactors on one store cannot harm it: one of them loses each race, and starts over.
    """
    beside = bucket_of(options)
    config = _settings(**options)
    if keep_segments_forever:
        config = msgspec.structs.replace(config, segment_retention_s=None)
    root = os.path.abspath(store)
    mount = mounts.unsuitable_mount(root)
    if mount is not None:
        message = f"{root} is on a {mount} mount: run the compactor on a local disk, and copy its snapshots"
        raise StorageError(95, message)
    report = _report_json if as_json else _report
    if beside and once:
        raise UsageError("--bucket goes without --once: `compactor sync --once` publishes once")
    if once:
        found = tail.projects(LOCAL, _existing(store))
        if project is not None and project not in found:
            raise UsageError(f"there is no project {project!r} in {root}")
        for name in found if project is None else [project]:
            report(take_turn(LOCAL, root, name, config))
        return
    if project is not None and "page_bucket" not in beside:
        raise UsageError("--project goes with --once or --static-export: the service takes care of every project")
    log_to_stderr()
    if beside:
        run_beside_bucket(root, project=project, compaction=config, as_json=as_json, **beside)
    service = Service(root, config, on_turn=report)
    with stopping_on_signals(service):
        click.echo(f"compactor: watching {root}", err=True)
        service.run()
    click.echo("compactor: stopped", err=True)


def _report(turn: Turn) -> None:
    parts = [f"{turn.project}: version {turn.version}, {turn.records} records in {turn.folds} folds"]
    parts += [f"{turn.merges} merges"] * bool(turn.merges)
    parts += [f"{turn.removed} files collected ({turn.removed_bytes / 1e6:.1f} MB)"] * bool(turn.removed)
    parts += [f"{turn.lost_races} races lost"] * bool(turn.lost_races)
    parts += [f"{len(turn.rebuilt)} damaged files rebuilt from segments"] * bool(turn.rebuilt)
    click.echo(f"{', '.join(parts)}, {turn.seconds:.2f} s")
    for where, reason in (*turn.refused.items(), *turn.kept.items(), *turn.damaged.items()):
        click.echo(f"  {where}: {reason}", err=True)


def _report_json(turn: Turn) -> None:
    click.echo(msgspec.json.encode(turn).decode())


@cli.command("plan")
@_STORE
@click.option("--fanout", type=int, help="Files of one level that become one of the next. [4]")
@_JSON
def plan_command(store: str, *, as_json: bool, **options: Any) -> None:
    """Print what `run --once` would do; touch nothing."""
    root = _existing(store)
    plans = [
        plan(survey(LOCAL, root, name), manifests.load_newest(LOCAL, root, name)[0], _settings(**options))
        for name in tail.projects(LOCAL, root)
    ]
    if as_json:
        click.echo(msgspec.json.encode([item._asdict() for item in plans]).decode())
        return
    for item in plans:
        if not item.fold and not item.merges:
            click.echo(f"{item.project}: nothing to do, version {item.version} is up to date")
        for writer in item.fold:
            click.echo(f"{item.project}: fold {writer.pending_bytes} bytes of {writer.writer_id}")
        for merge in item.merges:
            rows = sum(file.rows for file in merge.files)
            click.echo(
                f"{item.project}: merge {len(merge.files)} {merge.table} files of level {merge.level}, {rows} rows"
            )


@cli.command("status")
@_STORE
@_JSON
def status_command(store: str, *, as_json: bool) -> None:
    """Print what each project holds and how far its snapshot is behind."""
    found = status(LOCAL, _existing(store))
    if as_json:
        click.echo(msgspec.json.encode(found).decode())
        return
    console = Console(highlight=False)
    for item in found:
        age = "never folded" if item.snapshot_age_s is None else f"{item.snapshot_age_s:.0f} s old"
        lines = {
            "snapshot": f"version {item.version}, {age}, {item.snapshot_bytes:,} bytes",
            "records folded": f"{item.records:,}",
            "waiting": f"{item.pending_bytes:,} bytes of segments",
            "rows": ", ".join(f"{table} {rows:,} in {item.files[table]} files" for table, rows in item.rows.items()),
            "writers": f"{item.writers}, {item.writers_live} of them live, {item.segments} segments",
            "gaps": f"{item.gaps:,} records missing, {item.quarantined} byte ranges in quarantine",
            "dropped": f"{item.dropped:,} records that writers could not keep, {item.duplicates:,} duplicates left out",
        }
        table = Table(title=item.project, show_header=False, title_justify="left", box=None, pad_edge=False)
        for label, text in lines.items():
            table.add_row(label, text)
        console.print(table)
    for item in found:
        if item.conflicts:
            text = "segments hold other records under seqs that are taken: a writer was copied. See `eventlog verify`"
            click.echo(f"{item.project}: {item.conflicts} {text}", err=True)
        for problem in item.problems:
            click.echo(f"{item.project}: {problem}", err=True)


cli.add_command(serve)
cli.add_command(sync)
cli.add_command(static_export)
cli.add_command(restore_command)
cli.add_command(deploy_command)


def _existing(store: str) -> str:
    return open_existing(store).root


def main() -> None:
    """Run the command; errors of ours become one line and exit code 2."""
    cli(prog_name="compactor")
