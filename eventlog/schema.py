"""The records: one msgspec struct a kind, and the one function that turns a payload back into a record.

Pure. FORMAT.md lists every kind with its number and fields; a test compares the two. Fields are encoded
as a msgpack array in the order below, after the kind's number; new fields are only ever added at the end.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Final, Union

import msgspec
from msgspec import Meta

from eventlog import nesting

Plain = Any
"""What msgpack holds: None, bool, int, float, str, bytes, list, dict with string keys."""
Int64 = Annotated[int, Meta(ge=-(1 << 63), le=(1 << 63) - 1)]
"""What fits a column of whole numbers."""
Count = Annotated[int, Meta(ge=0, le=1 << 40)]
"""So many that the sum of all that one store can hold still fits 64 bits."""


class Record(msgspec.Struct, array_like=True, frozen=True, tag_field="kind"):
    """Base of every record. Immutable."""


class Log(Record, frozen=True, tag=1, gc=False):
    """One `log()` call: numbers by shape, everything else by name."""

    time_ns: int
    step: int | None
    shape: int
    values: bytes
    others: dict[str, Plain] | None = None


class System(Record, frozen=True, tag=2, gc=False):
    """One sample of system metrics: numbers by shape."""

    time_ns: int
    shape: int
    values: bytes


class Shape(Record, frozen=True, tag=3):
    """Structural: says which run, rank and metric names a shape number stands for in this segment."""

    shape: int
    run_id: str
    rank: int | None
    names: list[str]
    previous_offset: int


class SegmentStart(Record, frozen=True, tag=4):
    """Structural: the first frame of a segment; repeats the header, so that one damaged copy costs nothing."""

    writer_id: str
    segno: int
    first_seq: int
    created_ns: int
    project: str
    host: str
    pid: int
    boot_id: str
    software: str


class Seal(Record, frozen=True, tag=5):
    """Structural: the last frame of a sealed segment."""

    records: Count
    next_seq: Int64
    final: bool


class RunStart(Record, frozen=True, tag=6):
    """A process began to log to a run."""

    time_ns: int
    run_id: str
    project: str
    name: str
    group: str | None = None
    tags: list[str] = []
    config: dict[str, Plain] = {}
    host: str = ""
    user: str = ""
    pid: int = 0
    rank: int | None = None
    world_size: Int64 | None = None
    argv: list[str] = []
    git: dict[str, str] = {}
    versions: dict[str, str] = {}
    mode: str = "new"
    parent: str | None = None


class ConfigPatch(Record, frozen=True, tag=7):
    """Keys of a run's config that were set."""

    time_ns: int
    run_id: str
    values: dict[str, Plain]


class SummarySet(Record, frozen=True, tag=8):
    """Keys of a run's summary that were set."""

    time_ns: int
    run_id: str
    values: dict[str, Plain]


class MetricDef(Record, frozen=True, tag=9):
    """How a metric wants to be shown."""

    time_ns: int
    run_id: str
    name: str
    step_metric: str | None = None
    goal: str | None = None
    summary: str | None = None


class Alert(Record, frozen=True, tag=10):
    """A message for people."""

    time_ns: int
    run_id: str
    title: str
    text: str = ""
    level: str = "warn"
    step: int | None = None
    alert_id: str = ""


class Console(Record, frozen=True, tag=11):
    """A piece of what the process printed."""

    time_ns: int
    run_id: str
    stream: str
    text: str


class Heartbeat(Record, frozen=True, tag=12):
    """The process is alive."""

    time_ns: int
    run_id: str


class ArtifactVersion(Record, frozen=True, tag=13):
    """A version of an artifact was made; `files` maps each path to its blob reference. `overwrite` ends all others."""

    time_ns: int
    run_id: str
    name: str
    type: str
    version: str
    digest: str = ""
    aliases: list[str] = []
    metadata: dict[str, Plain] = {}
    files: dict[str, Plain] = {}
    description: str = ""
    overwrite: bool = False


class ArtifactUse(Record, frozen=True, tag=14):
    """A run read a version of an artifact."""

    time_ns: int
    run_id: str
    name: str
    version: str


