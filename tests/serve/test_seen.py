"""The index of received ids: a set that outlives its process, and that is empty rather than wrong when damaged."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from compactor.serve import seen as seen_module
from compactor.serve.seen import KEY_BYTES, Seen
from eventlog.fs import LocalFs

# Few different halves, so that keys are equal, and share their first eight bytes or their last four, all the time.
HALVES = st.sampled_from([bytes(8), bytes(7) + b"\1", b"\1" + bytes(7), b"\x7f" * 8, b"\x80" * 8, b"\xff" * 8])
LOWS = st.sampled_from([bytes(4), bytes(3) + b"\1", b"\1" + bytes(3), b"\x80" + bytes(3), b"\xff" * 4])
KEYS = st.one_of(st.builds(lambda high, low: high + low, HALVES, LOWS), st.binary(min_size=12, max_size=12))


def number(value: int) -> bytes:
    """Return a key whose first eight bytes many other keys share."""
    return value.to_bytes(KEY_BYTES, "big")


class Machine(RuleBasedStateMachine):
    """An index beside a Python set, through additions, saves, merges and restarts."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = tempfile.mkdtemp()
        self.open()
        self.all: set[bytes] = set()
        self.saved: set[bytes] = set()
        self.cursor: dict[str, int] = {}

    def open(self) -> None:
        self.seen = Seen(self.directory, memory_keys=8)

    @rule(keys=st.lists(KEYS, max_size=12))
    def add(self, keys: list[bytes]) -> None:
        fresh = [key for key in dict.fromkeys(keys) if key not in self.all]
        assert self.seen.contains(keys) == [key in self.all for key in keys]
        self.seen.add(fresh)
        self.all.update(fresh)

    @rule(asked=st.lists(KEYS, max_size=12))
    def ask(self, asked: list[bytes]) -> None:
        assert self.seen.contains(asked) == [key in self.all for key in asked]

    @rule(seq=st.integers(0, 1 << 62))
    def save(self, seq: int) -> None:
        self.cursor = {**self.cursor, f"w{seq % 3}": seq}
        self.seen.save(self.cursor)
        self.saved = set(self.all)

    @rule()
    def die(self) -> None:
        self.open()
        self.all = set(self.saved)
        assert self.seen.cursor == self.cursor

    @invariant()
    def holds_each_key_once(self) -> None:
        assert len(self.seen) == len(self.all)
        assert all(self.seen.contains(sorted(self.all)))

    def teardown(self) -> None:
        shutil.rmtree(self.directory)


TestIndexIsASet = Machine.TestCase
TestIndexIsASet.settings = settings(settings.get_profile("default"), max_examples=25, stateful_step_count=30)


def test_keys_that_share_their_first_eight_bytes_are_told_apart_across_runs_and_merges(tmp_path: Path):
    seen = Seen(str(tmp_path))
    for start in range(16):
        seen.add(number(value) for value in range(start, 4096, 16) if value % 3)
        seen.save({})
    again = Seen(str(tmp_path))
    assert again.contains([number(value) for value in range(4096)]) == [value % 3 != 0 for value in range(4096)]


def test_an_index_that_was_not_saved_is_as_it_was_saved_last(tmp_path: Path):
    seen = Seen(str(tmp_path))
    seen.add([number(1)])
    seen.save({"w": 5})
    seen.add([number(2)])
    again = Seen(str(tmp_path))
    assert again.contains([number(1), number(2)]) == [True, False]
    assert again.cursor == {"w": 5}


def test_runs_are_merged_so_that_there_are_few_and_nothing_else_stays_on_disk(tmp_path: Path):
    seen = Seen(str(tmp_path))
    for value in range(500):
        seen.add([number(value)])
        seen.save({"w": value})
        assert len(os.listdir(tmp_path)) <= 1 + 3 * 5
    state = json.loads((tmp_path / "state.json").read_bytes())["state"]
    assert sorted(os.listdir(tmp_path)) == sorted(["state.json", *(run["name"] for run in state["runs"])])
    assert sum(run["keys"] for run in state["runs"]) == 500
    assert all(Seen(str(tmp_path)).contains([number(value) for value in range(500)]))


