"""Three hosts without a shared disk, one bucket, one collecting store: every record once, whoever is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from jobs import PATIENCE_S, Host, until

from eventlog import verify
from eventlog.fs import LOCAL
from eventlog.store import is_store, open_store

TRAIN = """
import os, sys
import eventlog

name, steps, stop = sys.argv[1], int(sys.argv[2]), sys.argv[3] == "stop"
rank = int(os.environ["RANK"])
settings = eventlog.WriterConfig(roll_interval_s=0.3, sync_interval_s=0.1)
for number in range(2):
    run = eventlog.init(id=f"{name}-{number}", settings=settings)
    child = os.fork()
    for step in range(steps):
        run.log({("child" if not child else "rank") + str(rank): step / 4 + number}, step=step)
    run.log({"file": eventlog.File(f"{name} {number} {rank} {child == 0}".encode() * 9)})
    if not child:
        run.finish()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    if stop:
        print("logged", flush=True)
        sys.stdin.read()
    run.finish()
"""
STEPS = 300
Points = Counter[tuple[str, str, int, float]]


def expected(name: str, runs: int = 2) -> Points:
    """Return what the jobs of a host log in so many runs."""
    return Counter(
        (f"{name}-{number}", f"{who}{rank}", step, step / 4 + number)
        for number in range(runs)
        for who in ("rank", "child")
        for rank in range(2)
        for step in range(STEPS)
    )


def found(root: Path) -> Points:
    """Return all points in a store, each as often as it is there."""
    if not is_store(str(root)) or "p" not in open_store(root).projects():
        return Counter()
    points: Points = Counter()
    table = open_store(root).metrics("p")
    runs, steps = table["_run_id"].to_pylist(), table["_step"].to_pylist()
    for name in table.column_names:
        if not name.startswith("_"):
            rows = zip(runs, steps, table[name].to_pylist(), strict=True)
            points.update((run, name, step, value) for run, step, value in rows if value is not None)
    return points


@pytest.fixture
def collect(make_host: Callable[..., Host], tmp_path: Path) -> Iterator[tuple[Host, Path]]:
    """Return a host with a compactor and a publisher at work, and the store that they collect in."""
    host, collected = make_host("collector"), tmp_path / "collected"
    compactor = [sys.executable, "-m", "compactor"]
    commands = (
        ["sync", str(collected), host.address, "--interval", "0.3", "--json"],
        ["run", str(collected), "--fold-interval", "0.2", "--sweep-interval", "0.2", "--fanout", "2"],
    )
    collected.mkdir()
    pipe = subprocess.PIPE
    children = [
        subprocess.Popen([*compactor, *command], env=host.environment, stdout=pipe, stderr=pipe, text=True)
        for command in commands
    ]
    yield host, collected
    for child in children:
        child.terminate()
    told = [child.communicate(timeout=PATIENCE_S)[1] for child in children]
    assert [child.returncode for child in children] == [0, 0], told
    assert "Traceback" not in "".join(told)


def jobs(host: Host, name: str, *, stop: bool = False) -> list[subprocess.Popen[str]]:
    """Start the two ranks of a host."""
    how = "stop" if stop else "go"
    return [host.start(TRAIN, name, STEPS, how, RANK=str(rank)) for rank in range(2)]


def is_clean(root: Path) -> None:
    report = verify.verify(str(root), "p", blobs=True)
    assert report.ok, report


def test_three_hosts_with_ranks_and_forks_are_collected_exactly_also_when_one_is_killed_and_shipped_late_and_twice(
    make_host: Callable[..., Host], collect: tuple[Host, Path]
) -> None:
    collector, collected = collect
    a, b, c = (make_host(name) for name in "abc")
    killed = jobs(c, "c", stop=True)
    others = [*jobs(a, "a"), *jobs(b, "b")]
    for job in killed:
        assert job.stdout.readline() == "logged\n"
    c.kill_shipper()
    for job in killed:
        os.kill(job.pid, signal.SIGKILL)
    for job in others:
        out, err = job.communicate(timeout=PATIENCE_S)
        assert (job.returncode, out, err) == (0, "", "")
    c.kill_shipper()  # where a job had started another before it was killed itself
    most = expected("a") + expected("b")
    until(lambda: most <= found(collected), "what the hosts that lived have logged")
    for host in (c, a, c):
        done = host.call("eventlog", "ship", str(host.store), host.address)
        assert (done.returncode, done.stderr) == (0, "")
    wanted = most + expected("c", runs=1)
    until(lambda: found(collected) == wanted, "what the killed host has logged")
    copy = collected.parent / "copy"
    assert collector.call("compactor", "restore", collector.address, str(copy)).returncode == 0
    for root in (collected, copy):
        assert found(root) == wanted
        is_clean(root)
    files = open_store(collected).events("p", kinds=["file"])
    assert len(files) == 2 * 2 * 4 + 4
    assert len([*(collected / "blobs").rglob("?" * 64)]) == len(files)
    assert not LOCAL.names(str(collected / "quarantine"))
