"""Writers for `tools/bench serve`: processes that log to the runs of a store, one or more a run, 20 times a second."""

from __future__ import annotations

import os
import sys
import threading
import time

import stores

from eventlog.run import Run, RunInfo
from eventlog.store import open_store


def write(root: str, run_id: str, name: str, start: int) -> None:
    """Log until the parent is gone."""
    info = RunInfo(project=stores.PROJECT, run_id=run_id, name=name, mode="attach", first_step=start)
    run = Run(root, info)
    parent = os.getppid()
    value = 0.0
    while os.getppid() == parent:
        run.log(dict.fromkeys(stores.METRICS, value))
        value += 1.0
        time.sleep(0.05)


def main() -> None:
    """Start the writers at the first line of input."""
    root, count = sys.argv[1], int(sys.argv[2])
    runs = open_store(root).runs(stores.PROJECT).select(["run_id", "name", "last_step"]).to_pylist()
    print("ready", flush=True)
    if not sys.stdin.readline():
        return
    for index in range(count):
        run = runs[index % len(runs)]
        if os.fork() == 0:
            write(root, run["run_id"], run["name"], run["last_step"] + 1)
            os._exit(0)
    drain = threading.Thread(target=sys.stdin.read, daemon=True)
    drain.start()
    drain.join()


if __name__ == "__main__":
    main()
