"""Any sequence of what users, crashes and compactors do, on a real store, beside a model that is a few lists."""

import json
import os
import shutil
import sys
from typing import ClassVar

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import invariant, precondition, rule, run_state_machine_as_test
from store_model import EAGER, MASK, PROJECT, TABLES, Marks, number_hash, rows_of, runs_of, same_runs
from store_users import Users, picks

from compactor import compact, work
from compactor import fold as folding
from compactor.collect import collect
from compactor.commit import Change, commit, totals
from compactor.config import CompactorConfig
from compactor.errors import LostRaceError
from compactor.plan import plan, plan_merges
from compactor.survey import survey
from eventlog import manifest as manifests
from eventlog import schema
from eventlog.errors import ConflictError
from eventlog.fs import LOCAL
from eventlog.store import Store, open_store
from eventlog.verify import verify

NUMBERS = {"metrics": "log", "system": "system"}


class StoreMachine(Users):
    """What users do, and what compactors do and readers see."""

    kinds_met: ClassVar[set[str]] = set()

    # What compactors do.

    def newest(self) -> manifests.Manifest:
        found, problems = manifests.load_newest(LOCAL, self.root, PROJECT)
        assert problems == []
        return found

    def remember(self) -> None:
        """Note what each new version covers, and pin a store to it."""
        for version in manifests.versions(LOCAL, self.root, PROJECT):
            if version not in self.versions:
                writers = manifests.load(LOCAL, self.root, PROJECT, version).writers
                self.versions[version] = {writer_id: mark.seq for writer_id, mark in writers.items()}
                self.pinned[version] = self.store.at(version)

    def check_all_is_folded(self) -> None:
        assert {writer_id: mark.seq for writer_id, mark in self.newest().writers.items()} == self.model.last_seq

    def fold_all(self) -> folding.Folded:
        return folding.fold(LOCAL, self.root, PROJECT, EAGER)

    @rule(batches=st.none() | st.integers(1, 2))
    def fold(self, batches):
        """Fold everything at once, or stop after one or two small batches."""
        if batches is None:
            self.fold_all()
            self.check_all_is_folded()
        else:
            left = iter(range(batches - 1))
            config = CompactorConfig(batch_bytes=4096)
            folding.fold(LOCAL, self.root, PROJECT, config, stopped=lambda: next(left, None) is None)
        self.remember()

    @rule()
    def take_a_turn(self):
        turn = work.take_turn(LOCAL, self.root, PROJECT, EAGER)
        assert (turn.lost_races, turn.refused) == (0, {})
        self.remember()
        self.check_all_is_folded()
        left = plan(survey(LOCAL, self.root, PROJECT), self.newest(), EAGER)
        assert left.merges == ()
        assert len(left.fold) <= self.torn  # the bytes of a torn tail wait for ever

    @rule()
    def collect(self):
        collect(LOCAL, self.root, PROJECT, EAGER)

    @rule()
    def lose_a_race_of_folds(self):
        parent = self.newest()
        stale = folding.gather(LOCAL, self.root, parent, EAGER, self.now_ns)
        self.fold_all()
        if stale.change.after:
            with pytest.raises(LostRaceError):
                folding._publish(LOCAL, self.root, parent, stale, self.time_ns)
        self.remember()

    @precondition(lambda self: plan_merges(self.newest(), EAGER))
    @rule(loses=st.booleans())
    def merge_beside_another_compactor(self, loses):
        parent = self.newest()
        planned = plan_merges(parent, EAGER)[0]
        staged = compact.merge(LOCAL, self.root, parent, planned)
        change = Change(action="compact", added=staged, removed=[file.path for file in planned.files])
        self.fold_all()
        if loses:
            work.merge_all(LOCAL, self.root, PROJECT, EAGER)
            with pytest.raises(LostRaceError):
                commit(LOCAL, self.root, PROJECT, change)
        else:
            commit(LOCAL, self.root, PROJECT, change)
        self.remember()

    # What readers see.

    def check_tables(self, store: Store, marks: Marks | None = None) -> None:
        for table in TABLES:
            assert rows_of(table, getattr(store, table)(PROJECT)) == self.model.table(table, marks), table

    @invariant()
    def the_store_kept_open_has_the_rows_of_the_model(self):
        if self.infos:
            self.check_tables(self.store)

    @rule()
    def read_everything_anew(self):
        fresh = open_store(self.root)
        self.check_tables(fresh)
        same_runs(runs_of(fresh.runs(PROJECT, deleted=True)), self.model.runs())
        same_runs(runs_of(self.store.runs(PROJECT)), [row for row in self.model.runs() if not row["deleted"]])

    @rule(anew=st.booleans())
    def follow(self, anew):
        store = open_store(self.root) if anew else self.store
        since = store.follow(PROJECT, json.loads(json.dumps(self.cursor)))
        for table in TABLES:
            assert rows_of(table, getattr(since, table)) == self.model.table(table, since=self.cursor), table
        assert since.cursor == self.model.last_seq
        self.cursor = since.cursor

    @precondition(lambda self: self.versions)
    @rule(back=picks)
    def travel_in_time(self, back):
        version = sorted(self.versions)[-1 - back % len(self.versions)]
        marks = self.versions[version]
        if version in self.store.versions(PROJECT):
            self.check_tables(self.store.at(version), marks)
            same_runs(runs_of(self.store.at(version).runs(PROJECT, deleted=True)), self.model.runs(marks))
        else:
            with pytest.raises(ConflictError):
                self.store.at(version).metrics(PROJECT)
        try:
            self.check_tables(self.pinned[version], marks)
        except ConflictError:
            assert version not in self.store.versions(PROJECT)

    @rule()
    def verify(self):
        report = verify(self.root)
        assert {finding.code for finding in report.findings} == ({"dropped"} if self.model.dropped else set())
        assert report.records == sum(self.model.last_seq.values())
        assert (report.gaps, report.dropped, report.lost, report.doubled) == (0, self.model.dropped, 0, 0)

    def check_proof(self) -> None:
        """Compare the checksums of the manifest with those of all rows of the model."""
        manifest = self.newest()
        for table in ("metrics", "system"):
            rows = self.model.rows[table]
            expected = sum(number_hash(table, row) for row in rows) & MASK
            assert totals(manifest, table) == (len(rows), expected)
        assert totals(manifest, "events")[0] == len(self.model.rows["events"])

    def teardown(self):
        try:
            if self.infos and sys.exc_info()[0] is None:
                self.check_end()
        finally:
            for live in self.live:
                live.run.finish()
            shutil.rmtree(self.root)

    def say_everything(self) -> None:
        """Say each thing once that chance may leave out, so that no kind of record is missed."""
        if not self.live:
            self.attach_a_second_writer(0, None)
        for said in ("console", "heartbeat", "artifact_use"):
            self.say(0, "x", said)
        for what in (("config", "config_patch"), ("summary", "summary_set")):
            self.update_config_or_summary(0, {"k": 1}, what)
        self.say_what_only_a_later_release_knows(0, "x")
        self.alert(0, "t", "info", 1)
        self.log_system(0, {"s": 1.0})
        self.define_metric(0, "m", None, None, None)

    def check_end(self) -> None:
        self.say_everything()
        while self.live:
            self.finish(0, ("finished", 0))
        for number in range(len(self.infos)):
            self.undelete(number)
        self.check_tables(self.store)
        self.take_a_turn()
        self.check_proof()
        self.verify()
        self.follow(anew=False)
        self.read_everything_anew()
        self.kinds_met.update(self.store.events(PROJECT)["kind"].to_pylist())
        self.kinds_met.update(kind for table, kind in NUMBERS.items() if len(getattr(self.store, table)(PROJECT)))
        for back in range(len(self.versions)):
            self.travel_in_time(back)
        assert [name for name in os.listdir(self.root) if name == "quarantine"] == []


