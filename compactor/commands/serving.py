"""`compactor serve`: Trackio's API and dashboard on a store, alone or beside its bucket."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any

import click
import msgspec

from compactor.commands.beside import bucket_of, bucket_options, run_beside_bucket
from compactor.commands.output import end, log_to_stderr
from compactor.config import CompactorConfig
from eventlog.commands.output import LocalPath
from eventlog.errors import UsageError


@click.command()
@click.argument("store", type=LocalPath(file_okay=False))
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", type=int, default=7860, show_default=True, help="Port; 0 takes a free one.")
@click.option("--ui", type=click.Choice(["trackio", "none"]), default="trackio", show_default=True, help="Dashboard.")
@click.option("--write-token", help="What clients must send to write. [$TRACKIO_WRITE_TOKEN, else made and printed]")
@click.option("--no-compact", is_flag=True, help="Leave the folding to another process.")
@click.option("--max-body", "max_body_bytes", type=int, help="Bytes of one request with JSON. [512 MiB]")
@click.option("--max-upload", "max_upload_bytes", type=int, help="Bytes of one uploaded file. [16 GiB]")
@click.option("--cache", "cache_bytes", type=int, help="Bytes that are kept decoded between polls. [256 MiB]")
@bucket_options
@click.option("--project", help="With --static-export: the project that the page shows.")
@click.option("--ack", type=click.Choice(["disk", "bucket"]), default="disk", help="Where a write is before its 200.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def serve(
    store: str,
    *,
    write_token: str | None,
    no_compact: bool,
    as_json: bool,
    project: str | None,
    **options: Any,
) -> None:
    """Serve Trackio's API and dashboard on STORE, and fold it, until SIGTERM."""
    try:
        from compactor.serve.config import ServeConfig
        from compactor.serve.server import make_token
        from compactor.serve.server import serve as run_server
    except ModuleNotFoundError as error:
        raise UsageError(f"serving needs {error.name}: pip install 'eventlog[serve]'") from None
    beside = bucket_of(options)
    token, made = make_token(write_token)
    given = {name: value for name, value in options.items() if value is not None}
    root = os.path.abspath(store)
    log_to_stderr()
    if not beside:
        if project is not None:
            raise UsageError("--project goes with --static-export: the server shows every project")
        config = ServeConfig(write_token=token, compact=not no_compact, **given)
        ready = tell_address(root, as_json=as_json)
        run_server(root, config, CompactorConfig(), token_made=made, on_ready=ready)
        end(0)
    if no_compact:
        raise UsageError("--no-compact does not go with --bucket: what is published has to be folded")
    config = ServeConfig(write_token=token, compact=False, bucket=beside["bucket"], **given)
    run_beside_bucket(root, project=project, serve=config, token_made=made, as_json=as_json, **beside)


def tell_address(root: str, *, as_json: bool) -> Callable[[Any], None]:
    """Return what prints where a server is, once it is there."""

    def ready(address: Any) -> None:
        if as_json:
            click.echo(msgspec.json.encode(address).decode())
        else:
            _print_address(root, address)
        sys.stdout.flush()

    return ready


def _print_address(root: str, address: Any) -> None:
    click.echo(f"serving {root}\n  {address.url}/")
    if address.write_token:
        click.echo(f"  to delete and rename runs: {address.url}/?write_token={address.write_token}")
    click.echo(f"log to it:\n  export TRACKIO_SERVER_URL={address.url}")
    if address.write_token:
        made = "   # made for this start" if address.made else ""
        click.echo(f"  export TRACKIO_WRITE_TOKEN={address.write_token}{made}")
    for note in address.notes:
        click.echo(f"note: {note}", err=True)
