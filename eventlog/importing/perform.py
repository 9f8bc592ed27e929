"""Import: find out what a source is, decide which of its runs are new here, and bring these in, all or none."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final, NamedTuple

from eventlog import names
from eventlog.append import SOFTWARE
from eventlog.errors import UsageError
from eventlog.exporting import layout
from eventlog.importing.exported import ExportedProject
from eventlog.importing.origins import Origin, known_of
from eventlog.importing.plan import NO_RUN, Plan, plan_import
from eventlog.importing.sources import Place, Project
from eventlog.importing.staging import Staging
from eventlog.importing.trackio_files import find_projects
from eventlog.importing.trackio_parquet import TrackioProject

_SHOWN: Final = 5


class Imported(NamedTuple):
    """What an import did with one project.

    Attributes:
        project: in the source.
        into: in the store.
        form: of the source: "eventlog" or "trackio".
        runs: how many were imported.
        records: how many were appended.
        renamed: new ids by the ids of runs in the source whose ids were taken.
        present: ids, in the source, of runs that were there already and were left out.
        grown: those of them that have other rows in the source than what was imported.
        left_out: what could not be kept: counts by reason.
    """

    project: str
    into: str
    form: str
    runs: int
    records: int
    renamed: dict[str, str]
    present: list[str]
    grown: list[str]
    left_out: dict[str, int]


def import_runs(
    place: Place,
    root: str,
    *,
    project: str | None = None,
    into: str | None = None,
    again: bool = False,
    progress: Callable[[str], None] = lambda _: None,
) -> list[Imported]:
    """Append the runs of an export to a store as new records, which say where they came from; replace nothing.

    All runs of a project that are new come in at once, or none. A run that began here or was imported before, from
    wherever, is known by its id and its beginning, and left out. Blobs of an import that failed may stay, named by no
    record.

    Args:
        place: an export of `eventlog export --to`, or of Trackio.
        root: the store's directory; made when it is missing.
        project: only this one of the source; default all.
        into: the project here; default that of the source.
        again: import also what is there already, as runs of their own with new ids.
        progress: called with what is being done.

    Returns:
        What was done, by project.

    Raises:
        UsageError: the source is no export, or has no such project, or several and one name for all.
        ConflictError: another import is at work.
        DataError: a file of the source is damaged; of its project nothing was imported.
        StorageError: the source cannot be read, or the store not be written.
        OSError: likewise.
    """
    progress(f"{place}: which runs are there?")
    found = _projects(place, project)
    if into is not None and len(found) > 1:
        raise UsageError(f"{place} has several projects, name one: {', '.join(one.name for one in found)}")
    for one in found:
        names.encode_name(into or one.name)
    with Staging(root) as staging:
        return [_import(place, one, into or one.name, staging, again=again, progress=progress) for one in found]


def _projects(place: Place, wanted: str | None) -> list[Project]:
    there = place.listing()
    if layout.INDEX in there:
        with place.fetch(layout.INDEX) as path, open(path, "rb") as file:
            index = layout.decode(file.read(), f"{place}/{layout.INDEX}")
        known = [index.project]
        _check(place, known, wanted)
        return [ExportedProject(place, index)]
    files = find_projects(place)
    if not files:
        raise UsageError(
            f"{place} is neither an export of eventlog nor one of Trackio: it has no {layout.INDEX}, and no table"
        )
    _check(place, [one.project for one in files], wanted)
    return [TrackioProject(place, one) for one in files if wanted in (None, one.project)]


def _check(place: Place, known: list[str], wanted: str | None) -> None:
    if wanted is not None and wanted not in known:
        raise UsageError(f"{place} has no project {wanted!r}; it has: {', '.join(known[:_SHOWN])}")


def _import(
    place: Place, source: Project, into: str, staging: Staging, *, again: bool, progress: Callable[[str], None]
) -> Imported:
    plan = plan_import(source.runs, known_of(staging.root, into), again=again, new_id=names.new_id)
    records = 0
    if plan.taken:
        progress(f"{source.name}: {len(plan.taken)} runs")
        records = _bring_in(place, source, into, staging, plan)
    renamed = {one.run.run_id: one.run_id for one in plan.taken if one.run_id != one.run.run_id}
    runs = sum(one.run.run_id != NO_RUN for one in plan.taken)
    present = [one.run.run_id for one in plan.skipped if one.run.run_id != NO_RUN]
    grown = [one.run.run_id for one in plan.skipped if one.grown]
    left_out = {reason: count for reason, count in source.left_out.items() if count}
    return Imported(source.name, into, source.form, runs, records, renamed, present, grown, left_out)


def _bring_in(place: Place, source: Project, into: str, staging: Staging, plan: Plan) -> int:
    staged = staging.begin(into)
    try:
        source.read({one.run.run_id: one.run_id for one in plan.taken}, staging.root, staged)
        now_ns = time.time_ns()
        for one in plan.taken:
            facts = (place.origin, source.form, source.name, one.run.run_id, dict(one.run.rows), SOFTWARE)
            staged.add(Origin(one.run_id, one.run.key, *facts).record(now_ns), 256)
        staged.bring_in()
    finally:
        staged.close()
    return staged.records
