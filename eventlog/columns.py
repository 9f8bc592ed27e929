"""The one mapping from records to rows: blocks of numbers, rows of events, and parts of runs."""

from __future__ import annotations

from typing import Final, NamedTuple

import msgspec
import numpy as np

from eventlog import frame, schema, stats, values
from eventlog import stretch as fast
from eventlog.checksum import MASK, RowHashes, event_hash, identity
from eventlog.gather import Block, Gathering
from eventlog.runs import At, RunParts
from eventlog.segment import Stretch


class EventRow(NamedTuple):
    """One row of `events`; `payload` is JSON text as `values.to_json` writes it."""

    run_id: str
    kind: str
    name: str
    step: int | None
    time_ns: int
    writer_id: str
    seq: int
    payload: str


class Batch:
    """Rows gathered from records, ready to become tables. Not thread-safe.

    Attributes:
        metrics: blocks, in the order they were read.
        system: likewise.
        events: rows, in the order they were read.
        runs: what the records say about runs.
        records: how many records were added.
        dropped: how many records the writers say they could not keep.
    """

    def __init__(self) -> None:
        """Start empty."""
        self.metrics: list[Block] = []
        self.system: list[Block] = []
        self.events: list[EventRow] = []
        self.runs = RunParts()
        self.records = 0
        self.dropped = 0

    def add_block(self, table: str, block: Block) -> None:
        """Add rows of numbers."""
        (self.metrics if table == "metrics" else self.system).append(block)
        stats.summarise(self.runs, table, block)

    def add_event(self, row: EventRow) -> None:
        """Add one row of events."""
        self.events.append(row)
        self.runs.part(row.run_id).count_event(row.kind, row.time_ns)

    def checksums(self) -> dict[str, int]:
        """Return each table's order-free checksum."""
        return {
            "metrics": sum(block_checksum("metrics", block) for block in self.metrics) & MASK,
            "system": sum(block_checksum("system", block) for block in self.system) & MASK,
            "events": sum(event_hash(row) for row in self.events) & MASK,
        }


def block_checksum(table: str, block: Block) -> int:
    """Return the order-free checksum of a block's rows."""
    same = np.uint64(identity(table, block.run_id, block.writer_id, block.rank))
    hashes = RowHashes(same, block.seq)
    hashes.add_ints("_time", block.time_ns)
    if block.step is not None:
        hashes.add_ints("_step", block.step, block.has_step)
    for index, name in enumerate(block.names):
        hashes.add_floats(name, block.values[:, index])
    return hashes.total()


