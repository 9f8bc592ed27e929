"""Make the files of a page on this machine: what has changed since the last time anew, the rest as it was."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import msgspec
import pyarrow as pa

from compactor.page import layout
from compactor.page.artifacts import artifact_files, artifact_tables, table_of
from compactor.page.config import PageConfig
from compactor.page.configs import config_table
from compactor.page.media import Media, find
from compactor.page.rows import metric_rows, system_rows
from compactor.page.tables import Form, Spooled, spool, wide, write_runs, write_table
from compactor.serve import reads
from compactor.serve.api import get_settings
from compactor.serve.catalog import artifacts_of
from compactor.serve.config import ServeConfig
from compactor.serve.files import Own
from compactor.serve.hub import Hub
from compactor.serve.project import Project
from compactor.serve.traces import Traces, get_traces
from compactor.serve.typedrows import dump
from compactor.serve.wire import iso
from compactor.serve.writes import Nothing
from eventlog.errors import UsageError
from eventlog.runs import RunPart
from eventlog.view import name_of

_TRACE_TEXTS: Final = ("messages", "metadata", "spans")
_TRACES: Final = {
    **dict.fromkeys(("id", "key"), pa.string()),
    "trace_index": pa.int64(),
    "step": pa.int64(),
    **dict.fromkeys(("timestamp", *_TRACE_TEXTS), pa.string()),
}


class Made(NamedTuple):
    """The files of a page, all of them on this machine.

    Attributes:
        files: local path by path on the page.
        runs: how many the page shows.
        rows: of `metrics.parquet`.
        missing: media that values name and the store has not got.
    """

    files: dict[str, str]
    runs: int
    rows: int
    missing: list[str]


class _Run(NamedTuple):
    """One run as it was made last.

    Attributes:
        state: what tells whether it has changed since.
        tables: its spooled rows, by path of the table.
        files: its media.
        missing: what it names and the store has not got.
    """

    state: object
    tables: dict[str, Spooled]
    files: dict[str, str]
    missing: frozenset[str]


class PageMaker:
    """Makes the page of one project again and again. Not thread-safe. Memory holds one run at a time."""

    def __init__(self, root: str, project: str, config: PageConfig, directory: str) -> None:
        """Take the store.

        Args:
            root: of the store.
            project: its name.
            config: settings.
            directory: an empty one, for the files.
        """
        self._name = project
        self._config = config
        self._directory = directory
        self._hub = Hub(root, ServeConfig())
        self._runs: dict[str, _Run] = {}
        for name in ("page/aux", "runs"):
            os.makedirs(os.path.join(directory, name))

    def reached(self) -> dict[str, int]:
        """Return how far each writer was read: when it is the same later, so is the page.

        Raises:
            UsageError: there is no such project.
            EventLogError: a file is damaged, or files were collected while they were read: try again.
            OSError: the store cannot be read.
        """
        return self._project().view(lambda view: view.reached())

    def make(self) -> Made:
        """Make all files, as of now.

        Raises:
            UsageError: there is no such project.
            EventLogError: a file is damaged, or files were collected while they were read: try again.
            OSError: the store cannot be read, or a file cannot be written.
        """
        project = self._project()
        parts = project.runs()
        points = self._config.points or layout.points_of(len(parts))
        self._forget(parts)
        for part in parts:
            state = (points, sorted(part.records.items()), part.last_time_ns, name_of(part))
            known = self._runs.get(part.run_id)
            # What is missing may have been uploaded since, which no record of the run tells.
            if known is None or known.state != state or known.missing:
                self._runs[part.run_id] = self._made(project, part, points, state)
        rows = self._write_tables(parts)
        self._write_documents(parts)
        files, missing = self._others(project)
        for run in self._runs.values():
            files |= run.files
            missing |= run.missing
        files |= {name: self._path(name) for name in self._own()}
        return Made(files, len(parts), rows, sorted(missing))

    def _project(self) -> Project:
        found = self._hub.find(self._name)
        if found is None:
            there = ", ".join(self._hub.names()) or "none"
            raise UsageError(f"there is no project {self._name!r} in {self._hub.root}; there are: {there}")
        return found

    def _path(self, name: str) -> str:
        return os.path.join(self._directory, "page", name)

    def _own(self) -> list[str]:
        base = os.path.join(self._directory, "page")
        found = [os.path.join(top, name) for top, _, inside in os.walk(base) for name in inside]
        return [os.path.relpath(path, base).replace(os.sep, "/") for path in found]

    # Runs.

    def _forget(self, parts: Sequence[RunPart]) -> None:
        for run_id in self._runs.keys() - {part.run_id for part in parts}:
            del self._runs[run_id]
            shutil.rmtree(self._run_directory(run_id))

    def _run_directory(self, run_id: str) -> str:
        return os.path.join(self._directory, "runs", hashlib.sha256(run_id.encode("utf-8", "replace")).hexdigest())

    def _made(self, project: Project, part: RunPart, points: int, state: object) -> _Run:
        directory = self._run_directory(part.run_id)
        os.makedirs(directory, exist_ok=True)
        media = Media(self._hub, project, part.run_id, directory)
        tables = {
            layout.METRICS: metric_rows(project, part, points, media),
            layout.SYSTEM: system_rows(project, part, points),
            layout.TRACES: [table_of(self._traces(part, media), _TRACES)],
        }
        spooled = {
            name: spool(os.path.join(directory, os.path.basename(name)), table, part.run_id, name_of(part))
            for name, table in tables.items()
        }
        return _Run(state, spooled, media.files, frozenset(media.missing))

    def _traces(self, part: RunPart, media: Media) -> list[dict[str, Any]]:
        call = Traces(self._name, run_id=part.run_id, sort="request_time_asc")
        return [
            {
                **trace,
                "trace_index": trace["index"],
                **{name: dump(media.placed(trace[name])).decode() for name in _TRACE_TEXTS},
            }
            for trace in get_traces(self._hub, call)
        ]

    # Files.

    def _write_tables(self, parts: Sequence[RunPart]) -> int:
        runs = [self._runs[part.run_id] for part in parts]
        metrics, system, traces = (
            [run.tables[name] for run in runs] for name in (layout.METRICS, layout.SYSTEM, layout.TRACES)
        )
        write_runs(self._path(layout.SYSTEM), system, wide(system, with_step=False))
        write_runs(self._path(layout.TRACES), traces, Form.of(_TRACES))
        return write_runs(self._path(layout.METRICS), metrics, wide(metrics, with_step=True))

    def _write_documents(self, parts: Sequence[RunPart]) -> None:
        shown = [_run_facts(part) for part in parts]
        facts = [{"run_id": run["id"], "run_name": run["name"], "created_at": run["created_at"]} for run in shown]
        configs = [reads.config_of(part) for part in parts]
        write_table(self._path(layout.CONFIGS), config_table(list(zip(facts, configs, strict=True))))
        looks = get_settings(self._hub, Nothing())
        self._write(layout.RUNS, shown)
        self._write(layout.SETTINGS, {name: looks[name] for name in ("color_palette", "plot_order")})

    def _write(self, name: str, document: object) -> None:
        with open(self._path(name), "wb") as file:
            file.write(msgspec.json.format(dump(document), indent=2))

    def _others(self, project: Project) -> tuple[dict[str, str], set[str]]:
        """Return what belongs to no run: files that were saved to the project, and artifacts."""
        artifacts = artifacts_of(project)
        run_names = {part.run_id: name_of(part) for part in project.runs()}
        for name, table in artifact_tables(artifacts, self._name, run_names).items():
            write_table(self._path(name), table)
        files, missing = artifact_files(artifacts, self._hub)
        saved = reads.project_files(project)
        places = layout.saved_files(item["name"] for item in saved)
        for item in saved:
            found = find(self._hub, item["path"], Own(self._name))
            if found is None:
                missing.add(item["path"])
            else:
                files[places[item["name"]]] = found.path
        return files, missing


def _run_facts(part: RunPart) -> dict[str, Any]:
    """Return a run as the page lists it."""
    return {
        "id": part.run_id,
        "name": name_of(part),
        "created_at": iso(reads.created_ns(part)),
        "last_step": part.last_step,
        "log_count": part.records.get("metrics", 0) or int(part.last_step is not None),
    }
