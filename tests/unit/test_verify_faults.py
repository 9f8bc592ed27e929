"""Every fault that can be seeded into a store is found, by name, and nothing else is blamed."""

from __future__ import annotations

import json
import os
import shutil
import struct
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

import eventlog
from compactor import stage
from compactor.commit import StagedFile
from compactor.config import CompactorConfig
from compactor.fold import fold
from eventlog import arrow, frame, names, parquet, runrows, schema, segment
from eventlog import manifest as manifests
from eventlog.config import WriterConfig
from eventlog.fs import LOCAL
from eventlog.manifest import Manifest, Watermark
from eventlog.verify import verify
from eventlog.verify.report import Report

PROJECT = "p"
QUIET = WriterConfig(sync_interval_s=None)
DIGEST = "0123456789abcdef" * 4


@pytest.fixture
def root(tmp_path: Any) -> str:
    """Return a store with two runs, three segments, a blob, and no snapshot."""
    store = str(tmp_path / "store")
    with eventlog.init(PROJECT, "first", dir=store, settings=QUIET) as run:
        for step in range(50):
            run.log({"loss": 1.0 / (step + 1), "text": f"step {step}"})
        run._writer.roll()
        for step in range(50, 100):
            run.log({"loss": 1.0 / (step + 1)})
        run.log({"file": eventlog.File(b"the bytes", name="a.bin")})
        run.log_system({"cpu": 1.0})
    with eventlog.init(PROJECT, "second", dir=store, settings=QUIET) as run:
        for step in range(10):
            run.log({"acc": step})
    return store


@pytest.fixture
def folded(root: str) -> str:
    """Return the same store with a snapshot of everything."""
    fold_all(root)
    return root


def fold_all(root: str, **config: Any) -> Manifest:
    return fold(LOCAL, root, PROJECT, CompactorConfig(**config)).manifest


def newest(root: str) -> Manifest:
    return manifests.load_newest(LOCAL, root, PROJECT)[0]


def codes(report: Report) -> list[str]:
    return sorted({finding.code for finding in report.findings})


def data_path(root: str, table: str) -> str:
    (file,) = newest(root).of_table(table)
    return os.path.join(names.snapshot_dir(root, PROJECT), file.path)


def segments(root: str) -> list[str]:
    """Return the paths of all segments, by writer and number."""
    return sorted(os.path.join(base, name) for base, _, found in os.walk(names.segments_dir(root)) for name in found)


def flip(path: str, offset: int, mask: int = 0x10) -> None:
    with open(path, "r+b") as file:
        file.seek(offset)
        (byte,) = file.read(1)
        file.seek(offset)
        file.write(bytes([byte ^ mask]))


def publish(root: str, **changes: Any) -> None:
    """Publish a manifest that no commit would allow."""
    last = newest(root)
    forged = msgspec.structs.replace(last, version=last.version + 1, parent=last.version, **changes)
    assert manifests.publish(LOCAL, root, forged)


def record_offsets(path: str) -> list[tuple[int, int]]:
    data = LOCAL.read(path)
    found = segment.items(data, segment.parse_header(data, path))
    return [
        (item.offset, item.end)
        for item in found
        if isinstance(item, segment.Item) and isinstance(item.record, schema.Log)
    ]


def test_the_store_of_these_tests_is_clean(root: str):
    before = verify(root)
    fold_all(root)
    after = verify(root, blobs=True)
    assert (before.findings, after.findings) == ([], [])
    assert before.records == after.records == 104 + 12


@pytest.mark.invariant(8)
@pytest.mark.parametrize("table", ["metrics", "system", "events", "runs"])
def test_a_deleted_data_file_is_missing_and_its_records_are_lost(folded: str, table: str):
    os.unlink(data_path(folded, table))
    report = verify(folded)
    assert "file_missing" in codes(report)
    assert report.lost > 0 if table in ("system", "events") else True
    assert ("lost" in codes(report)) == (report.lost > 0)
    if table == "metrics":
        assert report.lost == 50 + 10  # the other fifty have a row of events too, which is left


@pytest.mark.invariant(8)
@pytest.mark.parametrize("table", ["metrics", "system", "events", "runs"])
@pytest.mark.parametrize("place", [0.0, 0.3, 0.6, 0.95, 1.0])
def test_a_flipped_bit_in_parquet_is_found(folded: str, table: str, place: float):
    path = data_path(folded, table)
    flip(path, int(place * (os.path.getsize(path) - 1)))
    report = verify(folded)
    assert "file_changed" in codes(report)
    assert any(path.endswith(finding.where) for finding in report.findings)