# What issue 4 names, and the rules that do it; `check_end` seals, and the invariant reads after each step.
NAMED = {
    "append": "loop",
    "roll": "flush_or_roll",
    "seal": "finish",
    "crash": "crash",
    "fork": "fork",
    "fold": "fold",
    "compact": "take_a_turn",
    "collect": "collect",
    "rename": "rename",
    "delete": "delete",
    "undelete": "undelete",
    "read": "read_everything_anew",
    "time travel": "travel_in_time",
    "resume": "resume",
    "server": "take_a_batch",
}


@pytest.mark.invariant(6)
@pytest.mark.invariant(7)
@pytest.mark.invariant(8)
@pytest.mark.invariant(13)
def test_a_store_is_its_model_whatever_users_crashes_and_compactors_do():
    profile = settings()
    limits = settings(profile, max_examples=profile.max_examples * 5 // 7, stateful_step_count=30)
    run_state_machine_as_test(StoreMachine, settings=limits)
    # A kind of record without a rule here would be one that nobody has compared with anything.
    kinds = {schema.kind_name(kind) for kind in schema.KINDS if kind not in schema.STRUCTURAL}
    assert {*kinds, "unknown:99"} - StoreMachine.kinds_met == set()
    assert set(NAMED.values()) <= {found.function.__name__ for found in StoreMachine.setup_state().rules}
