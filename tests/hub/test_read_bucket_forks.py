"""A child that is forked while another thread reads a bucket answers too: it waits for no thread that it has not."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from bucketcases import client, fold, log, publisher
from bucketreading import over, remote, rows
from localhub.process import LocalHub

from eventlog.hub.bucket import Bucket
from eventlog.store import Store

PATIENCE_S = 30


def in_child(check: Callable[[], bool]) -> int:
    """Fork, and return how the child ended: 0 when it found what it should, the alarm when it hung."""
    child = os.fork()
    if not child:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(PATIENCE_S)
        found = False
        try:
            found = check()
        finally:
            os._exit(0 if found else 1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


class Halting(Bucket):
    """In the process that made it, calls of one method about paths with some part wait until they may go on."""

    def __init__(self, bucket: Bucket) -> None:
        super().__init__(bucket.address, api=bucket._api)
        self.pid, self.halts = os.getpid(), ("", "")
        self.arrived, self.may_go_on = threading.Event(), threading.Event()

    def files(self, name: str, *args: Any, **options: Any) -> Any:
        self.halt("files", name)
        return super().files(name, *args, **options)

    def fetch(self, name: str, *args: Any, **options: Any) -> bytes:
        self.halt("fetch", name)
        return super().fetch(name, *args, **options)

    def halt(self, method: str, name: str) -> None:
        if self.halts[0] == method and self.halts[1] in name and os.getpid() == self.pid:
            self.arrived.set()
            assert self.may_go_on.wait(2 * PATIENCE_S)


@pytest.fixture
def published(hub: LocalHub, bucket: str, tmp_path: Path) -> None:
    log(tmp_path, "a")
    fold(tmp_path)
    log(tmp_path, "b")
    log(tmp_path, "c")
    publisher(hub, bucket, tmp_path).publish("p")


@pytest.mark.usefixtures("published")
@pytest.mark.parametrize("method", ["files", "fetch"])  # the latter when one writer of the tail was read of two
@pytest.mark.parametrize("shared", ["store", "file system"])
def test_a_fork_amid_a_request_of_another_thread_leaves_a_child_that_answers(
    hub: LocalHub, bucket: str, method: str, shared: str
) -> None:
    halting = Halting(client(hub, bucket))
    store = over(halting, kept_bytes=0)
    wanted = rows(store)
    store._views._views.clear()
    halting.halts = method, max(file.path.split("/")[2] for file in halting.files("segments")) * (method == "fetch")
    found: list[object] = []
    reader = threading.Thread(target=lambda: found.append(rows(store)), daemon=True)
    reader.start()
    assert halting.arrived.wait(PATIENCE_S)
    theirs = store if shared == "store" else Store(store.root, fs=store._fs)
    try:
        assert in_child(lambda: rows(theirs) == wanted) == 0
    finally:
        halting.may_go_on.set()
        reader.join(PATIENCE_S)
    assert found == [wanted]


LOCKED: dict[str, Callable[[Store], Any]] = {
    "file system": lambda store: store._fs,
    "kept": lambda store: store._fs._kept,
    "pool": lambda store: store._fs._pool,
    "views": lambda store: store._views,
    "open files": lambda store: store._views.cache,
    "open file": lambda store: next(
        reader._expecting for path, reader in store._views.cache._readers.items() if "/metrics/" in path
    ),
}


@pytest.mark.usefixtures("published")
@pytest.mark.parametrize("owner", LOCKED)
def test_a_lock_that_another_thread_held_at_the_fork_holds_up_no_child(hub: LocalHub, bucket: str, owner: str) -> None:
    store = remote(hub, bucket, kept_bytes=0)
    wanted = rows(store)
    lock, held, let_go = LOCKED[owner](store)._lock, threading.Event(), threading.Event()

    def hold() -> None:
        with lock:
            held.set()
            let_go.wait(2 * PATIENCE_S)

    holder = threading.Thread(target=hold, daemon=True)
    holder.start()
    assert held.wait(PATIENCE_S)
    assert in_child(lambda: rows(store) == wanted) == 0
    let_go.set()
    holder.join(PATIENCE_S)
    assert rows(store) == wanted
