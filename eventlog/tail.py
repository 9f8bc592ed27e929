"""The tail: read what a writer appended after its watermark, from open and sealed segments alike."""

from __future__ import annotations

from typing import Final, NamedTuple

from eventlog import frame, names, schema, segment
from eventlog import stretch as fast
from eventlog.columns import Batch, Decoder
from eventlog.errors import DataError, NewerFormatError
from eventlog.fs import Fs
from eventlog.manifest import Gap, Watermark
from eventlog.segment import Damage, Header, Stretch

WINDOW_BYTES: Final = 1024 * 1024
_EVENTS_AT_ONCE: Final = 100_000
_PROBE_BYTES: Final = 4096
NO_LIMIT: Final = 1 << 62
MISSING: Final = "a segment is missing"


class Damaged(NamedTuple):
    """Bytes of a segment that hold no good frame."""

    writer_id: str
    segno: int
    path: str
    offset: int
    size_bytes: int
    reason: str


class Found(NamedTuple):
    """What reading one writer found.

    Attributes:
        watermark: how far it read.
        gaps: records that are missing before it.
        damages: bytes that hold none.
        more: there is more to read; the budget ran out.
    """

    watermark: Watermark
    gaps: list[Gap]
    damages: list[Damaged]
    more: bool


class _Source(NamedTuple):
    """A segment that has to be read."""

    segno: int
    sealed: bool
    file: segment.SegmentFile
    header: Header


