"""The files of a static page: what its reader takes, what they hold, and when they are made anew."""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

import eventlog
from compactor.cli import cli
from compactor.config import CompactorConfig
from compactor.page import layout
from compactor.page.config import PageConfig
from compactor.page.configs import config_table
from compactor.page.export import PageExport
from compactor.page.make import PageMaker
from compactor.page.plan import Local, Mark, plan_put, read_mark
from compactor.page.target import Directory, There
from compactor.work import take_turn
from eventlog import schema
from eventlog.blobs import BlobStore
from eventlog.commands import cli as library
from eventlog.commands.changing import append_change
from eventlog.errors import UsageError
from eventlog.fs import LOCAL
from eventlog.store import open_store
from eventlog.writer import Writer

FILES = {
    "metrics.parquet",
    "runs.json",
    "settings.json",
    "eventlog-page.json",
    *(f"aux/{name}.parquet" for name in ("system_metrics", "configs", "traces", "artifacts", "artifact_versions")),
    *(f"aux/{name}.parquet" for name in ("artifact_aliases", "run_artifact_links", "external_run_artifact_links")),
}


class Page:
    """A store, and its page in a directory."""

    def __init__(self, directory: Path) -> None:
        self.store, self.out = directory / "store", directory / "page"

    def run(self, name: str = "a", **options: Any) -> Any:
        return eventlog.init(project="p", name=name, dir=self.store, **options)

    def export(self, **settings: Any) -> Any:
        return PageExport(str(self.store), "p", Directory(str(self.out)), PageConfig(**settings)).once()

    def rows(self, name: str = "metrics") -> list[dict[str, Any]]:
        """Return the rows of a table, without what is null."""
        path = self.out / ("metrics.parquet" if name == "metrics" else f"aux/{name}.parquet")
        return [{k: v for k, v in row.items() if v is not None} for row in pq.read_table(path).to_pylist()]

    def values(self, column: str) -> list[Any]:
        return [row[column] for row in self.rows() if column in row]

    def json(self, name: str) -> Any:
        return json.loads((self.out / name).read_text(encoding="utf-8"))

    def files(self) -> dict[str, bytes]:
        found = [path for path in self.out.rglob("*") if path.is_file()]
        return {path.relative_to(self.out).as_posix(): path.read_bytes() for path in found}

    def run_id(self, name: str) -> str:
        return open_store(self.store).find_run("p", name=name).run_id

    def admin(self, action: str, run: str, **values: Any) -> None:
        append_change(str(self.store), "p", self.run_id(run), action, values)


@pytest.fixture
def page(tmp_path: Path) -> Page:
    return Page(tmp_path)


def test_every_file_is_there_and_all_parquet_is_what_the_page_can_read(page: Page) -> None:
    with page.run(config={"lr": 1, "layers": [1, 2], "names": ["x"], "mixed": [1, "a"]}) as run:
        run.log({"loss": 1.0, "table": eventlog.Table(["n"], [[1]]), "h": eventlog.Histogram([1, 2, 3])}, step=5)
        run.log_system({"cpu": 1.0})
        run.log({"chat": eventlog.Trace([{"role": "user", "content": "?"}])})
    page.export()
    assert {path for path in page.files() if not path.startswith("media/")} == FILES
    for path in FILES:
        if path.endswith(".parquet"):
            about = pq.ParquetFile(page.out / path).metadata
            assert about.num_row_groups <= 1
            for group in range(about.num_row_groups):
                for index in range(about.num_columns):
                    column = about.row_group(group).column(index)
                    assert column.compression == "SNAPPY"
                    assert set(column.encodings) <= {"PLAIN", "RLE", "RLE_DICTIONARY", "PLAIN_DICTIONARY"}
                    whole = column.physical_type == "INT64" and "." in column.path_in_schema
                    assert not whole, column.path_in_schema