def test_a_truncated_data_file_is_found(folded: str):
    path = data_path(folded, "metrics")
    os.truncate(path, os.path.getsize(path) // 2)
    assert "file_changed" in codes(verify(folded))


@pytest.mark.invariant(2)
def test_a_flipped_bit_in_a_segment_is_one_gap_and_one_damage(root: str):
    path = segments(root)[0]
    offset, end = record_offsets(path)[5]
    flip(path, end - 3)
    report = verify(root)
    assert codes(report) == ["damaged", "gap"]
    assert (report.gaps, report.records) == (1, 115)
    (damage,) = [finding for finding in report.findings if finding.code == "damaged"]
    assert damage.where == os.path.relpath(path, root)
    assert f"bytes {offset} to {end}" in damage.message


@pytest.mark.invariant(7)
def test_damage_that_a_fold_set_aside_is_quarantined_not_damaged(root: str):
    path = segments(root)[0]
    flip(path, record_offsets(path)[5][1] - 3)
    fold_all(root)
    report = verify(root)
    assert codes(report) == ["gap", "quarantined"]
    assert (report.gaps, report.quarantined, report.lost, report.records) == (1, 1, 0, 115)
    shutil.rmtree(names.quarantine_dir(root, PROJECT))
    assert any("the copy is not in the quarantine" in finding.message for finding in verify(root).findings)


def test_damage_that_came_after_the_fold_is_not_hidden_by_what_was_set_aside(root: str):
    path = segments(root)[0]
    offsets = record_offsets(path)
    flip(path, offsets[5][1] - 3)
    fold_all(root)
    flip(path, offsets[9][1] - 3)
    assert codes(verify(root)) == ["damaged", "gap", "quarantined"]


def test_a_flipped_bit_in_a_folded_segment_is_found_and_nothing_is_lost(folded: str):
    path = segments(folded)[0]
    flip(path, record_offsets(path)[5][1] - 3)
    report = verify(folded)
    assert codes(report) == ["damaged"]
    assert (report.lost, report.gaps, report.records) == (0, 0, 116)


def test_a_damaged_header_costs_nothing_but_is_found(root: str):
    flip(segments(root)[0], 20)
    report = verify(root)
    assert codes(report) == ["damaged"]
    assert report.records == 116


def test_a_segment_whose_headers_are_both_damaged_is_found_and_its_records_are_a_gap(root: str):
    path = segments(root)[0]
    flip(path, 20)
    flip(path, 100)
    report = verify(root)
    assert codes(report) == ["damaged", "gap"]
    assert report.gaps == 51


@pytest.mark.invariant(3)
@pytest.mark.parametrize("kept", [0.5, 0.9])
def test_a_truncated_sealed_segment_is_damaged(root: str, kept: float):
    path = segments(root)[0]
    os.truncate(path, int(os.path.getsize(path) * kept) + 1)
    assert codes(verify(root)) == ["damaged", "gap"]


@pytest.mark.invariant(3)
def test_a_sealed_segment_without_its_seal_is_damaged(root: str):
    path = segments(root)[1]
    data = LOCAL.read(path)
    *_, last = segment.items(data, segment.parse_header(data, path))
    assert isinstance(last, segment.Item)
    os.truncate(path, last.offset)
    assert codes(verify(root)) == ["damaged"]


def test_a_removed_segment_that_nobody_folded_is_a_gap(root: str):
    os.unlink(segments(root)[0])
    report = verify(root)
    assert codes(report) == ["gap"]
    assert (report.gaps, report.records) == (51, 65)
    assert "1-51" in report.findings[0].message
    fold_all(root, missing_grace_s=0.0)
    again = verify(root)
    assert (codes(again), again.gaps, again.records) == (["gap"], 51, 65)


def test_a_segment_that_came_after_its_gap_was_recorded_is_told(root: str):
    path = segments(root)[0]
    data = LOCAL.read(path)
    os.unlink(path)
    fold_all(root, missing_grace_s=0.0)
    with open(path, "wb") as file:
        file.write(data)
    (finding,) = verify(root).findings
    assert finding.code == "gap"
    assert "51 of them stand in a segment" in finding.message


def test_a_removed_segment_that_was_folded_costs_nothing(folded: str):
    os.unlink(segments(folded)[0])
    report = verify(folded)
    assert (report.findings, report.records) == ([], 116)


@pytest.mark.invariant(8)
@pytest.mark.parametrize("table", ["metrics", "system", "events"])
def test_rows_that_two_files_hold_are_doubled(folded: str, table: str):
    last = newest(folded)
    (file,) = last.of_table(table)
    copy = names.data_file_path(table, names.data_file_name(last.version + 1))
    base = names.snapshot_dir(folded, PROJECT)
    shutil.copy(os.path.join(base, file.path), os.path.join(base, copy))
    publish(folded, files=[*last.files, msgspec.structs.replace(file, path=copy)])
    report = verify(folded)
    assert {"doubled", "checksum_wrong", "runs_wrong"} <= set(codes(report))
    assert report.doubled > 0
    if table == "metrics":
        assert report.doubled == file.rows == 110


@pytest.mark.invariant(8)
def test_a_path_that_is_named_twice_doubles_its_rows(folded: str):
    last = newest(folded)
    publish(folded, files=[*last.files, *last.of_table("events")])
    assert {"doubled", "checksum_wrong"} <= set(codes(verify(folded)))


def rewrite(root: str, table: str, change: Callable[[Any], Any], **claims: Any) -> None:
    """Publish a manifest whose file of a table holds changed rows, all of its claims about bytes being true."""
    last = newest(root)
    (file,) = last.of_table(table)
    reader = parquet.DataFileReader(LOCAL, os.path.join(names.snapshot_dir(root, PROJECT), file.path))
    rows = change(reader.read(None))
    writer = parquet.Writer(LOCAL, root, PROJECT, table, rows.schema, last.version + 1)
    writer.write(rows)
    size, digest = writer.finish(reader.pieces)
    new = msgspec.structs.replace(
        file, path=writer.path, size_bytes=size, sha256=digest, **{"rows": rows.num_rows, **claims}
    )
    publish(root, files=[new if old.path == file.path else old for old in last.files])


@pytest.mark.invariant(8)
def test_a_row_doubled_within_a_file_is_found(folded: str):
    rewrite(folded, "metrics", lambda rows: arrow.pa.concat_tables([rows.slice(0, 1), rows]))
    report = verify(folded)
    assert {"doubled", "checksum_wrong", "order_wrong"} <= set(codes(report))
    assert report.doubled == 1


@pytest.mark.invariant(8)
def test_an_event_doubled_within_a_file_is_found_and_several_of_one_record_are_not(folded: str):
    rewrite(folded, "events", lambda rows: arrow.pa.concat_tables([rows.slice(0, 3), rows.slice(2)]))
    report = verify(folded)
    assert (report.doubled, "doubled" in codes(report)) == (1, True)


@pytest.mark.invariant(8)
def test_a_row_that_is_left_out_is_lost(folded: str):
    rewrite(folded, "metrics", lambda rows: rows.slice(0, 109))
    report = verify(folded)
    assert {"lost", "checksum_wrong", "index_wrong", "runs_wrong"} <= set(codes(report))
    assert report.lost == 1


@pytest.mark.invariant(8)
def test_a_changed_value_is_found_even_when_every_claim_in_the_manifest_is_true(folded: str):
    def double(rows: Any) -> Any:
        index = rows.schema.names.index("loss")
        return rows.set_column(index, "loss", arrow.pa.compute.multiply(rows["loss"], 2.0))

    from eventlog.proof import rows_checksum

    (file,) = newest(folded).of_table("metrics")
    old = parquet.DataFileReader(LOCAL, os.path.join(names.snapshot_dir(folded, PROJECT), file.path)).read(None)
    rewrite(folded, "metrics", double, checksum=f"{rows_checksum('metrics', double(old)):016x}")
    report = verify(folded)
    assert codes(report) == ["checksum_wrong", "runs_wrong"]
    (finding,) = [finding for finding in report.findings if finding.code == "checksum_wrong"]
    assert "its segments have the checksum" in finding.message


def test_an_unsorted_file_is_found(folded: str):
    rewrite(folded, "metrics", lambda rows: rows.take(arrow.pa.array([1, 0, *range(2, rows.num_rows)])))
    assert "order_wrong" in codes(verify(folded))


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("rows", 7, ["rows_wrong"]),
        ("checksum", "0" * 16, ["checksum_wrong"]),
        ("sha256", "0" * 64, ["file_changed", "lost"]),
        ("size_bytes", 1, ["file_changed", "lost"]),
        ("min_run", "zzz", ["index_wrong"]),
        ("names", -1, ["index_wrong"]),
    ],
)
@pytest.mark.invariant(5)
def test_a_false_claim_about_a_file_is_found(folded: str, field: str, value: Any, expected: list[str]):
    files = newest(folded).files
    publish(
        folded,
        files=[msgspec.structs.replace(file, **{field: value}) if file.table == "metrics" else file for file in files],
    )
    assert codes(verify(folded)) == expected


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda mark: {"seq": mark.seq + 5, "records": mark.records + 5}, ["lost"]),
        (lambda mark: {"seq": mark.seq - 5, "records": mark.records - 5}, ["unexpected"]),
        (lambda mark: {"records": mark.records + 1}, ["watermark_wrong"]),
        (lambda mark: {"dropped": mark.dropped + 1}, ["dropped", "watermark_wrong"]),
    ],
)
@pytest.mark.invariant(5)
def test_a_false_watermark_is_found(folded: str, change: Callable[[Watermark], dict[str, int]], expected: list[str]):
    marks = newest(folded).writers
    writer_id, mark = next(iter(marks.items()))
    publish(folded, writers={**marks, writer_id: msgspec.structs.replace(mark, **change(mark))})
    assert codes(verify(folded)) == expected


