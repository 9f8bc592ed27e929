"""Make the version 1 fixtures beside this file. They are written once: a later release must read them, not remake them.

Run it in an empty checkout of the release whose format is to be pinned. Ids and times are fixed, so that the
segments come out the same every time; `test_v1.py` says that today's code still builds these very bytes. The
parquet files depend on the version of pyarrow and are compared by what they hold.
"""

from __future__ import annotations

import json
import math
import os
import struct
import sys

import msgspec

from eventlog import columns, frame, manifest, names, schema, segment, tail, values
from eventlog.blobs import BlobStore
from eventlog.fs import LOCAL

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.join(HERE, "v1")
PROJECT = "golden"
EVERY_KIND = "01j0000000000000000000000a"
TORN = "01j0000000000000000000000b"
DAMAGED = "01j0000000000000000000000c"
RUN = "01j000000000000000000000r1"
OTHER_RUN = "run/ü 2"
T0 = 1_700_000_000_000_000_000
BLOB = b"the bytes of a blob\n"
BLOB_DIGEST = "5034431100227999cf3101b0398d2a5b54e00810a75e9f5c367e584f5a92f112"


class Builder:
    """Puts frames one after the other, as a writer does."""

    def __init__(self, writer_id: str, segno: int, first_seq: int) -> None:
        """Begin with the header and the first frame."""
        header = segment.Header(writer_id, segno, first_seq, T0)
        self.first_seq = first_seq
        self.seq = 0
        self.last_shape = 0
        self.data = segment.build_header(header)
        self.structural(
            schema.SegmentStart(writer_id, segno, first_seq, T0, PROJECT, "host", 42, "boot", "golden 1"),
        )

    def structural(self, record: schema.Record) -> None:
        """Append a frame that takes no seq."""
        self.data += frame.build(schema.encode(record), self.seq, structural=True)

    def shape(self, number: int, run_id: str, rank: int | None, metric_names: list[str]) -> None:
        """Announce a shape, twice."""
        at = len(self.data)
        record = schema.Shape(number, run_id, rank, metric_names, self.last_shape)
        self.structural(record)
        self.structural(record)
        self.last_shape = at

    def add(self, record: schema.Record) -> None:
        """Append a record."""
        self.raw(schema.encode(record))

    def raw(self, payload: bytes) -> None:
        """Append a record from its payload."""
        self.data += frame.build(payload, self.seq)
        self.seq += 1

    def log(self, shape: int, step: int | None, numbers: list[float], others: dict[str, object] | None = None) -> None:
        """Append a log record; its time follows from its seq."""
        packed = struct.pack(f"<{len(numbers)}d", *numbers)
        self.add(schema.Log(T0 + self.seq * 1_000, step, shape, packed, others))

    def seal(self, *, final: bool) -> None:
        """Append the last frame."""
        self.structural(schema.Seal(self.seq, self.first_seq + self.seq, final))


