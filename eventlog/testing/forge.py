"""Forged segments: made frame by frame from any payloads, with checksums that hold, each frame's place being known."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from eventlog import frame, names, schema, segment
from eventlog.fs import Fs
from eventlog.segment import Header

WRITER_ID: Final = "01j0" + "0" * 22
NOW_NS: Final = 1_700_000_000_000_000_000


class Part(NamedTuple):
    """A payload to be framed.

    Attributes:
        payload: any bytes, at least one.
        structural: whether the frame is marked as one that takes no seq.
        seq: relative to the segment; None is the next, as a writer would have it.
    """

    payload: bytes
    structural: bool = False
    seq: int | None = None


class Placed(NamedTuple):
    """Where a frame is; `seq` is the writer's, None for a structural frame, which takes none."""

    offset: int
    end: int
    seq: int | None
    record: schema.AnyRecord


class Forged(NamedTuple):
    """A segment's header and bytes, and its frames in order."""

    header: Header
    data: bytes
    frames: list[Placed]

    def hit(self, start: int, end: int) -> list[Placed]:
        """Return the frames that have a byte in this range."""
        return [placed for placed in self.frames if placed.offset < end and placed.end > start]

    @property
    def records(self) -> list[Placed]:
        """The frames that take a seq."""
        return [placed for placed in self.frames if placed.seq is not None]


def header(segno: int = 1, first_seq: int = 1, writer_id: str = WRITER_ID, created_ns: int = NOW_NS) -> Header:
    """Return a header, by default that of a writer's first segment."""
    return Header(writer_id, segno, first_seq, created_ns)


def start(of: Header, project: str = "p") -> Part:
    """Return the first frame of a segment, which repeats its header."""
    record = schema.SegmentStart(of.writer_id, of.segno, of.first_seq, of.created_ns, project, "host", 1, "", "forge")
    return Part(schema.encode(record), structural=True)


def shape(number: int, metric_names: Sequence[str], run_id: str = "r", rank: int | None = 0) -> list[Part]:
    """Return the two frames that announce a shape."""
    record = schema.Shape(number, run_id, rank, list(metric_names), 0)
    return [Part(schema.encode(record), structural=True)] * 2


def record(of: schema.Record) -> Part:
    """Return the frame of a record."""
    return Part(schema.encode(of))


def seal(of: Header, records: int, *, final: bool = True) -> Part:
    """Return the last frame of a sealed segment with so many records."""
    return Part(schema.encode(schema.Seal(records, of.first_seq + records, final)), structural=True)


def forge(parts: Iterable[Part], of: Header | None = None) -> Forged:
    """Return a segment of exactly these frames; those that a writer begins with are for the caller to give."""
    of = of or header()
    data = bytearray(segment.build_header(of))
    placed: list[Placed] = []
    following = 0
    for part in parts:
        seq = following if part.seq is None else part.seq
        framed = frame.build(part.payload, seq, structural=part.structural)
        number = None if part.structural else of.first_seq + seq
        placed.append(Placed(len(data), len(data) + len(framed), number, schema.decode(part.payload)))
        data += framed
        following = seq if part.structural else seq + 1
    return Forged(of, bytes(data), placed)


def put(fs: Fs, root: str, project: str, of: Header, data: bytes, *, sealed: bool) -> str:
    """Put a segment's bytes into a store under the name that its header gives it; return the path."""
    directory = names.writer_dir(root, project, of.writer_id)
    fs.make_dirs(directory)
    path = f"{directory}/{names.segment_name(of.segno, sealed=sealed)}"
    fd = fs.create(path)
    fs.write(fd, data)
    fs.close(fd)
    return path
