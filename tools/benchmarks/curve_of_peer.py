"""Fill a peer's own files with the rows on standard input, once, and time one curve; runs in the peer's environment."""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

METRICS = ("loss", "grad_norm", "accuracy", "entropy", "lr", "epoch", "loss_scale", "tokens_per_s")


def trackio(home: str, runs: list[list[list[float]]]) -> Callable[[], Any]:
    """Log through Trackio's storage, and return what reads one metric of one run."""
    del home
    from trackio.sqlite_storage import SQLiteStorage

    for index, rows in enumerate(runs):
        SQLiteStorage.bulk_log(
            project="bench",
            run=f"run-{index}",
            run_id=f"id-{index}",
            metrics_list=[dict(zip(METRICS, row, strict=True)) for row in rows],
            steps=list(range(len(rows))),
            log_ids=[f"{index}-{step}" for step in range(len(rows))],
        )
    return lambda: SQLiteStorage.get_metric_values("bench", "run-1", METRICS[0], run_id="id-1")


def tensorboard(home: str, runs: list[list[list[float]]]) -> Callable[[], Any]:
    """Write event files, and return what loads one run, as every look at new data has to."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.summary.writer.event_file_writer import EventFileWriter

    for index, rows in enumerate(runs):
        writer = EventFileWriter(os.path.join(home, f"run-{index}"))
        for step, row in enumerate(rows):
            values = [Summary.Value(tag=tag, simple_value=value) for tag, value in zip(METRICS, row, strict=True)]
            writer.add_event(Event(wall_time=time.time(), step=step, summary=Summary(value=values)))
        writer.close()

    def read() -> Any:
        events = EventAccumulator(os.path.join(home, "run-1"), size_guidance={"scalars": 0, "tensors": 0})
        events.Reload()
        tags = events.Tags()
        return events.Scalars(METRICS[0]) if METRICS[0] in tags["scalars"] else events.Tensors(METRICS[0])

    return read


def main() -> None:
    """Print the milliseconds of the first look and of the later ones."""
    peer, home, rows = sys.argv[1], sys.argv[2], int(sys.argv[3])
    filled = os.path.join(home, "filled")
    runs = [] if os.path.exists(filled) else json.load(sys.stdin)
    read = {"trackio": trackio, "tensorboard": tensorboard}[peer](home, runs)
    with open(filled, "w", encoding="ascii") as file:
        file.write("yes")
    times: list[float] = []
    for _ in range(5):
        began = time.perf_counter()
        points = len(read())
        times.append((time.perf_counter() - began) * 1e3)
        if points != rows:
            raise RuntimeError(f"{peer} has {points} points of {rows}")
    print(json.dumps({"first_ms": times[0], "again_ms": statistics.median(times[1:])}))


if __name__ == "__main__":
    main()
