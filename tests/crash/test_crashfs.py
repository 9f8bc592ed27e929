"""The simulated disk itself: it behaves as the real one until a crash, and then forgets what was not synced."""

import errno
import os

import pytest

from eventlog.fs import LOCAL, Fs, LocalFs
from eventlog.testing import CrashFs, FakeClock, Stopped


def write_file(fs: Fs, path: str, data: bytes, *, sync: bool = False, sync_dir: bool = False) -> None:
    fd = fs.create(path)
    fs.write(fd, data)
    if sync:
        fs.sync(fd)
    fs.close(fd)
    if sync_dir:
        fs.sync_dir(os.path.dirname(path))


def story(fs: Fs, root: str) -> list[object]:
    """Do one of everything, and return what was seen, errors by their number."""
    seen: list[object] = []

    def attempt(method, *args):
        try:
            result = method(*args)
        except OSError as error:
            seen.append(errno.errorcode[error.errno])
            return None
        seen.append(result if not isinstance(result, int) or isinstance(result, bool) or result < 1000 else "fd")
        return result

    a, b, c = f"{root}/d/a", f"{root}/d/b", f"{root}/d/e/c"
    for method, path in ((fs.entries, f"{root}/d"), (fs.create, a), *[(fs.make_dirs, f"{root}/d/e")] * 2):
        attempt(method, path)
    fd = fs.create(a)
    attempt(fs.create, a)
    attempt(fs.write, fd, b"hello world")
    attempt(fs.pread, fd, 5, 6)
    attempt(fs.truncate, fd, 5)
    attempt(fs.write, fd, b"!")
    attempt(fs.lock, fd)
    attempt(fs.is_locked, a)
    attempt(fs.sync, fd)
    attempt(fs.close, fd)
    attempt(fs.is_locked, a)
    attempt(fs.write, -1, b"x")
    attempt(fs.read, a)
    attempt(fs.read, a, 2)
    attempt(fs.read, a, 1, 3)
    attempt(fs.read, a, 100)
    attempt(fs.read, b)
    attempt(fs.size, a)
    attempt(fs.size, b)
    attempt(fs.link, a, b)
    attempt(fs.link, a, b)
    attempt(fs.link, f"{root}/none", c)
    attempt(fs.rename, a, c)
    attempt(fs.rename, a, c)
    attempt(fs.rename, c, b)
    attempt(fs.subdirs, f"{root}/d")
    attempt(fs.subdirs, f"{root}/none")
    seen.append([entry.name for entry in fs.entries(f"{root}/d")])
    attempt(fs.rmdir, f"{root}/d")
    attempt(fs.rmdir, f"{root}/d/e")
    for name in ("b", "c"):
        attempt(fs.unlink, f"{root}/d/{name}")
    attempt(fs.unlink, f"{root}/d/e/c")
    attempt(fs.rmdir, f"{root}/d/e")
    attempt(fs.sync_dir, f"{root}/d")
    attempt(fs.sync_dir, f"{root}/none")
    attempt(fs.make_dirs, f"{root}/d/f/g")
    attempt(fs.create, f"{root}/d/f")
    seen.append([(entry.name, entry.is_dir) for entry in fs.entries(f"{root}/d")])
    return seen


def test_without_a_crash_it_behaves_as_the_real_file_system(tmp_path):
    assert story(CrashFs(), "/disk") == story(LOCAL, str(tmp_path))


def test_making_directories_syncs_the_one_that_a_killed_process_left(tmp_path):
    synced: list[str] = []

    class Recording(LocalFs):
        def sync_dir(self, path: str) -> None:
            synced.append(path)
            super().sync_dir(path)

    (tmp_path / "left").mkdir()
    Recording().make_dirs(f"{tmp_path}/left")
    assert synced == [str(tmp_path)]


def test_directories_that_a_killed_process_made_are_durable_once_they_are_made_again():
    fs = CrashFs()
    fs.stop_after(3)
    with pytest.raises(Stopped):
        fs.make_dirs("/a/b")
    again = fs.after_crash("kept")
    again.make_dirs("/a/b/c")
    assert again.after_crash("lost").subdirs("/a/b") == ["c"]


def test_a_number_of_a_closed_descriptor_is_given_to_the_next_file():
    fs = CrashFs()
    first = fs.create("/f")
    fs.close(first)
    assert fs.create("/g") == first
    assert fs.open_paths == ["/g"]


def test_unsynced_bytes_are_lost_torn_zeroed_or_kept():
    fs = CrashFs()
    fd = fs.create("/f")
    fs.write(fd, b"a" * 100)
    fs.sync(fd)
    fs.write(fd, b"b" * 2000)
    fs.sync_dir("/")
    assert fs.after_crash("lost").read("/f") == b"a" * 100
    assert fs.after_crash("zeros").read("/f") == b"a" * 100 + bytes(2000)
    assert fs.after_crash("kept").read("/f") == b"a" * 100 + b"b" * 2000
    sizes = {fs.after_crash("torn", seed=seed).size("/f") for seed in range(50)}
    assert sizes == {512, 1024, 1536, 2048}
    holes = {fs.after_crash("holes", seed=seed).read("/f") for seed in range(50)}
    assert len(holes) > 4
    assert all(len(data) == 2100 and data.startswith(b"a" * 100) and set(data[100:]) <= {0, ord("b")} for data in holes)


def test_a_synced_file_is_lost_when_its_name_was_not_synced():
    fs = CrashFs()
    write_file(fs, "/f", b"data", sync=True)
    assert fs.after_crash("lost").entries("/") == []
    fs.sync_dir("/")
    assert fs.after_crash("lost").read("/f") == b"data"


