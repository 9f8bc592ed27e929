"""Do memory and open files stay flat? A million records, a thousand segments, and a thousand polls of every reader."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

import numpy as np
import stores
from charts import Panel
from grids import Grid
from serve import Client

from eventlog import WriterConfig, names
from eventlog.run import Run, RunInfo
from eventlog.store import open_store

DEFAULT_RECORDS: Final = 1_000_000
DEFAULT_REPEAT: Final = 1
_RECORDS_A_POLL: Final = 1000
_BYTES_A_SEGMENT: Final = 1000 * 98  # a record of 8 metrics is 98 bytes: a segment holds about a thousand
_LOGS_A_POLL: Final = 50
_SAMPLES: Final = 100
_TENTHS: Final = range(10, 101, 10)
_SHOWN: Final = (10, 50, 100)
_TOKEN: Final = "bench"  # noqa: S105 - a server of its own, on loopback


class Sample(NamedTuple):
    """What a process held when so much was done."""

    done: int
    rss_bytes: int
    descriptors: int


def sample(done: int, pid: int | str = "self") -> Sample:
    """Look at a process: its resident memory, and the descriptors that it has open."""
    with open(f"/proc/{pid}/statm", encoding="ascii") as file:
        pages = int(file.read().split()[1])
    return Sample(done, pages * os.sysconf("SC_PAGE_SIZE"), len(os.listdir(f"/proc/{pid}/fd")))


def measure(cache: str, records: int, repeat: int) -> dict[str, Any]:
    """Return the figures: a writer alone first, then every reader at each poll of a store that grows.

    Memory is sampled a hundred times; one turn tells as much as several, so `repeat` changes nothing.
    """
    del repeat
    polls = max(records // _RECORDS_A_POLL, 3 * len(_TENTHS))
    with _directory(cache) as root:
        writer = _asked("write", root, str(records))
        segments = sum(len(found) for _, _, found in os.walk(names.segments_dir(root)))
        reader = _asked("read", root, str(polls))
    with _directory(cache) as root:
        polled = _poll_all(root, polls)
    subjects = {"writer": writer, "reader of all segments": reader, **polled}
    return {
        "parameters": {"records": records, "segments": segments, "polls": polls, "logs_a_poll": 2 * _LOGS_A_POLL},
        "subjects": {name: _figures([Sample(*item) for item in found]) for name, found in subjects.items()},
    }


@contextlib.contextmanager
def _directory(cache: str) -> Iterator[str]:
    root = os.path.join(cache, f"flat-{os.getpid()}-{time.monotonic_ns()}")
    try:
        yield root
    finally:
        shutil.rmtree(root, ignore_errors=True)


def _figures(samples: list[Sample]) -> dict[str, Any]:
    """Return what was held at each tenth of the work, and how memory grew from the first on, by the best line."""
    last = samples[-1].done
    at = {f"{tenth}%": min(samples, key=lambda item: abs(100 * item.done - tenth * last)) for tenth in _TENTHS}
    late = [item for item in samples if 10 * item.done >= last]
    slope = np.polyfit([item.done / last for item in late], [item.rss_bytes for item in late], 1)[0]
    return {
        "done": last,
        "rss_bytes": {tenth: item.rss_bytes for tenth, item in at.items()},
        "descriptors": {tenth: item.descriptors for tenth, item in at.items()},
        "rss_slope_bytes_a_thousand": float(slope) / last * 1000,
    }


def _asked(*arguments: str) -> list[list[int]]:
    """Run a role in a process of its own, and return the samples that it prints."""
    command = [sys.executable, os.path.abspath(__file__), *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    found: list[list[int]] = json.loads(done.stdout)
    return found


def _give_back() -> None:
    """Let go of what the allocator keeps for later, so that what is sampled is what is held."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # only glibc has it
    if trim is not None:
        trim(0)