def test_an_edited_manifest_is_damaged_and_the_segments_still_have_everything(folded: str):
    path = names.manifest_path(folded, PROJECT, 1)
    text = LOCAL.read(path).replace(b'"action":"fold"', b'"action":"FOLD"')
    with open(path, "wb") as file:
        file.write(text)
    report = verify(folded)
    assert codes(report) == ["manifest_damaged"]
    assert (report.tail, report.projects[0].version) == (116, 0)


@pytest.mark.invariant(10)
def test_a_manifest_of_a_newer_format_is_a_finding_by_name(folded: str):
    publish(folded, format=2)
    report = verify(folded)
    assert codes(report) == ["newer_format"]
    assert "manifest format 2 is not supported" in report.findings[0].message


@pytest.mark.invariant(10)
def test_a_segment_of_a_newer_format_is_a_finding_by_name(root: str):
    path = segments(root)[2]
    header = bytearray(LOCAL.read(path, 0, 64))
    struct.pack_into("<H", header, 8, 2)
    struct.pack_into("<I", header, 60, segment.zlib.crc32(bytes(header[:60])))
    with open(path, "r+b") as file:
        file.write(header)
    report = verify(root)
    assert codes(report) == ["newer_format"]
    assert "segment format version 2 is not supported" in report.findings[0].message


