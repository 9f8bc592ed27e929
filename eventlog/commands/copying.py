"""`eventlog export` and `ship`: take data out of a store."""

from __future__ import annotations

import os
import sys
from typing import Final

import click

from eventlog import names, spool
from eventlog.commands.output import PathOf, console, emit, json_option, only_project, open_existing, store_argument
from eventlog.errors import UsageError
from eventlog.export import FORMATS, Exported
from eventlog.export import export as run_export
from eventlog.present import clean, count, size

_ALL: Final = "all"


@click.command()
@store_argument
@click.argument("project", required=False)
@click.option("--format", "form", type=click.Choice(FORMATS), required=True, help="Of the files.")
@click.option("--output", type=PathOf(), help="A file for one table, a directory for all; default from the project.")
@click.option(
    "--table", type=click.Choice([*names.TABLES, _ALL]), default="metrics", show_default=True, help="What to export."
)
@click.option("--narrow", is_flag=True, help="Metrics with one row a point instead of one a log().")
@click.option("--force", is_flag=True, help="Replace files that are there.")
@json_option
def export(
    store: str,
    project: str | None,
    form: str,
    output: str | None,
    table: str,
    *,
    narrow: bool,
    force: bool,
    as_json: bool,
) -> None:
    """Write tables of PROJECT to files, each of which appears when it is complete.

    In JSON lines what was not logged is left out, NaN and infinities are the strings "NaN", "Infinity" and
    "-Infinity", and times are text with nanoseconds. In CSV they are nan, inf and -inf, and lists are JSON text.
    """
    opened = open_existing(store)
    project = only_project(opened, project)
    tables = names.TABLES if table == _ALL else (table,)
    paths = {name: _path(output, project, name, form, several=table == _ALL) for name in tables}
    if any(_is_inside(path, opened.root) for path in paths.values()):
        raise UsageError(f"{opened.root} is the store itself: give --output another place")
    taken = [path for path in paths.values() if os.path.exists(path)]
    if taken and not force:
        raise UsageError(f"{taken[0]} is there already; --force replaces it")
    done: dict[str, Exported] = {}
    for name, path in paths.items():
        with console(stderr=True).status(name) as status:
            done[name] = run_export(
                opened,
                project,
                path,
                table=name,
                form=form,
                narrow=narrow and name == "metrics" if table == _ALL else narrow,
                force=force,
                progress=lambda rows, name=name, status=status: status.update(f"{name}: {count(rows)} rows"),  # type: ignore[misc]
            )
    if as_json:
        emit({name: exported._asdict() for name, exported in done.items()})
        return
    for exported in done.values():
        click.echo(f"{clean(exported.path)}: {count(exported.rows)} rows, {size(exported.size_bytes)}")


def _path(output: str | None, project: str, table: str, form: str, *, several: bool) -> str:
    name = f"{table}.{form}"
    encoded = names.encode_name(project)
    if several:
        return os.path.join(output or encoded, name)
    if output is None:
        return f"{encoded}-{name}"
    return os.path.join(output, name) if os.path.isdir(output) or output.endswith(os.sep) else output


def _is_inside(path: str, directory: str) -> bool:
    inner, outer = os.path.realpath(path), os.path.realpath(directory)
    return inner == outer or inner.startswith(outer.rstrip(os.sep) + os.sep)


@click.command()
@click.argument("source", type=PathOf(), metavar="SOURCE")
@store_argument
@json_option
def ship(source: str, store: str, *, as_json: bool) -> None:
    """Copy what is sealed from the spool SOURCE to STORE. Safe to repeat, and to interrupt."""
    root, target = open_existing(source).root, os.path.abspath(store)
    if _is_inside(target, root):
        raise UsageError(f"{target} is in the spool itself: name the store that it stands in for")
    shipped = spool.ship(root, target)
    if as_json:
        emit(shipped._asdict())
    else:
        click.echo(f"{shipped.copied} files copied, {shipped.present} were there, {shipped.left_open} are still open")
    for path in shipped.conflicts:
        click.echo(f"conflict: {clean(path)} holds other records than the spool, and was not replaced", err=True)
    if shipped.conflicts:
        sys.exit(1)
