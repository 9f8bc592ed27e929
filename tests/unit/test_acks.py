"""Writes that wait for the bucket: each for a push that began after it came, all who wait for one together."""

from __future__ import annotations

import threading
import time

import pytest

from compactor.serve.acks import Acks
from compactor.serve.errors import UnavailableError
from eventlog.errors import StorageError


class Pushes:
    """Pushes that end when they are let."""

    def __init__(self) -> None:
        self.began = threading.Semaphore(0)
        self.go_on = threading.Semaphore(0)
        self.count = 0
        self.error: Exception | None = None

    def push(self) -> None:
        self.count += 1
        self.began.release()
        assert self.go_on.acquire(timeout=60)
        if self.error is not None:
            raise self.error


def waiting(acks: Acks) -> tuple[threading.Thread, list[str]]:
    """Wait in a thread; what it was answered is in the list when it has ended."""
    told: list[str] = []

    def wait() -> None:
        try:
            acks.wait()
        except UnavailableError as error:
            told.append(str(error))
        else:
            told.append("kept")

    thread = threading.Thread(target=wait)
    thread.start()
    return thread, told


def test_who_comes_during_a_push_waits_for_the_next_and_all_of_those_share_it():
    pushes = Pushes()
    acks = Acks(pushes.push)
    first, told = waiting(acks)
    assert pushes.began.acquire(timeout=60)
    later = [waiting(acks) for _ in range(5)]
    while acks.waiting < 5:
        time.sleep(0.001)
    pushes.go_on.release()
    first.join(60)
    assert told == ["kept"]
    assert pushes.began.acquire(timeout=60)
    assert [answers for _, answers in later] == [[]] * 5
    pushes.go_on.release()
    for thread, _ in later:
        thread.join(60)
    assert [answers for _, answers in later] == [["kept"]] * 5
    assert pushes.count == 2
    acks.close()


def test_a_push_that_fails_is_told_to_those_who_waited_for_it_and_the_next_is_tried():
    pushes = Pushes()
    acks = Acks(pushes.push)
    pushes.error = StorageError(5, "the Hub is away")
    pushes.go_on.release()
    thread, told = waiting(acks)
    thread.join(60)
    assert told == ["not in the bucket: the Hub is away"]
    pushes.error = None
    pushes.go_on.release()
    thread, told = waiting(acks)
    thread.join(60)
    assert told == ["kept"]
    acks.close()


def test_nobody_waits_longer_than_a_client_does():
    pushes = Pushes()
    acks = Acks(pushes.push, patience_s=0.05)
    with pytest.raises(UnavailableError, match="not in the bucket yet"):
        acks.wait()
    pushes.go_on.release()
    acks.close()


def test_at_the_end_those_who_wait_are_let_go():
    pushes = Pushes()
    acks = Acks(pushes.push, patience_s=60)
    thread, told = waiting(acks)
    assert pushes.began.acquire(timeout=60)
    threading.Timer(0.1, pushes.go_on.release).start()
    acks.close()
    thread.join(60)
    assert told in (["not in the bucket yet: send it again"], ["kept"])
    with pytest.raises(UnavailableError):
        acks.wait()


def test_an_error_that_nobody_thought_of_is_told_to_those_who_wait_and_the_next_push_is_tried(caplog):
    pushes = Pushes()
    acks = Acks(pushes.push)
    pushes.error = KeyError("unheard of")
    pushes.go_on.release()
    thread, told = waiting(acks)
    thread.join(60)
    assert told == ["not in the bucket: KeyError"]
    assert "unheard of" in caplog.text
    pushes.error = None
    pushes.go_on.release()
    thread, told = waiting(acks)
    thread.join(60)
    assert told == ["kept"]
    acks.close()
