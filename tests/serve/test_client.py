"""The real Trackio client, unmodified, against a real server: everything that it can log arrives, exactly."""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path

import pytest

from eventlog.store import open_store

NUMBERS = """
run = init(group="g", config={"lr": 0.1, "nested": {"deep": [1, None, "é"]}, "big": 2**60})
trackio.config.update({"lr": 0.2, "model": "m"}, allow_val_change=True)
trackio.config["model/num_parameters"] = 12345
trackio.log({"x": 0.1, "n": 1, "flag": True, "text": "héllo", "nothing": None})
trackio.log({"x": float("nan"), "outer": {"inner": 2.5, "deep": {"er": -3}}})
trackio.log({"x": float("inf"), "y": float("-inf")}, step=10)
trackio.log({"x": 5e-324, "big": 2**53 + 1, "list": [1, "a", None]})
trackio.log({"step": 7.0, "project": "mine"})
trackio.finish()
print(run.id)
"""


def numbers_of(store: Path) -> list[tuple[int, dict[str, str]]]:
    """Return (step, numbers as Python writes them) of each log, in order; that tells NaN and every last bit."""
    rows = open_store(store).metrics("p").to_pylist()
    kept = [{k: repr(v) for k, v in row.items() if v is not None and not k.startswith("_")} for row in rows]
    renamed = [{k: repr(v) for k, v in row.items() if v is not None and k.startswith(".")} for row in rows]
    return [
        (row["_step"], {k.removeprefix("."): v for k, v in {**a, **b}.items()})
        for row, a, b in zip(rows, kept, renamed, strict=True)
    ]


def test_numbers_texts_and_config_are_stored_exactly(server, trackio, state):
    run_id = trackio(server.url, NUMBERS).finish().split()[-1]
    assert numbers_of(state.root) == [
        (0, {"x": "0.1", "n": "1.0"}),
        (1, {"x": "nan", "outer/inner": "2.5", "outer/deep/er": "-3.0"}),
        (10, {"x": "inf", "y": "-inf"}),
        (11, {"x": "5e-324", "big": "9007199254740992.0"}),
        (12, {"__step": "7.0"}),
    ]
    events = open_store(state.root).events("p")
    rows = zip(*(events[name].to_pylist() for name in ("_step", "name", "kind", "payload")), strict=True)
    values = [(step, name, kind, json.loads(text)) for step, name, kind, text in rows]
    assert [value for value in values if value[2] not in ("run_start", "receipt")] == [
        (0, "flag", "bool", True),
        (0, "text", "text", "héllo"),
        (0, "nothing", "null", None),
        (11, "big", "int", 2**53 + 1),
        (11, "list", "json", [1, "a", None]),
        (12, "__project", "text", "mine"),
    ]
    run = state.run()
    assert (run["run_id"], run["group"], run["last_step"], run["logs"]) == (run_id, "g", 12, 5)
    config = run["config"]
    assert {key: config[key] for key in config if not key.startswith("_")} == {
        "lr": 0.2,
        "nested": {"deep": [1, None, "é"]},
        "big": 2**60,
        "model": "m",
        "model/num_parameters": 12345,
    }
    assert sorted(key for key in config if key.startswith("_")) == ["_Created", "_Group", "_Username"]
    assert server.call("get_run_configs", project="p") == {run_id: config}
    state.proven()


def test_what_a_client_logged_is_the_same_after_a_fold(server, trackio, state):
    trackio(server.url, NUMBERS).finish()
    asked = [("get_logs", {"run": "a"}), ("get_run_summary", {"run": "a"}), ("get_run_configs", {}), ("get_alerts", {})]
    before = [server.call(name, project="p", **more) for name, more in asked]
    numbers = numbers_of(state.root)
    state.fold(grace_s=0.0, segment_retention_s=0.0)
    assert [server.call(name, project="p", **more) for name, more in asked] == before
    assert numbers_of(state.root) == numbers
    trackio(server.url, 'init(resume="must"); trackio.log({"x": 1.0}); trackio.finish()').finish()
    assert numbers_of(state.root) == [*numbers, (13, {"x": "1.0"})]
    state.proven()


