"""The processes of `tools/bench crowd` that log, in the environment of a peer: all import, start, wait for each other.

Takes a job as JSON. The library is imported once and each process is forked from that, so that what is timed is not
32 imports; nothing of it may have started a thread by then. Says "ready" when all have logged their first step, and
goes at the next line of input.
"""

from __future__ import annotations

import array
import importlib
import json
import os
import sys
import threading
import time
import traceback
from typing import Any

import workload
from peer import percentiles
from subjects import SUBJECTS


def member(job: dict[str, Any], index: int, ready: int, go: int) -> None:
    """Log a run, one step each few milliseconds, and write down how that went."""
    work = workload.Workload(job["data"], job["records"])
    names, rows = work.names, work.rows
    times = array.array("q")
    clock, pace_s = time.perf_counter_ns, job["pace_s"]
    log, finish = SUBJECTS[job["subject"]].start(job["root"], f"run-{index:02d}")
    log(dict(zip(names, rows[0], strict=True)), 0)
    os.write(ready, b".")
    os.read(go, 1)
    began = time.monotonic()
    for step in range(1, len(rows)):
        values = dict(zip(names, rows[step], strict=True))
        called = clock()
        log(values, step)
        times.append(clock() - called)
        time.sleep(pace_s)
    logged = time.monotonic()
    finish()
    answer = {"began": began, "logged": logged, "finished": time.monotonic(), "log_us": percentiles(times)}
    path = os.path.join(job["answers"], f"{index:02d}.json")
    with open(f"{path}.part", "w", encoding="utf-8") as file:
        json.dump(answer, file)
    os.rename(f"{path}.part", path)


def start(job: dict[str, Any], index: int, ready: int, go: int) -> int:
    """Fork one; what it says goes to a file beside its answer."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        said = os.open(os.path.join(job["answers"], f"{index:02d}.said"), os.O_WRONLY | os.O_CREAT, 0o644)
        os.dup2(said, 1)
        os.dup2(said, 2)
        member(job, index, ready, go)
        code = 0
    except BaseException:
        traceback.print_exc()
        raise
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def main() -> None:
    """Fork all, and wait for all."""
    job = json.loads(sys.argv[1])
    importlib.import_module(job["subject"])
    if threading.active_count() != 1:
        raise RuntimeError(f"importing {job['subject']} starts a thread: a forked process would lack it")
    ready, tell_ready = os.pipe()
    go, tell_go = os.pipe()
    pids = [start(job, index, tell_ready, go) for index in range(job["processes"])]
    os.close(tell_ready)
    waiting = len(pids)
    while waiting:
        told = os.read(ready, waiting)
        if not told:
            raise RuntimeError("a process ended before it had logged its first step")
        waiting -= len(told)
    print("ready", flush=True)
    sys.stdin.readline()
    os.write(tell_go, b"." * len(pids))
    for pid in pids:
        os.waitpid(pid, 0)


if __name__ == "__main__":
    main()
