"""How commands print: JSON documents, tables, and the options that several commands share."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from eventlog import jsonl
from eventlog.errors import UsageError
from eventlog.present import clean
from eventlog.store import Store

_PIPE_COLUMNS: Final = 10_000

store_argument = click.argument("store", type=click.Path(), metavar="STORE")
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


def show(headers: Sequence[str], rows: Iterable[Sequence[str]], *, right: Sequence[str] = ()) -> None:
    """Print a table; cells are text, never markup.

    Args:
        headers: one a column.
        rows: of as many cells.
        right: the headers of columns that are aligned to the right.
    """
    table = Table(box=None, pad_edge=False, header_style="bold")
    for header in headers:
        table.add_column(header, justify="right" if header in right else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(clean(cell)) for cell in row))
    console().print(table)


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
