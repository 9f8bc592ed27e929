"""The calls that read: everything that a tab of the dashboard or another client asks for."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from compactor.serve import typed
from compactor.serve.errors import RequestError
from compactor.serve.hub import Hub
from compactor.serve.project import Project
from compactor.serve.typedrows import dump
from compactor.serve.wire import iso
from eventlog import values
from eventlog.columns import EventRow
from eventlog.runs import RunPart
from eventlog.view import name_of

MOST_RUNS: Final = 64
MOST_POINTS: Final = 10_000
_POINTS: Final = 3000
_POINTS_OF_ALL: Final = 60_000
_FEWEST_POINTS: Final = 600


class Raw(msgspec.Struct):
    """An answer that is JSON already, in pieces, so that none is copied."""

    pieces: list[bytes]


class OfProject(msgspec.Struct):
    """Arguments of calls about a project."""

    project: str


class OfRun(msgspec.Struct):
    """Arguments of calls about a run."""

    project: str
    run: str | None = None
    run_id: str | None = None


class Logs(msgspec.Struct):
    """Arguments of `get_logs`."""

    project: str
    run: str | None = None
    run_id: str | None = None
    scalar_only: bool | str | None = None


class Which(msgspec.Struct):
    """One run of a batch."""

    run: str | None = None
    run_id: str | None = None


class LogsBatch(msgspec.Struct):
    """Arguments of `get_logs_batch` and `get_system_logs_batch`."""

    project: str
    runs: list[Which]
    max_points: int | float | None = None
    scalar_only: bool | str | None = None


class Alerts(msgspec.Struct):
    """Arguments of `get_alerts`."""

    project: str
    run: str | None = None
    run_id: str | None = None
    level: str | None = None
    since: str | None = None


def get_all_projects(hub: Hub, call: msgspec.Struct) -> list[str]:
    """Return the names of all projects."""
    del call
    return hub.names()


def get_runs_for_project(hub: Hub, call: OfProject) -> list[dict[str, Any]]:
    """Return the runs of a project, oldest first."""
    project = hub.find(call.project)
    return [] if project is None else [_record(part) for part in project.runs()]


def _record(part: RunPart) -> dict[str, Any]:
    return {"id": part.run_id, "name": name_of(part), "created_at": iso(created_ns(part))}


def created_ns(part: RunPart) -> int | None:
    """Return when a run began."""
    return int(part.start[1]["time_ns"]) if part.start is not None else part.first_time_ns


def get_run_configs(hub: Hub, call: OfProject) -> dict[str, Any]:
    """Return the config of every run that has one, by id."""
    project = hub.find(call.project)
    if project is None:
        return {}
    return {part.run_id: config_of(part) for part in project.runs()}


def config_of(part: RunPart) -> dict[str, Any]:
    """Return a run's config; one that embeds the writer has, as Trackio's have, what the page groups and sorts by."""
    start = part.start[1] if part.start else {}
    facts = {
        "_Group": part.group[1] if part.group else None,
        "_Username": start.get("user") or None,
        "_Created": iso(created_ns(part)),
    }
    config = {key: typed.to_trackio(value, lambda _: None, "") for key, (_, value) in sorted(part.config.items())}
    return {**facts, **config}


def get_project_summary(hub: Hub, call: OfProject) -> dict[str, Any]:
    """Return the runs of a project and how far they are."""
    project = hub.find(call.project)
    parts = project.runs() if project is not None else []
    steps = [part.last_step for part in parts if part.last_step is not None]
    return {
        "project": call.project,
        "num_runs": len(parts),
        "runs": [_record(part) for part in parts],
        "last_activity": max(steps, default=None),
    }


def get_run_summary(hub: Hub, call: OfRun) -> dict[str, Any]:
    """Return what is known of a run; a client that resumes goes on after `last_step`."""
    part, project = _find(hub, call.project, call.run, call.run_id)
    summary: dict[str, Any] = {"project": call.project, "run": call.run, "run_id": call.run_id}
    if part is None or project is None:
        return {**summary, "num_logs": 0, "metrics": [], "config": None, "last_step": None}
    logs = part.records.get("metrics", 0)
    return {
        **summary,
        "run": name_of(part),
        "run_id": part.run_id,
        "num_logs": logs or int(part.last_step is not None),
        "metrics": _metric_names(project, part),
        "config": config_of(part),
        "last_step": part.last_step,
    }


def _metric_names(project: Project, part: RunPart) -> list[str]:
    return sorted({*part.stats, *project.typed(part.run_id, lambda rows: rows.names())})


def get_metrics_for_run(hub: Hub, call: OfRun) -> list[str]:
    """Return the names of everything that a run logged."""
    part, project = _find(hub, call.project, call.run, call.run_id)
    return [] if part is None or project is None else _metric_names(project, part)


def _find(hub: Hub, project: str, run: str | None, run_id: str | None) -> tuple[RunPart | None, Project | None]:
    state = hub.find(project)
    return (None, None) if state is None else (state.resolve(run, run_id), state)


def get_logs(hub: Hub, call: Logs) -> Raw:
    """Return the rows of a run: sampled numbers, and every typed value."""
    part, project = _find(hub, call.project, call.run, call.run_id)
    if part is None or project is None:
        return Raw([b"[]"])
    return Raw([project.logs("metrics", part.run_id, _POINTS, scalar_only=_flag(call.scalar_only))])


def get_logs_batch(hub: Hub, call: LogsBatch) -> Raw:
    """Return the rows of several runs."""
    return _batch(hub, call, "metrics", scalar_only=_flag(call.scalar_only))


def get_system_logs_batch(hub: Hub, call: LogsBatch) -> Raw:
    """Return the system metrics of several runs."""
    return _batch(hub, call, "system", scalar_only=True)


def get_system_logs(hub: Hub, call: OfRun) -> Raw:
    """Return the system metrics of a run."""
    part, project = _find(hub, call.project, call.run, call.run_id)
    if part is None or project is None:
        return Raw([b"[]"])
    return Raw([project.logs("system", part.run_id, _POINTS, scalar_only=True)])


def _batch(hub: Hub, call: LogsBatch, table: str, *, scalar_only: bool) -> Raw:
    if len(call.runs) > MOST_RUNS:
        raise RequestError(f"runs cannot contain more than {MOST_RUNS} entries")
    # The page draws every row of every run again at each change: many runs share what it can draw in time.
    points = min(_points(call.max_points), max(_POINTS_OF_ALL // max(len(call.runs), 1), _FEWEST_POINTS))
    project = hub.find(call.project)
    wanted = [(which.run, which.run_id) for which in call.runs]
    texts = [b"[]"] * len(wanted)
    if project is not None:
        texts = project.logs_of(table, wanted, points, scalar_only=scalar_only)
    pieces = [b"["]
    for index, (which, text) in enumerate(zip(call.runs, texts, strict=True)):
        head = dump({"run": which.run, "run_id": which.run_id})
        pieces += [b"," if index else b"", head[:-1], b',"logs":', text, b"}"]
    pieces.append(b"]")
    return Raw(pieces)


def _points(wanted: float | None) -> int:
    if wanted is None or wanted < 1:
        return _POINTS
    if isinstance(wanted, bool) or (isinstance(wanted, float) and not wanted.is_integer()):
        raise RequestError("max_points must be a whole number")
    return min(int(wanted), MOST_POINTS)


def _flag(value: bool | str | None) -> bool:  # noqa: FBT001 - it is the value itself
    if value is None or isinstance(value, bool):
        return bool(value)
    text = value.strip().lower()
    if text in ("true", "1", "yes", "on"):
        return True
    if text in ("false", "0", "no", "off", ""):
        return False
    raise RequestError("scalar_only must be a boolean")


def get_system_metrics_for_run(hub: Hub, call: OfRun) -> list[str]:
    """Return the names of a run's system metrics."""
    part, project = _find(hub, call.project, call.run, call.run_id)
    if part is None or project is None:
        return []
    return sorted(project.system_names(part.run_id))


