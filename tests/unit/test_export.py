"""An export is complete or absent, and says what was logged."""

from __future__ import annotations

import csv
import json
import math
import os
from typing import Any

import pyarrow.parquet as pq
import pytest

import eventlog
from compactor.config import CompactorConfig
from compactor.fold import fold
from eventlog import export as module
from eventlog import jsonl
from eventlog.config import WriterConfig
from eventlog.errors import ConflictError, UsageError
from eventlog.export import Exported, export
from eventlog.fs import LOCAL
from eventlog.store import Store, open_store

PROJECT = "p"
HOSTILE = 'a "quoted", comma\nand a line; =1+1 ü'


@pytest.fixture
def root(tmp_path: Any) -> str:
    """Return a store with two runs, the first folded, the second in the tail."""
    store = str(tmp_path / "store")
    settings = WriterConfig(sync_interval_s=None)
    with eventlog.init(PROJECT, "first", dir=store, settings=settings, config={"lr": 0.1}, tags=["t"]) as run:
        for value in (1.0, math.nan, math.inf, -math.inf):
            run.log({"x": value})
        run.log({"text": HOSTILE, "y": 2.0}, step=2**62)
        run.log_system({"cpu": 5.0})
    fold(LOCAL, store, PROJECT, CompactorConfig())
    with eventlog.init(PROJECT, HOSTILE, dir=store, settings=settings) as run:
        run.log({"x": 7.0})
    return store


def made(root: str, tmp_path: Any, **options: Any) -> tuple[str, Exported]:
    path = str(tmp_path / "out" / "file")
    return path, export(open_store(root), PROJECT, path, **options)


