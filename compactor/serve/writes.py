"""The calls that write: logs, system metrics, alerts, media, artifacts, and changes to runs."""

from __future__ import annotations

import contextlib
from typing import Any, TypeVar

import msgspec

from compactor.serve.artifacts import VERSION_SPEC, manifest_digest
from compactor.serve.catalog import artifacts_of, shown_version
from compactor.serve.errors import RequestError
from compactor.serve.hub import Hub
from compactor.serve.intake import Intake
from compactor.serve.making import check_entry
from compactor.serve.uploads import base_name, relative_path
from compactor.serve.wire import AlertEntry, BlobEntry, LogEntry, SystemEntry, UploadEntry, checked_name, whole
from eventlog import names, schema, values
from eventlog.blobs import BlobRef

_E = TypeVar("_E", LogEntry, SystemEntry, AlertEntry)


class BulkLog(msgspec.Struct):
    """Arguments of `bulk_log`."""

    logs: list[LogEntry]


class BulkSystem(msgspec.Struct):
    """Arguments of `bulk_log_system`."""

    logs: list[SystemEntry]


class BulkAlert(msgspec.Struct):
    """Arguments of `bulk_alert`."""

    alerts: list[AlertEntry]


class SingleLog(msgspec.Struct):
    """Arguments of `log`, which older clients send."""

    project: str
    run: str
    metrics: dict[str, Any]
    step: int | float | None = None
    hf_token: str | None = None
    run_id: str | None = None


class BulkUpload(msgspec.Struct):
    """Arguments of `bulk_upload_media`."""

    uploads: list[UploadEntry]


class CheckBlobs(msgspec.Struct):
    """Arguments of `check_artifact_blobs`."""

    project: str
    digests: list[str]


class BulkBlob(msgspec.Struct):
    """Arguments of `bulk_upload_artifact_blob`."""

    project: str
    uploads: list[BlobEntry]


class ArtifactLog(msgspec.Struct):
    """Arguments of `artifact_log`."""

    project: str
    name: str
    type: str
    description: str | None = None
    metadata: dict[str, Any] | None = None
    manifest: list[dict[str, Any]] = []
    aliases: list[str] | None = None
    run_name: str | None = None
    run_id: str | None = None
    hf_token: str | None = None
    overwrite: bool = False


class ArtifactUse(msgspec.Struct):
    """Arguments of `log_artifact_use`."""

    project: str
    version_id: int
    run_name: str | None = None
    run_id: str | None = None


class DeleteRun(msgspec.Struct):
    """Arguments of `delete_run`."""

    project: str
    run: str | None = None
    run_id: str | None = None


class RenameRun(msgspec.Struct):
    """Arguments of `rename_run`."""

    project: str
    old_name: str
    new_name: str
    run_id: str | None = None


class Nothing(msgspec.Struct):
    """No arguments."""


def bulk_log(hub: Hub, call: BulkLog) -> None:
    """Keep logs, each `log_id` once."""
    for intake, entries in _by_project(hub, call.logs):
        intake.take_logs(entries)


def bulk_log_system(hub: Hub, call: BulkSystem) -> None:
    """Keep system metrics, each `log_id` once."""
    for intake, entries in _by_project(hub, call.logs):
        intake.take_system(entries)


def bulk_alert(hub: Hub, call: BulkAlert) -> None:
    """Keep alerts, each `alert_id` once."""
    for intake, entries in _by_project(hub, call.alerts):
        intake.take_alerts(entries)


def log(hub: Hub, call: SingleLog) -> None:
    """Keep one log of a client that sends no ids: it is kept again when it is sent again."""
    bulk_log(hub, BulkLog([entry_of(call)]))


def entry_of(call: SingleLog) -> LogEntry:
    """Return the one log of a client that sends no ids."""
    return LogEntry(call.project, call.run, call.metrics, call.run_id, call.step)