class WriterReader:
    """Reads one writer from its watermark on, into a batch. Not thread-safe; never writes.

    It reads files by their growing end, so a torn tail is simply not there yet. Segments are taken in the
    order of their numbers. Records that were seen already are counted as duplicates and left out.

    Attributes:
        used_bytes: how many bytes of frames were read.
    """

    def __init__(self, fs: Fs, root: str, project: str, writer_id: str, watermark: Watermark, batch: Batch) -> None:
        """Take where to read, from where on, and where the rows go."""
        self._fs = fs
        self._directory = names.writer_dir(root, project, writer_id)
        self._writer_id = writer_id
        self._decoder = Decoder(writer_id, batch)
        self._batch = batch
        self._mark = watermark
        self._expected = watermark.seq + 1
        self._records = 0
        self._duplicates = 0
        self._dropped_before = batch.dropped
        self._gaps: list[Gap] = []
        self._damages: list[Damaged] = []
        self._reason = MISSING
        self._segno = watermark.segno
        self._offset = watermark.offset
        self._shape_offset = watermark.shape_offset
        self._done = watermark.done
        self._bytes_left = 0
        self._last_seq = NO_LIMIT
        self._limited = self._stopped = False
        self.used_bytes = 0

    def read(
        self, budget_bytes: int = NO_LIMIT, *, missing_before_ns: int = 1 << 62, last_seq: int = NO_LIMIT
    ) -> Found:
        """Read at most about `budget_bytes` of frames.

        Args:
            budget_bytes: stop after so many; at least one frame is read.
            missing_before_ns: a missing segment counts as lost when the next one was created before this;
                else the read stops there, for it may still arrive.
            last_seq: leave out what comes after it, as if it were not there yet.

        Raises:
            NewerFormatError: a segment is of a newer format.
            OSError: a file cannot be read.
        """
        self._bytes_left = budget_bytes
        self._limited = budget_bytes < NO_LIMIT
        self._last_seq = last_seq
        self._stopped = False
        more = False
        for source in self._sources():
            late = source.header.first_seq > self._expected and source.segno != self._segno
            if late and source.header.created_ns >= missing_before_ns and self._reason == MISSING:
                break
            if source.header.first_seq > last_seq:
                break
            if self._bytes_left <= 0 or not self._read_segment(source):
                more = True
                break
        self._decoder.finish()
        mark = Watermark(
            seq=self._expected - 1,
            segno=self._segno,
            offset=self._offset,
            shape_offset=self._shape_offset,
            records=self._mark.records + self._records,
            dropped=self._mark.dropped + self._batch.dropped - self._dropped_before,
            duplicates=self._mark.duplicates + self._duplicates,
            done=self._done,
        )
        return Found(mark, self._gaps, self._damages, more)

    def _sources(self) -> list[_Source]:
        listed: dict[int, bool] = {}
        # A listing is no snapshot: a segment that is sealed meanwhile can be missing under both its names, once.
        for _ in range(2):
            for entry in self._fs.entries(self._directory):
                parsed = names.parse_segment_name(entry.name)
                if parsed is not None and parsed[0] >= self._mark.segno and not entry.is_dir:
                    listed[parsed[0]] = listed.get(parsed[0], False) or parsed[1]
            if listed and len(listed) == max(listed) - (self._mark.segno or 1) + 1:
                break
        return [source for segno in sorted(listed) if (source := self._source(segno, sealed=listed[segno]))]

    def _source(self, segno: int, *, sealed: bool) -> _Source | None:
        file = segment.SegmentFile(self._fs, self._directory, segno, sealed=sealed)
        try:
            start = file.read(0, segment.HEADER_BYTES)
            header = self._header(file, start, segno)
        except FileNotFoundError:
            return None
        if header is None:
            if sealed or len(start) >= segment.HEADER_BYTES:
                reason = "neither copy of the segment's header is intact"
                self._set_aside(file.path, segno, 0, max(len(start), 1), reason)
            return None
        return _Source(segno, sealed, file, header)

    def _header(self, file: segment.SegmentFile, start: bytes, segno: int) -> Header | None:
        try:
            header = segment.parse_header(start, file.path)
        except NewerFormatError:
            raise
        except DataError:
            recovered = segment.recover_header(file.read(0, _PROBE_BYTES))
            if recovered is None:
                return None
            if segno > self._mark.segno or self._mark.offset == 0:
                reason = "the header does not match its checksum"
                self._set_aside(file.path, segno, 0, segment.HEADER_BYTES, reason)
            header = recovered
        if header.writer_id != self._writer_id or header.segno != segno:
            reason = f"is segment {header.segno} of {header.writer_id}"
            self._set_aside(file.path, segno, 0, segment.HEADER_BYTES, reason)
            return None
        return header

    def _set_aside(self, path: str, segno: int, offset: int, size: int, reason: str) -> None:
        self._damages.append(Damaged(self._writer_id, segno, path, offset, size, reason))

    def _read_segment(self, source: _Source) -> bool:
        """Read a segment as far as it and the budget go; say whether it was read to its present end."""
        resumed = source.segno == self._segno and self._offset >= segment.HEADER_BYTES
        offset = self._offset if resumed else segment.HEADER_BYTES
        shape_offset = self._shape_offset if resumed else 0
        if resumed and source.file.size() <= offset:
            return True
        self._decoder.start_segment(load_shapes(source.file, shape_offset))
        self._segno, self._offset, self._shape_offset = source.segno, offset, shape_offset
        window = min(WINDOW_BYTES, max(self._bytes_left, _PROBE_BYTES))
        while True:
            data = source.file.read(self._offset, window)
            at_eof = len(data) < window
            used = self._read_window(data, source, at_eof=at_eof)
            self._bytes_left -= used
            self.used_bytes += used
            if self._stopped:
                return True
            if at_eof:
                break
            if self._limited and len(self._batch.events) >= _EVENTS_AT_ONCE:
                # Events take much more memory than their frames.
                self._bytes_left = 0
            if self._bytes_left <= 0 and used:
                return False
            if not used:
                window *= 2
        self._end_segment(source)
        return True

    def _read_window(self, data: bytes, source: _Source, *, at_eof: bool) -> int:
        """Take in the frames of a window that starts at `self._offset`; return how many bytes they took."""
        start = self._offset
        used = 0
        expected = max(self._expected - source.header.first_seq, 0)
        for part in segment.walk(data, 0, expected, at_eof=at_eof, extend=fast.extend):
            if isinstance(part, Damage):
                if part.at_end:
                    break
                self._reason = part.reason
                at = start + part.offset
                self._set_aside(source.file.path, source.segno, at, part.end - part.offset, part.reason)
            elif part.structural:
                payload = data[part.offset + frame.HEADER_BYTES : part.end]
                if self._decoder.add_structural(payload):
                    self._shape_offset = start + part.offset
            else:
                allowed = self._last_seq - source.header.first_seq - part.seq + 1
                self._stopped = part.count > allowed
                taken = part._replace(count=max(allowed, 0)) if self._stopped else part
                if taken.count:
                    self._take(data, taken, source.header.first_seq)
                used = taken.end
                self._offset = start + used
                if self._stopped:
                    break
                continue
            used = part.end
            self._offset = start + used
        return used

    def _take(self, data: bytes, part: Stretch, first_seq: int) -> None:
        seq = first_seq + part.seq
        if seq > self._expected:
            self._gaps.append(
                Gap(writer_id=self._writer_id, first_seq=self._expected, last_seq=seq - 1, reason=self._reason)
            )
            self._reason = MISSING
            self._expected = seq
        seen = min(self._expected - seq, part.count)
        if seen:
            self._duplicates += seen
            part = part._replace(
                offset=part.offset + seen * part.frame_bytes, count=part.count - seen, seq=part.seq + seen
            )
        if part.count:
            self._decoder.add(data, part, first_seq)
            self._records += part.count
            self._expected += part.count

    def _end_segment(self, source: _Source) -> None:
        """At the end of the bytes: an open segment may go on, a sealed one must have ended with its seal."""
        seal = self._decoder.last_seal
        if seal is not None:
            if seal.next_seq > self._expected:
                reason = self._reason
                self._gaps.append(
                    Gap(writer_id=self._writer_id, first_seq=self._expected, last_seq=seal.next_seq - 1, reason=reason)
                )
                self._expected = seal.next_seq
            self._reason = MISSING
            self._done = self._done or seal.final
        if source.sealed:
            size = source.file.size()
            if size > self._offset:
                reason = "a sealed segment ends in damage"
                self._set_aside(source.file.path, source.segno, self._offset, size - self._offset, reason)
                self._reason = reason
                self._offset = size


