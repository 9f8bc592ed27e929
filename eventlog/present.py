"""Numbers, times and curves as text for a terminal. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Final

_BARS: Final = "▁▂▃▄▅▆▇█"
_DOTS: Final = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))
_BRAILLE: Final = 0x2800


def clean(text: str) -> str:
    """Return text that cannot steer a terminal: what is not printable is shown by its escape."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "backslashreplace").decode() for c in text)


def number(value: float | None) -> str:
    """Return a number in at most about ten characters."""
    if value is None:
        return ""
    return f"{value:.6g}"


def count(value: int) -> str:
    """Return a count with its digits in groups of three."""
    return f"{value:,}"


def size(size_bytes: int) -> str:
    """Return a size with its unit."""
    amount, unit = float(size_bytes), "B"
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if amount < 1024 or unit == "TiB":
            break
        amount /= 1024
    return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"


def ago(time_ns: int | None, now_ns: int) -> str:
    """Return how long ago a time was."""
    if time_ns is None:
        return ""
    seconds = max((now_ns - time_ns) / 1e9, 0.0)
    for limit, unit, letter in ((60, 1, "s"), (3600, 60, "m"), (86_400, 3600, "h")):
        if seconds < limit:
            return f"{seconds / unit:.0f} {letter} ago"
    return f"{seconds / 86_400:.0f} d ago"


def sparkline(values: Sequence[float], width: int = 24) -> str:
    """Return a curve in one line: each character is the highest or lowest of its points, whichever is further out.

    NaN is a dot, infinities are arrows; a curve without spread lies in the middle.
    """
    finite = [value for value in values if math.isfinite(value)]
    low, high = (min(finite), max(finite)) if finite else (0.0, 0.0)
    return "".join(_bar(bucket, low, high) for bucket in buckets(values, width))


def buckets(values: Sequence[float], width: int) -> list[Sequence[float]]:
    """Cut a curve into at most `width` pieces of nearly equal length, none of them empty."""
    used = min(width, len(values))
    edges = [index * len(values) // used for index in range(used + 1)] if used else []
    return [values[a:b] for a, b in pairwise(edges)]


def _bar(bucket: Sequence[float], low: float, high: float) -> str:
    for value in bucket:
        if math.isinf(value):
            return "↑" if value > 0 else "↓"
    finite = [value for value in bucket if not math.isnan(value)]
    if not finite:
        return "·"
    if high == low:
        return _BARS[3]
    middle = low / 2 + high / 2
    furthest = max(finite, key=lambda value: abs(value - middle))
    return _BARS[_level(furthest, low, high, len(_BARS))]


def _level(value: float, low: float, high: float, levels: int) -> int:
    # Halves, so that the spread of two huge numbers does not overflow.
    place = (value / 2 - low / 2) / (high / 2 - low / 2) if high / 2 > low / 2 else 0.5
    return min(int(place * levels), levels - 1)


def plot(values: Sequence[float], width: int = 72, height: int = 10) -> list[str]:
    """Return a curve as lines of braille dots, with its highest and lowest value at the left.

    Every column shows the whole range of its points, so no spike can vanish. NaN and infinities leave no dot.
    """
    finite = [value for value in values if math.isfinite(value)]
    if not finite:
        return ["(no finite value)"]
    low, high = min(finite), max(finite)
    cells = [[0] * width for _ in range(height)]
    for column, bucket in enumerate(buckets(values, width * 2)):
        inside = [value for value in bucket if math.isfinite(value)]
        if not inside:
            continue
        bottom, top = (_level(extreme, low, high, height * 4) for extreme in (min(inside), max(inside)))
        for level in range(bottom, top + 1):
            row = height * 4 - 1 - level
            cells[row // 4][column // 2] |= _DOTS[row % 4][column % 2]
    labels = [number(high), *[""] * (height - 2), number(low)] if height > 1 else [number(high)]
    margin = max(len(label) for label in labels)
    return [
        f"{label:>{margin}} {''.join(chr(_BRAILLE + dots) for dots in row)}"
        for label, row in zip(labels, cells, strict=True)
    ]