def test_config_that_comes_with_a_later_log_is_added_key_by_key(server, entry, state):
    for index, config in enumerate(({"a": 1, "b": 1}, None, {"b": 2, "c": [1]}, {"b": 2, "allow_val_change": True})):
        assert server.logs([entry(f"id-{index}", index, config=config)]).status_code == 200
    assert state.run()["config"] == {"a": 1, "b": 2, "c": [1]}
    assert len(state.events("config_patch")) == 1


@pytest.mark.parametrize("first", ["bulk_log_system", "bulk_alert"])
def test_a_run_has_its_group_although_something_else_came_before_its_config(server, entry, state, first):
    early = {"project": "p", "run": "a", "run_id": "run-a", "metrics": {"cpu": 1.0}, "title": "t", "level": "info"}
    server.call(first, **{"logs" if first == "bulk_log_system" else "alerts": [early]})
    assert state.run()["group"] is None
    config = {"_Group": "g", "_Username": "u", "lr": 1}
    for index in range(2):
        assert server.logs([entry(f"id-{index}", index, config=config)]).status_code == 200
    run = state.run()
    assert (run["group"], run["config"]) == ("g", config)
    server.call("rename_run", project="p", old_name="a", new_name="b", run_id="run-a")
    assert server.logs([entry("id-2", 2, config={**config, "_Group": "h"})]).status_code == 200
    assert (state.run("b")["group"], state.run("b")["logs"]) == ("h", 3)


def test_system_metrics_are_stored_exactly_and_at_their_time(server, trackio, state):
    trackio(
        server.url,
        """
        init()
        for i in range(5):
            trackio.log_system({"cpu": i / 3, "disk": {"read": float("nan")}})
        trackio.finish()
        """,
    ).finish()
    rows = open_store(state.root).system("p")
    assert rows["cpu"].to_pylist() == [i / 3 for i in range(5)]
    assert [math.isnan(value) for value in rows["disk/read"].to_pylist()] == [True] * 5
    (batch,) = server.call("get_system_logs_batch", project="p", runs=[{"run": "a"}])
    assert [row["cpu"] for row in batch["logs"]] == [i / 3 for i in range(5)]
    assert [row["timestamp"] for row in batch["logs"]] == sorted(row["timestamp"] for row in batch["logs"])
    assert server.call("get_system_metrics_for_run", project="p", run="a") == ["cpu", "disk/read"]
    state.proven()


