"""Shipping to a bucket: all of it, nothing over what is there, the same however often and wherever it is cut off."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from localhub.faults import Kind
from localhub.journal import Served
from localhub.process import LocalHub
from localhub.sweep import ANYWHERE, KILLS, sweep_faults
from shipping import begin, blobs_are_with, die, held, inbox_of, make_store, opened

from compactor.config import CompactorConfig
from compactor.fold import fold
from compactor.hub.sync import Sync, SyncConfig
from eventlog.errors import StorageError, UsageError
from eventlog.fs import LOCAL
from eventlog.hub.bucket import Bucket
from eventlog.hub.ship import Memory, send, ship
from eventlog.outgoing import Shipped

BATCH = "POST /api/buckets/{owner}/{name}/batch"


def test_a_bucket_gets_each_file_as_it_is_and_a_second_time_nothing(hub: LocalHub, bucket: str, tmp_path: Path) -> None:
    store, there = make_store(tmp_path / "store"), opened(hub, bucket, "team/x")
    done = ship(str(store), there)
    assert held(there) == inbox_of(store)
    assert done == Shipped(copied=4, copied_bytes=sum(size for size, _ in held(there).values()))
    mark = hub.mark()
    assert ship(str(store), there) == Shipped(present=4)
    assert not any(served.route == BATCH for served in hub.requests(mark))


def test_what_was_seen_there_costs_no_request_and_what_is_new_is_sent(
    hub: LocalHub, bucket: str, tmp_path: Path
) -> None:
    store, there, memory = make_store(tmp_path / "store"), opened(hub, bucket), Memory()
    ship(str(store), there, memory=memory)
    mark = hub.mark()
    assert ship(str(store), there, memory=memory) == Shipped(present=4)
    assert hub.requests(mark) == []
    make_store(store, name="later", segments=1)
    assert ship(str(store), there, memory=memory)[:2] == (2, 4)
    assert held(there) == inbox_of(store)


def test_a_living_writers_segment_stays_and_a_dead_ones_goes_as_it_is(
    hub: LocalHub, bucket: str, tmp_path: Path
) -> None:
    there, run = opened(hub, bucket), begin(tmp_path)
    run.log({"x": 1.0})
    assert ship(str(tmp_path), there) == Shipped(left_open=1)
    assert held(there) == {}
    path = die(run)
    (path.parent / "00000002.open").write_bytes(b"")  # just made by a writer that is about to lock it
    assert ship(str(tmp_path), there)[:3] == (1, 0, 0)
    assert list(held(there)) == [str(path.relative_to(tmp_path))]


def test_a_segment_with_other_bytes_is_a_conflict_and_both_are_kept(hub: LocalHub, bucket: str, tmp_path: Path) -> None:
    store, there, memory = make_store(tmp_path / "store"), opened(hub, bucket), Memory()
    ship(str(store), there)
    before = held(there)
    path = next((store / "segments").rglob("00000002.seg"))
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    conflicts = (f"hf://buckets/{bucket}/{path.relative_to(store)}",)
    assert send(there, str(store), [str(path)]) == Shipped(conflicts=conflicts)
    for _ in range(2):
        mark = hub.mark()
        assert ship(str(store), there, memory=memory) == Shipped(present=3, conflicts=conflicts)
    assert hub.requests(mark) == []
    assert held(there) == before
    assert path.read_bytes() == data


class Raced(Bucket):
    """A bucket to which another host uploads other bytes under the same names, right after."""

    def upload(self, files: Sequence[tuple[str | bytes, str]]) -> None:
        super().upload(files)
        super().upload([(b"of another host", path) for _, path in files])


def test_an_upload_over_which_another_one_came_is_noticed(hub: LocalHub, bucket: str, tmp_path: Path) -> None:
    store, there = make_store(tmp_path / "store", segments=1), opened(hub, bucket)
    shutil.rmtree(store / "blobs")
    with pytest.raises(StorageError, match="has not got what was uploaded"):
        ship(str(store), Raced(there.address, api=hub.api()))
    assert len(ship(str(store), there).conflicts) == 1


def test_an_open_segment_that_grew_is_sent_again_and_one_that_lost_its_end_is_not(
    hub: LocalHub, bucket: str, tmp_path: Path
) -> None:
    there, run = opened(hub, bucket), begin(tmp_path)
    for step in range(50):
        run.log({"x": float(step)})
    path = die(run)
    whole = path.read_bytes()
    path.write_bytes(whole[:-200])
    assert ship(str(tmp_path), there).copied == 1
    path.write_bytes(whole)
    assert ship(str(tmp_path), there).copied == 1
    complete = held(there)
    assert complete == inbox_of(tmp_path)
    for shorter in (whole[:-200], whole[:-200] + bytes(200)):
        path.write_bytes(shorter)
        assert ship(str(tmp_path), there) == Shipped(present=1)
    assert held(there) == complete


def test_a_blob_is_replaced_by_whole_bytes_and_never_by_damaged_ones(
    hub: LocalHub, bucket: str, tmp_path: Path
) -> None:
    store, there = make_store(tmp_path / "store", segments=1), opened(hub, bucket)
    ship(str(store), there)
    (path,) = [path for path in (store / "blobs").rglob("*") if path.is_file()]
    name, whole, good = str(path.relative_to(store)), path.read_bytes(), held(there)
    path.write_bytes(whole[:-1])
    assert ship(str(store), there)[:4] == (0, 1, 0, (f"{there}/{name}",))
    assert held(there) == good
    path.write_bytes(whole)
    there.upload([(b"cut", name)])
    assert ship(str(store), there).copied == 1
    assert held(there) == good


def test_what_the_buckets_snapshot_holds_is_not_sent_again_and_a_copied_writer_shows(
    hub: LocalHub, bucket: str, tmp_path: Path
) -> None:
    store, there = make_store(tmp_path / "store"), opened(hub, bucket)
    host = shutil.copytree(store, tmp_path / "host")
    fold(LOCAL, str(store), "p", CompactorConfig())
    Sync(str(store), there, SyncConfig()).once()
    there.delete([path for path in held(there) if path.startswith("segments/")])
    assert ship(str(host), there) == Shipped(present=4)
    assert not any(path.startswith("segments/") for path in held(there))
    shutil.rmtree(host / "segments")
    shutil.copytree(make_store(tmp_path / "other", name="other") / "segments", host / "segments")
    (writer,) = (host / "segments" / "p").iterdir()
    (copied,) = (store / "segments" / "p").iterdir()
    writer.rename(writer.parent / copied.name)
    done = ship(str(host), there)
    assert len(done.conflicts) == 2
    assert not any(path.startswith("segments/") for path in held(there))


def test_exactly_the_given_files_are_sent_blobs_first(hub: LocalHub, bucket: str, tmp_path: Path) -> None:
    store, there = make_store(tmp_path / "store"), opened(hub, bucket)
    blob = next(path for path in (store / "blobs").rglob("*") if path.is_file())
    segment = next((store / "segments").rglob("00000001.seg"))
    with hub.faulty("status-before", route=BATCH, nth=2, times=0, status=403), pytest.raises(StorageError):
        send(there, str(store), [str(segment), str(blob)])
    assert list(held(there)) == [str(blob.relative_to(store))]
    done = send(there, str(store), [str(segment), str(blob), str(segment) + ".gone"])
    assert done[:3] == (1, 1, 1)
    assert set(held(there)) == {str(path.relative_to(store)) for path in (blob, segment)}
    with pytest.raises(UsageError, match="no blob and no segment"):
        send(there, str(store), [str(tmp_path / "elsewhere")])


def test_a_shipment_is_cut_into_waves_and_goes_on_after_the_last(hub: LocalHub, bucket: str, tmp_path: Path) -> None:
    there, told = opened(hub, bucket), []
    for number in range(257):
        path = tmp_path / "blobs" / "sha256" / "00" / f"{number:064x}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"%d" % number)
    with hub.faulty("status-before", route=BATCH, nth=2, times=0, status=403), pytest.raises(StorageError):
        ship(str(tmp_path), there, on_wave=told.append)
    assert [done.copied for done in told] == [256]
    assert ship(str(tmp_path), there)[:2] == (1, 256)


def test_only_the_projects_that_are_named_are_shipped(hub: LocalHub, bucket: str, tmp_path: Path) -> None:
    for name in ("p", "q"):
        begin(tmp_path, project=name).finish()
    there = opened(hub, bucket)
    ship(str(tmp_path), there, projects=["q"])
    assert [path.split("/")[1] for path in held(there)] == ["q"]


def is_thorough() -> bool:
    return os.environ.get("HUB_FAULTS") == "all"


def is_at_the_batch(served: Served) -> bool:
    return is_thorough() or served.route == BATCH


def is_asked_of_the_hub(served: Served) -> bool:
    return is_thorough() or "/api/buckets/" in served.route


@pytest.mark.parametrize(
    ("kinds", "where"),
    [
        ((*ANYWHERE, *KILLS) if is_thorough() else ("lost-reply",), is_at_the_batch),
        (("expired-token", "half-batch", "stale-listing"), is_asked_of_the_hub),
    ],
    ids=["passing", "lasting"],
)
def test_after_any_fault_at_any_request_nothing_is_lost_and_a_second_shipment_completes(
    hub: LocalHub, bucket: str, tmp_path: Path, kinds: tuple[Kind, ...], where: Callable[[Served], bool]
) -> None:
    store, there = make_store(tmp_path / "store"), opened(hub, bucket)
    wanted = inbox_of(store)
    other = next(path for path in wanted if path.startswith("segments/")).replace("00000001", "00000009")
    there.upload([(b"of another host", other)])
    whole = {**held(there), **wanted}
    for run in sweep_faults(hub, lambda: ship(str(store), opened(hub, bucket)), kinds, where=where):
        assert run.error is None or isinstance(run.error, StorageError), run
        found = held(there)
        assert blobs_are_with(there, wanted), run
        if run.error is None:
            assert found == whole, run
        else:
            assert other in found
            assert {**whole, **found} == whole, run
            ship(str(store), opened(hub, bucket))
            assert held(there) == whole, run
