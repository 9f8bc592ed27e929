"""An import appends what is new under ids that are free, and touches nothing else."""

from __future__ import annotations

import hashlib
import json
import math
import os
import struct
from pathlib import Path

import msgspec
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

import eventlog
from eventlog import schema
from eventlog.commands.group import cli
from eventlog.config import WriterConfig
from eventlog.errors import ConflictError, DataError, NewerFormatError, UsageError
from eventlog.exporting import layout
from eventlog.exporting.dataset import export_dataset
from eventlog.exporting.layout import Pack, PackedRun
from eventlog.exporting.plan import RunNow, plan_packs
from eventlog.exporting.target import Directory
from eventlog.fs import LOCAL
from eventlog.importing import sources
from eventlog.importing.perform import Imported, import_runs
from eventlog.importing.plan import Here, Known, SourceRun, plan_import
from eventlog.importing.staging import Staging
from eventlog.store import open_store
from eventlog.testing import contents
from eventlog.verify import verify
from eventlog.writer import Writer

PROJECT = "p"
QUIET = WriterConfig(sync_interval_s=None)


def add_run(root: str, name: str, run_id: str | None = None, *, project: str = PROJECT) -> str:
    with eventlog.init(project, name, id=run_id, dir=root, settings=QUIET, config={"lr": float("nan")}) as run:
        run.log({"x": 1.0, "note": {"a": b"raw"}, "big": 2**70})
        run.log({"file": name.encode()})
        run.alert("done", "text")
    return run.id


@pytest.fixture
def root(tmp_path: Path) -> str:
    store = str(tmp_path / "store")
    for name in ("first", "second"):
        add_run(store, name)
    return store


@pytest.fixture
def dataset(root: str, tmp_path: Path) -> str:
    return exported(root, tmp_path / "dataset")


def exported(root: str, place: Path) -> str:
    export_dataset(root, PROJECT, Directory(str(place)))
    return str(place)


def imported(dataset: str, root: str, *, into: str | None = None, again: bool = False) -> Imported:
    (done,) = import_runs(sources.Directory(dataset), root, into=into, again=again)
    return done


def told(root: str, project: str = PROJECT) -> dict:
    found = contents.by_run(contents.of_store(LOCAL, root, project))
    found.pop("", None)
    return found


def files(root: str) -> dict[str, str]:
    """Return the digests of all files below a directory."""
    return {
        os.path.join(directory, name): hashlib.sha256(Path(directory, name).read_bytes()).hexdigest()
        for directory, _, names in os.walk(root)
        for name in names
    }


def origins(root: str, project: str = PROJECT) -> list[dict]:
    rows = open_store(root).events(project, kinds="admin", names="import").to_pylist()
    return [json.loads(row["payload"])["values"] for row in rows]


def test_an_import_beside_other_data_leaves_it_byte_for_byte(dataset: str, root: str, tmp_path: Path) -> None:
    target = str(tmp_path / "target")
    add_run(target, "here")
    with eventlog.init(PROJECT, "live", dir=target, settings=QUIET) as live:
        live.log({"x": 5.0})
        before, here = files(target), told(target)
        imported(dataset, target)
        after = files(target)
        assert {path: after[path] for path in before} == before
        assert told(target) == here | told(root)
        live.log({"x": 6.0})
    assert verify(target).ok


def test_each_run_says_where_it_came_from(dataset: str, root: str, tmp_path: Path) -> None:
    target = str(tmp_path / "target")
    imported(dataset, target, into="other")
    assert open_store(target).projects() == ["other"]
    found = origins(target, "other")
    runs = {row["run_id"]: row["created"] for row in open_store(root).runs(PROJECT).to_pylist()}
    assert [one["source_run_id"] for one in found] == list(runs)
    for one in found:
        created = runs[one["run_id"]].value
        assert (one["key"], one["project"], one["form"]) == (f"{one['run_id']}@{created}", PROJECT, "eventlog")
        assert (one["source"], one["rows"]) == (dataset, {"metrics": 1, "system": 0, "events": 6})
    starts = open_store(target).events("other", kinds="run_start")["payload"].to_pylist()
    assert {json.loads(text)["project"] for text in starts} == {"other"}