def test_numbers_are_float64_columns_with_nan_infinities_and_steps_beyond_53_bits(page: Page) -> None:
    with page.run() as run:
        run.log({"x": 1, "y": math.nan}, step=0)
        run.log({"x": math.inf, "z": -math.inf}, step=2**62 + 1)
    page.export()
    schema = pq.read_schema(page.out / "metrics.parquet")
    assert schema.names == ["run_id", "run_name", "timestamp", "step", "x", "y", "z"]
    assert [str(kind) for kind in schema.types] == ["string"] * 3 + ["int64"] + ["double"] * 3
    first, second = page.rows()
    assert (first["x"], second["x"], second["z"]) == (1.0, math.inf, -math.inf)
    assert math.isnan(first["y"])
    assert second["step"] == 2**62 + 1
    assert first["run_name"] == "a"
    assert first["timestamp"].endswith("+00:00")


def test_typed_values_are_json_text_and_media_are_named_by_their_bytes(page: Page) -> None:
    with page.run() as run:
        run.log({"file": eventlog.File(b"bytes", name="x.PNG"), "page": eventlog.Html("<b>hi</b>")})
        run.log({"t": eventlog.Table(["n", "f"], [[2**60, eventlog.File(b"other")]]), "m": eventlog.Markdown("# x")})
    page.export()
    files = page.files()
    (file,) = map(json.loads, page.values("file"))
    assert files["media/" + file["file_path"].removeprefix("p/")] == b"bytes"
    assert file["file_path"].endswith(".png")
    (shown,) = map(json.loads, page.values("page"))
    assert files["media/" + shown["file_path"].removeprefix("p/")] == b"<b>hi</b>"
    (table,) = map(json.loads, page.values("t"))
    assert table["_value"][0]["n"] == 2**60
    assert files["media/" + table["_value"][0]["f"]["file_path"].removeprefix("p/")] == b"other"
    assert json.loads(page.values("m")[0]) == {"_type": "trackio.markdown", "_value": "# x"}
    assert pq.read_schema(page.out / "metrics.parquet").field("t").type == pa.string()


def test_a_name_of_numbers_and_other_values_has_a_column_for_each(page: Page) -> None:
    with page.run() as run:
        run.log({"loss": 1.0, "big": 2**70, "flag": True})
        run.log({"loss": "x", "text": "y"})
    with page.run("b") as run:
        run.log({"loss": eventlog.Markdown("z"), "text": 3.0, "loss (values)": 4.0})
    page.export()
    assert page.values("loss") == [1.0]
    assert page.values("big") == [float(2**70)]
    assert page.values("text") == [3.0]
    assert page.values("text (values)") == ["y"]
    assert page.values("loss (values)") == [4.0]
    assert page.values("__loss (values)")[0] == "x"
    assert page.values("flag") == ["true"]


def test_names_that_are_the_pages_own_are_told_apart_and_any_name_is_a_column(page: Page) -> None:
    names = [
        "step",
        "__step",
        "timestamp",
        "run_id",
        "run_name",
        "id",
        "created_at",
        "",
        "a.b",
        "a/b",
        "é\n",
        "x" * 500,
    ]
    with page.run() as run:
        run.log({name: float(index) for index, name in enumerate(names)}, step=7)
    page.export()
    (row,) = page.rows()
    assert (row["step"], row["run_name"]) == (7, "a")
    columns, _ = layout.metric_columns(names, ())
    assert {columns[name]: float(index) for index, name in enumerate(names)}.items() <= row.items()
    assert len(row) == 4 + len(names)
    assert row["__timestamp"] == 2.0


def test_a_long_run_is_thinned_out_and_every_extreme_is_there(page: Page) -> None:
    with page.run() as run:
        for step in range(5000):
            value = math.sin(step / 100) * 2
            run.log({"loss": value, "spiky": -50.0 if step == 1234 else 60.0 if step == 4321 else value})
            run.log_system({"cpu": float(step)})
        for step in range(1500):
            run.log({"h": eventlog.Histogram([step])})
        for step in range(30):
            run.log({"note": eventlog.Markdown(f"{step}")})
    done = page.export(points=256)
    assert done.rows == len(page.rows())
    assert {-50.0, 60.0} < set(page.values("spiky"))
    assert 100 < len(page.values("loss")) < 300
    assert 100 < len(page.rows("system_metrics")) < 300
    assert 100 < len(page.values("h")) < 1100
    assert json.loads(page.values("h")[-1])["bins"][0] >= 1498
    assert len(page.values("note")) == 30
    page.export()
    assert 1000 < len(page.values("loss")) <= 3100