def test_every_microsecond_of_a_clients_time_is_kept(server, state):
    stamps = [f"2026-03-04T05:06:07.{micro:06d}+00:00" for micro in range(1, 1_000_000, 9973)]
    sent = [{"project": "p", "run": "a", "metrics": {"x": 1.0}, "timestamp": stamp} for stamp in stamps]
    server.call("bulk_log_system", logs=sent)
    server.call("bulk_alert", alerts=[{"project": "p", "run": "a", "title": "t", "timestamp": text} for text in stamps])
    times = open_store(state.root).system("p")["_time"].cast("int64").to_pylist()
    assert [time % 1_000_000_000 // 1000 for time in times] == list(range(1, 1_000_000, 9973))
    (batch,) = server.call("get_system_logs_batch", project="p", runs=[{"run": "a"}])
    assert [row["timestamp"] for row in batch["logs"]] == stamps
    assert [alert["timestamp"] for alert in server.call("get_alerts", project="p")] == stamps[::-1]


def test_alerts_arrive_newest_first_with_their_levels(server, trackio, state):
    trackio(
        server.url,
        """
        init()
        trackio.log({"x": 1.0}, step=4)
        trackio.alert("first", "é", level=trackio.AlertLevel.INFO)
        trackio.alert("second", level=trackio.AlertLevel.ERROR, step=2) if False else trackio.alert("second")
        trackio.alert("third", "text", level=trackio.AlertLevel.ERROR)
        trackio.finish()
        """,
    ).finish()
    alerts = server.call("get_alerts", project="p")
    assert [(item["title"], item["text"], item["level"], item["step"], item["run"]) for item in alerts] == [
        ("third", "text", "error", 4, "a"),
        ("second", "", "warn", 4, "a"),
        ("first", "é", "info", 4, "a"),
    ]
    assert [item["title"] for item in server.call("get_alerts", project="p", level="error")] == ["third"]
    since = alerts[-1]["timestamp"]
    assert [item["title"] for item in server.call("get_alerts", project="p", since=since)] == ["third", "second"]
    assert server.call("get_alerts", project="p", run="nobody") == []
    state.proven()


def test_an_alert_id_counts_once(server, state):
    alert = {"project": "p", "run": "a", "run_id": "r", "title": "t", "alert_id": "one", "level": "info", "step": 3}
    server.call("bulk_alert", alerts=[alert, alert])
    server.call("bulk_alert", alerts=[alert, {**alert, "alert_id": "two"}, {**alert, "alert_id": None}])
    assert [item["alert_id"] for item in state.events("alert")] == ["one", "two", ""]
    assert len(server.call("get_alerts", project="p")) == 3


MEDIA = """
import numpy as np
run = init(name="média / ..run")
pixels = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
for step in range(2):
    trackio.log({
        "image": trackio.Image(pixels, caption="a caption"),
        "table": trackio.Table(columns=["n", "pic"], data=[[1, trackio.Image(pixels)], [2.5, "text"]]),
        "report": trackio.Markdown("# Title\\n\\n- é"),
        "hist": trackio.Histogram(np_histogram=([1, 2, 3], [0.0, 0.5, 1.0, 2.0])),
        "page": trackio.Html("<script>alert(1)</script>", inject=False),
        "trace": trackio.Trace([{"role": "user", "content": "hi"}], metadata={"k": 1}),
        "traces": [trackio.Trace([{"role": "user", "content": str(i)}], spans=[{"id": "s"}]) for i in range(3)],
        "loss": step / 4,
    })
os.makedirs("sub/dir")
open("sub/dir/weights.bin", "wb").write(bytes(range(256)) * 1000)
open("sub/late.txt", "w").write("late")
open("notes é.txt", "w").write("notes")
trackio.save("sub/dir/*")
trackio.save("notes é.txt")
trackio.finish()
trackio.save("sub/late.txt")
print(run.id)
"""


def typed(logs, name):
    return [row[name] for row in logs if name in row]


def test_media_tables_texts_and_traces_arrive_and_their_bytes_are_the_uploaded_ones(server, trackio, state, tmp_path):
    run_id = trackio(server.url, MEDIA).finish().split()[-1]
    logs = server.call("get_logs", project="p", run="média / ..run")
    assert [row["loss"] for row in logs if "loss" in row] == [0.0, 0.25]
    media = tmp_path / "client-0" / "trackio" / "media"
    sent = {path.relative_to(media).as_posix(): path.read_bytes() for path in media.rglob("*") if path.is_file()}
    shown = [*typed(logs, "image"), *typed(logs, "page")]
    shown += [cell for table in typed(logs, "table") for row in table["_value"] for cell in row.values()]
    places = [value["file_path"] for value in shown if isinstance(value, dict)]
    assert sorted(places) == sorted(sent)
    assert len(places) == 6
    for place in places:
        for path in (place, f"media/{place}"):
            answer = server.file(path)
            assert (answer.status_code, answer.content) == (200, sent[place])
    assert [value["caption"] for value in typed(logs, "image")] == ["a caption"] * 2
    assert [[row["n"] for row in table["_value"]] for table in typed(logs, "table")] == [[1, 2.5]] * 2
    assert typed(logs, "report") == [{"_type": "trackio.markdown", "_value": "# Title\n\n- é"}] * 2
    assert (
        typed(logs, "hist") == [{"_type": "trackio.histogram", "bins": [0.0, 0.5, 1.0, 2.0], "values": [1, 2, 3]}] * 2
    )
    traces = server.call("get_traces", project="p", run="média / ..run", sort="step_asc")
    assert sorted((trace["step"], trace["key"], trace["index"]) for trace in traces if trace["index"] is not None) == [
        (step, "traces", index) for step in range(2) for index in range(3)
    ]
    assert [trace["metadata"] for trace in traces if trace["key"] == "trace"] == [{"k": 1}] * 2
    assert server.call("get_trace_steps", project="p", run_id=run_id)["total"] == 8
    files = server.call("get_project_files", project="p")
    saved = {"notes é.txt": b"notes", "sub/late.txt": b"late", "sub/dir/weights.bin": bytes(range(256)) * 1000}
    assert {item["name"]: item["size"] for item in files} == {name: len(data) for name, data in saved.items()}
    assert {item["name"]: server.file(item["path"]).content for item in files} == saved
    available = server.call("get_tab_availability", project="p")
    assert [tab for tab, there in available.items() if not there] == ["system", "artifacts"]
    state.proven()
    state.fold(grace_s=0.0, segment_retention_s=0.0)
    assert server.call("get_logs", project="p", run_id=run_id) == logs
    assert server.file(places[0]).content == sent[places[0]]
    state.proven()


SAVES = """
for project, text in json.loads(sys.argv[1]):
    init(project)
    open("f.txt", "w").write(text)
    trackio.save("f.txt")
    trackio.finish()
"""


def test_a_file_that_is_saved_again_is_served_as_it_was_saved_last(server, trackio):
    trackio(server.url, SAVES, json.dumps([("p", "first"), ("p", "the second")])).finish()
    (item,) = server.call("get_project_files", project="p")
    assert (item["size"], server.file(item["path"]).text) == (10, "the second")


def test_projects_whose_names_the_client_shortens_alike_keep_their_files_apart(server, trackio):
    projects = ("my.model", "mymodel", "media", "blob", "inline")
    trackio(server.url, SAVES, json.dumps([(project, project) for project in projects])).finish()
    for project in projects:
        (item,) = server.call("get_project_files", project=project)
        assert [server.file(path).text for path in (item["path"], f"media/{item['path']}")] == [project] * 2


ARTIFACTS = """
import pathlib
source = pathlib.Path("source"); source.mkdir()
(source / "a.bin").write_bytes(bytes(range(256)) * 400)
(source / "b.txt").write_text("é")
run = init(name="maker")
trackio.log({"x": 1.0})

def make(**options):
    art = trackio.Artifact("model", type="weights", description="d", metadata={"acc": 0.5})
    art.add_dir(source)
    return run.log_artifact(art, **options)

first = make(aliases=["best"])
again = make(aliases=["again"])
(source / "b.txt").write_text("changed")
second = make(aliases=["best"])
trackio.finish()

user = init(name="user")
got = {}
for spec in ("model", "model:v0", "model:best", "model:again"):
    art = user.use_artifact(spec)
    place = pathlib.Path(art.download())
    files = {p.relative_to(place).as_posix(): p.read_bytes().hex() for p in place.rglob("*") if p.is_file()}
    got[spec] = [art.version, sorted(art.aliases), files]
trackio.log({"x": 2.0})
trackio.finish()
print(json.dumps([[a.version for a in (first, again, second)], got, run.id, user.id]))
"""


def test_artifacts_are_versions_of_their_contents_with_aliases_and_lineage(server, trackio, state):
    versions, got, maker, user = json.loads(trackio(server.url, ARTIFACTS).finish().splitlines()[-1])
    assert versions in (["v0", "v0", "v1"], [0, 0, 1])
    numbers = {spec: str(version).removeprefix("v") for spec, (version, _, _) in got.items()}
    assert numbers == {"model": "1", "model:v0": "0", "model:best": "1", "model:again": "0"}
    assert got["model"][1] == ["best", "latest"]
    assert got["model:v0"][1] == ["again"]
    data = (bytes(range(256)) * 400).hex()
    assert got["model:v0"][2] == {"a.bin": data, "b.txt": "é".encode().hex()}
    assert got["model"][2] == {"a.bin": data, "b.txt": b"changed".hex()}
    (listed,) = server.call("list_artifacts", project="p")
    assert [(item["version"], item["num_files"]) for item in listed["versions"]] == [(1, 2), (0, 2)]
    newest = server.call("get_artifact_manifest", project="p", name="model")
    assert (newest["description"], newest["metadata"], newest["type"]) == ("d", {"acc": 0.5}, "weights")
    for item in newest["manifest"]:
        blob = server.http.get(f"/artifact_blob/p/{item['digest']}").content
        assert (hashlib.sha256(blob).hexdigest(), len(blob)) == (item["digest"], item["size"])
    consumers = server.call("get_artifact_consumers", project="p", version_id=newest["version_id"])
    assert {item["run_id"] for item in consumers} == {user}
    linked = server.call("get_run_artifacts", project="p", run_id=maker)
    assert ([item["version"] for item in linked["output"]], linked["input"]) == ([0, 1], [])
    lineage = server.call("get_artifact_lineage", project="p", version_id=newest["version_id"])
    assert {node["id"] for node in lineage["nodes"] if node["kind"] == "run"} == {f"run:{maker}", f"run:{user}"}
    before = [server.call(name, project="p") for name in ("list_artifacts", "get_artifacts", "get_run_artifact_counts")]
    state.fold(grace_s=0.0, segment_retention_s=0.0)
    server.kill()
    assert before[2] == [
        {"run_id": maker, "run_name": "maker", "input": 0, "output": 2},
        {"run_id": user, "run_name": "user", "input": 2, "output": 0},
    ]
    state.proven()


RESUME = """
ids = []
for mode, values in json.loads(sys.argv[1]):
    try:
        run = init(resume=mode, config={"mode": mode})
    except ValueError as error:
        ids.append("refused")
        continue
    for value in values:
        trackio.log({"x": value})
    trackio.finish()
    ids.append(run.id)
print(json.dumps(ids))
"""


def test_a_run_is_resumed_after_its_last_step_or_begun_anew(server, trackio, state):
    def go(*inits):
        return json.loads(trackio(server.url, RESUME, json.dumps(inits)).finish().splitlines()[-1])

    refused, first, again = go(("must", [0.0]), ("allow", [0.5, 1.5]), ("allow", [2.5]))
    assert (refused, again) == ("refused", first)
    state.fold()
    assert go(("must", [3.5])) == [first]
    assert state.values() == {"a": {(0, 0.5): 1, (1, 1.5): 1, (2, 2.5): 1, (3, 3.5): 1}}
    assert state.run()["config"]["mode"] == "must"
    second, last = go(("never", [9.0]), ("must", [10.0]))
    assert second == last != first
    assert [run["id"] for run in server.call("get_runs_for_project", project="p")] == [first, second]
    rows = open_store(state.root).metrics("p", runs=second)
    assert list(zip(rows["_step"].to_pylist(), rows["x"].to_pylist(), strict=True)) == [(0, 9.0), (1, 10.0)]
    assert server.call("get_run_summary", project="p", run_id=first)["last_step"] == 3
    state.proven()


def test_a_run_with_only_config_system_metrics_alerts_or_media_is_visible(server, trackio, state):
    trackio(
        server.url,
        """
        import numpy as np
        for name, act in {
            "config": lambda: trackio.log({}),
            "system": lambda: trackio.log_system({"cpu": 1.0}),
            "alert": lambda: trackio.alert("t"),
            "image": lambda: trackio.log({"i": trackio.Image(np.zeros((2, 2, 3), np.uint8))}),
        }.items():
            init(name=name, config={"kind": name})
            act()
            trackio.finish()
        """,
    ).finish()
    assert [run["name"] for run in server.call("get_runs_for_project", project="p")] == [
        "config",
        "system",
        "alert",
        "image",
    ]
    configs = server.call("get_run_configs", project="p").values()
    assert [config["kind"] for config in configs if "kind" in config] == ["config", "image"]
    summary = server.call("get_run_summary", project="p", run="config")
    assert (summary["num_logs"], summary["last_step"]) == (1, 0)
    state.proven()


def test_runs_are_renamed_and_deleted_with_the_token_only(server, trackio, state):
    trackio(server.url, 'init(); trackio.log({"x": 1.0}); trackio.finish()').finish()
    (run,) = server.call("get_runs_for_project", project="p")
    change = {"project": "p", "old_name": "a", "new_name": " b ", "run_id": run["id"]}
    del server.http.headers["x-trackio-write-token"]
    assert server.post("rename_run", **change).status_code == 403
    assert server.post("delete_run", project="p", run_id=run["id"]).status_code == 403
    assert server.call("get_run_mutation_status") == {"spaces": False, "allowed": False, "auth": "none"}
    page = server.http.get("/", params={"write_token": server.token})
    assert page.cookies["trackio_write_token"] == server.token
    assert server.call("get_run_mutation_status")["allowed"]
    assert server.call("rename_run", **change)
    assert [item["name"] for item in server.call("get_runs_for_project", project="p")] == ["b"]
    assert server.call("get_run_summary", project="p", run="b")["num_logs"] == 1
    assert server.post("rename_run", **{**change, "run_id": None}).status_code == 400
    assert server.call("delete_run", project="p", run="b")
    assert not server.call("delete_run", project="p", run="b")
    for name in ("get_runs_for_project", "get_alerts", "list_artifacts"):
        assert server.call(name, project="p") == []
    assert open_store(state.root).runs("p").num_rows == 0
    assert open_store(state.root).runs("p", deleted=True)["name"].to_pylist() == ["b"]
    state.proven()
