"""The model that a real store is compared with: lists of what was said, and the answers they call for."""

from __future__ import annotations

import hashlib
import json
import struct
from typing import Any, NamedTuple

from compactor.config import CompactorConfig
from eventlog import run, values
from eventlog.identity import RunInfo
from eventlog.testing.scripts import QUIET

PROJECT = "model"
TABLES = ("metrics", "system", "events")
EAGER = CompactorConfig(fanout=2, grace_s=0, segment_retention_s=0)
MAX_STEP = 2**63 - 1
INLINE_BYTES = QUIET.inline_bytes
PAYLOAD_FIELDS = {
    "run_start": ("project", "name", "tags", "config", "rank", "mode"),
    "config_patch": ("values",),
    "summary_set": ("values",),
    "metric_def": ("name", "step_metric", "goal", "summary"),
    "alert": ("title", "text", "level"),
    "console": ("stream", "text"),
    "heartbeat": (),
    "artifact_version": ("name", "type", "version", "aliases", "metadata", "files", "description", "overwrite"),
    "artifact_use": ("name", "version"),
    "admin": ("action", "values"),
    "dropped": ("count",),
    "run_end": ("status", "exit_code"),
    "receipt": ("ids",),
    "upload": ("path", "sha256", "size_bytes"),
}
STRUCTURAL = {"_run_id", "_writer", "_seq", "_rank", "_step", "_time"}

Marks = dict[str, int]


class Number(NamedTuple):
    """A row of `metrics` or `system`; floats are the hex of their bytes."""

    run_id: str
    writer_id: str
    seq: int
    rank: int | None
    step: int | None
    time_ns: int
    cells: tuple[tuple[str, str], ...]


class Event(NamedTuple):
    """A row of `events`; the payload is the repr of what was logged."""

    run_id: str
    writer_id: str
    seq: int
    kind: str
    name: str
    step: int | None
    time_ns: int
    payload: str


class Fact(NamedTuple):
    """Something that was said of a run: of all that say the same thing the latest holds."""

    moment: tuple[int, str, int]
    writer_id: str
    seq: int
    run_id: str
    about: tuple[str, ...]
    value: Any


def cells(numbers: dict[str, float]) -> tuple[tuple[str, str], ...]:
    return tuple(sorted((name, struct.pack("<d", number).hex()) for name, number in numbers.items()))


class Model:
    """What a store holds, as lists. `marks` limits an answer to what was said up to a seq of each writer."""

    def __init__(self):
        self.last_seq: Marks = {}
        self.rows: dict[str, list[Any]] = {table: [] for table in TABLES}
        self.facts: list[Fact] = []
        self.dropped = 0

    def next_seq(self, writer_id: str) -> int:
        self.last_seq[writer_id] = self.last_seq.get(writer_id, 0) + 1
        return self.last_seq[writer_id]

    def visible(self, said: list[Any], marks: Marks | None) -> list[Any]:
        return [s for s in said if marks is None or s.seq <= marks.get(s.writer_id, 0)]

    def table(self, table: str, marks: Marks | None = None, since: Marks | None = None) -> list[Any]:
        rows = self.visible(self.rows[table], marks)
        if since is not None:
            rows = [row for row in rows if row.seq > since.get(row.writer_id, 0)]
        hidden = {run_id for run_id in self.run_ids(marks) if self.latest(run_id, marks).get(("deleted",))}
        return sorted((row for row in rows if row.run_id not in hidden), key=lambda row: row[:3])

    def run_ids(self, marks: Marks | None = None) -> set[str]:
        return {row.run_id for table in TABLES for row in self.visible(self.rows[table], marks)} - {""}

    def latest(self, run_id: str, marks: Marks | None = None) -> dict[tuple[str, ...], Any]:
        mine = [fact for fact in self.visible(self.facts, marks) if fact.run_id == run_id]
        return {fact.about: fact.value for fact in sorted(mine, key=lambda fact: fact.moment)}

    def last_step(self, run_id: str, marks: Marks | None = None) -> int | None:
        facts = self.visible(self.facts, marks)
        return max((f.value for f in facts if f.run_id == run_id and f.about == ("step",)), default=None)

    def run(self, run_id: str, marks: Marks | None) -> dict[str, Any]:
        mine = {table: [r for r in self.visible(self.rows[table], marks) if r.run_id == run_id] for table in TABLES}
        times = [row.time_ns for table in TABLES for row in mine[table]]
        starts = [row for row in mine["events"] if row.kind == "run_start"]
        earliest = min(starts, key=lambda row: (row.time_ns, row.writer_id, row.seq), default=None)
        latest = self.latest(run_id, marks)
        return {
            "run_id": run_id,
            "name": latest.get(("name",), run_id),
            "tags": latest.get(("tags",), []),
            "status": latest.get(("status",), ("running", 0))[0],
            "exit_code": latest.get(("status",), ("running", 0))[1],
            "deleted": latest.get(("deleted",), False),
            "config": {about[1]: value for about, value in latest.items() if about[0] == "config"},
            "summary": {about[1]: value for about, value in latest.items() if about[0] == "summary"},
            "metric_defs": {about[1]: value for about, value in latest.items() if about[0] == "metric_defs"},
            "created": min(times) if earliest is None else earliest.time_ns,
            "first_time": min(times),
            "last_time": max(times),
            "last_step": self.last_step(run_id, marks),
            "logs": len(mine["metrics"]),
            "system": len(mine["system"]),
            "events": len(mine["events"]),
            "alerts": sum(row.kind == "alert" for row in mine["events"]),
            "dropped": 0,
            "points": points(mine["metrics"]),
        }

    def runs(self, marks: Marks | None = None) -> list[dict[str, Any]]:
        found = [self.run(run_id, marks) for run_id in self.run_ids(marks)]
        return sorted(found, key=lambda row: (row["created"], row["run_id"]))


