"""What Trackio itself exports is imported: every run, value, step, time, config, medium and trace."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from eventlog.errors import DataError, UsageError
from eventlog.exporting.dataset import export_dataset
from eventlog.exporting.target import Directory as Dataset
from eventlog.importing.perform import Imported, import_runs
from eventlog.importing.sources import Directory
from eventlog.importing.trackio_values import step_of, time_of, value_of
from eventlog.store import Store, open_store

# What Trackio's client does with a batch that was logged, without its waits; the exports are its own.
SCRIPT = """
import os, sys
from pathlib import Path
os.environ["TRACKIO_DIR"], static = sys.argv[1:]
import numpy, trackio
from trackio.sqlite_storage import SQLiteStorage
image = trackio.Image(numpy.zeros((2, 2, 3), numpy.uint8), caption="c")
image._save("my project", "first", 3)
trace = trackio.Trace(messages=[{"role": "user", "content": "q"}], metadata={"k": 1})
rows = [
    {"loss": 1.0, "big": 2**60 + 1, "flag": True, "text": "hi"},
    {"loss": float("nan"), "inf": float("inf")},
    {"h": trackio.Histogram([1, 2, 3])._to_dict(), "md": trackio.Markdown("# x")._to_dict()},
    {"img": image._to_dict(), "t": {"_type": "trackio.table", "_value": [{"a": 1, "b": "x"}, {"a": 2, "b": None}]}},
    {"tr": [trace._to_dict("my project", "first", 4)], "loss": 0.5},
    {"nest": {"a": 1.5, "b": {"c": 2}}, "loss": float("-inf")},
]
times = [f"2026-01-02T03:04:0{n}.000005+00:00" for n in range(6)]
config = {"lr": 3e-4, "step": 5, "timestamp": "t", "nested": {"a": 1}, "tags": ["x"], "_Group": "g", "_Username": "u"}
SQLiteStorage.bulk_log("my project", "first", rows, list(range(6)), times, config, run_id="r1")
SQLiteStorage.bulk_log("my project", "second", [{"loss": 2.0}], [7], times[:1], {"lr": 1.0}, run_id="r2")
SQLiteStorage.bulk_log_system("my project", "first", [{"gpu": 0.5}], times[:1], run_id="r1")
SQLiteStorage.bulk_log("other", "alone", [{"x": 1.0}], [0], times[:1], run_id="r3")
SQLiteStorage._dataset_import_attempted = True
SQLiteStorage.export_to_parquet()
SQLiteStorage.export_for_static_space("my project", Path(static))
"""


@pytest.fixture(scope="module")
def exports(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """Return Trackio's own directory with what it exports there, and its static export."""
    place = tmp_path_factory.mktemp("trackio")
    whole, static = str(place / "whole"), str(place / "static")
    done = subprocess.run([sys.executable, "-c", SCRIPT, whole, static], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return whole, static


def values(store: Store, project: str, run: str) -> dict[int, dict[str, Any]]:
    """Return all values of a run by step, numbers and others."""
    found: dict[int, dict[str, Any]] = {}
    for row in store.metrics(project, runs=run).to_pylist():
        numbers = {name: cell for name, cell in row.items() if not name.startswith("_") and cell is not None}
        found.setdefault(row["_step"], {}).update(numbers)
    for row in store.events(project, runs=run).to_pylist():
        if row["kind"] not in ("run_start", "upload"):
            found.setdefault(row["_step"], {})[row["name"]] = json.loads(row["payload"])
    return found


def check_first_run(store: Store, project: str) -> None:
    found = values(store, project, "first")
    assert sorted(found) == [0, 1, 2, 3, 4, 5]
    assert found[0] == {"loss": 1.0, "big": 2**60 + 1, "flag": True, "text": "hi"}
    assert math.isnan(found[1]["loss"])
    assert found[1]["inf"] == math.inf
    assert found[2]["h"]["_type"] == "trackio.histogram"
    assert sum(found[2]["h"]["values"]) == 3
    assert found[2]["md"] == {"_type": "trackio.markdown", "_value": "# x"}
    assert found[3]["t"] == {"_type": "trackio.table", "_value": [{"a": 1, "b": "x"}, {"a": 2, "b": None}]}
    assert found[3]["img"]["caption"] == "c"
    assert found[4]["loss"] == 0.5
    assert [trace["_type"] for trace in found[4]["tr"]] == ["trackio.trace"]
    assert found[4]["tr"][0]["messages"] == [{"role": "user", "content": "q"}]
    assert found[5] == {"nest/a": 1.5, "nest/b/c": 2.0, "loss": -math.inf}
    times = store.metrics(project, runs="first")["_time"].to_pylist()
    assert times[0] == datetime(2026, 1, 2, 3, 4, 0, 5, UTC)


def test_all_projects_of_trackios_directory_are_imported(exports: tuple[str, str], tmp_path: Path) -> None:
    root = str(tmp_path / "store")
    done = import_runs(Directory(exports[0]), root)
    assert [(one.project, one.form, one.runs, one.left_out) for one in done] == [
        ("myproject", "trackio", 2, {}),
        ("other", "trackio", 1, {}),
    ]
    store = open_store(root)
    check_first_run(store, "myproject")
    first, second = store.runs("myproject").to_pylist()
    assert (first["run_id"], first["name"], first["group"], first["user"]) == ("r1", "first", "g", "u")
    config = json.loads(first["config"])
    assert (config["lr"], config["nested"], config["tags"]) == (3e-4, {"a": 1}, ["x"])
    assert (config["step"], config["timestamp"]) == (5, "t")
    assert (second["name"], second["last_step"], first["system"]) == ("second", 7, 1)
    assert store.system("myproject")["gpu"].to_pylist() == [0.5]
    upload = json.loads(store.events("myproject", kinds="upload")["payload"][0].as_py())
    image = json.loads(store.events("myproject", kinds="trackio.image")["payload"][0].as_py())
    assert upload["path"] == image["file_path"]
    assert store.blob(upload["sha256"]).startswith(b"\x89PNG")


def test_the_static_export_is_the_same_source_and_its_runs_are_there_once(
    exports: tuple[str, str], tmp_path: Path
) -> None:
    root = str(tmp_path / "store")
    (done,) = import_runs(Directory(exports[1]), root, into="myproject")
    assert done.runs == 2
    assert done.left_out == {"media that values name and the source has not": 1}
    check_first_run(open_store(root), "myproject")
    (again,) = import_runs(Directory(exports[0]), root, project="myproject")
    assert (again.runs, again.present) == (0, ["r1", "r2"])


def test_media_are_found_under_the_new_name_of_their_project(exports: tuple[str, str], tmp_path: Path) -> None:
    root = str(tmp_path / "store")
    import_runs(Directory(exports[0]), root, project="myproject", into="mine")
    events = open_store(root).events("mine")
    paths = [json.loads(text) for text in events["payload"].to_pylist() if "first/3/" in text]
    assert [(one.get("path") or one.get("file_path")).split("/")[0] for one in paths] == ["mine", "mine"]


def test_media_go_on_from_store_to_store(exports: tuple[str, str], tmp_path: Path) -> None:
    first, second, place = (str(tmp_path / name) for name in ("first", "second", "dataset"))
    import_runs(Directory(exports[0]), first)
    export_dataset(first, "myproject", Dataset(place))
    import_runs(Directory(place), second)
    (digest,) = json.loads(Path(place, "eventlog.json").read_bytes())["packs"][0]["blobs"]
    assert open_store(second).blob(digest) == open_store(first).blob(digest)


# What Trackio's export has only seldom: made by hand.


def made(tmp_path: Path, columns: dict[str, Any], **more: dict[str, Any]) -> tuple[Store, Imported]:
    place = tmp_path / "source"
    place.mkdir()
    rows = len(next(iter(columns.values())))
    facts = {"run_id": ["a"] * rows, "run_name": ["n"] * rows, "timestamp": ["2026-01-02T03:04:05"] * rows}
    pq.write_table(pa.table({**facts, "step": list(range(rows)), **columns}), place / "p.parquet")
    for name, table in more.items():
        pq.write_table(pa.table(table), place / f"p_{name}.parquet")
    root = str(tmp_path / "store")
    (done,) = import_runs(Directory(str(place)), root)
    return open_store(root), done


def test_numbers_in_every_type_of_column_come_as_they_are(tmp_path: Path) -> None:
    columns = {
        "u": pa.array([2**64 - 1, 5], pa.uint64()),
        "f": pa.array([1.5, None], pa.float32()),
        "words": ["1.5", "NaN"],
        "typed": ['{"_type": "trackio.markdown", "_value": "# t"}', '{"_type": not json'],
        "when": pa.array([1, None], pa.timestamp("s")),
        "raw": [b"bytes", None],
    }
    store, done = made(tmp_path, columns)
    assert done.left_out == {}
    first, second = values(store, "p", "n").values()
    assert (first["u"], second["u"], first["f"], first["words"]) == (2**64 - 1, 5.0, 1.5, "1.5")
    assert math.isnan(second["words"])
    assert (first["typed"]["_value"], second["typed"]) == ("# t", '{"_type": not json')
    assert first["when"] == "1970-01-01T00:00:01"
    assert store.blob(first["raw"]["sha256"]) == b"bytes"


def test_rows_that_lack_facts_are_kept_as_far_as_they_can_be_and_counted(tmp_path: Path) -> None:
    columns = {
        "run_id": ["a", "a", None, None, "a"],
        "run_name": ["n", "n", None, "old", "n"],
        "step": pa.array([0.0, None, 2.0, 3.0, 0.5], pa.float64()),
        "timestamp": ["2026-01-02T03:04:05.123456789Z", "yesterday", "", "2026-01-02T03:04:05+02:00", None],
        "x": [1.0, 2.0, 3.0, 4.0, 5.0],
    }
    system = {"run_id": ["a"], "timestamp": ["2026-01-02"], "cpu": [1.0], "name": ["no number"]}
    artifacts = {"created_at": ["2026"], "version": [1]}
    store, done = made(tmp_path, columns, system=system, artifact_versions=artifacts)
    assert done.left_out == {
        "rows of artifact_versions": 1,
        "rows of metrics that name no run": 1,
        "steps that are no 64-bit integers": 1,
        "times of rows, which have the time of the row before them": 2,
        "values of system metrics that are no numbers": 1,
    }
    rows = store.metrics("p", runs="n")
    assert rows["x"].to_pylist() == [1.0, 2.0, 5.0]
    assert rows["_step"].to_pylist() == [0, None, None]
    assert len(set(rows["_time"].cast("int64").to_pylist())) == 1
    assert rows["_time"].cast("int64").to_pylist()[0] % 1_000_000_000 == 123456789
    (old,) = store.metrics("p", runs="old").to_pylist()
    assert (old["_run_id"], old["x"], old["_time"].hour) == ("old", 4.0, 1)


def test_a_file_that_is_no_parquet_is_named_and_nothing_is_imported(tmp_path: Path) -> None:
    place = tmp_path / "source"
    place.mkdir()
    table = pa.table({"run_name": ["n"], "timestamp": ["2026-01-02"], "step": [0], "x": [1.0]})
    pq.write_table(table, place / "good.parquet")
    whole = (place / "good.parquet").read_bytes()
    root = str(tmp_path / "store")
    for damage in (whole[: len(whole) // 2], b"", whole[:4] + bytes(40) + whole[44:]):
        (place / "bad.parquet").write_bytes(damage)
        with pytest.raises(DataError, match=r"bad\.parquet"):
            import_runs(Directory(str(place)), root, project="bad")
        with pytest.raises(DataError, match=r"bad\.parquet"):
            import_runs(Directory(str(place)), root)
        assert not (tmp_path / "store" / "segments" / "bad").exists()
    (done,) = import_runs(Directory(str(place)), root, project="good")
    assert done.runs + len(done.present) == 1


def test_what_is_no_export_and_what_has_no_such_project_is_told(tmp_path: Path) -> None:
    root = str(tmp_path / "store")
    with pytest.raises(UsageError, match="neither an export"):
        import_runs(Directory(str(tmp_path)), root)
    for name in ("a", "b"):
        pq.write_table(pa.table({"run_name": ["n"], "timestamp": ["2026"]}), tmp_path / f"{name}.parquet")
    with pytest.raises(UsageError, match="it has: a, b"):
        import_runs(Directory(str(tmp_path)), root, project="c")
    with pytest.raises(UsageError, match="name one: a, b"):
        import_runs(Directory(str(tmp_path)), root, into="c")
    with pytest.raises(UsageError, match="no directory"):
        Directory(str(tmp_path / "absent"))


def test_times_steps_and_values_are_read_as_they_are_meant() -> None:
    assert time_of("1970-01-01T00:00:01") == time_of("1970-01-01T02:00:01+02:00") == 1_000_000_000
    assert time_of(datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC)) == 1_000_000_000
    assert [time_of(text) for text in ("", "x", None, 5)] == [None] * 4
    assert [step_of(cell) for cell in (3, 3.0, 3.5, True, None, "3", 2**63, math.nan)] == [3, 3, *[None] * 6]
    assert value_of({"a": {"b": None, "c": 1}, "d": None}) == {"a": {"c": 1}}
    assert value_of('[{"_type": "trackio.x", "v": "Infinity"}]') == [{"_type": "trackio.x", "v": math.inf}]
    deep = '[{"_type": "trackio.x", "v": ' + "[" * 400 + "]" * 400 + "}]"
    assert value_of(deep) == deep
    assert value_of('{"_type": 5}') == '{"_type": 5}'