class Admin(Record, frozen=True, tag=15):
    """A tombstone or another change to runs: rename, move, tag, delete, undelete."""

    time_ns: int
    run_id: str
    action: str
    values: dict[str, Plain] = {}


class Dropped(Record, frozen=True, tag=16):
    """So many records could not be kept before this one."""

    time_ns: int
    run_id: str
    count: Count
    reason: str
    since_ns: int


class RunEnd(Record, frozen=True, tag=17):
    """A process stopped logging to a run."""

    time_ns: int
    run_id: str
    status: str
    exit_code: Int64


class Receipt(Record, frozen=True, tag=18):
    """The ids under which clients sent the records that follow, 12 bytes each: the first is that of the next seq."""

    time_ns: int
    run_id: str
    ids: bytes


class Upload(Record, frozen=True, tag=19):
    """A file arrived that values name by `path`; its bytes are a blob."""

    time_ns: int
    run_id: str
    path: str
    sha256: str
    size_bytes: int
    step: int | None = None


class Unknown(Record, frozen=True):
    """A record of a kind that this release does not know, carried along as it was."""

    label: str
    fields: Plain


KINDS: Final[tuple[type[Record], ...]] = (
    Log,
    System,
    Shape,
    SegmentStart,
    Seal,
    RunStart,
    ConfigPatch,
    SummarySet,
    MetricDef,
    Alert,
    Console,
    Heartbeat,
    ArtifactVersion,
    ArtifactUse,
    Admin,
    Dropped,
    RunEnd,
    Receipt,
    Upload,
)
STRUCTURAL: Final = (Shape, SegmentStart, Seal)

AnyRecord = (
    Log
    | System
    | Shape
    | SegmentStart
    | Seal
    | RunStart
    | ConfigPatch
    | SummarySet
    | MetricDef
    | Alert
    | Console
    | Heartbeat
    | ArtifactVersion
    | ArtifactUse
    | Admin
    | Dropped
    | RunEnd
    | Receipt
    | Upload
    | Unknown
)

_NAMES: Final[dict[type[Record], str]] = {
    kind: re.sub(r"(?<!^)(?=[A-Z])", "_", kind.__name__).lower() for kind in KINDS
}

encode: Final = msgspec.msgpack.Encoder().encode
_decode_any: Final = msgspec.msgpack.Decoder().decode
_decode_known: Final = msgspec.msgpack.Decoder(Union[KINDS]).decode  # noqa: UP007 - a tuple of types has no |


def kind_of(record: Record) -> str:
    """Return the name of a record's kind, as tables, messages and FORMAT.md write it."""
    if isinstance(record, Unknown):
        return record.label
    return _NAMES[type(record)]


def kind_name(kind: type[Record]) -> str:
    """Return the name of a kind that is written."""
    return _NAMES[kind]


def kind_number(kind: type[Record]) -> int:
    """Return the number that stands for a kind in a payload."""
    number = kind.__struct_config__.tag
    if not isinstance(number, int):
        raise TypeError(f"{kind.__name__} is never written and has no number")
    return number


def decode(payload: bytes | memoryview) -> AnyRecord:
    """Return the record that a payload holds; total, so nothing that a writer wrote is ever lost.

    A kind that this release does not know, fields that do not fit, nesting that is too deep to be written as JSON,
    and bytes that are no msgpack at all come back as `Unknown`, which tables carry along.
    """
    try:
        record: AnyRecord = _decode_known(payload)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return _decode_unknown(payload)
    if isinstance(record, Shape) and len(set(record.names)) < len(record.names):
        return _decode_unknown(payload)
    if nesting.may_be_deep(payload) and nesting.is_deep(msgspec.structs.astuple(record)):
        return Unknown("unknown:nested_too_deeply", bytes(payload))
    return record


def _decode_unknown(payload: bytes | memoryview) -> Unknown:
    try:
        value = _decode_any(payload)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return Unknown("unknown:undecodable", bytes(payload))
    if nesting.may_be_deep(payload) and nesting.is_deep(value):
        return Unknown("unknown:nested_too_deeply", bytes(payload))
    if isinstance(value, list) and value and isinstance(value[0], int | str):
        return Unknown(f"unknown:{value[0]}", value[1:])
    return Unknown("unknown:unkeyed", value)
