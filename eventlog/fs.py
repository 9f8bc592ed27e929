"""The seam to the file system: every operation that durability depends on goes through one small object."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from typing import IO, TYPE_CHECKING, Final, NamedTuple, Protocol, runtime_checkable

from eventlog import names

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from typing_extensions import Buffer

SPACE_ERRORS: Final = (errno.ENOSPC, errno.EDQUOT)


class Entry(NamedTuple):
    """One name in a directory."""

    name: str
    is_dir: bool
    size_bytes: int
    mtime_ns: int


class Fs(Protocol):
    """What the store asks of a file system; `LocalFs` is the real one, `eventlog.testing.CrashFs` a simulated disk.

    Every method raises OSError as the operating system would. Paths are strings.
    """

    def create(self, path: str) -> int:
        """Create a file that must not exist and return a descriptor that appends to it."""

    def write(self, fd: int, data: Buffer, /) -> int:
        """Hand bytes to the kernel; return how many it took."""

    def open(self, path: str) -> int:
        """Return a descriptor of a file or directory that is there: to read, to sync and to lock it, not to write."""

    def pread(self, fd: int, size: int, offset: int, /) -> bytes:
        """Read at most `size` bytes at `offset` from a descriptor."""

    def truncate(self, fd: int, size: int, /) -> None:
        """Cut the file to `size` bytes."""

    def sync(self, fd: int, /) -> None:
        """Make the file's bytes durable (fdatasync)."""

    def lock(self, fd: int, /) -> bool:
        """Take the advisory lock that says who has it is alive; False when another has, or there are no locks."""

    def close(self, fd: int, /) -> None:
        """Close a descriptor."""

    def sync_dir(self, path: str) -> None:
        """Make the names in a directory durable."""

    def rename(self, source: str, target: str) -> None:
        """Give a file another name in one step."""

    def link(self, source: str, target: str) -> None:
        """Give a file a second name; FileExistsError when the name is taken (put-if-absent)."""

    def unlink(self, path: str) -> None:
        """Remove a name."""

    def rmdir(self, path: str) -> None:
        """Remove an empty directory."""

    def mkdir(self, path: str) -> None:
        """Create one directory, which must not exist."""

    def is_dir(self, path: str) -> bool:
        """Say whether a directory is there."""

    def make_dirs(self, path: str, *, durable: bool = True) -> None:
        """Create a directory and its parents, each made durable in its parent unless told otherwise."""

    def entries(self, path: str) -> list[Entry]:
        """List a directory in name order; [] when it does not exist."""

    def names(self, path: str) -> list[str]:
        """Name what is in a directory, in order and without a stat each; [] when it does not exist."""

    def subdirs(self, path: str) -> list[str]:
        """Name the directories in a directory, in order and without a stat each; [] when it does not exist."""

    def size(self, path: str) -> int:
        """Return a file's size in bytes."""

    def changed_ns(self, path: str) -> int:
        """Return when a file or directory was changed last, in nanoseconds since 1970."""

    def read(self, path: str, offset: int = 0, size: int = -1) -> bytes:
        """Return a file's bytes from `offset`, at most `size` of them when it is not negative."""

    def source(self, path: str) -> str | IO[bytes]:
        """Return what pyarrow should open to read the file: a path, or a file object."""

    def is_locked(self, path: str) -> bool:
        """Say whether a living writer holds the lock on a file."""


@runtime_checkable
class Expecting(Protocol):
    """A file object on which a read costs a trip: it wants to know what will be read."""

    def expect(self, ranges: Sequence[tuple[int, int]]) -> None:
        """Say which bytes, as ascending (start, end), are read next, or that none are: then it holds none either.

        This replaces what was said before.
        """


class MakesDirs:
    """Makes directories from the single steps of a file system: the same way on a real one and a simulated one."""

    def make_dirs(self: Fs, path: str, *, durable: bool = True) -> None:
        """Create what is missing from the top down, syncing each parent, and first that of the lowest one there."""
        missing: list[str] = []
        probe = os.path.abspath(path)
        while not self.is_dir(probe):
            missing.append(probe)
            probe = os.path.dirname(probe)
        if durable:
            # Whoever made it may have been killed before it synced the name. A parent that may not be opened is
            # above the store, and none that was made here.
            with contextlib.suppress(PermissionError):
                self.sync_dir(os.path.dirname(probe))
        for directory in reversed(missing):
            with contextlib.suppress(FileExistsError):
                self.mkdir(directory)
            if durable:
                self.sync_dir(os.path.dirname(directory))