def lines(path: str) -> list[dict[str, Any]]:
    with open(path, encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def cells(path: str) -> list[dict[str, str]]:
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("table", ["metrics", "system", "events", "runs"])
@pytest.mark.parametrize("form", ["parquet", "csv", "jsonl"])
def test_every_table_has_the_rows_of_the_store_in_every_format(root: str, tmp_path: Any, table: str, form: str):
    path, done = made(root, tmp_path, table=table, form=form)
    expected = getattr(open_store(root), table)(PROJECT).num_rows
    found = {
        "parquet": lambda p: pq.read_table(p).num_rows,
        "csv": lambda p: len(cells(p)),
        "jsonl": lambda p: len(lines(p)),
    }
    assert found[form](path) == done.rows == expected
    assert done.size_bytes == os.path.getsize(path)
    assert os.listdir(os.path.dirname(path)) == ["file"]


def test_parquet_is_the_table_itself(root: str, tmp_path: Any):
    path, _ = made(root, tmp_path)
    expected = open_store(root).metrics(PROJECT)
    found = pq.read_table(path)
    assert found.schema.names == expected.schema.names
    assert str(found["x"].to_pylist()) == str(expected["x"].to_pylist())
    assert found["_step"].to_pylist() == expected["_step"].to_pylist()
    assert found["_time"].cast("int64").to_pylist() == expected["_time"].cast("int64").to_pylist()


def test_csv_keeps_hostile_text_and_tells_nan_from_nothing(root: str, tmp_path: Any):
    path, _ = made(root, tmp_path, form="csv")
    rows = cells(path)
    assert [row["x"] for row in rows] == ["1", "nan", "inf", "-inf", "", "7"]
    assert [row["y"] for row in rows] == ["", "", "", "", "2", ""]
    assert rows[4]["_step"] == str(2**62)
    path, _ = made(root, tmp_path, form="csv", table="events", force=True)
    (row,) = [row for row in cells(path) if row["kind"] == "text"]
    assert json.loads(row["payload"]) == HOSTILE
    path, _ = made(root, tmp_path, form="csv", table="runs", force=True)
    first, second = cells(path)
    assert second["name"] == HOSTILE
    assert (json.loads(first["tags"]), json.loads(first["config"])) == (["t"], {"lr": 0.1})
    assert json.loads(first["metrics"])["x"]["first"] == 1.0
    assert json.loads(first["metrics"])["x"]["min"] == "-Infinity"


def test_json_lines_leave_out_what_was_not_logged_and_spell_what_json_lacks(root: str, tmp_path: Any):
    path, _ = made(root, tmp_path, form="jsonl")
    rows = lines(path)
    assert [row.get("x") for row in rows] == [1.0, "NaN", "Infinity", "-Infinity", None, 7.0]
    assert "y" not in rows[0]
    assert "_rank" not in rows[0]
    assert rows[0]["_time"].endswith("Z")
    assert "T" in rows[0]["_time"]
    path, _ = made(root, tmp_path, form="jsonl", table="events", force=True)
    (row,) = [row for row in lines(path) if row["kind"] == "text"]
    assert row["payload"] == HOSTILE
    path, _ = made(root, tmp_path, form="jsonl", table="runs", force=True)
    assert lines(path)[0]["config"] == {"lr": 0.1}
    assert lines(path)[0]["metrics"]["x"]["max"] == "Infinity"


def test_narrow_has_one_row_a_point(root: str, tmp_path: Any):
    path, done = made(root, tmp_path, form="jsonl", narrow=True)
    assert done.rows == 6
    assert [(row["name"], row["value"]) for row in lines(path)][-1] == ("x", 7.0)
    with pytest.raises(UsageError, match="only metrics"):
        made(root, tmp_path, table="events", narrow=True, force=True)


def test_a_file_that_is_there_is_replaced_only_by_force(root: str, tmp_path: Any):
    path, _ = made(root, tmp_path, form="csv")
    with pytest.raises(UsageError, match="is there already"):
        made(root, tmp_path, form="jsonl")
    assert cells(path)
    made(root, tmp_path, form="jsonl", force=True)
    assert lines(path)
    with pytest.raises(UsageError, match="is a directory"):
        export(open_store(root), PROJECT, str(tmp_path), force=True)


@pytest.mark.parametrize("options", [{"form": "xlsx"}, {"table": "rows"}], ids=str)
def test_what_there_is_not_is_refused(root: str, tmp_path: Any, options: dict[str, str]):
    with pytest.raises(UsageError, match="there is no"):
        made(root, tmp_path, **options)
    assert not os.path.exists(tmp_path / "out")


class Stopped(Exception):  # noqa: N818 - it stands for a Ctrl-C
    """Raised from outside."""


@pytest.mark.invariant(9)
def test_an_export_that_is_stopped_leaves_nothing_behind(root: str, tmp_path: Any):
    def stop(rows: int) -> None:
        assert rows == 5
        raise Stopped

    with pytest.raises(Stopped):
        made(root, tmp_path, progress=stop)
    assert os.listdir(tmp_path / "out") == []


def test_an_export_that_is_stopped_keeps_the_older_file(root: str, tmp_path: Any):
    path, _ = made(root, tmp_path, form="csv")
    before = LOCAL.read(path)

    def stop(_: int) -> None:
        raise Stopped

    with pytest.raises(Stopped):
        made(root, tmp_path, form="csv", progress=stop, force=True)
    assert LOCAL.read(path) == before


def test_a_new_metric_that_comes_meanwhile_is_a_conflict_and_not_left_out(root: str, tmp_path: Any):
    class Growing(Store):
        def metric_names(self, project: str, *, table: str = "metrics") -> list[str]:
            return [name for name in super().metric_names(project, table=table) if name != "y"]

    with pytest.raises(ConflictError, match="new names were logged meanwhile: y"):
        export(Growing(root), PROJECT, str(tmp_path / "file"))
    assert not os.path.exists(tmp_path / "file")


def test_floats_that_json_lacks_are_spelled_all_the_way_down():
    value = {"a": [math.nan, (math.inf, 1.0)], "b": {"c": -math.inf}, "d": "NaN", "e": None, "f": 3}
    assert jsonl.speakable(value) == {
        "a": ["NaN", ["Infinity", 1.0]],
        "b": {"c": "-Infinity"},
        "d": "NaN",
        "e": None,
        "f": 3,
    }
    assert json.loads(jsonl.text(value))["a"][0] == "NaN"


def test_formats_and_sinks_are_the_same():
    assert set(module._SINKS) == set(module.FORMATS)
