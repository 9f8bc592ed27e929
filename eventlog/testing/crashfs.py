"""A file system in memory that forgets, on demand, what was not synced: crash safety as an ordinary unit test."""

from __future__ import annotations

import errno as codes
import io
import itertools
import os
import time
from collections.abc import Callable, Collection
from typing import IO, TYPE_CHECKING, Final, Literal

from eventlog.fs import Entry, MakesDirs
from eventlog.testing.disk import CrashMode, Directory, Disk, File, Node, Step, refusal
from eventlog.testing.faults import Faulty

if TYPE_CHECKING:
    from typing_extensions import Buffer

_FIRST_FD: Final = 1_000_000


class _Handle:
    """An open descriptor."""

    def __init__(self, node: Node, path: str) -> None:
        self.node = node
        self.path = path

    @property
    def file(self) -> File:
        """The file; EISDIR when it is a directory."""
        if isinstance(self.node, Directory):
            raise refusal(codes.EISDIR, self.path)
        return self.node


class CrashFs(Faulty, MakesDirs):
    """A simulated disk: after a crash it holds exactly what was synced, and of the rest what the crash mode says.

    Implements `eventlog.fs.Fs`; errors are those of the operating system. Bytes become durable by `sync` of
    their file, names (new, changed or removed) by `sync_dir` of their directory; syncing a file does not make
    its name durable. After a failed `sync` the bytes it was about stay lost whatever later syncs say, as on
    Linux. The design follows LevelDB's fault_injection_test. Thread-safe.
    """

    def __init__(self, *, start: CrashFs | None = None, time_ns: Callable[[], int] = time.time_ns) -> None:
        """Start with an empty disk, or with a copy of one whose processes were killed.

        Args:
            start: the disk to copy.
            time_ns: the clock that modification times come from, nanoseconds since 1970 UTC.
        """
        super().__init__()
        self._time_ns = time_ns
        self._disk: Disk = Disk() if start is None else start._disk.after_kill()  # noqa: SLF001 - one of ours
        self._handles: dict[int, _Handle] = {}
        self._ignored: frozenset[str] = frozenset()

    @property
    def open_paths(self) -> list[str]:
        """The files that descriptors are open on; a number is free again once its descriptor is closed, as on Linux."""
        with self._lock:
            return sorted(handle.path for handle in self._handles.values())

    @property
    def unsynced_names(self) -> int:
        """How many changes of names no sync of a directory has confirmed."""
        with self._lock:
            return len(self._disk.pending)

    @property
    def unsynced_bytes(self) -> bool:
        """Whether any file holds bytes that no sync has confirmed."""
        with self._lock:
            return self._disk.has_unsynced_bytes()

    def state(self) -> dict[str, bytes | None]:
        """Return the bytes of every file by its path, and None for every directory."""
        with self._lock:
            return self._disk.state()

    def after_crash(
        self, mode: CrashMode = "lost", *, seed: int | None = None, kept_names: Collection[int] | None = None
    ) -> CrashFs:
        """Return the disk as a new process finds it; this one stays as it is.

        Nobody holds a lock or a descriptor there, and no fault or stop is set.

        Args:
            mode: "kept": the processes were killed, nothing is lost, and what was un-synced still is. The others
                are power losses. "lost": un-synced bytes and names are gone. "torn": un-synced bytes are cut at
                a multiple of 512. "zeros": un-synced bytes are zero. "holes": some sectors of them are. "whole":
                they are all there.
            seed: choose by this number which un-synced changes of names a power loss keeps, and where it
                cuts; None keeps all of them, or none with "lost".
            kept_names: keep exactly these un-synced changes of names, by their number from 0 in their order.
        """
        other = CrashFs(time_ns=self._time_ns)
        with self._lock:
            other._disk = (
                self._disk.after_kill() if mode == "kept" else self._disk.after_power_loss(mode, seed, kept_names)
            )
        return other

    def ignore_sync(self, *kinds: Literal["file", "dir"]) -> None:
        """Let syncs of these kinds do nothing and say that all is well: to prove that a test notices their absence."""
        self._ignored = frozenset(kinds)

    def create(self, path: str) -> int:
        """Create a file that must not exist and return a descriptor that appends to it."""
        with self._lock:
            path = os.path.abspath(path)
            self._faults.begin("create", path)
            directory, name = self._disk.parent(path)
            if name in directory.names:
                raise refusal(codes.EEXIST, path)
            file = File(self._time_ns())
            self._disk.change(Step(directory, name, file))
            return self._opened(file, path)

    def write(self, fd: int, data: Buffer, /) -> int:
        """Append bytes; return how many were taken."""
        with self._lock:
            handle = self._handle(fd)
            view = memoryview(data).cast("B")
            if self._faults.takes_half():
                handle.file.append(bytes(view[: len(view) // 2]), self._time_ns())
            short = self._faults.begin("write", handle.path)
            taken = len(view) if short is None else min(short, len(view))
            handle.file.append(bytes(view[:taken]), self._time_ns())
            return taken

    def open(self, path: str) -> int:
        """Return a descriptor of a file or directory that is there."""
        with self._lock:
            path = os.path.abspath(path)
            self._faults.begin("open", path)
            return self._opened(self._disk.node(path), path)

    def pread(self, fd: int, size: int, offset: int, /) -> bytes:
        """Read back at most `size` bytes at `offset`."""
        with self._lock:
            handle = self._handle(fd)
            self._faults.begin("pread", handle.path)
            return bytes(handle.file.data[offset : offset + size])

    def truncate(self, fd: int, size: int, /) -> None:
        """Cut the file to `size` bytes."""
        with self._lock:
            handle = self._handle(fd)
            self._faults.begin("truncate", handle.path)
            handle.file.truncate(size, self._time_ns())

    def sync(self, fd: int, /) -> None:
        """Make the file's bytes durable."""
        with self._lock:
            handle = self._handle(fd)
            try:
                self._faults.begin("sync", handle.path)
            except OSError:
                handle.file.fail_sync()
                raise
            if isinstance(handle.node, Directory):
                self._disk.sync_names(handle.node)
            elif "file" not in self._ignored:
                handle.node.sync()

    def lock(self, fd: int, /) -> bool:
        """Take the advisory lock; False when another descriptor holds it."""
        with self._lock:
            node = self._handle(fd).node
            if node.locked_by not in (None, fd):
                return False
            node.locked_by = fd
            return True

    def close(self, fd: int, /) -> None:
        """Close a descriptor, and release its lock."""
        with self._lock:
            node = self._handle(fd).node
            del self._handles[fd]
            if node.locked_by == fd:
                node.locked_by = None

    def sync_dir(self, path: str) -> None:
        """Make the names in a directory durable."""
        with self._lock:
            path = os.path.abspath(path)
            self._faults.begin("sync_dir", path)
            directory = self._disk.directory(path)
            if "dir" not in self._ignored:
                self._disk.sync_names(directory)

    def rename(self, source: str, target: str) -> None:
        """Give a file, or a directory with all that is in it, another name in one step; no directory is replaced."""
        with self._lock:
            source, target = os.path.abspath(source), os.path.abspath(target)
            self._faults.begin("rename", source)
            node = self._disk.node(source)
            (old, old_name), (new, new_name) = self._disk.parent(source), self._disk.parent(target)
            there = new.names.get(new_name)
            if isinstance(there, Directory):
                raise refusal(codes.EISDIR, target)
            if isinstance(node, Directory) and there is not None:
                raise refusal(codes.ENOTDIR, target)
            if new.names.get(new_name) is node:
                return  # two names of one file: POSIX leaves both
            self._disk.change(Step(old, old_name, None), Step(new, new_name, node))
            for handle in self._handles.values():
                if handle.node is node:
                    handle.path = target

    def link(self, source: str, target: str) -> None:
        """Give a file a second name, which must be free."""
        with self._lock:
            source, target = os.path.abspath(source), os.path.abspath(target)
            self._faults.begin("link", target)
            node = self._disk.file(source)
            directory, name = self._disk.parent(target)
            if name in directory.names:
                raise refusal(codes.EEXIST, target)
            self._disk.change(Step(directory, name, node))

    def unlink(self, path: str) -> None:
        """Remove a name."""
        with self._lock:
            path = os.path.abspath(path)
            self._faults.begin("unlink", path)
            self._disk.file(path)
            directory, name = self._disk.parent(path)
            self._disk.change(Step(directory, name, None))

    def rmdir(self, path: str) -> None:
        """Remove an empty directory."""
        with self._lock:
            path = os.path.abspath(path)
            self._faults.begin("rmdir", path)
            if self._disk.directory(path).names:
                raise refusal(codes.ENOTEMPTY, path)
            directory, name = self._disk.parent(path)
            self._disk.change(Step(directory, name, None))

    def mkdir(self, path: str) -> None:
        """Create one directory, which must not exist."""
        with self._lock:
            path = os.path.abspath(path)
            self._faults.begin("mkdir", path)
            directory, name = self._disk.parent(path)
            if name in directory.names:
                raise refusal(codes.EEXIST, path)
            self._disk.change(Step(directory, name, Directory(self._time_ns())))

    def is_dir(self, path: str) -> bool:
        """Say whether a directory is there."""
        with self._lock:
            return isinstance(self._disk.find(os.path.abspath(path)), Directory)

    def entries(self, path: str) -> list[Entry]:
        """List a directory in name order; [] when it does not exist."""
        with self._lock:
            self._faults.begin("entries", path)
            directory = self._listed(path)
            return sorted(_entry(name, node) for name, node in directory.names.items()) if directory else []

    def names(self, path: str) -> list[str]:
        """Name what is in a directory, in order; [] when it does not exist."""
        with self._lock:
            self._faults.begin("names", path)
            directory = self._listed(path)
            return sorted(directory.names) if directory else []

    def subdirs(self, path: str) -> list[str]:
        """Name the directories in a directory, in order; [] when it does not exist."""
        with self._lock:
            self._faults.begin("subdirs", path)
            directory = self._listed(path)
            nodes = directory.names if directory else {}
            return sorted(name for name, node in nodes.items() if isinstance(node, Directory))

    def size(self, path: str) -> int:
        """Return a file's size in bytes."""
        with self._lock:
            self._faults.begin("size", path)
            node = self._disk.node(os.path.abspath(path))
            return len(node.data) if isinstance(node, File) else 0

    def changed_ns(self, path: str) -> int:
        """Return when a file or directory was changed last."""
        with self._lock:
            self._faults.begin("changed_ns", path)
            return self._disk.node(os.path.abspath(path)).mtime_ns

    def read(self, path: str, offset: int = 0, size: int = -1) -> bytes:
        """Return a file's bytes from `offset`, at most `size` of them when it is not negative."""
        with self._lock:
            self._faults.begin("read", path)
            data = self._disk.file(os.path.abspath(path)).data
            return bytes(data[offset:] if size < 0 else data[offset : offset + size])

    def source(self, path: str) -> IO[bytes]:
        """Return the file's bytes as a file object of their own."""
        return io.BytesIO(self.read(path))

    def is_locked(self, path: str) -> bool:
        """Say whether a living writer holds the lock on a file; never after a crash."""
        with self._lock:
            return self._disk.file(os.path.abspath(path)).locked_by is not None

    def _handle(self, fd: int) -> _Handle:
        handle = self._handles.get(fd)
        if handle is None:
            raise OSError(codes.EBADF, os.strerror(codes.EBADF))
        return handle

    def _opened(self, node: Node, path: str) -> int:
        fd = next(number for number in itertools.count(_FIRST_FD) if number not in self._handles)
        self._handles[fd] = _Handle(node, path)
        return fd

    def _listed(self, path: str) -> Directory | None:
        path = os.path.abspath(path)
        return None if self._disk.find(path) is None else self._disk.directory(path)


def _entry(name: str, node: Node) -> Entry:
    size = len(node.data) if isinstance(node, File) else 0
    return Entry(name, isinstance(node, Directory), size, node.mtime_ns)
