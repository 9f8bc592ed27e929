"""The charts of `--plot`: a benchmark describes its panels, and one PNG is drawn of them in an own environment."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import tempfile
from dataclasses import dataclass, field
from typing import Any, Final

import environments

_DRAW: Final = os.path.join(os.path.dirname(os.path.abspath(__file__)), "draw.py")


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One chart of figures.

    Attributes:
        title: what is compared.
        unit: of the figures, and which direction is better.
        labels: what each figure is of: names for bars, numbers for lines.
        series: figures by name, one for each label, None where there is none; "" when there is only one.
        kind: "bars", one a label and series, or "lines", one a series over the numbers of the labels.
        across: what the numbers of the labels are, for lines.
        log: whether the figures' axis is logarithmic; lines then have two such axes.
    """

    title: str
    unit: str
    labels: list[Any]
    series: dict[str, list[float | None]] = field(default_factory=dict)
    kind: str = "bars"
    across: str = ""
    log: bool = True


def draw(panels: list[Panel], path: str, footer: str) -> None:
    """Write one PNG with all panels.

    Raises:
        environments.UnavailableError: matplotlib cannot be installed here.
    """
    python = environments.python_of("charts")
    document = json.dumps({"panels": [dataclasses.asdict(panel) for panel in panels], "footer": footer})
    with tempfile.TemporaryDirectory() as home:
        variables = environments.variables(home, MPLCONFIGDIR=home, MPLBACKEND="Agg")
        subprocess.run([python, _DRAW, path], input=document.encode(), check=True, env=variables)