class LocalFs(MakesDirs):
    """The operating system's file system. Thread-safe; holds no state."""

    write = staticmethod(os.write)
    truncate = staticmethod(os.ftruncate)
    pread = staticmethod(os.pread)
    close = staticmethod(os.close)
    rename = staticmethod(os.rename)
    link = staticmethod(os.link)
    unlink = staticmethod(os.unlink)
    rmdir = staticmethod(os.rmdir)
    mkdir = staticmethod(os.mkdir)
    is_dir = staticmethod(os.path.isdir)
    sync = staticmethod(getattr(os, "fdatasync", os.fsync))

    def create(self, path: str) -> int:
        """Create with O_EXCL, for appending, closed on exec."""
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o644)

    def lock(self, fd: int, /) -> bool:
        """Take an exclusive flock without waiting."""
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        return True

    def open(self, path: str) -> int:
        """Open for reading, closed on exec."""
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def sync_dir(self, path: str) -> None:
        """Fsync the directory, where the file system can: EINVAL says that it has no such thing."""
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
        finally:
            os.close(fd)

    def entries(self, path: str) -> list[Entry]:
        """Scan with one stat a name; names that vanish meanwhile are left out."""
        found: list[Entry] = []
        try:
            scan = os.scandir(path)
        except FileNotFoundError:
            return []
        with scan:
            for item in scan:
                try:
                    stat = item.stat(follow_symlinks=False)
                except FileNotFoundError:
                    continue
                found.append(Entry(item.name, item.is_dir(follow_symlinks=False), stat.st_size, stat.st_mtime_ns))
        found.sort()
        return found

    def names(self, path: str) -> list[str]:
        """List without any stat."""
        try:
            return sorted(os.listdir(path))
        except FileNotFoundError:
            return []

    def subdirs(self, path: str) -> list[str]:
        """Scan without any stat where the file system tells the type with the name."""
        try:
            scan = os.scandir(path)
        except FileNotFoundError:
            return []
        with scan:
            return sorted(item.name for item in scan if item.is_dir(follow_symlinks=False))

    def size(self, path: str) -> int:
        """Stat the file."""
        return os.stat(path).st_size

    def changed_ns(self, path: str) -> int:
        """Stat it."""
        return os.stat(path).st_mtime_ns

    def read(self, path: str, offset: int = 0, size: int = -1) -> bytes:
        """Open, seek, read, close."""
        with open(path, "rb", buffering=0) as file:
            if offset:
                file.seek(offset)
            return file.read() if size < 0 else _read_up_to(file, size)

    def source(self, path: str) -> str:
        """Return the path itself, so that pyarrow reads without Python in between."""
        return path

    def is_locked(self, path: str) -> bool:
        """Try a shared flock on a descriptor of its own."""
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(fd)
        return False


def _read_up_to(file: IO[bytes], size: int) -> bytes:
    # Asked for more than there is, the interpreter would set that much memory aside first.
    size = min(size, max(os.fstat(file.fileno()).st_size - file.tell(), 0))
    parts: list[bytes] = []
    while size > 0:
        part = file.read(size)
        if not part:
            break
        parts.append(part)
        size -= len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


LOCAL: Fs = LocalFs()


def write_all(fs: Fs, fd: int, data: Buffer) -> None:
    """Write every byte, continuing after short writes.

    Raises:
        OSError: as the file system raises it; some bytes may have been written.
    """
    view = memoryview(data).cast("B")
    while view:
        view = view[fs.write(fd, view) :]


@contextlib.contextmanager
def staged(fs: Fs, directory: str, final: str) -> Iterator[tuple[str, int]]:
    """Yield (temporary path, descriptor); afterwards the bytes are synced and the descriptor is closed.

    The caller still has to name the file (`rename_staged`, or a link) and to sync the directory. When the body
    raises, the temporary file is removed.
    """
    path = os.path.join(directory, names.temporary_name(final))
    fd = fs.create(path)
    try:
        yield path, fd
        fs.sync(fd)
    except BaseException:
        fs.close(fd)
        with contextlib.suppress(OSError):
            fs.unlink(path)
        raise
    fs.close(fd)


def rename_staged(fs: Fs, temporary: str, final: str) -> None:
    """Give a staged file its name, which another file may have had; when that fails, the temporary file is removed.

    Raises:
        OSError: as the file system raises it.
    """
    try:
        fs.rename(temporary, final)
    except BaseException:
        with contextlib.suppress(OSError):
            fs.unlink(temporary)
        raise


def put_if_absent(fs: Fs, directory: str, name: str, data: Buffer) -> bool:
    """Publish a small file under a name that must be free: durable when this returns True.

    Returns:
        False when the name was taken: nothing has changed.

    Raises:
        OSError: as the file system raises it; whether the name is taken, and by us, has to be looked at.
    """
    with staged(fs, directory, name) as (temporary, fd):
        write_all(fs, fd, data)
    try:
        fs.link(temporary, os.path.join(directory, name))
    except FileExistsError:
        return False
    finally:
        with contextlib.suppress(OSError):
            fs.unlink(temporary)
    fs.sync_dir(directory)
    return True
