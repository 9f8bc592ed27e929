"""The spool: a local store that stands in for one on a network mount, and copies what is sealed over to it."""

from __future__ import annotations

import os
import warnings
from typing import TYPE_CHECKING, Final, NamedTuple

from eventlog import names
from eventlog.errors import EventLogWarning
from eventlog.fs import LOCAL, rename_staged, staged, write_all

if TYPE_CHECKING:
    from eventlog.fs import Entry, Fs
    from eventlog.run import Run

_CHUNK_BYTES: Final = 1 << 20
_COMPARED_BYTES: Final = 64 * 1024


class Shipped(NamedTuple):
    """What a shipment did.

    Attributes:
        copied: files.
        present: files that were there already.
        left_open: segments that their writers hold.
        conflicts: paths of segments that are there with other records, and were not replaced.
    """

    copied: int
    present: int
    left_open: int
    conflicts: tuple[str, ...] = ()


class Spool(NamedTuple):
    """A local directory, itself a store, and the store it stands in for."""

    directory: str
    store: str

    @classmethod
    def for_store(cls, store: str, spool_dir: str | None) -> Spool:
        """Return the spool of a store: the same directory in every process of this user."""
        import hashlib

        base = spool_dir or os.path.join(
            os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache"), "eventlog", "spool"
        )
        label = hashlib.sha256(os.path.abspath(store).encode("utf-8", "surrogateescape")).hexdigest()[:16]
        return cls(os.path.join(base, label), store)

    def follow(self, run: Run) -> None:
        """Copy each segment of a run over as soon as it is sealed; failures are warned about, never raised."""
        run.on_sealed(self._ship_quietly)

    def _ship_quietly(self, sealed: str) -> None:
        del sealed
        try:
            shipped = ship(self.directory, self.store)
            if shipped.conflicts:
                text = (
                    f"{shipped.conflicts[0]} holds other records than the spool {self.directory}: it was not replaced"
                )
                warnings.warn(text, EventLogWarning, stacklevel=2)
        except OSError as error:
            text = f"could not copy to {self.store}: {error}. `eventlog ship {self.directory} {self.store}` tries again"
            warnings.warn(text, EventLogWarning, stacklevel=2)


def ship(source: str, target: str, *, fs: Fs = LOCAL) -> Shipped:
    """Copy blobs and sealed segments from one store to another; durable there when this returns.

    Blobs are durable before the first segment is copied, and each file has its final name only when it is whole.
    Safe to repeat and to interrupt: what is there whole is left alone; a segment that is there with other records is
    a conflict, and stays as it is. Segments of dead writers, which nobody seals, are copied under their open names
    once no process holds them.

    Raises:
        OSError: as the file systems raise it; what was copied stays.
    """
    shipped = Shipped(0, 0, 0)
    for part in (names.BLOBS, names.SEGMENTS):
        for directory in _directories(fs, os.path.join(source, part)):
            found = [entry.name for entry in fs.entries(directory) if _is_shipped(entry)]
            if found:
                destination = os.path.join(target, os.path.relpath(directory, source))
                # Where collect looks for what a killed process left.
                staging = names.blobs_dir(target) if part == names.BLOBS else destination
                shipped = _ship_directory(fs, directory, found, destination, staging, shipped)
    return shipped


def _is_shipped(entry: Entry) -> bool:
    return not entry.is_dir and not names.is_temporary(entry.name)


def _ship_directory(
    fs: Fs, directory: str, found: list[str], destination: str, staging: str, so_far: Shipped
) -> Shipped:
    copied, present, left_open, unequal = so_far
    fs.make_dirs(destination)
    there = {entry.name: entry.size_bytes for entry in fs.entries(destination)}
    for name in found:
        path, final = os.path.join(directory, name), os.path.join(destination, name)
        try:
            if name.endswith(".open") and fs.is_locked(path):
                left_open += 1
                continue
            size = fs.size(path)
            if names.parse_segment_name(name) and not _agree(fs, path, final, min(size, there.get(name, 0))):
                unequal = (*unequal, final)
            elif there.get(name, -1) >= size:
                present += 1
            else:
                _copy(fs, path, staging, final)
                copied += 1
        except FileNotFoundError:
            # Sealed since it was listed: it is there under its other name, for the next shipment.
            left_open += 1
    # Also when all was present: a shipment that was killed may have left it un-synced.
    fs.sync_dir(destination)
    return Shipped(copied, present, left_open, unequal)


def _agree(fs: Fs, one: str, other: str, size: int) -> bool:
    """Say whether two files agree in their first `size` bytes: where a writer was copied, the last of them differ."""
    start = max(size - _COMPARED_BYTES, 0)
    return not size or fs.read(one, start, size - start) == fs.read(other, start, size - start)


def _copy(fs: Fs, path: str, staging: str, final: str) -> None:
    read = fs.open(path)
    try:
        with staged(fs, staging, os.path.basename(final)) as (temporary, fd):
            offset = 0
            while data := fs.pread(read, _CHUNK_BYTES, offset):
                write_all(fs, fd, data)
                offset += len(data)
        rename_staged(fs, temporary, final)
    finally:
        fs.close(read)


def _directories(fs: Fs, directory: str) -> list[str]:
    """Return a directory and all below it, in order."""
    below = [path for name in fs.subdirs(directory) for path in _directories(fs, os.path.join(directory, name))]
    return [directory, *below]
