"""What reading a store in a bucket may cost is bounded: bytes that are downloaded, memory, and time to give up."""

from __future__ import annotations

import gc
import signal
import subprocess
import sys
import time
import weakref
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from bucketcases import client, fold, log, publisher
from bucketreading import remote, rows
from localhub.process import LocalHub, client_environment

from compactor.config import CompactorConfig
from eventlog.errors import StorageError
from eventlog.hub import filesystem
from eventlog.hub.ranged import AHEAD
from eventlog.hub.ship import ship
from eventlog.store import open_store


def downloads(hub: LocalHub, mark: int) -> list[int]:
    """Return how many bytes were sent for each segment that was asked for since a mark."""
    return [served.sent for served in hub.requests(mark) if "/resolve/segments" in served.path]


def test_a_tail_larger_than_what_is_kept_is_downloaded_once(hub: LocalHub, bucket: str, tmp_path: Path) -> None:
    log(tmp_path, "folded")
    fold(tmp_path)
    publisher(hub, bucket, tmp_path).publish("p")
    for number in range(12):
        log(tmp_path, f"run-{number}")
    ship(str(tmp_path), client(hub, bucket))
    tail_bytes = sum(file.size_bytes for file in client(hub, bucket).files("segments"))
    there = remote(hub, bucket, look_s=60, kept_bytes=tail_bytes // 3)
    mark = hub.mark()
    assert rows(there) == rows(open_store(tmp_path))
    assert sum(downloads(hub, mark)) < tail_bytes * 1.2
    for again in (1, 2):
        there._views._views.clear()
        assert there.metrics("p").num_rows == 13 * 200
        assert sum(downloads(hub, mark)) < tail_bytes * 1.2 * (1 + again)


@pytest.fixture
def many(hub: LocalHub, bucket: str, tmp_path: Path) -> int:
    """Put many segments into the bucket; return how many."""
    log(tmp_path, "long", 4000)
    ship(str(tmp_path), client(hub, bucket))
    return len(client(hub, bucket).files("segments"))


def test_after_a_first_failure_nothing_more_is_asked_for(hub: LocalHub, bucket: str, many: int) -> None:
    mark = hub.mark()
    hub.fault("expired-token", path="resolve/segments")
    with hub.faulty("slow", path="resolve/segments", nth=2, times=0, piece=2000, pause=0.2):
        with pytest.raises(StorageError, match="hf auth login"):
            remote(hub, bucket).metrics("p")
        asked = len(downloads(hub, mark))
        time.sleep(0.5)
        assert len(downloads(hub, mark)) == asked, "nothing is under way any more"
    assert 0 < asked <= 2 * AHEAD < many / 2


READ = """
import sys
from eventlog.store import open_store
store = open_store(sys.argv[1])
print("begins", flush=True)
store.metrics("p")
"""


def test_who_interrupts_a_read_does_not_wait_for_the_rest_of_it(
    hub: LocalHub, bucket: str, many: int, tmp_path: Path
) -> None:
    mark = hub.mark()
    environment = client_environment(hub.url, tmp_path / "home")
    command = [sys.executable, "-c", READ, f"hf://buckets/{bucket}"]
    with (
        hub.faulty("slow", path="resolve/segments", times=0, piece=2000, pause=0.2),
        subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as process,
    ):
        assert process.stdout.readline() == "begins\n"
        while not len(downloads(hub, mark)):
            assert process.poll() is None
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert "KeyboardInterrupt" in errors
    assert 0 < len(downloads(hub, mark)) <= 4 * AHEAD < many


def test_data_files_that_stay_open_hold_no_bytes_beside_those_that_are_kept(
    hub: LocalHub, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    coming: list[weakref.ref[Future[bytes]]] = []
    submit = ThreadPoolExecutor.submit

    def noted(*args: Any) -> Future[bytes]:
        future = submit(*args)
        coming.append(weakref.ref(future))
        return future

    monkeypatch.setattr(ThreadPoolExecutor, "submit", noted)
    for number in range(3):
        log(tmp_path, f"run-{number}")
        fold(tmp_path, config=CompactorConfig(fanout=8))
    publisher(hub, bucket, tmp_path).publish("p")
    there = remote(hub, bucket, look_s=60)
    assert rows(there) == rows(open_store(tmp_path))
    assert there.curve("p", there.runs("p")["run_id"][0].as_py(), "x").num_rows == 200
    assert len(there._views.cache._readers) >= 3
    gc.collect()
    assert len(coming) > 6
    assert sum(len(future.result()) for one in coming if (future := one()) is not None) == 0


def test_no_more_files_are_remembered_than_may_be_however_many_one_listing_has(
    hub: LocalHub, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(filesystem, "_MOST_KNOWN", 5)
    for number in range(12):
        log(tmp_path, "x" * (number + 1), 1)
        fold(tmp_path)
    publisher(hub, bucket, tmp_path).publish("p")
    blobs = client(hub, bucket).files("blobs")
    assert len(blobs) == 12
    there = remote(hub, bucket, look_s=60)
    mark = hub.mark()
    for file in blobs:
        assert there._fs.size(f"{there.root}/{file.path}") == file.size_bytes
        assert len(there._fs._known) <= 5
    assert len(hub.requests(mark)) == 1 + 12 - 5, "what is remembered is not asked for"
    assert rows(there) == rows(open_store(tmp_path))
    assert len(there._fs._known) <= 5


def test_a_tail_of_one_writer_larger_than_what_is_kept_is_downloaded_twice_at_most(
    hub: LocalHub, bucket: str, many: int, tmp_path: Path
) -> None:
    tail_bytes = sum(file.size_bytes for file in client(hub, bucket).files("segments"))
    mark = hub.mark()
    # Once for the headers, by which a writer's segments are put in order, and once for the records.
    assert rows(remote(hub, bucket, look_s=60, kept_bytes=tail_bytes // 3)) == rows(open_store(tmp_path))
    assert many < len(downloads(hub, mark)) <= 2 * many
