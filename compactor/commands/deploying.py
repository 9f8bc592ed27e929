"""`compactor deploy`: a Space of the Hub that serves a store, or a page that shows a project."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from typing import Any

import click
import msgspec
from rich.text import Text

from compactor.hub.deploy import local, run
from compactor.hub.deploy.plan import Step, Wait, call_of, sends_write_token
from compactor.hub.deploy.wanted import WRITE_TOKEN, Mode, Wanted
from compactor.serve import ui
from eventlog import __version__
from eventlog.commands.output import PathOf, Seconds, console
from eventlog.errors import UsageError
from eventlog.hub.address import BucketAddress, parse_bucket
from eventlog.hub.failures import need_client
from eventlog.present import clean

_MOST_FILES = 20


@click.command("deploy")
@click.argument("space", metavar="OWNER/NAME")
@click.option(
    "--mode",
    type=click.Choice(["docker", "static"]),
    default="docker",
    show_default=True,
    help="docker: a server, which needs a paid plan; static: a free page that reads a public bucket.",
)
@click.option("--bucket", help="Where the store lives. [OWNER/NAME; with --mode static OWNER/NAME-page]")
@click.option("--private", is_flag=True, help="Only the owner sees the Space.")
@click.option("--project", help="With --mode static: the project to show.")
@click.option("--hardware", help="Flavour of the machine, such as cpu-upgrade; it may cost. [the Hub's default]")
@click.option("--wheel", type=PathOf(dir_okay=False), help="Install this wheel, not the release of this version.")
@click.option("--bucket-token", help="Token of the Hub that may write the bucket. [$EVENTLOG_BUCKET_TOKEN]")
@click.option("--new-token", is_flag=True, help="Replace the write token of a Space that has one.")
@click.option(
    "--ack",
    type=click.Choice(["disk", "bucket"]),
    default="disk",
    show_default=True,
    help="bucket: a write is answered only when the bucket has it, so that a Space that dies loses nothing.",
)
@click.option(
    "--timeout", "timeout_s", type=Seconds(min=0), default=900, show_default=True, help="Seconds to wait; 0: none."
)
@click.option("--dry-run", "only_tell", is_flag=True, help="Print every call of a first deploy, and make none.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def deploy_command(
    space: str, *, mode: Mode, bucket: str | None, timeout_s: float, only_tell: bool, as_json: bool, **options: Any
) -> None:
    """Put a store's dashboard on the Space OWNER/NAME, and print how to log to it.

    Deploying again uploads what has changed and keeps the write token. Your own token is never copied into the Space:
    make one for its bucket. What is not a deploy's own Space is left alone.
    """
    need_client()
    from huggingface_hub import HfApi

    where = (
        parse_bucket(bucket) if bucket is not None else BucketAddress(space if mode == "docker" else f"{space}-page")
    )
    wanted = _static(space, where, **options) if mode == "static" else _docker(space, where, **options)
    api = HfApi()
    run.refuse_own_token(wanted, run.own_token(api))
    if only_tell:
        _print_dry_run(wanted, as_json=as_json)
        return
    from huggingface_hub.utils.tqdm import disable_progress_bars

    disable_progress_bars()
    with _Progress.of(wanted) as progress:
        done = run.deploy(api, wanted, timeout_s=timeout_s, on_step=progress.step, on_state=progress.state)
    if as_json:
        click.echo(msgspec.json.encode(done).decode())
    else:
        _print_deployed(done)


def _docker(
    space: str, bucket: BucketAddress, *, wheel: str | None, bucket_token: str | None, **options: Any
) -> Wanted:
    trackio = max(ui.TESTED)
    return Wanted(
        space=space,
        mode="docker",
        bucket=bucket,
        package=local.package(__version__, trackio, wheel),
        write_token=secrets.token_urlsafe(24),
        bucket_token=bucket_token or os.environ.get("EVENTLOG_BUCKET_TOKEN") or None,
        **options,
    )


def _static(space: str, bucket: BucketAddress, *, wheel: str | None, **options: Any) -> Wanted:
    if wheel is not None:
        raise UsageError("--wheel goes with --mode docker: a static page runs nothing")
    dashboard = ui.find_dashboard()
    if dashboard is None:
        raise UsageError("a static page is Trackio's, which is not installed: pip install 'eventlog[trackio]'")
    if not dashboard.is_tested:
        click.echo(f"note: the dashboard of trackio {dashboard.version} is untested with this release", err=True)
    page = local.page_files(dashboard.dist, dashboard.assets)
    return Wanted(space=space, mode="static", bucket=bucket, page=page, page_version=dashboard.version, **options)


class _Progress:
    """Says on stderr what is being done: with a spinner on a terminal, else a line for each change."""

    def __init__(self) -> None:
        self._console = console(stderr=True)
        self._spinner = self._console.status(Text(""))
        self._said = ""
        self.begun: list[Step] = []

    @classmethod
    @contextlib.contextmanager
    def of(cls, wanted: Wanted) -> Iterator[_Progress]:
        """Tell of a deploy; when it fails, also of the write token that the Space may have by then."""
        progress = cls()
        try:
            yield progress
        except BaseException:
            progress.close()
            if sends_write_token(tuple(progress.begun)):
                click.echo(f"the Space may have this by now:\n  export {WRITE_TOKEN}={wanted.write_token}", err=True)
            raise
        progress.close()

    def step(self, step: Step) -> None:
        """Tell of a step that begins."""
        self.begun.append(step)
        if not isinstance(step, Wait):
            self._console.print(Text(clean(_tell(call_of(step)))))

    def state(self, state: str) -> None:
        """Tell what is waited for."""
        text = clean(f"waiting for the Space: {state}")
        if self._console.is_terminal:
            self._spinner.start()
            self._spinner.update(Text(text))
        elif text != self._said:
            self._console.print(Text(text))
        self._said = text

    def close(self) -> None:
        """Leave the terminal as it was."""
        self._spinner.stop()


def _tell(call: dict[str, Any]) -> str:
    """Return a call as one would write it; many files become their number."""
    shown = dict(call)
    name = shown.pop("call")
    files = shown.get("add")
    if files is not None and len(files) > _MOST_FILES:
        shown["add"] = f"{len(files)} files, {sum(files.values()):,} bytes"
    return f"{name}({', '.join(f'{key}={value!r}' for key, value in shown.items())})"


def _print_dry_run(wanted: Wanted, *, as_json: bool) -> None:
    calls = run.dry_run(wanted)
    if as_json:
        click.echo(msgspec.json.encode({"space": wanted.space, "mode": wanted.mode, "calls": calls}).decode())
        return
    for call in calls:
        click.echo(clean(_tell(call)))
    click.echo("nothing was asked of the Hub or done; what is there already is kept, and not uploaded again", err=True)


def _print_deployed(done: run.Deployed) -> None:
    click.echo(f"deployed {done.space}\n  {done.page}\n  {done.url}/")
    if done.write_token is not None:
        click.echo(f"  to delete and rename runs: {done.url}/?write_token={done.write_token}")
    if done.environment:
        click.echo("log to it:")
        for name, value in done.environment.items():
            click.echo(f"  export {name}={value}")
    if done.fill is not None:
        click.echo(f"fill it, where the store is:\n  {clean(done.fill)}")
    for note in done.notes:
        click.echo(f"note: {note}", err=True)
