"""What an export wrote comes back from an import: every run, value, step, time and event."""

from __future__ import annotations

import os

import pytest
from hypothesis import given, settings

from compactor.config import CompactorConfig
from compactor.fold import fold
from eventlog.exporting.dataset import export_dataset
from eventlog.exporting.target import Directory
from eventlog.fs import LOCAL
from eventlog.importing import sources
from eventlog.importing.perform import import_runs
from eventlog.store import open_store
from eventlog.testing import Script, contents, play, strategies
from eventlog.testing.contents import Row

PROJECT = "p"
FEW = settings(max_examples=8)
OF_WRITERS = {"receipt", "dropped"}


def has_project(root: str) -> bool:
    return os.path.isdir(root) and PROJECT in open_store(root).projects()


def told(root: str) -> dict:
    """Return what a store tells of the runs that are not deleted, without what speaks for its writers."""
    if not has_project(root):
        return {}
    gone = {row["run_id"] for row in open_store(root).runs(PROJECT, deleted=True).to_pylist() if row["deleted"]}
    rows = [row for row in contents.of_store(LOCAL, root, PROJECT) if row.run_id not in gone and not of_a_writer(row)]
    return contents.by_run(rows)


def of_a_writer(row: Row) -> bool:
    facts = dict(row.cells)
    kind = facts.get("kind") if row.table == "events" else None
    return kind in OF_WRITERS or (kind == "admin" and facts["name"] == "import" and not row.run_id)


def shown(root: str) -> list[str]:
    """Return the table of runs as text; sums of floats depend on their order and are left out."""
    rows = open_store(root).runs(PROJECT).to_pylist() if has_project(root) else []
    return [repr({**row, "metrics": sorted((n, {**s, "mean": 0}) for n, s in row["metrics"])}) for row in rows]


@FEW
@given(strategies.stores())
def test_any_store_comes_back_from_its_export(tmp_path_factory: pytest.TempPathFactory, store: list[Script]) -> None:
    place = tmp_path_factory.mktemp("trip")
    source, target, dataset = str(place / "source"), str(place / "target"), str(place / "dataset")
    for index, script in enumerate(store):
        play(script, LOCAL, source, PROJECT)
        if index == 0 and has_project(source):
            fold(LOCAL, source, PROJECT, CompactorConfig())
    if not has_project(source):
        return
    export_dataset(source, PROJECT, Directory(dataset), most_cells=300, shard_bytes=2000)
    import_runs(sources.Directory(dataset), target)
    assert told(target) == told(source)
    assert shown(target) == shown(source)
