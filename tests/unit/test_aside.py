"""Where somebody makes errors of warnings, those of work in the background are told all the same and end nothing."""

from __future__ import annotations

import io
import os
import sys
import threading
import warnings
from collections.abc import Iterator
from typing import Any

import pytest

import eventlog
from eventlog.aside import warn_aside
from eventlog.config import WriterConfig
from eventlog.shipper import job

BUCKET = "hf://buckets/owner/bucket"


@pytest.fixture(autouse=True)
def _strict(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(job, "_warned", set())
    monkeypatch.setattr(job, "_patience_s", {})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def test_a_warning_that_is_made_an_error_is_said_on_stderr(capsys: pytest.CaptureFixture[str]):
    warn_aside("one")
    assert capsys.readouterr().err == "EventLogWarning: one\n"


@pytest.mark.parametrize("stream", [None, io.StringIO(), object()])
def test_a_stderr_that_takes_nothing_is_no_reason_to_raise(stream: Any, monkeypatch: pytest.MonkeyPatch):
    if stream is not None and hasattr(stream, "close"):
        stream.close()
    monkeypatch.setattr(sys, "stderr", stream)
    warn_aside("one")


def sync_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("eventlog-sync")]


@pytest.mark.parametrize("error", [RuntimeError, SystemExit])
def test_the_sync_thread_outlives_a_callback_that_raises(
    start: Any, back: Any, capsys: pytest.CaptureFixture[str], error: type[BaseException]
):
    called = threading.Semaphore(0)

    def fail(path: str) -> None:
        called.release()
        if threading.current_thread() is not threading.main_thread():
            raise error(path)

    run = start(settings=WriterConfig(sync_interval_s=0.01, roll_interval_s=0.01))
    run.on_sealed(fail)
    for step in range(3):
        run.log({"a": 1.0}, step=step)
        assert called.acquire(timeout=30), "nothing is sealed any more"
    (thread,) = sync_threads()
    assert thread.is_alive()
    run.finish()
    assert {path[-4:] for path in back.files()} == {".seg"}
    assert len(back.calls()) == 3
    assert error.__name__ in capsys.readouterr().err


def begin_and_finish(store: str) -> int:
    """Return how many files stay open of a run that cannot be shipped."""
    before = len(os.listdir("/proc/self/fd"))
    with eventlog.init("p", dir=store, settings=WriterConfig(sync_interval_s=0.01, bucket=BUCKET)) as run:
        run.log({"a": 1.0})
        run._writer.roll()
        run.log({"a": 2.0})
    for thread in threading.enumerate():
        if thread.name.startswith("eventlog-"):
            thread.join()
    return len(os.listdir("/proc/self/fd")) - before


def test_a_run_that_no_process_ships_begins_and_finishes_and_leaves_nothing_open(
    store: str, back: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    assert begin_and_finish(store) == 0
    assert [call.step for call in back.calls()] == [0, 1]
    err = capsys.readouterr().err
    assert err.count("no process can be started that ships") == 2
    assert err.count("nothing is shipped now: ") == err.count("are not known to be there: ") == 1


def test_a_run_without_the_hubs_client_begins_and_finishes_and_leaves_nothing_open(
    store: str, back: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(job, "_NEEDED", ("no_such_module",))
    assert begin_and_finish(store) == 0
    assert [call.step for call in back.calls()] == [0, 1]
    assert capsys.readouterr().err.count("pip install 'eventlog[hub]'") == 1


def test_an_interrupt_while_a_shipper_is_started_leaves_nothing_open(store: str, monkeypatch: pytest.MonkeyPatch):
    def interrupt(*_: object) -> bool:
        raise KeyboardInterrupt

    monkeypatch.setattr(job, "launch", interrupt)
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(KeyboardInterrupt):
        eventlog.init("p", dir=store, settings=WriterConfig(sync_interval_s=None, bucket=BUCKET))
    assert len(os.listdir("/proc/self/fd")) == before


def test_what_goes_wrong_with_shipping_in_the_end_is_told_and_the_run_has_finished(
    store: str, back: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(job, "launch", lambda *_: False)
    monkeypatch.setattr(job, "outgoing", lambda *_: 1 / 0)
    settings = WriterConfig(sync_interval_s=None, bucket=BUCKET, ship_flush_s=0.1)
    eventlog.init("p", dir=store, settings=settings).finish()
    assert {path[-4:] for path in back.files()} == {".seg"}
    assert "ZeroDivisionError" in capsys.readouterr().err
