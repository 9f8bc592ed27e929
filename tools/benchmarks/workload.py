"""What every subject of `tools/bench peers` and `crowd` logs: ten metrics a step of a recorded training run.

The recording is the demo's. A longer run goes over it again and again, each time with every value larger by another
thousandth, so that no file becomes small because the same thousand values come back.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from typing import Final

PROJECT: Final = "bench"
_TOLERANCE: Final = 1e-6
_EVAL: Final = ("loss", "entropy", "mean_token_accuracy")


def prepare(path: str) -> None:
    """Write the recording as JSON for processes that have no eventlog: names, and a list of values each step."""
    from eventlog.demo import recorded

    train, evaluated = recorded.load("lr1e-3"), recorded.load("lr3e-4")
    named = [
        {**line, **{f"eval/{key}": other.get(key) for key in _EVAL}}
        for line, other in zip(train.lines, evaluated.lines, strict=True)
    ]
    names = sorted(set(named[0]) - {"step"})
    rows = [[line[name] for name in names] for line in named if all(line.get(name) is not None for name in names)]
    with open(path, "w", encoding="utf-8") as file:
        json.dump({"names": names, "rows": rows}, file)


class Workload:
    """The steps of a run, in memory before anything is timed."""

    def __init__(self, path: str, count: int) -> None:
        """Make `count` rows out of a file that `prepare` wrote."""
        with open(path, encoding="utf-8") as file:
            found = json.load(file)
        self.names: list[str] = found["names"]
        base = found["rows"]
        passes = [1 + index / 1000 for index in range(count // len(base) + 1)]
        self.rows = [tuple(value * factor for value in row) for factor in passes for row in base][:count]

    def judge(self, found: Iterable[tuple[str, int, str, float]], runs: list[str]) -> dict[str, int]:
        """Count what of some runs came back: points present, lost, wrong beyond float32, doubled, never logged."""
        column = {name: index for index, name in enumerate(self.names)}
        seen: dict[str, set[tuple[int, str]]] = {run: set() for run in runs}
        counts = {
            "points": len(runs) * len(self.rows) * len(self.names),
            "present": 0,
            "wrong": 0,
            "doubled": 0,
            "strange": 0,
        }
        for run, step, name, value in found:
            if run not in seen or name not in column or not 0 <= step < len(self.rows):
                counts["strange"] += 1
            elif (step, name) in seen[run]:
                counts["doubled"] += 1
            else:
                seen[run].add((step, name))
                counts["present"] += 1
                expected = self.rows[step][column[name]]
                counts["wrong"] += abs(value - expected) > _TOLERANCE * max(abs(expected), 1e-30)
        return {**counts, "lost": counts["points"] - counts["present"]}


def size_bytes(directory: str) -> int:
    """Return the size of all files below a directory."""
    return sum(
        os.path.getsize(os.path.join(parent, entry)) for parent, _, entries in os.walk(directory) for entry in entries
    )