def every_kind() -> bytes:
    """Return a sealed segment with every kind of record, an unknown kind 99 and an unknown structural kind 98."""
    b = Builder(EVERY_KIND, 1, 1)
    start = schema.RunStart(
        T0,
        RUN,
        PROJECT,
        "first",
        "group",
        ["a", "ü"],
        {"lr": 0.001, "deep": {"list": [1, None, "x"]}, "nan": math.nan, "big": {"_type": "int", "value": str(10**30)}},
        "host",
        "user",
        42,
        0,
        2,
        ["train.py", "--fast"],
        {"commit": "0" * 40, "branch": "main"},
        {"python": "3.11.0"},
        "new",
        None,
    )
    b.add(start)
    b.shape(0, RUN, 0, ["loss", "acc/ü", "_odd", ".dot"])
    b.log(0, 0, [1.5, 0.25, -1.0, 2.0])
    b.log(0, 1, [math.nan, math.inf, -math.inf, -0.0])
    b.log(0, (1 << 63) - 1, [5e-324, 1.7976931348623157e308, 1.0, 2.0])
    b.log(0, None, [1.0, 2.0, 3.0, 4.0], {"note": "some text", "flag": True, "none": None})
    b.shape(1, RUN, 0, ["big", "huge"])
    b.log(
        1,
        -5,
        [float(2**53 + 1), float(2**70)],
        {"big": 2**53 + 1, "huge": {"_type": "int", "value": str(2**70)}},
    )
    b.shape(2, RUN, 0, [])
    file = {"_type": "file", "sha256": BLOB_DIGEST, "size_bytes": len(BLOB), "name": "blob.txt"}
    b.log(
        2,
        7,
        [],
        {
            "file": file,
            "hist": {"_type": "histogram", "counts": [1, 2], "edges": [0.0, 0.5, 1.0]},
            "list": [1, 2.5, math.nan, math.inf, "x", None, b"\x00\xff"],
        },
    )
    b.shape(3, RUN, 0, ["cpu", "gpu.0.mem"])
    b.add(schema.System(T0 + 20, 3, struct.pack("<2d", 50.0, 1e9)))
    b.add(schema.ConfigPatch(T0 + 21, RUN, {"lr": 0.01}))
    b.add(schema.SummarySet(T0 + 22, RUN, {"best": 0.5}))
    b.add(schema.MetricDef(T0 + 23, RUN, "loss", "epoch", "minimize", "min"))
    b.add(schema.Alert(T0 + 24, RUN, "title", "text", "error", 3, "alert-1"))
    b.add(schema.Console(T0 + 25, RUN, "stdout", "hello\n"))
    b.add(schema.Heartbeat(T0 + 26, RUN))
    b.add(
        schema.ArtifactVersion(T0 + 27, RUN, "model", "model", "v0", "d" * 64, ["latest"], {"k": 1}, {"a.bin": file}),
    )
    b.add(schema.ArtifactUse(T0 + 28, RUN, "data", "v3"))
    b.add(schema.Admin(T0 + 29, RUN, "tag", {"tags": ["b"]}))
    b.add(schema.Dropped(T0 + 30, "", 3, "ENOSPC: No space left on device", T0 + 10))
    b.data += frame.build(msgspec.msgpack.encode([98, "a structural frame of the future"]), b.seq, structural=True)
    b.raw(msgspec.msgpack.encode([99, T0 + 31, RUN, "a kind of the future", {"nested": [1, 2]}]))
    later = msgspec.msgpack.encode([12, T0 + 32, RUN, "a trailing field of the future"])
    b.raw(later)
    b.add(schema.RunEnd(T0 + 33, RUN, "finished", 0))
    b.add(schema.Receipt(T0 + 34, "", bytes(range(12))))
    b.add(schema.Upload(T0 + 35, RUN, "golden/first/7/blob.txt", BLOB_DIGEST, len(BLOB), 7))
    b.seal(final=True)
    return b.data


def torn() -> tuple[bytes, int]:
    """Return an open segment that ends in the middle of a frame, and how much of it a fold has seen."""
    b = Builder(TORN, 1, 1)
    b.add(schema.RunStart(T0 + 1_000_000, OTHER_RUN, PROJECT, "second"))
    b.shape(0, OTHER_RUN, None, ["loss"])
    for step in range(40):
        b.log(0, step, [1.0 / (step + 1)])
    folded = len(b.data)
    b.log(0, 40, [0.5])
    b.log(0, 41, [0.25], {"note": "in the tail"})
    whole = b.data
    b.log(0, 42, [0.125])
    return b.data[: len(whole) + 20], folded


def damaged() -> bytes:
    """Return a sealed segment with one flipped bit in a body (record 5) and a header full of zeros (record 8)."""
    b = Builder(DAMAGED, 1, 1)
    b.shape(0, RUN, 1, ["loss"])
    places: list[tuple[int, int]] = []
    for step in range(10):
        before = len(b.data)
        b.log(0, step, [float(step)])
        places.append((before, len(b.data)))
    b.seal(final=True)
    data = bytearray(b.data)
    data[places[4][1] - 3] ^= 0x10
    data[places[7][0] : places[7][0] + frame.HEADER_BYTES] = bytes(frame.HEADER_BYTES)
    return bytes(data)


