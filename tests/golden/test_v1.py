"""Today's code reads what the first release wrote, to the last bit, and refuses by name what a later one will write."""

from __future__ import annotations

import json
import os
import runpy
import shutil
import struct
import zlib
from typing import Any

import msgspec
import pyarrow.parquet as pq
import pytest

from eventlog import columns, manifest, names, proof, schema, segment, tail, values
from eventlog.blobs import BlobStore
from eventlog.errors import DataError, NewerFormatError
from eventlog.fs import LOCAL

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.join(HERE, "v1")
PROJECT = "golden"
EVERY_KIND = "01j0000000000000000000000a"
TORN = "01j0000000000000000000000b"
DAMAGED = "01j0000000000000000000000c"
TABLES = ("metrics", "system", "events")


def golden(path: str) -> bytes:
    with open(os.path.join(ROOT, path), "rb") as file:
        return file.read()


def lines(name: str) -> list[str]:
    return golden(name).decode().splitlines()


def made() -> dict[str, Any]:
    return runpy.run_path(os.path.join(HERE, "make_v1.py"))


def read_writer(writer_id: str, mark: manifest.Watermark | None = None) -> tuple[columns.Batch, tail.Found]:
    batch = columns.Batch()
    found = tail.WriterReader(LOCAL, ROOT, PROJECT, writer_id, mark or manifest.Watermark(), batch).read()
    return batch, found


def load_manifest() -> manifest.Manifest:
    newest, problems = manifest.load_newest(LOCAL, ROOT, PROJECT)
    assert problems == []
    return newest


def with_format(version: int) -> bytes:
    """Return an intact segment header of another version."""
    path = f"segments/{PROJECT}/{EVERY_KIND}/00000001.seg"
    header = bytearray(golden(path)[: segment.HEADER_BYTES])
    struct.pack_into("<H", header, 8, version)
    struct.pack_into("<I", header, 60, zlib.crc32(bytes(header[:60])))
    return bytes(header)


def test_the_fixtures_stay_small():
    sizes = [os.path.getsize(os.path.join(base, name)) for base, _, found in os.walk(ROOT) for name in found]
    assert sum(sizes) < 200_000


@pytest.mark.parametrize("path", sorted(made()["segments"]()))
def test_todays_code_builds_the_segments_byte_for_byte(path: str):
    assert made()["segments"]()[path] == golden(path)


def test_the_plain_reader_reads_every_record_and_every_damage_as_written_down():
    assert made()["records_text"]().splitlines() == lines("records.jsonl")


def test_the_fast_reader_reads_every_row_as_written_down():
    assert made()["rows_text"]().splitlines() == lines("rows.jsonl")


def test_every_kind_is_in_the_fixtures():
    seen = {json.loads(line)[3] for line in lines("records.jsonl")}
    assert {schema._NAMES[kind] for kind in schema.KINDS} <= seen
    assert {"unknown:98", "unknown:99"} <= seen


def test_special_numbers_keep_their_bits():
    data = golden(f"segments/{PROJECT}/{EVERY_KIND}/00000001.seg")
    header = segment.parse_header(data, "")
    logs = [i.record for i in segment.items(data, header) if isinstance(i, segment.Item)]
    logs = [record for record in logs if isinstance(record, schema.Log)]
    assert logs[1].values == struct.pack("<4d", float("nan"), float("inf"), float("-inf"), -0.0)
    assert logs[2].values == struct.pack("<4d", 5e-324, 1.7976931348623157e308, 1.0, 2.0)
    assert [log.step for log in logs] == [0, 1, (1 << 63) - 1, None, -5, 7]


def test_unknown_kinds_keep_their_seq_time_and_run_and_lose_nothing():
    batch, found = read_writer(EVERY_KIND)
    row = next(row for row in batch.events if row.kind == "unknown:99")
    assert (row.seq, row.run_id, row.time_ns) == (19, "01j000000000000000000000r1", 1_700_000_000_000_000_031)
    assert values.from_json(row.payload)[2:] == ["a kind of the future", {"nested": [1, 2]}]
    assert "unknown:98" not in {row.kind for row in batch.events}
    assert found.gaps == []
    assert found.watermark.done


def test_a_torn_tail_is_no_damage_and_no_gap():
    batch, found = read_writer(TORN)
    assert (found.gaps, found.damages) == ([], [])
    assert found.watermark.seq == 43
    assert batch.records == 43
    size = len(golden(f"segments/{PROJECT}/{TORN}/00000001.open"))
    assert size - found.watermark.offset == 20


def test_damage_costs_its_own_frames_and_is_reported():
    batch, found = read_writer(DAMAGED)
    assert [(gap.first_seq, gap.last_seq) for gap in found.gaps] == [(5, 5), (8, 8)]
    assert [gap.reason for gap in found.gaps] == [
        "the body does not match its checksum",
        "the header does not match its checksum",
    ]
    assert [(damage.offset, damage.size_bytes) for damage in found.damages] == [(401, 38), (515, 38)]
    assert batch.metrics[0].seq.tolist() == [1, 2, 3, 4, 6, 7, 9, 10]


def test_damaged_bytes_are_in_quarantine_with_their_reason():
    data = golden(f"segments/{PROJECT}/{DAMAGED}/00000001.seg")
    for item in load_manifest().quarantined:
        start = f"quarantine/{PROJECT}/{item.name}"
        assert golden(start + ".bin") == data[item.offset : item.offset + item.size_bytes]
        assert msgspec.json.decode(golden(start + ".json"), type=manifest.Quarantined) == item