def get_alerts(hub: Hub, call: Alerts) -> list[dict[str, Any]] | Raw:
    """Return alerts, newest first."""
    project = hub.find(call.project)
    if project is None:
        return []
    part = project.resolve(call.run, call.run_id) if call.run or call.run_id else None
    if part is None and (call.run or call.run_id):
        return []
    run_names = {part.run_id: name_of(part) for part in project.runs()}
    rows = project.events("alert")
    key = (len(rows), run_names, call)
    return project.remember("alerts", key, lambda: Raw([dump(_alerts(rows, run_names, part, call))]))


def _alerts(
    rows: list[EventRow], run_names: dict[str, str], part: RunPart | None, call: Alerts
) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for row in sorted(rows, key=lambda row: (-row.time_ns, -row.seq)):
        if row.run_id not in run_names:
            continue
        fields, stamp = values.from_json(row.payload), iso(row.time_ns) or ""
        if part is not None and row.run_id != part.run_id:
            continue
        if (call.level and fields["level"] != call.level) or (call.since and stamp <= call.since):
            continue
        found.append(
            {
                "timestamp": stamp,
                "run": run_names.get(row.run_id, row.run_id),
                "title": fields["title"],
                "text": fields["text"],
                "level": fields["level"],
                "step": row.step,
            }
        )
    return found


def get_tab_availability(hub: Hub, call: OfProject) -> dict[str, bool]:
    """Say which tabs have something to show."""
    project = hub.find(call.project)
    if project is None:
        return dict.fromkeys(("metrics", "system", "traces", "media", "reports", "files", "artifacts"), False)
    kinds = project.kinds()
    records = [part.records for part in project.runs()]
    return {
        "metrics": any(r.get("metrics") for r in records) or bool(kinds & typed.HISTOGRAMS),
        "system": any(r.get("system") for r in records),
        "traces": bool(kinds & typed.TRACES),
        "media": bool(kinds & typed.SHOWN_AS_MEDIA),
        "reports": bool(kinds & typed.REPORTS) or "alert" in kinds,
        "files": bool(project_files(project)),
        "artifacts": bool(project.events("artifact_version")),
    }


def get_project_files(hub: Hub, call: OfProject) -> list[dict[str, Any]]:
    """Return the files of a project."""
    project = hub.find(call.project)
    return [] if project is None else project_files(project)


def project_files(project: Project) -> list[dict[str, Any]]:
    """Return the files that were saved to the project itself, each by its newest upload."""
    prefix = f"{project.name}/files/"
    found: dict[str, dict[str, Any]] = {}
    for row in sorted(project.events("upload"), key=lambda row: row.time_ns):
        fields = values.from_json(row.payload)
        path = str(fields["path"])
        if path.startswith(prefix):
            found[path] = {"name": path.removeprefix(prefix), "path": path, "size": fields["size_bytes"]}
    return [found[path] for path in sorted(found)]
