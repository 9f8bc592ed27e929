"""The calls that read artifacts: what there is, what made it, and what read it."""

from __future__ import annotations

from typing import Any

import msgspec

from compactor.serve.artifacts import Artifacts, Version
from compactor.serve.hub import Hub
from compactor.serve.project import Project
from compactor.serve.reads import OfProject, OfRun
from compactor.serve.wire import iso
from eventlog.view import name_of


class OfArtifact(msgspec.Struct):
    """Arguments of `get_artifact_manifest`."""

    project: str
    name: str
    spec: str | None = None


class OfVersion(msgspec.Struct):
    """Arguments of calls about one version."""

    project: str
    version_id: int


def artifacts_of(project: Project) -> Artifacts:
    """Return what the records of a project say about artifacts."""
    versions, uses = project.events("artifact_version"), project.events("artifact_use")
    return project.remember("artifacts", (len(versions), len(uses)), lambda: Artifacts(versions, uses))


def shown_version(project: Project, version: Version) -> dict[str, Any]:
    """Return a version as a client reads it."""
    run_names = {part.run_id: name_of(part) for part in project.runs()}
    return {
        "artifact_id": version.version_id,
        "version_id": version.version_id,
        "version": version.version,
        "name": version.name,
        "type": version.type,
        "description": version.description,
        "manifest": version.manifest,
        "manifest_digest": version.digest,
        "metadata": version.metadata,
        "size_bytes": version.size_bytes,
        "producer_run_id": version.run_id or None,
        "producer_run_name": run_names.get(version.run_id, version.run_id or None),
        "created_at": iso(version.time_ns),
        "aliases": sorted(version.aliases),
    }


def get_artifact_manifest(hub: Hub, call: OfArtifact) -> dict[str, Any] | None:
    """Return a version of an artifact with its files, or None."""
    project = hub.find(call.project)
    version = artifacts_of(project).resolve(call.name, call.spec) if project is not None else None
    return None if version is None or project is None else shown_version(project, version)


def list_artifacts(hub: Hub, call: OfProject) -> list[dict[str, Any]]:
    """Return every artifact with its versions."""
    project = hub.find(call.project)
    return [] if project is None else artifacts_of(project).listed()


def get_artifacts(hub: Hub, call: OfProject) -> list[dict[str, Any]]:
    """Return every artifact with its latest version."""
    return [
        {
            **{key: item[key] for key in ("name", "type", "description", "num_versions", "latest_version")},
            "size_bytes": item["versions"][0]["size_bytes"],
            "aliases": sorted({alias for version in item["versions"] for alias in version["aliases"]}),
            "created_at": item["created_at"],
        }
        for item in sorted(list_artifacts(hub, call), key=lambda item: str(item["name"]))
    ]


def get_run_artifacts(hub: Hub, call: OfRun) -> dict[str, list[dict[str, Any]]]:
    """Return what a run made and what it read."""
    found: dict[str, list[dict[str, Any]]] = {"input": [], "output": []}
    project = hub.find(call.project)
    part = project.resolve(call.run, call.run_id) if project is not None else None
    if project is None or part is None:
        return found
    known = artifacts_of(project)
    for link in known.links:
        if link.run_id in (part.run_id, name_of(part)):
            version = known.versions[link.version_id]
            shown = {"version_id": version.version_id, "project": call.project, "name": version.name}
            shown |= {"type": version.type, "version": version.version, "size_bytes": version.size_bytes}
            found[link.direction].append({**shown, "created_at": iso(link.time_ns)})
    return found


def get_run_artifact_counts(hub: Hub, call: OfProject) -> list[dict[str, Any]]:
    """Return how many versions each run made and read."""
    project = hub.find(call.project)
    if project is None:
        return []
    run_names = {part.run_id: name_of(part) for part in project.runs()}
    counts: dict[str, dict[str, Any]] = {}
    for link in artifacts_of(project).links:
        empty = {"run_id": link.run_id, "run_name": run_names.get(link.run_id, link.run_id), "input": 0, "output": 0}
        counts.setdefault(link.run_id, empty)[link.direction] += 1
    return list(counts.values())


def get_artifact_consumers(hub: Hub, call: OfVersion) -> list[dict[str, Any]]:
    """Return the runs that read a version."""
    project = hub.find(call.project)
    if project is None:
        return []
    run_names = {part.run_id: name_of(part) for part in project.runs()}
    return [
        {
            "run_name": run_names.get(link.run_id, link.run_id),
            "run_id": link.run_id,
            "project": call.project,
            "created_at": iso(link.time_ns),
        }
        for link in artifacts_of(project).links
        if link.version_id == call.version_id and link.direction == "input"
    ]


def get_artifact_lineage(hub: Hub, call: OfVersion) -> dict[str, Any]:
    """Return the runs and versions that are connected with a version."""
    project = hub.find(call.project)
    if project is None:
        return Artifacts((), ()).lineage(call.version_id, {})
    return artifacts_of(project).lineage(call.version_id, {part.run_id: name_of(part) for part in project.runs()})
