"""Segments that arrive late: their records are folded once, and their gap closes."""

from __future__ import annotations

import os
import shutil

import pytest

import eventlog
from compactor.config import CompactorConfig
from compactor.fold import fold
from compactor.plan import plan
from compactor.survey import survey
from compactor.work import take_turn
from eventlog.fs import LOCAL
from eventlog.store import open_store
from eventlog.verify import verify

CONFIG = CompactorConfig(missing_grace_s=0.0, fanout=2)
QUIET = eventlog.WriterConfig(sync_interval_s=None, segment_bytes=4096)


@pytest.fixture
def segments(tmp_path) -> list[str]:
    """Return the paths of a writer's segments, at least four; they hold x = 0, 1, 2, ..."""
    with eventlog.init(project="p", name="a", dir=tmp_path / "store", settings=QUIET) as run:
        for step in range(300):
            run.log({"x": float(step), "note": f"n{step}"} if step % 50 == 0 else {"x": float(step)}, step=step)
    directory = tmp_path / "store" / "segments" / "p" / run.writer_id
    found = sorted(str(path) for path in directory.iterdir())
    assert len(found) >= 4
    return found


def steps(tmp_path) -> list[int]:
    return open_store(tmp_path / "store").metrics("p")["_step"].to_pylist()


@pytest.mark.parametrize("missing", [[0], [1], [1, 2], [0, 2]])
def test_what_arrives_after_its_gap_was_recorded_is_folded_exactly_once(tmp_path, segments, missing):
    store = str(tmp_path / "store")
    for index in missing:
        shutil.move(segments[index], tmp_path / os.path.basename(segments[index]))
    with_gap = fold(LOCAL, store, "p", CONFIG).manifest
    assert with_gap.gaps
    assert len(steps(tmp_path)) < 300
    for index in missing:
        shutil.move(tmp_path / os.path.basename(segments[index]), segments[index])
    whole = fold(LOCAL, store, "p", CONFIG).manifest
    assert whole.gaps == []
    assert steps(tmp_path) == list(range(300))
    report = verify(store)
    assert (report.findings, report.lost, report.doubled) == ([], 0, 0)
    assert fold(LOCAL, store, "p", CONFIG).commits == 0
    take_turn(LOCAL, store, "p", CONFIG)
    assert steps(tmp_path) == list(range(300))
    newest = open_store(store).manifest("p")
    assert not plan(survey(LOCAL, store, "p"), newest, CONFIG).fold


def test_a_gap_closes_only_as_far_as_its_segments_arrived(tmp_path, segments):
    store = str(tmp_path / "store")
    for index in (1, 2):
        shutil.move(segments[index], tmp_path / os.path.basename(segments[index]))
    (gap,) = fold(LOCAL, store, "p", CONFIG).manifest.gaps
    shutil.move(tmp_path / os.path.basename(segments[2]), segments[2])
    (left,) = fold(LOCAL, store, "p", CONFIG).manifest.gaps
    assert left.first_seq == gap.first_seq
    assert left.last_seq < gap.last_seq
    assert len(steps(tmp_path)) < 300
    shutil.move(tmp_path / os.path.basename(segments[1]), segments[1])
    assert fold(LOCAL, store, "p", CONFIG).manifest.gaps == []
    assert steps(tmp_path) == list(range(300))


def test_a_missing_segment_is_waited_for_before_it_counts_as_lost(tmp_path, segments):
    store = str(tmp_path / "store")
    shutil.move(segments[1], tmp_path / "away")
    patient = CompactorConfig(missing_grace_s=3600.0)
    waiting = fold(LOCAL, store, "p", patient).manifest
    assert waiting.gaps == []
    shutil.move(tmp_path / "away", segments[1])
    assert fold(LOCAL, store, "p", patient).manifest.gaps == []
    assert steps(tmp_path) == list(range(300))
