"""Decide which runs of a source are imported, and under which ids: each run once, and none over another. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

NO_RUN = ""
"""The run_id of what belongs to no run."""


class SourceRun(NamedTuple):
    """A run as its source has it.

    Attributes:
        run_id: there.
        name: for people.
        key: what tells it from every other run, wherever it is met again: see `key_of`.
        rows: how many it has, by table.
    """

    run_id: str
    name: str
    key: str
    rows: Mapping[str, int]


class Here(NamedTuple):
    """What the store has of a run: its id, and how many rows were imported, or None when it began here."""

    run_id: str
    rows: Mapping[str, int] | None


class Known(NamedTuple):
    """What a project has already.

    Attributes:
        ids: of all its runs, deleted ones too.
        keys: of all its runs, and of all that were imported.
    """

    ids: frozenset[str]
    keys: Mapping[str, Here]


class Taken(NamedTuple):
    """A run to import, and its id in the store."""

    run: SourceRun
    run_id: str


class Skipped(NamedTuple):
    """A run that is there already; `grown` says that its source has other rows than what was imported."""

    run: SourceRun
    here: Here
    grown: bool


class Plan(NamedTuple):
    """What an import does."""

    taken: list[Taken]
    skipped: list[Skipped]


def key_of(run_id: str, created_ns: int) -> str:
    """Return what tells a run from every other: its id, and when it began, for ids need not be unique over all stores.

    It does not depend on where a run is found, so a copy of a source, and a later state of it, are known.
    """
    return f"{run_id}@{created_ns}"


def plan_import(runs: Iterable[SourceRun], known: Known, *, again: bool, new_id: Callable[[], str]) -> Plan:
    """Return which runs are imported and which are there already.

    A run keeps its id unless another run has it. What belongs to no run stays so.

    Args:
        runs: of the source.
        known: what the project has.
        again: import also what is there already, under new ids.
        new_id: returns an id that no run has.
    """
    plan = Plan([], [])
    used = set(known.ids)
    for run in runs:
        here = known.keys.get(run.key)
        if here is not None and not again:
            plan.skipped.append(Skipped(run, here, here.rows is not None and dict(here.rows) != dict(run.rows)))
            continue
        run_id = run.run_id
        if run_id != NO_RUN and (here is not None or run_id in used):
            run_id = new_id()
        used.add(run_id)
        plan.taken.append(Taken(run, run_id))
    return plan
