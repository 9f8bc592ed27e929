"""The reader of the demo: a process that polls the store as a dashboard does, and checks all that it gets.

Run as `python -m eventlog.demo.poll JOB`, with a `Job` as JSON. It writes a `Seen` as JSON after each look, and ends
when its standard input does.
"""

from __future__ import annotations

import select
import sys
import time

import msgspec

from eventlog.demo import recorded
from eventlog.demo.checks import Expected
from eventlog.store import Store, open_store


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """What to poll: the store, the project, and how many seconds to wait between two looks."""

    root: str
    project: str
    interval_s: float


class Seen(msgspec.Struct, kw_only=True):
    """What was seen so far.

    Attributes:
        polls: how often the reader looked.
        rows: in each run at the last look.
        slowest_ms: the slowest look at one run, its metrics and one curve.
        problems: where rows had gone, or were no start of the recording.
    """

    polls: int = 0
    rows: dict[str, int] = {}
    slowest_ms: float = 0.0
    problems: list[str] = []


def poll(job: Job) -> None:
    """Look until standard input ends, and once more after that."""
    expected = {recording.name: Expected(recording) for recording in recorded.load_all()}
    store = open_store(job.root)
    seen = Seen()
    last = False
    while True:
        _look(store, job.project, expected, seen)
        sys.stdout.buffer.write(msgspec.json.encode(seen) + b"\n")
        sys.stdout.buffer.flush()
        if last:
            return
        last = bool(select.select([sys.stdin], [], [], job.interval_s)[0])


def _look(store: Store, project: str, expected: dict[str, Expected], seen: Seen) -> None:
    if project not in store.projects():
        return
    for name in store.runs(project)["name"].to_pylist():
        began = time.perf_counter()
        rows = store.metrics(project, runs=name)
        curve = store.curve(project, name, "loss")
        seen.slowest_ms = max(seen.slowest_ms, (time.perf_counter() - began) * 1e3)
        before = seen.rows.get(name, 0)
        if rows.num_rows < before:
            seen.problems.append(f"{name}: {before} rows became {rows.num_rows}")
        if "loss" in rows.schema.names and curve.num_rows < rows.num_rows - rows["loss"].null_count:
            seen.problems.append(f"{name}: the curve has fewer points than the rows that were read before it")
        seen.problems += expected[name].differences_in_start(rows) + expected[name].differences_in_curve(curve, "loss")
        seen.rows[name] = rows.num_rows
    seen.polls += 1


if __name__ == "__main__":
    poll(msgspec.json.decode(sys.argv[1], type=Job))
