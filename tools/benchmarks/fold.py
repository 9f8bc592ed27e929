"""How fast a fold is: points a second and core, memory, bytes a point, and whether it grows with the store."""

from __future__ import annotations

import os
import tempfile
import time
from typing import Any, Final

import fresh
import limits
import stores
import stream
from charts import Panel

DEFAULT_RECORDS: Final = 625_000
_GROWTH: Final = 10
_BACKLOG: Final = 20


def measure(cache: str, records: int, repeat: int) -> dict[str, Any]:
    """Return the figures; subjects take turns, each in a fresh process of one thread."""
    return {
        "parameters": {"records": records, "points": records * 8, "runs": stores.RUNS, "repeat": repeat},
        "fold": {kind: _of_kind(cache, kind, records, repeat) for kind in stores.KINDS},
        "growth": _growth(cache, records, repeat),
        "backlog": _backlog(cache, records * _BACKLOG),
        "stream": stream.measure(cache, stream.SECONDS if records >= DEFAULT_RECORDS else 1.0),
    }


def _backlog(cache: str, records: int) -> dict[str, Any]:
    """Fold a backlog that is many times as large, once: neither speed nor memory may depend on it."""
    with stores.linked_copy(cache, stores.segments(cache, "noisy", records)) as root:
        return dict(fresh.call("fold", "time_fold", root=root))


def _of_kind(cache: str, kind: str, records: int, repeat: int) -> dict[str, Any]:
    source = stores.segments(cache, kind, records)
    rows = limits.prepare_rows(cache, kind, records)
    found: dict[str, list[dict[str, Any]]] = {"eventlog": [], "limit_rows": [], "limit_columns": [], "compact": []}
    for _ in range(repeat):
        with stores.linked_copy(cache, source) as root:
            found["eventlog"].append(fresh.call("fold", "time_fold", root=root))
            found["compact"].append(fresh.call("fold", "time_compaction", root=root))
        for form in ("rows", "columns"):
            found[f"limit_{form}"].append(fresh.call("limits", f"fold_{form}", path=rows, cache=cache))
    result = {subject: _medians(each) for subject, each in found.items()}
    result["times_limit_rows"] = result["eventlog"]["points_per_s"] / result["limit_rows"]["points_per_s"]
    result["bytes_per_point"] = {
        "hot": stores.segment_bytes(source) / (records * 8),
        "after_fold": result["eventlog"]["bytes_per_point"],
        "after_compaction": result["compact"]["bytes_per_point"],
        "limit": result["limit_rows"]["bytes_per_point"],
    }
    return result


def _medians(results: list[dict[str, Any]]) -> dict[str, Any]:
    return {key: stores.median_of(results, key) for key in results[0]}


