"""How commands print: JSON documents, tables, and the options that several commands share."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from eventlog import jsonl
from eventlog.errors import EventLogError, UsageError
from eventlog.hub.address import is_remote
from eventlog.present import clean
from eventlog.store import Store, is_store, open_store

_PIPE_COLUMNS: Final = 10_000
_LONGEST_WAIT_S: Final = 1e6


class PathOf(click.Path):
    """A path that some file can have: an empty one, as of a variable that is not set, is not the current directory."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Refuse what no file system takes."""
        if value == "" or (isinstance(value, str) and "\0" in value):
            self.fail(f"{value!r} is no path", param, ctx)
        return super().convert(value, param, ctx)


class LocalPath(PathOf):
    """A path on this machine."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Refuse an address on the Hub, before a directory of that name is made."""
        if is_remote(value):
            self.fail(f"{value} is on the Hub, and this works on this machine: compactor restore", param, ctx)
        return super().convert(value, param, ctx)


class Seconds(click.FloatRange):
    """A number of seconds that a process can wait."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Refuse what is no such number."""
        seconds = super().convert(value, param, ctx)
        if not seconds <= _LONGEST_WAIT_S:
            self.fail(f"{value} is not in the range up to {_LONGEST_WAIT_S}", param, ctx)
        return seconds


class ErrorGroup(click.Group):
    """A group of commands; an error that one raised on purpose is one line on stderr and exit code 2."""

    program = "eventlog"

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            raise
        except (EventLogError, OSError) as error:
            click.echo(clean(f"{self.program}: {_one_line(error)}"), err=True)
            ctx.exit(2)


def _one_line(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return " ".join(str(error).split())


store_argument = click.argument("store", type=PathOf(), metavar="STORE")
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")


def console(*, stderr: bool = False) -> Console:
    """Return where to print; output into a pipe is wide, so that no cell is cut."""
    made = Console(stderr=stderr, highlight=False, soft_wrap=False)
    return made if made.is_terminal else Console(stderr=stderr, highlight=False, width=_PIPE_COLUMNS)


def emit(value: Any) -> None:
    """Print one JSON document."""
    click.echo(jsonl.text(value))


def emit_line(value: dict[str, Any]) -> None:
    """Print one JSON document on one line."""
    click.echo(jsonl.encode(value), nl=False)


def quiet_client() -> None:
    """Turn the bars of the Hub's client off: they and ours would overwrite each other."""
    from huggingface_hub.utils import disable_progress_bars  # type: ignore[attr-defined]

    disable_progress_bars()


def show(headers: Sequence[str], rows: Iterable[Sequence[str]], *, right: Sequence[str] = ()) -> None:
    """Print a table; cells are text, never markup.

    Args:
        headers: one a column.
        rows: of as many cells.
        right: the headers of columns that are aligned to the right.
    """
    table = Table(box=None, pad_edge=False, header_style="bold")
    for header in headers:
        table.add_column(Text(clean(header)), justify="right" if header in right else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(clean(cell)) for cell in row))
    console().print(table)


def check_local(path: str) -> None:
    """Refuse what is no place on this machine, before a directory of that name is made.

    Raises:
        UsageError: it is an address on the Hub.
    """
    if is_remote(path):
        raise UsageError(f"{path} is on the Hub, and this works on this machine: compactor restore {path} ./a-store")


def open_existing(path: str) -> Store:
    """Return the store on this machine that a command was told to work on.

    Raises:
        UsageError: there is no such directory, or it holds no store, or it is a bucket.
    """
    check_local(path)
    store = open_store(path)
    if not is_store(store.root):
        raise UsageError(f"{store.root} is no store: it has neither segments nor snapshots; was another one meant?")
    return store


def open_readable(path: str) -> Store:
    """Return the store that a command was told to read, in a directory or in a bucket.

    Raises:
        UsageError: there is no such directory, or it holds no store; or it is no address of a bucket.
        StorageError: there is no such bucket for this token, or the Hub could not be reached.
    """
    if not is_remote(path):
        return open_existing(path)
    store = open_store(path)
    if not store.projects():
        raise UsageError(f"{store.root} holds no store: neither segments nor snapshots; was another address meant?")
    return store


def only_project(store: Store, project: str | None) -> str:
    """Return the project, which may be left out when the store has exactly one.

    Raises:
        UsageError: there is none, or more than one to choose from.
    """
    if project is not None:
        return project
    found = store.projects()
    if len(found) != 1:
        listed = ", ".join(found) or "none"
        raise UsageError(f"name a project, for {store.root} has not exactly one: {listed}")
    return found[0]
