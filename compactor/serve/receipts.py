"""Read receipts back: which ids the records of a store came with, as far as the records are there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import msgspec
import pyarrow.compute as pc

from compactor.serve.seen import KEY_BYTES
from eventlog import schema
from eventlog.feed import Feed
from eventlog.manifest import Gap
from eventlog.parquet import DataFileReader

_ROWS_AT_ONCE = 16_384
_RECEIPT = schema.kind_name(schema.Receipt)


class Received(NamedTuple):
    """The ids of one receipt whose records are in the store."""

    writer_id: str
    seq: int
    keys: list[bytes]


class _Receipt(msgspec.Struct):
    """What the payload of a receipt's event holds."""

    ids: dict[str, Any]


def receipts_since(feed: Feed, cursor: Mapping[str, int]) -> Iterator[Received]:
    """Yield what was received since a cursor of seqs by writer, from snapshot and tail, in bounded memory.

    A batch is written whole, but a power loss may leave its beginning: an id counts only if its record is there.

    Raises:
        ConflictError: files were collected while they were read.
        DataError: a file is damaged.
        OSError: a file cannot be read.
    """
    feed.advance()
    view = feed.view
    reached = view.reached()
    gaps: dict[str, list[Gap]] = {}
    for gap in (*view.snapshot.manifest.gaps, *(view.tail.gaps if view.tail else ())):
        gaps.setdefault(gap.writer_id, []).append(gap)

    def received(writer_id: str, seq: int, ids: bytes) -> Received:
        keys = [ids[at : at + KEY_BYTES] for at in range(0, len(ids), KEY_BYTES)]
        present = [
            key
            for offset, key in enumerate(keys, start=1)
            if seq + offset <= reached.get(writer_id, 0)
            and not any(gap.first_seq <= seq + offset <= gap.last_seq for gap in gaps.get(writer_id, ()))
        ]
        return Received(writer_id, seq, present)

    for reader, pieces in view.snapshot.select("events", [""]):
        for piece in pieces:
            if piece.last_seq > cursor.get(piece.writer_id, 0):
                for seq, ids in _folded(reader, piece.start, piece.rows):
                    if seq > cursor.get(piece.writer_id, 0):
                        yield received(piece.writer_id, seq, ids)
    for batch in view.tail.batches if view.tail else ():
        for row in batch.events:
            if row.kind == _RECEIPT and row.seq > cursor.get(row.writer_id, 0):
                yield received(row.writer_id, row.seq, _ids(row.payload))


def _folded(reader: DataFileReader, start: int, rows: int) -> Iterator[tuple[int, bytes]]:
    for at in range(start, start + rows, _ROWS_AT_ONCE):
        table = reader.read(["kind", "_seq", "payload"], [(at, min(_ROWS_AT_ONCE, start + rows - at))])
        table = table.filter(pc.equal(table["kind"].cast("string"), _RECEIPT))
        for seq, payload in zip(table["_seq"].to_pylist(), table["payload"].to_pylist(), strict=True):
            yield seq, _ids(payload)


def _ids(payload: str) -> bytes:
    return bytes.fromhex(msgspec.json.decode(payload, type=_Receipt).ids["hex"])