def _growth(cache: str, records: int, repeat: int) -> dict[str, Any]:
    """Fold the same new records into a store of one batch and into one of ten."""
    new = max(records // 10, stores.RUNS)
    news = stores.segments(cache, "noisy", new, seed=2)
    bases = {times: stores.snapshot(cache, "noisy", records, times) for times in (1, _GROWTH)}
    found: dict[int, list[dict[str, Any]]] = {times: [] for times in bases}
    for _ in range(repeat):
        for times, base in bases.items():
            with stores.linked_copy(cache, base, news) as root:
                found[times].append(fresh.call("fold", "time_fold", root=root))
    wall, cpu = (
        {str(times): stores.median_of(each, key) for times, each in found.items()} for key in ("wall_s", "cpu_s")
    )
    return {
        "new_records": found[1][0]["records"],
        "snapshot_rows": {str(times): records * times for times in bases},
        "wall_s": wall,
        "cpu_s": cpu,
        "wall_ratio": wall[str(_GROWTH)] / wall["1"],
        "cpu_ratio": cpu[str(_GROWTH)] / cpu["1"],
    }


def time_fold(root: str) -> dict[str, float]:
    """Fold all that is new, in this fresh process."""
    limits.one_thread()
    with tempfile.TemporaryDirectory(dir=os.path.dirname(root)) as small:
        # What a process pays once, as for what pyarrow loads when it is first needed, is no part of a fold.
        stores.write_runs(small, "noisy", 100, seed=0, runs=1)
        stores.fold(small)
    before = stores.metric_bytes(root)
    resident = fresh.rss_bytes()
    wall, cpu = time.perf_counter(), time.process_time()
    folded = stores.fold(root)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    # Each run's start and end are records too, and no points.
    points = (folded.records - 2 * stores.RUNS) * 8
    return {
        "records": folded.records,
        "points": points,
        "commits": folded.commits,
        "wall_s": wall,
        "cpu_s": cpu,
        "points_per_s": points / wall,
        "points_per_cpu_s": points / cpu,
        "bytes_per_point": (stores.metric_bytes(root) - before) / points,
        "peak_rss_mib": fresh.peak_rss_bytes() / 2**20,
        "rss_before_mib": resident / 2**20,
    }


def time_compaction(root: str) -> dict[str, float]:
    """Merge all files of each table into one, in this fresh process."""
    limits.one_thread()
    files = stores.metric_files(root)
    wall, cpu = time.perf_counter(), time.process_time()
    stores.compact_all(root)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    rows = stores.metric_rows(root)
    return {
        "files_before": files,
        "files_after": stores.metric_files(root),
        "rows": rows,
        "wall_s": wall,
        "cpu_s": cpu,
        "points_per_s": rows * 8 / wall,
        "bytes_per_point": stores.metric_bytes(root) / (rows * 8),
        "peak_rss_mib": fresh.peak_rss_bytes() / 2**20,
    }


def table(found: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Return the figures for people: what, eventlog's, and the limit's."""
    lines: list[tuple[str, str, str]] = []
    for kind, figures in found["fold"].items():
        ours, rows, columns, merged = (figures[name] for name in ("eventlog", "limit_rows", "limit_columns", "compact"))
        size = figures["bytes_per_point"]
        lines += [
            (f"[bold]{kind}[/]: fold, M points/s", f"{ours['points_per_s'] / 1e6:.1f}", ""),
            ("  limit: rows decoded one by one", "", f"{rows['points_per_s'] / 1e6:.1f}"),
            ("  limit: packed columns", "", f"{columns['points_per_s'] / 1e6:.1f}"),
            ("  M points per second of CPU", f"{ours['points_per_cpu_s'] / 1e6:.1f}", ""),
            ("  peak memory MiB", f"{ours['peak_rss_mib']:.0f}", f"{rows['peak_rss_mib']:.0f}"),
            (
                f"  compaction of {merged['files_before']:.0f} files, M points/s",
                f"{merged['points_per_s'] / 1e6:.1f}",
                "",
            ),
            ("  compaction, peak memory MiB", f"{merged['peak_rss_mib']:.0f}", ""),
            ("  bytes/point hot", f"{size['hot']:.2f}", ""),
            ("  bytes/point after the fold", f"{size['after_fold']:.2f}", f"{size['limit']:.2f}"),
            ("  bytes/point after compaction", f"{size['after_compaction']:.2f}", ""),
        ]
    growth = found["growth"]
    for times, seconds in growth["wall_s"].items():
        text = f"fold {growth['new_records']:,} new records into {growth['snapshot_rows'][times]:,} rows, s"
        lines += [(text, f"{seconds:.3f}", ""), ("  of CPU", f"{growth['cpu_s'][times]:.3f}", "")]
    ratio = f"{growth['wall_ratio']:.2f} ({growth['cpu_ratio']:.2f} of CPU)"
    return [*lines, ("  times as long in the larger store", ratio, "1"), *_service_lines(found)]


def _service_lines(found: dict[str, Any]) -> list[tuple[str, str, str]]:
    backlog, steady = found["backlog"], found["stream"]
    rate = f"[bold]a steady stream of {steady['points_per_s'] / 1e3:.0f} k points/s[/]: share of a core"
    idle = f"[bold]{steady['idle_writers']:,} writers that are idle[/]: share of a core"
    return [
        (
            f"[bold]a backlog of {backlog['points'] / 1e6:g} M points[/]: M points/s",
            f"{backlog['points_per_s'] / 1e6:.1f}",
            "",
        ),
        ("  peak memory MiB", f"{backlog['peak_rss_mib']:.0f}", ""),
        (rate, f"{steady['core_share']:.1%}", ""),
        ("  M points per second of CPU", f"{steady['points_per_cpu_s'] / 1e6:.1f}", ""),
        ("  peak memory MiB", f"{steady['peak_rss_mib']:.0f}", ""),
        ("  folds", f"{steady['folds']:.0f}", ""),
        (idle, f"{steady['idle_core_share']:.2%}", ""),
    ]


def panels(found: dict[str, Any]) -> list[Panel]:
    """Return what `--plot` draws."""
    names = {"eventlog": "eventlog", "limit_rows": "limit: rows", "limit_columns": "limit: packed columns"}
    kinds = found["fold"]
    speed = {text: [figures[name]["points_per_s"] / 1e6 for figures in kinds.values()] for name, text in names.items()}
    backlogs = (kinds["noisy"]["eventlog"], found["backlog"])
    memory = [figures["peak_rss_mib"] for figures in backlogs]
    points = [f"{figures['points'] / 1e6:g} M points" for figures in backlogs]
    return [
        Panel(title="Fold", unit="M points/s, more is better", labels=[*kinds], series=speed, log=False),
        Panel(
            title="Peak memory of a fold",
            unit="MiB, less is better",
            labels=points,
            series={"": memory},
            log=False,
        ),
    ]
