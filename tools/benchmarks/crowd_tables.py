"""How `tools/bench crowd` shows what it found: tables, charts, and what the figures say."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from charts import Panel
from grids import Grid, number
from rich.markup import escape


def tables(found: dict[str, Any]) -> Iterator[Grid]:
    """Yield a table for each crowd, and one of what grows."""
    columns = ["", "wall s", "points lost", "complaints", "log() p50 µs", "log() p99 µs", "slowest log() ms"]
    columns += ["poll p50 ms", "poll p99 ms", "polls that failed"]
    for case in found["found"]:
        pace = f"one in {found['parameters']['pace_ms']:.0f} ms"
        title = f"{case['processes']} processes, {case['records']:,} steps each, {pace}"
        yield Grid(title, columns, [_row(name, figures) for name, figures in case["ways"].items()])
    yield _growth(found["found"])
    rows = [[name, text] for name, text in [*found["how"].items(), *found["missing"].items()]]
    rows += [
        [f"{name}, the first complaint", text.split("Warning: ")[-1]]
        for name, text in {
            name: figures["error"] or figures["poll_error"]
            for case in found["found"]
            for name, figures in case["ways"].items()
        }.items()
        if text
    ]
    yield Grid("What each is", ["", "how"], [[name, escape(text)] for name, text in rows])


def _row(name: str, figures: dict[str, Any]) -> list[str]:
    wall = number(figures["wall_s"]) if figures["wall_s"] is not None else ""
    if figures["cut"]:
        wall = f"cut at {figures['limit_s']:.0f}: {figures['finished']} of {figures['processes']} ended"
    slowest = figures["slowest_log_us"]
    return [
        name,
        wall,
        f"{figures['lost']:,} of {figures['points']:,}" + (f", {bad:,} wrong" if (bad := _bad(figures)) else ""),
        f"{figures['errors']:,}",
        *(number(figures["log_us"][key]) if figures["log_us"] else "" for key in ("p50", "p99")),
        number(slowest / 1e3) if slowest is not None else "",
        *(number(figures["poll_ms"][key]) if figures["poll_ms"] else "" for key in ("p50", "p99")),
        f"{figures['poll_errors']:,} of {figures['polls'] + figures['poll_errors']:,}",
    ]


def _bad(figures: dict[str, Any]) -> int:
    return int(figures["wrong"] + figures["doubled"] + figures["strange"])


def _growth(cases: list[dict[str, Any]]) -> Grid:
    few, many = cases[0], cases[-1]
    rows = []
    for name, large in many["ways"].items():
        small = few["ways"][name]
        ratios = [
            f"{large[kind][key] / small[kind][key]:.2f}x" if large[kind] and small[kind] else ""
            for kind, key in (("log_us", "p50"), ("poll_ms", "p50"), ("poll_ms", "p99"))
        ]
        rows.append([name, *ratios])
    title = f"{many['processes']} processes, ten times as many steps: {few['records']:,} to {many['records']:,}"
    return Grid(title, ["", "log() p50", "poll p50", "poll p99"], rows)


def panels(found: dict[str, Any]) -> list[Panel]:
    """Return what `--plot` draws."""
    cases = {f"{case['processes']} processes, {case['records']:,} steps": case["ways"] for case in found["found"]}
    names = list(found["found"][0]["ways"])

    def series(kind: str, key: str, scale: float) -> dict[str, list[float | None]]:
        return {
            title: [ways[name][kind][key] / scale if name in ways and ways[name][kind] else None for name in names]
            for title, ways in cases.items()
        }

    return [
        Panel(title="The slowest log()", unit="ms, less is better", labels=names, series=series("log_us", "max", 1e3)),
        Panel(title="log() p50", unit="µs, less is better", labels=names, series=series("log_us", "p50", 1)),
        Panel(
            title="A poll of the dashboard, p50",
            unit="ms, less is better",
            labels=names,
            series=series("poll_ms", "p50", 1),
        ),
        Panel(
            title="A poll of the dashboard, p99",
            unit="ms, less is better",
            labels=names,
            series=series("poll_ms", "p99", 1),
        ),
        Panel(
            title="Points that were there afterwards",
            unit="%, of all that were logged",
            labels=names,
            series={
                title: [
                    100 * (1 - ways[name]["lost"] / ways[name]["points"]) if name in ways else None for name in names
                ]
                for title, ways in cases.items()
            },
            log=False,
        ),
    ]


def reading(found: dict[str, Any]) -> list[str]:
    """Return what these figures say, a peer that is ahead of eventlog of its kind first."""
    said, pairs = (
        [],
        (("eventlog", "trackio"), ("eventlog-server", "trackio-server"), ("eventlog-server", "trackio-space")),
    )
    for case in found["found"]:
        title = f"{case['processes']} processes, {case['records']:,} steps"
        for ours, theirs in pairs:
            if ours in case["ways"] and theirs in case["ways"]:
                said.append(f"{title}, {theirs} beside {ours}: {_compared(case['ways'][ours], case['ways'][theirs])}.")
        said += [
            f"{title}: {name} lost {figures['lost']:,} of {figures['points']:,} points"
            + (
                f", cut after {figures['limit_s']:.0f} s with {figures['finished']} of its processes at their end."
                if figures["cut"]
                else "."
            )
            for name, figures in case["ways"].items()
            if figures["lost"]
        ]
    return said


def _compared(ours: dict[str, Any], theirs: dict[str, Any]) -> str:
    ratios = {
        "wall": (theirs["wall_s"], ours["wall_s"]),
        "log() p50": (theirs["log_us"].get("p50"), ours["log_us"].get("p50")),
        "slowest log()": (theirs["log_us"].get("max"), ours["log_us"].get("max")),
        "poll p50": (theirs["poll_ms"].get("p50"), ours["poll_ms"].get("p50")),
        "poll p99": (theirs["poll_ms"].get("p99"), ours["poll_ms"].get("p99")),
    }
    known = {text: value / base for text, (value, base) in ratios.items() if value is not None and base}
    ahead = [f"{text} {ratio:.2f}x" for text, ratio in known.items() if ratio < 1]
    behind = [f"{text} {ratio:.2f}x" for text, ratio in known.items() if ratio >= 1]
    parts = [f"{word} in {', '.join(each)}" for word, each in (("ahead", ahead), ("behind", behind)) if each]
    return "; ".join(parts)