def test_the_same_source_is_imported_once_from_wherever_it_is_read(dataset: str, root: str, tmp_path: Path) -> None:
    target = str(tmp_path / "target")
    imported(dataset, target)
    before = files(target)
    copy = exported(root, tmp_path / "copy")
    through_a_third = str(tmp_path / "third")
    imported(dataset, through_a_third)
    third = exported(through_a_third, tmp_path / "third-dataset")
    for source in (dataset, copy, third):
        done = imported(source, target)
        assert (done.runs, done.records, len(done.present), done.grown) == (0, 0, 2, [])
    assert files(target) == before
    # Nor into the store that the runs come from.
    assert imported(dataset, root).runs == 0


def test_again_imports_once_more_under_new_ids(dataset: str, root: str, tmp_path: Path) -> None:
    target = str(tmp_path / "target")
    imported(dataset, target)
    done = imported(dataset, target, again=True)
    assert (done.runs, set(done.renamed)) == (2, set(told(root)))
    now = told(target)
    assert len(now) == 4
    for old, new in done.renamed.items():
        assert json.dumps(now[new]).replace(new, old) == json.dumps(now[old])


def test_another_run_of_the_same_id_is_never_joined(tmp_path: Path) -> None:
    source, target = str(tmp_path / "source"), str(tmp_path / "target")
    add_run(source, "theirs", "run-1")
    add_run(target, "ours", "run-1")
    before = told(target)
    done = imported(exported(source, tmp_path / "dataset"), target)
    now = told(target)
    assert list(done.renamed) == ["run-1"]
    assert now["run-1"] == before["run-1"]
    assert [row["name"] for row in open_store(target).runs(PROJECT).to_pylist()] == ["theirs", "ours"]
    assert imported(str(tmp_path / "dataset"), target).present == ["run-1"]


def test_a_source_that_has_grown_brings_its_new_runs_and_tells_of_the_old_ones(root: str, tmp_path: Path) -> None:
    target, place = str(tmp_path / "target"), tmp_path / "dataset"
    imported(exported(root, place), target)
    first = add_run(root, "third")
    with eventlog.init(PROJECT, "second", dir=root, settings=QUIET, resume="must") as run:
        run.log({"x": 2.0})
    done = imported(exported(root, place), target)
    assert (done.runs, done.grown) == (1, [run.id])
    assert told(target)[first] == told(root)[first]


def test_two_imports_at_once_are_refused_and_garbage_of_a_dead_one_goes(dataset: str, tmp_path: Path) -> None:
    target = str(tmp_path / "target")
    Path(target, "imports", "dead", "segments").mkdir(parents=True)
    with Staging(target), pytest.raises(ConflictError, match="another import"):
        imported(dataset, target)
    imported(dataset, target)
    assert os.listdir(os.path.join(target, "imports")) == []


def flipped(whole: bytes) -> list[bytes]:
    """Return a file with one bit changed at its end, and in its midst, where parquet has its pages."""
    places = (len(whole) - 1, len(whole) // 4)
    return [whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :] for at in places]


