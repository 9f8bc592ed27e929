"""Manifests: the one small file a version that names a snapshot's files, watermarks, gaps and checksums."""

from __future__ import annotations

import os
import zlib
from typing import Final, NamedTuple

import msgspec

from eventlog import fs as seam
from eventlog import names
from eventlog.errors import DataError, NewerFormatError
from eventlog.fs import Fs

FORMAT: Final = 1


class End(NamedTuple):
    """The last record that was taken from a segment: where its frame begins, and the frame's `crc`."""

    offset: int
    crc: int


class Watermark(msgspec.Struct, frozen=True, kw_only=True):
    """How far one writer is folded: everything up to `seq` is in the snapshot or known to be missing.

    Attributes:
        seq: of the last record that was folded, 0 for none.
        segno: the segment that holds what comes next, 0 for the writer's first.
        offset: where in that segment to go on, 0 for its start.
        shape_offset: where the last shape before `offset` was announced in that segment, 0 for nowhere.
        records: how many records were folded.
        dropped: how many the writer said it could not keep.
        duplicates: how many were met a second time and left out.
        done: the writer sealed its last segment and will not write again.
        ended_bytes: the size that the open segment `segno` had when it was found that its writer is gone, and that
            nothing after `offset` can be read; unset while it may go on. When the file has another size, it went on.
        ends: by segno, the end of each of the newest segments that was read and is still there, so that a file over
            which another one was copied is noticed; unset when there is none.
    """

    seq: int = 0
    segno: int = 0
    offset: int = 0
    shape_offset: int = 0
    records: int = 0
    dropped: int = 0
    duplicates: int = 0
    done: bool = False
    ended_bytes: int | msgspec.UnsetType = msgspec.UNSET
    ends: dict[int, End] | msgspec.UnsetType = msgspec.UNSET

    def is_settled(self, size_bytes: int) -> bool:
        """Say whether nothing in the segment `segno` waits to be read when its file has this size."""
        return size_bytes in (self.ended_bytes, min(size_bytes, self.offset))


class Gap(msgspec.Struct, frozen=True, kw_only=True):
    """Records of a writer that are known to be missing, both ends included, and why."""

    writer_id: str
    first_seq: int
    last_seq: int
    reason: str


class Quarantined(msgspec.Struct, frozen=True, kw_only=True):
    """Damaged bytes that were set aside.

    Attributes:
        name: of the copy, in the project's quarantine directory.
        source: the segment, relative to the store.
        offset: of the first damaged byte in it.
        size_bytes: how many bytes.
        reason: what is wrong with them.
    """

    name: str
    source: str
    offset: int
    size_bytes: int
    reason: str


class DataFile(msgspec.Struct, frozen=True, kw_only=True):
    """One immutable parquet file of a snapshot.

    Attributes:
        path: relative to the project's snapshot directory.
        table: metrics, system, events or runs.
        rows: how many.
        size_bytes: of the file.
        sha256: of the file's bytes.
        checksum: the order-free checksum of its rows, 16 hex digits; "" for runs, which is derived.
        level: how many compactions its rows went through.
        min_run, max_run: the first and the last run_id in it.
        names: index of its set of metric names in the manifest's `name_sets`, -1 for none.
    """

    path: str
    table: str
    rows: int
    size_bytes: int
    sha256: str
    checksum: str
    level: int
    min_run: str
    max_run: str
    names: int = -1


class Publisher(msgspec.Struct, frozen=True, kw_only=True):
    """Who may publish a project to a bucket.

    Attributes:
        owner: an id that a store gave itself for this bucket.
        epoch: counts up from 1 each time that another store takes the bucket over.
    """

    owner: str
    epoch: int


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """A snapshot of one project, self-contained.

    Attributes:
        format: version of this form.
        project: the project's name.
        version: of the snapshot; counts up from 1. Version 0, never written, is the empty snapshot.
        parent: the version that it was made from.
        created_ns: nanoseconds since 1970 UTC, by the committer's clock.
        committer: host, pid and software, for people.
        action: fold, compact, rebuild, claim or restore.
        files: in the order in which they were made.
        name_sets: sets of metric names, each sorted, as files refer to them.
        writers: watermarks by writer_id.
        gaps: missing records.
        quarantined: damaged bytes.
        publisher: who publishes it to a bucket; unset while nobody does.
    """

    format: int = FORMAT
    project: str
    version: int
    parent: int
    created_ns: int
    committer: str
    action: str
    files: list[DataFile] = []
    name_sets: list[list[str]] = []
    writers: dict[str, Watermark] = {}
    gaps: list[Gap] = []
    quarantined: list[Quarantined] = []
    publisher: Publisher | msgspec.UnsetType = msgspec.UNSET

    def of_table(self, table: str) -> list[DataFile]:
        """Return the files of one table."""
        return [file for file in self.files if file.table == table]


