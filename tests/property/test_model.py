"""Any sequence of what users, crashes and compactors do, on a real store, beside a model that is a few lists."""

import json
import os
import shutil
import sys
import tempfile
import warnings
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from store_model import (
    EAGER,
    INLINE_BYTES,
    MASK,
    PAYLOAD_FIELDS,
    PROJECT,
    TABLES,
    Event,
    Fact,
    Live,
    Marks,
    Model,
    Number,
    cells,
    number_hash,
    numbers_like,
    other_like,
    rows_of,
    runs_of,
    same_runs,
    step_like,
)

from compactor import compact, work
from compactor import fold as folding
from compactor.collect import collect
from compactor.commit import Change, commit, totals
from compactor.config import CompactorConfig
from compactor.errors import LostRaceError
from compactor.plan import plan, plan_merges
from compactor.survey import survey
from eventlog import frame, run, schema
from eventlog import manifest as manifests
from eventlog.errors import ConflictError
from eventlog.fs import LOCAL
from eventlog.identity import RunInfo
from eventlog.store import Store, open_store
from eventlog.testing import strategies
from eventlog.testing.clock import START_NS
from eventlog.testing.scripts import QUIET
from eventlog.verify import verify
from eventlog.writer import Writer

numbers = st.dictionaries(strategies.metric_names(), strategies.floats(), max_size=4)
odd_values = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.sampled_from((2**53, 2**53 + 1, -(2**53) - 1, 2**63, 2**64, 10**400, {}, "")),
    st.just("x").map(lambda text: text * (INLINE_BYTES + 1)),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=12),
    st.lists(strategies.plain_values(), max_size=3),
)
mixed = st.dictionaries(strategies.metric_names(), strategies.floats() | odd_values, max_size=4)
steps = strategies.steps() | st.sampled_from((1000.0, 0.5, "x", True, 2**63, float("nan"), float("inf")))
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
plain = strategies.floats() | st.integers(-(2**63), 2**64 - 1) | texts | st.none()
configs = st.dictionaries(texts, plain, max_size=3)  # `init` makes it plain before a run gets it
settable = st.dictionaries(texts, plain | st.integers(-(2**70), 2**70), max_size=3)
picks = st.integers(0, 5)


