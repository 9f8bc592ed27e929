"""A store that is opened in a bucket answers as the store that was published there, in few requests and bytes."""

from __future__ import annotations

import os
import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from bucketcases import client, fold, log, publisher
from bucketreading import answers, cells, old_answers, remote, rows
from localhub.process import LocalHub
from shipping import begin, make_store, opened

import eventlog
from compactor.config import CompactorConfig
from compactor.hub.plan import Limits
from compactor.hub.publish import BucketPublisher
from eventlog.errors import ConflictError, DataError, StorageError, UsageError
from eventlog.fs import LOCAL
from eventlog.hub import filesystem
from eventlog.hub.ship import ship
from eventlog.store import open_store

KEEPING = CompactorConfig()
HOSTILE = "ü/../x%2F y"


def fill(root: Path, project: str = "p") -> None:
    """Log a run with something in every table."""
    with eventlog.init(project=project, name="a", id="run-a", dir=root, config={"lr": 0.1}) as run:
        for step in range(20):
            run.log({"x": step / 3, "nan": float("nan"), "_odd.name": -step}, step=step)
        run.log_system({"gpu": 0.5})
        run.log({"text": "é", "table": eventlog.Table(["k"], [[1]]), "big": 2**60})
        run.alert("careful", "now")
        run.summary["best"] = 1


def publish(hub: LocalHub, bucket: str, root: Path, project: str = "p", prefix: str = "") -> None:
    limits = Limits(grace_ns=86_400 * 10**9)
    BucketPublisher(LOCAL, str(root), client(hub, bucket, prefix), limits).publish(project)


@pytest.mark.parametrize("kind", ["snapshot", "snapshot and segments", "segments", "prefix", "hostile name"])
def test_a_bucket_answers_everything_as_the_store_that_was_published_there(
    hub: LocalHub, bucket: str, tmp_path: Path, kind: str
) -> None:
    project, prefix = HOSTILE if kind == "hostile name" else "p", "deep/er" if kind == "prefix" else ""
    fill(tmp_path, project)
    if kind == "segments":
        log(tmp_path, "b", project=project)
        ship(str(tmp_path), client(hub, bucket, prefix))
    else:
        fold(tmp_path, project, config=KEEPING)
        publish(hub, bucket, tmp_path, project, prefix)
        log(tmp_path, "b", project=project)
        if kind == "snapshot":
            fold(tmp_path, project, config=KEEPING)
        publish(hub, bucket, tmp_path, project, prefix)
    here, there = open_store(tmp_path), remote(hub, bucket, prefix)
    assert there.projects() == here.projects() == [project]
    mark = hub.mark()
    assert answers(there, project) == answers(here, project)
    assert old_answers(there, project) == {
        version: rows for version, rows in old_answers(here, project).items() if version in there.versions(project)
    }
    assert len(there.versions(project)) == {"segments": 0}.get(kind, 1 + (kind == "snapshot"))
    payload = here.events(project, kinds="file")["payload"][0].as_py()
    digest = next(part for part in payload.split('"') if len(part) == 64)
    assert there.blob(digest) == here.blob(digest)
    assert {served.method for served in hub.requests(mark)} <= {"GET", "HEAD", "POST"}
    posted = {served.route for served in hub.requests(mark) if served.method == "POST"}
    assert posted <= {"POST /api/buckets/{owner}/{name}/paths-info"}, "nothing is written"


def test_several_projects_are_told_apart_and_a_new_one_shows(hub: LocalHub, bucket: str, tmp_path: Path) -> None:
    there = remote(hub, bucket)
    assert there.projects() == []
    with pytest.raises(UsageError, match=r"no project 'p' in hf://buckets/owner/bucket"):
        there.runs("p")
    for project in ("p", "p2", "a b"):
        log(tmp_path, project, 3, project=project)
        fold(tmp_path, project)
        publish(hub, bucket, tmp_path, project)
    assert there.projects() == ["a b", "p", "p2"]
    assert [there.runs(project)["name"].to_pylist() for project in there.projects()] == [["a b"], ["p"], ["p2"]]


