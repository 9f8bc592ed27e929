"""How fast log() is: each call, a whole process, bytes, and what the import costs, beside the bare loop."""

from __future__ import annotations

import array
import contextlib
import importlib
import os
import shutil
import struct
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator
from typing import Any, Final

import fresh
from charts import Panel

DEFAULT_RECORDS: Final = 1_000_000
_WARM_UP: Final = 2_000
_ROWS: Final = 1024
_TURN: Final = 250
_IMPORTS: Final = 7


def measure(cache: str, records: int, repeat: int) -> dict[str, Any]:
    """Return the figures; subjects take turns: within a process for each call, in fresh ones for all else."""
    calls: list[dict[str, Any]] = []
    whole: dict[str, list[dict[str, Any]]] = {"eventlog": [], "limit": []}
    imports: dict[str, list[dict[str, Any]]] = {"eventlog": [], "msgspec": []}
    for _ in range(repeat):
        calls.append(fresh.call("write", "time_calls", cache=cache, records=records))
        for subject, times in whole.items():
            times.append(fresh.call("write", "time_whole", cache=cache, subject=subject, records=records))
    for _ in range(_IMPORTS * repeat):
        for module, times in imports.items():
            times.append(time_import(module))
    log = {subject: _medians([each[subject] for each in calls]) for subject in whole}
    return {
        "parameters": {"records": records, "metrics_per_record": 8, "repeat": repeat, "sync_interval_s": 1.0},
        "log_us": log,
        "log_p50_ratio": log["eventlog"]["p50"] / log["limit"]["p50"],
        "through_finish": {subject: _medians(found) for subject, found in whole.items()},
        "import": {module: _medians(found) for module, found in imports.items()},
    }


def _medians(results: list[dict[str, Any]]) -> dict[str, float]:
    import numpy as np

    return {key: float(np.median([result[key] for result in results])) for key in results[0]}


def _rows() -> list[dict[str, float]]:
    import random

    rng = random.Random(1)
    names = ("loss", "grad_norm", "accuracy", "entropy", "lr", "epoch", "loss_scale", "tokens_per_s")
    single = struct.Struct("<f")
    return [{name: single.unpack(single.pack(rng.gauss(0, 1)))[0] for name in names} for _ in range(_ROWS)]


@contextlib.contextmanager
def _subject(cache: str, subject: str) -> Iterator[tuple[Callable[[Any, int], Any], Callable[[], None], str]]:
    """Yield how to log, how to finish, and the directory that is written to."""
    root = tempfile.mkdtemp(prefix="write-", dir=cache)
    try:
        log, finish = _eventlog(root) if subject == "eventlog" else bare_loop(root, values=8)
        yield log, finish, root
    finally:
        shutil.rmtree(root)


def _eventlog(root: str) -> tuple[Callable[[Any, int], Any], Callable[[], None]]:
    import eventlog

    run = eventlog.init("bench", "run", dir=root)
    return run.log, run.finish


