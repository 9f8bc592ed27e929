"""The same run logged by this project and by each peer, in turns and in fresh processes: what a training waits for."""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from typing import Any, Final

import environments
import numpy as np
import watched
import workload
from charts import Panel
from grids import Grid, number
from subjects import SUBJECTS

DEFAULT_RECORDS: Final = 20_000
DEFAULT_REPEAT: Final = 3
NAMES: Final = tuple(SUBJECTS)
_FEWER: Final = 10
_LIMIT_S: Final = 300.0
_PATIENCE_S: Final = 45.0
_PERCENTILES: Final = {"p50": "p50", "p99": "p99", "p99_9": "p99.9", "max": "max"}
_HERE: Final = os.path.dirname(os.path.abspath(__file__))


def measure(cache: str, records: int, repeat: int, only: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return the figures: a tenth of the records by all, then all of them by those that can in a reasonable time."""
    chosen = ["limit", *(name for name in NAMES if name != "limit" and (not only or name in only))]
    missing = _missing(chosen)
    subjects = [name for name in chosen if name not in missing]
    sizes = (max(records // _FEWER, 2), records)
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for size in sizes:
        found[str(size)] = {
            name: {"skipped": reason} for name in subjects if (reason := _too_slow(found, size, name)) is not None
        }
        turns: dict[str, list[dict[str, Any]]] = {name: [] for name in subjects if name not in found[str(size)]}
        for turn in range(repeat):
            for name in list(turns):
                print(f"peers: {size:,} records, round {turn + 1} of {repeat}, {name}", file=sys.stderr, flush=True)
                try:
                    turns[name].append(_one(cache, name, size))
                except watched.FailedError as error:
                    found[str(size)][name] = {"failed": str(error)}
                    del turns[name]
        found[str(size)] |= {name: _summary(each) for name, each in turns.items()}
    return {
        "parameters": {"records": list(sizes), "metrics_per_record": 10, "repeat": repeat},
        "how": {name: SUBJECTS[name].how for name in chosen},
        "versions": _versions(subjects),
        "missing": missing,
        "found": found,
    }


def _missing(chosen: list[str]) -> dict[str, str]:
    missing = {}
    for name in chosen:
        try:
            environments.python_of(SUBJECTS[name].environment)
        except environments.UnavailableError as error:
            missing[name] = str(error)
    return missing


def _versions(chosen: list[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for environment in {SUBJECTS[name].environment for name in chosen} - {""}:
        found |= environments.versions(environment)
    return dict(sorted(found.items()))


def _too_slow(found: dict[str, dict[str, dict[str, Any]]], size: int, name: str) -> str | None:
    """Return why a subject is left out of the larger size, judged by the smaller one."""
    for smaller, results in found.items():
        result = results[name]
        if "events_per_s" not in result:
            return "failed with fewer records"
        expected = size / result["events_per_s"]
        if expected > _PATIENCE_S:
            return f"not run: {smaller} records took {int(smaller) / result['events_per_s']:.0f} s"
    return None


def _one(cache: str, name: str, records: int) -> dict[str, Any]:
    """Log one run in a fresh process, and read it back in another."""
    place = tempfile.mkdtemp(prefix=f"peers-{name}-", dir=cache)
    try:
        root, home, data = (os.path.join(place, part) for part in ("store", "home", "workload.json"))
        os.mkdir(root)
        os.mkdir(home)
        workload.prepare(data)
        job = {"subject": name, "root": root, "data": data, "records": records, "runs": ["run"]}
        began = time.perf_counter()
        logged, helpers = _process("log", name, job, place)
        process_s = time.perf_counter() - began
        size = workload.size_bytes(root)
        counted = read_back(name, job, place)
    finally:
        shutil.rmtree(place)
    own = logged["peak_rss_mib"]
    seconds = logged["loop_s"] + logged["finish_s"] + counted["settle_s"]
    return {
        **logged,
        **counted,
        "process_s": process_s,
        "helpers_rss_mib": helpers / 2**20,
        "rss_mib": own + helpers / 2**20,
        "bytes_per_point": size / counted["points"],
        "events_per_s": (records - 1) / seconds,
    }


def read_back(name: str, job: dict[str, Any], place: str) -> dict[str, Any]:
    """Return what another process, in the environment of a subject, counts of the runs of a job.

    Raises:
        watched.FailedError: it could not read them.
    """
    return _process("read", name, job, place)[0]


def _process(what: str, name: str, job: dict[str, Any], place: str) -> tuple[dict[str, Any], int]:
    """Return what the process found, and the memory of its helpers."""
    subject = SUBJECTS[name]
    more = {key: value.format(root=job["root"]) for key, value in subject.variables.items()}
    answer = os.path.join(place, f"{what}.json")
    argument = json.dumps({**job, "answer": answer})
    command = [environments.python_of(subject.environment), os.path.join(_HERE, "peer.py"), what, argument]
    helpers = watched.run(command, environments.variables(os.path.join(place, "home"), **more), _LIMIT_S)
    with open(answer, encoding="utf-8") as file:
        return json.load(file), helpers


def _summary(turns: list[dict[str, Any]]) -> dict[str, Any]:
    """Return medians; of what was lost or changed, the worst turn."""
    figures = {key: float(np.median([turn[key] for turn in turns])) for key in turns[0] if key != "log_us"}
    figures |= {key: max(turn[key] for turn in turns) for key in ("lost", "wrong", "doubled", "strange")}
    return {
        **figures,
        "present": min(turn["present"] for turn in turns),
        "log_us": {key: float(np.median([turn["log_us"][key] for turn in turns])) for key in _PERCENTILES},
    }


def _best(found: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return of each subject the figures of most records."""
    fewer, records = found["found"].values()
    return {name: (records[name] if "log_us" in records[name] else fewer[name]) for name in fewer}


def tables(found: dict[str, Any]) -> Iterator[Grid]:
    """Yield what people read: the figures, how they compare, and how they grow."""
    fewer, records = found["found"].values()
    parameters = found["parameters"]
    title = f"Ten metrics a step, {parameters['records'][1]:,} steps or fewer, medians of {parameters['repeat']}"
    best = _best(found)
    sizes = dict(zip(("fewer", "all"), found["parameters"]["records"], strict=True))
    columns = [
        "",
        "steps",
        *(f"log() {text} µs" for text in _PERCENTILES.values()),
        "steps/s to durable",
        "bytes/point",
    ]
    rows = []
    for name, result in best.items():
        if "log_us" not in result:
            rows.append([name, result.get("failed", "failed"), *[""] * (len(columns) - 2)])
            continue
        steps = sizes["all"] if result is records[name] else sizes["fewer"]
        log = [number(result["log_us"][key]) for key in _PERCENTILES]
        rows.append([name, f"{steps:,}", *log, number(result["events_per_s"]), number(result["bytes_per_point"])])
    rows += [[name, reason, *[""] * (len(columns) - 2)] for name, reason in found["missing"].items()]
    yield Grid(title, columns, rows)
    good = {name: result for name, result in best.items() if "log_us" in result}
    yield _costs(good)
    yield _ratios(good)
    yield _growth(fewer, records, sizes)


def _costs(good: dict[str, dict[str, Any]]) -> Grid:
    columns = [
        "",
        "peak memory MiB",
        "of it its helpers, each at its peak",
        "start-up ms",
        "finish s",
        "points lost",
        "points changed",
    ]
    rows = [
        [
            name,
            number(result["rss_mib"]),
            number(result["helpers_rss_mib"]) if result["helpers_rss_mib"] else "",
            number(result["start_ms"]),
            number(result["finish_s"] + result["settle_s"]),
            f"{result['lost']:,.0f} of {result['points']:,.0f}",
            f"{result['wrong'] + result['doubled'] + result['strange']:,.0f}",
        ]
        for name, result in good.items()
    ]
    return Grid("What it costs beside, and what another process read back", columns, rows)


def _ratios(good: dict[str, dict[str, Any]]) -> Grid:
    ours, limit = good.get("eventlog"), good.get("limit")
    columns = [
        "times eventlog's",
        "log() p50",
        "log() p99",
        "time to durable",
        "bytes/point",
        "memory",
        "start-up",
        "log() p50, times the limit",
    ]
    rows = []
    for name, result in good.items():
        if ours is None or limit is None:
            continue
        rows.append(
            [
                name,
                *(_times(result["log_us"][key], ours["log_us"][key]) for key in ("p50", "p99")),
                _times(ours["events_per_s"], result["events_per_s"]),
                *(_times(result[key], ours[key]) for key in ("bytes_per_point", "rss_mib", "start_ms")),
                _times(result["log_us"]["p50"], limit["log_us"]["p50"]),
            ]
        )
    return Grid("Compared: more is worse than eventlog, less is better", columns, rows)


def _times(value: float, base: float) -> str:
    return f"{number(value / base)}x" if base else ""


def _growth(fewer: dict[str, Any], records: dict[str, Any], sizes: dict[str, int]) -> Grid:
    rows = []
    for name, small in fewer.items():
        large = records[name]
        if "log_us" not in large or "log_us" not in small:
            rows.append([name, large.get("skipped", large.get("failed", "")), "", "", ""])
            continue
        rows.append(
            [
                name,
                _times(large["log_us"]["p50"], small["log_us"]["p50"]),
                _times(1 / large["events_per_s"], 1 / small["events_per_s"]),
                _times(large["bytes_per_point"], small["bytes_per_point"]),
                f"{large['rss_mib'] - small['rss_mib']:+.0f}",
            ]
        )
    title = f"Ten times as many steps: {sizes['fewer']:,} to {sizes['all']:,}"
    return Grid(title, ["", "log() p50", "time a step to durable", "bytes/point", "memory MiB"], rows)


def panels(found: dict[str, Any]) -> list[Panel]:
    """Return what `--plot` draws."""
    good = {name: result for name, result in _best(found).items() if "log_us" in result}
    names = list(good)
    latency = {text: [good[name]["log_us"][key] for name in names] for key, text in _PERCENTILES.items()}

    def one(title: str, key: str, unit: str, *, log: bool = True) -> Panel:
        figures: list[float | None] = [good[name][key] for name in names]
        return Panel(title=title, unit=unit, labels=names, series={"": figures}, log=log)

    return [
        Panel(title="What a training waits for in log()", unit="µs, less is better", labels=names, series=latency),
        one("Steps a second until durable", "events_per_s", "steps/s, more is better"),
        one("On disk after finish", "bytes_per_point", "bytes a point, less is better", log=False),
        one("Peak memory, helpers included", "rss_mib", "MiB, less is better", log=False),
        one("Import, init and the first log()", "start_ms", "ms, less is better"),
    ]


def reading(found: dict[str, Any]) -> list[str]:
    """Return what these figures say, the peers that are ahead of eventlog first."""
    good = {name: result for name, result in _best(found).items() if "log_us" in result and name != "limit"}
    ours = good.pop("eventlog", None)
    if ours is None:
        return []
    measures = {
        "log() p50": lambda result: result["log_us"]["p50"],
        "log() p99": lambda result: result["log_us"]["p99"],
        "log() p99.9": lambda result: result["log_us"]["p99_9"],
        "the slowest log()": lambda result: result["log_us"]["max"],
        "time to durable": lambda result: 1 / result["events_per_s"],
        "bytes a point": lambda result: result["bytes_per_point"],
        "peak memory": lambda result: result["rss_mib"],
        "start-up": lambda result: result["start_ms"],
    }
    said = []
    for text, figure in measures.items():
        ratios = sorted((figure(result) / figure(ours), name) for name, result in good.items())
        ahead = [f"{name} ({ratio:.2f}x)" for ratio, name in ratios if ratio < 1]
        if ahead:
            said.append(f"{text}: ahead of eventlog are {', '.join(ahead)}.")
        elif ratios:
            said.append(f"{text}: eventlog is ahead of all; the nearest is {ratios[0][1]} ({number(ratios[0][0])}x).")
    lossy = [
        f"{name} lost {result['lost']:,.0f} of {result['points']:,.0f} points"
        for name, result in {"eventlog": ours, **good}.items()
        if result["lost"]
    ]
    said.append("; ".join(lossy) + "." if lossy else "Every subject's points were all read back by another process.")
    return said
