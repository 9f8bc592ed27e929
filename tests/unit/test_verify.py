"""A store is accounted for to the last record, in whatever state writers and compactor left it."""

from __future__ import annotations

import math
import os
import shutil
import stat
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import eventlog
from compactor.commit import Change, commit
from compactor.compact import merge
from compactor.config import CompactorConfig
from compactor.fold import fold
from compactor.plan import plan_merges
from eventlog import manifest as manifests
from eventlog import names, schema, segment
from eventlog.config import WriterConfig
from eventlog.errors import UsageError
from eventlog.fs import LOCAL
from eventlog.verify import spans, verify
from eventlog.verify.report import CODES

PROJECT = "p"
QUIET = WriterConfig(sync_interval_s=None)


def log_run(root: str, name: str, rows: int = 100, **options: Any) -> eventlog.Run:
    run = eventlog.init(PROJECT, name, dir=root, settings=options.pop("settings", QUIET), **options)
    for step in range(rows):
        run.log({"loss": 1.0 / (step + 1), "acc": step / 10})
    return run


def log_everything(root: str) -> None:
    """Log one run with every kind of value, finished."""
    with log_run(root, "everything", config={"lr": 0.1, "odd": math.nan}, tags=["a"]) as run:
        run.log({"text": "hello", "loss": math.nan, "list": [1, 2.5]}, step=7)
        run.log({"only": "events", "image": eventlog.Image(b"png", name="a.png")})
        run.log({})
        run.log({"loss": math.inf, "_odd": 1.0, ".dot": 2.0})
        run.log_system({"cpu": 50.0})
        run.alert("title", "text")
        run.config["lr"] = 0.2
        run.summary["best"] = 0.5


def fold_all(root: str, **config: Any) -> manifests.Manifest:
    return fold(LOCAL, root, PROJECT, CompactorConfig(**config)).manifest


def compact_all(root: str) -> int:
    """Merge until nothing is left to merge; return how many merges there were."""
    done = 0
    while True:
        newest, _ = manifests.load_newest(LOCAL, root, PROJECT)
        merges = plan_merges(newest, CompactorConfig(fanout=2))
        if not merges:
            return done
        staged = merge(LOCAL, root, newest, merges[0])
        removed = [file.path for file in merges[0].files]
        commit(LOCAL, root, PROJECT, Change(action="compact", added=staged, removed=removed))
        done += 1


@pytest.fixture
def root(tmp_path: Any) -> str:
    return str(tmp_path / "store")


@pytest.mark.invariant(8)
@pytest.mark.parametrize("folded", [False, True])
def test_a_clean_store_has_no_findings(root: str, *, folded: bool):
    log_everything(root)
    log_run(root, "second").finish()
    if folded:
        fold_all(root)
    report = verify(root)
    assert report.findings == []
    assert report.ok
    assert report.records == report.folded + report.tail == 110 + 102
    assert (report.folded if folded else report.tail) == report.records
    assert (report.lost, report.doubled, report.gaps, report.dropped, report.duplicates) == (0, 0, 0, 0, 0)
    assert (report.writers, report.files > 0) == (2, folded)


@pytest.mark.invariant(6)
def test_records_of_a_run_that_goes_on_are_in_the_snapshot_or_in_the_tail(root: str):
    run = log_run(root, "live")
    fold_all(root)
    run.log({"loss": 1.0})
    run.log({"loss": 2.0, "new": 3.0})
    report = verify(root)
    assert (report.folded, report.tail, report.findings) == (101, 2, [])
    fold_all(root)
    report = verify(root)
    assert (report.folded, report.tail, report.findings) == (103, 0, [])
    run.finish()


@pytest.mark.invariant(8)
def test_compaction_changes_neither_account_nor_checksum(root: str):
    for index in range(4):
        log_everything(root) if index % 2 else log_run(root, f"run{index}").finish()
        fold_all(root)
    before = verify(root)
    assert compact_all(root) > 3
    after = verify(root)
    assert after.findings == []
    assert after.checksum == before.checksum
    assert after.records == before.records
    assert after.files < before.files


