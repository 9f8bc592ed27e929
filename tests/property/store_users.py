"""What users do to the store of the model: runs, records of every kind, forks, crashes, a full disk, a wrong clock."""

from __future__ import annotations

import errno
import os
import tempfile
import warnings
from typing import Any

import msgspec
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule
from store_model import (
    INLINE_BYTES,
    PAYLOAD_FIELDS,
    PROJECT,
    Event,
    Fact,
    Live,
    Marks,
    Model,
    Number,
    cells,
    numbers_like,
    other_like,
    step_like,
)

from eventlog import frame, run, schema
from eventlog.fs import LocalFs
from eventlog.identity import RunInfo
from eventlog.store import Store, open_store
from eventlog.testing import strategies
from eventlog.testing.clock import START_NS
from eventlog.testing.scripts import QUIET
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
prefixes = st.sampled_from(("r", "A", "ü", "日", "🦀"))
labels = st.lists(texts, max_size=2)
patches = st.sampled_from((("config", "config_patch"), ("summary", "summary_set")))


class Disk(LocalFs):
    """The real disk, which is full when a test says so."""

    full = False

    def write(self, fd: int, data: Any) -> int:
        if self.full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return super().write(fd, data)


class Later(schema.Record, frozen=True, tag=99):
    """A record of a kind that only a later release knows."""

    time_ns: int
    run_id: str
    more: Any


