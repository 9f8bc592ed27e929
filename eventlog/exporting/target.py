"""Where a dataset goes: what an export asks of it, and the one that is a directory on this machine."""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
from collections.abc import Callable, Sequence
from typing import IO, Protocol

from eventlog import names
from eventlog.errors import UsageError
from eventlog.exporting.layout import CARD, INDEX, is_ours
from eventlog.fs import LOCAL


class Target(Protocol):
    """Takes an export: data first, then all that makes it one dataset, in one step.

    Attributes:
        repo: where the whole of it is, as a path or an address.
        path: the directory of this dataset in it, "" for all.
    """

    repo: str
    path: str

    def listing(self) -> dict[str, int]:
        """Return the sizes of the files of this dataset that are there, by name."""

    def index(self) -> bytes | None:
        """Return the index that is there."""

    def card(self) -> bytes | None:
        """Return the card that is there."""

    def add(self, files: Sequence[tuple[str, str]]) -> None:
        """Take files, as (name, local path) pairs; the local ones but blobs may go when this returns."""

    def finish(self, index: bytes, card: bytes, obsolete: Sequence[str], message: str) -> None:
        """Make the dataset what the index says: before it was the old one."""


class Directory:
    """A dataset in a directory. A reader of its index sees the old dataset or the new one, whatever kills an export."""

    def __init__(self, root: str) -> None:
        """Take the directory, which is made when it is missing.

        Raises:
            UsageError: there are other things in it.
        """
        self.root = os.path.abspath(root)
        self.repo = self.root
        self.path = ""
        if os.path.exists(self.root) and not os.path.isdir(self.root):
            raise UsageError(f"{self.root} is no directory")
        there = [entry.name for entry in LOCAL.entries(self.root)]
        if there and INDEX not in there and not set(there) <= {"data", "blobs", CARD}:
            raise UsageError(f"{self.root} holds other things than a dataset: name another directory")

    def listing(self) -> dict[str, int]:
        """Return the sizes of the files that are there."""
        found: dict[str, int] = {}
        for directory, _, files in os.walk(self.root):
            for name in files:
                path = os.path.join(directory, name)
                relative = os.path.relpath(path, self.root).replace(os.sep, "/")
                if is_ours(relative):
                    found[relative] = os.path.getsize(path)
        return found

    def index(self) -> bytes | None:
        """Return the index that is there."""
        return self._read(INDEX)

    def card(self) -> bytes | None:
        """Return the card that is there."""
        return self._read(CARD)

    def _read(self, name: str) -> bytes | None:
        try:
            return LOCAL.read(os.path.join(self.root, name))
        except FileNotFoundError:
            return None

    def add(self, files: Sequence[tuple[str, str]]) -> None:
        """Copy files in; durable under their names when this returns.

        Raises:
            OSError: one cannot be written.
        """
        for path, local in files:
            with open(local, "rb") as source:
                self._put(path, functools.partial(shutil.copyfileobj, source))

    def finish(self, index: bytes, card: bytes, obsolete: Sequence[str], message: str) -> None:
        """Put card and index in place, then remove what the index names no more.

        Raises:
            OSError: a file cannot be written; the old dataset is still whole.
        """
        del message
        self._put(CARD, lambda file: file.write(card))
        self._put(INDEX, lambda file: file.write(index))
        for path in obsolete:
            with contextlib.suppress(FileNotFoundError):
                LOCAL.unlink(os.path.join(self.root, path))

    def _put(self, path: str, write: Callable[[IO[bytes]], object]) -> None:
        final = os.path.join(self.root, path)
        directory = os.path.dirname(final)
        LOCAL.make_dirs(directory)
        temporary = os.path.join(directory, names.temporary_name(os.path.basename(final)))
        try:
            with open(temporary, "xb") as file:
                write(file)
                file.flush()
                os.fsync(file.fileno())
            LOCAL.rename(temporary, final)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                LOCAL.unlink(temporary)
            raise
        LOCAL.sync_dir(directory)
