"""Which sets of metric names share a file: pure.

Rows with the same names belong together, for their columns are dense then. But a file for each set would
be many files, and one file for all sets would be mostly null when there are thousands of names. So sets
are gathered greedily, in a fixed order, while the cells of the shared table stay within a small multiple of
the points in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

_WASTE: Final = 4
_FREE_CELLS: Final = 2_000_000


def share_files(sets: Sequence[tuple[frozenset[str], int]]) -> list[list[int]]:
    """Return groups of indexes into `sets`, each group for one file.

    Args:
        sets: (names, rows) each. The result depends on nothing but these.
    """
    order = sorted(range(len(sets)), key=lambda i: (-len(sets[i][0]), sorted(sets[i][0])))
    groups: list[list[int]] = []
    unions: list[set[str]] = []
    rows: list[int] = []
    points: list[int] = []
    for index in order:
        metric_names, count = sets[index]
        for group, union in enumerate(unions):
            merged = len(union | metric_names)
            allowed = max(_WASTE * (points[group] + count * len(metric_names)), _FREE_CELLS)
            if merged * (rows[group] + count) <= allowed:
                groups[group].append(index)
                union.update(metric_names)
                rows[group] += count
                points[group] += count * len(metric_names)
                break
        else:
            groups.append([index])
            unions.append(set(metric_names))
            rows.append(count)
            points.append(count * len(metric_names))
    return groups
