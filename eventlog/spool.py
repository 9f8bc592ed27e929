"""The spool: a local store that stands in for one on a network mount, and copies what is sealed over to it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final, NamedTuple

from eventlog import names
from eventlog.aside import warn_aside
from eventlog.fs import LOCAL, rename_staged, staged, write_all
from eventlog.outgoing import Shipped, by_directory, outgoing

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from eventlog.fs import Fs
    from eventlog.outgoing import File
    from eventlog.run import Run

_CHUNK_BYTES: Final = 1 << 20
_COMPARED_BYTES: Final = 64 * 1024


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
                warn_aside(text, 2)
        except OSError as error:
            text = f"could not copy to {self.store}: {error}. `eventlog ship {self.directory} {self.store}` tries again"
            warn_aside(text, 2)


def ship(source: str, target: str, *, fs: Fs = LOCAL, projects: Collection[str] | None = None) -> Shipped:
    """Copy blobs and sealed segments from one store to another; durable there when this returns.

    Blobs are durable before the first segment is copied, and each file has its final name only when it is whole.
    Safe to repeat and to interrupt: what is there whole is left alone; a segment that is there with other records is
    a conflict, and stays as it is. Segments of dead writers, which nobody seals, are copied under their open names
    once no process holds them. With `projects`, the segments of these only; blobs belong to no project.

    Raises:
        OSError: as the file systems raise it; what was copied stays.
    """
    found = outgoing(fs, source, projects)
    shipped = Shipped(left_open=found.left_open)
    for files in (found.blobs, [item.file for item in found.segments]):
        for directory, inside in by_directory(files):
            destination = os.path.join(target, directory)
            # Where collect looks for what a killed process left.
            staging = names.blobs_dir(target) if files is found.blobs else destination
            fs.make_dirs(destination)
            there = {entry.name: entry.size_bytes for entry in fs.entries(destination)}
            for file in inside:
                shipped = shipped.plus(_ship_file(fs, source, file, destination, staging, there))
            # Also when all was present: a shipment that was killed may have left it un-synced.
            fs.sync_dir(destination)
    return shipped


def _ship_file(fs: Fs, source: str, file: File, destination: str, staging: str, there: Mapping[str, int]) -> Shipped:
    name = os.path.basename(file.path)
    path, final = os.path.join(source, file.path), os.path.join(destination, name)
    try:
        size = fs.size(path)
        if names.parse_segment_name(name) and not _agree(fs, path, final, min(size, there.get(name, 0))):
            return Shipped(conflicts=(final,))
        if there.get(name, -1) >= size:
            return Shipped(present=1)
        _copy(fs, path, staging, final)
    except FileNotFoundError:
        return Shipped(left_open=1)  # it got its other name, or was collected, since it was listed
    return Shipped(copied=1, copied_bytes=size)


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