def load_shapes(file: segment.SegmentFile, shape_offset: int) -> dict[int, schema.Shape]:
    """Return the shapes that a segment announced up to and at `shape_offset`, following the chain of announcements.

    When a link of the chain is damaged, the segment is read from its start instead.
    """
    shapes: dict[int, schema.Shape] = {}
    offset = shape_offset
    while offset:
        data = file.read(offset, _PROBE_BYTES)
        found = frame.parse(data, 0)
        if found.outcome is frame.Outcome.INCOMPLETE:
            needed = int.from_bytes(data[6:10], "little") & frame.MAX_PAYLOAD_BYTES
            data = file.read(offset, needed + frame.HEADER_BYTES)
            found = frame.parse(data, 0)
        if found.outcome is not frame.Outcome.COMPLETE:
            return _scan_shapes(file, shape_offset)
        record = schema.decode(data[frame.HEADER_BYTES : found.end])
        if not isinstance(record, schema.Shape):
            return _scan_shapes(file, shape_offset)
        shapes.setdefault(record.shape, record)
        offset = record.previous_offset
    return shapes


def _scan_shapes(file: segment.SegmentFile, shape_offset: int) -> dict[int, schema.Shape]:
    shapes: dict[int, schema.Shape] = {}
    data = file.read()
    for part in segment.walk(data, segment.HEADER_BYTES, 0):
        if isinstance(part, Damage) or not part.structural:
            continue
        if part.offset > shape_offset:
            break
        record = schema.decode(data[part.offset + frame.HEADER_BYTES : part.end])
        if isinstance(record, schema.Shape):
            shapes[record.shape] = record
    return shapes


def writers(fs: Fs, root: str, project: str) -> list[str]:
    """Return the ids of the writers that have a directory in a project, in order."""
    return [name for name in fs.subdirs(names.project_segments_dir(root, project)) if names.is_writer_id(name)]


def projects(fs: Fs, root: str) -> list[str]:
    """Return the projects that have segments or snapshots, in order."""
    found = {*fs.subdirs(names.segments_dir(root)), *fs.subdirs(names.snapshots_dir(root))}
    decoded = (names.decode_name(name) for name in found)
    return sorted(name for name in decoded if name is not None)
