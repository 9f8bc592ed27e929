"""What the service costs beside a steady stream of records, and beside a thousand writers that are idle."""

from __future__ import annotations

import contextlib
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from typing import Final

import fresh
import stores

from eventlog import WriterConfig, names
from eventlog import manifest as manifests
from eventlog.fs import LOCAL
from eventlog.run import Run, RunInfo

SECONDS: Final = 20.0
_WRITERS: Final = 8
_TICK_S: Final = 0.02
_RECORDS_A_TICK: Final = 20
_IDLE: Final = 1000
_SCRIPT: Final = os.path.abspath(__file__)


def measure(cache: str, seconds: float) -> dict[str, float]:
    """Return what the service took while 8 writers logged evenly, and while 1000 did nothing."""
    with tempfile.TemporaryDirectory(dir=cache) as root:
        steady = _steady(root, seconds)
    with tempfile.TemporaryDirectory(dir=cache) as root:
        idle = _idle(root, seconds)
    return {**steady, **idle}


def _steady(root: str, seconds: float) -> dict[str, float]:
    with _service(root) as service:
        before = _cpu_s(service.pid)
        began = time.monotonic()
        command = [sys.executable, _SCRIPT, root, str(seconds)]
        done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
        records = int(done.stdout)
        manifest, _ = manifests.load_newest(LOCAL, root, stores.PROJECT)
        while sum(mark.records for mark in manifest.writers.values()) < records:
            time.sleep(0.05)
            manifest, _ = manifests.load_newest(LOCAL, root, stores.PROJECT)
        took, cpu = time.monotonic() - began, _cpu_s(service.pid) - before
        peak = fresh.peak_rss_bytes(service.pid)
    points = (records - 2 * _WRITERS) * len(stores.METRICS)
    return {
        "points": points,
        "points_per_s": points / took,
        "core_share": cpu / took,
        "points_per_cpu_s": points / cpu,
        "peak_rss_mib": peak / 2**20,
        "folds": manifest.version,
    }


def _idle(root: str, seconds: float) -> dict[str, float]:
    settings = WriterConfig(sync_interval_s=None)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    runs = [
        Run(root, RunInfo(project=stores.PROJECT, run_id=names.new_id(), name=f"run-{index}"), config=settings)
        for index in range(_IDLE)
    ]
    for run in runs:
        run.log(dict.fromkeys(stores.METRICS, 1.0))
    with _service(root) as service:
        while manifests.load_newest(LOCAL, root, stores.PROJECT)[0].version == 0:
            time.sleep(0.1)
        # What was folded just now may change again unseen; a look later it is known to be idle.
        time.sleep(min(seconds, 5.0))
        before, began = _cpu_s(service.pid), time.monotonic()
        time.sleep(seconds)
        share = (_cpu_s(service.pid) - before) / (time.monotonic() - began)
    for run in runs:
        run.finish()
    return {"idle_writers": _IDLE, "idle_core_share": share}


@contextlib.contextmanager
def _service(root: str) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "compactor", "run", root]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            # Its start is no part of what it costs.
            while not os.path.isdir(names.segments_dir(root)):
                time.sleep(0.05)
            time.sleep(0.5)
            yield process
        finally:
            process.terminate()
            process.wait(60)


def _cpu_s(pid: int) -> float:
    with open(f"/proc/{pid}/stat", encoding="ascii") as file:
        fields = file.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _log(root: str, seconds: float) -> None:
    """Log evenly, as 8 runs of one process, and print how many records there are."""
    info = [RunInfo(project=stores.PROJECT, run_id=names.new_id(), name=f"run-{index}") for index in range(_WRITERS)]
    runs = [Run(root, each) for each in info]
    rows = [dict(zip(stores.METRICS, row, strict=True)) for row in stores.rows_of("noisy", 1000, 1)]
    began = time.monotonic()
    count = 0
    while time.monotonic() - began < seconds:
        for _ in range(_RECORDS_A_TICK):
            for run in runs:
                run.log(rows[count % 1000])
                count += 1
        time.sleep(_TICK_S)
    for run in runs:
        run.finish()
    print(count + 2 * _WRITERS)


if __name__ == "__main__":
    _log(sys.argv[1], float(sys.argv[2]))
