"""Whatever befalls a publish, a bucket shows the old snapshot or the new one, whole, and the next publish ends it."""

from __future__ import annotations

import shutil
import threading
from collections import Counter
from pathlib import Path

import pytest
from bucketcases import ALL, KNOWN, check_whole, client, fold, is_clean, log, publisher, rows
from dying import dies
from localhub.faults import Kind
from localhub.journal import Served
from localhub.process import LocalHub
from localhub.sweep import ANYWHERE, KILLS, sweep_faults

from compactor.hub.errors import FencedError
from compactor.hub.plan import Limits
from compactor.hub.publish import BucketPublisher
from compactor.hub.restore import restore
from eventlog.errors import ConflictError, DataError
from eventlog.fs import LOCAL
from eventlog.hub.bucket import Bucket

KINDS: tuple[Kind, ...] = (*ANYWHERE, "expired-token", "half-batch", "rate-limit", "slow", "stale-listing")


class Before:
    """A store and a bucket that shows its first snapshot; a second is folded and not published."""

    def __init__(self, hub: LocalHub, bucket: str, directory: Path) -> None:
        self.hub, self.bucket, self.checked = hub, bucket, 0
        self.store, self._kept = directory / "store", directory / "kept"
        log(self.store, "a")
        fold(self.store)
        self.old = publisher(hub, bucket, self.store, grace_s=0).publish("p").version
        log(self.store, "b")
        self.new = fold(self.store)
        log(self.store, "c")
        shutil.copytree(self.store, self._kept)

    def reset(self) -> None:
        shutil.rmtree(self.store)
        shutil.copytree(self._kept, self.store)

    def publish(self) -> None:
        publisher(self.hub, self.bucket, self.store, grace_s=0).publish("p")

    def check(self) -> None:
        """The bucket shows one of the two, and publishing again ends with the new one."""
        assert check_whole(self.hub, self.bucket) in (self.old, self.new)
        self.checked += 1
        if ALL or self.checked % 3 == 0:
            self.publish()
            assert check_whole(self.hub, self.bucket) == self.new

    def check_copy(self, copy: Path) -> None:
        restore(LOCAL, str(copy), client(self.hub, self.bucket), "p")
        assert rows(copy) == rows(self.store)
        is_clean(copy)


@pytest.fixture
def before(hub: LocalHub, bucket: str, tmp_path: Path) -> Before:
    return Before(hub, bucket, tmp_path)


def chosen(served: Served) -> bool:
    """Leave out, unless all are wanted, the xet store, whose faults its client mostly hides."""
    return ALL or "/api/buckets/" in served.path


@pytest.mark.invariant(11)
@pytest.mark.timeout(3600)
def test_a_publish_that_meets_a_fault_at_any_request_shows_the_old_or_the_new_and_is_completed(
    before: Before, tmp_path: Path
) -> None:
    met: Counter[str] = Counter()
    for swept in sweep_faults(before.hub, before.publish, KINDS, where=chosen, reset=before.reset, in_turn=not ALL):
        assert swept.error is None or isinstance(swept.error, KNOWN), swept
        before.check()
        met[swept.fault.kind] += swept.befell
    assert set(met) == set(KINDS)
    assert sum(met.values()) > 15
    before.check_copy(tmp_path / "copy")


@pytest.mark.timeout(3600)
def test_a_hub_that_dies_at_any_request_of_a_publish_shows_the_old_or_the_new(before: Before, tmp_path: Path) -> None:
    kinds: tuple[Kind, ...] = (*KILLS, "kill-amid")
    runs = 0
    for swept in sweep_faults(
        before.hub,
        before.publish,
        kinds,
        where=lambda it: it.route.endswith("/batch"),
        reset=before.reset,
        in_turn=not ALL,
    ):
        assert swept.error is None or isinstance(swept.error, KNOWN), swept
        before.check()
        runs += 1
    assert runs >= 4
    before.check_copy(tmp_path / "copy")


@pytest.mark.timeout(3600)
def test_a_publisher_that_is_killed_at_any_of_its_steps_leaves_a_whole_bucket_and_is_continued(
    before: Before, tmp_path: Path
) -> None:
    def publish(bucket: Bucket) -> None:
        BucketPublisher(LOCAL, str(before.store), bucket, Limits(wave_files=3, grace_ns=0)).publish("p")

    before.hub.save("before")
    versions: list[int] = []
    step = 0
    while dies(client(before.hub, before.bucket), publish, step):
        versions.append(check_whole(before.hub, before.bucket))
        before.check()
        before.hub.load("before")
        before.reset()
        step += 1 if ALL else 3
    assert set(versions) == {before.old, before.new}
    assert versions == sorted(versions)
    assert len(versions) > 8
    before.check_copy(tmp_path / "copy")


def test_of_two_publishers_at_once_one_stops_and_the_bucket_is_whole_all_the_while(
    hub: LocalHub, bucket: str, tmp_path: Path
) -> None:
    ended: dict[str, Exception | None] = {}

    def run(name: str) -> None:
        store = tmp_path / name
        mine = publisher(hub, bucket, store)
        try:
            for turn in range(5):
                log(store, f"{name}{turn}", 20)
                fold(store)
                mine.publish("p")
        except (ConflictError, DataError) as error:
            ended[name] = error
        else:
            ended[name] = None

    threads = [threading.Thread(target=run, args=(name,)) for name in ("one", "two")]
    for thread in threads:
        thread.start()
    seen = []
    while any(thread.is_alive() for thread in threads):
        seen.append(check_whole(hub, bucket))
    for thread in threads:
        thread.join()
    stopped = [name for name, error in ended.items() if isinstance(error, FencedError)]
    going = [name for name, error in ended.items() if error is None]
    assert (len(stopped), len(going)) == (1, 1), ended
    assert seen == sorted(seen)
    copy = tmp_path / "copy"
    restore(LOCAL, str(copy), client(hub, bucket), "p")
    assert rows(copy) == rows(tmp_path / going[0])
    is_clean(copy)


def test_restores_while_a_publisher_goes_on_and_deletes_are_whole_snapshots_that_only_grow(
    hub: LocalHub, bucket: str, tmp_path: Path
) -> None:
    store = tmp_path / "store"
    mine = publisher(hub, bucket, store, grace_s=0.2)
    log(store, "first", 20)
    mine.publish("p")
    failed: list[Exception] = []

    def publish() -> None:
        try:
            for turn in range(8):
                log(store, f"run{turn}", 20)
                fold(store)
                mine.publish("p")
        except Exception as error:  # noqa: BLE001 - it is looked at below
            failed.append(error)

    thread = threading.Thread(target=publish)
    thread.start()
    counts: list[int] = []
    while thread.is_alive():
        copy = tmp_path / f"copy{len(counts)}"
        restore(LOCAL, str(copy), client(hub, bucket), "p")
        is_clean(copy)
        counts.append(len(rows(copy)))
        shutil.rmtree(copy)
    thread.join()
    assert failed == []
    assert counts == sorted(counts)
    assert counts[-1] > counts[0]