def test_many_runs_share_what_a_browser_can_hold() -> None:
    assert [layout.points_of(runs) for runs in (0, 1, 100, 200, 100_000)] == [3000, 3000, 3000, 1500, 300]
    for bad in (255, 10**7):
        with pytest.raises(UsageError, match="points"):
            PageConfig(points=bad)


def test_runs_are_listed_with_their_last_names_and_deleted_ones_are_gone(page: Page) -> None:
    for name in ("a", "b", "c"):
        with page.run(name) as run:
            run.log({"x": 1.0}, step=3)
            run.log({"x": 2.0, "f": eventlog.File(name.encode())}, step=9)
    page.export(grace_s=0)
    assert [run["name"] for run in page.json("runs.json")] == ["a", "b", "c"]
    blobs = [path for path in page.files() if path.startswith("media/")]
    assert len(blobs) == 3
    page.admin("rename", "a", name="new name")
    page.admin("delete", "b")
    done = page.export(grace_s=0)
    first, second = page.json("runs.json")
    assert first == {**first, "name": "new name", "last_step": 9, "log_count": 2}
    assert (first["id"], second["name"]) == (page.run_id("new name"), "c")
    assert {row["run_name"] for row in page.rows()} == {"new name", "c"}
    assert {row["run_name"] for row in page.rows("configs")} == {"new name", "c"}
    assert done.deleted == 1
    left = {path: data for path, data in page.files().items() if path.startswith("media/")}
    assert sorted(left.values()) == [b"a", b"c"]


def test_media_of_a_deleted_run_stay_for_pages_that_are_open_and_then_go(
    page: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "b"):
        with page.run(name) as run:
            run.log({"f": eventlog.File(name.encode())})
    page.export()
    page.admin("delete", "b")
    now = time.time()
    assert page.export(grace_s=50).waiting == 1
    monkeypatch.setattr(time, "time", lambda: now + 49)
    waits = page.export(grace_s=50)
    assert (waits.waiting, waits.deleted, waits.uploaded) == (1, 0, 0)
    monkeypatch.setattr(time, "time", lambda: now + 51)
    assert page.export(grace_s=50).deleted == 1
    assert [data for path, data in page.files().items() if path.startswith("media/")] == [b"a"]
    assert page.json(layout.MARK)["obsolete"] == {}


def test_without_any_run_all_files_are_there_and_empty(page: Page) -> None:
    with page.run() as run:
        run.log({"x": 1.0})
    page.admin("delete", "a")
    done = page.export()
    assert (done.runs, done.rows) == (0, 0)
    assert set(page.files()) == FILES
    assert page.json("runs.json") == []
    assert page.rows() == page.rows("configs") == []


def test_configs_keep_the_one_type_that_they_have_and_are_text_otherwise() -> None:
    facts = [{"run_id": name, "run_name": name, "created_at": "t"} for name in "ab"]
    configs = [
        {"lr": 0.1, "n": 1, "on": True, "opt": {"name": "adam", "b": [1, 2]}, "many": 1, "run_id": "mine", "z": None},
        {"lr": 1, "n": 2**40, "on": False, "opt": {"name": "sgd"}, "many": "auto", "huge": 2**60, "e": {}, "l": [[1]]},
    ]
    table = config_table(list(zip(facts, configs, strict=True)))
    types = {field.name: str(field.type) for field in table.schema}
    assert (types["lr"], types["n"], types["on"]) == ("double", "int64", "bool")
    assert types["opt/b"].startswith("list<")
    assert types["opt/b"].endswith("double>")
    assert table["opt/b"].to_pylist() == [[1.0, 2.0], None]
    assert table["opt/name"].to_pylist() == ["adam", "sgd"]
    assert table["many"].to_pylist() == ["1", "auto"]
    assert table["__run_id"].to_pylist() == ["mine", None]
    assert table["run_id"].to_pylist() == ["a", "b"]
    assert table["huge"].to_pylist() == [None, str(2**60)]
    assert (table["e"].to_pylist()[1], table["l"].to_pylist()[1]) == ("{}", "[[1]]")