def _by_project(hub: Hub, entries: list[_E]) -> list[tuple[Intake, list[_E]]]:
    """Group a batch; every entry and every project is checked before anything is kept."""
    groups: dict[str, list[_E]] = {}
    for entry in entries:
        check_entry(entry)
        groups.setdefault(entry.project, []).append(entry)
    return [(hub.intake(project), group) for project, group in groups.items()]


def bulk_upload_media(hub: Hub, call: BulkUpload) -> None:
    """Keep uploaded files as blobs, and say what values call them."""
    try:
        for entry in call.uploads:
            media_path(entry)
            _run_id(entry)
        kept: list[tuple[Intake, UploadEntry, BlobRef]] = []
        for entry in call.uploads:
            intake = hub.intake(entry.project)
            with hub.incoming.open(entry.uploaded_file.path) as file:
                kept.append((intake, entry, intake.put_blob(file)))
        for intake, entry, ref in kept:
            _note_upload(intake, entry, ref)
    finally:
        for entry in call.uploads:
            hub.incoming.discard(entry.uploaded_file.path)


def _run_id(entry: UploadEntry) -> str:
    return checked_name(entry.run_id or entry.run, "a run's id") if entry.run else ""


def _note_upload(intake: Intake, entry: UploadEntry, ref: BlobRef) -> None:
    path, run_id, step = media_path(entry), _run_id(entry), whole(entry.step)
    intake.append(
        lambda now: schema.Upload(now, run_id, path, ref.digest, ref.size_bytes, step), run_id, entry.run or ""
    )


def media_path(entry: UploadEntry) -> str:
    """Return what values call an uploaded file: under its run and step, or among the files of its project.

    Raises:
        RequestError: a name leads upwards or is no valid name.
    """
    name = base_name(checked_name(entry.uploaded_file.orig_name or "file", "a file's name"), "file")
    if entry.run:
        run = checked_name(entry.run, "a run's name")
        number = whole(entry.step)
        step = "" if number is None else f"/{number}"
        return f"{entry.project}/{run}{step}/{name}"
    # The client says the file's directory; after the end of its run it says the whole path.
    place = relative_path(entry.relative_path, name)
    place = place if place.rsplit("/", 1)[-1] == name else f"{place}/{name}"
    return f"{entry.project}/files/{checked_name(place, 'the path of a file')}"


def check_artifact_blobs(hub: Hub, call: CheckBlobs) -> dict[str, list[str]]:
    """Say which blobs are there already."""
    checked_name(call.project, "a project's name")
    return {"present": [digest for digest in call.digests if _has_blob(hub, digest)]}


def _has_blob(hub: Hub, digest: str) -> bool:
    if not names.is_digest(digest):
        raise RequestError("a digest is 64 lower-case hex digits")
    with contextlib.suppress(FileNotFoundError):
        hub.fs.size(hub.blobs.path(digest))
        return True
    return False


def bulk_upload_artifact_blob(hub: Hub, call: BulkBlob) -> None:
    """Keep the files of an artifact; one whose bytes do not match its digest is refused."""
    intake = hub.intake(call.project)
    try:
        for entry in call.uploads:
            if not names.is_digest(entry.digest):
                raise RequestError("a digest is 64 lower-case hex digits")
            with hub.incoming.open(entry.uploaded_file.path) as file:
                ref = intake.put_blob(file)
            if ref.digest != entry.digest:
                raise RequestError(f"an uploaded file has the digest {ref.digest}, not {entry.digest}")
    finally:
        for entry in call.uploads:
            hub.incoming.discard(entry.uploaded_file.path)


