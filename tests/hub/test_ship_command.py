"""`eventlog ship` to a bucket, as a process of its own on each host: what arrives, what it prints, how it exits."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from localhub.process import LocalHub, client_environment
from shipping import begin, held, inbox_of, make_store, opened

from compactor.config import CompactorConfig
from compactor.fold import fold
from compactor.hub.sync import Sync, SyncConfig
from eventlog.fs import LOCAL
from eventlog.store import open_store


def call(hub: LocalHub, home: Path, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "eventlog", "ship", *arguments]
    environment = client_environment(hub.url, home, **more)
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)


def test_what_three_hosts_ship_in_any_order_and_twice_is_folded_once(
    hub: LocalHub, bucket: str, tmp_path: Path
) -> None:
    address = f"hf://buckets/{bucket}/team"
    hosts = [make_store(tmp_path / name, name=name) for name in ("a", "b", "c")]
    collected = str(tmp_path / "collected")
    sync = Sync(collected, opened(hub, bucket, "team"), SyncConfig())
    for host in (hosts[2], hosts[0], hosts[2], hosts[1]):
        done = call(hub, tmp_path / "home", str(host), address, "--json")
        assert (done.returncode, done.stderr) == (0, "")
        shipped = json.loads(done.stdout)
        assert shipped["copied"] + shipped["present"] == 4
        sync.once()
        fold(LOCAL, collected, "p", CompactorConfig())
        sync.once()
    rows = open_store(collected).metrics("p").to_pylist()
    assert sorted((row["_run_id"], row["_step"], row["loss"]) for row in rows) == [
        (name, step, step / 2) for name in ("a", "b", "c") for step in (0, 1)
    ]


def test_it_says_what_was_copied_was_there_is_open_and_in_conflict(hub: LocalHub, bucket: str, tmp_path: Path) -> None:
    store, there = make_store(tmp_path / "store"), opened(hub, bucket)
    run = begin(store, "open")
    run.log({"x": 1.0})
    arguments = (str(store), f"hf://buckets/{bucket}")
    done = call(hub, tmp_path / "home", *arguments)
    assert (done.stdout, done.returncode) == ("4 files copied, 0 were there, 1 are still open\n", 0)
    run.finish()
    path = next((store / "segments").rglob("00000002.seg"))
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    done = call(hub, tmp_path / "home", *arguments)
    assert (done.stdout, done.returncode) == ("1 files copied, 3 were there, 0 are still open\n", 1)
    assert f"conflict: {there}/{path.relative_to(store)} holds other records" in done.stderr


def test_only_the_named_project_goes_and_a_refusal_is_one_line(hub: LocalHub, bucket: str, tmp_path: Path) -> None:
    for name in ("p", "q"):
        begin(tmp_path / "store", project=name).finish()
    arguments = (str(tmp_path / "store"), f"hf://buckets/{bucket}")
    refused = call(hub, tmp_path / "home", *arguments, HF_TOKEN="hf_nobody")
    assert (refused.returncode, refused.stdout, len(refused.stderr.splitlines())) == (2, "", 1)
    assert held(opened(hub, bucket)) == {}
    assert call(hub, tmp_path / "home", *arguments, "--project", "q").returncode == 0
    wanted = {path for path in inbox_of(tmp_path / "store") if path.startswith("segments/q/")}
    assert set(held(opened(hub, bucket))) == wanted
    wrong = call(hub, tmp_path / "home", arguments[0], "hf://datasets/a/b")
    assert (wrong.returncode, "a bucket is hf://buckets/OWNER/NAME" in wrong.stderr) == (2, True)
