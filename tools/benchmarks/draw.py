"""Draw the panels that `charts` hands over, with matplotlib; runs in the environment of the charts."""

from __future__ import annotations

import json
import math
import sys
from typing import Any, Final

import matplotlib.pyplot as plt
from matplotlib.ticker import FuncFormatter, NullFormatter

# Okabe and Ito's colours, which people with any colour vision tell apart.
_COLOURS: Final = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#000000")
_OURS: Final = "eventlog"
_WIDTH: Final = 9.0


def _bars(axes: Any, panel: dict[str, Any]) -> None:
    names, series = panel["labels"], panel["series"]
    height = 0.8 / max(len(series), 1)
    for index, (name, values) in enumerate(series.items()):
        places = [place + (index - (len(series) - 1) / 2) * height for place in range(len(names))]
        known = [(place, value) for place, value in zip(places, values, strict=True) if value is not None]
        ours = [_COLOURS[1] if not name and str(label).startswith(_OURS) else _COLOURS[index % 7] for label in names]
        kept = [colour for colour, value in zip(ours, values, strict=True) if value is not None]
        drawn = axes.barh(
            [place for place, _ in known], [value for _, value in known], height * 0.92, color=kept, label=name
        )
        axes.bar_label(drawn, [_short(value) for _, value in known], padding=3, fontsize=7 if len(series) > 1 else 8)
    axes.set_yticks(range(len(names)), names)
    for label in axes.get_yticklabels():
        label.set_fontweight("bold" if label.get_text().startswith(_OURS) else "normal")
    axes.invert_yaxis()
    axes.margins(x=0.12)
    if panel["log"]:
        axes.set_xscale("log")
        axes.set_xlim(left=10 ** math.floor(math.log10(min(known_of(panel)) * 0.9)))
    else:
        axes.set_xlim(left=0)
    axes.set_xlabel(panel["unit"])
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _short(value)))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.grid(axis="x", alpha=0.3)


def known_of(panel: dict[str, Any]) -> list[float]:
    """Return the figures that there are."""
    return [value for values in panel["series"].values() for value in values if value is not None]


def _lines(axes: Any, panel: dict[str, Any]) -> None:
    for index, (name, values) in enumerate(panel["series"].items()):
        known = [(x, value) for x, value in zip(panel["labels"], values, strict=True) if value is not None]
        width = 2.5 if name.startswith(_OURS) else 1.5
        axes.plot(*zip(*known, strict=True), marker="o", color=_COLOURS[index % 7], linewidth=width, label=name)
    if panel["log"]:
        axes.set_xscale("log")
        axes.set_yscale("log")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(FuncFormatter(lambda value, _: _short(value)))
        axis.set_minor_formatter(NullFormatter())
    axes.set_xlabel(panel["across"])
    axes.set_ylabel(panel["unit"])
    axes.grid(alpha=0.3)


def _short(value: float) -> str:
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.3g}{letter}"
    return f"{value:.3g}"


def _height(panel: dict[str, Any]) -> float:
    if panel["kind"] == "lines":
        return 3.6
    return 1.3 + len(panel["labels"]) * max(0.26, 0.155 * len(panel["series"]))


def main() -> None:
    """Read the panels from standard input, and write a PNG to the path that is given."""
    document = json.load(sys.stdin)
    panels = [panel for panel in document["panels"] if known_of(panel)]
    heights = [_height(panel) for panel in panels]
    figure, found = plt.subplots(
        len(panels), 1, figsize=(_WIDTH, sum(heights) + 0.3), height_ratios=heights, squeeze=False, layout="constrained"
    )
    for axes, panel in zip(found[:, 0], panels, strict=True):
        {"bars": _bars, "lines": _lines}[panel["kind"]](axes, panel)
        several = [name for name in panel["series"] if name]
        axes.set_title(panel["title"], loc="left", fontsize=10, fontweight="bold", pad=6 + 16 * -(-len(several) // 4))
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
        if several:
            columns = min(len(several), 4)
            axes.legend(fontsize=8, frameon=False, ncols=columns, loc="lower left", bbox_to_anchor=(-0.01, 0.99))
    figure.supxlabel(document["footer"], fontsize=7, color="#555555")
    figure.savefig(sys.argv[1], dpi=110)


if __name__ == "__main__":
    main()
