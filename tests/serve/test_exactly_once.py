"""Exactly once, whatever happens: bursts, kill -9, restarts, lost replies, a lost index, folded stores, a full disk."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import signal
import subprocess
import threading
import time
import warnings
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from eventlog import schema, segment
from eventlog.store import open_store

LOGGING = """
count, threads, pause, begin = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), sys.argv[4]
run = init(config={"lr": 1})
print("ready", flush=True)
if begin == "wait":
    sys.stdin.readline()

def work(first):
    for step in range(first, first + count):
        run.log({"x": step * 0.5}, step=step)
        if pause:
            time.sleep(pause)

workers = [threading.Thread(target=work, args=(number * count,)) for number in range(threads)]
for worker in workers:
    worker.start()
for worker in workers:
    worker.join()
print("logged", flush=True)
trackio.finish()
"""


def each_once(steps: range) -> dict[str, Counter]:
    """Return the values that logs of these steps leave."""
    return {"a": Counter({(step, step * 0.5): 1 for step in steps})}


class Sender:
    """A client that sends batches until each was answered with 200, as the real one does, but without pauses."""

    def __init__(self, ports: list[int], headers: Any) -> None:
        """Take the servers; when one fails, the next is asked."""
        self.ports = ports
        self.http = httpx.Client(headers=headers, timeout=30, verify=False, trust_env=False)
        self.failures = 0
        self.answered: list[int] = []

    def send(self, entries: list[dict[str, Any]]) -> None:
        """Send one batch."""
        deadline = time.monotonic() + 100
        while time.monotonic() < deadline:
            url = f"http://127.0.0.1:{self.ports[self.failures % len(self.ports)]}/api/bulk_log"
            try:
                answer = self.http.post(url, json={"kwargs": {"logs": entries}})
            except httpx.HTTPError:
                answer = None
            if answer is not None and answer.status_code == 200:
                self.answered += [entry["step"] for entry in entries]
                return
            assert answer is None or answer.status_code == 503, answer.text
            self.failures += 1
            time.sleep(0.02)
        raise AssertionError("never answered with 200")

    def start(self, work: list[list[dict[str, Any]]]) -> threading.Event:
        """Send many batches from four threads; the event says that all were answered."""
        done = threading.Event()

        def send_all() -> None:
            with self.http, ThreadPoolExecutor(4) as pool:
                list(pool.map(self.send, work))
            done.set()

        threading.Thread(target=send_all, daemon=True).start()
        return done


@pytest.fixture
def batches(entry):
    """Return a function that makes batches of logs with ids of their own."""

    def make(steps: range, size: int) -> list[list[dict[str, Any]]]:
        entries = [entry(f"id-{step}", step) for step in steps]
        return [entries[at : at + size] for at in range(0, len(entries), size)]

    return make


def test_a_burst_of_2000_logs_is_2000_logs(server, trackio, state):
    trackio(server.url, LOGGING, 2000, 1, 0, "now").finish()
    assert state.values() == each_once(range(2000))
    assert server.call("get_run_summary", project="p", run="a")["num_logs"] == 2000
    state.proven()


def test_threads_of_one_client_lose_and_double_nothing(server, trackio, state):
    trackio(server.url, LOGGING, 250, 32, 0, "now").finish()
    assert state.values() == each_once(range(8000))
    state.proven()


def test_32_threads_that_send_1000_logs_each_and_repeat_some_are_32000_logs(server, batches, state):
    def work(number: int) -> None:
        for index, batch in enumerate(batches(range(number * 1000, number * 1000 + 1000), 100)):
            for _ in range(1 + index % 2):
                assert server.logs(batch).status_code == 200

    with ThreadPoolExecutor(32) as pool:
        list(pool.map(work, range(32)))
    assert state.values() == each_once(range(32_000))
    state.proven()


def test_one_id_in_one_batch_or_in_two_requests_at_once_is_one_log(server, entry, state):
    batch = [entry("same", 0), entry("same", 0), *(entry(f"id-{step}", step) for step in range(1, 500))]
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda _: server.logs(batch), range(16)))
    assert {answer.status_code for answer in answers} == {200}
    assert state.values() == each_once(range(500))


def test_logs_without_an_id_are_all_kept(server, entry, state):
    for log_id in (None, "", None):
        assert server.logs([entry(log_id, 7), entry(log_id, 7)]).status_code == 200
    assert state.values() == {"a": Counter({(7, 3.5): 6})}


def test_a_server_that_is_killed_again_and_again_loses_and_doubles_nothing(serving, trackio, state):
    server = serving()
    client = trackio(server.url, LOGGING, 3000, 1, 0.001, "now")
    client.wait_for("ready")
    for index in range(3):
        time.sleep(0.6 + index / 7)
        server.kill()
        if index == 1:
            state.forget_index()
        server = serving(port=server.port)
    client.finish()
    assert state.values() == each_once(range(3000))
    state.proven()


def test_kills_in_mid_batch_cost_no_log_and_double_none(serving, batches, state):
    server = serving()
    sender = Sender([server.port], server.http.headers)
    work = batches(range(20_000), 500)
    done = sender.start(work)
    kills = 0
    while not done.wait(0.02 + 0.013 * kills) and kills < 5:
        server.kill()
        kills += 1
        if kills % 2:
            state.forget_index()
        server = serving(port=server.port)
    assert done.wait(100)
    assert kills >= 3
    assert sender.failures > 0
    for batch in work[::7]:
        assert server.logs(batch).status_code == 200
    assert state.values() == each_once(range(20_000))
    state.proven()


def test_what_comes_again_days_later_when_its_segments_are_gone_is_stored_once(serving, batches, state):
    work = batches(range(3000), 250)
    server = serving()
    for part in range(3):
        for batch in work[part * 4 : part * 4 + 4]:
            assert server.logs(batch).status_code == 200
        state.fold(fanout=2)
    assert server.end(signal.SIGTERM) == 0
    # As if retention had passed.
    for _ in range(2):
        state.fold(fanout=2, grace_s=0.0, segment_retention_s=0.0)
    assert not list(state.root.glob("segments/p/*/*"))
    for keep_index in (True, False):
        if not keep_index:
            state.forget_index()
        server = serving()
        for batch in work:
            assert server.logs(batch).status_code == 200
        assert state.values() == each_once(range(3000))
        state.proven()
        server.kill()
    server = serving()
    assert server.logs([*work[0], *batches(range(3000, 3001), 1)[0]]).status_code == 200
    assert state.values() == each_once(range(3001))
    state.proven()


def test_a_client_that_starts_before_its_server_delivers_everything(serving, trackio, state):
    server = serving()
    server.kill()
    client = trackio(
        server.url,
        """
        run = init(config={"lr": 1})
        for step in range(500):
            run.log({"x": step * 0.5}, step=step)
        print("logged", flush=True)
        sys.stdin.readline()
        trackio.finish()
        """,
    )
    client.wait_for("logged")
    server = serving(port=server.port)
    deadline = time.monotonic() + 60
    while not server.call("get_run_summary", project="p", run="a")["num_logs"] and time.monotonic() < deadline:
        time.sleep(0.05)
    client.go_on()
    client.finish()
    assert state.values() == each_once(range(500))
    assert state.run()["config"]["lr"] == 1
    state.proven()


def test_replies_that_are_lost_and_refusals_are_made_good_by_the_client_and_stored_once(server, proxy, trackio, state):
    way = proxy(server.port, ["lose", "pass", "503", "lose", "pass", "refuse", "pass", "lose", "lose"])
    trackio(
        way.url,
        """
        run = init(config={"lr": 1})
        open("f.txt", "w").write("saved")
        for part in range(4):
            for step in range(part * 100, part * 100 + 100):
                run.log({"x": step * 0.5}, step=step)
            run.log_system({"cpu": float(part)})
            time.sleep(0.7)
        trackio.save("f.txt")
        trackio.finish()
        """,
    ).finish()
    assert way.plan == []
    assert state.values() == each_once(range(400))
    assert sorted(open_store(state.root).system("p")["cpu"].to_pylist()) == [0.0, 1.0, 2.0, 3.0]
    (file,) = server.call("get_project_files", project="p")
    assert server.file(file["path"]).text == "saved"
    state.proven()


def test_sigterm_in_mid_stream_answers_what_was_taken_and_loses_nothing(serving, trackio, batches, state):
    server = serving()
    client = trackio(server.url, LOGGING, 2000, 1, 0.001, "now")
    client.wait_for("ready")
    sender = Sender([server.port], server.http.headers)
    done = sender.start(batches(range(100_000, 130_000), 100))
    for _ in range(2):
        time.sleep(0.5)
        assert server.end(signal.SIGTERM) == 0
        answered = set(sender.answered)
        assert answered <= {step for step, _ in state.values()["a"]}
        assert not list(state.root.glob("segments/p/*/*.open"))
        server = serving(port=server.port)
    assert done.wait(100)
    client.finish()
    assert state.values() == {"a": each_once(range(2000))["a"] + each_once(range(100_000, 130_000))["a"]}
    state.proven()


def frames_of(path: Path) -> list[segment.Item]:
    data = path.read_bytes()
    return [item for item in segment.items(data, segment.parse_header(data, str(path))) if hasattr(item, "record")]


def torn(path: Path, kept: int, tail: bytes) -> None:
    """Cut a segment so that of the last receipt's records only some are left, as a power loss may."""
    items = frames_of(path)
    receipt = max(index for index, item in enumerate(items) if isinstance(item.record, schema.Receipt))
    end = items[receipt + kept].end
    path.write_bytes(path.read_bytes()[:end] + tail)