class Users(RuleBasedStateMachine):
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
        self.disk = Disk()

    # What the model notes of each record.

    def tick(self) -> None:
        self.now_ns += 1_500_000

    def time_ns(self) -> int:
        return self.now_ns

    def note_event(self, writer_id: str, run_id: str, kind: str, name: str, fields: dict[str, Any], step=None) -> int:
        seq = self.model.next_seq(writer_id)
        payload = repr({field: fields[field] for field in PAYLOAD_FIELDS[kind]})
        self.note_row(writer_id, seq, run_id, kind, payload, name, step)
        return seq

    def note_row(self, writer_id: str, seq: int, run_id: str, kind: str, payload: str, name="", step=None) -> None:
        self.model.rows["events"].append(Event(run_id, writer_id, seq, kind, name, step, self.now_ns, payload))

    def note_fact(self, writer_id: str, seq: int, run_id: str, about: tuple[str, ...], value: Any, *, weak=False):
        moment = (0 if weak else self.now_ns, writer_id, seq)
        self.model.facts.append(Fact(moment, writer_id, seq, run_id, about, value))

    def note_number(self, table: str, writer_id: str, seq: int, info: RunInfo, step: int | None, data: Any) -> None:
        row = Number(info.run_id, writer_id, seq, info.rank, step, self.now_ns, cells(data))
        self.model.rows[table].append(row)

    def note_log(self, live: Live, data: dict[str, Any], step: Any) -> None:
        number = step_like(live.next_step if step is None else step)
        if number is not None:
            live.next_step = number + 1
        writer_id, run_id = live.run.writer_id, live.info.run_id
        seq = self.model.next_seq(writer_id)
        charted = {name: n for name, value in data.items() if (n := numbers_like(value)) is not None}
        others = {name: o for name, value in data.items() if (o := other_like(value)) is not None}
        if charted or not others:
            self.note_number("metrics", writer_id, seq, live.info, number, charted)
        for name, (kind, payload) in others.items():
            self.note_row(writer_id, seq, run_id, kind, payload, name, number)
        if number is not None:
            self.note_fact(writer_id, seq, run_id, ("step",), number)

    # What users do.

    def open_run(self, info: RunInfo) -> None:
        self.tick()
        opened = run.Run(self.root, info, config=QUIET, fs=self.disk, time_ns=self.time_ns)
        self.live.append(Live(opened, info))
        fields = {field: getattr(info, field) for field in PAYLOAD_FIELDS["run_start"]}
        seq = self.note_event(opened.writer_id, info.run_id, "run_start", info.name, fields)
        self.note_fact(opened.writer_id, seq, info.run_id, ("name",), info.name, weak=info.mode != "new")
        if info.mode == "new":
            self.note_fact(opened.writer_id, seq, info.run_id, ("tags",), info.tags)
        self.note_fact(opened.writer_id, seq, info.run_id, ("status",), ("running", 0))
        for key, value in info.config.items():
            self.note_fact(opened.writer_id, seq, info.run_id, ("config", key), repr(value))

    @initialize(config=configs)
    def start_first(self, config):
        self.start("r", "first", config, None, [])

    @precondition(lambda self: len(self.live) < 5)
    @rule(prefix=prefixes, name=texts, config=configs, rank=st.none() | picks, tags=labels)
    def start(self, prefix, name, config, rank, tags):
        run_id = f"{prefix}{len(self.infos)}"
        info = RunInfo(project=PROJECT, run_id=run_id, name=name, config=config, rank=rank, tags=tags)
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
        writer_id = live.run.writer_id
        self.note_number("system", writer_id, self.model.next_seq(writer_id), live.info, None, data)

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
    @rule(pick=picks, changes=settable, what=patches)
    def update_config_or_summary(self, pick, changes, what):
        live = self.pick(pick)
        getattr(live.run, what[0]).update(changes)
        writer_id, run_id = live.run.writer_id, live.info.run_id
        seq = self.note_event(writer_id, run_id, what[1], "", {"values": changes})
        for key, value in changes.items():
            self.note_fact(writer_id, seq, run_id, (what[0], key), repr(value))

    @precondition(lambda self: self.live)
    @rule(
        pick=picks,
        name=texts,
        step_metric=st.none() | texts,
        goal=st.sampled_from((None, "minimize", "maximize")),
        summary=st.sampled_from((None, "min", "max", "mean", "last", "none")),
    )
    def define_metric(self, pick, name, step_metric, goal, summary):
        live = self.pick(pick)
        shown = {"step_metric": step_metric, "goal": goal, "summary": summary}
        live.run.define_metric(name, **shown)
        writer_id, run_id = live.run.writer_id, live.info.run_id
        seq = self.note_event(writer_id, run_id, "metric_def", name, {"name": name, **shown})
        self.note_fact(writer_id, seq, run_id, ("metric_defs", name), repr(shown))

    @precondition(lambda self: self.live)
    @rule(pick=picks, text=texts, said=st.sampled_from(("console", "heartbeat", "artifact_use")))
    def say(self, pick, text, said):
        """Records that no table but `events` knows."""
        live = self.pick(pick)
        run_id = live.info.run_id
        record: schema.Record = {
            "console": schema.Console(self.now_ns, run_id, "stderr", text),
            "heartbeat": schema.Heartbeat(self.now_ns, run_id),
            "artifact_use": schema.ArtifactUse(self.now_ns, run_id, text, "v1"),
        }[said]
        assert live.run._writer.append(record)
        fields = {"stream": "stderr", "text": text, "name": text, "version": "v1"}
        self.note_event(live.run.writer_id, run_id, said, text if said == "artifact_use" else "", fields)

    @precondition(lambda self: self.live)
    @rule(pick=picks, text=texts)
    def say_what_only_a_later_release_knows(self, pick, text):
        live = self.pick(pick)
        writer_id, run_id = live.run.writer_id, live.info.run_id
        assert live.run._writer.append(Later(self.now_ns, run_id, [text]))
        payload = repr([self.now_ns, run_id, [text]])
        self.note_row(writer_id, self.model.next_seq(writer_id), run_id, "unknown:99", payload)

    @precondition(lambda self: self.live)
    @rule(pick=picks, name=texts, data=st.binary(max_size=9), metadata=configs, overwrite=st.booleans())
    def make_an_artifact(self, pick, name, data, metadata, overwrite):
        live = self.pick(pick)
        blob = live.run._blobs.put(data)
        files = {name: {"sha256": blob.digest, "size_bytes": blob.size_bytes}}
        fields = {"name": name, "type": "model", "version": "v0", "aliases": [name], "metadata": metadata}
        fields |= {"files": files, "description": name, "overwrite": overwrite}
        live.run._writer.append(schema.ArtifactVersion(self.now_ns, live.info.run_id, **fields))
        self.note_event(live.run.writer_id, live.info.run_id, "artifact_version", name, fields)

    @precondition(lambda self: self.live)
    @rule(pick=picks, path=texts, data=st.binary(max_size=9), step=st.none() | picks, of_run=st.booleans())
    def upload(self, pick, path, data, step, of_run):
        live = self.pick(pick)
        run_id = live.info.run_id if of_run else ""
        blob = live.run._blobs.put(data)
        live.run._writer.append(schema.Upload(self.now_ns, run_id, path, *blob, step))
        fields = {"path": path, "sha256": blob.digest, "size_bytes": blob.size_bytes}
        self.note_event(live.run.writer_id, run_id, "upload", "", fields, step)

    @precondition(lambda self: self.live)
    @rule(pick=picks, entries=st.lists(st.tuples(picks, numbers, st.none() | picks), min_size=1, max_size=4))
    def take_a_batch(self, pick, entries):
        """Write as a server does: a receipt, and records of several runs, with one write(2)."""
        writer = self.pick(pick).run._writer
        ids = b"".join(bytes([len(entries), number]) + bytes(10) for number in range(len(entries)))
        records: list[schema.Record] = [schema.Receipt(self.now_ns, "", ids)]
        for about, data, step in entries:
            shape = writer.shape(self.infos[about % len(self.infos)].run_id, None, tuple(data))
            records.append(schema.Log(self.now_ns, step, shape.number, shape.pack(*data.values())))
        writer.append_all(records)
        self.note_event(writer.writer_id, "", "receipt", "", {"ids": {"_type": "bytes", "hex": ids.hex()}})
        for about, data, step in entries:
            info = msgspec.structs.replace(self.infos[about % len(self.infos)], rank=None)
            seq = self.model.next_seq(writer.writer_id)
            self.note_number("metrics", writer.writer_id, seq, info, step, data)
            if step is not None:
                self.note_fact(writer.writer_id, seq, info.run_id, ("step",), step)

    @precondition(lambda self: self.live)
    @rule(pick=picks, count=st.integers(1, 3), data=numbers, rolls=st.booleans())
    def log_to_a_full_disk(self, pick, count, data, rolls):
        """What cannot be kept is counted, and the count is the next record that can."""
        live = self.pick(pick)
        if rolls:
            live.run._writer.roll()
        self.disk.full = True
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for _ in range(count):
                live.run.log(data, step=1)
        self.disk.full = False
        live.next_step = 2
        live.dropped += count
        assert live.run.lost == live.dropped
        live.run.log(data, step=3)
        self.model.dropped += count
        self.note_event(live.run.writer_id, "", "dropped", "", {"count": count})
        self.note_log(live, data, 3)

    @precondition(lambda self: self.live)
    @rule(pick=picks, calls=st.lists(numbers, max_size=3), closes=st.booleans())
    def fork(self, pick, calls, closes):
        """A forked child logs to the run of its parent, with a writer of its own; it finishes, or is killed."""
        live = self.pick(pick)
        read_end, write_end = os.pipe()
        child = os.fork()
        if not child:
            try:
                for data in calls:
                    live.run.log(data)
                if closes:
                    live.run.finish()
                os.write(write_end, live.run.writer_id.encode())
            finally:
                os._exit(0)
        os.close(write_end)
        with open(read_end, "rb") as file:
            writer_id = file.read().decode()
        assert os.waitpid(child, 0) == (child, 0)
        assert writer_id
        if not calls:
            return
        info = msgspec.structs.replace(live.info, config={}, mode="fork")
        self.note_event(writer_id, info.run_id, "run_start", info.name, msgspec.structs.asdict(info))
        for number, data in enumerate(calls, start=live.next_step):
            seq = self.model.next_seq(writer_id)
            step = step_like(number)
            self.note_number("metrics", writer_id, seq, info, step, data)
            if step is not None:
                self.note_fact(writer_id, seq, info.run_id, ("step",), step)

    @rule(pick=picks, name=texts)
    def rename(self, pick, name):
        writer_id, seq, run_id = self.administer(pick, "rename", {"name": name})
        self.note_fact(writer_id, seq, run_id, ("name",), name)

    @rule(pick=picks, tags=labels)
    def tag(self, pick, tags):
        writer_id, seq, run_id = self.administer(pick, "tag", {"tags": tags})
        self.note_fact(writer_id, seq, run_id, ("tags",), tags)

    @rule(pick=picks)
    def delete(self, pick):
        writer_id, seq, run_id = self.administer(pick, "delete", {})
        self.note_fact(writer_id, seq, run_id, ("deleted",), True)

    @rule(pick=picks)
    def undelete(self, pick):
        writer_id, seq, run_id = self.administer(pick, "undelete", {})
        self.note_fact(writer_id, seq, run_id, ("deleted",), False)

    def administer(self, pick, action, changes):
        """Write a tombstone, or an action that nobody knows; return where it stands and which run it is about."""
        self.tick()
        run_id = self.infos[pick % len(self.infos)].run_id
        writer = Writer(self.root, PROJECT, config=QUIET, time_ns=self.time_ns)
        writer.append(schema.Admin(self.now_ns, run_id, action, changes))
        writer.close()
        fields = {"action": action, "values": changes}
        return writer.writer_id, self.note_event(writer.writer_id, run_id, "admin", action, fields), run_id

    @rule(pick=picks, changes=configs)
    def administer_in_a_way_of_tomorrow(self, pick, changes):
        self.administer(pick, "freeze", changes)

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
        assert live.run.lost == live.dropped
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
