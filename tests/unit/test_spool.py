"""The spool: a local store that stands in for another one, and shipping, which can be repeated and interrupted."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest

import eventlog
from eventlog import EventLogWarning
from eventlog.config import WriterConfig
from eventlog.fs import LOCAL, LocalFs
from eventlog.identity import RunInfo
from eventlog.run import Run
from eventlog.spool import Shipped, Spool, ship

QUIET = WriterConfig(sync_interval_s=None)


@pytest.fixture
def spool(store: str, tmp_path: Any) -> Spool:
    return Spool.for_store(store, str(tmp_path / "spools"))


def begin(spool: Spool) -> Run:
    run = Run(spool.directory, RunInfo(project="p", run_id="r", name="n"), config=QUIET)
    spool.follow(run)
    return run


def everything(root: str) -> dict[str, bytes]:
    found = [os.path.join(base, name) for base, _, names in os.walk(root) for name in names]
    return {os.path.relpath(path, root): LOCAL.read(path) for path in found}


def test_a_store_has_the_same_spool_in_every_process_and_stores_do_not_share(tmp_path: Any):
    base = str(tmp_path)
    assert Spool.for_store("/a", base) == Spool.for_store("/a/", base)._replace(store="/a")
    assert Spool.for_store("/a", base).directory != Spool.for_store("/b", base).directory
    assert os.path.dirname(Spool.for_store("/a", base).directory) == base


def test_without_a_directory_the_spool_is_in_the_users_cache(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "/cache")
    assert Spool.for_store("/a", None).directory.startswith("/cache/eventlog/spool/")


def test_what_is_sealed_is_copied_over_at_once(spool: Spool, store: str, back: Any):
    run = begin(spool)
    run.log({"a": 1.0, "file": eventlog.File(b"bytes")})
    run._writer.roll()
    assert [call.numbers for call in back.calls()] == [{"a": 1.0}]
    run.log({"a": 2.0})
    assert len(back.calls()) == 1
    run.finish()
    assert [call.numbers["a"] for call in back.calls()] == [1.0, 2.0]
    back.records()
    assert everything(store) == everything(spool.directory)


def test_shipping_again_copies_nothing(spool: Spool, store: str):
    run = begin(spool)
    run.log({"file": eventlog.File(b"bytes")})
    run.finish()
    before = everything(store)
    assert ship(spool.directory, store) == Shipped(copied=0, present=2, left_open=0)
    assert everything(store) == before


def test_a_segment_of_a_living_writer_is_left_and_of_a_dead_one_is_copied(spool: Spool, store: str, back: Any):
    run = begin(spool)
    run.log({"a": 1.0})
    assert ship(spool.directory, store) == Shipped(copied=0, present=0, left_open=1)
    run._writer._segment.close()
    assert ship(spool.directory, store)[:3] == (1, 0, 0)
    assert [path[-5:] for path in back.files()] == [".open"]
    assert [call.numbers for call in back.calls()] == [{"a": 1.0}]
    eventlog.run._open_runs.discard(run)


def test_a_copy_that_was_cut_short_is_made_again(spool: Spool, store: str, back: Any):
    run = begin(spool)
    run.log({"a": 1.0})
    run.finish()
    (path,) = back.files()
    os.truncate(path, 100)
    assert ship(spool.directory, store).copied == 1
    assert len(back.records()) == 3


def test_unfinished_files_are_not_copied(spool: Spool, store: str):
    run = begin(spool)
    run.log({"file": eventlog.File(b"bytes")})
    run.finish()
    with open(os.path.join(spool.directory, "blobs", "sha256", ".tmp-123-blob"), "wb") as file:
        file.write(b"half")
    ship(spool.directory, store)
    assert not any(".tmp-" in path for path in everything(store))


def test_a_target_that_cannot_be_written_is_warned_about_and_nothing_is_lost(
    spool: Spool, tmp_path: Any, store: str, back: Any
):
    (tmp_path / "store").write_text("in the way")
    run = begin(spool)
    run.log({"a": 1.0})
    with pytest.warns(EventLogWarning, match="eventlog ship"):
        run.finish()
    os.unlink(store)
    ship(spool.directory, store)
    assert [call.numbers for call in back.calls()] == [{"a": 1.0}]


def test_a_spool_is_a_store(spool: Spool, reading: Any):
    run = begin(spool)
    run.log({"a": 1.0})
    assert reading(spool.directory).only_call().numbers == {"a": 1.0}
    run.finish()


def test_a_segment_with_other_records_is_never_replaced(spool: Spool, store: str, back: Any):
    run = begin(spool)
    run.log({"a": 1.0})
    run.finish()
    ship(spool.directory, store)
    (path,) = back.files()
    data = bytearray(LOCAL.read(path))
    data[-1] ^= 1
    with open(path, "wb") as file:
        file.write(data)
    assert ship(spool.directory, store) == Shipped(copied=0, present=0, left_open=0, conflicts=(path,))
    assert LOCAL.read(path) == data
    with pytest.warns(EventLogWarning, match="was not replaced"):
        spool._ship_quietly("")


def test_a_segment_that_lost_its_end_in_the_spool_is_not_copied_over_the_whole_one(spool: Spool, store: str, back: Any):
    run = begin(spool)
    run.log({"a": 1.0})
    run.finish()
    ship(spool.directory, store)
    (path,) = back.files()
    data = LOCAL.read(path)
    os.truncate(os.path.join(spool.directory, os.path.relpath(path, store)), len(data) - 9)
    assert ship(spool.directory, store) == Shipped(copied=0, present=1, left_open=0)
    assert LOCAL.read(path) == data


class Meanwhile(LocalFs):
    """A disk on which something is written right after the blobs were listed first."""

    def __init__(self, write: Callable[[], None]) -> None:
        self.write_once = [write]

    def subdirs(self, path: str) -> list[str]:
        found = super().subdirs(path)
        if path.endswith("sha256") and self.write_once:
            self.write_once.pop()()
        return found


@pytest.mark.invariant(11)
def test_a_segment_that_is_sealed_while_the_spool_is_listed_is_not_copied_before_its_blob(spool: Spool, store: str):
    run = Run(spool.directory, RunInfo(project="p", run_id="r", name="n"), config=QUIET)

    def write() -> None:
        run.log({"file": eventlog.File(b"late")})
        run.finish()

    ship(spool.directory, store, fs=Meanwhile(write))
    assert not any(path.startswith("segments") for path in everything(store))
    ship(spool.directory, store)
    assert everything(store) == everything(spool.directory)
