"""`eventlog verify` and `inspect`: is everything there, and what is in this file?"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, Final

import click
import msgspec

from eventlog import inspect as inspection
from eventlog.commands.output import PathOf, console, emit, json_option, open_readable, show, store_argument
from eventlog.fs import LOCAL, Fs
from eventlog.hub.address import is_remote
from eventlog.present import clean, count
from eventlog.verify import verify as run_verify
from eventlog.verify.report import Report

_COUNTS: Final = (
    "records",
    "folded",
    "tail",
    "gaps",
    "dropped",
    "duplicates",
    "quarantined",
    "lost",
    "doubled",
    "writers",
    "files",
)


@click.command()
@store_argument
@click.option("--project", help="Only this one.")
@click.option("--blobs", is_flag=True, help="Also read and hash every blob.")
@json_option
def verify(store: str, project: str | None, *, blobs: bool, as_json: bool) -> None:
    """Account for every record of STORE. Exits with 0 when all are accounted for, 1 when there are findings.

    It finds and never repairs. Nothing is written, and writers and a compactor may go on meanwhile.
    """
    root = open_readable(store).root
    with _progress(quiet=as_json) as progress:
        report = run_verify(root, project, fs=_fs(root), blobs=blobs, progress=progress)
    if as_json:
        emit(report)
    else:
        _print(report)
    click.get_current_context().exit(0 if report.ok else 1)


def _fs(root: str) -> Fs:
    if not is_remote(root):
        return LOCAL
    from eventlog.hub.filesystem import BucketFs

    return BucketFs.at(root)


@contextlib.contextmanager
def _progress(*, quiet: bool) -> Iterator[Callable[[str], None] | None]:
    out = console(stderr=True)
    if quiet or not out.is_terminal:
        yield None
        return
    with out.status("reading") as status:
        yield lambda what: status.update(f"reading {clean(what)}")


def _print(report: Report) -> None:
    rows = [[p.project, *(count(getattr(p, name)) for name in _COUNTS)] for p in report.projects]
    show(["project", *_COUNTS], rows, right=_COUNTS)
    out = console()
    for project in report.projects:
        for table, checksum in project.checksum.items():
            out.print(f"checksum {clean(project.project)} {table} {checksum}", markup=False, soft_wrap=True)
        for note in project.notes:
            out.print(
                f"note: {clean(note.project)}: {clean(note.where)}: {clean(note.message)}", markup=False, soft_wrap=True
            )
    for finding in report.findings:
        line = f"{finding.code}: {clean(finding.project)}: {clean(finding.where)}: {clean(finding.message)}"
        out.print(line, markup=False, style="red", soft_wrap=True)
    verdict = "every record is accounted for" if report.ok else f"{len(report.findings)} findings"
    out.print(f"{count(report.records)} records, {verdict}", markup=False, style="green" if report.ok else "bold red")


@click.command()
@click.argument("file", type=PathOf(), metavar="FILE")
@click.option("--limit", type=click.IntRange(0), default=100, show_default=True, help="Show at most so many entries.")
@json_option
def inspect(file: str, limit: int, *, as_json: bool) -> None:
    """Show what is in FILE: a segment frame by frame, damage included; a manifest; a parquet file.

    Exits with 1 when a segment holds damage; a torn tail of an open one is none.
    """
    found = inspection.inspect(file, limit=limit)
    if as_json:
        emit(found)
    else:
        _print_inspected(found)
    click.get_current_context().exit(1 if found.problems else 0)


def _print_inspected(found: inspection.Inspected) -> None:
    out = console()
    out.print(f"{found.form} {clean(found.path)}", markup=False, style="bold", soft_wrap=True)
    for name, value in found.facts.items():
        out.print(f"  {name}: {_fact(value)}", markup=False, soft_wrap=True)
    if found.entries:
        headers = list(found.entries[0])
        right = [name for name, value in found.entries[0].items() if isinstance(value, int)]
        show(headers, [[_fact(value) for value in entry.values()] for entry in found.entries], right=right)
    if found.left_out:
        out.print(f"and {found.left_out} more; --limit shows them")
    for problem in found.problems:
        out.print(clean(problem), markup=False, style="red")


def _fact(value: Any) -> str:
    if value is None:
        return ""
    return clean(value if isinstance(value, str) else msgspec.json.encode(value).decode())
