"""What a publisher remembers of a bucket: one id a store, whoever asks first, and a lag that others can tell."""

from __future__ import annotations

import os
import threading

import msgspec

import eventlog
from compactor.config import CompactorConfig
from compactor.hub import state
from compactor.work import take_turn
from eventlog import names
from eventlog.fs import LOCAL

BUCKET = "hf://buckets/me/runs"


def test_a_store_has_one_id_for_a_bucket_and_another_one_for_another_bucket(tmp_path):
    found: list[str] = []
    threads = [
        threading.Thread(target=lambda: found.append(state.load(LOCAL, str(tmp_path), BUCKET).owner)) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len(set(found)) == 1
    assert state.load(LOCAL, str(tmp_path), BUCKET + "/x").owner not in found


def test_a_memory_that_is_damaged_or_deleted_gives_a_new_id(tmp_path):
    first = state.load(LOCAL, str(tmp_path), BUCKET)
    path = names.bucket_state_path(str(tmp_path), BUCKET)
    with open(path, "wb") as file:
        file.write(b"{")
    second = state.load(LOCAL, str(tmp_path), BUCKET)
    os.unlink(path)
    third = state.load(LOCAL, str(tmp_path), BUCKET)
    assert len({first.owner, second.owner, third.owner}) == 3
    assert state.load(LOCAL, str(tmp_path), BUCKET) == third


def test_the_lag_counts_the_snapshots_that_are_not_published_and_says_what_keeps_them(tmp_path):
    root = str(tmp_path)
    for name in ("a", "b", "c"):
        with eventlog.init(project="p", name=name, dir=root) as run:
            run.log({"x": 1.0})
        take_turn(LOCAL, root, "p", CompactorConfig(fanout=9))
    known = state.load(LOCAL, root, BUCKET)
    one = state.ProjectState(epoch=1, version=1, published_ns=50 * 10**9)
    state.save(LOCAL, root, msgspec.structs.replace(known, projects={"p": one}))
    waiting_ns = LOCAL.changed_ns(names.manifest_path(root, "p", 2))
    (lag,) = state.lags(LOCAL, root, "p", now_ns=waiting_ns + 7 * 10**9)
    assert (lag.bucket, lag.version, lag.behind_versions, lag.lag_s, lag.error) == (BUCKET, 1, 2, 7.0, "")
    state.note_error(LOCAL, root, BUCKET, "p", "the Hub is down")
    state.note_error(LOCAL, root, BUCKET, "", "the token expired")
    (lag,) = state.lags(LOCAL, root, "p", now_ns=60 * 10**9)
    assert (lag.published_age_s, lag.lag_s, lag.error) == (10.0, 0.0, "the token expired")
    assert state.lags(LOCAL, str(tmp_path / "elsewhere"), "p") == []