class Decoder:
    """Turns the frames of one writer into rows of a batch. Not thread-safe.

    Attributes:
        shapes: the shapes announced so far in the current segment.
        last_seal: the seal that was read last in the current segment, or None.
    """

    def __init__(self, writer_id: str, batch: Batch) -> None:
        """Take where the rows go."""
        self._writer_id = writer_id
        self._batch = batch
        self._gatherings: dict[tuple[object, ...], Gathering] = {}
        self._by_number: dict[tuple[str, int], Gathering] = {}
        self.shapes: dict[int, schema.Shape] = {}
        self.last_seal: schema.Seal | None = None

    def start_segment(self, shapes: dict[int, schema.Shape]) -> None:
        """Begin to read a segment, or the rest of one in which `shapes` were announced before."""
        self._by_number.clear()
        self.shapes = shapes
        self.last_seal = None

    def add_structural(self, record: schema.AnyRecord) -> bool:
        """Take in what a structural frame holds; say whether it announced a shape for the first time."""
        if isinstance(record, schema.Seal):
            self.last_seal = record
        if not isinstance(record, schema.Shape):
            return False
        known = self.shapes.get(record.shape)
        if known is not None and (known.run_id, known.rank, known.names) == (record.run_id, record.rank, record.names):
            return False
        self._by_number.clear()
        self.shapes[record.shape] = record
        return True

    def add(self, data: bytes, stretch: Stretch, first_seq: int) -> None:
        """Add the records of a stretch; `first_seq` is the segment's."""
        self._batch.records += stretch.count
        while stretch.count:
            columns = fast.take_apart(data, stretch)
            shape = self.shapes.get(columns.shape)
            if columns.count and shape is not None and len(shape.names) == columns.values.shape[1]:
                self._gathering("metrics", columns.shape, shape).add_columns(first_seq + stretch.seq, columns)
                done = columns.count
            else:
                done = min(stretch.count, fast.SHORTEST)
                self._add_singly(data, stretch, done, first_seq)
            stretch = stretch._replace(
                offset=stretch.offset + done * stretch.frame_bytes, count=stretch.count - done, seq=stretch.seq + done
            )

    def _add_singly(self, data: bytes, stretch: Stretch, count: int, first_seq: int) -> None:
        for index in range(count):
            offset = stretch.offset + index * stretch.frame_bytes
            payload = data[offset + frame.HEADER_BYTES : offset + stretch.frame_bytes]
            self.add_record(schema.decode(payload), first_seq + stretch.seq + index)

    def _gathering(self, table: str, number: int, shape: schema.Shape) -> Gathering:
        found = self._by_number.get((table, number))
        if found is None:
            key = (table, shape.run_id, shape.rank, *shape.names)
            found = self._gatherings.get(key)
            if found is None:
                found = self._gatherings[key] = Gathering(table, shape)
            self._by_number[table, number] = found
        return found

    def add_record(self, record: schema.AnyRecord, seq: int) -> None:
        """Add one record; the plain way, which `verify` uses throughout."""
        if isinstance(record, schema.Log | schema.System):
            self._add_numbers(record, seq)
            return
        if isinstance(record, schema.Dropped):
            self._batch.dropped += record.count
        row = event_row(record, self._writer_id, seq)
        self._batch.add_event(row)
        self._batch.runs.part(row.run_id).apply(record, At(row.time_ns, self._writer_id, seq))

    def _add_numbers(self, record: schema.Log | schema.System, seq: int) -> None:
        shape = self.shapes.get(record.shape)
        problem = None
        if shape is None or len(shape.names) * 8 != len(record.values):
            problem = "without_shape"
        elif not fits(record.time_ns) or not fits(getattr(record, "step", None)):
            problem = "beyond_64_bits"
        if shape is None or problem is not None:
            fields = msgspec.to_builtins(record)
            self.add_record(schema.Unknown(f"unknown:{schema.kind_of(record)}_{problem}", fields), seq)
            return
        is_log = isinstance(record, schema.Log)
        step = record.step if isinstance(record, schema.Log) else None
        others = record.others if isinstance(record, schema.Log) else None
        if shape.names or not others:
            gathering = self._gathering("metrics" if is_log else "system", record.shape, shape)
            gathering.add_one(seq, record.time_ns, step, record.values)
        if others:
            self._add_others(shape.run_id, others, step, record.time_ns, seq)

    def _add_others(
        self, run_id: str, others: dict[str, schema.Plain], step: int | None, time_ns: int, seq: int
    ) -> None:
        for name, value in others.items():
            payload = values.to_json(value).decode()
            kind = values.kind_of(value)
            self._batch.add_event(EventRow(run_id, kind, name, step, time_ns, self._writer_id, seq, payload))
        if step is not None:
            self._batch.runs.part(run_id).reach_step(step)

    def finish(self) -> None:
        """Turn what was gathered into blocks of the batch; call it once, at the end."""
        for gathering in self._gatherings.values():
            self._batch.add_block(gathering.table, gathering.block(self._writer_id))
        self._gatherings.clear()
        self._by_number.clear()


_NO_TIME: Final = 0


def fits(number: int | None) -> bool:
    """Say whether a time or a step fits its column."""
    return number is None or -(1 << 63) <= number < 1 << 63


def event_row(record: schema.Record, writer_id: str, seq: int) -> EventRow:
    """Return the row of `events` for a record that is neither `log` nor `system`."""
    kind = schema.kind_of(record)
    if isinstance(record, schema.Unknown):
        time_ns, run_id = _attribute(record.fields)
        return EventRow(run_id, kind, "", None, time_ns, writer_id, seq, values.to_json(record.fields).decode())
    fields = {name: getattr(record, name) for name in record.__struct_fields__}
    step, time_ns = fields.get("step"), fields.get("time_ns", _NO_TIME)
    name = fields.get("name") or fields.get("title") or fields.get("action") or ""
    return EventRow(
        fields.get("run_id", ""),
        kind,
        name if isinstance(name, str) else "",
        step if isinstance(step, int) and fits(step) else None,
        time_ns if fits(time_ns) else _NO_TIME,
        writer_id,
        seq,
        values.to_json(fields).decode(),
    )


def _attribute(fields: object) -> tuple[int, str]:
    """Return (time_ns, run_id) of an unknown record, which by rule come first in every kind but log and system."""
    if isinstance(fields, list) and len(fields) >= 2 and isinstance(fields[0], int) and isinstance(fields[1], str):
        return fields[0] if -(1 << 63) <= fields[0] < 1 << 63 else _NO_TIME, fields[1]
    return _NO_TIME, ""
