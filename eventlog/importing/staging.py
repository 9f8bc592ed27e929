"""Bring records into a store in one step: a writer's segments grow beside the others, whole, and then one rename.

Whatever kills an import leaves the store as it was, and garbage that the next import removes; after the rename all is
there, and synced.
"""

from __future__ import annotations

import contextlib
import os
from types import TracebackType
from typing import Any, Final, Self

import msgspec

from eventlog import mounts, names, schema
from eventlog.config import WriterConfig
from eventlog.errors import ConflictError, DurabilityUnknownError, StorageError
from eventlog.fs import LOCAL, Fs
from eventlog.shapes import ShapeKey
from eventlog.writer import Writer

_BATCH_RECORDS: Final = 1024
_BATCH_BYTES: Final = 4 << 20
_NEVER_S: Final = 1e9
_CONFIG: Final = WriterConfig(sync_interval_s=None, on_error="raise", roll_interval_s=_NEVER_S)


class Staging:
    """The one import that is at work on a store; a context manager. Not thread-safe."""

    def __init__(self, root: str, *, fs: Fs = LOCAL) -> None:
        """Take the store's directory, which is made when it is missing.

        Raises:
            StorageError: it is on a mount on which renaming is not reliable.
            OSError: it cannot be made.
        """
        self.root = os.path.abspath(root)
        self._fs = fs
        mount = mounts.unsuitable_mount(self.root)
        if mount is not None:
            raise StorageError(
                95,
                f"{self.root} is on a {mount} mount, where rename and fsync are not reliable: import into a local one",
            )
        self._directory = names.imports_dir(self.root)
        self._fd = -1

    def __enter__(self) -> Self:
        """Take the lock, and remove what an import that was killed has left.

        Raises:
            ConflictError: another import is at work.
            OSError: as the file system raises it.
        """
        self._fs.make_dirs(self._directory, durable=False)
        self._fd = self._fs.open(self._directory)
        if not self._fs.lock(self._fd):
            self._fs.close(self._fd)
            raise ConflictError(f"another import into {self.root} is at work: try again when it has ended")
        self._clean()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Remove what was not brought in, and let the lock go."""
        self._clean()
        self._fs.close(self._fd)

    def _clean(self) -> None:
        for name in self._fs.names(self._directory):
            _remove_tree(self._fs, os.path.join(self._directory, name))

    def begin(self, project: str) -> Staged:
        """Return what takes the records of one project.

        Raises:
            UsageError: the project's name cannot be a directory.
        """
        return Staged(self._fs, self.root, os.path.join(self._directory, names.new_id()), project)


class Staged:
    """Takes records of one project, with the times that they have, and brings all of them in, or none."""

    def __init__(self, fs: Fs, root: str, directory: str, project: str) -> None:
        """Take the store, a directory beside its segments, and the project."""
        self._fs = fs
        self._root = root
        self._directory = directory
        self._writer = Writer(directory, project, config=_CONFIG, fs=fs)
        self._pending: list[schema.Record | msgspec.Raw] = []
        self._pending_bytes = 0
        self.project = project
        self.records = 0

    def shape(self, run_id: str, rank: int | None, metric_names: tuple[str, ...]) -> ShapeKey:
        """Return the shape of these names for a run."""
        return self._writer.shape(run_id, rank, metric_names)

    def add(self, record: schema.Record | msgspec.Raw, size_bytes: int = 64) -> None:
        """Take a record; `size_bytes` is about how large it is.

        Raises:
            StorageError: it cannot be kept.
            UsageError: it is larger than a record can be.
        """
        self._pending.append(record)
        self._pending_bytes += size_bytes
        if len(self._pending) >= _BATCH_RECORDS or self._pending_bytes >= _BATCH_BYTES:
            self._flush()

    def log(
        self, shape: ShapeKey, time_ns: int, step: int | None, values: bytes, others: dict[str, Any] | None
    ) -> None:
        """Take one `log()`.

        Raises:
            StorageError: it cannot be kept.
            UsageError: it is larger than a record can be.
        """
        size_bytes = len(values) + (len(schema.encode(others)) if others else 0)
        self.add(schema.Log(time_ns, step, shape.number, values, others), size_bytes)

    def _flush(self) -> None:
        self._writer.append_all(self._pending)
        self.records += len(self._pending)
        self._pending, self._pending_bytes = [], 0

    def bring_in(self) -> None:
        """Seal and sync, then rename: when this returns all records are in the store for good.

        Raises:
            StorageError: they cannot be kept; the store is as it was.
            DurabilityUnknownError: the disk refused to sync; the store is as it was.
            OSError: the rename failed, or it was done and could not be synced.
        """
        self._flush()
        self._writer.close()
        source = names.writer_dir(self._directory, self.project, self._writer.writer_id)
        target = names.writer_dir(self._root, self.project, self._writer.writer_id)
        self._fs.make_dirs(os.path.dirname(target))
        self._fs.rename(source, target)
        self._fs.sync_dir(os.path.dirname(target))

    def close(self) -> None:
        """Close the writer's files; what was not brought in is lost, so it need not be durable."""
        with contextlib.suppress(DurabilityUnknownError):
            self._writer.close()


def _remove_tree(fs: Fs, path: str) -> None:
    for entry in fs.entries(path):
        inside = os.path.join(path, entry.name)
        if entry.is_dir:
            _remove_tree(fs, inside)
        else:
            fs.unlink(inside)
    fs.rmdir(path)
