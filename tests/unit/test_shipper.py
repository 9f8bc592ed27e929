"""What jobs and a shipper tell each other, and when a shipper tries again and ends: without any process."""

from __future__ import annotations

import gc
import os
import threading
import time
import warnings
import weakref
from pathlib import Path

import pytest

import eventlog
from eventlog import names
from eventlog.config import WriterConfig, read_environment
from eventlog.errors import UsageError
from eventlog.session import finish_open_runs
from eventlog.shipper import job, pace, process
from eventlog.shipper import launch as launching
from eventlog.shipper.desk import Desk, State
from eventlog.shipper.launch import launch
from eventlog.shipper.pace import LINGER_S, Outcome, may_end, pause_s
from eventlog.store import open_store

BUCKET = "hf://buckets/owner/bucket"


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    made = Desk(str(tmp_path), BUCKET)
    made.make()
    return made


def test_a_store_has_a_place_for_each_bucket_apart_from_what_a_publisher_remembers():
    places = {names.shipper_dir("/s", BUCKET), names.shipper_dir("/s", BUCKET + "/x"), names.shipper_dir("/t", BUCKET)}
    assert len(places) == 3
    assert names.bucket_state_path("/s", BUCKET) not in places
    assert names.is_ask(names.ask_name())
    assert not any(map(names.is_ask, ("ask-", "ask-1", "state.json", names.new_id(), f"ask-{names.new_id()}.tmp")))


def test_one_shipper_has_the_lock_and_a_job_that_finds_it_taken_starts_none(desk: Desk):
    held = desk.take()
    assert held is not None
    assert desk.take() is None
    assert launch(desk, 1.0) is False
    os.close(held)
    again = desk.take()
    assert again is not None
    os.close(again)


def test_a_place_is_deserted_when_no_run_is_there_any_more(desk: Desk):
    assert desk.is_deserted()
    one, two = desk.join(), desk.join()
    for fd in (one, two):
        assert not desk.is_deserted()
        os.close(fd)
    assert desk.is_deserted()


def test_a_run_that_joins_while_a_shipper_is_about_to_end_waits_until_its_lock_is_free(desk: Desk):
    held, alone = desk.take(), desk.hold_off()
    assert held is not None
    assert alone is not None
    free: list[bool] = []

    def join() -> None:
        fd = desk.join()
        mine = desk.take()
        free.append(mine is not None)
        for each in (fd, mine):
            if each is not None:
                os.close(each)

    run = threading.Thread(target=join)
    run.start()
    run.join(0.05)
    assert free == []
    os.close(held)
    os.close(alone)
    run.join()
    assert free == [True]


def test_a_shipper_that_was_stopped_in_the_middle_of_its_end_holds_nobody_up_for_ever(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("eventlog.shipper.desk._JOIN_TRIES", 3)
    alone = desk.hold_off()
    assert alone is not None
    with pytest.raises(TimeoutError, match="does not go on"):
        desk.join()
    os.close(alone)


def test_what_is_asked_is_there_until_it_is_answered(desk: Desk):
    one, two = names.ask_name(), names.ask_name()
    for ask in (one, two):
        desk.ask(ask, 60.0)
    assert desk.asks() == {one, two}
    desk.answer([one])
    desk.answer([one])
    assert (desk.is_answered(one), desk.is_answered(two)) == (True, False)


def test_an_ask_of_a_job_that_was_killed_is_waited_for_no_longer_than_the_job_would_have_waited(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
):
    began = time.time()
    assert not desk.is_waited_for()
    desk.ask(names.ask_name(), 60.0)
    for passed_s, waited_for in ((0, True), (59, True), (61, False)):
        monkeypatch.setattr("eventlog.shipper.desk.time.time", lambda passed_s=passed_s: began + passed_s)
        assert desk.is_waited_for() is waited_for
    assert len(desk.asks()) == 1, "it is answered all the same"


def test_a_shipper_does_not_hurry_for_a_job_that_was_killed(desk: Desk, monkeypatch: pytest.MonkeyPatch):
    """It is asked through the loop itself, for what it makes of asks."""
    asked = []
    monkeypatch.setattr(process.pace, "pause_s", lambda outcome, _: asked.append(outcome.asked) or 0.0)
    shipper = process.Shipper(desk.root, BUCKET, held=-1, interval_s=1.0)
    for wait_s in (-1.0, 60.0):
        desk.ask(names.ask_name(), wait_s)
        shipper._wait(frozenset())
    assert asked == [False, True]


@pytest.mark.parametrize("variable", ["HF_HOME", "HF_TOKEN_PATH", "SSL_CERT_FILE", "XDG_CACHE_HOME"])
def test_relative_paths_of_the_environment_lead_where_they_did_in_the_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str
):
    monkeypatch.chdir(tmp_path)
    here = str(tmp_path)
    for given, handed in (("a/b", f"{here}/a/b"), ("/c:d", "/c:d"), ("~/d", "~/d"), ("$E/f", "$E/f")):
        monkeypatch.setenv(variable, given)
        assert launching._environment()[variable] == handed
    monkeypatch.setenv("PYTHONPATH", f"lib{os.pathsep}/x")
    assert launching._environment()["PYTHONPATH"] == f"{here}/lib{os.pathsep}/x"


