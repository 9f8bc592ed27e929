"""Run every benchmark one after the other, and write what they found to BENCHMARKS.md with a chart each.

What a benchmark found is kept beside its data, so that a report can be made in pieces: what is there is not measured
again.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from datetime import UTC, datetime
from types import ModuleType
from typing import Any, Final

import charts
from grids import Grid

_BENCH: Final = os.path.join(os.path.dirname(os.path.abspath(__file__)), "bench.py")
_CHARTS: Final = "docs/benchmarks"
_FULL: Final = {
    "peers": ["--repeat", "3"],
    "crowd": ["--repeat", "1"],
    "write": ["--repeat", "3"],
    "fold": ["--repeat", "3"],
    "read": ["--repeat", "3"],
    "serve": ["--repeat", "1"],
    "sync": ["--repeat", "1"],
    "flat": ["--records", "100000"],
}
_QUICK: Final = {
    "peers": ["--repeat", "1", "--records", "1000"],
    "crowd": ["--repeat", "1", "--records", "200"],
    "write": ["--repeat", "1", "--records", "20000"],
    "fold": ["--repeat", "1", "--records", "20000"],
    "read": ["--repeat", "1", "--records", "125000"],
    "serve": ["--repeat", "1", "--records", "10000"],
    "sync": ["--repeat", "1", "--records", "200000"],
    "flat": ["--records", "30000"],
}


def plan(*, quick: bool) -> dict[str, list[str]]:
    """Return the benchmarks of a report, in order, and their options."""
    return _QUICK if quick else _FULL


def collect(cache: str, names: list[str], *, quick: bool, again: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    """Return what each benchmark found, now or, where it is kept, before; one that fails is left out."""
    kept = os.path.join(cache, "report-quick" if quick else "report")
    os.makedirs(kept, exist_ok=True)
    found = {}
    for name in names:
        path = os.path.join(kept, f"{name}.json")
        if name in again or not os.path.exists(path):
            _measure(name, path, cache, plan(quick=quick)[name])
        else:
            print(f"report: {name} is kept in {path}", file=sys.stderr, flush=True)
        if os.path.exists(path):
            with open(path, encoding="utf-8") as file:
                found[name] = json.load(file)
    return found


def _measure(name: str, path: str, cache: str, options: list[str]) -> None:
    print(f"report: {name} {' '.join(options)}", file=sys.stderr, flush=True)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    began = time.monotonic()
    command = [sys.executable, _BENCH, name, "--json", "--dir", cache, *options]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=False)
    if done.returncode:
        print(f"report: {name} failed with {done.returncode}", file=sys.stderr, flush=True)
        return
    facts = {"options": options, "seconds": round(time.monotonic() - began), "date": _now(), "commit": _commit()}
    with open(f"{path}.part", "w", encoding="utf-8") as file:
        json.dump({**json.loads(done.stdout), "report": facts}, file, indent=1)
    os.rename(f"{path}.part", path)
    print(f"report: {name} took {facts['seconds']} s", file=sys.stderr, flush=True)


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")


def _commit() -> str:
    """Return the commit that is measured, and whether the tree differs from it."""
    here = os.path.dirname(_BENCH)
    done = subprocess.run(
        ["git", "-C", here, "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"],
        capture_output=True,
        check=False,
        text=True,
    )
    return done.stdout.strip() or "no git repository"


def write(path: str, found: dict[str, dict[str, Any]], modules: dict[str, ModuleType], *, quick: bool) -> None:
    """Write the report, and the charts into `docs/benchmarks` beside it."""
    folder = os.path.join(os.path.dirname(os.path.abspath(path)), _CHARTS)
    os.makedirs(folder, exist_ok=True)
    parts = [_head(found, quick=quick)]
    for name, document in found.items():
        picture = os.path.join(folder, f"{name}.png")
        drawn = draw(modules[name], document, picture)
        parts.append(_section(name, document, modules[name], f"{_CHARTS}/{name}.png" if drawn else ""))
    with open(f"{path}.part", "w", encoding="utf-8") as file:
        file.write("\n".join(parts))
    os.rename(f"{path}.part", path)


def _head(found: dict[str, dict[str, Any]], *, quick: bool) -> str:
    facts = next(iter(found.values()))["machine"]
    versions = {**facts["versions"]}
    for document in found.values():
        versions |= document.get("versions", {})
    named = ", ".join(f"{name} {version}" for name, version in sorted(versions.items()))
    seconds = sum(document["report"]["seconds"] for document in found.values())
    command = "tools/bench report --quick" if quick else "tools/bench report"
    lines = [
        "# Benchmarks",
        "",
        f"Written by `{command}`, which took {seconds / 60:.0f} minutes; nothing here is edited by hand.",
        "",
        *(["**A quick run: sizes so small that the figures only show that it works.**", ""] if quick else []),
        "| | |",
        "| --- | --- |",
        f"| machine | {facts['cpu']}, {facts['cores']} cores, {facts['memory_bytes'] / 2**30:.0f} GiB |",
        f"| system | {facts['system']}, data on {facts['file_system']}, Python {facts['python']} |",
        f"| versions | {named} |",
        "",
        "Figures of one table can be compared with each other: its subjects took turns on the same machine. Figures of",
        "another machine or day cannot, but ratios hold better than figures.",
        "",
    ]
    return "\n".join(lines)


def _section(name: str, document: dict[str, Any], module: ModuleType, picture: str) -> str:
    report = document["report"]
    load = document["machine"]["load_1min"]
    made = f"at {report['commit']}, {report['date']}, {report['seconds']} s; load before it {load}."
    summary = (module.__doc__ or "").split("\n")[0]
    lines = [f"## {name}", "", summary, "", f"`tools/bench {name} {' '.join(report['options'])}` {made}", ""]
    said = module.reading(document) if hasattr(module, "reading") else []
    lines += [f"- {sentence}" for sentence in said] + ([""] if said else [])
    lines += [grid.markdown() for grid in grids_of(module, document)]
    lines += [f"![{name}]({picture})", ""] if picture else []
    return "\n".join(lines)


def grids_of(module: ModuleType, document: dict[str, Any]) -> list[Grid]:
    """Return the tables of a benchmark; those with one of three columns say only its rows."""
    if hasattr(module, "tables"):
        return list(module.tables(document))
    facts = document["machine"]
    title = f"{document['benchmark']}: {facts['cpu']}, {facts['cores']} cores, load {facts['load_1min']}, medians"
    return [Grid(title, ["", "eventlog", "limit or peer"], [list(row) for row in module.table(document)])]


def draw(module: ModuleType, document: dict[str, Any], path: str) -> bool:
    """Draw the chart of a benchmark; return False when it has none."""
    panels = module.panels(document) if hasattr(module, "panels") else []
    if not panels:
        return False
    facts = document["machine"]
    moment = datetime.now(UTC).strftime("%Y-%m-%d")
    charts.draw(panels, path, f"{document['benchmark']}: {facts['cpu']}, {facts['cores']} cores; {moment}")
    return True
