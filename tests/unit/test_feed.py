"""A feed shows each record once, through folds, late segments and collections; what it announced is in its view."""

from __future__ import annotations

import os

import pytest

from compactor.config import CompactorConfig
from compactor.fold import fold
from compactor.work import take_turn
from eventlog import schema
from eventlog.config import WriterConfig
from eventlog.feed import Feed
from eventlog.fs import LOCAL
from eventlog.manifest import Watermark
from eventlog.snapshot import ReaderCache
from eventlog.store import open_store
from eventlog.writer import Writer

QUIET = WriterConfig(sync_interval_s=None)
CONFIG = CompactorConfig()


class Consumer:
    """Keeps the steps that a feed announced, as a server does."""

    def __init__(self, root: str) -> None:
        self.feed = Feed(LOCAL, root, "p", ReaderCache(LOCAL))
        self.steps: list[int] = []
        self.resets = 0

    def look(self) -> list[int]:
        news = self.feed.advance()
        if news.reset:
            self.resets += 1
            self.steps = self.feed.view.rows("metrics", None, None)["_step"].to_pylist()
        for batch in news.batches:
            for block in batch.metrics:
                self.steps += block.step.tolist()
        assert sorted(self.steps) == sorted(self.feed.view.rows("metrics", None, None)["_step"].to_pylist())
        return sorted(self.steps)


@pytest.fixture
def root(tmp_path):
    return str(tmp_path / "store")


@pytest.fixture
def writer(root):
    opened = Writer(root, "p", config=QUIET)
    opened.append(schema.RunStart(1, "r", "p", "r"))
    yield opened
    opened.close()


def log(writer, first, last):
    for step in range(first, last):
        shape = writer.shape("r", None, ("x",))
        writer.log(shape, step, shape.pack(float(step)))


def test_each_record_is_announced_once_whatever_is_folded_between(root, writer):
    consumer = Consumer(root)
    at = 0
    for turn in range(12):
        log(writer, at, at + 10)
        at += 10
        if turn % 3 == 1:
            writer.roll()
        if turn % 2:
            take_turn(LOCAL, root, "p", CONFIG)
        if turn % 4 != 3:
            log(writer, at, at + 3)
            at += 3
            assert consumer.look() == list(range(at))
    assert consumer.look() == list(range(at))
    assert consumer.resets == 1


def test_nothing_new_brings_nothing(root, writer):
    log(writer, 0, 10)
    consumer = Consumer(root)
    consumer.look()
    assert consumer.feed.advance() == (False, [])
    fold(LOCAL, root, "p", CONFIG)
    assert consumer.feed.advance() == (False, [])


def test_a_segment_that_arrives_late_is_shown_before_and_after_its_gap_is_folded(root, writer):
    log(writer, 0, 10)
    writer.roll()
    log(writer, 10, 20)
    writer.roll()
    log(writer, 20, 30)
    directory = os.path.join(root, "segments", "p", writer.writer_id)
    late = os.path.join(directory, "00000002.seg")
    os.rename(late, root + "/hidden")
    consumer = Consumer(root)
    opened = open_store(root)
    assert consumer.look() == [*range(10), *range(20, 30)]
    assert opened.metrics("p").num_rows == 20
    os.rename(root + "/hidden", late)
    assert consumer.look() == list(range(30))
    assert opened.metrics("p").num_rows == 30
    fold(LOCAL, root, "p", CONFIG)
    log(writer, 30, 31)
    assert consumer.look() == list(range(31))


def test_who_looks_again_after_the_segments_were_collected_sees_everything(root, writer):
    log(writer, 0, 10)
    writer.roll()
    log(writer, 10, 12)
    consumer = Consumer(root)
    assert consumer.look() == list(range(12))
    log(writer, 12, 20)
    writer.roll()
    log(writer, 20, 30)
    writer.roll()
    log(writer, 30, 40)
    eager = CompactorConfig(grace_s=0.0, segment_retention_s=0.0)
    take_turn(LOCAL, root, "p", eager)
    take_turn(LOCAL, root, "p", eager)
    directory = os.path.join(root, "segments", "p", writer.writer_id)
    assert sorted(os.listdir(directory)) == ["00000004.open"]
    log(writer, 40, 41)
    assert consumer.look() == list(range(41))


def test_a_view_that_is_read_up_to_watermarks_goes_on_exactly_after_them(root, writer):
    log(writer, 0, 100)
    consumer = Consumer(root)
    consumer.look()
    marks = dict(consumer.feed.view.tail.marks)
    log(writer, 100, 150)
    limited = Consumer(root)
    limited.look()
    tail = type(consumer.feed.view.tail)(LOCAL, root, consumer.feed.view.snapshot.manifest)
    tail.refresh(marks)
    assert sum(batch.records for batch in tail.batches) == marks[writer.writer_id].seq
    tail.refresh()
    assert sum(batch.records for batch in tail.batches) == writer.next_seq - 1
    assert tail.marks[writer.writer_id] != Watermark()


@pytest.mark.parametrize("step", [1 << 63, (1 << 64) - 1])
def test_a_step_or_a_time_beyond_64_bits_stops_no_fold_and_no_reader(root, writer, step):
    log(writer, 0, 50)
    shape = writer.shape("r", None, ("x",))
    for _ in range(20):
        writer.append(schema.Log(5, step, shape.number, shape.pack(1.0)))
        writer.append(schema.Log(step, 5, shape.number, shape.pack(1.0)))
    writer.append(schema.Alert(step, "r", "title", "", "warn", step))
    opened = open_store(root)
    before = opened.metrics("p")
    assert before["_step"].to_pylist() == list(range(50))
    kinds = opened.events("p")["kind"].to_pylist()
    assert kinds.count("unknown:log_beyond_64_bits") == 40
    assert kinds.count("alert") == 1
    take_turn(LOCAL, root, "p", CONFIG)
    assert opened.metrics("p").equals(before)
