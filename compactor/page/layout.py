"""The layout of a page's bucket: names of files and of columns, as Trackio's dashboard wants them. Pure."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable
from typing import Final

from eventlog.names import is_temporary

METRICS: Final = "metrics.parquet"
SYSTEM: Final = "aux/system_metrics.parquet"
CONFIGS: Final = "aux/configs.parquet"
TRACES: Final = "aux/traces.parquet"
RUNS: Final = "runs.json"
SETTINGS: Final = "settings.json"
MARK: Final = "eventlog-page.json"
"""By this file a later export knows that a bucket, or a directory, is a page's."""
MEDIA: Final = "media/"
ARTIFACTS: Final = "artifacts/"
LAST: Final = (SETTINGS, RUNS)
"""What goes up when everything else is there."""
ID_COLUMNS: Final = ("run_id", "run_name")
_NO_METRICS: Final = frozenset(
    {"id", "run_id", "run_name", "timestamp", "step", "log_id", "space_id", "created_at", "__proto__"}
)
_NO_CONFIGS: Final = frozenset({"id", "run_id", "run_name", "created_at", "__proto__"})
# What an address would end at, or a bucket's path cannot have; the page puts names into addresses as they are.
_UNFIT: Final = re.compile(r"[\x00-\x1f\x7f#?%\\]")
_POINTS: Final = 3000
_POINTS_OF_ALL: Final = 300_000
_FEWEST_POINTS: Final = 300


def metric_columns(numbers: Collection[str], others: Iterable[str]) -> tuple[dict[str, str], dict[str, str]]:
    """Return the column of each name's numbers, and of its other values.

    A column of parquet has one type, so a name under which both were logged has two: its other values are in
    `NAME (values)`. A name that the page does not take for a metric, such as `step`, gets two underscores.

    Args:
        numbers: names under which numbers were logged.
        others: names under which anything else was.
    """
    taken: set[str] = set()
    columns = {name: _free(name, taken, _NO_METRICS) for name in sorted(numbers)}
    typed = {
        name: _free(f"{name} (values)" if name in columns else name, taken, _NO_METRICS) for name in sorted(set(others))
    }
    return columns, typed


def config_columns(keys: Iterable[str]) -> dict[str, str]:
    """Return the column of each key of the runs' configs."""
    taken: set[str] = set()
    return {key: _free(key, taken, _NO_CONFIGS) for key in sorted(set(keys))}


def _free(name: str, taken: set[str], reserved: Collection[str]) -> str:
    while name in taken or name in reserved:
        name = f"__{name}"
    taken.add(name)
    return name


def points_of(runs: int) -> int:
    """Return how many rows each of so many runs gets when nobody says: a browser holds all of them."""
    return max(min(_POINTS, _POINTS_OF_ALL // max(runs, 1)), _FEWEST_POINTS)


def blob_file(digest: str, name: str) -> str:
    """Return the path below `media/` of a blob; of the name that it had only the ending is left."""
    suffix = os.path.splitext(name)[1].lower()
    return f"blob/{digest}{suffix if suffix[1:].isalnum() and suffix.isascii() and len(suffix) <= 8 else ''}"


def saved_file(name: str, taken: Collection[str]) -> str:
    """Return the path of a file of the project that is no run's: as it was called, where an address can say that."""
    parts = [_UNFIT.sub("_", part) for part in name.split("/")]
    parts = [f"_{part}" if part in ("", ".", "..") or is_temporary(part) else part for part in parts]
    path = "/".join([f"{MEDIA}files", *parts])
    while path in taken:
        path += "_"
    return path


def artifact_file(digest: str) -> str:
    """Return the path of a file of an artifact."""
    return f"{ARTIFACTS}blobs/sha256/{digest[:2]}/{digest}"


def is_media(path: str) -> bool:
    """Say whether a file is one that runs, files or artifacts show, so that it goes when none does any more."""
    return path.startswith((MEDIA, ARTIFACTS))