def test_a_receipt_whose_records_are_missing_does_not_count_as_received(serving, batches, state):
    whole, lost = batches(range(20), 10)
    cuts = {f"p{kept}{len(tail)}": (kept, tail) for kept in (0, 1, 7) for tail in (b"", b"\0" * 4096, b"\x12\x34\x56")}

    def send(server, *parts):
        for project in cuts:
            for part in parts:
                assert server.logs([{**entry, "project": project} for entry in part]).status_code == 200

    server = serving()
    send(server, whole, lost)
    server.kill()
    for project, (kept, tail) in cuts.items():
        (path,) = state.root.glob(f"segments/{project}/*/*.open")
        torn(path, kept, tail)
        assert state.values(project=project) == each_once(range(10 + kept))
    for _ in range(2):
        state.forget_index()
        server = serving()
        send(server, lost, whole)
        for project in cuts:
            assert state.values(project=project) == each_once(range(20))
        state.proven()
        assert server.end(signal.SIGTERM) == 0
        for project in cuts:
            state.fold(project, grace_s=0.0, segment_retention_s=0.0, missing_grace_s=0.0)


def test_a_record_that_was_damaged_on_disk_is_not_received_and_the_rest_of_its_batch_is(serving, batches, state):
    (batch,) = batches(range(10), 10)
    server = serving()
    assert server.logs(batch).status_code == 200
    server.kill()
    (path,) = state.root.glob("segments/p/*/*.open")
    logs = [item for item in frames_of(path) if isinstance(item.record, schema.Log)]
    data = bytearray(path.read_bytes())
    data[logs[4].end - 1] ^= 1
    path.write_bytes(data)
    state.forget_index()
    server = serving()
    assert server.logs(batch).status_code == 200
    assert state.values() == each_once(range(10))