def _is_due(index: int, count: int) -> bool:
    """Whether a process is sampled after this turn: about a hundred times, and at the end."""
    return index % max(count // _SAMPLES, 1) == 0 or index == count - 1


def _write(root: str, records: int) -> list[Sample]:
    """Log so many records into segments of about a thousand each; now and then one that is no number."""
    settings = WriterConfig(segment_bytes=_BYTES_A_SEGMENT)
    run = Run(root, RunInfo(project=stores.PROJECT, run_id="flat", name="flat"), config=settings)
    values = stores.rows_of("noisy", 1000, 1)
    found = []
    for step in range(records):
        run.log(dict(zip(stores.METRICS, values[step % 1000], strict=True)), step)
        if step % 1000 == 999:
            run.log({"note": f"step {step}", "sizes": {"a": step, "b": [step]}}, step)
            run.alert("a thousand more", level="info")
        if _is_due(step, records):
            found.append(sample(step + 1))
    run.finish()
    return found


def _read(root: str, polls: int) -> list[Sample]:
    """Ask one store, kept open, again and again for what a script or a notebook asks for."""
    store = open_store(root)
    found = []
    for poll in range(polls):
        _ask(open_store(root) if poll % 50 == 49 else store)
        if _is_due(poll, polls):
            _give_back()
            found.append(sample(poll + 1))
    return found


def _ask(store: Any) -> None:
    store.runs(stores.PROJECT)
    store.curve(stores.PROJECT, "flat", stores.METRICS[0], max_points=100)
    store.metric_names(stores.PROJECT)
    store.events(stores.PROJECT, kinds="alert")


def _poll(root: str) -> None:
    """Refresh a store at each line of input; where the line asks for it, tell what this process holds."""
    store = open_store(root)
    cursor: dict[str, int] | None = None
    for poll, line in enumerate(sys.stdin):
        since = store.follow(stores.PROJECT, cursor)
        cursor = since.cursor
        _ask(store)
        held = None
        if line.strip():
            _give_back()
            held = sample(poll + 1)
        print(json.dumps(held), flush=True)


def _poll_all(root: str, polls: int) -> dict[str, list[Sample]]:
    """Log a little, by a writer and over HTTP; then poll the store and the server, while the compactor folds it."""
    run = Run(root, RunInfo(project=stores.PROJECT, run_id="flat", name="flat"), config=WriterConfig())
    run.log(dict.fromkeys(stores.METRICS, 0.0))
    python = [sys.executable, "-m", "compactor"]
    quick = ["--sweep-interval", "0.05", "--fold-interval", "0.05", "--grace", "1", "--keep-segments", "1"]
    serving = [*python, "serve", root, "--port", "0", "--json", "--ui", "none", "--no-compact", "--write-token", _TOKEN]
    found: dict[str, list[Sample]] = {"Store, polled": [], "compactor run": [], "compactor serve, polled": []}
    with (
        _process([*python, "run", root, *quick], stderr=subprocess.DEVNULL) as compactor,
        _process(serving) as server,
        _process([sys.executable, os.path.abspath(__file__), "poll", root]) as store,
    ):
        client = Client(json.loads(server.stdout.readline())["url"])
        for poll in range(polls):
            for step in range(_LOGS_A_POLL):
                run.log(dict.fromkeys(stores.METRICS, float(step)))
            _call(client, poll)
            due = _is_due(poll, polls)
            store.stdin.write(b"sample\n" if due else b"\n")
            store.stdin.flush()
            held = json.loads(store.stdout.readline())
            if due:
                found["Store, polled"].append(Sample(*held))
                found["compactor run"].append(sample(poll + 1, compactor.pid))
                found["compactor serve, polled"].append(sample(poll + 1, server.pid))
        run.finish()
        for process in (compactor, server):
            if process.poll() is not None:
                raise RuntimeError(f"{' '.join(process.args)} ended with {process.returncode}")
    return found


def _call(client: Client, poll: int) -> None:
    logs = [
        {
            "project": stores.PROJECT,
            "run": "sent",
            "run_id": "sent",
            "metrics": dict.fromkeys(stores.METRICS, float(poll)),
            "step": poll * _LOGS_A_POLL + index,
            "config": None,
            "log_id": f"{poll}-{index}",
        }
        for index in range(_LOGS_A_POLL)
    ]
    client.call("bulk_log", logs=logs)
    runs = [{"run": name, "run_id": name} for name in ("flat", "sent")]
    client.call("get_runs_for_project", project=stores.PROJECT)
    client.call("get_logs_batch", project=stores.PROJECT, runs=runs, max_points=3000, scalar_only=True)
    client.call("get_alerts", project=stores.PROJECT)


@contextlib.contextmanager
def _process(command: list[str], stderr: int | None = None) -> Iterator[Any]:
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr) as process:
        try:
            yield process
        finally:
            process.terminate()


def tables(found: dict[str, Any]) -> Iterator[Grid]:
    """Yield the table for people."""
    asked = found["parameters"]
    title = f"flat: {asked['records']:,} records, {asked['segments']:,} segments, {asked['polls']:,} polls"
    heads = [f"{what} at {tenth}%" for what in ("RSS MiB", "descriptors") for tenth in _SHOWN]
    rows = []
    for name, figures in found["subjects"].items():
        memory = [f"{figures['rss_bytes'][f'{tenth}%'] / 2**20:.1f}" for tenth in _SHOWN]
        descriptors = [str(figures["descriptors"][f"{tenth}%"]) for tenth in _SHOWN]
        rows.append([name, *memory, *descriptors, f"{figures['rss_slope_bytes_a_thousand'] / 1024:+.1f}"])
    yield Grid(title, ["process", *heads, "KiB more a thousand records or polls"], rows)


def panels(found: dict[str, Any]) -> list[Panel]:
    """Return what `--plot` draws."""
    whats = {"rss_bytes": ("Resident memory", "MiB", 2**20), "descriptors": ("Open descriptors", "descriptors", 1)}
    return [
        Panel(
            title=f"{title}, each line a process",
            unit=f"{unit}, level is good",
            labels=[*_TENTHS],
            series={
                name: [value / base for value in figures[key].values()] for name, figures in found["subjects"].items()
            },
            kind="lines",
            across="% of all records or polls",
            log=False,
        )
        for key, (title, unit, base) in whats.items()
    ]


def reading(found: dict[str, Any]) -> list[str]:
    """Return what these figures say."""
    said = []
    for name, figures in found["subjects"].items():
        memory, descriptors = list(figures["rss_bytes"].values()), list(figures["descriptors"].values())
        said.append(
            f"{name}: from a tenth to the end of {figures['done']:,} {'records' if name == 'writer' else 'polls'}, "
            f"{(memory[-1] - memory[0]) / 2**20:+.1f} MiB and {descriptors[-1] - descriptors[0]:+d} descriptors."
        )
    return said


def main() -> None:
    """Play one role: write, read or poll."""
    role, root, *count = sys.argv[1:]
    if role == "poll":
        _poll(root)
    else:
        print(json.dumps({"write": _write, "read": _read}[role](root, int(count[0]))))


if __name__ == "__main__":
    main()
