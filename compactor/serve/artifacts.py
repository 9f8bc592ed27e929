"""Artifacts: what the records about them amount to - versions, aliases, links and lineage. Pure."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from typing import Any, Final

import msgspec

from compactor.serve.wire import iso
from eventlog import values
from eventlog.columns import EventRow

VERSION_SPEC: Final = re.compile(r"v(\d+)")
_MOST_NODES: Final = 500


class Version(msgspec.Struct, kw_only=True):
    """One version of an artifact.

    Attributes:
        version_id: a number that no other version in the project has; fits a JavaScript number.
        name, type, description, metadata, manifest: as it was logged.
        version: counts up from 0.
        digest: of the manifest; equal contents are one version.
        aliases: that point to it now.
        run_id: of the run that made it.
        time_ns: when.
    """

    version_id: int
    name: str
    type: str
    version: int
    digest: str
    description: str | None
    metadata: dict[str, Any] | None
    manifest: list[dict[str, Any]]
    aliases: list[str]
    run_id: str
    time_ns: int

    @property
    def size_bytes(self) -> int:
        """The size of all its files."""
        return sum(int(entry.get("size") or 0) for entry in self.manifest)


class Link(msgspec.Struct, frozen=True):
    """A run made a version, or read it."""

    run_id: str
    version_id: int
    direction: str
    time_ns: int


class Artifacts:
    """What the records say, in the order of their time."""

    def __init__(self, versions: Iterable[EventRow], uses: Iterable[EventRow]) -> None:
        """Take the rows of `artifact_version` and `artifact_use`."""
        self.versions: dict[int, Version] = {}
        self.links: list[Link] = []
        self._by_name: dict[str, list[Version]] = {}
        self._pointed: dict[tuple[str, str], Version] = {}
        self._linked: set[tuple[str, int, str]] = set()
        for row in sorted([*versions, *uses], key=lambda row: (row.time_ns, row.writer_id, row.seq)):
            fields = values.from_json(row.payload)
            if row.kind == "artifact_version":
                self._add_version(row, fields)
            else:
                self._link(row.run_id, version_id_of(str(fields["name"]), str(fields["version"])), "input", row.time_ns)

    def _add_version(self, row: EventRow, fields: dict[str, Any]) -> None:
        name, number = str(fields["name"]), str(fields["version"])
        version_id = version_id_of(name, number)
        if fields.get("overwrite"):
            self._forget_others(name, version_id)
        known = self.versions.get(version_id)
        if known is None:
            manifest = [{"path": path, **_entry(entry)} for path, entry in sorted(fields.get("files", {}).items())]
            known = self.versions[version_id] = Version(
                version_id=version_id,
                name=name,
                type=str(fields.get("type") or ""),
                version=int(number.removeprefix("v") or 0) if number.removeprefix("v").isdigit() else 0,
                digest=str(fields.get("digest") or ""),
                description=fields.get("description") or None,
                metadata=fields.get("metadata") or None,
                manifest=manifest,
                aliases=[],
                run_id=row.run_id,
                time_ns=row.time_ns,
            )
            self._by_name.setdefault(name, []).append(known)
            self._point(known, "latest", forward=False)
        elif fields.get("metadata"):
            known.metadata = fields["metadata"]
        for alias in fields.get("aliases") or ():
            self._point(known, str(alias), forward=True)
        self._link(row.run_id, version_id, "output", row.time_ns)

    def _point(self, version: Version, alias: str, *, forward: bool) -> None:
        """Move an alias to a version; one that was given before never moves back to an older version."""
        other = self._pointed.get((version.name, alias))
        if other is not None:
            if forward and other.version > version.version:
                return
            other.aliases.remove(alias)
        version.aliases.append(alias)
        self._pointed[version.name, alias] = version

    def _forget_others(self, name: str, version_id: int) -> None:
        """End every version of an artifact but one."""
        gone = {version.version_id for version in self._by_name.get(name, ()) if version.version_id != version_id}
        self.versions = {key: version for key, version in self.versions.items() if key not in gone}
        self._by_name[name] = [version for version in self._by_name.get(name, ()) if version.version_id not in gone]
        self._pointed = {key: version for key, version in self._pointed.items() if version.version_id not in gone}
        self.links = [link for link in self.links if link.version_id not in gone]
        self._linked = {key for key in self._linked if key[1] not in gone}

    def _link(self, run_id: str, version_id: int, direction: str, time_ns: int) -> None:
        known = any(
            (link.run_id, link.version_id, link.direction) == (run_id, version_id, direction) for link in self.links
        )
        if version_id in self.versions and not known:
            self.links.append(Link(run_id, version_id, direction, time_ns))

    def of_name(self, name: str) -> list[Version]:
        """Return the versions of an artifact, newest first."""
        return sorted(self._by_name.get(name, ()), key=lambda version: -version.version)

    def resolve(self, name: str, spec: str | None) -> Version | None:
        """Return the version that `vN` or an alias means; None is latest."""
        spec = spec or "latest"
        match = VERSION_SPEC.fullmatch(spec)
        for version in self.of_name(name):
            if (match and version.version == int(match[1])) or (not match and spec in version.aliases):
                return version
        return None

    def listed(self) -> list[dict[str, Any]]:
        """Return every artifact with its versions, by type and name."""
        names = sorted({(v.type, v.name) for v in self.versions.values()})
        found: list[dict[str, Any]] = []
        for kind, name in names:
            versions = self.of_name(name)
            found.append(
                {
                    "name": name,
                    "type": kind,
                    "description": versions[-1].description,
                    "created_at": iso(versions[-1].time_ns),
                    "num_versions": len(versions),
                    "latest_version": versions[0].version,
                    "versions": [
                        {
                            "version_id": v.version_id,
                            "version": v.version,
                            "aliases": sorted(v.aliases),
                            "size_bytes": v.size_bytes,
                            "num_files": len(v.manifest),
                            "created_at": iso(v.time_ns),
                        }
                        for v in versions
                    ],
                }
            )
        return found

    def lineage(self, version_id: int, run_names: dict[str, str]) -> dict[str, Any]:
        """Return the runs and versions that are connected with a version, as a graph."""
        focus = f"art:{version_id}"
        if version_id not in self.versions:
            return {"focus": focus, "truncated": False, "nodes": [], "edges": []}
        reached, frontier = {focus}, [focus]
        while frontier and len(reached) < _MOST_NODES:
            node = frontier.pop()
            for link in self.links:
                ends = [f"art:{link.version_id}", f"run:{link.run_id}"]
                if node in ends:
                    frontier += [end for end in ends if end not in reached]
                    reached.update(ends)
        links = [k for k in self.links if f"art:{k.version_id}" in reached and f"run:{k.run_id}" in reached]
        runs = sorted({link.run_id for link in links})
        nodes = [
            self._node(self.versions[number], run_names)
            for number in sorted({k.version_id for k in links} | {version_id})
        ]
        for run_id in runs:
            first = min(link.time_ns for link in links if link.run_id == run_id)
            name = run_names.get(run_id, run_id)
            nodes.append(
                {"id": f"run:{run_id}", "kind": "run", "run_id": run_id, "run_name": name, "created_at": iso(first)}
            )
        return {
            "focus": focus,
            "truncated": bool(frontier),
            "nodes": nodes,
            "edges": [_edge(link) for link in links],
        }

    @staticmethod
    def _node(version: Version, run_names: dict[str, str]) -> dict[str, Any]:
        return {
            "id": f"art:{version.version_id}",
            "kind": "artifact",
            "version_id": version.version_id,
            "artifact_name": version.name,
            "artifact_type": version.type,
            "version": version.version,
            "aliases": sorted(version.aliases),
            "size_bytes": version.size_bytes,
            "num_files": len(version.manifest),
            "created_at": iso(version.time_ns),
            "producer_run_id": version.run_id,
            "producer_run_name": run_names.get(version.run_id),
        }


def _edge(link: Link) -> dict[str, Any]:
    ends = [f"run:{link.run_id}", f"art:{link.version_id}"]
    source, target = ends if link.direction == "output" else reversed(ends)
    return {"source": source, "target": target, "direction": link.direction, "created_at": iso(link.time_ns)}


def _entry(entry: Any) -> dict[str, Any]:
    """Return a file of a manifest as the client knows it; writers of our own say sha256 and size_bytes."""
    entry = entry if isinstance(entry, dict) else {}
    shown = {
        "digest": entry.get("digest") or entry.get("sha256"),
        "size": entry.get("size", entry.get("size_bytes", 0)),
    }
    return {**shown, "ref": entry["ref"]} if "ref" in entry else shown


def version_id_of(name: str, version: str) -> int:
    """Return the number of a version: made from its name, so that every server and every restart gives the same."""
    digest = hashlib.sha256(f"{name}\0{version.removeprefix('v')}".encode("utf-8", "backslashreplace")).digest()
    return int.from_bytes(digest[:6], "big")


def manifest_digest(manifest: list[dict[str, Any]]) -> str:
    """Return what is equal for equal contents."""
    return hashlib.sha256(
        msgspec.json.encode(sorted(manifest, key=lambda e: str(e["path"])), order="sorted")
    ).hexdigest()
