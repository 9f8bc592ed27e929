"""The layout of a page's bucket: names of files and of columns, as Trackio's dashboard wants them. Pure."""

from __future__ import annotations

import hashlib
import itertools
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
_UNFIT: Final = re.compile(r"[\x00-\x1f\x7f#?%\\\ud800-\udfff]")
# File systems take 255, of which some are left for a number.
_MOST_BYTES: Final = 240
_MOST_CHARACTERS: Final = 500
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


def saved_files(names: Iterable[str]) -> dict[str, str]:
    """Return the paths of the files of the project that are no run's: as they were called, where that can be.

    An address cannot say every name, nothing is longer than file systems take, and what is a file for one name is no
    directory for another, though in a store `a` and `a/b` may both be files.

    Args:
        names: of the files.
    """
    files: set[str] = set()
    taken: set[str] = set()
    found: dict[str, str] = {}
    for name in names:
        # Of one that is too long as a whole the directories go into one component, which is cut.
        parts = name.split("/") if len(name) <= _MOST_CHARACTERS else [name.replace("/", "_")]
        *above, last = map(_component, parts)
        path = f"{MEDIA}files"
        for part in above:
            path = _other_than(files, f"{path}/{part}")
            taken.add(path)
        found[name] = path = _other_than(taken, f"{path}/{last}")
        files.add(path)
        taken.add(path)
    return found


def _component(part: str) -> str:
    part = _UNFIT.sub("_", part)
    if part in ("", ".", "..") or is_temporary(part):
        part = f"_{part}"
    data = part.encode()
    if len(data) <= _MOST_BYTES:
        return part
    end = os.path.splitext(part)[1]
    end = f"-{hashlib.sha256(data).hexdigest()[:16]}{end if len(end.encode()) <= 16 else ''}"
    return data[: _MOST_BYTES - len(end.encode())].decode(errors="ignore") + end


def _other_than(taken: Collection[str], path: str) -> str:
    numbered = (f"{path}_{number}" for number in itertools.count(2))
    return next(each for each in itertools.chain([path], numbered) if each not in taken)


def artifact_file(digest: str) -> str:
    """Return the path of a file of an artifact."""
    return f"{ARTIFACTS}blobs/sha256/{digest[:2]}/{digest}"


def is_media(path: str) -> bool:
    """Say whether a file is one that runs, files or artifacts show, so that it goes when none does any more."""
    return path.startswith((MEDIA, ARTIFACTS))
