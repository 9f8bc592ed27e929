"""The tail: read what a writer appended after its watermark, from open and sealed segments alike."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

import msgspec

from eventlog import conflicts, frame, names, schema, segment
from eventlog import stretch as fast
from eventlog.announced import load_shapes
from eventlog.columns import Batch, Decoder
from eventlog.fs import Fs
from eventlog.listing import Source, listed
from eventlog.manifest import Gap, Watermark
from eventlog.segment import Damage, Header, Stretch

WINDOW_BYTES: Final = 1024 * 1024
_EVENTS_AT_ONCE: Final = 100_000
_PROBE_BYTES: Final = 4096
NO_LIMIT: Final = 1 << 62
MISSING: Final = "a segment is missing"
JUMPED: Final = "the seqs of a segment jump over them"


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


def _never(path: str) -> bool:
    del path
    return False


class WriterReader:
    """Reads one writer from its watermark on, into a batch. Not thread-safe; never writes.

    It reads files by their growing end, so a torn tail is simply not there yet. Segments are taken in the
    order of their numbers. Records that were seen already are counted as duplicates and left out. A segment with
    other records than those under its name or its seqs is a conflict: it is set aside, and nothing after it is read.

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
        self._ended_bytes = watermark.ended_bytes or 0
        self._ends = dict(watermark.ends or {})
        self._segnos: set[int] = set()
        self._is_dead: Callable[[str], bool] = _never
        self._window_at = 0
        self._next_here = 0
        self._bytes_left = 0
        self._last_seq = NO_LIMIT
        self._limited = self._stopped = False
        self.used_bytes = 0

    def read(
        self,
        budget_bytes: int = NO_LIMIT,
        *,
        missing_before_ns: int = 1 << 62,
        last_seq: int = NO_LIMIT,
        is_dead: Callable[[str], bool] = _never,
    ) -> Found:
        """Read at most about `budget_bytes` of frames.

        Args:
            budget_bytes: stop after so many; at least one frame is read.
            missing_before_ns: a missing segment counts as lost when the next one was created before this;
                else the read stops there, for it may still arrive.
            last_seq: leave out what comes after it, as if it were not there yet.
            is_dead: asked about the path of an open segment that does not end with a good frame; True when its
                writer is gone. Then that is its end, and what is damaged there is lost. Should it go on after all,
                nothing is passed over: it is read on from its last good frame.

        Raises:
            NewerFormatError: a segment is of a newer format.
            OSError: a file cannot be read.
        """
        self._bytes_left = budget_bytes
        self._limited = budget_bytes < NO_LIMIT
        self._last_seq = last_seq
        self._is_dead = is_dead
        self._stopped = False
        more = self._read_sources(missing_before_ns)
        self._decoder.finish()
        moved = (self._segno, self._offset) != (self._mark.segno, self._mark.offset)
        ends = conflicts.kept_ends(self._ends, self._segnos) if moved else self._mark.ends or {}
        mark = Watermark(
            seq=self._expected - 1,
            segno=self._segno,
            offset=self._offset,
            shape_offset=self._shape_offset,
            records=self._mark.records + self._records,
            dropped=self._mark.dropped + self._batch.dropped - self._dropped_before,
            duplicates=self._mark.duplicates + self._duplicates,
            done=self._done,
            ended_bytes=self._ended_bytes or msgspec.UNSET,
            ends=ends or msgspec.UNSET,
        )
        return Found(mark, self._gaps, self._damages, more)

    def _read_sources(self, missing_before_ns: int) -> bool:
        """Read the segments in order; say whether the budget ran out before their end."""
        self._segnos, sources = listed(self._fs, self._directory, self._writer_id, self._mark.segno, self._ends)
        for source in sources:
            if source.header is None:
                self._pass_over(source)
                continue
            first_seq = source.header.first_seq
            if source.segno > self._segno + 1:
                self._reason = MISSING
            late = first_seq > self._expected and source.segno != self._segno
            if late and source.header.created_ns >= missing_before_ns and self._reason == MISSING:
                break
            if first_seq > self._last_seq or self._is_conflict(source, source.header):
                break
            if self._bytes_left <= 0 or not self._read_segment(source, source.header):
                return True
        return False

    def _is_conflict(self, source: Source, header: Header) -> bool:
        """Say whether a segment holds other records than were read under its name or its seqs; then set it aside."""
        if source.other is not None:
            self._set_aside(source.other.path, source.segno, 0, source.other.size(), conflicts.UNEQUAL)
        reason = conflicts.reason(source.file, header, self._mark, self._expected, self._segnos, fast.extend)
        if reason is not None:
            self._set_aside(source.file.path, source.segno, 0, source.file.size(), reason)
        return reason is not None

    def _pass_over(self, source: Source) -> None:
        """Set a segment aside whole that cannot be read, unless its writer may only be about to begin it."""
        try:
            size = source.file.size()
        except FileNotFoundError:
            return
        begun = source.sealed or size >= segment.HEADER_BYTES
        if begun and (source.ended or self._is_dead(source.file.path)):
            self._set_aside(source.file.path, source.segno, 0, size, source.reason)

    def _set_aside(self, path: str, segno: int, offset: int, size: int, reason: str) -> None:
        last = self._damages[-1] if self._damages else None
        if last is not None and (last.path, last.reason, last.offset + last.size_bytes) == (path, reason, offset):
            self._damages[-1] = last._replace(size_bytes=last.size_bytes + size)
            return
        self._damages.append(Damaged(self._writer_id, segno, path, offset, size, reason))

    def _read_segment(self, source: Source, header: Header) -> bool:
        """Read a segment as far as it and the budget go; say whether it was read to its present end."""
        resumed = source.segno == self._segno and self._offset >= segment.HEADER_BYTES
        offset = self._offset if resumed else segment.HEADER_BYTES
        shape_offset = self._shape_offset if resumed else 0
        if resumed and (size := source.file.size()) in (self._ended_bytes, min(size, offset)):
            return True
        self._next_here = 0
        if not resumed:
            self._ended_bytes = 0
            if source.reason:
                self._set_aside(source.file.path, source.segno, 0, segment.HEADER_BYTES, source.reason)
        self._decoder.start_segment(load_shapes(source.file, shape_offset))
        self._segno, self._offset, self._shape_offset = source.segno, offset, shape_offset
        final = source.ended
        window = min(WINDOW_BYTES, max(self._bytes_left, _PROBE_BYTES))
        while True:
            data = source.file.read(self._offset, window)
            at_eof = len(data) < window or self._offset + len(data) >= source.file.size()
            used = self._read_window(data, source, header, at_eof=at_eof, final=final)
            if used:
                self._ended_bytes = 0
            self._bytes_left -= used
            self.used_bytes += used
            if self._stopped:
                return True
            if at_eof and (final or used == len(data) or not self._is_dead(source.file.path)):
                break
            if at_eof:
                # What stood there when its writer was still thought to live is not all: look again, to the end.
                final = True
                continue
            if self._limited and len(self._batch.events) >= _EVENTS_AT_ONCE:
                # Events take much more memory than their frames.
                self._bytes_left = 0
            if self._bytes_left <= 0 and used:
                return False
            if not used:
                window *= 2
        self._end_segment(source, header, final=final)
        return True

    def _read_window(self, data: bytes, source: Source, header: Header, *, at_eof: bool, final: bool) -> int:
        """Take in the frames of a window that starts at `self._offset`; return how many bytes they took."""
        start = self._window_at = self._offset
        used = 0
        last: Stretch | None = None
        expected = max(self._expected - header.first_seq, 0)
        for part in segment.walk(data, 0, expected, at_eof=at_eof, final=final, extend=fast.extend):
            if isinstance(part, Damage):
                if part.at_end:
                    break
                self._reason = part.reason
                at = start + part.offset
                self._set_aside(source.file.path, source.segno, at, part.end - part.offset, part.reason)
            elif part.structural:
                self._take_structural(data, part, source, header)
            else:
                allowed = self._last_seq - header.first_seq - part.seq + 1
                self._stopped = part.count > allowed
                taken = part._replace(count=max(allowed, 0)) if self._stopped else part
                in_order = self._in_order(taken, source)
                if in_order.count:
                    self._take(data, in_order, header.first_seq)
                    last = in_order
                used = taken.end
                self._offset = start + used
                if self._stopped:
                    break
                continue
            used = part.end
            self._offset = start + used
        if last is not None:
            self._ends[source.segno] = conflicts.end_of(data, last, start)
        return used

    def _in_order(self, part: Stretch, source: Source) -> Stretch:
        """Set aside what no writer appends: records whose seq the segment has passed. Return the others."""
        behind = max(min(self._next_here - part.seq, part.count), 0)
        self._next_here = max(self._next_here, part.seq + part.count)
        if not behind:
            return part
        size = behind * part.frame_bytes
        self._set_aside(source.file.path, source.segno, self._window_at + part.offset, size, segment.OUT_OF_ORDER)
        return part._replace(offset=part.offset + size, count=part.count - behind, seq=part.seq + behind)

    def _take(self, data: bytes, part: Stretch, first_seq: int) -> None:
        seq = first_seq + part.seq
        if seq > self._expected:
            self._miss(min(seq, first_seq), self._reason)
            # A segment that arrives late closes no gap that this one has within itself.
            self._miss(seq, JUMPED if self._reason == MISSING else self._reason)
            self._reason = MISSING
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

    def _take_structural(self, data: bytes, part: Stretch, source: Source, header: Header) -> None:
        """Take in a structural frame; what only looks like one is set aside, and nothing is concluded from it."""
        record = schema.decode(data[part.offset + frame.HEADER_BYTES : part.end])
        at = self._window_at + part.offset
        reason = segment.contradiction(record, part, header)
        if reason is not None:
            self._set_aside(source.file.path, source.segno, at, part.end - part.offset, reason)
        elif self._decoder.add_structural(record):
            self._shape_offset = at

    def _end_segment(self, source: Source, header: Header, *, final: bool) -> None:
        """At the end of the bytes: an open segment may go on, a sealed one must have ended with its seal."""
        seal = self._decoder.last_seal
        if seal is not None:
            self._miss(seal.next_seq, self._reason)
            self._reason = MISSING
            self._done = self._done or seal.final
        size = source.file.size()
        if final and size > self._offset:
            self._end_in_damage(source, header, size)
        elif source.sealed and seal is None:
            self._reason = "a sealed segment ends without a seal"
            self._set_aside(source.file.path, source.segno, size, 0, self._reason)

    def _end_in_damage(self, source: Source, header: Header, size: int) -> None:
        """Settle what stands after the last good frame of a segment that does not go on."""
        rest = source.file.read(self._offset)
        if source.sealed or not segment.is_torn(rest):
            name = "a sealed segment" if source.sealed else "a segment that nobody appends to"
            self._reason = f"{name} ends in damage"
            self._set_aside(source.file.path, source.segno, self._offset, size - self._offset, self._reason)
            expected = max(self._expected - header.first_seq, 0)
            self._miss(header.first_seq + segment.promised(rest, expected), self._reason)
        if source.sealed:
            self._offset = size
        else:
            self._ended_bytes = size

    def _miss(self, next_seq: int, reason: str) -> None:
        """Note that everything before `next_seq` that was not read is missing."""
        if next_seq > self._expected:
            gap = Gap(writer_id=self._writer_id, first_seq=self._expected, last_seq=next_seq - 1, reason=reason)
            self._gaps.append(gap)
            self._expected = next_seq


def writers(fs: Fs, root: str, project: str) -> list[str]:
    """Return the ids of the writers that have a directory in a project, in order."""
    return [name for name in fs.subdirs(names.project_segments_dir(root, project)) if names.is_writer_id(name)]


def projects(fs: Fs, root: str) -> list[str]:
    """Return the projects that have segments or snapshots, in order."""
    found = {*fs.subdirs(names.segments_dir(root)), *fs.subdirs(names.snapshots_dir(root))}
    decoded = (names.decode_name(name) for name in found)
    return sorted(name for name in decoded if name is not None)