def test_a_dict_whose_keys_meet_others_stays_a_value() -> None:
    facts = {"run_id": "a", "run_name": "a", "created_at": "t"}
    table = config_table([(facts, {"a": {"b": 1}, "a/b": 2})])
    assert table["a/b"].to_pylist() == [2]
    assert table["a"].to_pylist() == ['{"b":1}']


def test_the_page_is_complete_to_the_last_log_folded_or_not_and_the_same_either_way(page: Page) -> None:
    with page.run() as run:
        for step in range(50):
            run.log({"x": float(step), "t": eventlog.Markdown(str(step))}, step=step)
    page.export()
    before = page.files()
    take_turn(LOCAL, str(page.store), "p", CompactorConfig())
    done = page.export()
    assert page.values("x") == [float(step) for step in range(50)]
    assert page.files() == before
    assert (done.uploaded, done.deleted) == (0, 0)


def test_a_service_sees_what_was_logged_renamed_and_deleted_since_its_last_look(page: Page, tmp_path: Path) -> None:
    def look() -> list[tuple[str, float]]:
        made = maker.make()
        rows = pq.read_table(made.files["metrics.parquet"]).to_pylist()
        return [(row["run_name"], row["x"]) for row in rows if row.get("x") is not None]

    with page.run("a") as first, page.run("b") as second:
        first.log({"x": 1.0, "file": eventlog.File(b"a")})
        second.log({"x": 2.0})
        maker = PageMaker(str(page.store), "p", PageConfig(), str(tmp_path / "made"))
        assert look() == [("a", 1.0), ("b", 2.0)]
        reached = maker.reached()
        assert maker.reached() == reached
        first.log({"x": 3.0})
        assert maker.reached() != reached
        assert look() == [("a", 1.0), ("a", 3.0), ("b", 2.0)]
        page.admin("rename", "b", name="c")
        assert look() == [("a", 1.0), ("a", 3.0), ("c", 2.0)]
        page.admin("delete", "a")
        assert look() == [("c", 2.0)]
        assert not [path for path in maker.make().files if path.startswith("media/")]
        second.log({"y": "text"})
        assert "y" in pq.read_schema(maker.make().files["metrics.parquet"]).names


