"""What `run` and `serve` share: the options of a bucket, and the sidecar that is run beside it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, TypeVar

import click

from eventlog.errors import UsageError

_F = TypeVar("_F", bound=Callable[..., Any])


def bucket_options(command: _F) -> _F:
    """Add the options of a bucket to a command, which passes them on to `bucket_of`."""
    for option in (
        click.option("--static-export", "page_bucket", help="With --bucket: fill this bucket of a static page too."),
        click.option("--stop-within", "stop_within_s", type=float, help="With --bucket: seconds to end in. [25]"),
        click.option("--interval", "interval_s", type=float, help="With --bucket: seconds between publishes. [30]"),
        click.option("--bucket", help="Restore from hf://buckets/OWNER/NAME at the start, then keep it up to date."),
    ):
        command = option(command)
    return command


def bucket_of(options: dict[str, Any]) -> dict[str, Any]:
    """Take the options of a bucket out of all that were given, and return them; {} when there is none.

    Raises:
        UsageError: they make no sense without a bucket.
    """
    names = ("bucket", "interval_s", "stop_within_s", "page_bucket")
    given = {name: value for name in names if (value := options.pop(name)) is not None}
    if given and "bucket" not in given:
        raise UsageError("--interval, --stop-within and --static-export go with --bucket")
    return given


def run_beside_bucket(
    root: str,
    *,
    bucket: str,
    project: str | None,
    interval_s: float | None = None,
    page_bucket: str | None = None,
    **options: Any,
) -> None:
    """Run a sidecar until it is told to stop, and exit with its code.

    Args:
        root: the store.
        bucket: its address.
        project: what the page shows.
        interval_s: between publishes.
        page_bucket: the address of the page's bucket, if there is one.
        options: other fields of `SidecarConfig`.

    Raises:
        UsageError: no address of a bucket, or the client of the Hub is not installed, or a setting out of its range.
        OSError: the store cannot be created.
    """
    from compactor.hub.sync import SyncConfig
    from compactor.sidecar.config import PageOf, SidecarConfig
    from compactor.sidecar.parent import run
    from eventlog.hub.address import parse_bucket
    from eventlog.hub.failures import need_client

    need_client()
    if (page_bucket is None) != (project is None):
        raise UsageError("--static-export BUCKET and --project NAME go together: a page shows one project")
    page = None
    if page_bucket is not None and project is not None:
        page = PageOf(str(parse_bucket(page_bucket)), project)
    sync = SyncConfig() if interval_s is None else SyncConfig(interval_s=interval_s)
    code = run(SidecarConfig(root=root, bucket=str(parse_bucket(bucket)), sync=sync, page=page, **options))
    click.echo("compactor: stopped", err=True)
    sys.exit(code)
