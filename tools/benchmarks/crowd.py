"""Many processes log into one project while a dashboard is polled: eventlog and Trackio, local and by a server."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from dataclasses import dataclass, field
from typing import Any, Final

import environments
import numpy as np
import peers
import watched
import workload
from crowd_tables import panels, reading, tables
from dashboards import LOOK_S, TOKEN, Dashboard

__all__ = ["DEFAULT_RECORDS", "DEFAULT_REPEAT", "NAMES", "measure", "panels", "reading", "tables"]

DEFAULT_RECORDS: Final = 500
DEFAULT_REPEAT: Final = 3
PROCESSES: Final = (8, 32)
_MORE: Final = 10
_PACE_S: Final = 0.005
_LIMIT_S: Final = 120.0
_BLOCKED_S: Final = 60.0
_SHARES: Final = {"p50": 50, "p99": 99, "max": 100}
_BAD: Final = ("locked", "malformed", "error", "could not", "failed", "traceback")
_HERE: Final = os.path.dirname(os.path.abspath(__file__))


@dataclass(frozen=True, kw_only=True)
class Way:
    """One way for many processes to log into one project.

    Attributes:
        how: for people.
        logs: which of the subjects the processes use.
        keeps: which of the subjects the records are in afterwards.
        by_server: whether the processes log over HTTP to the server that is polled, or beside it into its directory.
        variables: of all its processes.
        limit_s: after so long it is cut.
    """

    how: str
    logs: str
    keeps: str
    by_server: bool = False
    variables: dict[str, str] = field(default_factory=dict)
    limit_s: float = _LIMIT_S


_SPACE: Final = {"SYSTEM": "spaces", "SPACE_ID": "bench/space", "HF_TOKEN": TOKEN}
WAYS: Final = {
    "eventlog": Way(how="each its own writer; compactor serve beside them", logs="eventlog", keeps="eventlog"),
    "trackio": Way(how="each into the one SQLite file; trackio's server beside them", logs="trackio", keeps="trackio"),
    "eventlog-server": Way(
        how="unmodified trackio clients to compactor serve", logs="trackio", keeps="eventlog", by_server=True
    ),
    "trackio-server": Way(how="trackio clients to trackio's server", logs="trackio", keeps="trackio", by_server=True),
    "trackio-space": Way(
        how="trackio clients to trackio's server as a Space runs it, on a local disk, without network",
        logs="trackio",
        keeps="trackio",
        by_server=True,
        variables=_SPACE,
    ),
    "trackio-in-space": Way(
        how="processes that train inside a Space, beside its server; once only when most points are lost",
        logs="trackio",
        keeps="trackio",
        variables=_SPACE,
        limit_s=_BLOCKED_S,
    ),
}
NAMES: Final = tuple(WAYS)


def measure(
    cache: str, records: int, repeat: int, only: tuple[str, ...] = (), processes: tuple[int, ...] = PROCESSES
) -> dict[str, Any]:
    """Return the figures: each crowd in turns, and the smallest of them once more with ten times as many records."""
    chosen = [name for name in NAMES if not only or name in only]
    missing = _missing(chosen)
    subjects = [name for name in chosen if name not in missing]
    cases = [(count, records, repeat) for count in processes] + [(min(processes), records * _MORE, 1)]
    found: list[dict[str, Any]] = []
    blocked: set[str] = set()
    for count, size, turns in cases:
        results: dict[str, list[dict[str, Any]]] = {name: [] for name in subjects if name not in blocked}
        for turn in range(turns):
            for name in [name for name in results if name not in blocked]:
                text = f"crowd: {count} processes, {size:,} records, round {turn + 1} of {turns}, {name}"
                print(text, file=sys.stderr, flush=True)
                try:
                    results[name].append(_one(cache, WAYS[name], count, size))
                except watched.FailedError as error:
                    missing[name] = f"failed with {count} processes, {size:,} records: {error}"
                if name in missing or _hopeless(results[name][-1]):
                    # To see that again takes long and says nothing new.
                    blocked.add(name)
        ways = {name: _summary(each) for name, each in results.items() if each}
        found.append({"processes": count, "records": size, "ways": ways})
    return {
        "parameters": {
            "records": records,
            "metrics_per_record": 10,
            "pace_ms": _PACE_S * 1e3,
            "poll_every_ms": LOOK_S * 1e3,
            "repeat": repeat,
        },
        "how": {name: WAYS[name].how for name in chosen},
        "versions": environments.versions("trackio") if any(WAYS[name].logs == "trackio" for name in subjects) else {},
        "missing": missing,
        "found": found,
    }


def _hopeless(result: dict[str, Any]) -> bool:
    return bool(result["cut"] or result["lost"] * 2 > result["points"])


def _missing(chosen: list[str]) -> dict[str, str]:
    missing = {}
    for name in chosen:
        try:
            for subject in (WAYS[name].logs, WAYS[name].keeps):
                environments.python_of(peers.SUBJECTS[subject].environment)
        except environments.UnavailableError as error:
            missing[name] = str(error)
    return missing


def _one(cache: str, way: Way, processes: int, records: int) -> dict[str, Any]:
    """Let one crowd log, poll meanwhile, and count afterwards what is there."""
    place = tempfile.mkdtemp(prefix="crowd-", dir=cache)
    try:
        root, home, data, answers = (
            os.path.join(place, part) for part in ("store", "home", "workload.json", "answers")
        )
        for directory in (root, home, answers):
            os.mkdir(directory)
        workload.prepare(data)
        job = {"subject": way.logs, "root": root, "data": data, "records": records}
        with Dashboard(way.keeps, root, home, way.variables, way.limit_s) as dashboard:
            more = {"answers": answers, "processes": processes, "pace_s": _PACE_S}
            found = _let_them_log(way, dashboard, {**job, **more}, home)
        looked = dashboard.figures()
        runs = [f"run-{index:02d}" for index in range(processes)]
        counted = peers.read_back(way.keeps, {**job, "subject": way.keeps, "runs": runs}, place)
        return {**found, **looked, **counted, **_said(answers)}
    finally:
        shutil.rmtree(place)


def _let_them_log(way: Way, dashboard: Dashboard, job: dict[str, Any], home: str) -> dict[str, Any]:
    """Start the processes, let them go together, and wait until the last has finished, or the limit is over."""
    more = {**way.variables, "TRACKIO_DIR": job["root"], "TRACKIO_STORAGE_MODE": "sqlite"}
    if way.by_server:
        # What a client cannot send it keeps here.
        spool = {"TRACKIO_DIR": os.path.join(home, "trackio"), "TRACKIO_SERVER_URL": dashboard.url}
        more = {**spool, "TRACKIO_WRITE_TOKEN": TOKEN, "TRACKIO_STORAGE_MODE": "sqlite"}
    python = environments.python_of(peers.SUBJECTS[way.logs].environment)
    command = [python, os.path.join(_HERE, "crowd_member.py"), json.dumps(job)]
    variables = environments.variables(home, **more)
    crew = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=variables,
        start_new_session=True,
    )
    cut = threading.Timer(way.limit_s, crew.kill)
    cut.start()
    try:
        ready = crew.stdout.readline().strip() == b"ready" if crew.stdout else False
        dashboard.poll()
        _, said = crew.communicate(b"go\n" if ready else b"")
    finally:
        was_cut = not cut.is_alive()
        cut.cancel()
        watched.end(crew, watched.Helpers())
    if crew.returncode and not was_cut:
        raise watched.FailedError(said.decode(errors="replace")[-500:])
    figures = [
        _answer(os.path.join(job["answers"], name))
        for name in sorted(os.listdir(job["answers"]))
        if name.endswith(".json")
    ]
    return {
        "cut": was_cut,
        "limit_s": way.limit_s,
        "finished": len(figures),
        "processes": job["processes"],
        **_times(figures),
    }


def _answer(path: str) -> dict[str, Any]:
    with open(path, encoding="utf-8") as file:
        return dict(json.load(file))


def _times(figures: list[dict[str, Any]]) -> dict[str, Any]:
    """Return when the last had finished, and what the processes waited for; of those that came to their end."""
    if not figures:
        return {"wall_s": None, "log_us": {}}
    began = min(figure["began"] for figure in figures)
    log = {key: float(np.median([figure["log_us"][key] for figure in figures])) for key in ("p50", "p99")}
    return {
        "wall_s": max(figure["finished"] for figure in figures) - began,
        "log_us": {**log, "max": max(figure["log_us"]["max"] for figure in figures)},
    }


def _said(answers: str) -> dict[str, Any]:
    """Return how many lines with a complaint the processes printed, and the first."""
    bad = []
    for name in sorted(os.listdir(answers)):
        if name.endswith(".said"):
            with open(os.path.join(answers, name), encoding="utf-8", errors="replace") as file:
                bad += [line.strip() for line in file if any(word in line.lower() for word in _BAD)]
    return {"errors": len(bad), "error": bad[0][:300] if bad else ""}


def _summary(results: list[dict[str, Any]]) -> dict[str, Any]:
    """Return medians of the rounds; all polls as one; sums of errors; of what was lost, cut or slowest, the worst."""
    whole = [result for result in results if result["log_us"]]
    polls = [elapsed for result in results for elapsed in result["polls"]]
    return {
        "rounds": len(results),
        "cut": any(result["cut"] for result in results),
        "limit_s": results[0]["limit_s"],
        "finished": min(result["finished"] for result in results),
        "processes": results[0]["processes"],
        "wall_s": float(np.median([result["wall_s"] for result in whole])) if whole else None,
        "log_us": _medians([result["log_us"] for result in whole]),
        "slowest_log_us": max((result["log_us"]["max"] for result in whole), default=None),
        "polls": len(polls),
        "poll_ms": {name: float(np.percentile(polls, share)) for name, share in _SHARES.items()} if polls else {},
        **{key: sum(result[key] for result in results) for key in ("poll_errors", "errors")},
        **{key: next((result[key] for result in results if result[key]), "") for key in ("poll_error", "error")},
        **{key: max(result[key] for result in results) for key in ("points", "lost", "wrong", "doubled", "strange")},
    }


def _medians(figures: list[dict[str, float]]) -> dict[str, float]:
    return {key: float(np.median([figure[key] for figure in figures])) for key in (figures[0] if figures else ())}
