"""Late segments: records that arrive after their gap was recorded are folded, once, and the gap closes."""

from __future__ import annotations

import os
from typing import NamedTuple

import msgspec

from eventlog import names, segment, tail
from eventlog.columns import Batch, Decoder
from eventlog.errors import DataError
from eventlog.fs import Fs
from eventlog.manifest import Gap, Manifest
from eventlog.segment import Damage, Header


class Late(NamedTuple):
    """What arrived late.

    Attributes:
        filled: gaps of the manifest that do not hold any more.
        left: what is still missing of them.
        records: how many records were found, by writer.
    """

    filled: list[Gap]
    left: list[Gap]
    records: dict[str, int]


def gather_late(fs: Fs, root: str, parent: Manifest, batch: Batch) -> Late:
    """Read the records of gaps whose segments have turned up; only gaps of missing segments are looked at.

    Raises:
        OSError: as the file system raises it.
    """
    late = Late([], [], {})
    wanted: dict[str, list[Gap]] = {}
    for gap in parent.gaps:
        if gap.reason == tail.MISSING:
            wanted.setdefault(gap.writer_id, []).append(gap)
    for writer_id, gaps in wanted.items():
        sources = _sources(fs, root, parent, writer_id)
        for gap in gaps:
            arrived = [(header, path) for header, path in sources if gap.first_seq <= header.first_seq <= gap.last_seq]
            if arrived:
                _fill(fs, gap, arrived, batch, late)
    return late


def _sources(fs: Fs, root: str, parent: Manifest, writer_id: str) -> list[tuple[Header, str]]:
    """Return the segments before the watermark, by their first seq; damaged headers bring nothing."""
    directory = names.writer_dir(root, parent.project, writer_id)
    mark = parent.writers[writer_id]
    found: list[tuple[Header, str]] = []
    for name in fs.names(directory):
        parsed = names.parse_segment_name(name)
        if parsed is None or parsed[0] > mark.segno:
            continue
        path = os.path.join(directory, name)
        try:
            header = segment.parse_header(fs.read(path, 0, segment.HEADER_BYTES), path)
        except (DataError, FileNotFoundError):
            continue
        if header.writer_id == writer_id:
            found.append((header, path))
    return sorted(found)


def _fill(fs: Fs, gap: Gap, arrived: list[tuple[Header, str]], batch: Batch, late: Late) -> None:
    decoder = Decoder(gap.writer_id, batch)
    expected = gap.first_seq
    count = 0
    left: list[Gap] = []
    for header, path in arrived:
        decoder.start_segment({})
        for item in segment.items(fs.read(path), header, final=path.endswith(".seg")):
            if isinstance(item, Damage):
                continue
            if item.structural:
                decoder.add_structural(item.record)
                continue
            if not expected <= item.seq <= gap.last_seq:
                continue
            if item.seq > expected:
                left.append(msgspec.structs.replace(gap, first_seq=expected, last_seq=item.seq - 1))
            decoder.add_record(item.record, item.seq)
            expected = item.seq + 1
            count += 1
    decoder.finish()
    if not count:
        return
    if expected <= gap.last_seq:
        left.append(msgspec.structs.replace(gap, first_seq=expected))
    batch.records += count
    late.filled.append(gap)
    late.left.extend(left)
    late.records[gap.writer_id] = late.records.get(gap.writer_id, 0) + count
