"""Finding an earlier run with the standard library alone: the latest of a name, deletions, renames and damage."""

from __future__ import annotations

import os
import struct
from typing import Any

import pytest

from eventlog import resume, schema
from eventlog.config import WriterConfig
from eventlog.writer import Writer

QUIET = WriterConfig(sync_interval_s=None)


class Session:
    """Writes the records of runs, with a clock that goes up by itself."""

    def __init__(self, root: str) -> None:
        self.root, self.clock = root, 0
        self.writer = Writer(root, "p", config=QUIET)

    def now(self) -> int:
        self.clock += 1
        return self.clock

    def start(self, run_id: str, name: str) -> None:
        self.writer.append(schema.RunStart(self.now(), run_id, "p", name))

    def steps(self, run_id: str, *steps: int | None) -> None:
        shape = self.writer.shape(run_id, None, ("a",))
        for step in steps:
            self.writer.log(shape, step, struct.pack("<d", 1.0))

    def admin(self, run_id: str, action: str, **values: Any) -> None:
        self.writer.append(schema.Admin(self.now(), run_id, action, values))


@pytest.fixture
def session(store: str) -> Session:
    return Session(store)


def find(session: Session, **wanted: str) -> resume.Earlier | None:
    return resume.find_run(session.root, "p", **wanted)


def test_nothing_is_found_where_nothing_is(store: str):
    assert resume.find_run(store, "p", name="n") is None


def test_a_run_is_found_by_name_and_by_id_with_its_highest_step(session: Session):
    session.start("r1", "n")
    session.steps("r1", 3, 7, 5, None, -2)
    assert find(session, name="n") == resume.Earlier("r1", "n", 7)
    assert find(session, run_id="r1") == resume.Earlier("r1", "n", 7)
    assert find(session, name="other") is None
    assert find(session, run_id="n") is None


def test_a_run_without_steps_has_none(session: Session):
    session.start("r1", "n")
    assert find(session, name="n") == resume.Earlier("r1", "n", None)


def test_the_run_that_started_last_counts_and_steps_do_not_mix(session: Session):
    session.start("r1", "n")
    session.steps("r1", 100)
    session.start("r2", "n")
    session.steps("r2", 5)
    session.start("r1", "n")
    assert find(session, name="n") == resume.Earlier("r2", "n", 5)


def test_deleted_runs_are_not_continued_unless_undeleted(session: Session):
    session.start("r1", "n")
    session.start("r2", "n")
    session.admin("r2", "delete")
    assert find(session, name="n") == resume.Earlier("r1", "n", None)
    assert find(session, run_id="r2") is None
    session.admin("r2", "undelete")
    assert find(session, name="n") == resume.Earlier("r2", "n", None)


def test_renamed_runs_are_found_under_their_new_name(session: Session):
    session.start("r1", "n")
    session.admin("r1", "rename", name="m")
    assert find(session, name="n") is None
    assert find(session, name="m") == resume.Earlier("r1", "m", None)


def test_segments_of_several_writers_and_rolls_are_read(session: Session, store: str):
    session.start("r1", "n")
    session.writer.roll()
    session.steps("r1", 4)
    other = Session(store)
    other.steps("r1", 9)
    assert find(session, name="n") == resume.Earlier("r1", "n", 9)


def test_damage_costs_only_what_it_hit(session: Session, back: Any):
    session.start("r1", "n")
    session.steps("r1", 1, 2, 3)
    (path,) = back.files()
    with open(path, "r+b") as file:
        file.write(bytes(64))
        file.seek(-5, os.SEEK_END)
        file.write(b"\xff" * 5)
    assert find(session, name="n") == resume.Earlier("r1", "n", 2)
    with open(path, "r+b") as file:
        file.write(bytes(100))
    assert find(session, name="n") is None


def test_other_files_are_passed_over(session: Session, back: Any):
    session.start("r1", "n")
    (path,) = back.files()
    with open(os.path.join(os.path.dirname(path), "notes.txt"), "w", encoding="utf-8") as file:
        file.write("not of the store")
    assert find(session, name="n") == resume.Earlier("r1", "n", None)
