"""What a file system that can only be read answers to everything that would write, lock or sync."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, NoReturn

from eventlog.errors import StorageError

if TYPE_CHECKING:
    from typing_extensions import Buffer


class ReadOnly:
    """The writing half of `eventlog.fs.Fs`, all of it refused with a StorageError whose `errno` is EROFS."""

    def create(self, path: str) -> int:
        """Refuse."""
        _refuse(path)

    def open(self, path: str) -> int:
        """Refuse: there are no descriptors, and so nothing to lock."""
        _refuse(path)

    def write(self, fd: int, data: Buffer, /) -> int:
        """Refuse."""
        del data
        _refuse(fd)

    def pread(self, fd: int, size: int, offset: int, /) -> bytes:
        """Refuse."""
        del size, offset
        _refuse(fd)

    def truncate(self, fd: int, size: int, /) -> None:
        """Refuse."""
        del size
        _refuse(fd)

    def sync(self, fd: int, /) -> None:
        """Refuse."""
        _refuse(fd)

    def lock(self, fd: int, /) -> bool:
        """Refuse."""
        _refuse(fd)

    def close(self, fd: int, /) -> None:
        """Refuse."""
        _refuse(fd)

    def sync_dir(self, path: str) -> None:
        """Refuse."""
        _refuse(path)

    def rename(self, source: str, target: str) -> None:
        """Refuse."""
        del source
        _refuse(target)

    def link(self, source: str, target: str) -> None:
        """Refuse."""
        del source
        _refuse(target)

    def unlink(self, path: str) -> None:
        """Refuse."""
        _refuse(path)

    def rmdir(self, path: str) -> None:
        """Refuse."""
        _refuse(path)

    def mkdir(self, path: str) -> None:
        """Refuse."""
        _refuse(path)

    def make_dirs(self, path: str, *, durable: bool = True) -> None:
        """Refuse."""
        del durable
        _refuse(path)


def _refuse(what: str | int) -> NoReturn:
    text = "a bucket is only read here: `eventlog ship` and `compactor sync` are what writes to one"
    raise StorageError(errno.EROFS, f"{what}: {text}")
