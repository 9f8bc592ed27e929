"""`compactor static-export`: fill the bucket that a static page reads, alone or beside what publishes the store."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Protocol

import click
import msgspec

from compactor.commands.output import log_to_stderr
from compactor.service import stopping_on_signals
from eventlog.commands.output import PathOf, only_project, open_existing
from eventlog.errors import UsageError, describe
from eventlog.hub.address import is_remote, parse_bucket
from eventlog.hub.bucket import Bucket
from eventlog.present import clean

if TYPE_CHECKING:
    from compactor.page.export import Exported, PageExport

log = logging.getLogger("compactor")
_NAMED = 5


@click.command("static-export")
@click.argument("store", type=PathOf(file_okay=False))
@click.argument("target")
@click.option("--project", help="The project to show; not needed when the store has one.")
@click.option("--once", is_flag=True, help="Export what there is now, then end.")
@click.option("--interval", "interval_s", type=float, help="Seconds between looks for what is new. [60]")
@click.option("--points", type=int, help="About so many rows of numbers for each run. [3000; fewer beyond 100 runs]")
@click.option("--grace", "grace_s", type=float, help="Seconds that media stay which no run shows any more. [3600]")
@click.option("--take-over", is_flag=True, help="Show this store where another store's project of that name is shown.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document for each export.")
def static_export(
    store: str, target: str, *, project: str | None, once: bool, take_over: bool, as_json: bool, **options: Any
) -> None:
    """Fill TARGET, the bucket of a static page (hf://buckets/OWNER/NAME) or a directory, from one project of STORE.

    `compactor deploy --mode static` makes the page. Everybody can read its bucket, so it is one of its own. STORE is
    only read; what has not changed is not uploaded again. Runs until SIGTERM, or --once.
    """
    opened = open_existing(store)
    page = page_of(opened.root, only_project(opened, project), target, as_json=as_json, take_over=take_over, **options)
    if once:
        page.once()
        return
    page.check()
    log_to_stderr()
    with stopping_on_signals(page):
        click.echo(f"compactor: exporting {opened.root} to {target}", err=True)
        page.run()
    click.echo("compactor: stopped", err=True)


def page_of(
    root: str,
    project: str,
    target: str,
    *,
    as_json: bool = False,
    bucket_only: bool = False,
    take_over: bool = False,
    **options: Any,
) -> PageExport:
    """Return the export of a project to a page; it tells on stdout what it did.

    Args:
        root: the store.
        project: its name.
        target: the address of a bucket, or the path of a directory.
        as_json: what is printed is for a script.
        bucket_only: take also `OWNER/NAME` for a bucket, and no directory.
        take_over: show it where another store's project of that name is shown.
        options: fields of `PageConfig`; None leaves a default.

    Raises:
        UsageError: something that the export needs is not installed, or a setting is out of its range.
    """
    try:
        from compactor.page.bucket import PageBucket
        from compactor.page.config import PageConfig
        from compactor.page.export import PageExport
        from compactor.page.target import Directory
    except ModuleNotFoundError as error:
        raise UsageError(f"a page needs {error.name}: pip install 'eventlog[serve,hub]'") from None
    if not target:
        raise UsageError("name the bucket of the page, or a directory: it is empty")
    place: PageBucket | Directory
    if bucket_only or is_remote(target):
        place = PageBucket(Bucket(parse_bucket(target)))
        if not sys.stderr.isatty():
            from huggingface_hub.utils.tqdm import disable_progress_bars

            disable_progress_bars()
    else:
        place = Directory(target)
    config = PageConfig(**{name: value for name, value in options.items() if value is not None})
    tell = _printer(as_json=as_json)
    return PageExport(os.path.abspath(root), project, place, config, take_over=take_over, on_exported=tell)


class Work(Protocol):
    """A service that runs until it is stopped."""

    def run(self) -> None:
        """Work."""

    def stop(self) -> None:
        """End `run` soon."""


def run_both(work: Work, page: PageExport) -> None:
    """Run a service, and beside it the export of a page; the end of the service is the end of both.

    The service goes on without a page that cannot, which is logged at once and raised at the end.

    Raises:
        UsageError: the place of the page cannot be one, as it is now: nothing was begun.
        Exception: whatever the service raises, else whatever ended the page.
    """
    # What a refusal of the Hub keeps from being seen now, the page meets again, tells, and tries again.
    with contextlib.suppress(OSError):
        page.check()
    with ThreadPoolExecutor(1, "page") as pool:
        beside = pool.submit(page.run)
        beside.add_done_callback(_tell_end)
        try:
            work.run()
        finally:
            page.stop()
        beside.result()


def _tell_end(page: Future[None]) -> None:
    error = page.exception()
    if error is not None:
        log.error("the page is not kept up to date any more: %s", describe(error))


def _printer(*, as_json: bool) -> Callable[[Exported], None]:
    def tell(done: Exported) -> None:
        if as_json:
            click.echo(msgspec.json.encode(done).decode())
        else:
            _print_exported(done)
        sys.stdout.flush()

    return tell


def _print_exported(done: Exported) -> None:
    parts = [f"{done.project}: the page shows {done.runs} runs, {done.rows:,} rows"]
    parts += [f"{done.uploaded} files up ({done.uploaded_bytes / 1e6:.1f} MB)" if done.uploaded else "nothing new"]
    parts += [f"{done.deleted} files deleted"] * bool(done.deleted)
    parts += [f"{done.waiting} files go later"] * bool(done.waiting)
    click.echo(clean(f"{', '.join(parts)}, {done.seconds:.1f} s"))
    for path in done.missing[:_NAMED]:
        click.echo(clean(f"  {path}: not in the store, so the page shows a gap"), err=True)
    if len(done.missing) > _NAMED:
        click.echo(f"  and {len(done.missing) - _NAMED} others", err=True)