class StoreMachine(RuleBasedStateMachine):
    """A store, the run objects of living processes, and the model."""

    def __init__(self):
        super().__init__()
        self.root = tempfile.mkdtemp(prefix="eventlog-model-")
        self.model = Model()
        self.now_ns = START_NS
        self.live: list[Live] = []
        self.infos: list[RunInfo] = []
        self.store: Store = open_store(self.root)
        self.cursor: Marks = {}
        self.versions: dict[int, Marks] = {}
        self.pinned: dict[int, Store] = {}
        self.torn = 0

    # What the model notes of each record.

    def tick(self) -> None:
        self.now_ns += 1_500_000

    def time_ns(self) -> int:
        return self.now_ns

    def note_event(self, writer_id: str, run_id: str, kind: str, name: str, fields: dict[str, Any], step=None) -> int:
        seq = self.model.next_seq(writer_id)
        payload = repr({field: fields[field] for field in PAYLOAD_FIELDS[kind]})
        self.model.rows["events"].append(Event(run_id, writer_id, seq, kind, name, step, self.now_ns, payload))
        return seq

    def note_fact(self, writer_id: str, seq: int, run_id: str, about: tuple[str, ...], value: Any, *, weak=False):
        moment = (0 if weak else self.now_ns, writer_id, seq)
        self.model.facts.append(Fact(moment, writer_id, seq, run_id, about, value))

    def note_log(self, live: Live, data: dict[str, Any], step: Any) -> None:
        number = step_like(live.next_step if step is None else step)
        if number is not None:
            live.next_step = number + 1
        writer_id, run_id = live.run.writer_id, live.info.run_id
        seq = self.model.next_seq(writer_id)
        charted = {name: n for name, value in data.items() if (n := numbers_like(value)) is not None}
        others = {name: o for name, value in data.items() if (o := other_like(value)) is not None}
        if charted or not others:
            row = Number(run_id, writer_id, seq, live.info.rank, number, self.now_ns, cells(charted))
            self.model.rows["metrics"].append(row)
        for name, (kind, payload) in others.items():
            event = Event(run_id, writer_id, seq, kind, name, number, self.now_ns, payload)
            self.model.rows["events"].append(event)
        if number is not None:
            self.note_fact(writer_id, seq, run_id, ("step",), number)

    # What users do.

    def open_run(self, info: RunInfo) -> None:
        self.tick()
        opened = run.Run(self.root, info, config=QUIET, time_ns=self.time_ns)
        self.live.append(Live(opened, info))
        fields = {field: getattr(info, field) for field in PAYLOAD_FIELDS["run_start"]}
        seq = self.note_event(opened.writer_id, info.run_id, "run_start", info.name, fields)
        self.note_fact(opened.writer_id, seq, info.run_id, ("name",), info.name, weak=info.mode != "new")
        self.note_fact(opened.writer_id, seq, info.run_id, ("status",), ("running", 0))
        for key, value in info.config.items():
            self.note_fact(opened.writer_id, seq, info.run_id, ("config", key), repr(value))

    @initialize(config=configs)
    def start_first(self, config):
        self.start("r", "first", config, None)

    @precondition(lambda self: len(self.live) < 5)
    @rule(prefix=st.sampled_from(("r", "A", "ü", "日", "🦀")), name=texts, config=configs, rank=st.none() | picks)
    def start(self, prefix, name, config, rank):
        run_id = f"{prefix}{len(self.infos)}"
        info = RunInfo(project=PROJECT, run_id=run_id, name=name, config=config, rank=rank)
        self.infos.append(info)
        self.open_run(info)

    @precondition(lambda self: len(self.live) < 5)
    @rule(pick=picks, rank=st.none() | picks)
    def attach_a_second_writer(self, pick, rank):
        info = self.infos[pick % len(self.infos)]
        self.open_run(RunInfo(project=PROJECT, run_id=info.run_id, name=info.name, rank=rank, mode="attach"))

    @precondition(lambda self: len(self.live) < 5)
    @rule(pick=picks)
    def resume(self, pick):
        run_id = self.infos[pick % len(self.infos)].run_id
        earlier = self.store.find_run(PROJECT, run_id=run_id)
        latest = self.model.latest(run_id)
        if latest.get(("deleted",)):
            assert earlier is None
            return
        last_step = self.model.last_step(run_id)
        assert earlier == (run_id, latest["name",], last_step)
        first_step = 0 if last_step is None else last_step + 1
        self.open_run(RunInfo(project=PROJECT, run_id=run_id, name=earlier.name, mode="resume", first_step=first_step))

    def pick(self, number: int) -> Live:
        self.tick()
        return self.live[number % len(self.live)]

    @precondition(lambda self: self.live)
    @rule(pick=picks, data=numbers | mixed, step=steps)
    def log(self, pick, data, step):
        live = self.pick(pick)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of steps that are none
            live.run.log(data, step=step)
        self.note_log(live, data, step)

    @precondition(lambda self: self.live)
    @rule(pick=picks, calls=strategies.stretches())
    def loop(self, pick, calls):
        live = self.pick(pick)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for call in calls:
                self.now_ns += 1000
                live.run.log(call.data, step=call.step)
                self.note_log(live, call.data, call.step)

    @precondition(lambda self: self.live)
    @rule(pick=picks, data=numbers)
    def log_system(self, pick, data):
        live = self.pick(pick)
        live.run.log_system(data)
        writer_id, run_id = live.run.writer_id, live.info.run_id
        seq = self.model.next_seq(writer_id)
        row = Number(run_id, writer_id, seq, live.info.rank, None, self.now_ns, cells(data))
        self.model.rows["system"].append(row)

    @precondition(lambda self: self.live)
    @rule(pick=picks, title=texts, level=st.sampled_from(("info", "warn", "error")), step=st.none() | picks)
    def alert(self, pick, title, level, step):
        live = self.pick(pick)
        live.run.alert(title, "text", level, step)
        if step is None and live.next_step:
            step = live.next_step - 1
        fields = {"title": title, "text": "text", "level": level}
        self.note_event(live.run.writer_id, live.info.run_id, "alert", title, fields, step)

    @precondition(lambda self: self.live)
    @rule(pick=picks, changes=settable, what=st.sampled_from((("config", "config_patch"), ("summary", "summary_set"))))
    def update_config_or_summary(self, pick, changes, what):
        live = self.pick(pick)
        getattr(live.run, what[0]).update(changes)
        writer_id, run_id = live.run.writer_id, live.info.run_id
        seq = self.note_event(writer_id, run_id, what[1], "", {"values": changes})
        for key, value in changes.items():
            self.note_fact(writer_id, seq, run_id, (what[0], key), repr(value))

    @rule(pick=picks, action=st.sampled_from(("rename", "delete", "undelete", "undelete")), name=texts)
    def administer(self, pick, action, name):
        self.tick()
        run_id = self.infos[pick % len(self.infos)].run_id
        changes = {"name": name} if action == "rename" else {}
        writer = Writer(self.root, PROJECT, config=QUIET, time_ns=self.time_ns)
        writer.append(schema.Admin(self.now_ns, run_id, action, changes))
        writer.close()
        fields = {"action": action, "values": changes}
        seq = self.note_event(writer.writer_id, run_id, "admin", action, fields)
        if action == "rename":
            self.note_fact(writer.writer_id, seq, run_id, ("name",), name)
        else:
            self.note_fact(writer.writer_id, seq, run_id, ("deleted",), action == "delete")

    @precondition(lambda self: self.live)
    @rule(pick=picks, rolls=st.booleans())
    def flush_or_roll(self, pick, rolls):
        live = self.pick(pick)
        live.run._writer.roll() if rolls else live.run.flush()

    @precondition(lambda self: self.live)
    @rule(pick=picks, status=st.sampled_from((("finished", 0), ("failed", 1))))
    def finish(self, pick, status):
        live = self.pick(pick)
        self.live.remove(live)
        live.run.finish(*status)
        assert live.run.lost == 0
        fields = {"status": status[0], "exit_code": status[1]}
        seq = self.note_event(live.run.writer_id, live.info.run_id, "run_end", "", fields)
        self.note_fact(live.run.writer_id, seq, live.info.run_id, ("status",), status)

    @precondition(lambda self: self.live)
    @rule(pick=picks, torn=st.sampled_from((0, 0, 1, 16, 40)), zeros=st.booleans())
    def crash(self, pick, torn, zeros):
        """Leave a run as kill -9 would: the kernel closes its file, which may end in a part of a frame, or in zeros."""
        live = self.pick(pick)
        self.live.remove(live)
        run._open_runs.discard(live.run)
        segment = live.run._writer.current_segment()
        if segment is None:
            return
        if torn:
            whole = frame.build(schema.encode(schema.Heartbeat(self.now_ns, live.info.run_id)), segment.next_seq)
            os.write(segment.fd, bytes(torn) if zeros else whole[: min(torn, len(whole) - 1)])
            self.torn += 1
        segment.close()

    @rule(seconds=st.sampled_from((-3600, -1, 1, 3600)))
    def set_the_clock(self, seconds):
        self.now_ns += seconds * 10**9

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
        assert report.findings == []
        assert report.records == sum(self.model.last_seq.values())
        assert (report.gaps, report.dropped, report.lost, report.doubled) == (0, 0, 0, 0)

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

    def check_end(self) -> None:
        while self.live:
            self.finish(0, ("finished", 0))
        self.take_a_turn()
        self.check_proof()
        self.verify()
        self.follow(anew=False)
        self.read_everything_anew()
        for info in self.infos:
            self.administer(self.infos.index(info), "undelete", "")
        self.check_tables(self.store)
        for back in range(len(self.versions)):
            self.travel_in_time(back)
        assert [name for name in os.listdir(self.root) if name == "quarantine"] == []


@pytest.mark.invariant(6)
@pytest.mark.invariant(7)
@pytest.mark.invariant(8)
@pytest.mark.invariant(13)
def test_a_store_is_its_model_whatever_users_crashes_and_compactors_do():
    profile = settings()
    limits = settings(profile, max_examples=profile.max_examples * 5 // 7, stateful_step_count=30)
    run_state_machine_as_test(StoreMachine, settings=limits)