def test_segments_of_many_hosts_are_read_as_they_come_and_an_open_one_that_grew_is_read_on(
    hub: LocalHub, bucket: str, tmp_path: Path
) -> None:
    there, inbox = remote(hub, bucket), client(hub, bucket)
    for number, name in enumerate("abc", 1):
        ship(str(make_store(tmp_path / name, name=name)), inbox)
        assert sorted(there.runs("p")["name"].to_pylist()) == [*"abc"[:number]]
    run = begin(tmp_path / "d", "d")
    path = Path(run._writer._segment.path)
    for step in range(3):
        run.log({"loss": step}, step=step)
        data, name = path.read_bytes(), str(path.relative_to(tmp_path / "d"))
        inbox.upload([(data[:-1] if step == 2 else data, name)])
        assert there.curve("p", "d", "loss")["_step"].to_pylist() == [*range(min(step, 1) + 1)]
    run.finish()
    ship(str(tmp_path / "d"), inbox)
    assert there.curve("p", "d", "loss")["_step"].to_pylist() == [0, 1, 2]
    assert there.metrics("p").num_rows == 9


@pytest.fixture
def large(hub: LocalHub, bucket: str, tmp_path: Path) -> Path:
    numbers = random.Random(3)
    metrics = [f"m{number}" for number in range(8)]
    for name in ("one", "two"):
        with eventlog.init(
            project="p", name=name, dir=tmp_path, settings=eventlog.WriterConfig(sync_interval_s=None)
        ) as run:
            for step in range(100_000):
                run.log({metric: numbers.random() for metric in metrics}, step=step)
    fold(tmp_path)
    publish(hub, bucket, tmp_path)
    return tmp_path


def test_one_curve_of_a_large_snapshot_costs_its_own_bytes_and_few_requests(
    hub: LocalHub, bucket: str, large: Path
) -> None:
    here = open_store(large)
    (path,) = here.files("p")
    there = remote(hub, bucket, look_s=60)
    mark = hub.mark()
    assert cells(there.curve("p", "one", "m3")) == cells(here.curve("p", "one", "m3"))
    served = hub.requests(mark)
    assert sum(one.sent for one in served) < os.path.getsize(path) / 6
    assert len(served) < 20
    mark = hub.mark()
    assert cells(there.curve("p", "two", "m5", max_points=100)) == cells(here.curve("p", "two", "m5", max_points=100))
    served = hub.requests(mark)
    assert sum(one.sent for one in served) < os.path.getsize(path) / 6
    assert len(served) < 8, "the footer is kept"
    mark = hub.mark()
    table = there.dataset("p").to_table(columns=["_step", "m1"])
    assert table.equals(here.dataset("p").to_table(columns=["_step", "m1"]))
    assert sum(one.sent for one in hub.requests(mark)) < os.path.getsize(path) / 4
    assert there.metrics("p").equals(here.metrics("p"))


def test_what_was_looked_at_costs_nothing_for_a_while_and_three_requests_after_that(
    hub: LocalHub, bucket: str, tmp_path: Path
) -> None:
    now = [0.0]
    for name in "abc":
        log(tmp_path, name)
        fold(tmp_path)
    log(tmp_path, "d")
    publish(hub, bucket, tmp_path)
    there = remote(hub, bucket, look_s=1, monotonic=lambda: now[0])

    def ask() -> list[object]:
        return [cells(there.runs("p")), cells(there.metrics("p")), cells(there.curve("p", "a", "x"))]

    first, mark = ask(), hub.mark()
    assert ask() == first
    assert hub.requests(mark) == []
    now[0] = 2.0
    assert ask() == first
    assert [served.route.rsplit("/", 1)[1] for served in hub.requests(mark)] == ["{path:path}"] * 2 + ["paths-info"]
    log(tmp_path, "e")
    publish(hub, bucket, tmp_path)
    now[0], mark = 4.0, hub.mark()
    assert len(ask()[1][1]) > len(first[1][1])
    fetched = {served.path for served in hub.requests(mark) if "/resolve/" in served.path}
    assert all("/segments/" in path for path in fetched), "only what is new is fetched"


@pytest.mark.parametrize("limits", [(1 << 20, 1 << 20, 0), (2000, 700, 1 << 20), (500, 64, 0)])
def test_files_of_any_size_are_read_the_same_whatever_is_kept_of_them(
    hub: LocalHub, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limits: tuple[int, int, int]
) -> None:
    whole_bytes, block_bytes, kept_bytes = limits
    monkeypatch.setattr(filesystem, "_WHOLE_BYTES", whole_bytes)
    monkeypatch.setattr(filesystem, "_BLOCK_BYTES", block_bytes)
    log(tmp_path, "a", 60)
    fold(tmp_path)
    log(tmp_path, "b", 60)
    publish(hub, bucket, tmp_path)
    there = remote(hub, bucket, look_s=60, kept_bytes=kept_bytes)
    assert rows(there) == rows(open_store(tmp_path))
    assert rows(there) == rows(open_store(tmp_path))