def points(rows: list[Number]) -> dict[str, tuple[int, str, str]]:
    """Return the number of points, the first and the last one of each metric."""
    found: dict[str, tuple[int, str, str]] = {}
    for row in sorted(rows, key=lambda row: row[1:3]):
        for name, value in row.cells:
            count, first, _ = found.get(name, (0, value, value))
            found[name] = (count + 1, first, value)
    return found


class Live:
    """A run object whose process lives."""

    def __init__(self, opened: run.Run, info: RunInfo):
        self.run = opened
        self.info = info
        self.next_step = info.first_step
        self.dropped = 0


def rows_of(table: str, rows: Any) -> list[Any]:
    """Return the rows of an Arrow table in its order, as the model has them."""
    times = rows["_time"].cast("int64").to_pylist()
    found: list[Any] = []
    for row, time_ns in zip(rows.drop_columns(["_time"]).to_pylist(), times, strict=True):
        where = (row["_run_id"], row["_writer"], row["_seq"])
        if table == "events":
            payload = plain_payload(row["kind"], row["payload"])
            found.append(Event(*where, row["kind"], row["name"], row["_step"], time_ns, payload))
            continue
        numbers = {name: value for name, value in row.items() if name not in STRUCTURAL and value is not None}
        unescaped = {name.removeprefix("."): value for name, value in numbers.items()}
        found.append(Number(*where, row["_rank"], row.get("_step"), time_ns, cells(unescaped)))
    return found


def plain_payload(kind: str, text: str) -> str:
    payload = values.from_json(text)
    fields = PAYLOAD_FIELDS.get(kind)
    return repr(payload if fields is None else {field: payload[field] for field in fields})


def runs_of(rows: Any) -> list[dict[str, Any]]:
    """Return the rows of the table of runs in its order, as the model has them."""
    for column in ("created", "first_time", "last_time"):
        at = rows.schema.get_field_index(column)
        rows = rows.set_column(at, column, rows[column].cast("int64"))
    found = rows.to_pylist()
    for row in found:
        for column in ("config", "summary", "metric_defs"):
            row[column] = {key: repr(value) for key, value in values.from_json(row[column]).items()}
        hexed = {
            name: tuple(struct.pack("<d", s[end]).hex() for end in ("first", "last")) for name, s in row["metrics"]
        }
        row["points"] = {name: (stat["count"], *hexed[name]) for name, stat in row["metrics"]}
    return found


def same_runs(found: list[dict[str, Any]], expected: list[dict[str, Any]]) -> None:
    assert [{field: row[field] for field in want} for row, want in zip(found, expected, strict=True)] == expected


# The checksum once more, from FORMAT.md and in plain integers.

MASK = 2**64 - 1


def text_key(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def mix(number: int) -> int:
    number &= MASK
    number = (number ^ (number >> 30)) * 0xBF58476D1CE4E5B9 & MASK
    number = (number ^ (number >> 27)) * 0x94D049BB133111EB & MASK
    return number ^ (number >> 31)


def number_hash(table: str, row: Number) -> int:
    rank = "" if row.rank is None else row.rank
    total = mix(row.time_ns + text_key("_time"))
    if row.step is not None:
        total += mix(row.step + text_key("_step"))
    for name, value in row.cells:
        number = struct.unpack("<d", bytes.fromhex(value))[0]
        bits = 0x7FF8 << 48 if number != number else int.from_bytes(bytes.fromhex(value), "little")  # noqa: PLR0124
        total += mix(bits + text_key("m:" + name))
    return mix(total & MASK ^ mix(row.seq + text_key(f"{table}\0{row.run_id}\0{row.writer_id}\0{rank}")))


def numbers_like(value: Any) -> float | None:
    """Return the number that a value is charted as, if it is one."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value)
    except OverflowError:
        return None


def other_like(value: Any) -> tuple[str, str] | None:
    """Return (kind, payload) of a value that is not told by its number alone."""
    if isinstance(value, float) or (type(value) is int and abs(value) <= 2**53):
        return None
    if isinstance(value, str) and len(value) > INLINE_BYTES:
        digest = hashlib.sha256(json.dumps(value).encode()).hexdigest()
        return "json", repr({"_type": "json", "of": "str", "sha256": digest, "size_bytes": len(value) + 2})
    kinds = {bool: "bool", int: "int", str: "text", type(None): "null"}
    return kinds.get(type(value), "json"), repr(value)


def step_like(step: Any) -> int | None:
    """Return the step that a record is kept with when it was logged with `step`."""
    if isinstance(step, bool) or not isinstance(step, int | float) or step != step // 1:
        return None
    return int(step) if -(2**63) <= step <= MAX_STEP else None