@pytest.mark.invariant(8)
def test_the_checksum_does_not_depend_on_how_often_was_folded(root: str, tmp_path: Any):
    run = log_run(root, "run", 1000)
    for _ in range(3):
        run.log({"loss": 1.0, "text": "x"})
    once = str(tmp_path / "once")
    run.finish()
    shutil.copytree(root, once)
    while fold(LOCAL, root, PROJECT, CompactorConfig(batch_bytes=4096), stopped=lambda: True).records:
        pass
    fold_all(once)
    many, single = verify(root), verify(once)
    assert many.projects[0].version > single.projects[0].version
    assert many.checksum == single.checksum
    assert not many.findings


def test_collected_segments_leave_the_snapshot_as_the_only_account(root: str):
    log_run(root, "run").finish()
    fold_all(root)
    shutil.rmtree(names.segments_dir(root))
    report = verify(root)
    assert (report.records, report.findings) == (102, [])


def test_a_torn_tail_is_a_note_and_no_finding(root: str):
    run = log_run(root, "run")
    (path,) = segment_files(root)
    with open(path, "ab") as file:
        file.write(b"\x01\x02\x03\x04\x05")
    report = verify(root)
    assert report.findings == []
    assert [note.message for note in report.projects[0].notes] == ["5 bytes are a torn tail, which is normal"]
    os.truncate(path, os.path.getsize(path) - 5)
    run.finish()


def segment_files(root: str) -> list[str]:
    return sorted(os.path.join(base, name) for base, _, found in os.walk(names.segments_dir(root)) for name in found)


@pytest.mark.invariant(12)
def test_dropped_records_are_counted_and_are_a_finding(root: str):
    for folded in (False, True):
        writer = eventlog.init(PROJECT, "run", dir=root, settings=QUIET)._writer
        writer.append(schema.Dropped(1, "", 3, "ENOSPC: No space left on device", 0))
        writer.close()
        if folded:
            fold_all(root)
    report = verify(root)
    assert report.dropped == 6
    assert [finding.code for finding in report.findings] == ["dropped", "dropped"]


def deliver_again(root: str) -> str:
    """Put the records of the only segment into the store once more, as a second segment of the same writer."""
    (path,) = segment_files(root)
    data = LOCAL.read(path)
    header = segment.parse_header(data, path)._replace(segno=2)
    again = os.path.join(os.path.dirname(path), names.segment_name(2, sealed=True))
    with open(again, "xb") as file:
        file.write(segment.build_header(header) + data[segment.HEADER_BYTES :])
    return path


def test_records_delivered_twice_are_duplicates_and_no_finding(root: str):
    with eventlog.init(PROJECT, "run", dir=root, settings=QUIET) as run:
        run.log({"loss": 1.0})
    deliver_again(root)
    report = verify(root)
    assert (report.findings, report.records, report.duplicates) == ([], 3, 3)
    assert "stand in two segments" in report.projects[0].notes[0].message
    fold_all(root)
    again = verify(root)
    assert (again.findings, again.records, again.duplicates) == ([], 3, 3)


def test_a_record_whose_first_copy_is_damaged_counts_from_its_second_copy(root: str):
    with eventlog.init(PROJECT, "run", dir=root, settings=QUIET) as run:
        for step in range(5):
            run.log({"loss": float(step)})
    path = deliver_again(root)
    data = LOCAL.read(path)
    logs = [item for item in segment.items(data, segment.parse_header(data, path)) if is_log(item)]
    with open(path, "r+b") as file:
        file.seek(logs[2].offset)
        file.write(bytes(logs[2].end - logs[2].offset))
    report = verify(root)
    assert [finding.code for finding in report.findings] == ["damaged"]
    assert (report.records, report.duplicates, report.gaps) == (7, 6, 0)


def is_log(item: segment.Item | segment.Damage) -> bool:
    return isinstance(item, segment.Item) and isinstance(item.record, schema.Log)


@pytest.mark.invariant(4)
def test_verify_changes_nothing_and_reads_a_read_only_store(root: str):
    log_everything(root)
    fold_all(root)
    for base, directories, found in os.walk(root):
        for name in (*directories, *found):
            path = os.path.join(base, name)
            os.chmod(path, stat.S_IMODE(os.stat(path).st_mode) & ~0o222)
    before = sorted((base, tuple(sorted(found))) for base, _, found in os.walk(root))
    assert verify(root, blobs=True).ok
    assert sorted((base, tuple(sorted(found))) for base, _, found in os.walk(root)) == before
    for base, directories, _ in os.walk(root):
        for name in directories:
            os.chmod(os.path.join(base, name), 0o755)


