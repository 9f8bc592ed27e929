"""One process of `tools/bench peers`, in the environment of a peer: `log` a run, or `read` back what another logged.

Takes the name of what to do and a job as JSON; writes its figures to the file that the job names, for a peer prints
what it likes.
"""

from __future__ import annotations

import array
import json
import sys
import time
from typing import Any

import fresh
import workload
from subjects import SUBJECTS


def log(subject: str, root: str, data: str, records: int, runs: list[str]) -> dict[str, Any]:
    """Log a run as fast as it goes; the loop makes a new dict each step, as a training loop does."""
    work = workload.Workload(data, records)
    names, rows = work.names, work.rows
    times = array.array("q")
    keep, clock = times.append, time.perf_counter_ns
    before = fresh.rss_bytes()
    began = clock()
    log_step, finish = SUBJECTS[subject].start(root, runs[0])
    log_step(dict(zip(names, rows[0], strict=True)), 0)
    started = clock()
    for step in range(1, records):
        values = dict(zip(names, rows[step], strict=True))
        called = clock()
        log_step(values, step)
        keep(clock() - called)
    looped = clock()
    finish()
    finished = clock()
    return {
        "start_ms": (started - began) / 1e6,
        "loop_s": (looped - started) / 1e9,
        "finish_s": (finished - looped) / 1e9,
        "log_us": percentiles(times),
        "rss_before_mib": before / 2**20,
        "peak_rss_mib": fresh.peak_rss_bytes() / 2**20,
    }


def percentiles(nanoseconds: array.array[int]) -> dict[str, float]:
    """Return p50, p99, p99.9 and the highest, in microseconds."""
    ordered = sorted(nanoseconds)
    shares = {"p50": 0.5, "p99": 0.99, "p99_9": 0.999, "max": 1.0}
    return {name: ordered[int(share * (len(ordered) - 1))] / 1e3 for name, share in shares.items()}


def read(subject: str, root: str, data: str, records: int, runs: list[str]) -> dict[str, Any]:
    """Count what of some runs is there; `settle_s` is what had to be done first, as by a dashboard."""
    chosen = SUBJECTS[subject]
    settled = 0.0
    if chosen.settle is not None:
        settle = chosen.settle(root)
        began = time.perf_counter()
        settle()
        settled = time.perf_counter() - began
    return {"settle_s": settled, **workload.Workload(data, records).judge(chosen.read(root), runs)}


if __name__ == "__main__":
    job = json.loads(sys.argv[2])
    answer = job.pop("answer")
    result = {"log": log, "read": read}[sys.argv[1]](**job)
    with open(answer, "w", encoding="utf-8") as file:
        json.dump(result, file)
