"""The artifacts of a project as a page's tables, and the files that they are made of."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, Final

import pyarrow as pa

from compactor.page.layout import artifact_file
from compactor.serve.artifacts import Artifacts
from compactor.serve.hub import Hub
from compactor.serve.typedrows import dump
from compactor.serve.wire import iso
from eventlog import names

_TEXT: Final = pa.string()
_NUMBER: Final = pa.int64()
_TABLES: Final[dict[str, dict[str, pa.DataType]]] = {
    "artifacts": {"id": _NUMBER, "name": _TEXT, "type": _TEXT, "description": _TEXT, "created_at": _TEXT},
    "artifact_versions": {
        **dict.fromkeys(("id", "artifact_id", "version"), _NUMBER),
        **dict.fromkeys(("manifest_digest", "manifest", "metadata"), _TEXT),
        "size_bytes": _NUMBER,
        **dict.fromkeys(("producer_run_id", "producer_run_name", "created_at"), _TEXT),
    },
    "artifact_aliases": {"artifact_id": _NUMBER, "alias": _TEXT, "artifact_version_id": _NUMBER},
    "run_artifact_links": {
        "id": _NUMBER,
        **dict.fromkeys(("run_id", "run_name", "run_project"), _TEXT),
        "artifact_version_id": _NUMBER,
        **dict.fromkeys(("direction", "created_at"), _TEXT),
    },
    "external_run_artifact_links": {
        "id": _NUMBER,
        **dict.fromkeys(("run_id", "run_name", "source_project"), _TEXT),
        "source_version_id": _NUMBER,
        **dict.fromkeys(("source_artifact", "source_type"), _TEXT),
        **dict.fromkeys(("source_version", "source_size_bytes"), _NUMBER),
        **dict.fromkeys(("direction", "created_at"), _TEXT),
    },
}


def artifact_tables(found: Artifacts, project: str, run_names: Mapping[str, str]) -> dict[str, pa.Table]:
    """Return the tables by their paths; those without rows too, so that the page asks for nothing that is not there.

    Args:
        found: what the records say.
        project: its name.
        run_names: names of the runs that are shown, by id.
    """
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in _TABLES}
    for number, item in enumerate(found.listed(), start=1):
        facts = {key: item[key] for key in ("name", "type", "description", "created_at")}
        rows["artifacts"].append({"id": number, **facts})
        for version in found.of_name(item["name"]):
            row = {
                "id": version.version_id,
                "artifact_id": number,
                "version": version.version,
                "manifest_digest": version.digest,
                "manifest": dump(version.manifest).decode(),
                "metadata": None if version.metadata is None else dump(version.metadata).decode(),
                "size_bytes": version.size_bytes,
                "producer_run_id": version.run_id or None,
                "producer_run_name": run_names.get(version.run_id, version.run_id or None),
                "created_at": iso(version.time_ns),
            }
            rows["artifact_versions"].append(row)
            rows["artifact_aliases"] += [
                {"artifact_id": number, "alias": alias, "artifact_version_id": version.version_id}
                for alias in sorted(version.aliases)
            ]
    rows["run_artifact_links"] = [
        {
            "id": number,
            "run_id": link.run_id,
            "run_name": run_names.get(link.run_id, link.run_id),
            "run_project": project,
            "artifact_version_id": link.version_id,
            "direction": link.direction,
            "created_at": iso(link.time_ns),
        }
        for number, link in enumerate(found.links, start=1)
    ]
    return {f"aux/{name}.parquet": table_of(rows[name], types) for name, types in _TABLES.items()}


def table_of(rows: Sequence[Mapping[str, Any]], types: Mapping[str, pa.DataType]) -> pa.Table:
    """Return rows as a table with columns of these types."""
    return pa.table({name: pa.array([row.get(name) for row in rows], kind) for name, kind in types.items()})


def artifact_files(found: Artifacts, hub: Hub) -> tuple[dict[str, str], set[str]]:
    """Return the files of all versions, as local path by path on the page, and the digests of which none is there."""
    files: dict[str, str] = {}
    missing: set[str] = set()
    for version in found.versions.values():
        for entry in version.manifest:
            digest = str(entry.get("digest") or "")
            if "ref" in entry or not digest:
                continue  # it is kept elsewhere, and the page shows where
            if names.is_digest(digest) and os.path.isfile(hub.blobs.path(digest)):
                files[artifact_file(digest)] = hub.blobs.path(digest)
            else:
                missing.add(digest)
    return files, missing
