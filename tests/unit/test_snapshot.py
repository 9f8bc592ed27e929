"""A snapshot is exactly the files that its manifest names, for as long as they are held."""

from __future__ import annotations

import contextlib
import os
from typing import Any

import msgspec
import pytest

import eventlog
from compactor.collect import collect
from compactor.commit import Change, commit
from compactor.compact import merge
from compactor.config import CompactorConfig
from compactor.fold import fold
from compactor.plan import plan_merges
from eventlog import manifest as manifests
from eventlog import names
from eventlog.config import WriterConfig
from eventlog.errors import ConflictError, DataError
from eventlog.fs import LOCAL
from eventlog.snapshot import ReaderCache, Snapshot
from eventlog.store import open_store

PROJECT = "p"
AT_ONCE = CompactorConfig(fanout=2, grace_s=0.0, segment_retention_s=0.0)


@pytest.fixture
def root(tmp_path: Any) -> str:
    """Return a store with two runs that are folded in three versions, one file of metrics each."""
    store = str(tmp_path / "store")
    for index in range(3):
        with eventlog.init(PROJECT, f"run{index % 2}", dir=store, id=f"id{index % 2}", settings=quiet()) as run:
            for step in range(100):
                run.log({"x": index * 100.0 + step, f"only{index}": 1.0})
        fold(LOCAL, store, PROJECT, CompactorConfig())
    return store


def quiet() -> WriterConfig:
    return WriterConfig(sync_interval_s=None)


def snapshot(root: str, version: int | None = None) -> Snapshot:
    newest = manifests.load_newest(LOCAL, root, PROJECT)[0]
    found = newest if version is None else manifests.load(LOCAL, root, PROJECT, version)
    return Snapshot(LOCAL, root, found, ReaderCache(LOCAL))


def compact_and_collect(root: str) -> list[str]:
    """Merge all files and delete what the new version does not need; return what was deleted."""
    while True:
        newest, _ = manifests.load_newest(LOCAL, root, PROJECT)
        merges = plan_merges(newest, AT_ONCE)
        if not merges:
            return collect(LOCAL, root, PROJECT, AT_ONCE, time_ns=lambda: 1 << 62).removed
        staged = merge(LOCAL, root, newest, merges[0])
        removed = [file.path for file in merges[0].files]
        commit(LOCAL, root, PROJECT, Change(action="compact", added=staged, removed=removed))


def values(root: str) -> list[float]:
    return sorted(value for table in snapshot(root).tables("metrics", None, ["x"]) for value in table["x"].to_pylist())


def test_all_rows_of_all_files_and_nothing_else(root: str):
    assert values(root) == [float(value) for value in range(300)]
    assert len(snapshot(root).paths("metrics")) == 3
    assert snapshot(root, 1).metric_names("metrics") == {"x", "only0"}
    assert snapshot(root).metric_names("metrics") == {"x", "only0", "only1", "only2"}


def test_only_files_that_hold_the_run_and_the_metric_are_opened(root: str):
    found = snapshot(root)
    assert len(list(found.select("metrics", None))) == 3
    assert len(list(found.select("metrics", ["id0"]))) == 2
    assert len(list(found.select("metrics", ["id1"]))) == 1
    assert len(list(found.select("metrics", ["id0"], "only2"))) == 1
    assert list(found.select("metrics", ["id1"], "only0")) == []
    assert list(found.select("metrics", ["nobody"])) == []
    assert list(found.select("metrics", [])) == []


def test_rows_of_one_run_are_its_pieces_only(root: str):
    (table,) = snapshot(root).tables("metrics", ["id1"], ["_run_id", "x"])
    assert set(table["_run_id"].to_pylist()) == {"id1"}
    assert table["x"].to_pylist() == [100.0 + step for step in range(100)]


def test_rows_since_a_cursor_are_cut_within_a_piece(root: str):
    found = snapshot(root)
    first, second, third = found.manifest.writers
    tables = list(found.since("metrics", {first: 1_000, second: 91, third: 1_000}))
    assert [value for table in tables for value in table["x"].to_pylist()] == [190.0 + step for step in range(10)]
    everything = list(found.since("events", {}))
    assert sum(table.num_rows for table in everything) == 6


def test_parts_are_merged_once_with_one_row_a_run(root: str):
    found = snapshot(root)
    assert found.parts() is found.parts()
    assert sorted(found.parts()["_run_id"].to_pylist()) == ["id0", "id1"]