def test_an_unsynced_name_keeps_or_loses_its_file_by_the_seed():
    fs = CrashFs()
    write_file(fs, "/f", b"data", sync=True)
    seen = {len(fs.after_crash("lost", seed=seed).entries("/")) for seed in range(20)}
    assert seen == {0, 1}


def test_an_unsynced_rename_leaves_exactly_one_of_the_two_names():
    fs = CrashFs()
    write_file(fs, "/old", b"data", sync=True, sync_dir=True)
    fs.rename("/old", "/new")
    seen = [tuple(entry.name for entry in fs.after_crash("lost", seed=seed).entries("/")) for seed in range(20)]
    assert set(seen) == {("old",), ("new",)}
    assert [entry.name for entry in fs.after_crash("lost").entries("/")] == ["old"]


def test_an_unsynced_unlink_comes_back():
    fs = CrashFs()
    write_file(fs, "/f", b"data", sync=True, sync_dir=True)
    fs.unlink("/f")
    assert fs.entries("/") == []
    assert fs.after_crash("lost").read("/f") == b"data"
    fs.sync_dir("/")
    assert fs.after_crash("lost").entries("/") == []


def test_a_killed_process_leaves_unsynced_what_it_had_not_synced():
    fs = CrashFs()
    write_file(fs, "/f", b"data")
    killed = fs.after_crash("kept")
    assert killed.read("/f") == b"data"
    assert killed.after_crash("lost").entries("/") == []


def test_locks_and_descriptors_end_with_the_process():
    fs = CrashFs()
    fd = fs.create("/f")
    assert fs.lock(fd)
    assert fs.is_locked("/f")
    after = fs.after_crash("kept")
    assert not after.is_locked("/f")
    with pytest.raises(OSError, match="Bad file descriptor"):
        after.write(fd, b"x")


def test_a_stopped_process_changes_nothing_any_more():
    fs = CrashFs()
    write_file(fs, "/f", b"data")
    fs.stop_after(2)
    fd = fs.create("/g")
    for _ in range(3):
        with pytest.raises(Stopped):
            fs.write(fd, b"data")
    with pytest.raises(Stopped):
        fs.unlink("/f")
    assert fs.size("/g") == 0
    assert [entry.name for entry in fs.entries("/")] == ["f", "g"]


def test_a_stopped_write_can_be_half_done_once():
    fs = CrashFs()
    fd = fs.create("/f")
    fs.stop_after(1, half_written=True)
    for _ in range(2):
        with pytest.raises(Stopped):
            fs.write(fd, b"abcd")
    assert fs.read("/f") == b"ab"


def test_failures_come_as_often_as_asked_and_only_where_asked():
    fs = CrashFs()
    fd = fs.create("/f")
    fs.fail_next("write", errno.ENOSPC, 2, where="/f")
    for _ in range(2):
        with pytest.raises(OSError, match="No space left"):
            fs.write(fd, b"x")
    assert fs.write(fd, b"x") == 1
    fs.fail_next("create", errno.EIO, None, where="/g")
    for _ in range(3):
        with pytest.raises(OSError, match="Input/output"):
            fs.create("/g")
    fs.heal()
    assert fs.create("/g") > 0


def test_a_short_write_says_how_much_it_took_before_it_fails():
    fs = CrashFs()
    fd = fs.create("/f")
    fs.fail_next("write", errno.ENOSPC, 1, short_write_bytes=2)
    assert fs.write(fd, b"abcd") == 2
    with pytest.raises(OSError, match="No space left"):
        fs.write(fd, b"cd")
    assert fs.write(fd, b"cd") == 2
    assert fs.read("/f") == b"abcd"


def test_bytes_of_a_failed_sync_stay_lost_when_a_later_sync_succeeds():
    fs = CrashFs()
    fd = fs.create("/f")
    fs.sync_dir("/")
    fs.write(fd, b"one")
    fs.fail_next("sync", errno.EIO)
    with pytest.raises(OSError, match="Input/output"):
        fs.sync(fd)
    fs.write(fd, b"two")
    fs.sync(fd)
    assert fs.read("/f") == b"onetwo"
    assert fs.after_crash("lost").read("/f") == b"\0\0\0two"


def test_an_ignored_sync_makes_nothing_durable():
    fs = CrashFs()
    fs.ignore_sync("file", "dir")
    write_file(fs, "/f", b"data", sync=True, sync_dir=True)
    assert fs.after_crash("lost").entries("/") == []
    fs.ignore_sync("file")
    fs.sync_dir("/")
    assert fs.after_crash("lost").read("/f") == b""


def test_two_names_of_a_file_share_its_bytes_after_a_crash():
    fs = CrashFs()
    fd = fs.create("/f")
    fs.write(fd, b"data")
    fs.sync(fd)
    fs.link("/f", "/g")
    fs.sync_dir("/")
    after = fs.after_crash("lost")
    after.unlink("/f")
    assert after.read("/g") == b"data"


def test_times_come_from_the_clock():
    clock = FakeClock(5)
    fs = CrashFs(time_ns=clock.time_ns)
    write_file(fs, "/f", b"data")
    clock.advance(1.5)
    write_file(fs, "/g", b"data")
    assert [entry.mtime_ns for entry in fs.entries("/")] == [5, 1_500_000_005]
    clock.set_back(1)
    assert clock.time_ns() == 500_000_005


def test_the_operations_so_far_are_listed():
    fs = CrashFs()
    write_file(fs, "/f", b"data", sync=True, sync_dir=True)
    assert fs.operations == [("create", "/f"), ("write", "/f"), ("sync", "/f"), ("sync_dir", "/")]