def test_no_damage_to_a_dataset_is_imported(dataset: str, root: str, tmp_path: Path) -> None:
    target = str(tmp_path / "target")
    add_run(target, "here")
    for path in sorted(files(dataset)):
        whole = Path(path).read_bytes()
        before = told(target)
        blob = "/blobs/" in path
        if path.endswith("README.md"):
            continue
        for damaged in (whole[: len(whole) // 2], *flipped(whole), None):
            Path(path).write_bytes(damaged) if damaged is not None else os.unlink(path)
            if blob:
                other = str(tmp_path / f"other-{len(os.listdir(tmp_path))}")
                assert sum(imported(dataset, other).left_out.values()) == 1
                assert told(other) == told(root)
            else:
                with pytest.raises((DataError, UsageError)):
                    imported(dataset, target)
            Path(path).write_bytes(whole)
        assert told(target) == before
    assert imported(dataset, target).left_out == {}


def with_payload(dataset: str, payload: str) -> str:
    """Put a payload into each event of a dataset, and let its index name the file that results."""
    index = layout.decode(Path(dataset, layout.INDEX).read_bytes(), "i")
    (events,) = index.packs[0].files["events"]
    path = Path(dataset, events.path)
    table = pq.read_table(path)
    column = table.schema.get_field_index("payload")
    pq.write_table(table.set_column(column, "payload", [[payload] * table.num_rows]), path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    Path(dataset, layout.INDEX).write_bytes(layout.encode(index).replace(events.sha256.encode(), digest.encode()))
    return dataset


@pytest.mark.parametrize("payload", ["", "[]", "1", "{" * 5000, '{"x":' * 5000, '{"a":1e999}'])
def test_an_event_that_is_none_is_told_and_nothing_imported(dataset: str, tmp_path: Path, payload: str) -> None:
    with pytest.raises(DataError, match="is none"):
        imported(with_payload(dataset, payload), str(tmp_path / "target"))
    assert not Path(tmp_path, "target", "segments").exists()


def test_an_event_whose_fields_do_not_fit_is_carried_along(dataset: str, tmp_path: Path) -> None:
    target = str(tmp_path / "target")
    imported(with_payload(dataset, '{"time_ns": []}'), target)
    kinds = set(open_store(target).events(PROJECT)["kind"].to_pylist())
    assert any(kind.startswith("unknown:") for kind in kinds)


def test_an_index_that_lies_is_refused(dataset: str, tmp_path: Path) -> None:
    path = Path(dataset, layout.INDEX)
    index = layout.decode(path.read_bytes(), "i")
    pack = index.packs[0]
    run = pack.runs[0]
    fewer = msgspec.structs.replace(pack, runs=[PackedRun(run.run_id, 0, 0, 0), *pack.runs[1:]])
    renamed = msgspec.structs.replace(pack, runs=[PackedRun("x", run.metrics, 0, run.events), *pack.runs[1:]])
    outside = msgspec.structs.replace(index.runs[0], path="../../etc/passwd")
    lies: list[tuple[type[Exception], layout.Index]] = [
        (DataError, msgspec.structs.replace(index, packs=[fewer])),
        (DataError, msgspec.structs.replace(index, packs=[renamed])),
        (DataError, msgspec.structs.replace(index, runs=[outside])),
        (DataError, msgspec.structs.replace(index, packs=[pack, pack])),
        (DataError, msgspec.structs.replace(index, packs=[msgspec.structs.replace(pack, files={})])),
        (DataError, msgspec.structs.replace(index, packs=[msgspec.structs.replace(pack, blobs=["../x"])])),
        (NewerFormatError, msgspec.structs.replace(index, format=2)),
    ]
    for error, lie in lies:
        path.write_bytes(layout.encode(lie))
        with pytest.raises(error):
            imported(dataset, str(tmp_path / "target"))
    assert not Path(tmp_path, "target", "segments").exists()


def test_values_that_look_like_what_json_lacks_stay_what_they_were(tmp_path: Path) -> None:
    source, target = str(tmp_path / "source"), str(tmp_path / "target")
    others = {
        "raw": b"\0",
        "raw inside": [b"\0", {"a": b"\1"}],
        "like raw": {"_type": "bytes", "hex": "00"},
        "nan": [math.nan],
        "like nan": [{"_type": "float", "value": "nan"}],
        "map": {1: True},
        "like a map": {"_type": "map", "items": [[1, True]]},
        "ext": msgspec.msgpack.Ext(5, b"x"),
        "big": {"_type": "int", "value": str(2**80)},
        "no record": {"_type": "run_start"},
        "date": None,
    }
    writer = Writer(source, PROJECT, config=QUIET)
    writer.append(schema.RunStart(1, "r", PROJECT, "n"))
    writer.log(writer.shape("r", 3, ("x",)), 2**62, struct.pack("<d", 1.0), others)
    writer.log(writer.shape("r", 3, ()), None, b"")
    writer.append(schema.SummarySet(2, "r", {"a": b"\0", "b": -math.inf}))
    for payload in (b"\xc1", msgspec.msgpack.encode([1.5]), msgspec.msgpack.encode([99, 5, "r", b"\0"])):
        writer.append_all([msgspec.Raw(payload)])
    writer.close()
    imported(exported(source, tmp_path / "dataset"), target)
    assert contents.by_run(contents.of_store(LOCAL, source, PROJECT))["r"] == told(target)["r"]
    kinds = [row["kind"] for row in open_store(target).events(PROJECT).to_pylist() if row["_run_id"] == ""]
    assert sorted(kinds) == ["admin", "admin", "unknown:undecodable", "unknown:unkeyed"]


# Exports.


def test_a_second_export_writes_what_is_new_and_removes_what_is_gone(root: str, tmp_path: Path) -> None:
    place = tmp_path / "dataset"
    exported(root, place)
    before = files(str(place))
    assert not export_dataset(root, PROJECT, Directory(str(place))).changed
    assert files(str(place)) == before
    (row, _) = open_store(root).runs(PROJECT).to_pylist()
    assert CliRunner().invoke(cli, ["admin", "delete", root, PROJECT, row["run_id"]]).exit_code == 0
    done = export_dataset(root, PROJECT, Directory(str(place)))
    assert (done.runs, done.removed_files, done.changed) == (1, 4, True)
    index = layout.decode((place / layout.INDEX).read_bytes(), "i")
    named = {file.path for file in index.all_files()} | {layout.blob_path(d) for p in index.packs for d in p.blobs}
    on_disk = {os.path.relpath(path, place) for path in files(str(place))}
    assert on_disk - {layout.INDEX, layout.CARD} == named


def test_a_metric_of_a_new_name_is_a_column_of_all_files(root: str, tmp_path: Path) -> None:
    place = str(tmp_path / "dataset")
    export_dataset(root, PROJECT, Directory(place), most_cells=1)
    with eventlog.init(PROJECT, "third", dir=root, settings=QUIET) as run:
        run.log({"new": 1.0})
    export_dataset(root, PROJECT, Directory(place), most_cells=1)
    paths = [path for path in files(place) if "/data/metrics/" in path]
    assert len(paths) == 3
    assert len({str(pq.read_schema(path)) for path in paths}) == 1
    imported(place, str(tmp_path / "target"))
    assert told(str(tmp_path / "target")) == told(root)


def test_a_file_that_a_dataset_has_lost_is_written_again(root: str, tmp_path: Path) -> None:
    place = tmp_path / "dataset"
    exported(root, place)
    before = files(str(place))
    for path in [path for path in before if not path.endswith(".json")]:
        os.unlink(path)
    exported(root, place)
    assert files(str(place)) == before


def test_a_project_without_runs_is_a_dataset_without_files(root: str, tmp_path: Path) -> None:
    place = tmp_path / "dataset"
    exported(root, place)
    for row in open_store(root).runs(PROJECT).to_pylist():
        assert CliRunner().invoke(cli, ["admin", "delete", root, PROJECT, row["run_id"]]).exit_code == 0
    exported(root, place)
    assert sorted(os.path.basename(path) for path in files(str(place))) == [layout.CARD, layout.INDEX]
    assert imported(str(place), str(tmp_path / "target")).runs == 0


def test_an_export_goes_only_where_a_dataset_of_this_project_is(root: str, tmp_path: Path) -> None:
    exported(root, tmp_path / "dataset")
    add_run(root, "x", project="q")
    with pytest.raises(UsageError, match="holds the project 'p'"):
        export_dataset(root, "q", Directory(str(tmp_path / "dataset")))
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("x")
    with pytest.raises(UsageError, match="other things"):
        Directory(str(tmp_path / "full"))
    with pytest.raises(UsageError, match="no directory"):
        Directory(str(tmp_path / "full" / "thesis.tex"))


def test_a_blob_that_the_store_lacks_is_told_and_the_rest_exported(root: str, tmp_path: Path) -> None:
    digest = hashlib.sha256(b"first").hexdigest()
    os.unlink(os.path.join(root, "blobs", "sha256", digest[:2], digest))
    done = export_dataset(root, PROJECT, Directory(str(tmp_path / "dataset")))
    assert (done.missing_blobs, done.runs) == ([digest], 2)


# Plans.


def test_runs_stay_in_their_packs_and_new_ones_fill_the_last() -> None:
    def now(name: str, rows: int) -> RunNow:
        return RunNow(PackedRun(name, rows, 0, 0), rows)

    def pack(number: int, *runs: RunNow) -> Pack:
        return Pack(number, [run.packed for run in runs], {})

    a, b, c, d = now("a", 6), now("b", 6), now("c", 2), now("d", 9)
    assert [one[:2] for one in plan_packs([], [a, b, c, d], most_cells=10)] == [
        (0, ("a",)),
        (1, ("b", "c")),
        (2, ("d",)),
    ]
    before = [pack(0, a), pack(1, b, c)]
    same = plan_packs(before, [a, b, c], most_cells=10)
    assert [one.unchanged for one in same] == before
    grown = plan_packs(before, [a, now("b", 9), c, d], most_cells=10)
    assert [(one.number, one.run_ids, one.unchanged is None) for one in grown] == [
        (0, ("a",), False),
        (1, ("b",), True),
        (2, ("c",), True),
        (3, ("d",), True),
    ]
    gone = plan_packs(before, [b, c, d], most_cells=10)
    assert [(one.number, one.run_ids) for one in gone] == [(1, ("b", "c")), (2, ("d",))]


def test_ids_are_kept_where_they_are_free() -> None:
    def run(run_id: str, key: str, rows: int = 1) -> SourceRun:
        return SourceRun(run_id, run_id, key, {"metrics": rows})

    known = Known(frozenset({"a", "b"}), {"k1": Here("b", {"metrics": 1}), "k2": Here("a", None)})
    runs = [run("a", "k0"), run("c", "k1", 2), run("d", "k2"), run("e", "k3"), run("e", "k4"), run("", "k5")]
    ids = iter(("n1", "n2", "n3", "n4"))
    plan = plan_import(runs, known, again=False, new_id=lambda: next(ids))
    assert [(one.run.key, one.run_id) for one in plan.taken] == [("k0", "n1"), ("k3", "e"), ("k4", "n2"), ("k5", "")]
    assert [(one.run.key, one.grown) for one in plan.skipped] == [("k1", True), ("k2", False)]
    plan = plan_import(runs[1:2], known, again=True, new_id=lambda: next(ids))
    assert [one.run_id for one in plan.taken] == ["n3"]


def test_the_commands_say_what_was_done_and_what_was_not(root: str, tmp_path: Path) -> None:
    out, target = str(tmp_path / "out"), str(tmp_path / "target")

    def run(*words: str) -> tuple[int, str]:
        done = CliRunner().invoke(cli, words)
        return done.exit_code, done.output

    assert "2 runs, 14 rows" in run("export", root, "--to", out)[1]
    assert "nothing to do" in run("export", root, PROJECT, "--to", out)[1]
    assert "p: 2 runs imported" in run("import", out, target)[1]
    assert "2 were there already" in run("import", out, target)[1]
    assert json.loads(run("import", out, target, "--again", "--json")[1])[0]["runs"] == 2
    for words in (
        ("export", root, "--to", out, "--narrow"),
        ("export", root, "--to", out, "--private"),
        ("export", root, "--private", "--format", "csv"),
        ("export", root),
        ("export", root, "p", "--project", "q", "--to", out),
        ("export", root, "--to", os.path.join(root, "inside")),
        ("import", root, target),
        ("import", "hf://buckets/owner/name", target),
    ):
        code, output = run(*words)
        assert (code, "eventlog: " in output) == (2, True), (words, output)