class _Envelope(msgspec.Struct):
    crc32: str
    manifest: msgspec.Raw


class _Format(msgspec.Struct):
    format: int


_envelope_decoder: Final = msgspec.json.Decoder(_Envelope)
_format_decoder: Final = msgspec.json.Decoder(_Format)
_decoder: Final = msgspec.json.Decoder(Manifest)


def empty(project: str) -> Manifest:
    """Return the snapshot before the first fold."""
    return Manifest(project=project, version=0, parent=0, created_ns=0, committer="", action="none")


def to_bytes(manifest: Manifest) -> bytes:
    """Return a manifest's file: JSON that carries a CRC-32 of its own body."""
    body = msgspec.json.encode(manifest)
    return b'{"crc32":"%08x","manifest":%s}\n' % (zlib.crc32(body), body)


def from_bytes(data: bytes, path: str) -> Manifest:
    """Return the manifest in a file's bytes.

    Raises:
        NewerFormatError: intact, but of a newer format.
        DataError: damaged.
    """
    try:
        envelope = _envelope_decoder.decode(data)
        body = bytes(envelope.manifest)
        if f"{zlib.crc32(body):08x}" != envelope.crc32:
            raise DataError(path, None, "the manifest does not match its checksum")
        found = _format_decoder.decode(body).format
        if found != FORMAT:
            message = f"manifest format {found} is not supported, only {FORMAT}: upgrade eventlog"
            raise NewerFormatError(path, None, message)
        manifest = _decoder.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise DataError(path, None, f"not a manifest: {error}") from None
    for file in manifest.files:
        if names.parse_data_file_path(file.path) is None:
            raise DataError(path, None, f"names a file outside its snapshot: {file.path!r}")
    return manifest


def versions(fs: Fs, root: str, project: str) -> list[int]:
    """Return the versions that have a manifest, ascending."""
    found = (names.parse_manifest_name(name) for name in fs.names(names.manifests_dir(root, project)))
    return sorted(version for version in found if version is not None)


def newest_version(fs: Fs, root: str, project: str) -> int:
    """Return the newest version that has a manifest, which may be damaged; 0 when there is none."""
    return (versions(fs, root, project) or [0])[-1]


def load(fs: Fs, root: str, project: str, version: int) -> Manifest:
    """Return one manifest.

    Raises:
        FileNotFoundError: there is none of this version.
        DataError: it is damaged, or of a newer format.
    """
    if version == 0:
        return empty(project)
    path = names.manifest_path(root, project, version)
    manifest = from_bytes(fs.read(path), path)
    if manifest.version != version or manifest.project != project:
        raise DataError(path, None, f"says it is version {manifest.version} of {manifest.project!r}")
    return manifest


def newest_intact(fs: Fs, root: str, project: str) -> tuple[Manifest | None, list[DataError]]:
    """Return the newest intact manifest, or None, and what is wrong with newer ones.

    Raises:
        NewerFormatError: the newest is of a newer format.
    """
    problems: list[DataError] = []
    for version in reversed(versions(fs, root, project)):
        try:
            return load(fs, root, project, version), problems
        except NewerFormatError:
            raise
        except DataError as error:
            problems.append(error)
        except FileNotFoundError:
            continue
    return None, problems


def load_newest(fs: Fs, root: str, project: str) -> tuple[Manifest, list[DataError]]:
    """Return the newest intact manifest, or the empty one when there is none, and what is wrong with newer ones.

    A damaged manifest costs nothing while segments are kept: the older snapshot has a longer tail.

    Raises:
        NewerFormatError: the newest is of a newer format.
        DataError: there are manifests, and none is intact: an empty snapshot would hide all that they told of.
    """
    found, problems = newest_intact(fs, root, project)
    if found is None and problems:
        raise problems[0]
    return found or empty(project), problems


def publish(fs: Fs, root: str, manifest: Manifest) -> bool:
    """Publish a manifest; durable when this returns True, False when its version was taken: reload and retry.

    Raises:
        OSError: as the file system raises it.
    """
    return publish_bytes(fs, root, manifest, to_bytes(manifest))


def publish_bytes(fs: Fs, root: str, manifest: Manifest, data: bytes) -> bool:
    """Publish a manifest of which there is a file elsewhere, byte for byte; as `publish`.

    Raises:
        OSError: as the file system raises it.
    """
    directory = names.manifests_dir(root, manifest.project)
    return seam.put_if_absent(fs, directory, names.manifest_name(manifest.version), data)


def committer() -> str:
    """Return who commits, for people."""
    return f"{os.uname().nodename}:{os.getpid()}"
