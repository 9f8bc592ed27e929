"""A process of the torture that reads all the time: nothing that it has seen may vanish, and every value is right."""

from __future__ import annotations

import os
import sys
import time

from oracle import PROJECT, judge_rows

from eventlog.store import Store, open_store


def _runs(store: Store) -> list[tuple[str, str]]:
    table = store.runs(PROJECT)
    return list(zip(table["run_id"].to_pylist(), table["name"].to_pylist(), strict=True))


def main(root: str) -> None:
    """Poll until the parent is gone; say how often, and what was wrong."""
    parent = os.getppid()
    store = open_store(root)
    seen: dict[str, int] = {}
    cursor: dict[str, int] | None = None
    followed = polls = 0
    while os.getppid() == parent:
        if PROJECT not in store.projects():
            time.sleep(0.1)
            continue
        for run_id, name in _runs(store):
            rows = store.metrics(PROJECT, runs=run_id)
            if rows.num_rows < seen.get(run_id, 0):
                print(f"{run_id}: {seen[run_id]} rows were there, now {rows.num_rows}", flush=True)
            seen[run_id] = rows.num_rows
            for problem in judge_rows(name, rows.slice(max(rows.num_rows - 200, 0))):
                print(problem, flush=True)
        since = store.follow(PROJECT, cursor)
        followed += since.metrics.num_rows
        cursor = since.cursor
        polls += 1
        print(f"polls {polls} {followed}", flush=True)
        time.sleep(0.1)


if __name__ == "__main__":
    main(sys.argv[1])