def test_of_two_servers_on_a_store_one_takes_for_a_project_and_the_other_takes_over_when_it_dies(
    serving, batches, state
):
    first, second = serving(), serving()
    one, two, three = batches(range(30), 10)
    assert first.logs(one).status_code == 200
    refused = second.logs(two)
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
    assert "another server" in refused.json()["error"]
    elsewhere = [{**entry, "project": "q"} for entry in one]
    assert second.logs(elsewhere).status_code == 200
    assert first.logs(elsewhere).status_code == 503
    assert second.call("get_run_summary", project="p", run="a")["num_logs"] == 10
    assert state.values() == each_once(range(10))
    first.kill()
    for batch in (one, two, three, two):
        assert second.logs(batch).status_code == 200
    assert second.call("get_run_summary", project="p", run="a")["num_logs"] == 30
    assert state.values() == each_once(range(30))
    state.proven()


def test_clients_that_go_from_server_to_server_while_both_are_killed_in_turn_are_stored_once(serving, batches, state):
    servers = [serving(compact=True), serving(compact=True)]
    sender = Sender([server.port for server in servers], servers[0].http.headers)
    done = sender.start(batches(range(12_000), 60))
    for index in (0, 1, 0):
        time.sleep(0.1)
        servers[index].kill()
        if index:
            state.forget_index()
        servers[index] = serving(port=servers[index].port, compact=True)
    assert done.wait(100)
    assert sender.failures > 0
    assert state.values() == each_once(range(12_000))
    state.proven()


