"""The parts of a bucket's file system, each alone: what is fetched together, kept, and looked at."""

from __future__ import annotations

import io
import types
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventlog import names
from eventlog.fs import Expecting
from eventlog.hub import ranged
from eventlog.hub.bucket import Remote
from eventlog.hub.kept import Kept
from eventlog.hub.look import fingerprint, look, tree
from eventlog.hub.ranged import AHEAD, HOLE_BYTES, PART_BYTES, Range, RangedFile, joined

DATA = bytes(range(256)) * 8192  # 2 MiB


class Source:
    """Bytes that count how they are fetched."""

    def __init__(self, data: bytes = DATA) -> None:
        self.data, self.fetched, self.pool = data, [], ThreadPoolExecutor(2)

    def fetch(self, wanted: Range) -> bytes:
        self.fetched.append(wanted)
        return self.data[slice(*wanted)]

    def submit(self, wanted: Range) -> Future[bytes]:
        return self.pool.submit(self.fetch, wanted)

    def file(self) -> RangedFile:
        return RangedFile(len(self.data), self.fetch, self.submit)


@given(st.lists(st.tuples(st.integers(0, 30 * PART_BYTES), st.integers(1, 2 * PART_BYTES)), max_size=20))
def test_joined_ranges_hold_all_that_was_asked_for_and_little_more(sizes: list[tuple[int, int]]) -> None:
    ranges, at = [], 0
    for hole, size in sizes:
        ranges.append((at + hole, at + hole + size))
        at += hole + size
    parts = joined(ranges)
    assert all(any(start <= a and b <= end for start, end in parts) for a, b in ranges)
    assert sum(end - start for start, end in parts) <= sum(b - a for a, b in ranges) + HOLE_BYTES * len(ranges)
    assert parts == sorted(parts)
    assert all(end - start <= PART_BYTES or (start, end) in ranges for start, end in parts)


def test_ranges_that_are_near_each_other_are_one_request_and_the_end_of_a_file_is_read_once() -> None:
    source = Source()
    file = source.file()
    assert isinstance(file, Expecting)
    file.seek(-8, io.SEEK_END)
    assert file.read(8) == DATA[-8:]
    file.seek(-60_000, io.SEEK_END)
    assert file.read(100) == DATA[-60_000:][:100]
    assert source.fetched == [(len(DATA) - 65_536, len(DATA))]
    source.fetched.clear()
    file.expect([(100, 200), (5000, 6000), (1_000_000, 1_000_100)])
    for start, end in [(100, 200), (5000, 6000), (1_000_000, 1_000_100)]:
        file.seek(start)
        assert file.read(end - start) == DATA[start:end]
    assert sorted(source.fetched) == [(100, 6000), (1_000_000, 1_000_100)]


@given(st.lists(st.tuples(st.integers(0, len(DATA)), st.integers(-1, 70_000)), max_size=8), st.booleans())
def test_a_ranged_file_reads_as_a_file_does(reads: list[tuple[int, int]], expects: bool) -> None:  # noqa: FBT001
    source, plain = Source(), io.BytesIO(DATA)
    file = source.file()
    if expects:
        file.expect([(0, 300), (400_000, 500_000), (700_000, 1_800_000)])
    for start, size in reads:
        assert (file.seek(start), file.tell()) == (start, start)
        plain.seek(start)
        assert file.read(size) == plain.read(size)
        assert file.tell() == plain.tell()
    buffer = bytearray(10)
    file.seek(5)
    assert (file.readinto(buffer), bytes(buffer)) == (10, DATA[5:15])
    source.pool.shutdown()


def test_a_file_of_any_size_is_read_with_few_parts_in_memory() -> None:
    source = Source(b"x")
    waiting: list[Range] = []

    def submit(wanted: Range) -> Future[bytes]:
        waiting.append(wanted)
        coming: Future[bytes] = Future()
        coming.set_result(b"x" * (wanted[1] - wanted[0]))
        return coming

    file = RangedFile(1 << 40, source.fetch, submit)
    parts = [(at * PART_BYTES, at * PART_BYTES + 10) for at in range(40)]
    file.expect(parts)
    for number, (start, _) in enumerate(parts, 1):
        file.seek(start)
        assert file.read(10) == b"x" * 10
        assert len(waiting) <= number + AHEAD - 1
        assert len(file._plan._coming) <= AHEAD
    assert waiting == parts
    assert source.fetched == []


