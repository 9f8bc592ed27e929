"""What process tests share: the end of a child, and the exact comparison of a store with what was acknowledged."""

from __future__ import annotations

import subprocess
from collections import Counter
from pathlib import Path

from eventlog.store import open_store


def finish(child: subprocess.Popen, code: int = 0, timeout: float = 120) -> str:
    """Wait for a child, check its exit code, and return what it printed."""
    out, err = child.communicate(timeout=timeout)
    assert child.returncode == code, f"exit {child.returncode}, stderr:\n{err}"
    return out


def values_by_step(store: Path, project: str, name: str) -> dict[str, Counter]:
    """Return for each run, by name, how often each (step, value) of a metric is in the store."""
    opened = open_store(store)
    names = {row["run_id"]: row["name"] for row in opened.runs(project).to_pylist()}
    found: dict[str, Counter] = {run: Counter() for run in names.values()}
    rows = opened.metrics(project, names=[name])
    for run, step, value in zip(
        rows["_run_id"].to_pylist(), rows["_step"].to_pylist(), rows[name].to_pylist(), strict=True
    ):
        found[names[run]][step, value] += 1
    return found
