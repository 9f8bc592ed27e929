"""`compactor sync` and `restore`: a bucket of the Hub kept up to date with a store, and a store made from a bucket."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

import click
import msgspec

from compactor.commands.output import log_to_stderr
from compactor.commands.paging import page_of, run_both
from compactor.hub.publish import Published
from compactor.hub.restore import Restored, restore
from compactor.hub.sync import Sync, SyncConfig
from compactor.service import stopping_on_signals
from eventlog.commands.output import LocalPath
from eventlog.errors import UsageError
from eventlog.fs import LOCAL
from eventlog.hub import inbox
from eventlog.hub.address import parse_bucket
from eventlog.hub.bucket import Bucket

if TYPE_CHECKING:
    from compactor.page.export import PageExport

_JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON document for each deed.")


def open_bucket(address: str) -> Bucket:
    """Return a bucket; the client's own progress bars are shown on a terminal only.

    Raises:
        UsageError: it is no address, or the client of the Hub is not installed.
    """
    bucket = Bucket(parse_bucket(address))
    if not sys.stderr.isatty():
        from huggingface_hub.utils.tqdm import disable_progress_bars

        disable_progress_bars()
    return bucket


@click.command()
@click.argument("store", type=LocalPath(file_okay=False))
@click.argument("bucket")
@click.option("--once", is_flag=True, help="Publish what there is now, then end.")
@click.option("--interval", "interval_s", type=float, help="Seconds between looks at everything. [30]")
@click.option("--grace", "grace_s", type=float, help="Seconds that superseded files stay in the bucket. [1 day]")
@click.option("--public", is_flag=True, help="If the bucket has to be made, let everybody read it.")
@click.option("--static-export", "page_bucket", help="Fill this bucket of a static page too, hf://buckets/OWNER/NAME.")
@click.option("--project", help="With --static-export: the project that the page shows.")
@click.option("--take-over", is_flag=True, help="With --once: publish although another store has taken over.")
@_JSON
def sync(
    store: str,
    bucket: str,
    *,
    once: bool,
    public: bool,
    take_over: bool,
    page_bucket: str | None,
    project: str | None,
    as_json: bool,
    **options: float | None,
) -> None:
    """Keep BUCKET (hf://buckets/OWNER/NAME) a whole copy of STORE, until SIGTERM or --once.

    What hosts have put into its inbox is brought into STORE, for a compactor to fold; what STORE has goes up, data
    first, manifest last. Only one store publishes to a bucket: the last that began.
    """
    if take_over and not once:
        raise UsageError("--take-over goes with --once: do that first, then start the service")
    given: dict[str, Any] = {name: value for name, value in options.items() if value is not None}
    config = SyncConfig(private=not public, **given)
    root = os.path.abspath(store)
    published, restored = (_print_json, _print_json) if as_json else (print_published, print_restored)
    work = Sync(root, open_bucket(bucket), config, on_published=published, on_restored=restored)
    page = _page(root, bucket, page_bucket, project, as_json=as_json)
    if once:
        work.once(take_over=take_over)
        if page is not None:
            page.once()
        return
    log_to_stderr()
    with stopping_on_signals(work):
        click.echo(f"compactor: publishing {root} to {parse_bucket(bucket)}", err=True)
        if page is not None:
            run_both(work, page)
        else:
            work.run()
    click.echo("compactor: stopped", err=True)


def _page(root: str, bucket: str, page_bucket: str | None, project: str | None, *, as_json: bool) -> PageExport | None:
    if page_bucket is None:
        if project is not None:
            raise UsageError("--project goes with --static-export: every project is published")
        return None
    if project is None:
        raise UsageError("--static-export shows one project: name it with --project")
    if parse_bucket(page_bucket).bucket == parse_bucket(bucket).bucket:
        raise UsageError("everybody can read a page's bucket: give --static-export one of its own, not the store's")
    return page_of(root, project, page_bucket, as_json=as_json, bucket_only=True)


@click.command("restore")
@click.argument("bucket")
@click.argument("store", type=LocalPath(file_okay=False))
@click.option("--project", help="Only this project. [all]")
@click.option("--version", type=click.IntRange(min=1), help="This snapshot, not the newest; into an empty store.")
@_JSON
def restore_command(bucket: str, store: str, *, project: str | None, version: int | None, as_json: bool) -> None:
    """Make STORE from BUCKET (hf://buckets/OWNER/NAME), or bring it forward to what BUCKET holds.

    A restore that was cut off is continued. What STORE has beyond BUCKET stays.
    """
    opened, root = open_bucket(bucket), os.path.abspath(store)
    projects = inbox.projects(opened) if project is None else [project]
    if not projects:
        raise UsageError(f"{opened} holds no project")
    if version is not None and len(projects) > 1:
        raise UsageError(f"--version goes with --project; there are: {', '.join(projects)}")
    for name in projects:
        done = restore(LOCAL, root, opened, name, version=version)
        (_print_json if as_json else print_restored)(done)


def _print_json(done: Published | Restored) -> None:
    click.echo(msgspec.json.encode(done).decode())
    sys.stdout.flush()


def print_published(done: Published) -> None:
    """Print what a publish did."""
    parts = [f"{done.project}: version {done.version} is published"]
    parts += [f"{done.uploaded} files up ({done.uploaded_bytes / 1e6:.1f} MB)"] * bool(done.uploaded)
    parts += [f"{done.pulled} segments from the inbox"] * bool(done.pulled)
    parts += [f"{done.deleted} files deleted"] * bool(done.deleted)
    click.echo(f"{', '.join(parts)}, {done.seconds:.1f} s")
    for path in done.conflicts:
        click.echo(f"  {path}: the bucket has other records under this name, and keeps them", err=True)
    sys.stdout.flush()


def print_restored(done: Restored) -> None:
    """Print what a restore did."""
    text = {
        "none": f"version {done.version} has all of the bucket's snapshot {done.from_version}",
        "restored": f"version {done.version} restored",
        "merged": f"version {done.version} goes on from the bucket's {done.from_version}",
    }[done.action]
    brought = f"{done.files} data files, {done.segments} segments and {done.blobs} blobs"
    click.echo(f"{done.project}: {text}; {brought} down ({done.size_bytes / 1e6:.1f} MB)")
    sys.stdout.flush()