def test_the_state_is_the_last_that_was_told_and_none_before_and_after_it_is_forgotten(desk: Desk):
    assert desk.state() is None
    for number in range(3):
        desk.tell(State(pid=1, files=number, error="x" * number))
    assert desk.state() == State(pid=1, files=2, error="xx")
    (Path(desk.directory) / names.temporary_name("state.json")).write_text("{")
    desk.forget()
    assert desk.state() is None
    assert os.listdir(desk.directory) == []
    (Path(desk.directory) / "state.json").write_text("{")
    assert desk.state() is None


def test_the_lock_of_a_place_that_was_removed_is_nobodys(desk: Desk):
    held = desk.take()
    assert held is not None
    assert desk.is_mine(held)
    os.unlink(os.path.join(desk.directory, "lock"))
    assert not desk.is_mine(held)
    other = desk.take()
    assert other is not None
    assert not desk.is_mine(held)
    os.close(held)
    os.close(other)


def test_a_log_that_has_grown_long_is_put_aside(desk: Desk):
    for size in (10, 2 << 20):
        Path(desk.log_path).write_bytes(bytes(size))
        os.close(desk.open_log())
    assert os.stat(desk.log_path).st_size == 0
    assert os.stat(f"{desk.log_path}.old").st_size == 2 << 20


def test_a_shipper_ends_only_when_no_job_is_there_and_all_is_shipped_or_tried_for_long():
    assert not may_end(Outcome())
    assert may_end(Outcome(deserted_s=0.0))
    assert not may_end(Outcome(deserted_s=0.0, left_open=1)), "its writer may be dying"
    assert may_end(Outcome(deserted_s=60.0, left_open=1)), "its writer has another bucket, or none"
    assert not may_end(Outcome(deserted_s=LINGER_S - 1, failures=9))
    assert may_end(Outcome(deserted_s=LINGER_S, failures=9))
    assert not may_end(Outcome(failures=10**6))


def test_pauses_grow_with_failures_and_are_short_while_somebody_waits():
    assert pause_s(Outcome(), 15.0) == 15.0
    assert pause_s(Outcome(deserted_s=0.0), 15.0) <= 1.0
    pauses = [pause_s(Outcome(failures=failures), 15.0) for failures in range(1, 2000)]
    assert pauses == sorted(pauses)
    assert (pauses[0], pauses[-1]) == (15.0, pace._JOBS_S)
    assert pause_s(Outcome(failures=99, asked=True), 15.0) <= 5.0
    assert pause_s(Outcome(failures=99, asked=True, lasting=True), 15.0) == pace._JOBS_S
    assert pause_s(Outcome(failures=99, deserted_s=1.0), 15.0) < LINGER_S / 10


