"""Whatever happens in a bucket, and on the way to it, while it is read: an answer is whole, or a typed error."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from bucketcases import ALL, client, fold, log, publisher
from bucketreading import over, remote, rows
from localhub.clients import fresh_client
from localhub.faults import Kind
from localhub.process import LocalHub, client_environment
from localhub.sweep import ANYWHERE, KILLS, sweep_faults
from publishing import STEPS

from compactor.config import CompactorConfig
from eventlog.errors import ConflictError, DataError, StorageError
from eventlog.hub.bucket import Bucket
from eventlog.hub.ship import ship
from eventlog.store import Store, open_store

KINDS: tuple[Kind, ...] = (*ANYWHERE, *KILLS, "rate-limit", "slow", "short-body", "wrong-bytes", "expired-token")
ROUNDS = 8


def steps_of(store: Store) -> dict[str, list[int]]:
    """Return the steps of each run, by name."""
    table = store.metrics("p")
    found: dict[str, list[int]] = {}
    for run_id, step in zip(table["_run_id"].to_pylist(), table["_step"].to_pylist(), strict=True):
        found.setdefault(run_id, []).append(step)
    return found


def test_a_reader_that_polls_while_another_process_publishes_compacts_and_collects_sees_whole_snapshots(
    hub: LocalHub, bucket: str, tmp_path: Path
) -> None:
    script = Path(__file__).with_name("publishing.py")
    path = os.pathsep.join([str(script.parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = client_environment(hub.url, tmp_path / "home", PYTHONPATH=path)
    command = [sys.executable, str(script), str(tmp_path / "store"), bucket, str(ROUNDS)]
    store = remote(hub, bucket)
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as process:
        polls, conflicts, before = 0, 0, {}
        while process.poll() is None:
            if store.projects():
                try:
                    before = check_poll(store, before)
                    polls += 1
                except ConflictError:
                    conflicts += 1
        assert process.returncode == 0, process.stderr.read()
    last = check_poll(remote(hub, bucket), before)
    assert len(last) == ROUNDS
    assert set(map(len, last.values())) == {STEPS}
    assert rows(remote(hub, bucket)) == rows(open_store(tmp_path / "store"))
    assert polls > ROUNDS
    assert conflicts < polls


def check_poll(store: Store, before: dict[str, list[int]]) -> dict[str, list[int]]:
    """Look once: each run is there from its first step on without a hole, and none is shorter than before."""
    found = steps_of(store)
    for run, steps in found.items():
        assert steps == [*range(len(steps))], run
    for run, steps in before.items():
        assert len(found.get(run, [])) >= len(steps), run
    runs = store.runs("p")
    for run, name in zip(runs["run_id"].to_pylist(), runs["name"].to_pylist(), strict=True):
        assert int(name) % 2 or len(found.get(run, [])) in (0, STEPS), name
    return found


class Meddled(Bucket):
    """Calls something before its request of a number."""

    def __init__(self, bucket: Bucket, at: int, meddle: Callable[[], object]) -> None:
        super().__init__(bucket.address, api=bucket._api)
        self.left, self.meddle = at, meddle

    def count(self) -> None:
        self.left -= 1
        if self.left == -1:
            self.meddle()


def _meddled(name: str) -> Callable[..., Any]:
    def call(self: Meddled, *args: Any, **options: Any) -> Any:
        self.count()
        return getattr(Bucket, name)(self, *args, **options)

    return call


for _name in ("files", "folders", "info", "fetch"):
    setattr(Meddled, _name, _meddled(_name))


class Published:
    """A bucket with a snapshot, segments beside it, and others that a host has shipped; and what publishes more."""

    def __init__(self, hub: LocalHub, bucket: str, directory: Path) -> None:
        self.hub, self.bucket = hub, bucket
        self.store, self.kept, self.host = (directory / name for name in ("store", "kept", "host"))
        log(self.store, "a", 20)
        fold(self.store)
        log(self.store, "b", 20)
        log(self.host, "c", 20)
        publisher(hub, bucket, self.store).publish("p")
        self.rows = sorted([*rows(open_store(self.store)), *rows(open_store(self.host))])
        shutil.copytree(self.store, self.kept)
        hub.save("published")

    def reset(self) -> None:
        self.hub.load("published")
        fresh_client()
        shutil.rmtree(self.store)
        shutil.copytree(self.kept, self.store)

    def ship(self) -> None:
        ship(str(self.host), client(self.hub, self.bucket))

    def publish(self, config: CompactorConfig) -> None:
        """Take in what was shipped, fold it, publish that, and delete all that the new snapshot does without."""
        hasty = publisher(self.hub, self.bucket, self.store, grace_s=0)
        hasty.publish("p")
        fold(self.store, config=config)
        hasty.publish("p")
        hasty.publish("p")
        assert client(self.hub, self.bucket).files("segments") == []


@pytest.mark.invariant(6)
@pytest.mark.parametrize(("opened", "fanout"), [("before", 8), ("anew", 2)])
def test_a_publish_with_collection_between_any_two_requests_of_a_reader_costs_no_row_and_doubles_none(
    hub: LocalHub, bucket: str, tmp_path: Path, opened: str, fanout: int
) -> None:
    # Without compaction the old files stay, and nothing but a missing segment tells that the snapshot is outdated.
    config, now = CompactorConfig(grace_s=0, fanout=fanout), [0.0]
    published = Published(hub, bucket, tmp_path)
    for at in range(100):
        published.reset()
        meddled = Meddled(client(hub, bucket), 1 << 30, lambda: published.publish(config))
        reader = over(meddled, look_s=60, monotonic=lambda: now[0])
        if opened == "before":
            assert len(rows(reader)) < len(published.rows)
            now[0] += 100
        published.ship()
        meddled.left = at
        assert rows(reader) == published.rows, at
        if meddled.left >= 0:
            break
    assert at >= (4 if opened == "before" else 10)


@pytest.mark.timeout(3600)
def test_each_request_of_a_reader_meets_each_fault_and_what_passes_is_tried_again(
    hub: LocalHub, bucket: str, tmp_path: Path
) -> None:
    log(tmp_path, "a")
    fold(tmp_path)
    log(tmp_path, "b", 50)
    publisher(hub, bucket, tmp_path).publish("p")
    wanted, found, met = rows(open_store(tmp_path)), [], Counter()

    def read() -> None:
        found.append(rows(remote(hub, bucket, look_s=60)))

    for kinds in (KINDS[::2], KINDS[1::2]):
        for swept in sweep_faults(hub, read, kinds, in_turn=not ALL):
            met[swept.fault.kind] += swept.befell
            if swept.fault.kind == "expired-token":
                assert isinstance(swept.error, StorageError), swept
                assert "hf auth login" in str(swept.error)
            else:
                assert swept.error is None, swept
    assert all(rows == wanted for rows in found)
    assert set(met) == set(KINDS)


def test_a_damaged_byte_that_comes_again_and_again_is_an_error_and_no_row(
    hub: LocalHub, bucket: str, tmp_path: Path
) -> None:
    log(tmp_path, "a")
    publisher(hub, bucket, tmp_path).publish("p")
    with (
        hub.faulty("wrong-bytes", path="resolve/segments", times=0),
        pytest.raises(DataError, match="not what the bucket holds"),
    ):
        remote(hub, bucket).metrics("p")