@pytest.mark.parametrize("stored", [False, True])
def test_a_missing_blob_is_found_once(root: str, *, stored: bool):
    if stored:
        fold_all(root)
    (path,) = blob_paths(root)
    os.unlink(path)
    report = verify(root)
    assert codes(report) == ["blob_missing"]
    assert len(report.findings) == 1
    assert os.path.relpath(path, root) == report.findings[0].where


def blob_paths(root: str) -> list[str]:
    return [os.path.join(base, name) for base, _, found in os.walk(os.path.join(root, "blobs")) for name in found]


def test_a_blob_of_another_size_is_found_and_other_content_when_asked(folded: str):
    (path,) = blob_paths(folded)
    flip(path, 3)
    assert verify(folded).ok
    assert codes(verify(folded, blobs=True)) == ["blob_changed"]
    os.truncate(path, 2)
    assert codes(verify(folded)) == ["blob_changed"]


def test_a_dict_of_the_user_that_looks_like_a_reference_is_none(root: str):
    with eventlog.init(PROJECT, "run", dir=root, config={"data": {"sha256": DIGEST, "size_bytes": 3}}, settings=QUIET):
        pass
    assert verify(root).ok


def test_a_value_of_the_user_with_the_kind_of_a_record_is_none(root: str):
    with eventlog.init(PROJECT, "run", dir=root, settings=QUIET) as run:
        for kind in ("dropped", "admin", "run_start", "run_end", "alert", "artifact_version"):
            run.log({"x": {"_type": kind, "count": 3, "action": "delete", "run_id": run.id}}, step=99)
    fold_all(root)
    report = verify(root)
    assert (report.findings, report.dropped) == ([], 0)