def test_row_groups_hold_many_runs_and_memory_a_bounded_number_of_cells(
    page: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("compactor.page.tables._CELLS_AT_ONCE", 400)
    for number in range(12):
        with page.run(f"run-{number}") as run:
            for step in range(20):
                run.log({"x": float(step), f"only-{number}": 1.0}, step=step)
    page.export()
    about = pq.ParquetFile(page.out / "metrics.parquet").metadata
    assert 5 < about.num_row_groups <= 12
    assert about.num_rows == 240
    assert len(page.values("only-7")) == 20


def test_what_is_missing_in_the_store_is_told(page: Page) -> None:
    with page.run() as run:
        run.log({"pic": {"_type": "trackio.image", "file_path": "p/a/0/never.png", "caption": ""}})
        run.log({"theirs": {"_type": "trackio.image", "file_path": "../../etc/passwd", "caption": ""}})
    done = page.export()
    assert done.missing == ["../../etc/passwd", "p/a/0/never.png"]
    assert set(page.files()) == FILES


def test_media_of_another_project_do_not_get_to_the_page(page: Page) -> None:
    with eventlog.init(project="private", name="s", dir=page.store) as run:
        run.log({"page": eventlog.Html("<b>secret</b>")})
        writer_id, run_id = run.writer_id, run.id
    from compactor.serve.typedrows import inline_path
    from eventlog.columns import EventRow

    events = open_store(page.store).events("private", kinds=["html"]).to_pylist()
    row = EventRow(run_id, "html", "page", None, 0, writer_id, events[0]["_seq"], "")
    with page.run() as run:
        run.log({"x": {"_type": "trackio.html", "file_path": inline_path("private", row), "caption": ""}})
    done = page.export()
    assert len(done.missing) == 1
    assert b"secret" not in b"".join(page.files().values())


def test_only_blobs_that_a_run_names_itself_get_to_the_page_by_their_digest(page: Page) -> None:
    with eventlog.init(project="private", name="s", dir=page.store) as run:
        run.log({"f": eventlog.File(b"secret")})
    digest = hashlib.sha256(b"secret").hexdigest()
    with page.run() as run:
        for path in (f"blob/{digest}.png", f"media/blob/{digest}"):
            run.log({"x": {"_type": "trackio.image", "file_path": path, "caption": digest}})
        run.log({"folded": eventlog.File(b"folded")})
        run.flush()
        take_turn(LOCAL, str(page.store), "p", CompactorConfig())
        # What is too long for a record, and the media in it, are the run's own.
        rows = [[eventlog.File(b"%d" % (row % 3)), "x" * 100] for row in range(1000)]
        run.log({"t": eventlog.Table(["f", "long"], rows), "list": [{"f": eventlog.File(b"mine")}]})
    assert page.export().missing == [f"blob/{digest}.png", f"media/blob/{digest}"]
    media = [data for path, data in page.files().items() if path.startswith("media/")]
    assert {b"folded", b"mine", b"0", b"1", b"2"} == set(media)


def test_a_path_means_the_file_of_its_own_project_also_where_clients_shorten_names_alike(tmp_path: Path) -> None:
    blobs = BlobStore(str(tmp_path / "store"))
    for project in ("a b", "ab"):
        ref = blobs.put(project.encode())
        with eventlog.init(project=project, name="r", dir=tmp_path / "store") as run:
            run.log({"x": {"_type": "trackio.image", "file_path": "ab/r/0/x.png", "caption": ""}})
        writer = Writer(str(tmp_path / "store"), project)
        path = f"{project}/r/0/x.png"
        writer.append(schema.Upload(1, run.id, path, ref.digest, ref.size_bytes, 0))
        writer.close()
    for project in ("a b", "ab"):
        out = tmp_path / f"page of {project}"
        done = PageExport(str(tmp_path / "store"), project, Directory(str(out))).once()
        assert done.missing == []
        assert [path.read_bytes() for path in out.rglob("media/blob/*")] == [project.encode()]


def test_a_directory_with_other_things_or_another_projects_page_is_left_alone(page: Page) -> None:
    with page.run() as run:
        run.log({"x": 1.0})
    with eventlog.init(project="q", name="s", dir=page.store) as run:
        run.log({"x": 2.0})
    page.out.mkdir()
    (page.out / "mine.txt").write_text("mine")
    with pytest.raises(UsageError, match="holds other things"):
        page.export()
    assert set(page.files()) == {"mine.txt"}
    (page.out / "mine.txt").unlink()
    page.export()
    with pytest.raises(UsageError, match="shows the project 'p'"):
        PageExport(str(page.store), "q", Directory(str(page.out))).once()
    (page.out / layout.MARK).write_text("[]")
    with pytest.raises(UsageError, match="damaged"):
        page.export()
    with pytest.raises(UsageError, match="newer version"):
        read_mark(b'{"made_by":"compactor static-export","format":2,"project":"p"}', "p", "here", is_empty=False)


def test_the_page_of_another_stores_project_of_that_name_is_left_alone_until_it_is_taken_over(page: Page) -> None:
    other = Page(page.store.parent / "other")
    other.out = page.out
    for each, data in ((page, b"mine"), (other, b"theirs")):
        with each.run() as run:
            run.log({"f": eventlog.File(data)})
    page.export()
    before = page.files()
    with pytest.raises(UsageError, match="of another store"):
        other.export()
    assert page.files() == before
    done = CliRunner().invoke(cli, ["static-export", str(other.store), str(other.out), "--once", "--take-over"])
    assert done.exit_code == 0, done.output
    other.export()
    with pytest.raises(UsageError, match="of another store"):
        page.export()
    assert b"theirs" in page.files().values()


def test_a_store_goes_on_with_its_page_as_a_copy_too_when_it_is_folded_and_others_write_to_it(page: Page) -> None:
    for number in range(20):
        with page.run(f"run-{number}") as run:
            run.log({"x": 1.0})
        if number == 0:
            page.export()
    page.export()
    take_turn(LOCAL, str(page.store), "p", CompactorConfig())
    page.store = page.store.rename(page.store.with_name("restored"))
    shutil.rmtree(page.store / "segments")
    assert page.export().uploaded == 0
    assert len(page.json(layout.MARK)["writers"]) == 16


def test_no_such_project_says_which_there_are(page: Page) -> None:
    with eventlog.init(project="q", name="s", dir=page.store) as run:
        run.log({"x": 2.0})
    with pytest.raises(UsageError, match=r"there is no project 'p' .* there are: q"):
        page.export()


def test_saved_files_get_names_that_an_address_can_hold() -> None:
    names = ["notes.md", "a/../b#?%\\c\x00d\ud800", "x#", "x?", "x_", ".tmp-x"]
    places = ["notes.md", "a/_../b____c_d_", "x_", "x__2", "x__3", "_.tmp-x"]
    assert layout.saved_files(names) == {a: f"media/files/{b}" for a, b in zip(names, places, strict=True)}


def test_no_saved_file_needs_the_name_of_another_as_a_directory_or_one_that_is_too_long() -> None:
    long = "é" * 500
    names = ["a", "a/b", "a/b/c", "c#/d", "c?", f"{long}.txt", f"{long}!.txt", f"{long}/{long}.{long}", "x/" * 2000]
    places = layout.saved_files(names)
    assert [places[name].removeprefix("media/files/") for name in names[:5]] == [
        "a",
        "a_2/b",
        "a_2/b_2/c",
        "c_/d",
        "c__2",
    ]
    above = {str(parent) for place in places.values() for parent in PurePosixPath(place).parents}
    assert above.isdisjoint(places.values())
    assert len(set(places.values())) == len(names)
    assert max(len(part.encode()) for place in places.values() for part in place.split("/")) <= 255
    assert max(map(len, places.values())) < 1024
    assert places[f"{long}.txt"].endswith(".txt")


def test_a_directory_takes_saved_files_whatever_their_names_and_in_whatever_order_they_come(page: Page) -> None:
    def save(*names: str) -> dict[str, bytes]:
        """Save files to the project, and return those that the page has then."""
        writer = Writer(str(page.store), "p")
        for name in names:
            ref = BlobStore(str(page.store)).put(name.encode())
            writer.append(schema.Upload(time.time_ns(), "", f"p/files/{name}", ref.digest, ref.size_bytes, None))
        writer.close()
        page.export()
        return {path: data for path, data in page.files().items() if path.startswith("media/")}

    assert sorted(save("b/c", "x").values()) == [b"b/c", b"x"]
    # What was a directory is a file now, and the reverse.
    now = save("a", "a/b", "b", "x/y", "y" * 300, "z/" * 2000 + "z")
    assert {b"a", b"a/b", b"b", b"b/c", b"x", b"x/y", b"y" * 300, b"z/" * 2000 + b"z"} == set(now.values())
    assert now["media/files/b"] == b"b"
    assert page.export().uploaded == 0


def test_a_plan_uploads_what_changed_in_order_and_deletes_what_nothing_shows_after_the_grace() -> None:
    names = ("runs.json", "metrics.parquet", "media/blob/a", "media/blob/b", "media/files/n", "settings.json")
    files = {name: Local(f"/{name}", 3, "h") for name in names}
    there = {"metrics.parquet": There(3, "old"), "media/blob/a": There(3, "?"), "media/files/n": There(3, "old")}
    there["settings.json"] = There(3, "h")
    mark = Mark(project="p", obsolete={"media/blob/old": 100, "media/blob/future": 900, "media/blob/a": 1})
    media = ["media/blob/a", "media/blob/old", "media/blob/future", "media/blob/new"]
    plan = plan_put(files, there, media, mark, known=mark.encode(), now_s=500, grace_s=400)
    assert [[path for _, path in wave] for wave in plan.waves] == [
        ["media/blob/b", "media/files/n"],
        ["metrics.parquet"],
        ["runs.json"],
    ]
    assert plan.deleted == ("media/blob/old",)
    assert plan.waiting == 2
    assert json.loads(plan.mark)["obsolete"] == {"media/blob/future": 500, "media/blob/new": 500}
    left = Mark(project="p", obsolete={"media/blob/future": 500, "media/blob/new": 500})
    same = plan_put(files, there, media[2:], left, known=left.encode(), now_s=600, grace_s=400)
    assert same.mark is None


def test_the_command_fills_a_directory_and_tells_what_it_did(page: Page) -> None:
    with page.run() as run:
        run.log({"x": 1.0})
    words = ["static-export", str(page.store), str(page.out), "--once"]
    done = CliRunner().invoke(cli, words)
    assert done.exit_code == 0, done.output
    assert "p: the page shows 1 runs, 1 rows, 11 files up" in done.stdout
    again = CliRunner().invoke(cli, [*words, "--json"])
    assert json.loads(again.stdout)["uploaded"] == 0
    refused = CliRunner().invoke(cli, ["static-export", str(page.store), "", "--once"])
    assert refused.exit_code == 2
    assert os.listdir(page.out)


def test_a_page_is_a_static_export_that_can_be_imported(page: Page, tmp_path: Path) -> None:
    with page.run("a", config={"lr": 0.5}) as run:
        for step in range(50):
            run.log({"x": step / 3}, step=step)
        run.log({"f": eventlog.Image(b"no image", name="x.png"), "m": eventlog.Markdown("# m")})
    page.export()
    done = CliRunner().invoke(library, ["import", str(page.out), str(tmp_path / "copy"), "--into", "p"])
    assert done.exit_code == 0, done.output
    mine, copy = open_store(page.store), open_store(tmp_path / "copy")
    for name in ("name", "last_step"):
        assert copy.runs("p")[name].to_pylist() == mine.runs("p")[name].to_pylist()
    assert copy.metrics("p", names=["x"])["x"].to_pylist() == [step / 3 for step in range(50)]
    assert json.loads(copy.runs("p")["config"][0].as_py())["lr"] == 0.5
    assert {"trackio.image", "trackio.markdown"} <= {*copy.events("p")["kind"].to_pylist()}


def test_on_a_full_disk_it_says_so_and_the_page_stays_as_it_was(page: Page) -> None:
    with page.run("a") as run:
        run.log({"x": 1.0})
    page.export()
    before = page.files()
    with page.run("b") as run:
        for step in range(3000):
            run.log({"x": float(step)})
    # A file that grows beyond the limit is refused like one on a full disk.
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))"
    program = f"{limit}; import sys; sys.argv[0] = 'compactor'; from compactor.cli import main; main()"
    words = [sys.executable, "-c", program, "static-export", str(page.store), str(page.out), "--once"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    assert "File too large" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert page.files() == before
    page.export()
    assert [run["name"] for run in page.json("runs.json")] == ["a", "b"]


@pytest.mark.parametrize("seed", range(2))
def test_every_value_of_a_short_run_is_on_the_page(page: Page, seed: int) -> None:
    numbers = np.random.default_rng(seed)
    names = [f"m{index}" for index in range(150)]
    logged: dict[str, list[float]] = {name: [] for name in names}
    with page.run() as run:
        for _ in range(40):
            row = {name: float(numbers.normal()) for name in names if numbers.random() < 0.4}
            run.log(row)
            for name, value in row.items():
                logged[name].append(value)
    page.export()
    table = pq.read_table(page.out / "metrics.parquet")
    shown = {name: table[name].drop_null().to_pylist() for name in names if name in table.column_names}
    assert shown == {name: values for name, values in logged.items() if values}
