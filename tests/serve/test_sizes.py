"""What is very large, very many, at the edge or not there at all: through writer, fold, store, server and its calls."""

from __future__ import annotations

import json
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

import eventlog
from compactor.serve.api import ENDPOINTS
from eventlog.blobs import BlobStore
from eventlog.errors import EventLogWarning
from eventlog.store import open_store

QUIET = eventlog.WriterConfig(sync_interval_s=None)
MANY, ALONE = 10_000, 20
READS = sorted(name for name, endpoint in ENDPOINTS.items() if not endpoint.writes)
EDGES = (2**63 - 1, -1, -(2**63), 2**53 + 1)


def ask_everything(server, project, name, run_id):
    """Ask every call that reads about a run; each must answer."""
    run = {"run": name, "run_id": run_id}
    body = {**run, "project": project, "metric_name": "x", "name": "none", "version_id": 1, "runs": [run]}
    body["query"] = "select * from runs"
    for call in READS:
        answer = server.http.post(f"/api/{call}", json=body)
        assert answer.status_code == 200, (call, answer.text[:300])


def test_ten_thousand_metric_names_of_one_run_are_charted(server, state):
    together = [f"layer/{number:05d}/grad" for number in range(MANY - ALONE)]
    alone = [f"once/{number:05d}" for number in range(ALONE)]
    with eventlog.init("p", "wide", dir=state.root, settings=QUIET) as run:
        for step in range(2):
            run.log({name: number + step / 2 for number, name in enumerate(together)}, step)
        for number, name in enumerate(alone):
            run.log({name: float(number)}, number)
    for _ in range(2):
        shown = server.call("get_metrics_for_run", project="p", run="wide", run_id=run.id)
        assert sorted(shown) == sorted(together + alone)
        for name, wanted in ((together[77], [(0, 77.0), (1, 77.5)]), (alone[19], [(19, 19.0)])):
            found = server.call("get_metric_values", project="p", run="wide", run_id=run.id, metric_name=name)
            assert [(item["step"], item["value"]) for item in found] == wanted
        assert len(open_store(state.root).metric_names("p")) == MANY
        ask_everything(server, "p", "wide", run.id)
        state.fold()
    state.proven()


LARGE = """
import resource, sys
import eventlog
size = 100 * 2**20
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
with eventlog.init("p", "large", dir=sys.argv[1]) as run:
    text = "é" * (size // 2)
    cells = [["x" * (size // 4)] for _ in range(4)]
    raw = bytes(size)
    with open(sys.argv[2], "wb") as file:
        file.write(raw)
    before = peak()
    run.log({"text": text, "x": 1.0}, step=0)
    run.log({"table": eventlog.Table(["a"], cells), "x": 2.0}, step=1)
    run.log({"raw": raw, "x": 3.0}, step=2)
    used = peak() - before
    del raw, text, cells
    run.log({"file": eventlog.File(sys.argv[2]), "x": 4.0}, step=3)
    print(used // size)
    print(run.id)
"""


def test_values_of_100_mib_are_blobs_that_cost_a_few_times_their_size_once(server, state, tmp_path):
    command = [sys.executable, "-W", "error", "-c", LARGE, str(state.root), str(tmp_path / "raw")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    times, run_id = done.stdout.split()
    assert int(times) <= 5
    status = Path(f"/proc/{server.process.pid}/status")
    for _ in range(2):
        payloads = {row["name"]: json.loads(row["payload"]) for row in rows_of(state)}
        assert {name: payloads[name]["_type"] for name in ("text", "table", "raw", "file")} == {
            "text": "json",
            "table": "json",
            "raw": "file",
            "file": "file",
        }
        assert payloads["raw"]["sha256"] == payloads["file"]["sha256"]
        assert all(payloads[name]["size_bytes"] >= 100 * 2**20 for name in ("text", "table", "raw"))
        assert all(len(row["payload"]) < 1000 for row in rows_of(state))
        ask_everything(server, "p", "large", run_id)
        values = server.call("get_metric_values", project="p", run="large", run_id=run_id, metric_name="x")
        assert [item["value"] for item in values] == [1.0, 2.0, 3.0, 4.0]
        state.fold()
    peak = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    assert int(peak.split()[1]) < 600 * 1024
    text = BlobStore(str(state.root)).get(payloads["text"]["sha256"])
    assert json.loads(text) == "é" * (50 * 2**20)


def rows_of(state):
    """Return the events of the store as dicts."""
    rows = open_store(state.root).events("p").select(["kind", "name", "payload"]).to_pylist()
    return [row for row in rows if row["kind"] in ("json", "file")]


def test_steps_at_the_edge_of_64_bits_are_kept_and_one_beyond_it_is_left_out_of_its_record(server, state, entry):
    with eventlog.init("p", "edge", dir=state.root, settings=QUIET) as run:
        for number, step in enumerate(EDGES):
            run.log({"x": float(number)}, step)
        with pytest.warns(EventLogWarning, match="64-bit"):
            run.log({"x": 99.0}, 2**63)
    answers = [server.logs([entry(str(step), step, run="sent", run_id="sent")]) for step in (*EDGES, 2**63)]
    assert {answer.status_code for answer in answers} == {200}
    for _ in range(2):
        assert state.values()["edge"] == {**{(step, float(at)): 1 for at, step in enumerate(EDGES)}, (None, 99.0): 1}
        assert state.values()["sent"] == {**{(step, step * 0.5): 1 for step in EDGES}, (None, 2.0**62): 1}
        for name, run_id in (("edge", run.id), ("sent", "sent")):
            ask_everything(server, "p", name, run_id)
            found = server.call("get_metric_values", project="p", run=name, run_id=run_id, metric_name="x")
            assert {item["step"] for item in found if item["step"] is not None} == set(EDGES)
        state.fold()
    state.proven()


def test_runs_with_no_record_and_with_one_answer_every_call(server, state):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        empty = eventlog.init("p", "empty", dir=state.root, settings=QUIET)
        empty.finish()
        with eventlog.init("p", "one", dir=state.root, settings=QUIET) as one:
            one.log({"x": 1.0})
        with eventlog.init("q", "alone", dir=state.root, settings=QUIET) as alone:
            alone.alert("only this")
    for _ in range(2):
        for project, run in (("p", empty), ("p", one), ("q", alone)):
            ask_everything(server, project, run.name, run.id)
        assert server.call("get_logs", project="p", run="empty", run_id=empty.id) == []
        (row,) = server.call("get_logs", project="p", run="one", run_id=one.id)
        assert row["x"] == 1.0
        store = open_store(state.root)
        assert store.curve("p", "empty", "x").num_rows == 0
        assert dict(zip(*(store.runs("p")[name].to_pylist() for name in ("name", "logs")), strict=True)) == {
            "empty": 0,
            "one": 1,
        }
        state.fold("p")
        state.fold("q")
    state.proven()
