"""The file system seam: exclusive creation, appending, put-if-absent, locks, and listings that tolerate change."""

from __future__ import annotations

import os
from typing import Any

import pytest

from eventlog import fs as seam
from eventlog.fs import LOCAL, Entry


@pytest.fixture
def root(tmp_path: Any) -> str:
    return str(tmp_path)


def create(path: str, data: bytes = b"") -> None:
    fd = LOCAL.create(path)
    seam.write_all(LOCAL, fd, data)
    LOCAL.close(fd)


def test_a_file_is_never_created_twice(root: str):
    create(f"{root}/a")
    with pytest.raises(FileExistsError):
        LOCAL.create(f"{root}/a")


def test_writes_append_whatever_else_was_read(root: str):
    fd = LOCAL.create(f"{root}/a")
    seam.write_all(LOCAL, fd, b"one")
    assert LOCAL.pread(fd, 2, 1) == b"ne"
    os.lseek(fd, 0, os.SEEK_SET)
    seam.write_all(LOCAL, fd, b"two")
    LOCAL.truncate(fd, 5)
    LOCAL.sync(fd)
    LOCAL.close(fd)
    assert LOCAL.read(f"{root}/a") == b"onetw"


def test_descriptors_are_not_inherited_by_other_programs(root: str):
    fd = LOCAL.create(f"{root}/a")
    assert not os.get_inheritable(fd)
    LOCAL.close(fd)


def test_short_writes_are_continued(root: str):
    class Short(seam.LocalFs):
        def write(self, fd: int, data: Any, /) -> int:  # type: ignore[override]
            return os.write(fd, bytes(data)[:3])

    fd = LOCAL.create(f"{root}/a")
    seam.write_all(Short(), fd, memoryview(b"0123456789"))
    LOCAL.close(fd)
    assert LOCAL.read(f"{root}/a") == b"0123456789"


def test_parts_of_a_file_are_read(root: str):
    create(f"{root}/a", b"0123456789")
    assert LOCAL.read(f"{root}/a", 2, 3) == b"234"
    assert LOCAL.read(f"{root}/a", 8, 100) == b"89"
    assert LOCAL.read(f"{root}/a", 8) == b"89"
    assert LOCAL.read(f"{root}/a", 20, 5) == b""
    assert LOCAL.size(f"{root}/a") == 10


def test_a_small_file_is_put_once_and_leaves_nothing_beside_it(root: str):
    assert seam.put_if_absent(LOCAL, root, "name", b"first")
    assert not seam.put_if_absent(LOCAL, root, "name", b"second")
    assert LOCAL.read(f"{root}/name") == b"first"
    assert os.listdir(root) == ["name"]


def test_a_put_is_synced_before_it_has_its_name_and_the_name_after(root: str, faulty: Any):
    seam.put_if_absent(faulty, root, "name", b"data")
    kinds = [kind for kind, _ in faulty.calls]
    assert kinds.index("sync") < kinds.index("link") < kinds.index("sync_dir")


def test_a_failed_staging_removes_its_file(root: str):
    with pytest.raises(RuntimeError), seam.staged(LOCAL, root, "name"):
        raise RuntimeError
    assert os.listdir(root) == []


def test_directories_are_made_with_their_parents_and_again_without_harm(root: str, faulty: Any):
    faulty.make_dirs(f"{root}/a/b/c")
    synced = [path for kind, path in faulty.calls if kind == "sync_dir"]
    assert synced == [os.path.dirname(root), root, f"{root}/a", f"{root}/a/b"]
    faulty.make_dirs(f"{root}/a/b/c")
    assert os.path.isdir(f"{root}/a/b/c")


def test_a_listing_is_in_order_and_empty_when_there_is_nothing(root: str):
    create(f"{root}/b", b"12")
    os.mkdir(f"{root}/a")
    os.symlink("/nowhere", f"{root}/c")
    entries = LOCAL.entries(root)
    assert [(entry.name, entry.is_dir) for entry in entries] == [("a", True), ("b", False), ("c", False)]
    assert isinstance(entries[1], Entry)
    assert entries[1].size_bytes == 2
    assert LOCAL.subdirs(root) == ["a"]
    assert LOCAL.entries(f"{root}/none") == []
    assert LOCAL.subdirs(f"{root}/none") == []


def test_a_lock_is_seen_until_its_descriptor_is_closed(root: str):
    fd = LOCAL.create(f"{root}/a")
    assert not LOCAL.is_locked(f"{root}/a")
    assert LOCAL.lock(fd)
    assert LOCAL.is_locked(f"{root}/a")
    other = os.open(f"{root}/a", os.O_RDWR)
    assert not LOCAL.lock(other)
    os.close(other)
    LOCAL.close(fd)
    assert not LOCAL.is_locked(f"{root}/a")


def test_asking_for_a_lock_takes_none(root: str):
    fd = LOCAL.create(f"{root}/a")
    assert not LOCAL.is_locked(f"{root}/a")
    assert LOCAL.lock(fd)
    LOCAL.close(fd)