def test_who_expects_something_else_meanwhile_takes_nothing_from_another_reader() -> None:
    source = Source()
    never: Future[bytes] = Future()
    file = RangedFile(len(DATA), source.fetch, lambda _: never)
    file.expect([(0, 100)])
    found = file._plan.part_of(0, 100)
    assert found is not None
    file.expect([(200, 300)])
    assert never.cancelled()
    file._plan.part_of = lambda *_: found  # type: ignore[method-assign]
    assert file.read(100) == DATA[:100]


def test_the_interpreter_does_not_end_before_pyarrow_has_let_go_of_what_it_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    source = Source()
    view: memoryview | None = source.file().read_buffer(10)
    assert view is not None
    assert bytes(view) == DATA[:10]
    waits: list[float] = []

    def sleep(seconds: float) -> None:
        nonlocal view
        waits.append(seconds)
        if len(waits) == 3:
            view = None

    monkeypatch.setattr(ranged, "time", types.SimpleNamespace(sleep=sleep, monotonic=lambda: 0.0))
    ranged._await_release()
    assert len(waits) == 3
    ranged._await_release()
    assert len(waits) == 3


def test_what_was_used_last_is_kept_within_the_limit() -> None:
    kept = Kept(100)
    kept.put("a", b"a" * 60)
    kept.put("b", b"b" * 40)
    assert kept.get("a") == b"a" * 60
    kept.put("c", b"c" * 40)
    assert ("a" in kept, "b" in kept, "c" in kept) == (True, False, True)
    kept.put("a", b"a")
    kept.put("d", b"d" * 59)
    assert all(name in kept for name in "acd")
    kept.put("e", b"e" * 101)
    assert not any(name in kept for name in "acde")
    kept.put("f", b"f" * 100)
    assert kept.get("f") == b"f" * 100


def test_a_tree_is_made_of_the_directories_above_its_files() -> None:
    files = [Remote(path, size, "", 7) for path, size in (("a/b/one", 1), ("a/b/two", 2), ("a/c/d/three", 3))]
    found = tree(files)
    assert {path: [(entry.name, entry.is_dir, entry.size_bytes) for entry in found[path]] for path in found} == {
        "": [("a", True, 0)],
        "a": [("b", True, 0), ("c", True, 0)],
        "a/b": [("one", False, 1), ("two", False, 2)],
        "a/c": [("d", True, 0)],
        "a/c/d": [("three", False, 3)],
    }
    longer = tree([files[0]._replace(size_bytes=9), *files[1:]])
    assert fingerprint(found["a/b"]) != fingerprint(longer["a/b"])
    assert fingerprint(found["a/b"]) != fingerprint(found["a/b"][:1])
    assert fingerprint(found["a"]) == fingerprint(longer["a"])


class Listed:
    """A bucket whose listing is behind."""

    def __init__(self, listed: list[Remote], there: list[Remote]) -> None:
        self.listed, self.there, self.asked = listed, there, 0

    def files(self, under: str) -> list[Remote]:
        return [file for file in self.listed if file.path.startswith(f"{under}/")]

    def info(self, paths: Any) -> dict[str, Remote]:
        self.asked += 1
        wanted = set(paths)
        return {file.path: file for file in self.there if file.path in wanted}


@pytest.mark.parametrize("newest", [1, 500])
def test_a_look_shows_no_less_than_the_one_before_though_the_listing_is_behind(newest: int) -> None:
    writer = names.new_id()
    segment = Remote(f"segments/p/{writer}/00000001.open", 10, "a", 0)
    gone = Remote(f"segments/p/{writer}/00000002.seg", 10, "c", 0)
    manifest = Remote(names.manifest_path("", "p", newest), 5, "m", 0)
    whole: Any = Listed([segment, gone, manifest], [segment, gone, manifest])
    before = look(whole, "p")
    assert (before.newest, whole.asked) == (newest, 1)
    longer = segment._replace(size_bytes=20, xet_hash="b")
    for listed in ([], [segment._replace(size_bytes=5)], [longer]):
        behind: Any = Listed(listed, [longer, manifest])
        after = look(behind, "p", before)
        assert set(after.files.values()) == {longer, manifest}
        assert after.newest == newest
