"""Build and parse every file name of a store; the only module that knows what they look like."""

from __future__ import annotations

import os
import re
import time
from typing import Final

from eventlog.errors import UsageError

SEGMENTS: Final = "segments"
BLOBS: Final = "blobs"
SNAPSHOTS: Final = "snapshots"
QUARANTINE: Final = "quarantine"
INDEX: Final = "index"
INCOMING: Final = "incoming"
RESTORING: Final = "restoring"
HUB: Final = "hub"
IMPORTS: Final = "imports"
HELD: Final = "held"
TABLES: Final = ("metrics", "system", "events", "runs")

_SAFE: Final = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")
_MAX_NAME_BYTES: Final = 200
_WINDOWS_DEVICES: Final = re.compile(r"(?i)(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?$")
_ALPHABET: Final = "0123456789abcdefghjkmnpqrstvwxyz"
_WRITER_ID: Final = re.compile(rf"[{_ALPHABET}]{{26}}")
_SEGMENT: Final = re.compile(r"([0-9]{8})\.(open|seg)")
_HELD_CALL: Final = re.compile(r"([0-9]{12})-[0-9a-f]{16}\.call")
_MANIFEST: Final = re.compile(r"([0-9]{12})\.json")
_DATA_FILE: Final = re.compile(r"[0-9]{12}-[0-9a-f]{16}\.parquet")
_DIGEST: Final = re.compile(r"[0-9a-f]{64}")
_QUARANTINE: Final = re.compile(rf"[{_ALPHABET}]{{26}}-[0-9]{{8}}-[0-9]+-[0-9]+\.(bin|json)")
_TEMPORARY: Final = ".tmp-"
_ASK: Final = "ask-"


def encode_name(name: str) -> str:
    """Return the directory name of a project: reversible, inert on every file system.

    ASCII letters, digits, `.`, `_` and `-` stand for themselves; every other UTF-8 byte becomes
    `%XX`. A leading dot, a trailing dot and the first letter of a Windows device name are encoded too.

    Raises:
        UsageError: the name is empty, is not text that UTF-8 can hold, or needs more than 200 bytes.
    """
    if not isinstance(name, str) or not name:
        raise UsageError("a project needs a name: a string that is not empty")
    try:
        raw = name.encode("utf-8")
    except UnicodeEncodeError as error:
        raise UsageError(f"a project name must be valid Unicode: {error}") from None
    device = _WINDOWS_DEVICES.match(name) is not None
    last = len(raw) - 1
    parts: list[str] = []
    for index, byte in enumerate(raw):
        edge_dot = byte == ord(".") and index in (0, last)
        if byte in _SAFE and not edge_dot and not (device and index == 0):
            parts.append(chr(byte))
        else:
            parts.append(f"%{byte:02X}")
    encoded = "".join(parts)
    if len(encoded) > _MAX_NAME_BYTES:
        raise UsageError(f"the project name is too long: {len(encoded)} bytes encoded, at most {_MAX_NAME_BYTES}")
    return encoded


def decode_name(encoded: str) -> str | None:
    """Return the project that `encode_name` wrote as `encoded`, or None when it wrote no such name."""
    try:
        raw = re.sub(rb"%([0-9A-F]{2})", lambda m: bytes([int(m[1], 16)]), encoded.encode("ascii"))
        name = raw.decode("utf-8")
        return name if encode_name(name) == encoded else None
    except (UnicodeError, UsageError):
        return None


def new_id(time_ms: int | None = None) -> str:
    """Return a fresh 26-character id that sorts by its start time: 48 bits of milliseconds, 80 random bits."""
    now_ms = time.time_ns() // 1_000_000 if time_ms is None else time_ms
    number = ((now_ms & ((1 << 48) - 1)) << 80) | int.from_bytes(os.urandom(10), "big")
    return "".join(_ALPHABET[(number >> shift) & 31] for shift in range(125, -1, -5))


def is_writer_id(text: str) -> bool:
    """Say whether `text` has the form of a writer_id."""
    return _WRITER_ID.fullmatch(text) is not None


def segment_name(segno: int, *, sealed: bool) -> str:
    """Return the file name of a segment: `00000001.open` or `00000001.seg`."""
    return f"{segno:08d}.{'seg' if sealed else 'open'}"


def parse_segment_name(name: str) -> tuple[int, bool] | None:
    """Return (segno, sealed) of a segment's file name, or None when it is no such name."""
    match = _SEGMENT.fullmatch(name)
    return None if match is None else (int(match[1]), match[2] == "seg")


def manifest_name(version: int) -> str:
    """Return the file name of a manifest: twelve digits and `.json`."""
    return f"{version:012d}.json"


def parse_manifest_name(name: str) -> int | None:
    """Return the version in a manifest's file name, or None when it is no such name."""
    match = _MANIFEST.fullmatch(name)
    return None if match is None else int(match[1])


def data_file_name(version: int) -> str:
    """Return a fresh name for a parquet file staged for manifest `version`; never used twice."""
    return f"{version:012d}-{os.urandom(8).hex()}.parquet"


def is_data_file_name(name: str) -> bool:
    """Say whether `name` is of the form that `data_file_name` gives."""
    return _DATA_FILE.fullmatch(name) is not None


def is_digest(text: str) -> bool:
    """Say whether `text` is a SHA-256 digest in lower-case hex."""
    return _DIGEST.fullmatch(text) is not None


def temporary_name(final: str) -> str:
    """Return a fresh name beside `final` that no reader takes for a finished file."""
    return f"{_TEMPORARY}{os.urandom(8).hex()}-{final}"


def is_temporary(name: str) -> bool:
    """Say whether `name` is of the form that `temporary_name` gives."""
    return name.startswith(_TEMPORARY)


