"""Parts of runs: what some records say about a run, and how two parts become one, in any order and grouping.

A part is a commutative monoid: values that were set several times carry the moment (time, writer, seq) of
their setting, and the latest wins; counts add; first and last follow (writer, seq). So a fold writes parts
of just the runs it met, and readers and compaction merge them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import msgspec

from eventlog import schema


class At(NamedTuple):
    """When something was said; later wins."""

    time_ns: int
    writer_id: str
    seq: int


class Stat(msgspec.Struct, array_like=True):
    """Statistics of one metric of one run. NaN counts in `count` and `nans` only.

    The order of `first` and `last` is that of (writer_id, seq).
    """

    count: int
    nans: int
    total: float
    min: float | None
    min_step: int | None
    max: float | None
    max_step: int | None
    first: float
    first_at: tuple[str, int]
    last: float
    last_at: tuple[str, int]

    def merge(self, other: Stat) -> None:
        """Take in the statistics of other rows of the same metric and run."""
        self.count += other.count
        self.nans += other.nans
        self.total += other.total
        if other.min is not None and (self.min is None or _lower(other, self)):
            self.min, self.min_step = other.min, other.min_step
        if other.max is not None and (self.max is None or _higher(other, self)):
            self.max, self.max_step = other.max, other.max_step
        if other.first_at < self.first_at:
            self.first, self.first_at = other.first, other.first_at
        if other.last_at > self.last_at:
            self.last, self.last_at = other.last, other.last_at


def _lower(a: Stat, b: Stat) -> bool:
    return (a.min, _order(a.min_step)) < (b.min, _order(b.min_step))


def _higher(a: Stat, b: Stat) -> bool:
    return a.max > b.max or (a.max == b.max and _order(a.max_step) < _order(b.max_step))  # type: ignore[operator]


def _order(step: int | None) -> int:
    return 1 << 64 if step is None else step


class RunPart(msgspec.Struct):
    """What some records say about one run.

    Attributes:
        starts: the earliest run_start among them, as a dict of its fields, with its moment.
        name, group, tags, config, summary, metric_defs, status, deleted: [moment, value], the latest wins;
            config, summary and metric_defs are so by key.
        records: rows by table and alerts.
        dropped: records that writers could not keep.
        first_time_ns, last_time_ns: of all rows.
        last_step: the highest step.
        stats: by metric.
    """

    run_id: str
    start: tuple[At, dict[str, Any]] | None = None
    name: tuple[At, str] | None = None
    group: tuple[At, str | None] | None = None
    tags: tuple[At, list[str]] | None = None
    status: tuple[At, str, int] | None = None
    deleted: tuple[At, bool] | None = None
    config: dict[str, tuple[At, Any]] = {}
    summary: dict[str, tuple[At, Any]] = {}
    metric_defs: dict[str, tuple[At, Any]] = {}
    records: dict[str, int] = {}
    dropped: int = 0
    first_time_ns: int | None = None
    last_time_ns: int | None = None
    last_step: int | None = None
    stats: dict[str, Stat] = {}

    def apply(self, record: schema.AnyRecord, at: At) -> None:
        """Take in one record that is neither log nor system."""
        if isinstance(record, schema.RunStart):
            self._apply_start(record, at)
        elif isinstance(record, schema.ConfigPatch):
            self._set_keys(self.config, record.values, at)
        elif isinstance(record, schema.SummarySet):
            self._set_keys(self.summary, record.values, at)
        elif isinstance(record, schema.MetricDef):
            definition = {"step_metric": record.step_metric, "goal": record.goal, "summary": record.summary}
            self._set_keys(self.metric_defs, {record.name: definition}, at)
        elif isinstance(record, schema.RunEnd):
            self.status = latest(self.status, (at, record.status, record.exit_code))
        elif isinstance(record, schema.Admin):
            self._apply_admin(record, at)
        elif isinstance(record, schema.Dropped):
            self.dropped += record.count

    def _apply_start(self, record: schema.RunStart, at: At) -> None:
        fields = msgspec.to_builtins(record)
        names = record.__struct_fields__
        facts = dict(zip(names, fields[1:], strict=True)) if isinstance(fields, list) else fields
        # The record's own time may be beyond 64 bits; what fits is the moment's.
        start = (at, {k: facts[k] for k in START_FACTS} | {"time_ns": at.time_ns})
        if self.start is None or at < self.start[0]:
            self.start = start
        if record.mode == "fork":
            return
        if record.mode == "new":
            self.name = latest(self.name, (at, record.name))
            self.group = latest(self.group, (at, record.group))
            self.tags = latest(self.tags, (at, record.tags))
        else:
            self.name = latest(self.name, (At(0, at.writer_id, at.seq), record.name))
            if record.group is not None:
                self.group = latest(self.group, (at, record.group))
            if record.tags:
                self.tags = latest(self.tags, (at, record.tags))
        self.status = latest(self.status, (at, "running", 0))
        self._set_keys(self.config, record.config, at)

    def _apply_admin(self, record: schema.Admin, at: At) -> None:
        if record.action == "rename" and isinstance(record.values.get("name"), str):
            self.name = latest(self.name, (at, record.values["name"]))
        elif record.action == "tag" and isinstance(record.values.get("tags"), list):
            self.tags = latest(self.tags, (at, [str(t) for t in record.values["tags"]]))
        elif record.action in ("delete", "undelete"):
            self.deleted = latest(self.deleted, (at, record.action == "delete"))

    @staticmethod
    def _set_keys(target: dict[str, tuple[At, Any]], values: dict[str, Any], at: At) -> None:
        for key, value in values.items():
            target[key] = latest(target.get(key), (at, value))

    def count_event(self, kind: str, time_ns: int) -> None:
        """Count a row of events."""
        self._count("events", 1)
        if kind == "alert":
            self._count("alerts", 1)
        if time_ns:
            self._cover(time_ns, time_ns)

    def count_rows(self, table: str, rows: int, first_time_ns: int, last_time_ns: int) -> None:
        """Count rows of metrics or system."""
        self._count(table, rows)
        self._cover(first_time_ns, last_time_ns)

    def _count(self, what: str, number: int) -> None:
        self.records[what] = self.records.get(what, 0) + number

    def _cover(self, first: int, last: int) -> None:
        self.first_time_ns = first if self.first_time_ns is None else min(first, self.first_time_ns)
        self.last_time_ns = last if self.last_time_ns is None else max(last, self.last_time_ns)

    def reach_step(self, step: int) -> None:
        """Note a step."""
        self.last_step = step if self.last_step is None else max(step, self.last_step)

    def add_stat(self, name: str, stat: Stat) -> None:
        """Take in the statistics of some rows of a metric."""
        known = self.stats.get(name)
        if known is None:
            self.stats[name] = stat
        else:
            known.merge(stat)

    def copy(self) -> RunPart:
        """Return a part that can change without changing this one."""
        return msgspec.structs.replace(
            self,
            config=dict(self.config),
            summary=dict(self.summary),
            metric_defs=dict(self.metric_defs),
            records=dict(self.records),
            stats={name: msgspec.structs.replace(stat) for name, stat in self.stats.items()},
        )

    def merge(self, other: RunPart) -> None:
        """Take in another part of the same run, which stays as it is."""
        if other.start is not None and (self.start is None or other.start[0] < self.start[0]):
            self.start = other.start
        self.name = latest(self.name, other.name)
        self.group = latest(self.group, other.group)
        self.tags = latest(self.tags, other.tags)
        self.status = latest(self.status, other.status)
        self.deleted = latest(self.deleted, other.deleted)
        for mine, theirs in (
            (self.config, other.config),
            (self.summary, other.summary),
            (self.metric_defs, other.metric_defs),
        ):
            for key, value in theirs.items():
                mine[key] = latest(mine.get(key), value)
        for what, number in other.records.items():
            self._count(what, number)
        self.dropped += other.dropped
        if other.first_time_ns is not None and other.last_time_ns is not None:
            self._cover(other.first_time_ns, other.last_time_ns)
        if other.last_step is not None:
            self.reach_step(other.last_step)
        for name, stat in other.stats.items():
            self.add_stat(name, msgspec.structs.replace(stat))

    @property
    def is_deleted(self) -> bool:
        """Whether the latest tombstone says delete."""
        return self.deleted is not None and self.deleted[1]


START_FACTS = ("time_ns", "host", "user", "pid", "world_size", "argv", "git", "versions")


def latest(mine: Any, theirs: Any) -> Any:
    """Return the one of two (moment, ...) tuples that was said later; either may be None."""
    if mine is None or theirs is None:
        return mine or theirs
    return theirs if theirs[0] > mine[0] else mine


class RunParts:
    """Parts by run."""

    def __init__(self, parts: Iterable[RunPart] = ()) -> None:
        """Start with some parts, which may be of the same runs."""
        self.parts: dict[str, RunPart] = {}
        for part in parts:
            self.add(part)

    def part(self, run_id: str) -> RunPart:
        """Return the part of a run, made when there is none."""
        part = self.parts.get(run_id)
        if part is None:
            part = self.parts[run_id] = RunPart(run_id)
        return part

    def add(self, part: RunPart) -> None:
        """Take in one part, which stays as it is."""
        known = self.parts.get(part.run_id)
        if known is None:
            self.parts[part.run_id] = part.copy()
        else:
            known.merge(part)

    def merge(self, other: RunParts) -> None:
        """Take in all parts of another collection, which stays as it is."""
        for part in other.parts.values():
            self.add(part)
