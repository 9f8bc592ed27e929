"""`eventlog tail`: print what comes."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

import click
import pyarrow as pa

from eventlog import arrow, jsonl
from eventlog.commands.output import Seconds, emit_line, only_project, open_readable, store_argument
from eventlog.present import clean, number
from eventlog.store import Since, Store

_TEXT_LENGTH: Final = 120
_TABLES: Final = ("metrics", "system", "events")


class _Line(NamedTuple):
    """A row on its way out."""

    time_ns: int
    writer_id: str
    seq: int
    table: str
    row: dict[str, Any]


@click.command()
@store_argument
@click.argument("project", required=False)
@click.option("--follow/--no-follow", default=None, help="Wait for more. Default: on a terminal only.")
@click.option("--interval", type=Seconds(0.05), default=1.0, show_default=True, help="Seconds between looks.")
@click.option("--lines", type=click.IntRange(0), default=20, show_default=True, help="Begin with the last so many.")
@click.option("--json", "as_json", is_flag=True, help="Print each row as one line of JSON.")
def tail(store: str, project: str | None, follow: bool | None, interval: float, lines: int, *, as_json: bool) -> None:  # noqa: FBT001 - click passes it by name
    """Print the last rows of PROJECT, then what comes, until Ctrl-C."""
    opened = open_readable(store)
    project = only_project(opened, project)
    waits = sys.stdout.isatty() if follow is None else follow
    try:
        cursor = _print_last(opened, project, lines, as_json=as_json)
        while waits:
            time.sleep(interval)
            since = opened.follow(project, cursor)
            cursor = since.cursor
            _print(opened, project, _in_order(since), as_json=as_json)
    except KeyboardInterrupt:
        return


def _print_last(store: Store, project: str, lines: int, *, as_json: bool) -> dict[str, int]:
    """Print the last rows and return where they end. Reads the tail, and from the snapshot a few rows a writer."""
    folded = {writer_id: mark.seq for writer_id, mark in store.manifest(project).writers.items()}
    cursor = store.follow(project, folded).cursor
    since = store.follow(project, {writer_id: max(seq - lines, 0) for writer_id, seq in cursor.items()})
    _print(store, project, _in_order(since)[-lines:] if lines else [], as_json=as_json)
    return since.cursor


def _in_order(since: Since) -> list[_Line]:
    return sorted(_lines(since), key=lambda line: line[:4])


def _lines(since: Since) -> Iterator[_Line]:
    for name in _TABLES:
        table: pa.Table = getattr(since, name)
        times = table["_time"].cast(pa.int64()).to_pylist()
        for time_ns, row in zip(times, jsonl.rows(table), strict=True):
            yield _Line(time_ns, row["_writer"], row["_seq"], name, row)


def _print(store: Store, project: str, lines: list[_Line], *, as_json: bool) -> None:
    if not lines:
        return
    if as_json:
        for line in lines:
            emit_line({"table": line.table, **line.row})
        return
    table = store.runs(project, deleted=True)
    run_names = dict(zip(table["run_id"].to_pylist(), table["name"].to_pylist(), strict=True))
    for line in lines:
        click.echo(clean(_text(line, run_names)))


def _text(line: _Line, run_names: dict[str, str]) -> str:
    row = line.row
    clock = time.strftime("%H:%M:%S", time.localtime(line.time_ns / 1e9))
    start = f"{clock} {run_names.get(row['_run_id'], row['_run_id'])}"
    if "_step" in row:
        start += f" step {row['_step']}"
    if line.table == "events":
        payload = bytes(row["payload"]).decode()
        shown = payload if len(payload) <= _TEXT_LENGTH else payload[: _TEXT_LENGTH - 3] + "..."
        return f"{start} {row['kind']} {row['name']} {shown}"
    fixed = {field.name for field in arrow.STRUCTURAL[line.table]}
    cells = [f"{arrow.unescape(name)}={_cell(value)}" for name, value in row.items() if name not in fixed]
    return f"{start} {'system ' if line.table == 'system' else ''}{' '.join(cells)}"


def _cell(value: Any) -> str:
    return value if isinstance(value, str) else number(value)