def segments_dir(root: str) -> str:
    """Return the directory that holds one directory of segments a project."""
    return os.path.join(root, SEGMENTS)


def project_segments_dir(root: str, project: str) -> str:
    """Return the directory that holds a project's writers."""
    return os.path.join(root, SEGMENTS, encode_name(project))


def writer_dir(root: str, project: str, writer_id: str) -> str:
    """Return the directory that holds one writer's segments."""
    return os.path.join(root, SEGMENTS, encode_name(project), writer_id)


def blob_path(root: str, digest: str) -> str:
    """Return the path of the blob whose content has this SHA-256 digest.

    Raises:
        UsageError: `digest` is not 64 lower-case hex digits.
    """
    if not is_digest(digest):
        raise UsageError(f"not a SHA-256 digest in lower-case hex: {digest!r}")
    return os.path.join(root, BLOBS, "sha256", digest[:2], digest)


def blobs_dir(root: str) -> str:
    """Return the directory that holds the directories of blobs, and blobs that are being written."""
    return os.path.join(root, BLOBS, "sha256")


def snapshots_dir(root: str) -> str:
    """Return the directory that holds one snapshot directory a project."""
    return os.path.join(root, SNAPSHOTS)


def snapshot_dir(root: str, project: str) -> str:
    """Return a project's snapshot directory; paths in a manifest are relative to it."""
    return os.path.join(root, SNAPSHOTS, encode_name(project))


def manifests_dir(root: str, project: str) -> str:
    """Return the directory that holds a project's manifests."""
    return os.path.join(snapshot_dir(root, project), "manifests")


def manifest_path(root: str, project: str, version: int) -> str:
    """Return the path of one manifest."""
    return os.path.join(manifests_dir(root, project), manifest_name(version))


def data_file_path(table: str, name: str) -> str:
    """Return a data file's path as a manifest holds it: relative to the snapshot directory, with `/`."""
    return f"data/{table}/{name}"


def parse_data_file_path(path: str) -> tuple[str, str] | None:
    """Return (table, name) of a path in a manifest, or None when it could lead anywhere else."""
    parts = path.split("/")
    if len(parts) != 3 or parts[0] != "data" or parts[1] not in TABLES or not is_data_file_name(parts[2]):
        return None
    return parts[1], parts[2]


def index_dir(root: str, project: str) -> str:
    """Return the directory of a server's index of received ids: derived, private to it, and safe to delete."""
    return os.path.join(root, INDEX, encode_name(project))


def incoming_dir(root: str) -> str:
    """Return the directory that holds files that clients are uploading."""
    return os.path.join(root, INCOMING)


def held_dir(root: str) -> str:
    """Return the directory of calls that a server has answered and that wait until the store is restored."""
    return os.path.join(root, HELD)


def held_name(number: int) -> str:
    """Return a fresh name for a call that waits; such names sort by their numbers, and none is used twice."""
    return f"{number:012d}-{os.urandom(8).hex()}.call"


def is_held(name: str) -> bool:
    """Say whether `name` is of the form that `held_name` gives."""
    return _HELD_CALL.fullmatch(name) is not None


def held_number(name: str) -> int:
    """Return the number of a call that waits, 0 for any other name."""
    match = _HELD_CALL.fullmatch(name)
    return 0 if match is None else int(match[1])


def restoring_dir(root: str, project: str) -> str:
    """Return the directory that holds what is being downloaded of a project: safe to delete while nobody restores."""
    return os.path.join(root, RESTORING, encode_name(project))


def hub_dir(root: str) -> str:
    """Return the directory of what is known here of buckets: private to this store, and safe to delete at rest."""
    return os.path.join(root, HUB)


def restoring_mark(root: str) -> str:
    """Return the path of an empty file that is there until a store that is being served is restored."""
    return os.path.join(root, HUB, RESTORING)


def bucket_state_path(root: str, bucket: str) -> str:
    """Return the path of what a publisher remembers of a bucket: private to it, and safe to delete.

    Args:
        root: the store.
        bucket: the whole address.
    """
    return os.path.join(root, HUB, f"{_label(bucket)}.json")


def _label(bucket: str) -> str:
    import hashlib

    return hashlib.sha256(bucket.encode()).hexdigest()[:16]


def shipper_dir(root: str, bucket: str) -> str:
    """Return the directory in which jobs and the shipper of a bucket meet; safe to delete while no job runs.

    Args:
        root: the store.
        bucket: the whole address.
    """
    return os.path.join(root, HUB, f"{_label(bucket)}.shipper")


def ask_name() -> str:
    """Return a fresh name for the file by which a job asks its shipper for a shipment."""
    return f"{_ASK}{new_id()}"


def is_ask(name: str) -> bool:
    """Say whether `name` is of the form that `ask_name` gives."""
    return name.startswith(_ASK) and is_writer_id(name.removeprefix(_ASK))


def imports_dir(root: str) -> str:
    """Return the directory that holds what imports have not finished; safe to delete while none runs."""
    return os.path.join(root, IMPORTS)


def quarantine_dir(root: str, project: str) -> str:
    """Return the directory that keeps a project's damaged bytes and the reasons."""
    return os.path.join(root, QUARANTINE, encode_name(project))


def quarantine_name(writer_id: str, segno: int, offset: int, end: int) -> str:
    """Return the name of a quarantined byte range, the same whenever it is found again."""
    return f"{writer_id}-{segno:08d}-{offset}-{end}"


def is_quarantine_file(name: str) -> bool:
    """Say whether a file has the name of a quarantined byte range or of its reason."""
    return _QUARANTINE.fullmatch(name) is not None