def test_each_project_has_its_own_account(root: str):
    for project in ("one", "two/ü"):
        with eventlog.init(project, "run", dir=root, settings=QUIET) as run:
            run.log({"loss": 1.0})
    report = verify(root)
    assert [project.project for project in report.projects] == ["one", "two/ü"]
    assert report.records == 6
    assert verify(root, "one").records == 3
    with pytest.raises(UsageError, match="no project 'three'"):
        verify(root, "three")


def test_progress_names_what_is_read(root: str):
    log_run(root, "run").finish()
    fold_all(root)
    seen: list[str] = []
    verify(root, progress=seen.append)
    assert sum("parquet" in what for what in seen) == 3
    assert any(what.startswith("writer ") for what in seen)


def test_the_report_is_json(root: str):
    log_everything(root)
    fold_all(root)
    text = msgspec.json.decode(msgspec.json.encode(verify(root)))
    assert {"records", "folded", "tail", "gaps", "dropped", "duplicates", "quarantined"} <= set(text)
    assert {"findings", "lost", "doubled", "writers", "files", "checksum", "projects", "ok"} <= set(text)
    assert set(text["checksum"][PROJECT]) == {"metrics", "system", "events"}
    assert len(set(CODES)) == len(CODES)


def test_it_agrees_with_the_fast_path_on_long_stretches(root: str):
    with eventlog.init(PROJECT, "long", dir=root, settings=QUIET) as run:
        for step in range(5000):
            run.log({"loss": step * 0.5, "acc": 1.0}, step=step)
    manifest = fold_all(root)
    report = verify(root)
    assert report.ok
    claimed = sum(int(file.checksum, 16) for file in manifest.of_table("metrics")) % (1 << 64)
    assert report.checksum[PROJECT]["metrics"] == f"{claimed:016x}"


def test_many_small_runs_and_changing_names_are_accounted_for(root: str):
    for index in range(20):
        with eventlog.init(PROJECT, f"run{index}", dir=root, settings=QUIET, id=f"id{index % 7}") as run:
            for step in range(20):
                run.log({f"m{(step + index) % 5}": step, "common": index}, step=-step)
        if index % 5 == 4:
            fold_all(root)
    compact_all(root)
    report = verify(root)
    assert report.findings == []
    assert report.records == 20 * 22


seqs = st.sets(st.integers(1, 60), max_size=40)


def as_spans(numbers: set[int]) -> spans.Spans:
    return spans.Spans(*spans.ranges_of(np.array(sorted(numbers), np.int64)))


def as_set(found: spans.Spans) -> set[int]:
    return {number for first, last in found for number in range(first, last + 1)}


@given(seqs, seqs)
def test_spans_are_sets(a: set[int], b: set[int]):
    x, y = as_spans(a), as_spans(b)
    checks: list[tuple[Callable[[Any, Any], Any], Any]] = [
        (lambda p, q: p | q, a | b),
        (lambda p, q: p & q, a & b),
        (lambda p, q: p - q, a - b),
    ]
    for operation, expected in checks:
        found = operation(x, y)
        assert as_set(found) == expected
        assert len(found) == len(expected)
    assert (x == y) == (a == b)
    assert spans.of_ranges(x) == x


@given(st.lists(st.tuples(st.integers(1, 40), st.integers(0, 5)), max_size=12))
def test_what_several_ranges_hold_is_repeated(ranges: list[tuple[int, int]]):
    count: dict[int, int] = {}
    for first, length in ranges:
        for number in range(first, first + length + 1):
            count[number] = count.get(number, 0) + 1
    firsts = np.array([first for first, _ in ranges], np.int64)
    lasts = np.array([first + length for first, length in ranges], np.int64)
    assert as_set(spans.repeated(firsts, lasts)) == {number for number, times in count.items() if times > 1}
    assert as_set(spans.union(firsts, lasts)) == set(count)
