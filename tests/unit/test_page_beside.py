"""The export of a page beside a service: which of the two ends with the other."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from compactor.commands.paging import run_both
from eventlog.errors import StorageError, UsageError


class _Service:
    """Runs until it is stopped, or fails."""

    def __init__(self, error: Exception | None = None, refusal: Exception | None = None) -> None:
        self.error, self.refusal, self.stopped = error, refusal, threading.Event()
        self.began, self.failed = threading.Event(), threading.Event()

    def check(self) -> None:
        if self.refusal is not None:
            raise self.refusal

    def stop(self) -> None:
        self.stopped.set()

    def run(self) -> None:
        self.began.set()
        if self.error is not None:
            self.failed.set()
            raise self.error
        assert self.stopped.wait(60)


def test_a_page_that_ends_leaves_the_service_running_and_is_told_at_once_and_at_the_end(
    caplog: pytest.LogCaptureFixture,
) -> None:
    beside, page = _Service(), _Service(UsageError("of the page"))
    with ThreadPoolExecutor(1) as pool:
        both = pool.submit(run_both, beside, page)
        assert page.failed.wait(60)
        while not caplog.records:
            time.sleep(0.001)
        assert "of the page" in caplog.text
        assert not beside.stopped.is_set()
        beside.stop()
        with pytest.raises(UsageError, match="of the page"):
            both.result(60)


def test_the_end_of_the_service_is_that_of_the_page_beside_it() -> None:
    beside, page = _Service(ValueError("of the service")), _Service()
    with pytest.raises(ValueError, match="of the service"):
        run_both(beside, page)
    assert page.stopped.is_set()


def test_a_wrong_call_refuses_before_the_service_begins_and_a_refusal_of_the_hub_does_not() -> None:
    beside = _Service()
    with pytest.raises(UsageError, match="private"):
        run_both(beside, _Service(refusal=UsageError("private")))
    assert not beside.began.is_set()
    beside.stop()
    page = _Service(refusal=StorageError(5, "busy"))
    run_both(beside, page)
    assert page.began.is_set()
