"""The four recorded training runs that the demo replays: real logs of a small fine-tuning, with every value kept."""

from __future__ import annotations

import gzip
import importlib.resources
from functools import cached_property
from typing import Any, Final

import msgspec

PROJECT: Final = "trl-sft"
NAMES: Final = ("lr1e-4", "lr3e-4", "lr1e-3", "lr3e-3")


class Recording:
    """One recorded run. Immutable.

    Attributes:
        name: of the run.
        config: its hyperparameters.
        lines: what the trainer logged, one dict a call, in order; `step` is one of the keys.
    """

    def __init__(self, name: str, config: dict[str, Any], lines: list[dict[str, Any]]) -> None:
        """Take what `load` read."""
        self.name = name
        self.config = config
        self.lines = lines

    @cached_property
    def steps(self) -> list[int]:
        """The step of each line."""
        return [line["step"] for line in self.lines]

    @cached_property
    def metrics(self) -> dict[str, list[float | None]]:
        """The value of each metric in each line, None where the line has none."""
        names = sorted({name for line in self.lines for name in line} - {"step"})
        return {name: [line.get(name) for line in self.lines] for name in names}

    def line_after(self, step: int | None) -> int:
        """Return the index of the first line with a step above `step`: where a resumed training goes on."""
        return 0 if step is None else sum(known <= step for known in self.steps)


def load(name: str) -> Recording:
    """Return one recording; the first line of its file is the config."""
    packed = importlib.resources.files("eventlog.demo").joinpath("data", f"{name}.jsonl.gz").read_bytes()
    first, *lines = [msgspec.json.decode(line) for line in gzip.decompress(packed).splitlines()]
    return Recording(name, first["config"], lines)


def load_all() -> list[Recording]:
    """Return all recordings, in order of their learning rates."""
    return [load(name) for name in NAMES]
