"""A store answers completely to the last log, whatever was logged, whether the compactor ran or not."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import eventlog
from compactor.config import CompactorConfig
from compactor.fold import fold
from eventlog import names, schema
from eventlog.config import WriterConfig
from eventlog.errors import DataError, UsageError
from eventlog.fs import LOCAL
from eventlog.store import Store, open_store
from eventlog.writer import Writer

PROJECT = "p"
QUIET = WriterConfig(sync_interval_s=None)


@pytest.fixture
def root(tmp_path: Any) -> str:
    return str(tmp_path / "store")


def start(root: str, name: str = "run", **options: Any) -> eventlog.Run:
    return eventlog.init(PROJECT, name, dir=root, settings=QUIET, **options)


def fold_all(root: str) -> None:
    fold(LOCAL, root, PROJECT, CompactorConfig())


def leave(root: str) -> None:
    """Do nothing: everything stays in the tail."""
    del root


FOLDS = pytest.mark.parametrize("settle", [leave, fold_all], ids=["tail", "folded"])
Settle = Callable[[str], None]


def column(table: pa.Table, name: str) -> list[Any]:
    found: list[Any] = table[name].to_pylist()
    return found


@pytest.mark.invariant(6)
@FOLDS
def test_every_record_is_seen_as_soon_as_log_has_returned(root: str, settle: Settle):
    run = start(root)
    store = open_store(root)
    for step in range(30):
        run.log({"loss": float(step), "text": f"t{step}"})
        if step % 7 == 3:
            settle(root)
        assert column(store.metrics(PROJECT), "loss") == [float(s) for s in range(step + 1)]
        assert column(store.events(PROJECT, kinds="text"), "payload") == [f'"t{s}"' for s in range(step + 1)]
    run.finish()
    settle(root)
    assert column(store.runs(PROJECT), "status") == ["finished"]
    assert column(store.runs(PROJECT), "logs") == [30]


@FOLDS
def test_numbers_are_kept_to_the_last_bit(root: str, settle: Settle):
    values = [math.nan, math.inf, -math.inf, -0.0, 5e-324, 1.7976931348623157e308, 0.1]
    with start(root) as run:
        for value in values:
            run.log({"x": value})
    settle(root)
    found = open_store(root).metrics(PROJECT)["x"]
    assert found.null_count == 0
    assert np.array(found).tobytes() == np.array(values).tobytes()
    curve = open_store(root).curve(PROJECT, "run", "x")
    assert np.array(curve["value"]).tobytes() == np.array(values).tobytes()


@FOLDS
def test_a_value_that_changes_its_type_is_kept_each_time(root: str, settle: Settle):
    with start(root) as run:
        for value in (1.0, "text", True, None, 2**60, [1, "a"], 2.0):
            run.log({"x": value})
            settle(root)
    store = open_store(root)
    assert column(store.metrics(PROJECT, names="x"), "x") == [1.0, float(2**60), 2.0]
    events = store.events(PROJECT, names="x")
    assert column(events, "kind") == ["text", "bool", "null", "int", "json"]
    assert column(events, "payload") == ['"text"', "true", "null", str(2**60), '[1,"a"]']
    assert column(store.curve(PROJECT, "run", "x"), "_step") == [0, 4, 6]


@FOLDS
def test_steps_that_repeat_decrease_or_are_huge_are_kept(root: str, settle: Settle):
    steps = [5, 5, 3, -(2**63), 2**63 - 1, 0]
    with start(root) as run:
        for step in steps:
            run.log({"x": 1.0}, step=step)
    settle(root)
    store = open_store(root)
    assert column(store.metrics(PROJECT), "_step") == steps
    assert column(store.metrics(PROJECT, steps=(0, 5)), "_step") == [5, 5, 3, 0]
    assert column(store.metrics(PROJECT, steps=range(4, 6)), "_step") == [5, 5]
    assert column(store.runs(PROJECT), "last_step") == [2**63 - 1]


@FOLDS
def test_names_of_every_kind_are_columns(root: str, settle: Settle):
    odd = [
        "_step",
        ".dot",
        "a/b",
        "ü",
        "with space",
        "x" * 300,
        '"quoted"',
        "_seq",
        "..",
        "a",
        "a.b",
        "a.b.c",
        "name",
        "kind",
    ]
    with start(root) as run:
        run.log(dict.fromkeys(odd, 1.0))
        run.log(dict.fromkeys(odd, 2.0))
    settle(root)
    store = open_store(root)
    assert store.metric_names(PROJECT) == sorted(odd)
    for name in odd:
        assert column(store.curve(PROJECT, "run", name), "value") == [1.0, 2.0]
        table = store.metrics(PROJECT, names=name)
        assert table.num_rows == 2
        assert table.num_columns == 7
    assert column(store.metrics(PROJECT), "_seq") == [2, 3]
    assert set(column(store.metrics(PROJECT, narrow=True), "name")) == set(odd)


@FOLDS
def test_more_than_a_thousand_metric_names(root: str, settle: Settle):
    with start(root) as run:
        for step in range(4):
            run.log({f"layer{index}/norm": index + step for index in range(1500)})
            run.log({f"only{step}": 1.0})
    settle(root)
    store = open_store(root)
    assert len(store.metric_names(PROJECT)) == 1504
    table = store.metrics(PROJECT)
    assert (table.num_rows, table.num_columns) == (8, 6 + 1504)
    assert column(store.curve(PROJECT, "run", "layer777/norm"), "value") == [777.0, 778.0, 779.0, 780.0]
    assert column(store.metrics(PROJECT, names=["only2"]), "only2") == [1.0]


@FOLDS
def test_several_runs_are_sorted_and_selected_by_id_and_by_name(root: str, settle: Settle):
    ids = []
    for name in ("b", "a", "b"):
        with start(root, name) as run:
            ids.append(run.id)
            run.log({"x": float(len(ids))})
    settle(root)
    store = open_store(root)
    assert column(store.metrics(PROJECT), "_run_id") == sorted(ids)
    assert column(store.metrics(PROJECT, runs=ids[1]), "x") == [2.0]
    assert column(store.metrics(PROJECT, runs="b"), "x") == [1.0, 3.0]
    assert column(store.metrics(PROJECT, runs=["a", ids[0]]), "x") == [1.0, 2.0]
    assert store.metrics(PROJECT, runs=[]).num_rows == 0
    found = store.find_run(PROJECT, name="b")
    assert found is not None
    assert (found.run_id, found.last_step) == (ids[2], 0)
    assert store.find_run(PROJECT, name="c") is None
    assert store.find_run("other", name="b") is None
    assert column(store.curve(PROJECT, "b", "x"), "value") == [3.0]
    with pytest.raises(UsageError, match="no run 'c'"):
        store.metrics(PROJECT, runs="c")
    with pytest.raises(UsageError, match="no run 'c'"):
        store.curve(PROJECT, "c", "x")


def admin(root: str, run_id: str, action: str, **values: Any) -> None:
    writer = Writer(root, PROJECT, config=QUIET)
    writer.append(schema.Admin(writer.time_ns(), run_id, action, values))
    writer.close()


@FOLDS
def test_deleted_runs_are_left_out_until_they_are_undeleted(root: str, settle: Settle):
    ids = []
    for name in ("kept", "gone"):
        with start(root, name) as run:
            ids.append(run.id)
            run.log({"x": 1.0, "text": "t"})
            run.log_system({"cpu": 1.0})
    settle(root)
    store = open_store(root)
    cursor = store.follow(PROJECT).cursor
    admin(root, ids[1], "delete")
    settle(root)
    assert column(store.runs(PROJECT), "name") == ["kept"]
    assert column(store.runs(PROJECT, deleted=True), "deleted") == [False, True]
    for rows in (store.metrics(PROJECT), store.system(PROJECT), store.events(PROJECT)):
        assert set(column(rows, "_run_id")) == {ids[0]}
    assert store.find_run(PROJECT, name="gone") is None
    assert store.metrics(PROJECT, runs=ids[1]).num_rows == 0
    assert store.follow(PROJECT, cursor).events.num_rows == 0
    with pytest.raises(UsageError, match="no run"):
        store.curve(PROJECT, "gone", "x")
    admin(root, ids[1], "undelete")
    settle(root)
    assert column(store.runs(PROJECT), "name") == ["kept", "gone"]
    assert store.metrics(PROJECT).num_rows == 2


@FOLDS
def test_a_renamed_run_is_found_by_its_new_name(root: str, settle: Settle):
    with start(root, "old") as run:
        run.log({"x": 1.0})
    settle(root)
    admin(root, run.id, "rename", name="new")
    settle(root)
    store = open_store(root)
    assert column(store.runs(PROJECT), "name") == ["new"]
    assert column(store.metrics(PROJECT, runs="new"), "x") == [1.0]
    assert store.find_run(PROJECT, name="old") is None


@FOLDS
def test_the_runs_table_says_what_was_said_of_a_run(root: str, settle: Settle):
    with start(root, config={"lr": 0.1, "deep": {"a": [1]}}, group="g", tags=["t"]) as run:
        run.log({"x": 3.0})
        run.log({"x": math.nan})
        run.log({"x": 1.0, "y": 2.0})
        run.log_system({"cpu": 5.0})
        run.alert("careful")
        run.config["lr"] = 0.2
        run.summary["best"] = 7
        run.define_metric("x", goal="minimize")
    settle(root)
    table = open_store(root).runs(PROJECT)
    (row,) = table.drop_columns(["created", "first_time", "last_time"]).to_pylist()
    assert (row["run_id"], row["name"], row["group"], row["tags"]) == (run.id, "run", "g", ["t"])
    assert (row["logs"], row["system"], row["alerts"], row["dropped"], row["status"]) == (3, 1, 1, 0, "finished")
    assert row["config"] == '{"deep":{"a":[1]},"lr":0.2}'
    assert row["summary"] == '{"best":7}'
    assert '"goal":"minimize"' in row["metric_defs"]
    stats = dict(row["metrics"])
    x = {key: value for key, value in stats["x"].items() if key != "mean"}
    assert x == {"first": 3.0, "last": 1.0, "min": 1.0, "min_step": 2, "max": 3.0, "max_step": 0, "count": 3}
    assert stats["x"]["mean"] == 2.0


@FOLDS
def test_follow_gives_each_row_once(root: str, settle: Settle):
    run = start(root)
    store = open_store(root)
    since = store.follow(PROJECT)
    assert since.events.num_rows == 1
    seen: list[float] = []
    for step in range(12):
        run.log({"x": float(step)})
        if step % 4 == 1:
            settle(root)
        if step % 3 == 2:
            since = store.follow(PROJECT, since.cursor)
            seen += column(since.metrics, "x")
    assert seen == [float(step) for step in range(12)]
    again = store.follow(PROJECT, since.cursor)
    assert (again.metrics.num_rows, again.system.num_rows, again.events.num_rows) == (0, 0, 0)
    assert again.cursor == since.cursor == {run.writer_id: 13}
    with start(root, "other") as other:
        other.log({"x": -1.0})
    last = store.follow(PROJECT, since.cursor)
    assert column(last.metrics, "x") == [-1.0]
    run.finish()


@FOLDS
def test_a_cursor_in_the_middle_cuts_there(root: str, settle: Settle):
    with start(root) as run:
        for step in range(100):
            run.log({"x": float(step)})
    settle(root)
    since = open_store(root).follow(PROJECT, {run.writer_id: 91})
    assert column(since.metrics, "x") == [float(step) for step in range(90, 100)]
    assert column(since.events, "kind") == ["run_end"]


def test_the_dataset_and_the_files_are_exactly_the_snapshot(root: str):
    run = start(root)
    for step in range(3):
        run.log({"x": float(step)})
        run.log({f"y{step}": 1.0})
        fold_all(root)
    run.log({"x": 99.0})
    store = open_store(root)
    assert len(store.files(PROJECT)) == 3
    assert all(os.path.isfile(path) for path in store.files(PROJECT, "events"))
    table = store.dataset(PROJECT).to_table()
    assert table.num_rows == 6
    assert {"y0", "y1", "y2"} <= set(table.schema.names)
    assert sorted(value for value in column(table, "x") if value is not None) == [0.0, 1.0, 2.0]
    assert store.dataset(PROJECT, "events").to_table().num_rows == 1
    assert store.dataset(PROJECT, "runs").to_table().num_rows == 1
    with pytest.raises(UsageError, match="no table 'rows'"):
        store.files(PROJECT, "rows")
    run.finish()


@pytest.mark.invariant(5)
def test_a_store_at_a_version_stays_at_what_that_version_had(root: str):
    run = start(root)
    for step in range(4):
        run.log({"x": float(step)})
        fold_all(root)
    run.log({"x": 99.0})
    store = open_store(root)
    assert store.versions(PROJECT) == [1, 2, 3, 4]
    for version in store.versions(PROJECT):
        pinned = store.at(version)
        assert column(pinned.metrics(PROJECT), "x") == [float(step) for step in range(version)]
        assert pinned.manifest(PROJECT).version == version
    assert store.at(2).follow(PROJECT).cursor == {run.writer_id: 3}
    with pytest.raises(UsageError, match="has no version 9"):
        store.at(9).metrics(PROJECT)
    run.finish()


@pytest.mark.invariant(4)
@FOLDS
def test_a_read_only_directory_can_be_read(settle: Settle):
    with tempfile.TemporaryDirectory() as private:
        root = os.path.join(private, "store")
        with start(root) as run:
            run.log({"x": 1.0, "file": eventlog.File(b"bytes", name="f")})
        settle(root)
        set_modes(private, 0o555)
        before = tree(root)
        done = subprocess.run([sys.executable, "-c", _READ_ALL, root], capture_output=True, text=True, check=False)
        after = tree(root)
        set_modes(private, 0o755)
    assert (done.stdout, done.returncode) == ("[1.0] 1 3\n", 0), done.stderr
    assert after == before


_READ_ALL = """
import os, sys
from eventlog.store import open_store
if os.getuid() == 0:  # to whom nothing is read-only
    os.setgid(65534)
    os.setuid(65534)
