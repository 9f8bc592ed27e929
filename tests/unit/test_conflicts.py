"""A writer that was copied, and both copies went on: a conflict, of which both sides are kept and which is said."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
from msgspec import structs

from compactor import cli
from compactor.config import CompactorConfig
from compactor.fold import fold
from compactor.retention import list_expired
from compactor.status import project_status
from compactor.survey import survey
from compactor.work import take_turn
from eventlog import config, names, segment
from eventlog.conflicts import kept_ends
from eventlog.fs import LOCAL
from eventlog.manifest import End
from eventlog.segment import Damage
from eventlog.store import open_store
from eventlog.verify import verify
from eventlog.writer import Writer

QUIET = config.WriterConfig(sync_interval_s=None, segment_bytes=4096)
EAGER = CompactorConfig(grace_s=0, segment_retention_s=0, missing_grace_s=0)


class Copy(NamedTuple):
    """One of the two writers of the same id."""

    root: str
    directory: str
    writer: Writer
    log: Callable[[range], None]

    def file(self, segno: int, *, sealed: bool = True) -> str:
        return os.path.join(self.directory, names.segment_name(segno, sealed=sealed))


def copy_of(root: Any, writer_id: str, sign: int) -> Copy:
    """Return a writer of this id; those of one sign agree, and all of its records differ from those of the other."""
    writer = Writer(str(root), "p", config=QUIET, time_ns=lambda: 1_700_000_000_000_000_000 + sign)
    writer.writer_id = writer_id
    shape = writer.shape("r", None, ("x",))

    def log(steps: range) -> None:
        for step in steps:
            assert writer.log(shape, step, shape.pack(float(sign * step)))

    return Copy(str(root), names.writer_dir(str(root), "p", writer_id), writer, log)


@pytest.fixture
def mine(tmp_path) -> Copy:
    return copy_of(tmp_path / "mine", names.new_id(), 1)


@pytest.fixture
def theirs(tmp_path, mine) -> Copy:
    return copy_of(tmp_path / "theirs", mine.writer.writer_id, -1)


def values(root: str) -> list[float]:
    return open_store(root).metrics("p")["x"].to_pylist()


def is_said_and_kept(root: str, path: str, data: bytes) -> None:
    """The segment is where it was, whatever is collected, its bytes are in the quarantine, and all say so."""
    for _ in range(2):
        take_turn(LOCAL, root, "p", EAGER)
    assert LOCAL.read(path) == data
    found = [item for item in open_store(root).manifest("p").quarantined if item.reason.startswith("conflict: ")]
    assert [item.source for item in found] == [os.path.relpath(path, root)]
    kept = os.path.join(names.quarantine_dir(root, "p"), found[0].name + ".bin")
    assert LOCAL.read(kept) == data
    assert project_status(LOCAL, root, "p").conflicts == 1
    assert "conflict" in {finding.code for finding in verify(root).findings}


@pytest.mark.invariant(7)
@pytest.mark.parametrize("folded", [30, 120])
def test_a_segment_that_was_copied_over_the_one_being_read_is_set_aside_and_not_read_on(mine, theirs, folded):
    mine.log(range(folded))
    fold(LOCAL, mine.root, "p", EAGER)
    theirs.log(range(300))
    segno = open_store(mine.root).manifest("p").writers[mine.writer.writer_id].segno
    opened = mine.file(segno, sealed=False)
    shutil.copy(theirs.file(segno), opened)
    assert os.path.getsize(opened) > open_store(mine.root).manifest("p").writers[mine.writer.writer_id].offset
    assert values(mine.root) == [float(step) for step in range(folded)]
    is_said_and_kept(mine.root, opened, LOCAL.read(theirs.file(segno)))
    assert values(mine.root) == [float(step) for step in range(folded)]
    report = verify(mine.root)
    assert (report.lost, report.doubled, report.records) == (0, 0, folded)


@pytest.mark.invariant(6)
def test_an_overlapping_segment_of_the_other_copy_is_no_duplicate(mine, theirs):
    mine.log(range(20))
    mine.writer.roll()
    mine.log(range(20, 30))
    mine.writer.roll()
    theirs.log(range(10))
    theirs.writer.roll()
    theirs.log(range(10, 25))
    theirs.writer.roll()
    theirs.log(range(25, 60))
    theirs.writer.close()
    shutil.copy(theirs.file(3), mine.file(3))
    expected = [float(step) for step in range(30)]
    assert values(mine.root) == expected
    is_said_and_kept(mine.root, mine.file(3), LOCAL.read(theirs.file(3)))
    assert values(mine.root) == expected


@pytest.mark.parametrize("first", ["mine", "theirs"])
def test_of_an_open_and_a_sealed_file_that_differ_the_one_that_was_read_first_counts(mine, theirs, first):
    mine.log(range(20))
    theirs.log(range(30))
    theirs.writer.roll()
    opened, sealed = mine.file(1, sealed=False), mine.file(1)
    if first == "mine":
        fold(LOCAL, mine.root, "p", EAGER)
    shutil.copy(theirs.file(1), sealed)
    mine.log(range(20, 40))
    wanted = [float(step) for step in range(40)] if first == "mine" else [-float(step) for step in range(30)]
    assert values(mine.root) == wanted
    other = sealed if first == "mine" else opened
    is_said_and_kept(mine.root, other, LOCAL.read(other))
    assert values(mine.root) == wanted
    if first == "theirs":
        mine.log(range(40, 50))
        fold(LOCAL, mine.root, "p", EAGER)
        assert project_status(LOCAL, mine.root, "p").conflicts == 1, "what is set aside grows, and is told once"


def test_sealing_replaces_no_segment_of_the_other_copy(mine, theirs):
    mine.log(range(20))
    theirs.log(range(30))
    theirs.writer.close()
    shutil.copy(theirs.file(1), mine.file(1))
    mine.writer.close()
    assert LOCAL.read(mine.file(1)) == LOCAL.read(theirs.file(1))
    assert os.path.exists(mine.file(1, sealed=False))


def test_what_is_written_again_after_a_failed_sync_replaces_no_segment_of_the_other_copy(mine, theirs):
    mine.log(range(20))
    theirs.log(range(30))
    theirs.writer.close()
    shutil.copy(theirs.file(1), mine.file(1))
    current = mine.writer.current_segment()
    assert current is not None
    with pytest.raises(FileExistsError, match="holds other records"):
        current.republish(complete=False)
    assert LOCAL.read(mine.file(1)) == LOCAL.read(theirs.file(1))
    assert os.path.exists(mine.file(1, sealed=False))
    os.unlink(mine.file(1))
    assert current.republish(complete=False) == mine.file(1)


@pytest.mark.parametrize("zeros", [0, 40])
def test_what_a_power_loss_left_of_a_segment_that_was_written_again_is_no_conflict(mine, zeros):
    mine.log(range(20))
    opened = LOCAL.read(mine.file(1, sealed=False))
    fold(LOCAL, mine.root, "p", EAGER)
    mine.writer.current_segment().republish(complete=False)
    with open(mine.file(1, sealed=False), "wb") as file:
        file.write(opened[: -20 - zeros] + bytes(zeros))
    fold(LOCAL, mine.root, "p", EAGER)
    assert values(mine.root) == [float(step) for step in range(20)]
    assert verify(mine.root).ok
    assert project_status(LOCAL, mine.root, "p").conflicts == 0


def test_a_segment_that_was_delivered_twice_and_is_damaged_the_first_time_is_no_conflict(mine):
    mine.log(range(20))
    mine.writer.roll()
    data = LOCAL.read(mine.file(1))
    header = segment.parse_header(data, "")
    last = [item for item in segment.items(data, header) if not isinstance(item, Damage) and not item.structural][-1]
    with open(mine.file(2), "wb") as file:
        file.write(segment.build_header(header._replace(segno=2)) + data[segment.HEADER_BYTES :])
    with open(mine.file(1), "wb") as file:
        file.write(data[: last.offset + 20] + b"!" + data[last.offset + 21 :])
    fold(LOCAL, mine.root, "p", EAGER)
    assert values(mine.root) == [float(step) for step in range(19)]
    status = project_status(LOCAL, mine.root, "p")
    assert (status.conflicts, status.duplicates) == (0, 20)


@pytest.mark.invariant(7)
def test_a_segment_is_not_collected_unread_because_another_in_conflict_has_its_number_and_size(mine, theirs):
    for copy in (mine, theirs):
        copy.log(range(20))
        copy.writer.roll()
        copy.log(range(20, 40))
        copy.writer.close()
    shutil.copy(theirs.file(1), mine.file(1, sealed=False))
    assert os.path.getsize(mine.file(1)) == os.path.getsize(theirs.file(1))
    folded = fold(LOCAL, mine.root, "p", EAGER).manifest
    is_said_and_kept(mine.root, mine.file(1, sealed=False), LOCAL.read(theirs.file(1)))
    assert values(mine.root) == [float(step) for step in range(40)]
    shutil.copy(theirs.file(1), mine.file(1))
    unread = structs.replace(folded, writers={})
    found = survey(LOCAL, mine.root, "p")
    assert list_expired(mine.root, "p", found, [unread], EAGER, 1 << 62).sealed == []
    assert mine.file(1) in list_expired(mine.root, "p", found, [folded], EAGER, 1 << 62).sealed


def test_a_watermark_keeps_the_ends_of_segments_that_are_there_and_of_64_at_most(mine):
    ends = {segno: End(64, segno) for segno in range(1, 200)}
    assert list(kept_ends(ends, set(range(50, 60)))) == list(range(50, 60))
    assert list(kept_ends(ends, set(ends))) == list(range(136, 200))
    for first in range(0, 40, 10):
        mine.log(range(first, first + 10))
        mine.writer.roll()
        fold(LOCAL, mine.root, "p", EAGER)
        os.unlink(mine.file(1 + first // 10))
    mark = open_store(mine.root).manifest("p").writers[mine.writer.writer_id]
    assert (mark.seq, list(mark.ends or {})) == (40, [4])


def test_a_writer_that_goes_on_is_folded_on_though_each_fold_looks_for_conflicts(mine):
    for first in range(0, 300, 7):
        mine.log(range(first, first + 7))
        fold(LOCAL, mine.root, "p", EAGER)
    mine.writer.close()
    fold(LOCAL, mine.root, "p", EAGER)
    assert verify(mine.root).ok
    assert values(mine.root) == [float(step) for step in range(301)]
    assert project_status(LOCAL, mine.root, "p").conflicts == 0


@pytest.mark.invariant(7)
def test_a_folded_segment_over_which_another_was_copied_is_not_collected(mine, theirs):
    mine.log(range(20))
    mine.writer.close()
    theirs.log(range(20))
    theirs.writer.close()
    fold(LOCAL, mine.root, "p", EAGER)
    shutil.copy(theirs.file(1), mine.file(1))
    turn = take_turn(LOCAL, mine.root, "p", EAGER)
    assert "holds other records" in turn.kept[mine.file(1)]
    assert LOCAL.read(mine.file(1)) == LOCAL.read(theirs.file(1))
    assert {finding.code for finding in verify(mine.root).findings} == {"conflict"}
    assert values(mine.root) == [float(step) for step in range(20)]


def test_a_copied_directory_under_another_name_is_misplaced(mine, theirs):
    mine.log(range(5))
    theirs.log(range(9))
    shutil.copytree(theirs.directory, mine.directory + "-copy")
    shutil.copytree(theirs.directory, os.path.join(os.path.dirname(mine.directory), names.new_id()))
    assert values(mine.root) == [float(step) for step in range(5)]
    report = verify(mine.root)
    assert [finding.code for finding in report.findings] == ["misplaced", "misplaced"]


def test_a_copy_with_the_same_bytes_is_no_conflict(mine, tmp_path):
    mine.log(range(30))
    fold(LOCAL, mine.root, "p", EAGER)
    shutil.copytree(mine.directory, tmp_path / "kept")
    mine.log(range(30, 60))
    shutil.copytree(tmp_path / "kept", mine.directory, dirs_exist_ok=True)
    fold(LOCAL, mine.root, "p", EAGER)
    assert verify(mine.root).ok
    assert values(mine.root) == [float(step) for step in range(30)]


def test_status_says_that_a_writer_was_copied(mine, theirs, capsys):
    mine.log(range(5))
    fold(LOCAL, mine.root, "p", EAGER)
    theirs.log(range(9))
    shutil.copy(theirs.file(1, sealed=False), mine.file(1, sealed=False))
    fold(LOCAL, mine.root, "p", EAGER)
    cli.cli(["status", mine.root], standalone_mode=False)
    assert "a writer was copied" in capsys.readouterr().err
