"""Account for one writer's segments: every record that is there, that is missing, and that is there twice.

Segments are read by the plain path, record by record, so that this checks the fast path which folds them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

from eventlog import frame, schema, segment
from eventlog.checksum import MASK
from eventlog.columns import Batch, Decoder, EventRow
from eventlog.fs import Fs
from eventlog.manifest import End, Quarantined, Watermark
from eventlog.segment import Damage, Header, Item
from eventlog.verify import spans
from eventlog.verify.sources import Say, Source, Sources
from eventlog.verify.spans import Spans

_BATCH_RECORDS: Final = 16_384
_BATCH_BYTES: Final = 16 * 1024 * 1024


class Accounted(NamedTuple):
    """What the segments of one writer hold.

    Attributes:
        seen: the seqs of all their records.
        reached: the highest seq that they say was written; 0 for none.
        checksums: by table, of the records up to the watermark that are not in its gaps.
        dropped: what the writer says, after the watermark, that it could not keep.
        duplicates: records that stand in two segments with the same content.
        torn_bytes: at the end of open segments: normal.
    """

    seen: Spans
    reached: int
    checksums: dict[str, int]
    dropped: int
    duplicates: int
    torn_bytes: int


class _Rows:
    """Turns records into rows, a bounded number at a time, and keeps what is asked of them."""

    def __init__(self, writer_id: str, visit: Callable[[list[EventRow]], None]) -> None:
        self._writer_id = writer_id
        self._visit = visit
        self.checksums: dict[str, int] = {}
        self.dropped = 0
        self._start({})

    def _start(self, shapes: dict[int, schema.Shape]) -> None:
        self._batch = Batch()
        self._bytes = 0
        self._decoder = Decoder(self._writer_id, self._batch)
        self._decoder.start_segment(shapes)

    def start_segment(self) -> None:
        self.flush()
        self._start({})

    def announce(self, shape: schema.Shape) -> None:
        self._decoder.add_structural(shape)

    def add(self, item: Item) -> None:
        self._decoder.add_record(item.record, item.seq)
        self._batch.records += 1
        self._bytes += item.end - item.offset
        if self._batch.records >= _BATCH_RECORDS or self._bytes >= _BATCH_BYTES:
            shapes = self._decoder.shapes
            self.flush()
            self._start(shapes)

    def flush(self) -> None:
        self._decoder.finish()
        for table, checksum in self._batch.checksums().items():
            self.checksums[table] = (self.checksums.get(table, 0) + checksum) & MASK
        self.dropped += self._batch.dropped
        self._visit(self._batch.events)
        self._batch.events = []


class Account:
    """Reads one writer; call `run` once. Never writes, and never raises for what the bytes are."""

    def __init__(
        self,
        fs: Fs,
        root: str,
        project: str,
        writer_id: str,
        *,
        mark: Watermark,
        gaps: Spans,
        quarantined: list[Quarantined],
        ends: dict[int, End],
        say: Say,
        visit: Callable[[list[EventRow]], None],
    ) -> None:
        """Take what the manifest says about the writer, and where findings and rows of events go.

        Args:
            fs: the file system.
            root: the store.
            project: the project.
            writer_id: the writer.
            mark: the writer's watermark.
            gaps: seqs up to the watermark that the manifest knows to be missing.
            quarantined: bytes that the manifest knows to be damaged, of any writer.
            ends: the last record that was folded from each segment, as the manifest has it.
            say: takes findings.
            visit: takes the rows of events that the records make, those of the tail included.
        """
        self._project = project
        self._mark = mark
        self._folded_seq = mark.seq
        self._gaps = [(first, last) for first, last in gaps]
        self._say = say
        self._sources = Sources(fs, root, project, writer_id, quarantined, ends, say)
        self._folded = _Rows(writer_id, visit)
        self._tail = _Rows(writer_id, visit)
        self._ranges: list[tuple[int, int]] = []
        self._first, self._highest, self._top = 1, 0, 0
        self._reached = 0
        self._hashes: dict[int, int] = {}
        self._duplicates = 0
        self._torn_bytes = 0

    def run(self) -> Accounted:
        """Read every segment.

        Raises:
            OSError: a file cannot be read.
        """
        sources = self._sources.find()
        self._last_segno = max((source.header.segno for source in sources), default=0)
        following = [source.header.first_seq for source in sources[1:]]
        for source, overlap_from in zip(sources, [*following, 1 << 62], strict=False):
            self._read(source, overlap_from)
        self._folded.flush()
        self._tail.flush()
        ranges = [*self._ranges, (self._first, self._highest)]
        seen = spans.of_ranges((first, last) for first, last in ranges if first <= last)
        return Accounted(
            seen=seen,
            reached=max(self._reached, max((last for _, last in seen), default=0)),
            checksums=self._folded.checksums,
            dropped=self._tail.dropped,
            duplicates=self._duplicates,
            torn_bytes=self._torn_bytes + self._sources.torn_bytes,
        )

    def _read(self, source: Source, overlap_from: int) -> None:
        found = self._sources.read(source)
        if found is None:
            return
        data, where, sealed = found
        self._folded.start_segment()
        self._tail.start_segment()
        self._reached = max(self._reached, source.header.first_seq - 1)
        end, next_seq = segment.HEADER_BYTES, source.header.first_seq
        conflicts: list[int] = []
        seal: schema.Seal | None = None
        final = sealed or self._has_ended(source.header.segno, len(data))
        for item in segment.items(data, source.header, final=final):
            if isinstance(item, Damage):
                if not item.at_end:
                    self._sources.damage(source.header.segno, item.offset, item.end, where, item.reason)
                continue
            end = item.end
            if not item.structural and item.seq < next_seq:
                self._sources.damage(source.header.segno, item.offset, end, where, segment.OUT_OF_ORDER)
                continue
            next_seq = next_seq if item.structural else item.seq + 1
            if item.structural:
                seal = self._take_structural(item, source.header, where) or seal
            elif not self._take(data, item, overlap_from):
                conflicts.append(item.seq)
        if conflicts:
            text = f"{len(conflicts)} records have a seq that another record has, the first is {conflicts[0]}"
            self._say("conflict", where, text)
        if seal is not None:
            self._reached = max(self._reached, seal.next_seq - 1)
        elif sealed and end == len(data):
            self._sources.damage(source.header.segno, end, end, where, "a sealed segment ends without a seal")
        if end < len(data):
            self._end(source.header, where, data[end:], next_seq, end, sealed=sealed, final=final)

    def _has_ended(self, segno: int, size: int) -> bool:
        """Say whether an open segment does not go on: the writer, or the fold that found it dead, is beyond it."""
        mark = self._mark
        return segno < self._last_segno or (segno == mark.segno and mark.is_settled(size))

    def _end(
        self, header: Header, where: str, rest: bytes, next_seq: int, end: int, *, sealed: bool, final: bool
    ) -> None:
        """At the end of the good frames: a torn tail of an open segment is normal, all else is damage."""
        if not sealed and (not final or segment.is_torn(rest)):
            self._torn_bytes += len(rest)
            return
        promised = segment.promised(rest, next_seq - header.first_seq)
        self._reached = max(self._reached, header.first_seq + promised - 1)
        text = "the segment ends in damage"
        self._sources.damage(header.segno, end, end + len(rest), where, text)

    def _take_structural(self, item: Item, header: Header, where: str) -> schema.Seal | None:
        """Take in a structural frame; return it when it is the seal."""
        record = item.record
        reason = segment.contradiction(record, item, header)
        if reason is not None:
            self._sources.damage(header.segno, item.offset, item.end, where, reason)
        elif isinstance(record, schema.Seal):
            return record
        elif isinstance(record, schema.Shape):
            self._folded.announce(record)
            self._tail.announce(record)
        elif isinstance(record, schema.SegmentStart) and record.project != self._project:
            self._say("misplaced", where, f"says it belongs to project {record.project!r}")
        return None

    def _take(self, data: bytes, item: Item, overlap_from: int) -> bool:
        """Take in one record; False when its seq belongs to a different record already."""
        seq = item.seq
        if seq != self._highest + 1 or seq <= self._top:
            if self._has(seq):
                same = self._hashes.get(seq) == hash(data[item.offset + frame.HEADER_BYTES : item.end])
                self._duplicates += same
                return same
            self._ranges.append((self._first, self._highest))
            self._first = seq
        self._highest = seq
        self._top = max(self._top, seq)
        if seq >= overlap_from:
            self._hashes[seq] = hash(data[item.offset + frame.HEADER_BYTES : item.end])
        if seq > self._folded_seq:
            self._tail.add(item)
        elif not self._gaps or not any(first <= seq <= last for first, last in self._gaps):
            self._folded.add(item)
        return True

    def _has(self, seq: int) -> bool:
        return self._first <= seq <= self._highest or any(first <= seq <= last for first, last in self._ranges)