def segments() -> dict[str, bytes]:
    """Return the segments by their path in the store."""
    return {
        f"segments/{PROJECT}/{EVERY_KIND}/00000001.seg": every_kind(),
        f"segments/{PROJECT}/{TORN}/00000001.open": torn()[0],
        f"segments/{PROJECT}/{DAMAGED}/00000001.seg": damaged(),
    }


def records_text() -> str:
    """Return what the plain reader reads, one JSON line a record or damage."""
    lines: list[str] = []
    for path, data in segments().items():
        header = segment.parse_header(data, path)
        for item in segment.items(data, header):
            if isinstance(item, segment.Damage):
                line = [path, "damage", item.offset, item.end, item.reason, item.at_end]
            else:
                line = [path, item.seq, item.offset, schema.kind_of(item.record), _fields(item.record)]
            lines.append(values.to_json(line).decode())
    return "\n".join(lines) + "\n"


def _fields(record: schema.AnyRecord) -> dict[str, object]:
    return {name: getattr(record, name) for name in record.__struct_fields__}


def rows_text() -> str:
    """Return the rows that the fixtures stand for, one JSON line a row, numbers as `float.hex` writes them."""
    lines: list[list[object]] = []
    for writer_id in (EVERY_KIND, TORN, DAMAGED):
        batch = columns.Batch()
        tail.WriterReader(LOCAL, ROOT, PROJECT, writer_id, manifest.Watermark(), batch).read()
        for table, blocks in (("metrics", batch.metrics), ("system", batch.system)):
            lines += [line for block in blocks for line in _block_lines(table, block)]
        lines += [["events", row.writer_id, row.seq, *row[:5], row.payload] for row in batch.events]
    lines.sort(key=lambda line: (str(line[0]), str(line[1]), line[2], str(line[4])))
    return "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)


def _block_lines(table: str, block: columns.Block) -> list[list[object]]:
    lines: list[list[object]] = []
    for row in range(len(block.seq)):
        present = block.step is not None and (block.has_step is None or bool(block.has_step[row]))
        step = int(block.step[row]) if present and block.step is not None else None
        cells = {name: float(block.values[row, i]).hex() for i, name in enumerate(block.names)}
        seq, time_ns = int(block.seq[row]), int(block.time_ns[row])
        lines.append([table, block.writer_id, seq, block.run_id, block.rank, step, time_ns, cells])
    return lines


def write(path: str, data: bytes) -> None:
    """Write a new file of the store."""
    full = os.path.join(ROOT, path)
    os.makedirs(os.path.dirname(full), exist_ok=True)
    with open(full, "xb") as file:
        file.write(data)


def make_snapshot() -> None:
    """Fold the segments, and give what the fold made fixed names, time and committer."""
    from compactor.config import CompactorConfig
    from compactor.fold import fold

    made = fold(LOCAL, ROOT, PROJECT, CompactorConfig(), time_ns=lambda: T0 + 10**12).manifest
    files: list[manifest.DataFile] = []
    for index, file in enumerate(made.files):
        path = names.data_file_path(file.table, f"{made.version:012d}-{index:016x}.parquet")
        base = names.snapshot_dir(ROOT, PROJECT)
        os.rename(os.path.join(base, file.path), os.path.join(base, path))
        files.append(msgspec.structs.replace(file, path=path))
    os.remove(names.manifest_path(ROOT, PROJECT, made.version))
    fixed = msgspec.structs.replace(made, files=files, committer="golden:1")
    relative = os.path.relpath(names.manifest_path(ROOT, PROJECT, made.version), ROOT)
    write(relative, manifest.to_bytes(fixed))


def main() -> None:
    """Write everything."""
    ref = BlobStore(ROOT).put(BLOB)
    if ref.digest != BLOB_DIGEST:
        sys.exit(f"BLOB_DIGEST must be {ref.digest}")
    whole, folded = torn()
    open_path = f"segments/{PROJECT}/{TORN}/00000001.open"
    for path, data in segments().items():
        write(path, data[:folded] if path == open_path else data)
    make_snapshot()
    with open(os.path.join(ROOT, open_path), "wb") as file:
        file.write(whole)
    write("records.jsonl", records_text().encode())
    write("rows.jsonl", rows_text().encode())


if __name__ == "__main__":
    main()