@pytest.fixture
def small_disk(tmp_path: Path):
    """A tmpfs of 3 MiB; skipped, loudly, where mounting is not allowed."""
    path = tmp_path / "small"
    path.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        if os.environ.get("CI"):
            pytest.fail(f"cannot mount a tmpfs in CI: {done.stderr}")
        warnings.warn(f"SKIPPED: cannot mount a tmpfs: {done.stderr}", UserWarning, stacklevel=1)
        pytest.skip("cannot mount a tmpfs")
    yield path
    subprocess.run(["umount", "--lazy", str(path)], check=True)


def fill(path: Path) -> None:
    """Take all space that is left."""
    with contextlib.suppress(OSError), path.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))


def test_a_full_disk_answers_503_and_everything_is_stored_once_when_space_returns(serving, batches, state, small_disk):
    server = serving(store=small_disk / "store")
    work = batches(range(4000), 200)
    assert server.logs(work[0]).status_code == 200
    filler = small_disk / "filler"
    fill(filler)
    statuses = Counter(server.logs(batch).status_code for batch in work for _ in range(2))
    assert statuses[503] > 10
    assert set(statuses) <= {200, 503}
    assert server.http.post("/api/upload", files={"files": ("x", bytes(100_000))}).status_code == 503
    assert server.call("get_run_summary", project="p", run="a")["run"] == "a"
    filler.unlink()
    for batch in work:
        assert server.logs(batch).status_code == 200
    found = type(state)(small_disk / "store")
    assert found.values() == each_once(range(4000))
    assert server.end(signal.SIGTERM) == 0
    assert not list(small_disk.glob("store/incoming/*"))
    found.forget_index()
    server = serving(store=small_disk / "store")
    for batch in work[::3]:
        assert server.logs(batch).status_code == 200
    assert found.values() == each_once(range(4000))
    found.proven()
    server.kill()


BAD = {"run": "", "run_id": "\ud800", "project": "", "metrics": [1], "step": "one", "config": [], "log_id": 5}


def test_one_bad_entry_in_a_batch_stores_nothing_of_it(server, entry, state):
    assert server.logs([entry("before", 0)]).status_code == 200
    files = state.files()
    for where, field in itertools.product((0, 2), BAD):
        batch = [entry(f"id-{step}", step, project=f"p{step % 2}", config={"a": step}) for step in range(1, 4)]
        batch[where][field] = BAD[field]
        answer = server.http.post("/api/bulk_log", content=json.dumps({"kwargs": {"logs": batch}}))
        assert answer.status_code == 400, answer.text
        assert state.files() == files
    assert server.call("get_all_projects") == ["p"]
    assert server.logs([entry(f"id-{step}", step) for step in range(1, 4)]).status_code == 200
    assert state.values() == {"a": Counter({(0, 0.0): 1, (1, 0.5): 1, (2, 1.0): 1, (3, 1.5): 1})}


def test_one_bad_alert_or_upload_in_a_batch_stores_nothing_of_it(server, state):
    alert = {"project": "p", "run": "a", "title": "t", "alert_id": "1"}
    for bad in ({**alert, "project": "q", "level": "loud"}, {**alert, "title": None}, {**alert, "step": "x"}):
        assert server.post("bulk_alert", alerts=[alert, bad]).status_code == 400
    good = {"project": "p", "run": "a", "run_id": "r", "step": 1, "uploaded_file": {"path": "", "orig_name": "f"}}
    for bad in (
        {"relative_path": "../up", "run": None},
        {"run_id": "\ud800"},
        {"uploaded_file": {"path": "/etc/passwd"}},
    ):
        uploads = [{**good, "uploaded_file": {"path": server.upload(b"x"), "orig_name": "f"}} for _ in range(2)]
        text = json.dumps({"kwargs": {"uploads": [uploads[0], {**uploads[1], **bad}]}})
        assert server.http.post("/api/bulk_upload_media", content=text).status_code == 400
    assert server.call("get_all_projects") == []
    assert not [path for path in state.files() if path.startswith("segments")]