@pytest.mark.invariant(9)
def test_files_that_are_held_open_answer_after_they_were_collected(root: str):
    held = snapshot(root)
    before = [table.to_pydict() for table in held.tables("metrics", None, None)]
    assert compact_and_collect(root)
    assert not all(os.path.exists(path) for path in held.paths("metrics"))
    assert [table.to_pydict() for table in held.tables("metrics", None, None)] == before
    assert values(root) == [float(value) for value in range(300)]


def test_files_that_were_never_opened_are_a_conflict_after_they_were_collected(root: str):
    held = snapshot(root)
    assert compact_and_collect(root)
    with pytest.raises(ConflictError, match="open the store again"):
        list(held.tables("metrics", None, None))


def test_an_open_store_goes_on_when_its_files_are_collected_under_it(root: str):
    store = open_store(root)
    assert store.runs(PROJECT).num_rows == 2
    assert compact_and_collect(root)
    assert sorted(store.metrics(PROJECT)["x"].to_pylist()) == [float(value) for value in range(300)]
    assert store.curve(PROJECT, "id1", "x").num_rows == 100


def test_a_version_that_was_collected_is_a_conflict(root: str):
    pinned = open_store(root).at(1)
    opened = open_store(root).at(2)
    assert opened.metrics(PROJECT).num_rows == 200
    compact_and_collect(root)
    with pytest.raises(ConflictError, match="version 1 of 'p' was collected"):
        pinned.metrics(PROJECT)
    assert opened.metrics(PROJECT).num_rows == 200


def test_a_damaged_file_is_an_error_that_names_it(root: str):
    (path, *_) = snapshot(root).paths("metrics")
    with open(path, "r+b") as file:
        file.truncate(100)
    with pytest.raises(DataError) as caught:
        list(snapshot(root).tables("metrics", None, None))
    assert caught.value.path == path


@pytest.mark.invariant(8)
def test_a_flipped_bit_in_a_page_is_never_returned_as_a_value(root: str):
    (path, *_) = snapshot(root).paths("metrics")
    whole = LOCAL.read(path)
    right = [table.to_pydict() for table in snapshot(root, 1).tables("metrics", None, None)]
    caught = 0
    for offset in range(4, len(whole) - 3000, 97):
        with open(path, "r+b") as file:
            file.seek(offset)
            file.write(bytes([whole[offset] ^ 1]))
        try:
            assert [table.to_pydict() for table in snapshot(root, 1).tables("metrics", None, None)] == right
        except DataError:
            caught += 1
        with open(path, "r+b") as file:
            file.seek(offset)
            file.write(whole[offset : offset + 1])
    assert caught


@pytest.mark.invariant(8)
def test_a_flipped_bit_in_a_footer_is_an_error_of_ours_or_harmless(root: str):
    (path, *_) = snapshot(root).paths("metrics")
    whole = LOCAL.read(path)
    for offset in [*range(len(whole) - 3000, len(whole), 37), *range(4)]:
        with open(path, "r+b") as file:
            file.seek(offset)
            file.write(bytes([whole[offset] ^ 0x10]))
        with contextlib.suppress(DataError):
            list(ReaderCache(LOCAL).get(path).pieces_of("id0"))
        with open(path, "r+b") as file:
            file.seek(offset)
            file.write(whole[offset : offset + 1])


def test_the_cache_holds_only_so_many_files(root: str):
    cache = ReaderCache(LOCAL, limit=2)
    found = Snapshot(LOCAL, root, manifests.load_newest(LOCAL, root, PROJECT)[0], cache)
    paths = found.paths("metrics")
    readers = [cache.get(path) for path in paths]
    assert cache.get(paths[2]) is readers[2]
    assert cache.get(paths[0]) is not readers[0]


def test_a_manifest_never_leads_out_of_its_snapshot(root: str):
    path = names.manifest_path(root, PROJECT, 3)
    found = manifests.from_bytes(LOCAL.read(path), path)
    forged = [msgspec.structs.replace(found.files[0], path="data/metrics/../../../../etc/passwd")]
    with pytest.raises(DataError, match="outside its snapshot"):
        manifests.from_bytes(manifests.to_bytes(msgspec.structs.replace(found, files=forged)), path)