def append_copy(root: str, value: float) -> None:
    """Write a second segment of the first writer, that says something else, or the same, under seqs which are taken."""
    path = segments(root)[0]
    data = LOCAL.read(path)
    header = segment.parse_header(data, path)
    start = schema.SegmentStart(header.writer_id, 3, 2, 1, PROJECT, "", 0, "", "")
    (shape,) = {
        item.record.shape: item.record
        for item in segment.items(data, header)
        if isinstance(item, segment.Item) and isinstance(item.record, schema.Shape)
    }.values()
    first = schema.decode(frame.payload(data, *record_offsets(path)[0]))
    assert isinstance(first, schema.Log)
    log = msgspec.structs.replace(first, values=struct.pack("<d", value))
    made = segment.build_header(segment.Header(header.writer_id, 3, 2, 1))
    made += frame.build(schema.encode(start), 0, structural=True)
    made += frame.build(schema.encode(shape), 0, structural=True)
    made += frame.build(schema.encode(log), 0)
    made += frame.build(schema.encode(schema.Seal(1, 3, False)), 1, structural=True)
    with open(os.path.join(os.path.dirname(path), "00000003.seg"), "wb") as file:
        file.write(made)


@pytest.mark.parametrize("stored", [False, True])
def test_a_copy_with_the_same_records_is_a_duplicate(root: str, *, stored: bool):
    if stored:
        fold_all(root)
    append_copy(root, 1.0)
    report = verify(root)
    assert (report.findings, report.duplicates, report.records) == ([], 1, 116)


@pytest.mark.parametrize("stored", [False, True])
def test_a_copy_with_other_records_under_the_same_seqs_is_a_conflict(root: str, *, stored: bool):
    if stored:
        fold_all(root)
    append_copy(root, 2.0)
    report = verify(root)
    assert codes(report) == ["conflict"]
    assert "the first is 2" in report.findings[0].message
    assert report.findings[0].where.endswith("00000003.seg")


@pytest.mark.invariant(1)
def test_an_open_and_a_sealed_file_of_one_segment_must_agree(root: str):
    path = segments(root)[0]
    other = path.replace(".seg", ".open")
    with open(other, "wb") as file:
        file.write(LOCAL.read(path, 0, 300))
    assert verify(root).ok
    flip(other, 250)
    report = verify(root)
    assert codes(report) == ["conflict"]
    assert report.records == 116


@pytest.mark.invariant(1)
def test_a_segment_under_another_number_or_writer_is_misplaced(root: str):
    first, second, third = segments(root)
    shutil.copy(first, os.path.join(os.path.dirname(first), "00000007.seg"))
    shutil.copy(second, os.path.join(os.path.dirname(third), "00000009.seg"))
    report = verify(root)
    assert codes(report) == ["misplaced"]
    assert (len(report.findings), report.records) == (2, 116)


def test_a_writer_in_the_wrong_project_is_misplaced(root: str):
    shutil.copytree(names.project_segments_dir(root, PROJECT), names.project_segments_dir(root, "other"))
    assert verify(root, PROJECT).ok
    assert codes(verify(root, "other")) == ["misplaced"]


def test_parts_of_runs_that_do_not_fit_the_rows_are_found(folded: str):
    last = newest(folded)
    (old,) = last.of_table("runs")
    reader = parquet.DataFileReader(LOCAL, os.path.join(names.snapshot_dir(folded, PROJECT), old.path))
    parts = runrows.table_to_parts(reader.read(None))
    by_name = {part.name[1]: part for part in parts if part.name}
    by_name["first"].records["metrics"] += 1
    by_name["first"].stats["loss"].max = 9.0
    by_name["second"].deleted = by_name["second"].name and (by_name["second"].name[0], True)
    staged: StagedFile = stage.stage_parts(LOCAL, folded, PROJECT, parts, last.version + 1, 0)
    publish(folded, files=[staged.file if file is old else file for file in last.files])
    report = verify(folded)
    assert codes(report) == ["runs_wrong"]
    messages = " ".join(finding.message for finding in report.findings)
    assert "'metrics': 101" in messages
    assert "metric 'loss'" in messages
    assert "deleted" in messages
    assert len(report.findings) == 2


def test_parts_of_runs_that_are_missing_are_found(folded: str):
    publish(folded, files=[file for file in newest(folded).files if file.table != "runs"])
    report = verify(folded)
    assert codes(report) == ["runs_wrong"]
    assert len(report.findings) == 2


def test_garbage_beside_the_store_is_no_finding(folded: str):
    directory = os.path.dirname(segments(folded)[0])
    for name in ("00000001.seg.bak", ".tmp-0-00000004.seg", "notes.txt"):
        with open(os.path.join(directory, name), "w") as file:
            json.dump({}, file)
    os.makedirs(os.path.join(names.project_segments_dir(folded, PROJECT), "not-a-writer"))
    assert verify(folded).ok
