"""Real processes in odd surroundings: wrong clocks, other time zones, equal pids, odd mounts, no file events."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from process_support import finish

import eventlog
from compactor.config import CompactorConfig
from compactor.work import take_turn
from eventlog.fs import LOCAL
from eventlog.store import open_store
from eventlog.verify import verify

EAGER = CompactorConfig(grace_s=0, segment_retention_s=0)
_ALLOWED = subprocess.run(["unshare", "-Urmpf", "true"], capture_output=True, check=False).returncode == 0
namespaces = pytest.mark.skipif(not _ALLOWED, reason="NOT TESTED: this machine lets nobody make namespaces")
LOGGING = 'import sys, eventlog; r = eventlog.init("p", sys.argv[2], dir=sys.argv[1]); r.log({"x": 1.0}); r.finish()'


@pytest.fixture
def inside() -> Callable[..., subprocess.CompletedProcess]:
    """Return a function that runs a shell script as the first process of namespaces of its own."""

    def run(script: str, *args: object, code: int = 0, **environment: str) -> subprocess.CompletedProcess:
        command = ["unshare", "-Urmpf", "--mount-proc", "--kill-child", "sh", "-ec", script, sys.executable, *args]
        command = [str(part) for part in command]
        done = subprocess.run(
            command, env={**os.environ, **environment}, capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == code, done.stderr
        return done

    return run


def make_store(store: Path, count: int = 20) -> None:
    with eventlog.init("p", "a", dir=store) as run:
        for step in range(count):
            run.log({"x": float(step)}, step=step)


def values(store: Path) -> list[float]:
    return open_store(store).metrics("p")["x"].to_pylist()


@namespaces
def test_two_processes_of_one_pid_and_host_are_two_writers(tmp_path, inside):
    for name in "ab":
        inside('exec "$0" -c "$1" "$2" "$3"', LOGGING, tmp_path, name)
    starts = open_store(tmp_path).runs("p")
    assert starts["name"].to_pylist() == ["a", "b"]
    events = open_store(tmp_path).events("p", kinds="run_start")
    assert [text for text in events["payload"].to_pylist() if '"pid":1,' not in text] == []
    assert len(set(events["_writer"].to_pylist())) == 2
    assert verify(str(tmp_path)).ok


@namespaces
@pytest.mark.parametrize("kind", ["nfs4", "fuse.sshfs"])
def test_on_a_network_mount_a_writer_spools_or_refuses_and_a_compactor_refuses(tmp_path, inside, kind):
    store = tmp_path / "mount" / "store"
    store.mkdir(parents=True)
    mountinfo = tmp_path / "mountinfo"
    mountinfo.write_text(f"1 0 0:1 / / rw - ext4 d rw\n2 1 0:2 / {tmp_path}/mount rw - {kind} server rw\n")
    script = f'mount --bind "{mountinfo}" /proc/$$/mountinfo; exec "$0" '
    refused = inside(script + '-c "$1" "$2" "$3"', LOGGING, store, "a", code=1, EVENTLOG_NETWORK_MOUNT="refuse")
    assert f"is on a {kind} mount" in refused.stderr
    assert list(store.iterdir()) == []
    spool = tmp_path / "spool"
    inside(script + '-W ignore -c "$1" "$2" "$3"', LOGGING, store, "a", EVENTLOG_SPOOL_DIR=str(spool))
    assert values(store) == [1.0]
    assert len(list(spool.rglob("*.seg"))) == 1
    assert verify(str(store)).ok
    stopped = inside(script + '-m compactor run "$1" --once', store, code=2)
    assert f"is on a {kind} mount" in stopped.stderr


CRASHING = """
import os, sys, eventlog
run = eventlog.init("p", "a", dir=sys.argv[1], resume="allow")
run.log({"x": float(sys.argv[2])}, step=int(sys.argv[2]))
run.flush()
os._exit(0)
"""


@namespaces
def test_what_a_machine_left_when_it_went_down_is_read_on_after_its_next_boot(tmp_path, inside):
    store = tmp_path / "store"
    script = 'mount --bind "$3" /proc/sys/kernel/random/boot_id; exec "$0" '
    for step in range(3):
        boot = tmp_path / f"boot-{step}"
        boot.write_text(f"00000000-0000-0000-0000-00000000000{step}\n")
        inside(script + '-c "$1" "$2" "$4"', CRASHING, store, boot, step)
        inside('mount --bind "$2" /proc/sys/kernel/random/boot_id; exec "$0" -m compactor run "$1" --once', store, boot)
    left = [path.read_bytes() for path in store.rglob("*.open")]
    assert [sum(f"-00000000000{step}".encode() in data for data in left) for step in range(3)] == [1, 1, 1]
    assert values(store) == [0.0, 1.0, 2.0]
    assert open_store(store).runs("p").num_rows == 1
    assert verify(str(store)).ok


@pytest.mark.invariant(4)
@namespaces
def test_a_store_on_a_read_only_mount_can_be_read_by_everything_that_reads(tmp_path, inside):
    store = tmp_path / "store"
    make_store(store)
    take_turn(LOCAL, str(store), "p", CompactorConfig())
    make_store(store)
    script = """
        mount --bind "$1" "$1"; mount -o remount,ro,bind "$1"
        if touch "$1/x" 2>&-; then exit 9; fi
        "$0" -m eventlog runs "$1" --json; "$0" -m eventlog curve "$1" p a x --json; "$0" -m eventlog verify "$1"
        "$0" -m compactor status "$1"; "$0" -m compactor plan "$1"
        exec "$0" -c "$2" "$1"
    """
    reading = """