def test_the_manifest_says_what_it_said():
    newest = load_manifest()
    assert (newest.format, newest.project, newest.version, newest.parent) == (1, PROJECT, 1, 0)
    assert (newest.action, newest.committer, newest.created_ns) == ("fold", "golden:1", 1_700_001_000_000_000_000)
    assert newest.name_sets == [[".dot", "_odd", "acc/ü", "big", "huge", "loss"], ["cpu", "gpu.0.mem"]]
    assert {w: (m.seq, m.records, m.dropped, m.done) for w, m in newest.writers.items()} == {
        EVERY_KIND: (23, 23, 3, True),
        TORN: (41, 41, 0, False),
        DAMAGED: (10, 8, 0, True),
    }
    assert [(gap.writer_id, gap.first_seq, gap.last_seq) for gap in newest.gaps] == [(DAMAGED, 5, 5), (DAMAGED, 8, 8)]
    assert [(file.table, file.rows) for file in newest.files] == [
        ("metrics", 53),
        ("system", 1),
        ("events", 25),
        ("runs", 3),
    ]


def test_todays_code_writes_the_manifest_byte_for_byte():
    path = os.path.relpath(names.manifest_path(ROOT, PROJECT, 1), ROOT)
    assert manifest.to_bytes(load_manifest()) == golden(path)


def test_the_parquet_files_have_their_checksums():
    for file in load_manifest().files:
        path = os.path.join(names.snapshot_dir(ROOT, PROJECT), file.path)
        table = pq.read_table(path)
        assert table.num_rows == file.rows
        if file.table != "runs":
            assert f"{proof.rows_checksum(file.table, table):016x}" == file.checksum


def test_snapshot_and_tail_together_are_every_row_once():
    newest = load_manifest()
    keys: list[tuple[str, str, int]] = []
    for file in newest.files:
        if file.table in ("metrics", "system"):
            table = pq.read_table(os.path.join(names.snapshot_dir(ROOT, PROJECT), file.path))
            keys += [
                (file.table, w, s) for w, s in zip(table["_writer"].to_pylist(), table["_seq"].to_pylist(), strict=True)
            ]
    assert len(keys) == 54
    for writer_id, mark in newest.writers.items():
        batch, found = read_writer(writer_id, mark)
        assert found.gaps == []
        keys += [("metrics", writer_id, int(seq)) for block in batch.metrics for seq in block.seq]
    expected = [tuple(json.loads(line)[:3]) for line in lines("rows.jsonl") if json.loads(line)[0] != "events"]
    assert sorted(keys) == sorted(expected)


def test_the_snapshot_holds_the_same_rows_as_the_segments():
    newest = load_manifest()
    total = dict.fromkeys(TABLES, 0)
    for writer_id, mark in newest.writers.items():
        whole, _ = read_writer(writer_id)
        after, _ = read_writer(writer_id, mark)
        for table in TABLES:
            total[table] += whole.checksums()[table] - after.checksums()[table]
    for table in TABLES:
        files = newest.of_table(table)
        assert sum(int(file.checksum, 16) for file in files) % 2**64 == total[table] % 2**64


def test_the_blob_is_read_back_and_checked():
    blobs = BlobStore(ROOT)
    digest = made()["BLOB_DIGEST"]
    assert blobs.get(digest) == b"the bytes of a blob\n"


def test_a_segment_of_version_2_is_refused_by_name(tmp_path: Any):
    with pytest.raises(NewerFormatError, match="version 2 is not supported, only 1") as caught:
        segment.parse_header(with_format(2), "some/path")
    assert (caught.value.path, caught.value.offset) == ("some/path", 8)

    root = str(tmp_path)
    directory = names.writer_dir(root, PROJECT, EVERY_KIND)
    os.makedirs(directory)
    with open(os.path.join(directory, "00000001.seg"), "wb") as file:
        file.write(with_format(2))
    reader = tail.WriterReader(LOCAL, root, PROJECT, EVERY_KIND, manifest.Watermark(), columns.Batch())
    with pytest.raises(NewerFormatError, match="version 2"):
        reader.read()


def test_a_damaged_version_number_is_damage_and_not_a_newer_format():
    header = bytearray(with_format(1))
    header[8] = 2
    with pytest.raises(DataError, match="checksum") as caught:
        segment.parse_header(bytes(header), "some/path")
    assert not isinstance(caught.value, NewerFormatError)


def test_a_manifest_of_format_2_is_refused_by_name(tmp_path: Any):
    shutil.copytree(ROOT, tmp_path / "store")
    root = str(tmp_path / "store")
    later = msgspec.structs.replace(load_manifest(), format=2, version=2, parent=1)
    with open(names.manifest_path(root, PROJECT, 2), "wb") as file:
        file.write(manifest.to_bytes(later))
    with pytest.raises(NewerFormatError, match="format 2 is not supported, only 1"):
        manifest.load_newest(LOCAL, root, PROJECT)


def test_a_damaged_manifest_falls_back_to_the_one_before(tmp_path: Any):
    shutil.copytree(ROOT, tmp_path / "store")
    root = str(tmp_path / "store")
    data = bytearray(manifest.to_bytes(msgspec.structs.replace(load_manifest(), version=2, parent=1)))
    data[len(data) // 2] ^= 1
    with open(names.manifest_path(root, PROJECT, 2), "wb") as file:
        file.write(bytes(data))
    newest, problems = manifest.load_newest(LOCAL, root, PROJECT)
    assert newest == load_manifest()
    assert len(problems) == 1
