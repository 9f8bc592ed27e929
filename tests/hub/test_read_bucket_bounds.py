"""What reading a store in a bucket may cost is bounded: bytes that are downloaded, memory, and time to give up."""

from __future__ import annotations

from pathlib import Path

from bucketcases import client, fold, log, publisher
from bucketreading import remote, rows
from localhub.process import LocalHub

from eventlog.hub.ship import ship
from eventlog.store import open_store


def downloaded(hub: LocalHub, mark: int) -> int:
    """Return how many bytes of segments were asked for since a mark."""
    return sum(served.sent for served in hub.requests(mark) if "/resolve/" in served.path and "segments" in served.path)


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
    assert downloaded(hub, mark) < tail_bytes * 1.2
    for again in (1, 2):
        there._views._views.clear()
        assert there.metrics("p").num_rows == 13 * 200
        assert downloaded(hub, mark) < tail_bytes * 1.2 * (1 + again)