class Clock:
    """Time passes only by sleeping."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def monotonic(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds


def test_a_job_waits_once_for_a_shipper_that_does_not_answer_and_anew_when_it_has_answered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    clock = Clock()
    monkeypatch.setattr(job, "time", clock)
    monkeypatch.setattr(job, "_patience_s", {})
    monkeypatch.setattr(job.Shipping, "_attend", lambda shipping, *_: shipping._desk.make() or False)
    waits = []
    for answers in (False, False, True, False):
        shipping = job.Shipping(str(tmp_path), WriterConfig(bucket=BUCKET, ship_flush_s=60.0))
        began = clock.now_s
        with monkeypatch.context() as patch, warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            if answers:
                patch.setattr(Desk, "is_answered", lambda desk, ask: True)  # noqa: ARG005 - as it is called
            shipping.end(wait=True)
        assert len(caught) == (not answers)
        waits.append(round(clock.now_s - began))
    assert waits == [60, 1, 0, 60]


def test_a_shipper_that_ends_at_once_again_and_again_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(job.Shipping, "_attend", lambda shipping, *_: shipping._desk.make() or True)
    shipping = job.Shipping(str(tmp_path), WriterConfig(bucket=BUCKET))
    with pytest.warns(eventlog.EventLogWarning, match="ends at once; .*log says why"):
        shipping.end(wait=True)


@pytest.mark.parametrize("interval_s", [None, 0.01])
def test_neither_log_nor_flush_waits_for_a_shipper_that_is_slow_to_start(
    store: str, monkeypatch: pytest.MonkeyPatch, interval_s: float | None
):
    goes_on = threading.Event()
    begun, ended = threading.Semaphore(0), []
    settings = WriterConfig(sync_interval_s=interval_s, segment_bytes=4096, bucket=BUCKET, ship_flush_s=0.0)
    monkeypatch.setattr(job, "launch", lambda *_: True)
    run = eventlog.init("p", dir=store, settings=settings)

    def slow(*_: object) -> bool:
        begun.release()
        ended.append(goes_on.wait(20))
        return True

    monkeypatch.setattr(job, "launch", slow)
    for step in range(500):
        run.log({"a": 1.0}, step=step)
    run.flush()
    assert begun.acquire(timeout=20), "no shipper was started in place of the one that is gone"
    run.flush()
    run.finish()
    assert (ended, begun.acquire(blocking=False)) == ([], False), "one at a time, and nobody waits for it"
    goes_on.set()


def test_runs_that_a_notebook_drops_are_named_once_and_finished_in_the_end_and_then_released(
    store: str, monkeypatch: pytest.MonkeyPatch
):
    asks: list[str] = []
    monkeypatch.setattr(job, "launch", lambda *_: False)
    monkeypatch.setattr(Desk, "ask", lambda _desk, ask, _wait_s: asks.append(ask))
    settings = WriterConfig(sync_interval_s=None, bucket=BUCKET)
    dropped = []
    for number in range(4):
        run = eventlog.init("p", dir=store, settings=settings)
        run.log({"number": number})
        dropped.append(weakref.ref(run))
    for _ in range(2):
        run = eventlog.init("p", dir=store, settings=settings)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            run.finish()
        assert [str(warning.message).partition(": ")[2][:46] for warning in caught] == (
            ["4 runs of this process are not finished; what "] if len(asks) == 1 else []
        )
    del run
    gc.collect()
    assert None not in [reference() for reference in dropped]
    finish_open_runs()
    assert len(asks) == 3, "the youngest waits for all"
    gc.collect()
    assert {reference() for reference in dropped} == {None}
    assert open_store(store).runs("p")["status"].to_pylist() == ["finished"] * 6
    assert {path.suffix for path in Path(store, "segments").rglob("*.*")} == {".seg"}


def test_the_end_of_a_run_waits_for_the_start_of_a_shipper_no_longer_than_for_the_shipment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    clock, limits = Clock(), []

    def launch(desk: Desk, interval_s: float, timeout_s: float) -> bool:  # noqa: ARG001 - as it is called
        limits.append(timeout_s)
        clock.now_s += 3.0
        return False

    monkeypatch.setattr(job, "time", clock)
    monkeypatch.setattr(job, "_patience_s", {})
    monkeypatch.setattr(job, "launch", launch)
    shipping = job.Shipping(str(tmp_path), WriterConfig(bucket=BUCKET, ship_flush_s=7.0))
    with pytest.warns(eventlog.EventLogWarning, match="it was not done after 9"):
        shipping.end(wait=True)
    assert [round(limit) for limit in limits] == [60, 7, 4, 1]


def test_a_bucket_shortens_the_life_of_a_segment_unless_that_is_set():
    assert WriterConfig().rolls_after_s == 3600
    assert WriterConfig(bucket=BUCKET).rolls_after_s == 60
    assert WriterConfig(bucket=BUCKET, roll_interval_s=7.0).rolls_after_s == 7


def test_the_environment_names_a_bucket_also_for_settings_that_name_none(store: str, monkeypatch: pytest.MonkeyPatch):
    made = []
    monkeypatch.setattr("eventlog.run.follow", lambda writer: made.append(writer.config))
    monkeypatch.setenv("EVENTLOG_BUCKET", BUCKET)
    monkeypatch.setenv("EVENTLOG_SHIP_INTERVAL_S", "3")
    monkeypatch.setenv("EVENTLOG_SHIP_FLUSH_S", "0")
    own = WriterConfig(sync_interval_s=None, bucket="hf://buckets/a/b")
    for settings in (None, WriterConfig(sync_interval_s=None), own):
        eventlog.init(dir=store, settings=settings)
    facts = [(config.bucket, config.ship_interval_s, config.ship_flush_s) for config in made]
    assert facts[:2] == [(BUCKET, 3.0, 0.0)] * 2
    assert made[2] == own
    assert made[1].sync_interval_s is None


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("EVENTLOG_BUCKET", "hf://datasets/a/b"),
        ("EVENTLOG_BUCKET", "bucket"),
        ("EVENTLOG_SHIP_INTERVAL_S", "0"),
        ("EVENTLOG_SHIP_INTERVAL_S", "soon"),
        ("EVENTLOG_SHIP_FLUSH_S", "-1"),
        ("EVENTLOG_SHIP_FLUSH_S", "nan"),
    ],
)
def test_a_bad_variable_of_shipping_is_refused(variable: str, value: str):
    with pytest.raises(UsageError):
        read_environment({variable: value})
