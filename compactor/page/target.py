"""Where a page's files go: what is asked of such a place, and the one that is a directory on this machine."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from collections.abc import Collection, Sequence
from typing import Final, NamedTuple, Protocol

from compactor.page.layout import is_media
from eventlog import names
from eventlog.errors import UsageError
from eventlog.fs import LOCAL

_COPY_BYTES: Final = 1 << 20


class There(NamedTuple):
    """A file of a page that is there.

    Attributes:
        size_bytes: of the file.
        hash: of its bytes, as the target's `hashes` tells for a local file.
    """

    size_bytes: int
    hash: str


class Target(Protocol):
    """Holds a page. Each file appears whole, or not; every method is safe to repeat."""

    def prepare(self) -> None:
        """Make the place unless it is there."""

    def is_empty(self) -> bool:
        """Say whether it holds nothing at all."""

    def read(self, path: str) -> bytes | None:
        """Return a small file, or None."""

    def there(self, paths: Collection[str]) -> dict[str, There]:
        """Return those of these files that are there."""

    def media(self) -> list[str]:
        """Return the paths of all media and artifacts."""

    def hashes(self, local: Sequence[str]) -> list[str]:
        """Return the hashes of local files."""

    def add(self, files: Sequence[tuple[str, str]]) -> None:
        """Take (local path, path) pairs; all are there when this returns."""

    def delete(self, paths: Sequence[str]) -> None:
        """Delete files; those that are not there count as deleted."""


class Directory:
    """A page in a directory: staged, synced and renamed, file by file."""

    def __init__(self, root: str) -> None:
        """Take the directory, which is made when it is missing."""
        self._root = os.path.abspath(root)

    def __str__(self) -> str:
        """Return the path."""
        return self._root

    def prepare(self) -> None:
        """Make the directory unless it is there.

        Raises:
            UsageError: there is a file of that name.
            OSError: it cannot be made.
        """
        if os.path.exists(self._root) and not os.path.isdir(self._root):
            raise UsageError(f"{self._root} is no directory: name another one")
        LOCAL.make_dirs(self._root)

    def is_empty(self) -> bool:
        """Say whether it holds nothing but what a killed export left."""
        return all(names.is_temporary(entry.name) for entry in LOCAL.entries(self._root))

    def read(self, path: str) -> bytes | None:
        """Return a file, or None."""
        try:
            return LOCAL.read(os.path.join(self._root, path))
        except FileNotFoundError:
            return None

    def there(self, paths: Collection[str]) -> dict[str, There]:
        """Return those of these files that are there."""
        found = {path: os.path.join(self._root, path) for path in paths}
        found = {path: local for path, local in found.items() if os.path.isfile(local)}
        hashes = self.hashes([*found.values()])
        return {path: There(os.path.getsize(found[path]), each) for path, each in zip(found, hashes, strict=True)}

    def media(self) -> list[str]:
        """Return the paths of all media and artifacts; what a killed export left there is removed."""
        found: list[str] = []
        for top, _, inside in os.walk(self._root):
            for name in inside:
                local = os.path.join(top, name)
                if names.is_temporary(name):
                    LOCAL.unlink(local)
                else:
                    found.append(os.path.relpath(local, self._root).replace(os.sep, "/"))
        return sorted(filter(is_media, found))

    def hashes(self, local: Sequence[str]) -> list[str]:
        """Return the SHA-256 of local files."""
        found = []
        for path in local:
            with open(path, "rb") as file:
                found.append(hashlib.file_digest(file, "sha256").hexdigest())
        return found

    def add(self, files: Sequence[tuple[str, str]]) -> None:
        """Copy files in; durable under their names when this returns.

        Raises:
            OSError: one cannot be written.
        """
        for local, path in files:
            final = os.path.join(self._root, path)
            directory = os.path.dirname(final)
            LOCAL.make_dirs(directory)
            temporary = os.path.join(directory, names.temporary_name("page"))
            try:
                with open(local, "rb") as source, open(temporary, "xb") as file:
                    shutil.copyfileobj(source, file, _COPY_BYTES)
                    file.flush()
                    os.fsync(file.fileno())
                LOCAL.rename(temporary, final)
            except BaseException:
                with contextlib.suppress(FileNotFoundError):
                    LOCAL.unlink(temporary)
                raise
            LOCAL.sync_dir(directory)

    def delete(self, paths: Sequence[str]) -> None:
        """Delete files, and directories that are empty then; those that are not there count as deleted."""
        for path in paths:
            local = os.path.join(self._root, path)
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                LOCAL.unlink(local)
                # A directory that stayed would be in the way of a file of its name.
                while (local := os.path.dirname(local)) != self._root and not LOCAL.names(local):
                    LOCAL.rmdir(local)