def test_threads_that_share_a_store_and_a_forked_child_get_the_same_answers(
    hub: LocalHub, bucket: str, tmp_path: Path
) -> None:
    fill(tmp_path)
    fold(tmp_path)
    log(tmp_path, "b")
    publish(hub, bucket, tmp_path)
    there = remote(hub, bucket, kept_bytes=0)
    wanted = answers(open_store(tmp_path), "p")
    with ThreadPoolExecutor(4) as threads:
        assert all(found == wanted for found in threads.map(lambda _: answers(there, "p"), range(4)))
    child = os.fork()
    if not child:
        os._exit(0 if cells(there.metrics("p")) == wanted["metrics"] else 1)
    assert os.waitpid(child, 0)[1] == 0


def test_a_listing_that_is_behind_never_shows_less_than_was_shown(hub: LocalHub, bucket: str, tmp_path: Path) -> None:
    there = remote(hub, bucket)
    log(tmp_path, "a")
    fold(tmp_path)
    publish(hub, bucket, tmp_path)
    ship(str(make_store(tmp_path / "host", name="b")), client(hub, bucket))
    assert there.runs("p")["name"].to_pylist() == ["a", "b"]
    with hub.faulty("stale-listing", times=0, behind=1000):
        assert there.runs("p")["name"].to_pylist() == ["a", "b"]
    log(tmp_path, "c")
    fold(tmp_path)
    publish(hub, bucket, tmp_path)
    with hub.faulty("stale-listing", times=0, behind=1000):
        assert sorted(there.runs("p")["name"].to_pylist()) == ["a", "b", "c"]


def test_a_file_that_was_collected_is_a_conflict_and_the_store_answers_again(
    hub: LocalHub, bucket: str, tmp_path: Path
) -> None:
    log(tmp_path, "a", 100)
    fold(tmp_path)
    publish(hub, bucket, tmp_path)
    there = remote(hub, bucket)
    pinned = there.at(there.versions("p")[-1])
    assert there.runs("p").num_rows == pinned.runs("p").num_rows == 1
    log(tmp_path, "b", 100)
    fold(tmp_path)
    hasty = publisher(hub, bucket, tmp_path, grace_s=0)
    hasty.publish("p")
    hasty.publish("p")
    assert there.metrics("p").num_rows == 200
    with pytest.raises(ConflictError, match="collected"):
        pinned.metrics("p")
    with pytest.raises(ConflictError, match="collected"):
        there.at(1).runs("p")
    with pytest.raises(UsageError, match="has no version 99"):
        there.at(99).runs("p")


def test_what_is_damaged_in_a_bucket_is_refused_and_never_shown(hub: LocalHub, bucket: str, tmp_path: Path) -> None:
    log(tmp_path, "a")
    fold(tmp_path)
    publish(hub, bucket, tmp_path)
    path = open_store(tmp_path).files("p")[0]
    data = bytearray(Path(path).read_bytes())
    data[len(data) // 2] ^= 1
    client(hub, bucket).upload([(bytes(data), os.path.relpath(path, tmp_path))])
    with pytest.raises(DataError, match="not what its manifest says"):
        remote(hub, bucket).metrics("p")
    assert remote(hub, bucket).runs("p").num_rows == 1


def test_nothing_can_be_written_through_it(hub: LocalHub, bucket: str) -> None:
    store = remote(hub, bucket)
    fs, path = store._fs, f"{store.root}/x"
    calls = [
        lambda: fs.create(path),
        lambda: fs.open(path),
        lambda: fs.rename(path, path),
        lambda: fs.link(path, path),
        lambda: fs.unlink(path),
        lambda: fs.mkdir(path),
        lambda: fs.rmdir(path),
        lambda: fs.make_dirs(path),
        lambda: fs.sync_dir(path),
        lambda: fs.write(3, b""),
        lambda: fs.pread(3, 1, 0),
        lambda: fs.truncate(3, 0),
        lambda: fs.sync(3),
        lambda: fs.lock(3),
        lambda: fs.close(3),
    ]
    for call in calls:
        with pytest.raises(StorageError, match="only read here"):
            call()
    assert opened(hub, bucket).files("") == []
