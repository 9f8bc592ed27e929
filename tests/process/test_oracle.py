"""The oracle of the torture finds each kind of fault: lost, doubled, invented and wrong records, and lost names."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import pytest

from eventlog.config import WriterConfig
from eventlog.run import Run, RunInfo
from eventlog.store import open_store

TORTURING = str(Path(__file__).parents[2] / "tools" / "torturing")
QUIET = WriterConfig(sync_interval_s=None)


@pytest.fixture
def oracle(monkeypatch):
    monkeypatch.syspath_prepend(TORTURING)
    import oracle

    yield oracle
    sys.modules.pop("oracle")


@pytest.fixture
def torture(tmp_path, oracle):
    """Return a way to log steps of a run, noted as kept, and a way to judge."""
    notes_dir = tmp_path / "notes"
    notes_dir.mkdir()
    root = str(tmp_path / "store")
    run = Run(root, RunInfo(project=oracle.PROJECT, run_id="a", name="a"), config=QUIET)
    notes = oracle.Notes(str(notes_dir), "a")

    def log(step, **changed):
        data = {name: oracle.value("a", step, name) for name in oracle.names_at("a", step)}
        run.log({**data, **changed}, step=step)

    for step in range(100):
        notes.write(step, oracle.TRIED)
        log(step)
        notes.write(step, oracle.KEPT)
    yield log, notes, lambda: oracle.judge(open_store(root), oracle.read_notes(str(notes_dir)))
    run.finish()


def test_what_is_as_it_should_be_is_clean(torture):
    _, _, judge = torture
    verdict = judge()
    assert verdict.clean
    assert verdict.records == 100
    assert verdict.values > 100


def test_a_promised_step_that_is_not_there_is_lost(torture, oracle):
    _, notes, judge = torture
    notes.write(100, oracle.TRIED)
    notes.write(100, oracle.KEPT)
    verdict = judge()
    assert (verdict.lost, verdict.doubled, verdict.invented, verdict.wrong) == (1, 0, 0, 0)


def test_a_step_that_was_tried_and_not_promised_may_be_there_or_not(torture, oracle):
    log, notes, judge = torture
    notes.write(100, oracle.TRIED)
    assert judge().clean
    log(100)
    assert judge().clean


def test_a_step_that_is_there_twice_is_doubled(torture):
    log, _, judge = torture
    log(7)
    verdict = judge()
    assert (verdict.lost, verdict.doubled, verdict.invented, verdict.wrong) == (0, 1, 0, 0)


def test_a_step_that_nobody_tried_is_invented(torture):
    log, _, judge = torture
    log(1000)
    verdict = judge()
    assert (verdict.lost, verdict.doubled, verdict.invented, verdict.wrong) == (0, 0, 1, 0)


@pytest.mark.parametrize("changed", [{"m0": 0.5}, {"m0": math.nextafter(0.25, 1)}, {"other": 1.0}, {"m0": math.nan}])
def test_a_value_or_a_name_that_differs_is_wrong(torture, oracle, changed):
    log, notes, judge = torture
    notes.write(100, oracle.TRIED)
    log(100, **changed)
    verdict = judge()
    assert (verdict.lost, verdict.doubled, verdict.invented, verdict.wrong) == (0, 0, 0, 1)