def artifact_log(hub: Hub, call: ArtifactLog) -> dict[str, Any]:
    """Make a version of an artifact; equal contents are the version that there is."""
    intake = hub.intake(call.project)
    aliases = _checked_artifact(hub, call)
    run_id = call.run_id or call.run_name or ""
    if run_id:
        checked_name(run_id, "a run's id")
        checked_name(call.run_name or run_id, "a run's name")
    entries = {str(entry["path"]): {k: v for k, v in entry.items() if k != "path"} for entry in call.manifest}
    files = _plain(hub, entries)
    metadata, description = _plain(hub, call.metadata or {}), values.printable(call.description or "")
    project = hub.state(call.project)
    with intake.artifacts_lock:
        known = artifacts_of(project).of_name(call.name)
        digest = manifest_digest(call.manifest)
        same = next((version for version in known if version.digest == digest and not call.overwrite), None)
        number = same.version if same else (known[0].version + 1 if known else 0)
        facts = (digest, aliases, metadata, files, description, call.overwrite)
        intake.append(
            lambda now: schema.ArtifactVersion(now, run_id, call.name, call.type, f"v{number}", *facts),
            run_id,
            call.run_name or run_id,
        )
    made = artifacts_of(project).resolve(call.name, f"v{number}")
    if made is None:
        raise RequestError(f"artifact {call.name!r} was made by a run that is deleted")
    return shown_version(project, made)


def _plain(hub: Hub, given: dict[str, Any]) -> dict[str, Any]:
    kept, _, problems = values.plain_mapping(given, hub.blobs)
    if problems:
        raise RequestError(f"values that cannot be kept: {problems}")
    return kept


def _checked_artifact(hub: Hub, call: ArtifactLog) -> list[str]:
    checked_name(call.name, "an artifact's name")
    checked_name(call.type, "an artifact's type")
    if not call.manifest:
        raise RequestError("an artifact's manifest must name at least one file")
    paths: set[str] = set()
    for entry in call.manifest:
        path, size, digest = entry.get("path"), entry.get("size"), entry.get("digest")
        if not isinstance(path, str) or relative_path(path, "") != path or path in paths:
            raise RequestError(f"a file of the manifest has the path {path!r}")
        paths.add(path)
        if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size < 1 << 63:
            raise RequestError(f"{path!r} has the size {size!r}")
        if not isinstance(digest, str) or not digest:
            raise RequestError(f"{path!r} has the digest {digest!r}")
        if entry.get("ref") is None and not _has_blob(hub, digest):
            raise RequestError(f"blobs not on server: [{digest!r}]")
    aliases = [checked_name(alias, "an alias") for alias in call.aliases or ()]
    for alias in aliases:
        if VERSION_SPEC.fullmatch(alias):
            raise RequestError(f"alias {alias!r} would mean a version")
    return aliases


def log_artifact_use(hub: Hub, call: ArtifactUse) -> None:
    """Note that a run read a version."""
    intake = hub.intake(call.project)
    project = hub.state(call.project)
    versions = artifacts_of(project).versions
    version = versions.get(call.version_id)
    if version is None:
        raise RequestError(f"there is no artifact version {call.version_id}")
    run_id = checked_name(call.run_id or call.run_name or "", "a run's id")
    intake.append(lambda now: schema.ArtifactUse(now, run_id, version.name, f"v{version.version}"))


def delete_run(hub: Hub, call: DeleteRun) -> bool:
    """Hide a run from every reader; its records stay, and `eventlog admin undelete` brings it back."""
    return _change(hub, call.project, call.run, call.run_id, "delete", {})


def rename_run(hub: Hub, call: RenameRun) -> bool:
    """Give a run another name."""
    name = checked_name(call.new_name.strip(), "a run's name")
    if not _change(hub, call.project, call.old_name, call.run_id, "rename", {"name": name}):
        raise RequestError(f"there is no run {call.old_name!r}")
    return True


def _change(hub: Hub, project: str, run: str | None, run_id: str | None, action: str, values: dict[str, Any]) -> bool:
    state = hub.find(project)
    if state is None:
        return False
    # Who names a run by its id means that run and no other of its name.
    part = state.find(run_id) if run_id else state.resolve(run, None)
    if part is None or part.is_deleted:
        return False
    hub.intake(project).append(lambda now: schema.Admin(now, part.run_id, action, values))
    return True


def force_sync(hub: Hub, call: Nothing) -> bool:
    """Every answer was durable already."""
    del hub, call
    return True
