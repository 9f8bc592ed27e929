"""Find the files of an export of Trackio: parquet with a column a metric, of one project or of several.

One project, its static form: `metrics.parquet`, `aux/{system_metrics,configs,traces}.parquet`, `runs.json`, and
`media/RUN/STEP/FILE`. Several, as in Trackio's own directory and in a dataset of its scheduler: `NAME.parquet`,
`NAME_system.parquet`, `NAME_configs.parquet`, `NAME_traces.parquet`, and `media/NAME/RUN/STEP/FILE`.
"""

from __future__ import annotations

import os
from typing import Final, NamedTuple

import msgspec

from eventlog.importing.sources import Place

PARQUET: Final = ".parquet"
_STATIC: Final = {
    "metrics": "metrics.parquet",
    "system": "aux/system_metrics.parquet",
    "configs": "aux/configs.parquet",
    "traces": "aux/traces.parquet",
}
_SUFFIXES: Final = {"system": "_system", "configs": "_configs", "traces": "_traces"}
_ARTIFACTS: Final = (
    "artifacts",
    "artifact_versions",
    "artifact_aliases",
    "run_artifact_links",
    "external_run_artifact_links",
)


class Files(NamedTuple):
    """The files of one project of an export.

    Attributes:
        project: its name.
        tables: by what they hold: metrics, system, configs, traces.
        others: that hold what cannot be imported, by what it is.
        media: the directory of its media.
    """

    project: str
    tables: dict[str, str]
    others: dict[str, str]
    media: str


def find_projects(place: Place) -> list[Files]:
    """Return the projects of an export, in order; none when it is no export of Trackio."""
    there = place.listing()
    if _STATIC["metrics"] in there and ("runs.json" in there or "settings.json" in there):
        tables = {kind: name for kind, name in _STATIC.items() if name in there}
        others = {table: f"aux/{table}{PARQUET}" for table in _ARTIFACTS if f"aux/{table}{PARQUET}" in there}
        return [Files(_static_name(place), tables, others, "media")]
    stems = {name.removesuffix(PARQUET) for name in there if name.endswith(PARQUET) and "/" not in name}
    found: dict[str, Files] = {}
    for stem in sorted(stems):
        project, kind = _split(stem, stems)
        files = found.setdefault(project, Files(project, {}, {}, f"media/{project}"))
        if kind in _ARTIFACTS:
            files.others[kind] = stem + PARQUET
        else:
            files.tables[kind] = stem + PARQUET
    return [files for files in found.values() if files.tables]


def _static_name(place: Place) -> str:
    if "config.json" in place.listing():
        with place.fetch("config.json") as path, open(path, "rb") as file:
            try:
                return msgspec.json.decode(file.read(), type=_StaticConfig).project
            except (msgspec.MsgspecError, UnicodeDecodeError):
                pass  # of another program; the directory has a name too
    return os.path.basename(str(place)) or "default"


class _StaticConfig(msgspec.Struct):
    project: str


def _split(stem: str, stems: set[str]) -> tuple[str, str]:
    """Return the project of a file, and what it holds: Trackio lets no project's name end like a side file's."""
    for kind, suffix in (*_SUFFIXES.items(), *((table, f"_{table}") for table in _ARTIFACTS)):
        base = stem.removesuffix(suffix)
        if base not in ("", stem) and (base in stems or kind in _SUFFIXES):
            return base, kind
    return stem, "metrics"
