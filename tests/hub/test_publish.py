"""Publish and restore through a real Hub: what comes back is what was there, whoever is killed or refused meanwhile."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import pytest
from bucketcases import client, files, fold, is_clean, log, publisher, rows, syncing
from localhub.process import LocalHub

from compactor.collect import collect
from compactor.config import CompactorConfig
from compactor.hub.errors import DivergedError, FencedError
from compactor.hub.restore import restore
from eventlog import manifest as manifests
from eventlog.errors import UsageError
from eventlog.fs import LOCAL
from eventlog.store import open_store


def newest(root: object) -> manifests.Manifest:
    return manifests.load_newest(LOCAL, str(root), "p")[0]


def in_bucket(hub: LocalHub, bucket: str) -> dict[str, int]:
    return {file.path: file.size_bytes for file in client(hub, bucket).files("")}


def take(hub: LocalHub, bucket: str, root: object, **options: object) -> object:
    return restore(LOCAL, str(root), client(hub, bucket), "p", **options)


def test_a_store_comes_back_byte_for_byte_with_the_newest_records_and_is_clean(
    hub: LocalHub, bucket: str, tmp_path: Path
) -> None:
    store, copy = tmp_path / "store", tmp_path / "copy"
    for name in ("a", "b", "c"):
        log(store, name)
        fold(store)
    log(store, "not folded")
    published = publisher(hub, bucket, store).publish("p")
    assert (published.epoch, published.version) == (1, newest(store).version)
    restored = take(hub, bucket, copy)
    assert (restored.action, restored.version) == ("restored", published.version)
    here, there = files(store), files(copy)
    assert there.items() <= here.items()
    assert rows(copy) == rows(store)
    assert len([path for path in there if path.startswith("blobs")]) == 4
    left_out = {path for path in here if path not in there}
    assert all(path.startswith(("segments/", "snapshots/p/manifests/")) for path in left_out), left_out
    is_clean(copy)
    assert open_store(copy).runs("p")["name"].to_pylist() == ["a", "b", "c", "not folded"]


def test_what_is_new_is_all_that_a_publish_costs_and_nothing_new_costs_five_requests(
    hub: LocalHub, bucket: str, tmp_path: Path
) -> None:
    for name in "abcd":
        log(tmp_path, name, 2000)
    fold(tmp_path)
    mine = publisher(hub, bucket, tmp_path)
    first = mine.publish("p")
    mark = hub.mark()
    again = mine.publish("p")
    assert (again.uploaded, again.deleted, again.version) == (0, 0, first.version)
    assert len(hub.requests(mark)) <= 5
    assert publisher(hub, bucket, tmp_path).publish("p").uploaded == 0, "a new process knows it, too"
    log(tmp_path, "e", 5)
    fold(tmp_path, config=CompactorConfig())
    more = mine.publish("p")
    assert 0 < more.uploaded_bytes < first.uploaded_bytes / 3
    assert more.version > first.version


def test_sealed_segments_go_up_before_they_are_folded_and_are_read_after_a_restore(
    hub: LocalHub, bucket: str, tmp_path: Path
) -> None:
    store, copy = tmp_path / "store", tmp_path / "copy"
    log(store, "a")
    publisher(hub, bucket, store).publish("p")
    take(hub, bucket, copy)
    assert rows(copy) == rows(store) != []
    is_clean(copy)
    fold(copy)
    assert rows(copy) == rows(store)
    is_clean(copy)


def test_what_nobody_needs_leaves_the_bucket_after_the_grace_period(hub: LocalHub, bucket: str, tmp_path: Path) -> None:
    store, copy = tmp_path / "store", tmp_path / "copy"
    patient, hasty = publisher(hub, bucket, store), publisher(hub, bucket, store, grace_s=0)
    for name in "abcdef":
        log(store, name)
        patient.publish("p")
        fold(store)
        patient.publish("p")
    many = in_bucket(hub, bucket)
    assert sum(path.startswith("segments/") for path in many) > 5
    hasty.publish("p")
    hasty.publish("p")
    few = in_bucket(hub, bucket)
    manifest = newest(store)
    wanted = {f"snapshots/p/{file.path}" for file in manifest.files}
    assert {path for path in few if not path.startswith("blobs/")} == {
        *wanted,
        f"snapshots/p/manifests/{manifest.version:012d}.json",
    }
    take(hub, bucket, copy)
    assert rows(copy) == rows(store)
    is_clean(copy)


def test_a_store_that_takes_a_bucket_over_goes_on_from_it_and_stops_the_one_before(
    hub: LocalHub, bucket: str, tmp_path: Path
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    log(first, "a")
    fold(first)
    old = publisher(hub, bucket, first)
    old.publish("p")
    log(second, "b")  # took writes before it knew of the bucket
    new = publisher(hub, bucket, second)
    assert new.publish("p").epoch == 2
    log(first, "c")
    fold(first)
    with pytest.raises(FencedError, match=r"published by another store now .*epoch 2.*--take-over"):
        old.publish("p")
    with pytest.raises(FencedError):
        publisher(hub, bucket, first).publish("p")
    fold(second)
    new.publish("p")
    assert open_store(second).runs("p")["name"].to_pylist() == ["a", "b"]
    is_clean(second)
    assert publisher(hub, bucket, first).publish("p", take_over=True).epoch == 3
    fold(first)
    old.publish("p")
    assert sorted(open_store(first).runs("p")["name"].to_pylist()) == ["a", "b", "c"]
    is_clean(first)
    with pytest.raises(FencedError):
        new.publish("p")


def test_two_stores_that_both_went_on_are_merged_from_segments_and_refused_when_those_are_gone(
    hub: LocalHub, bucket: str, tmp_path: Path
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    log(first, "a")
    fold(first)
    publisher(hub, bucket, first).publish("p")
    for name in ("b", "c"):
        log(second, name)
        fold(second)
    later = time.time_ns() + 3600 * 10**9
    gone = tmp_path / "gone"
    shutil.copytree(second, gone)
    shutil.rmtree(gone / "segments")
    before = files(gone)
    with pytest.raises(DivergedError, match="segments of"):
        take(hub, bucket, gone)
    assert files(gone) == before
    merged = take(hub, bucket, second, time_ns=lambda: later)
    assert merged.action == "merged"
    assert merged.version > max(merged.from_version, 2)
    before = rows(second)
    # What was folded before the merge is not folded now: it must not be collected.
    eager = CompactorConfig(grace_s=60, segment_retention_s=0)
    collect(LOCAL, str(second), "p", eager, time_ns=lambda: later + 10**9)
    assert rows(second) == before
    assert sorted(open_store(second).runs("p")["name"].to_pylist()) == ["a", "b", "c"]
    is_clean(second)
    fold(second)
    assert sorted(open_store(second).runs("p")["name"].to_pylist()) == ["a", "b", "c"]
    is_clean(second)
    assert take(hub, bucket, second).action == "none"


def test_an_older_version_is_restored_into_an_empty_store_only(hub: LocalHub, bucket: str, tmp_path: Path) -> None:
    store = tmp_path / "store"
    mine = publisher(hub, bucket, store)
    log(store, "a")
    fold(store)
    older = mine.publish("p").version
    before = rows(store)
    log(store, "b")
    fold(store)
    newer = mine.publish("p").version
    restored = take(hub, bucket, tmp_path / "copy", version=older)
    assert restored.version == older < newer
    assert [row for row in rows(tmp_path / "copy") if row in before] == before
    with pytest.raises(UsageError, match="elsewhere"):
        take(hub, bucket, store, version=older)
    with pytest.raises(UsageError, match="no version 99"):
        take(hub, bucket, tmp_path / "other", version=99)
    with pytest.raises(UsageError, match="nothing of 'q'"):
        restore(LOCAL, str(tmp_path / "other"), client(hub, bucket), "q")


def test_segments_that_hosts_put_into_the_bucket_are_folded_once_in_any_order(
    hub: LocalHub, bucket: str, tmp_path: Path
) -> None:
    host, store = tmp_path / "host", tmp_path / "store"
    log(host, "a", 500)
    wanted = rows(host)
    sealed = sorted(path for path in files(host) if path.endswith(".seg"))
    assert len(sealed) > 3
    inbox = client(hub, bucket)
    mine = publisher(hub, bucket, store, grace_s=0)
    inbox.upload([(str(host / path), path) for path in files(host) if path.startswith("blobs")])
    for path in [sealed[2], *sealed[::2], *sealed, sealed[0]]:
        inbox.upload([(str(host / path), path)])
        mine.publish("p")
        fold(store)
    mine.publish("p")
    mine.publish("p")
    assert rows(store) == wanted
    is_clean(store)
    assert [path for path in in_bucket(hub, bucket) if path.startswith("segments/")] == []
    assert mine.publish("p").pulled == 0


def test_an_open_segment_that_was_shipped_before_its_end_was_there_is_brought_in_again_and_folded(
    hub: LocalHub, bucket: str, tmp_path: Path
) -> None:
    host, store = tmp_path / "host", tmp_path / "store"
    log(host, "a", 100)
    wanted = rows(host)
    (path,) = sorted(path for path in files(host) if path.endswith("00000002.seg"))
    inbox, mine = client(hub, bucket), publisher(hub, bucket, store)
    left_open = path.replace(".seg", ".open")
    data = (host / path).read_bytes()
    inbox.upload([(content, name) for name, content in files(host).items() if name != path])
    for end in (1000, len(data)):
        inbox.upload([(data[:end], left_open)])
        mine.publish("p")
        fold(store)
    assert rows(store) == wanted
    is_clean(store)


def test_every_project_is_published_and_restored_and_one_that_fails_does_not_stop_the_others(
    hub: LocalHub, bucket: str, tmp_path: Path
) -> None:
    store, copy = tmp_path / "store", tmp_path / "copy"
    for project in ("p", "q/ü", "r"):
        log(store, "a", project=project)
        fold(store, project)
    broken = next((store / "snapshots" / "q%2F%C3%BC" / "manifests").iterdir())
    data = broken.read_bytes()
    broken.write_bytes(data[:-9])
    work = syncing(hub, bucket, store)
    work.sweep()
    assert {path.split("/")[1] for path in in_bucket(hub, bucket) if path.startswith("snapshots")} == {"p", "r"}
    broken.write_bytes(data)
    work.sweep()
    assert {done.project for done in syncing(hub, bucket, copy).restore()} == {"p", "q/ü", "r"}
    assert [rows(copy, name) for name in ("p", "q/ü", "r")] == [rows(store, name) for name in ("p", "q/ü", "r")]


def test_what_is_set_aside_goes_along_and_strange_names_in_a_bucket_are_left_there(
    hub: LocalHub, bucket: str, tmp_path: Path
) -> None:
    store, copy = tmp_path / "store", tmp_path / "copy"
    log(store, "a", 300)
    segment = sorted(store.rglob("*.seg"))[1]
    data = bytearray(segment.read_bytes())
    data[len(data) // 2] ^= 1
    segment.write_bytes(data)
    fold(store)
    publisher(hub, bucket, store).publish("p")
    writer = segment.parent.name
    strange = ["quarantine/p/deep/evil", "quarantine/p/evil", f"segments/p/{writer}/evil", "blobs/sha256/aa/evil"]
    hub.api().batch_bucket_files(bucket, add=[(b"evil", path) for path in strange])
    take(hub, bucket, copy)
    assert list(tmp_path.rglob("evil*")) == []
    kept = {path.name: path.read_bytes() for path in (copy / "quarantine").rglob("*") if path.is_file()}
    assert kept == {path.name: path.read_bytes() for path in (store / "quarantine").rglob("*") if path.is_file()}
    assert len(kept) == 2
    assert rows(copy) == rows(store)


def test_a_file_that_was_damaged_in_the_bucket_is_not_restored(hub: LocalHub, bucket: str, tmp_path: Path) -> None:
    store, copy = tmp_path / "store", tmp_path / "copy"
    log(store, "a")
    fold(store)
    publisher(hub, bucket, store).publish("p")
    path = next(path for path in in_bucket(hub, bucket) if "/metrics/" in path)
    data = bytearray((store / path).read_bytes())
    data[len(data) // 2] ^= 1
    client(hub, bucket).upload([(bytes(data), path)])
    with pytest.raises(manifests.DataError, match="SHA-256"):
        take(hub, bucket, copy)
    assert not (copy / "snapshots" / "p" / "manifests").exists()
    client(hub, bucket).upload([(str(store / path), path)])
    take(hub, bucket, copy)
    assert rows(copy) == rows(store)
    assert not os.path.exists(copy / "restoring" / "p")
