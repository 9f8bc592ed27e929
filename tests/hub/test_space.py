"""The life of a Space: it starts empty, is written to, dies in every way, loses its disk, and goes on from a bucket."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from bucketcases import check_whole, client, fold, is_clean, log, rows, syncing
from localhub.process import LocalHub, client_environment
from spacecases import Space, entry, wait_until

from compactor.hub.restore import restore
from eventlog.fs import LOCAL
from eventlog.hub.address import BucketAddress
from eventlog.hub.bucket import Bucket

SELDOM = ("--interval", "3600")
OFTEN = ("--interval", "0.3")


@pytest.fixture
def space(hub: LocalHub, bucket: str, tmp_path: Path) -> Iterator[Callable[[str], Space]]:
    """Return a function that makes a Space with a disk of a name; all have one bucket."""
    made: list[Space] = []

    def make(name: str = "disk") -> Space:
        made.append(Space(hub, bucket, tmp_path / name))
        return made[-1]

    yield make
    for item in made:
        item.close()


def expected(*steps: int) -> Counter[tuple[int, float]]:
    return Counter({(step, step * 0.5): 1 for step in steps})


def has_published(hub: LocalHub, bucket: str, space: Space) -> bool:
    """Tell whether the bucket has all that the store holds."""
    said = space.numbers()
    lag = f'eventlog_bucket_lag_versions{{bucket="hf://buckets/{bucket}",project="p"}}'
    return said.get(lag) == 0 and said['eventlog_pending_bytes{project="p"}'] == 0 and bool(check_whole(hub, bucket))


def test_what_was_pushed_is_there_after_the_disk_was_lost(space, hub, bucket) -> None:
    first = space().start(*OFTEN)
    wait_until(first.is_ready, "an empty bucket is restored")
    first.logs(*(entry(f"l{step}", step) for step in range(10)))
    wait_until(lambda: has_published(hub, bucket, first), "it is published")
    first.kill()
    first.wipe()
    first.start(*OFTEN)
    wait_until(first.is_ready, "the store is restored")
    assert first.values() == expected(*range(10))
    # What clients send again because the answer was lost is known, although the index of ids went with the disk.
    first.logs(entry("l9", 9), entry("l10", 10))
    assert first.values() == expected(*range(11))
    assert first.call("get_run_summary", project="p", run="a")["last_step"] == 10
    assert first.end() == 0
    is_clean(first.store)


def test_sigterm_pushes_what_was_acknowledged_last(space) -> None:
    first = space().start(*SELDOM)
    wait_until(first.is_ready, "restored")
    first.logs(*(entry(f"l{step}", step) for step in range(5)))
    assert first.end() == 0
    first.wipe()
    first.start(*SELDOM)
    wait_until(first.is_ready, "restored")
    assert first.values() == expected(*range(5))


def test_with_ack_bucket_what_was_answered_survives_the_loss_of_the_machine_at_once(space, hub) -> None:
    first = space().start(*SELDOM, "--ack", "bucket")
    wait_until(first.is_ready, "restored")
    for step in range(3):
        first.logs(entry(f"l{step}", step))
    with hub.faulty("expired-token", times=0):
        assert first.post("bulk_log", logs=[entry("l3", 3)]).status_code == 503
    first.kill()
    first.wipe()
    first.start(*SELDOM, "--ack", "bucket")
    wait_until(first.is_ready, "restored")
    assert set(first.values()) >= set(expected(*range(3)))
    first.logs(entry("l3", 3))
    assert first.values() == expected(*range(4))


def test_logs_are_taken_while_the_store_is_restored_and_each_is_kept_once(space, hub, bucket) -> None:
    first = space().start(*OFTEN)
    wait_until(first.is_ready, "restored")
    first.logs(*(entry(f"l{step}", step) for step in range(4)))
    wait_until(lambda: has_published(hub, bucket, first), "it is published")
    first.kill()
    first.wipe()
    hub.fault("expired-token", times=0)  # nothing can be restored
    first.start(*OFTEN)
    assert first.health() == "restoring"
    assert first.http.get("/version").status_code == 200
    # Some of it was sent before, and the answer got lost; one batch comes twice; one entry has no id.
    first.logs(entry("l3", 3), entry("l4", 4))
    first.logs(entry("l3", 3), entry("l4", 4))
    first.logs({**entry("", 5), "log_id": None})
    alert = {"project": "p", "run": "a", "run_id": "run-a", "title": "t", "alert_id": "alert-1"}
    assert first.call("bulk_alert", alerts=[alert]) is None
    bad = first.post("bulk_log", logs=[{**entry("l9", 9), "project": "../p"}, {**entry("l9", 9), "metrics": 1}])
    assert bad.status_code == 400
    late = first.post("delete_run", project="p", run="a")
    assert (late.status_code, "restored" in late.json()["error"]) == (503, True)
    assert "being restored" in first.http.get("/eventlog/notice").json()["text"]
    assert first.numbers()["eventlog_restoring"] == 1
    assert first.numbers()["eventlog_held_calls"] == 4
    # What was answered survives the server, and the whole sidecar.
    os.kill(first.children()["server"], signal.SIGKILL)
    wait_until(lambda: answers(first), "the server is started again")
    first.kill()
    first.start(*OFTEN)
    assert first.values() == Counter()
    hub.clear_faults()
    # A client that begins a run asks once: it is answered when the answer is right.
    summary = first.call("get_run_summary", project="p", run="a", run_id="run-a")
    assert (summary["last_step"], summary["num_logs"]) == (5, 6)
    assert first.health() == "ok"
    assert first.values() == expected(*range(6))
    assert [row["title"] for row in first.call("get_alerts", project="p")] == ["t"]
    assert first.numbers()["eventlog_held_calls"] == first.numbers()["eventlog_restoring"] == 0
    assert first.end() == 0
    is_clean(first.store)


def answers(space: Space) -> bool:
    try:
        return space.http.get("/healthz").status_code == 200
    except httpx.TransportError:
        return False


def test_a_project_whose_file_in_the_bucket_is_damaged_does_not_keep_the_others_from_being_served(
    space, hub, bucket, tmp_path
) -> None:
    log(tmp_path / "made", "run", 20, project="bad")
    fold(tmp_path / "made", "bad")
    log(tmp_path / "made", "run", 20, project="p")
    syncing(hub, bucket, tmp_path / "made").once()
    held = client(hub, bucket)
    (metrics,) = held.files("snapshots/bad/data/metrics")
    held.upload([(b"\0" * metrics.size_bytes, metrics.path)])
    first = space().start(*OFTEN)
    wait_until(first.is_ready, "what can be restored is")
    assert "project bad is not restored" in first.log.read_text()
    assert first.call("get_runs_for_project", project="p")[0]["name"] == "run"
    first.logs(entry("l0", 0))
    assert first.values() == expected(0)
    assert first.end() == 0
    assert held.info([metrics.path])[metrics.path].size_bytes == metrics.size_bytes


def test_each_process_that_is_killed_is_started_again_and_nothing_is_lost(space, hub, bucket) -> None:
    first = space().start(*OFTEN)
    wait_until(first.is_ready, "restored")
    before = first.children()
    assert set(before) == {"server", "compactor", "sync"}
    for number, role in enumerate(before):
        first.logs(entry(f"l{number}", number))
        os.kill(before[role], signal.SIGKILL)
        wait_until(lambda role=role: first.children().get(role, before[role]) != before[role], f"{role} is back")
        wait_until(lambda: answers(first), "the server answers")
    wait_until(lambda: has_published(hub, bucket, first), "it is published")
    assert first.values() == expected(*range(3))
    assert first.end() == 0
    assert "SIGKILL" in first.log.read_text()


def test_no_process_outlives_the_parent(space) -> None:
    first = space().start(*SELDOM)
    wait_until(first.is_ready, "restored")
    children = first.children()
    first.process.kill()
    first.process.wait()
    first.process.stdout.close()
    wait_until(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in children.values()), "they have ended")
    assert len(children) == 3


def test_a_space_that_another_has_replaced_hands_over_what_it_took_last(space, hub, bucket) -> None:
    old = space("old").start(*OFTEN)
    wait_until(old.is_ready, "restored")
    old.logs(entry("l0", 0))
    wait_until(lambda: has_published(hub, bucket, old), "it is published")
    new = space("new").start(*OFTEN)
    wait_until(new.is_ready, "restored")
    assert new.values() == expected(0)
    new.logs(entry("m0", 0, run="b"))
    wait_until(lambda: "ships its segments" in old.log.read_text(), "the old one has noticed")
    old.logs(entry("l1", 1))
    assert old.end() == 0
    wait_until(lambda: new.values() == expected(0, 1), "the new one has what the old one took last")
    assert new.values("run-b") == expected(0)
    assert new.end() == 0
    is_clean(new.store)


def test_a_sidecar_fills_a_page_as_well(space, hub) -> None:
    hub.api().create_bucket("owner/page")
    first = space().start(*OFTEN, "--static-export", "owner/page", "--project", "p")
    wait_until(first.is_ready, "restored")
    assert set(first.children()) == {"server", "compactor", "page", "sync"}
    first.logs(entry("l0", 0))
    assert first.end() == 0
    page = Bucket(BucketAddress("owner/page"), api=hub.api())
    (found,) = [file for file in page.files("") if file.path == "runs.json"]
    assert [run["name"] for run in json.loads(page.read(found))] == ["a"]


@pytest.mark.parametrize(
    ("command", "options", "said"),
    [
        ("serve", ["--interval", "5"], "go with --bucket"),
        ("serve", ["--project", "p"], "--project goes with --static-export"),
        ("serve", ["--ack", "bucket"], "--ack bucket goes with --bucket"),
        ("serve", ["--bucket", "me/runs", "--no-compact"], "--no-compact does not go with --bucket"),
        ("serve", ["--bucket", "nothing"], "a bucket is hf://buckets/OWNER/NAME"),
        ("serve", ["--bucket", "me/runs", "--static-export", "me/page"], "go together"),
        ("run", ["--bucket", "me/runs", "--once"], "--bucket goes without --once"),
        ("run", ["--stop-within", "5"], "go with --bucket"),
        ("run", ["--bucket", "me/runs", "--stop-within", "0"], "stop_within_s"),
        ("run", ["--project", "p"], "--project goes with --once or --static-export"),
    ],
)
def test_options_that_do_not_go_together_are_refused_before_anything_is_done(tmp_path, command, options, said) -> None:
    store = tmp_path / "store"
    words = [sys.executable, "-m", "compactor", command, str(store), *options]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert said in done.stderr
    assert not store.exists()


@pytest.mark.parametrize("command", ["run", "serve", "status", "plan", "sync", "restore"])
def test_an_address_is_not_taken_for_a_directory(tmp_path, command) -> None:
    words = {"sync": ["hf://buckets/me/runs", "me/runs"], "restore": ["me/runs", "hf://buckets/me/runs"]}
    line = [sys.executable, "-m", "compactor", command, *words.get(command, ["hf://buckets/me/runs"])]
    done = subprocess.run(line, capture_output=True, text=True, timeout=60, check=False, cwd=tmp_path)
    assert (done.returncode, "is on the Hub" in done.stderr) == (2, True)
    assert list(tmp_path.iterdir()) == []


def test_a_compactor_beside_a_bucket_folds_and_publishes_what_training_processes_log(hub, bucket, tmp_path) -> None:
    root = tmp_path / "store"
    log(root, "first", 20)
    command = [sys.executable, "-m", "compactor", "run", str(root), "--bucket", bucket, *OFTEN]
    environment = client_environment(hub.url, tmp_path / "home")
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        wait_until(lambda: check_whole(hub, bucket), "the first run is published")
        log(root, "second", 20)
        before = check_whole(hub, bucket)
        wait_until(lambda: check_whole(hub, bucket) > before, "the second is published")
        process.terminate()
        said = process.stdout.read()
    assert process.returncode == 0
    assert "is published" in said
    restore(LOCAL, str(tmp_path / "copy"), client(hub, bucket), "p")
    assert rows(tmp_path / "copy") == rows(root)
    is_clean(tmp_path / "copy")