import subprocess, sys, json, urllib.request
from eventlog.store import open_store
store = open_store(sys.argv[1])
assert store.metrics("p").num_rows == 40 and store.follow("p").metrics.num_rows == 40
assert store.at(1).metrics("p").num_rows == 20
command = [sys.executable, "-m", "compactor", "serve", sys.argv[1], "--port", "0", "--no-compact", "--ui", "none"]
server = subprocess.Popen([*command, "--json", "--write-token", "t"], stdout=subprocess.PIPE, text=True)
subprocess.run(["ip", "link", "set", "lo", "up"], check=False, capture_output=True)
url = json.loads(server.stdout.readline())["url"]
body = json.dumps({"args": [], "kwargs": {"project": "p"}}).encode()
call = urllib.request.Request(url + "/api/get_runs_for_project", body, {"content-type": "application/json"})
assert len(json.load(urllib.request.urlopen(call, timeout=60))["data"]) == 2
server.terminate()
server.wait()
"""
    inside(script, store, reading)
    assert len(values(store)) == 40


@namespaces
def test_a_compactor_without_file_events_says_so_once_and_goes_on_by_sweeps(tmp_path):
    store, said = tmp_path / "store", tmp_path / "said"
    store.mkdir()
    options = "--fold-interval 0.1 --sweep-interval 0.1"
    script = f'echo 0 > /proc/sys/user/max_inotify_instances; exec "$0" -m compactor run "$1" {options}'
    with said.open("w") as errors:
        command = ["unshare", "-Ur", "sh", "-ec", script, sys.executable, str(store)]
        service = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=errors)
    try:
        for count in (1, 2):
            make_store(store)
            deadline = time.monotonic() + 60
            while sum(file.rows for file in open_store(store).manifest("p").of_table("metrics")) < 20 * count:
                assert time.monotonic() < deadline, said.read_text()
                time.sleep(0.05)
        service.terminate()
        assert service.wait(60) == 0
    finally:
        service.kill()
        service.wait()
    assert said.read_text().count("no file events") == 1


def test_a_change_to_summer_time_changes_no_time_and_no_order(tmp_path, start):
    zones = """
        import os, sys, time, eventlog
        run = eventlog.init("p", "a", dir=sys.argv[1])
        for step, zone in enumerate(("CET-1CEST,0/0,366/0", "CET-1", "NZST-12NZDT", "UTC0")):
            os.environ["TZ"] = zone
            time.tzset()
            run.log({"x": float(step), "before": float(time.time_ns())}, step=step)
        run.finish()
    """
    finish(start(zones, tmp_path))
    take_turn(LOCAL, str(tmp_path), "p", EAGER)
    rows = open_store(tmp_path).metrics("p")
    assert rows["x"].to_pylist() == [0.0, 1.0, 2.0, 3.0]
    late = [
        at - asked
        for at, asked in zip(rows["_time"].cast("int64").to_pylist(), rows["before"].to_pylist(), strict=True)
    ]
    assert all(-1e6 < ns < 60e9 for ns in late)


@pytest.mark.invariant(7)
@pytest.mark.parametrize("years", [-10, 10])
def test_a_compactor_with_a_wrong_clock_loses_and_doubles_nothing(tmp_path, years):
    def wrong_ns() -> int:
        return time.time_ns() + years * 365 * 86_400 * 10**9

    config = CompactorConfig(grace_s=60, segment_retention_s=60)
    with eventlog.init("p", "a", dir=tmp_path) as run:
        for step in range(60):
            run.log({"x": float(step)}, step=step)
            if step % 10 == 9:
                take_turn(LOCAL, str(tmp_path), "p", config, time_ns=wrong_ns if step % 20 == 9 else time.time_ns)
    take_turn(LOCAL, str(tmp_path), "p", config)
    assert values(tmp_path) == [float(step) for step in range(60)]
    report = verify(str(tmp_path))
    assert (report.findings, report.lost, report.doubled, report.gaps) == ([], 0, 0, 0)


READER = """
    import sys
    from eventlog.errors import ConflictError
    from eventlog.store import open_store
    held, conflicts, low = open_store(sys.argv[1]), 0, 0
    print("reading", flush=True)
    while low < int(sys.argv[2]):
        pinned, dataset = held.at(held.manifest("p").version), held.dataset("p", "metrics")
        try:
            rows = held.metrics("p")["x"].to_pylist()
            curve = held.curve("p", "a", "x")["value"].to_pylist()
        except ConflictError:
            # Without any grace two collections can fall into one answer: the next one is right again.
            conflicts += 1
            continue
        assert rows == [float(x) for x in range(len(rows))] and len(rows) >= low, (low, rows)
        low = len(rows)
        assert curve == [float(x) for x in range(len(curve))] and len(curve) >= low
        for read in (lambda: pinned.metrics("p"), lambda: dataset.to_table(columns=["x", "_seq"]).sort_by("_seq")):
            try:
                found = read()["x"].to_pylist()
                assert found == [float(x) for x in range(len(found))]
            except (ConflictError, FileNotFoundError):
                conflicts += 1
    print(conflicts)
"""


@pytest.mark.invariant(6)
def test_open_readers_read_on_while_everything_behind_them_is_collected(tmp_path, start):
    run = eventlog.init("p", "a", dir=tmp_path, settings=eventlog.WriterConfig(segment_bytes=4096))
    run.log({"x": 0.0})
    take_turn(LOCAL, str(tmp_path), "p", EAGER)
    readers = [start(READER, tmp_path, 1500) for _ in range(2)]
    for reader in readers:
        assert reader.stdout.readline() == "reading\n"
    removed = 0
    for step in range(1, 1500):
        run.log({"x": float(step)})
        if step % 15 == 0:
            removed += take_turn(LOCAL, str(tmp_path), "p", EAGER).removed
    run.finish()
    conflicts = [int(finish(reader)) for reader in readers]
    assert removed > 100
    assert sum(conflicts) > 0, "nothing was collected under a reader, so nothing was tested"
    assert verify(str(tmp_path)).ok
