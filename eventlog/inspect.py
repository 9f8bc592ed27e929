"""Look into one file of a store, whatever it is: a segment frame by frame, a manifest, a parquet file."""

from __future__ import annotations

from collections import Counter
from typing import Any, Final

import msgspec

from eventlog import frame, parquet, schema, segment, values
from eventlog import manifest as manifests
from eventlog.errors import DataError, NewerFormatError
from eventlog.fs import LOCAL, Fs
from eventlog.segment import Damage, Stretch

_PARQUET_MAGIC: Final = b"PAR1"
_ENVELOPE: Final = b'{"crc32":'
_TEXT_LENGTH: Final = 200


class Inspected(msgspec.Struct, frozen=True, kw_only=True):
    """What a file holds.

    Attributes:
        path: the file.
        form: segment, manifest or parquet.
        facts: about the whole file, by name.
        entries: of a segment, its frames and damage in the order of the file; of a manifest, its files; of a parquet
            file, the pieces of its index: which rows belong to which run and writer.
        left_out: how many more entries there are.
        problems: what is wrong with the file, one sentence each.
    """

    path: str
    form: str
    facts: dict[str, Any]
    entries: list[dict[str, Any]]
    left_out: int
    problems: list[str]


def inspect(path: str, *, limit: int = 100, fs: Fs = LOCAL) -> Inspected:
    """Return what a file holds. Damage in a segment is shown in its place, and what follows it too.

    Args:
        path: the file.
        limit: at most so many entries; damage is always among them.
        fs: the file system.

    Raises:
        DataError: the file is none of ours, or no part of it can be read.
        OSError: it cannot be read.
    """
    start = fs.read(path, 0, segment.HEADER_BYTES)
    if start.startswith(_PARQUET_MAGIC):
        return _parquet(fs, path, limit)
    if start.startswith(_ENVELOPE):
        return _manifest(fs, path, limit)
    data = fs.read(path)
    if start.startswith(segment.MAGIC) or segment.recover_header(data) is not None:
        return _segment(path, data, limit)
    raise DataError(path, 0, "is neither a segment nor a manifest nor a parquet file")


def _segment(path: str, data: bytes, limit: int) -> Inspected:
    header, problems = _header(path, data)
    kinds: Counter[str] = Counter()
    entries: list[dict[str, Any]] = []
    seqs: list[int] = []
    left_out, end, damage = 0, segment.HEADER_BYTES, 0
    for part in segment.walk(data, segment.HEADER_BYTES, 0, final=path.endswith(".seg")):
        entry = _entry(data, part, header.first_seq if header else 1)
        if not isinstance(part, Damage) or not part.at_end:
            end = part.end
            damage += isinstance(part, Damage)
        kinds[entry["kind"]] += 1
        if entry["seq"] is not None:
            seqs = [seqs[0] if seqs else entry["seq"], entry["seq"]]
        if len(entries) < limit or isinstance(part, Damage):
            entries.append(entry)
        else:
            left_out += 1
    if damage:
        problems.append(f"{damage} stretches of damage")
    torn = len(data) - end
    if torn and path.endswith(".seg"):
        problems.append(f"the last {torn} bytes of a sealed segment are no frame")
    facts = {**(header._asdict() if header else {}), "size_bytes": len(data), "torn_bytes": torn, "seqs": seqs}
    facts |= {"sealed": kinds["seal"] > 0, "kinds": dict(kinds.most_common())}
    return Inspected(path=path, form="segment", facts=facts, entries=entries, left_out=left_out, problems=problems)


def _header(path: str, data: bytes) -> tuple[segment.Header | None, list[str]]:
    try:
        return segment.parse_header(data, path), []
    except NewerFormatError:
        raise
    except DataError as error:
        header = segment.recover_header(data)
        return header, [f"{error.reason}; {'its copy is intact' if header else 'and neither does its copy'}"]


def _entry(data: bytes, part: Stretch | Damage, first_seq: int) -> dict[str, Any]:
    entry: dict[str, Any] = {"offset": part.offset, "size_bytes": part.end - part.offset}
    if isinstance(part, Damage):
        return {**entry, "kind": "damage", "seq": None, "text": part.reason}
    record = schema.decode(frame.payload(data, part.offset, part.end))
    seq = None if part.structural else first_seq + part.seq
    return {**entry, "kind": schema.kind_of(record), "seq": seq, "text": _text(record)}


def _text(record: schema.AnyRecord) -> str:
    fields = {name: getattr(record, name) for name in record.__struct_fields__}
    if isinstance(record, schema.Log | schema.System):
        fields["values"] = memoryview(record.values).cast("d").tolist() if len(record.values) % 8 == 0 else "?"
    text = values.to_json(fields).decode()
    return text if len(text) <= _TEXT_LENGTH else text[: _TEXT_LENGTH - 3] + "..."


def _manifest(fs: Fs, path: str, limit: int) -> Inspected:
    found = manifests.from_bytes(fs.read(path), path)
    facts = msgspec.to_builtins(found)
    entries = facts.pop("files")
    facts["metric_names"] = sorted({name for names in facts.pop("name_sets") for name in names})
    facts["files"] = len(entries)
    facts["rows"] = {
        table: sum(f.rows for f in found.of_table(table)) for table in sorted({f.table for f in found.files})
    }
    facts["records"] = sum(mark.records for mark in found.writers.values())
    return _limited(path, "manifest", facts, entries, limit)


def _parquet(fs: Fs, path: str, limit: int) -> Inspected:
    reader = parquet.DataFileReader(fs, path)
    facts = {
        "rows": reader.rows,
        "size_bytes": fs.size(path),
        "row_groups": [rows for _, rows in reader.group_ranges()],
        "columns": {field.name: str(field.type) for field in reader.schema},
    }
    return _limited(path, "parquet", facts, [piece._asdict() for piece in reader.pieces], limit)


def _limited(path: str, form: str, facts: dict[str, Any], entries: list[dict[str, Any]], limit: int) -> Inspected:
    shown = entries[:limit]
    return Inspected(path=path, form=form, facts=facts, entries=shown, left_out=len(entries) - len(shown), problems=[])
