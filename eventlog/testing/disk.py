"""The simulated disk under `CrashFs`: files and directories that know what was synced, and what a crash leaves."""

from __future__ import annotations

import errno
import os
from collections.abc import Collection
from random import Random
from typing import Final, Literal, NamedTuple, get_args

SECTOR_BYTES: Final = 512

CrashMode = Literal["kept", "lost", "torn", "zeros", "holes", "whole"]
CRASH_MODES: Final[tuple[CrashMode, ...]] = tuple(mode for mode in get_args(CrashMode) if mode != "whole")
"""All but one: with un-synced names kept as well, "whole" is what a kill leaves."""


class File:
    """The bytes of one inode, as programs see them and as the disk has them.

    Attributes:
        data: what a read returns.
        durable: what the disk holds since the last sync.
        clean_bytes: how long the start of `data` is that the disk holds unchanged.
        doubtful: (start, end) ranges that a failed sync gave up on; later syncs do not write them.
        mtime_ns: of the last write.
        locked_by: the descriptor that holds the lock, or None.
    """

    def __init__(self, mtime_ns: int) -> None:
        """Start empty and un-synced."""
        self.data: bytes | bytearray = bytearray()
        self.durable = b""
        self.clean_bytes = 0
        self.doubtful: list[tuple[int, int]] = []
        self.mtime_ns = mtime_ns
        self.locked_by: int | None = None

    @property
    def is_clean(self) -> bool:
        """Whether the disk holds what programs see."""
        return not self.doubtful and self.clean_bytes == len(self.data) == len(self.durable)

    def append(self, data: bytes, now_ns: int) -> None:
        """Add bytes at the end, as a descriptor in append mode does."""
        self._own().extend(data)
        self.mtime_ns = now_ns

    def truncate(self, size: int, now_ns: int) -> None:
        """Cut to `size` bytes, or fill up with zeros to it."""
        own = self._own()
        del own[size:]
        own.extend(bytes(size - len(own)))
        self.clean_bytes = min(self.clean_bytes, size)
        self.doubtful = [(start, min(end, size)) for start, end in self.doubtful if start < size]
        self.mtime_ns = now_ns

    def _own(self) -> bytearray:
        """Return the bytes to change: a file that a crash left shares them with the disk before it."""
        if not isinstance(self.data, bytearray):
            self.data = bytearray(self.data)
        return self.data

    def sync(self) -> None:
        """Make the bytes durable, except those that a failed sync gave up on."""
        if self.is_clean:
            return
        written = bytearray(self.data)
        for start, end in self.doubtful:
            written[start:end] = bytes(end - start)
        self.durable = bytes(written)
        self.clean_bytes = len(written)

    def fail_sync(self) -> None:
        """Do as a kernel after a failed write-back: take the lost pages for clean, so that no later sync helps."""
        if self.clean_bytes < len(self.data):
            self.doubtful.append((self.clean_bytes, len(self.data)))

    def surviving(self, mode: CrashMode, random: Random) -> bytes:
        """Return the bytes that a power loss leaves."""
        if mode == "lost" or self.is_clean:
            return self.durable
        clean, size = self.clean_bytes, len(self.data)
        start = self.durable[:clean]
        if mode == "zeros":
            return start + bytes(size - clean)
        if mode == "whole":
            return start + bytes(self.data[clean:])
        if mode == "torn":
            cuts = range(-(-clean // SECTOR_BYTES) * SECTOR_BYTES, size, SECTOR_BYTES)
            end = random.choice(cuts) if cuts else clean
            return start + bytes(self.data[clean:end])
        rest = bytearray(self.data[clean:])
        for at in range(0, len(rest), SECTOR_BYTES):
            if random.random() < 0.5:
                rest[at : at + SECTOR_BYTES] = bytes(len(rest[at : at + SECTOR_BYTES]))
        return start + bytes(rest)


class Directory:
    """The names in one directory, as programs see them and as the disk has them."""

    def __init__(self, mtime_ns: int) -> None:
        """Start empty."""
        self.names: dict[str, Node] = {}
        self.durable: dict[str, Node] = {}
        self.mtime_ns = mtime_ns
        self.locked_by: int | None = None


Node = File | Directory


class Step(NamedTuple):
    """One name of one directory that now stands for a node, or for nothing."""

    directory: Directory
    name: str
    node: Node | None


NameChange = tuple[Step, ...]
"""Steps that happen together: a rename is two."""


class Disk:
    """A tree of directories with the changes of names that no sync of their directory has confirmed. Not thread-safe.

    A rename between two directories is durable when either of them was synced.
    """

    def __init__(self) -> None:
        """Start with an empty root."""
        self.root = Directory(0)
        self.pending: list[NameChange] = []

    def find(self, path: str) -> Node | None:
        """Return what stands at an absolute path, or None.

        Raises:
            NotADirectoryError: the path leads through a file.
        """
        node: Node = self.root
        for part in path.split("/"):
            if not part:
                continue
            if not isinstance(node, Directory):
                raise refusal(errno.ENOTDIR, path)
            if part not in node.names:
                return None
            node = node.names[part]
        return node

    def node(self, path: str) -> Node:
        """Return what stands at a path; FileNotFoundError when nothing does."""
        found = self.find(path)
        if found is None:
            raise refusal(errno.ENOENT, path)
        return found

    def file(self, path: str) -> File:
        """Return a file; IsADirectoryError when it is none."""
        found = self.node(path)
        if isinstance(found, Directory):
            raise refusal(errno.EISDIR, path)
        return found

    def directory(self, path: str) -> Directory:
        """Return a directory; NotADirectoryError when it is none."""
        found = self.node(path)
        if isinstance(found, File):
            raise refusal(errno.ENOTDIR, path)
        return found

    def parent(self, path: str) -> tuple[Directory, str]:
        """Return the directory that a path is in, and its name there."""
        directory, name = os.path.split(path)
        return self.directory(directory), name

    def change(self, *steps: Step) -> None:
        """Change names, visibly at once and durably later."""
        _apply(steps, {id(step.directory): step.directory.names for step in steps})
        for step in steps:
            step.directory.mtime_ns += 1
        self.pending.append(steps)

    def sync_names(self, directory: Directory) -> None:
        """Make the changes of a directory's names durable, with all that they were made together with."""
        together = {id(directory)}
        grown = True
        while grown:
            before = len(together)
            for change in self.pending:
                touched = {id(step.directory) for step in change}
                if touched & together:
                    together |= touched
            grown = len(together) > before
        for change in self.pending:
            if id(change[0].directory) in together:
                _apply(change, {id(step.directory): step.directory.durable for step in change})
        self.pending = [change for change in self.pending if id(change[0].directory) not in together]

    def has_unsynced_bytes(self) -> bool:
        """Say whether any file holds bytes that the disk does not."""
        below: list[Node] = [self.root]
        while below:
            node = below.pop()
            if isinstance(node, Directory):
                below += node.names.values()
                below += (child for name, child in node.durable.items() if node.names.get(name) is not child)
            elif not node.is_clean:
                return True
        return False

    def state(self) -> dict[str, bytes | None]:
        """Return the bytes of every file by its path, and None for every directory."""
        found: dict[str, bytes | None] = {}
        below: list[tuple[str, Node]] = [("", self.root)]
        while below:
            path, node = below.pop()
            if isinstance(node, File):
                found[path] = node.durable if node.is_clean else bytes(node.data)
            else:
                found[path or "/"] = None
                below += [(f"{path}/{name}", child) for name, child in node.names.items()]
        return found

    def after_kill(self) -> Disk:
        """Return the disk as it is when only the processes died: nothing is lost, and nothing more is durable."""
        copies = _Copies()
        other = Disk()
        other.root = copies.directory(self.root)
        other.pending = [
            tuple(Step(copies.directory(s.directory), s.name, s.node and copies.node(s.node)) for s in change)
            for change in self.pending
        ]
        return other

    def after_power_loss(self, mode: CrashMode, seed: int | None, kept_names: Collection[int] | None = None) -> Disk:
        """Return the disk that a power loss leaves.

        Args:
            mode: what happens to bytes that were not synced; names that were not synced go with "lost" and
                stay otherwise.
            seed: keep some of the un-synced changes of names instead, chosen by this number.
            kept_names: keep exactly these of them instead, by their place in `pending`.
        """
        random = Random(seed or 0)  # noqa: S311 - a repeatable choice, no secret
        names: dict[int, dict[str, Node]] = {}
        for place, change in enumerate(self.pending):
            kept = mode != "lost" if seed is None else random.random() < 0.5
            kept = kept if kept_names is None else place in kept_names
            for step in change:
                names.setdefault(id(step.directory), dict(step.directory.durable))
            if kept:
                _apply(change, names)
        other = Disk()
        other.root = _Survivors(names, mode, random).directory(self.root)
        return other


def _apply(change: NameChange, names: dict[int, dict[str, Node]]) -> None:
    for step in change:
        if step.node is None:
            names[id(step.directory)].pop(step.name, None)
        else:
            names[id(step.directory)][step.name] = step.node


def refusal(code: int, path: str) -> OSError:
    """Return the error that the operating system would raise."""
    return OSError(code, os.strerror(code), path)


class _Copies:
    """Copies of nodes, one each, so that two names of one inode stay so."""

    def __init__(self) -> None:
        self._made: dict[int, Node] = {}

    def node(self, node: Node) -> Node:
        return self.directory(node) if isinstance(node, Directory) else self.file(node)

    def file(self, file: File) -> File:
        found = self._made.get(id(file))
        if isinstance(found, File):
            return found
        copy = File(file.mtime_ns)
        copy.data = file.durable if file.is_clean else bytearray(file.data)
        copy.durable = file.durable
        copy.clean_bytes, copy.doubtful = file.clean_bytes, list(file.doubtful)
        self._made[id(file)] = copy
        return copy

    def directory(self, directory: Directory) -> Directory:
        found = self._made.get(id(directory))
        if isinstance(found, Directory):
            return found
        copy = Directory(directory.mtime_ns)
        self._made[id(directory)] = copy
        copy.names = {name: self.node(node) for name, node in directory.names.items()}
        copy.durable = {name: self.node(node) for name, node in directory.durable.items()}
        return copy


class _Survivors:
    """Copies of what a power loss leaves, all of it durable."""

    def __init__(self, names: dict[int, dict[str, Node]], mode: CrashMode, random: Random) -> None:
        self._names = names
        self._mode = mode
        self._random = random
        self._files: dict[int, File] = {}

    def directory(self, directory: Directory) -> Directory:
        copy = Directory(directory.mtime_ns)
        for name, node in self._names.get(id(directory), directory.durable).items():
            copy.names[name] = self.directory(node) if isinstance(node, Directory) else self._file(node)
        copy.durable = dict(copy.names)
        return copy

    def _file(self, file: File) -> File:
        found = self._files.get(id(file))
        if found is None:
            found = self._files[id(file)] = File(file.mtime_ns)
            found.data = found.durable = file.surviving(self._mode, self._random)
            found.clean_bytes = len(found.durable)
        return found