store = open_store(sys.argv[1])
print(store.metrics("p")["x"].to_pylist(), store.runs("p").num_rows, store.events("p").num_rows)
"""


def set_modes(directory: str, mode: int) -> None:
    os.chmod(directory, mode)
    for base, directories, files in os.walk(directory):
        for name in (*directories, *files):
            os.chmod(os.path.join(base, name), mode)


def tree(root: str) -> list[tuple[str, int]]:
    paths = [os.path.join(base, name) for base, _, files in os.walk(root) for name in files]
    return sorted((path, os.path.getsize(path)) for path in paths)


def test_what_is_not_there_is_named(root: str):
    with pytest.raises(UsageError, match="the directory does not exist"):
        open_store(root)
    os.makedirs(root)
    assert open_store(root).projects() == []
    with pytest.raises(UsageError, match="no project 'p'"):
        open_store(root).metrics(PROJECT)
    with start(root) as run:
        run.log({"x": 1.0})
    with pytest.raises(UsageError, match="max_points must be at least 4"):
        open_store(root).curve(PROJECT, "run", "x", max_points=3)
    assert open_store(root).curve(PROJECT, "run", "never logged").num_rows == 0


@FOLDS
def test_a_curve_keeps_its_spike_however_few_points_are_asked_for(root: str, settle: Settle):
    with start(root) as run:
        for step in range(2000):
            run.log({"x": 1e6 if step == 1234 else math.sin(step)})
    settle(root)
    found = open_store(root).curve(PROJECT, "run", "x", max_points=10)
    assert found.num_rows <= 10
    assert 1e6 in column(found, "value")
    assert column(found, "_step") == sorted(column(found, "_step"))


def test_a_blob_is_returned_as_it_was_and_refused_when_it_changed(root: str):
    with start(root) as run:
        run.log({"file": eventlog.File(b"bytes", name="f")})
    store = open_store(root)
    (digest,) = [name for _, _, found in os.walk(os.path.join(root, "blobs")) for name in found]
    assert store.blob(digest) == b"bytes"
    with open(names.blob_path(root, digest), "wb") as file:
        file.write(b"other")
    with pytest.raises(DataError, match="do not match"):
        store.blob(digest)
    with pytest.raises(UsageError):
        store.blob("no digest")


def test_answers_from_several_threads_agree(root: str):
    from concurrent.futures import ThreadPoolExecutor

    with start(root) as run:
        for step in range(500):
            run.log({"x": float(step)})
    fold_all(root)
    store = open_store(root)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: store.curve(PROJECT, "run", "x").num_rows, range(32)))
    assert found == [500] * 32


cells = st.one_of(st.floats(width=64), st.booleans(), st.text(max_size=5), st.integers(-(2**70), 2**70), st.none())
calls = st.lists(st.dictionaries(st.sampled_from("abcd"), cells, max_size=3), min_size=1, max_size=12)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(calls=calls, folds=st.sets(st.integers(0, 12)))
def test_folding_never_changes_an_answer(calls: list[dict[str, Any]], folds: set[int], tmp_path_factory: Any):
    root = str(tmp_path_factory.mktemp("store"))
    run = start(root)
    for index, call in enumerate(calls):
        run.log(call)
        if index in folds:
            fold_all(root)
    before = answers(open_store(root))
    fold_all(root)
    after = answers(open_store(root))
    assert before == after
    run.finish()


def answers(store: Store) -> list[str]:
    runs = store.runs(PROJECT).drop_columns(["metrics"])
    return [repr(t.to_pydict()) if t is runs else text(t) for t in (runs, store.events(PROJECT))] + [
        text(store.metrics(PROJECT))
    ]


def text(table: pa.Table) -> str:
    return repr({name: str(table[name].combine_chunks().to_pylist()) for name in table.schema.names if name != "_time"})


_READ_CURVE = """
import sys
from eventlog.store import open_store
curve = open_store(sys.argv[1]).curve("p", "run", "x")
print(curve.num_rows, "pandas" in sys.modules)
"""


def test_a_fresh_process_reads_a_curve_of_a_snapshot_without_importing_pandas(root: str):
    with start(root) as run:
        run.log({"x": 1.0})
    fold(LOCAL, root, PROJECT, CompactorConfig())
    done = subprocess.run([sys.executable, "-c", _READ_CURVE, root], capture_output=True, text=True, check=False)
    assert (done.stdout, done.returncode) == ("1 False\n", 0), done.stderr
