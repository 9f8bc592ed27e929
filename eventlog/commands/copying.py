"""`eventlog export` and `ship`: take data out of a store."""

from __future__ import annotations

import os
import sys
from collections.abc import Collection
from typing import Final, NamedTuple

import click
from click.core import ParameterSource

from eventlog import names, spool
from eventlog.commands.output import (
    PathOf,
    console,
    emit,
    json_option,
    only_project,
    open_existing,
    open_readable,
    quiet_client,
    store_argument,
)
from eventlog.errors import UsageError
from eventlog.export import FORMATS, Exported
from eventlog.export import export as run_export
from eventlog.hub.address import is_remote, parse_bucket
from eventlog.outgoing import Shipped
from eventlog.present import clean, count, size
from eventlog.store import Store

_ALL: Final = "all"


@click.command()
@store_argument
@click.argument("project", required=False)
@click.option("--project", "named", help="The project, as its argument.")
@click.option("--format", "form", type=click.Choice(FORMATS), help="Of the files; unless --to is given.")
@click.option("--output", type=PathOf(), help="A file for one table, a directory for all; default from the project.")
@click.option(
    "--table", type=click.Choice([*names.TABLES, _ALL]), default="metrics", show_default=True, help="What to export."
)
@click.option("--narrow", is_flag=True, help="Metrics with one row a point instead of one a log().")
@click.option("--force", is_flag=True, help="Replace files that are there.")
@click.option(
    "--to", type=PathOf(), help="Make a dataset of all tables: hf://datasets/OWNER/NAME[/PATH], or a directory."
)
@click.option("--private", is_flag=True, help="With --to: nobody else may see the dataset.")
@json_option
@click.pass_context
def export(
    ctx: click.Context,
    store: str,
    project: str | None,
    named: str | None,
    form: str | None,
    output: str | None,
    table: str,
    to: str | None,
    *,
    narrow: bool,
    force: bool,
    private: bool,
    as_json: bool,
) -> None:
    """Write tables of PROJECT to files, each of which appears when it is complete, or all of it to a dataset.

    In JSON lines what was not logged is left out, NaN and infinities are the strings "NaN", "Infinity" and
    "-Infinity", and times are text with nanoseconds. In CSV they are nan, inf and -inf, and lists are JSON text.
    """
    if None not in (project, named) and project != named:
        raise UsageError(f"name one project, not {project!r} and {named!r}")
    opened = open_readable(store) if to is None else open_existing(store)
    project = only_project(opened, project or named)
    if to is not None:
        _check_only(ctx, "to", "private", "project", "named", "as_json", "store")
        if _is_inside(to, opened.root):
            raise UsageError(f"{opened.root} is the store itself: give --to another place")
        from eventlog.commands.datasets import export_to

        export_to(opened.root, project, to, private=private, as_json=as_json)
        return
    if form is None or private:
        raise UsageError("give --format, or --to for a dataset; --private is for a dataset")
    what = _Wanted(form, output, table, narrow, force)
    _export_tables(opened, project, what, as_json=as_json)


class _Wanted(NamedTuple):
    """Which files are to be made."""

    form: str
    output: str | None
    table: str
    narrow: bool
    force: bool


def _export_tables(opened: Store, project: str, wanted: _Wanted, *, as_json: bool) -> None:
    form, output, table, narrow, force = wanted
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


def _check_only(ctx: click.Context, *allowed: str) -> None:
    """Refuse options that would have no effect.

    Raises:
        UsageError: one of others was given.
    """
    for parameter in ctx.command.params:
        given = ctx.get_parameter_source(parameter.name or "") is not ParameterSource.DEFAULT
        if given and parameter.name not in allowed:
            raise UsageError(f"{parameter.opts[0]} has no meaning with --to")


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
@click.argument("target", type=PathOf(), metavar="TARGET")
@click.option("--project", "projects", multiple=True, help="Ship segments of this one only; may be repeated.")
@json_option
def ship(source: str, target: str, projects: tuple[str, ...], *, as_json: bool) -> None:
    """Copy what is sealed in the store SOURCE, and all blobs, to TARGET. Safe to repeat, and to interrupt.

    TARGET is another store, for which SOURCE is the spool, or hf://buckets/OWNER/NAME[/PREFIX], whose compactor
    takes in what any host ships.
    """
    root, wanted = open_existing(source).root, projects or None
    if is_remote(target):
        shipped = _ship_to_bucket(root, target, wanted)
    else:
        place = os.path.abspath(target)
        if _is_inside(place, root):
            raise UsageError(f"{place} is in the spool itself: name the store that it stands in for")
        shipped = spool.ship(root, place, projects=wanted)
    if as_json:
        emit(shipped._asdict())
    else:
        click.echo(f"{shipped.copied} files copied, {shipped.present} were there, {shipped.left_open} are still open")
    for path in shipped.conflicts:
        click.echo(f"conflict: {clean(path)} holds other records than {clean(root)}, and was not replaced", err=True)
    if shipped.conflicts:
        sys.exit(1)


def _ship_to_bucket(root: str, target: str, projects: Collection[str] | None) -> Shipped:
    from eventlog.hub import ship as hub
    from eventlog.hub.bucket import Bucket

    bucket = Bucket(parse_bucket(target))
    quiet_client()
    with console(stderr=True).status(clean(target)) as status:

        def tell(done: Shipped) -> None:
            status.update(f"{clean(target)}: {count(done.copied)} files, {size(done.copied_bytes)}")

        return hub.ship(root, bucket, projects=projects, on_wave=tell)