def test_a_merge_in_many_chunks_keeps_every_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(seen_module, "_CHUNK_KEYS", 64)
    keys = [os.urandom(8) + value.to_bytes(4, "little") for value in range(2000)]
    seen = Seen(str(tmp_path))
    for start in range(0, 2000, 125):
        seen.add(keys[start : start + 125])
        seen.save({})
    again = Seen(str(tmp_path))
    assert len(again) == 2000
    assert all(again.contains(keys))
    assert not any(again.contains([key[:8] + b"\xff\xff\xff\xff" for key in keys]))


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """Return the directory of an index with two runs and a cursor."""
    seen = Seen(str(tmp_path))
    for count, cursor in ((300, {"w": 300}), (20, {"w": 320, "v": 7})):
        seen.add(os.urandom(KEY_BYTES) for _ in range(count))
        seen.save(cursor)
    return tmp_path


def every_file(directory: Path) -> list[Path]:
    return sorted(directory.iterdir())


@settings(max_examples=150)
@given(data=st.data())
def test_one_flipped_bit_anywhere_empties_the_index_and_its_cursor(saved: Path, data: st.DataObject):
    path = data.draw(st.sampled_from(every_file(saved)))
    whole = path.read_bytes()
    at = data.draw(st.integers(0, len(whole) - 1))
    path.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << data.draw(st.integers(0, 7))]) + whole[at + 1 :])
    try:
        damaged = Seen(str(saved))
        assert (len(damaged), damaged.cursor) == (0, {})
    finally:
        path.write_bytes(whole)
    assert (len(Seen(str(saved))), Seen(str(saved)).cursor) == (320, {"w": 320, "v": 7})


@pytest.mark.parametrize("damage", ["missing", "empty", "short", "long"])
def test_a_file_that_is_missing_or_of_another_size_empties_the_index(saved: Path, damage: str):
    for path in every_file(saved):
        whole = path.read_bytes()
        if damage == "missing":
            path.unlink()
        else:
            path.write_bytes({"empty": b"", "short": whole[:-1], "long": whole + b"\0"}[damage])
        damaged = Seen(str(saved))
        assert (len(damaged), damaged.cursor) == (0, {})
        path.write_bytes(whole)


def test_an_emptied_index_can_be_filled_again_and_the_garbage_goes(saved: Path):
    next(path for path in every_file(saved) if path.suffix == ".ids").write_bytes(b"garbage")
    again = Seen(str(saved))
    again.add([number(1)])
    again.save({"w": 1})
    assert len(every_file(saved)) == 2
    assert Seen(str(saved)).contains([number(1)]) == [True]


class _Full(LocalFs):
    """A disk that refuses from the n-th write on."""

    def __init__(self, left: int) -> None:
        self.left = left

    def write(self, fd: int, data: object, /) -> int:  # type: ignore[override]
        self.left -= 1
        if self.left < 0:
            raise OSError(28, "No space left on device")
        return os.write(fd, data)  # type: ignore[arg-type]


@pytest.mark.parametrize("left", range(5))
def test_a_save_that_the_disk_refuses_changes_nothing_on_disk_or_in_memory(saved: Path, left: int):
    files = every_file(saved)
    seen = Seen(str(saved), fs=_Full(left))
    seen.add([number(1)])
    try:
        seen.save({"w": 999})
    except OSError:
        assert (seen.cursor, seen.contains([number(1)]), len(seen)) == ({"w": 320, "v": 7}, [True], 321)
        again = Seen(str(saved))
        assert (len(again), again.cursor) == (320, {"w": 320, "v": 7})
        again.add([number(2)])
        again.save({"w": 400})
        assert {path.suffix for path in every_file(saved)} == {".json", ".ids"}
        assert len(every_file(saved)) == len(files) + 1
    else:
        assert left >= 3
        assert Seen(str(saved)).contains([number(1)]) == [True]