def bare_loop(root: str, values: int) -> tuple[Callable[[Any, int], Any], Callable[[], None]]:
    """Return the limit: encode the same record with so many packed values, checksum it, one write(2)."""
    from eventlog.schema import Log, encode

    fd = os.open(os.path.join(root, "bare"), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    pack, header = struct.Struct(f"<{values}d").pack, struct.Struct("<II").pack
    write, crc32, time_ns = os.write, zlib.crc32, time.time_ns

    def log(data: dict[str, float], step: int) -> None:
        payload = encode(Log(time_ns(), step, 0, pack(*data.values()), None))
        write(fd, header(crc32(payload), len(payload)) + payload)

    def finish() -> None:
        os.fdatasync(fd)
        os.close(fd)

    return log, finish


def time_calls(cache: str, records: int) -> dict[str, dict[str, float]]:
    """Time each call of both subjects, by turns of a few hundred calls, so that whatever else runs disturbs both alike.

    Microseconds, with the clock's own cost of about 0.05. The limit never syncs by itself, but it shares a disk
    with one that does each second, so of the highest figures only eventlog's mean anything.
    """
    rows = _rows()
    clock = time.perf_counter_ns
    with _subject(cache, "eventlog") as ours, _subject(cache, "limit") as limit:
        subjects = {"eventlog": ours, "limit": limit}
        times = {name: array.array("q") for name in subjects}
        for log, _, _ in subjects.values():
            for step in range(min(_WARM_UP, records)):
                log(rows[step % _ROWS], step)
        for start in range(0, records, _TURN):
            for name, (log, _, _) in subjects.items():
                keep = times[name].append
                for step in range(start, min(start + _TURN, records)):
                    data = rows[step % _ROWS]
                    began = clock()
                    log(data, step)
                    keep(clock() - began)
        for _, finish, _ in subjects.values():
            finish()
    return {name: _percentiles(found) for name, found in times.items()}


def _percentiles(nanoseconds: array.array[int]) -> dict[str, float]:
    ordered = sorted(nanoseconds)
    shares = {"p50": 0.5, "p99": 0.99, "p99_9": 0.999, "max": 1.0}
    return {name: ordered[int(share * (len(ordered) - 1))] / 1e3 for name, share in shares.items()}


def time_whole(cache: str, subject: str, records: int) -> dict[str, float]:
    """Time everything from the start of the run until it is durable, but not the imports."""
    rows = _rows()
    importlib.import_module("eventlog")
    began = time.perf_counter()
    with _subject(cache, subject) as (log, finish, root):
        for step in range(records):
            log(rows[step % _ROWS], step)
        finish()
        seconds = time.perf_counter() - began
        size = sum(
            os.path.getsize(os.path.join(directory, entry))
            for directory, _, entries in os.walk(root)
            for entry in entries
        )
    return {
        "records": records,
        "seconds": seconds,
        "events_per_s": records / seconds,
        "bytes_per_point": size / (records * 8),
        "peak_rss_mib": fresh.peak_rss_bytes() / 2**20,
    }


_IMPORT: Final = """
import os, sys, time
def rss():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
before, began = rss(), time.perf_counter()
__import__(sys.argv[1])
print((time.perf_counter() - began) * 1e3, (rss() - before) / 2**20)
"""


def time_import(module: str) -> dict[str, float]:
    """Time one import in a fresh process that has imported nothing else, and what it adds to the memory."""
    # As pip installs a package: compiled. The first turn compiles, and the median forgets it.
    env = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    done = subprocess.run([sys.executable, "-c", _IMPORT, module], stdout=subprocess.PIPE, check=True, env=env)
    milliseconds, mebibytes = done.stdout.split()
    return {"ms": float(milliseconds), "rss_mib": float(mebibytes)}


def table(found: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Return the figures for people: what, eventlog's, and the limit's."""
    ours, limit = found["log_us"]["eventlog"], found["log_us"]["limit"]
    whole, bare = found["through_finish"]["eventlog"], found["through_finish"]["limit"]
    imports = found["import"]
    lines = [(f"log() {name.replace('_', '.')} µs", f"{ours[name]:.2f}", f"{limit[name]:.2f}") for name in ours]
    return [
        *lines,
        ("log() p50, times the limit", f"{found['log_p50_ratio']:.2f}", "1"),
        ("events/s through finish", f"{whole['events_per_s']:,.0f}", f"{bare['events_per_s']:,.0f}"),
        ("bytes/point, hot", f"{whole['bytes_per_point']:.1f}", f"{bare['bytes_per_point']:.1f}"),
        ("peak memory MiB", f"{whole['peak_rss_mib']:.0f}", f"{bare['peak_rss_mib']:.0f}"),
        ("import ms (the limit: msgspec)", f"{imports['eventlog']['ms']:.0f}", f"{imports['msgspec']['ms']:.0f}"),
        ("import MiB", f"{imports['eventlog']['rss_mib']:.1f}", f"{imports['msgspec']['rss_mib']:.1f}"),
    ]


def panels(found: dict[str, Any]) -> list[Panel]:
    """Return what `--plot` draws."""
    log, whole = found["log_us"], found["through_finish"]
    keys, subjects = list(log["limit"]), ["limit", "eventlog"]
    return [
        Panel(
            title="log(), beside the bare loop",
            unit="µs, less is better",
            labels=subjects,
            series={key.replace("_", "."): [log[subject][key] for subject in subjects] for key in keys},
        ),
        Panel(
            title="Events a second through finish",
            unit="events/s, more is better",
            labels=subjects,
            series={"": [whole[subject]["events_per_s"] for subject in subjects]},
            log=False,
        ),
    ]
