"""The spool: a local store that stands in for one on a network mount, and copies what is sealed over to it."""

from __future__ import annotations

import os
import warnings
from typing import TYPE_CHECKING, NamedTuple

from eventlog import names
from eventlog.errors import EventLogWarning
from eventlog.fs import LOCAL

if TYPE_CHECKING:
    from eventlog.run import Run


class Shipped(NamedTuple):
    """What a shipment did: files copied, files that were there already, segments still open."""

    copied: int
    present: int
    left_open: int


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
            ship(self.directory, self.store)
        except OSError as error:
            text = f"could not copy to {self.store}: {error}. `eventlog ship {self.directory} {self.store}` tries again"
            warnings.warn(text, EventLogWarning, stacklevel=2)


def ship(source: str, target: str) -> Shipped:
    """Copy blobs and sealed segments from one store to another: blobs first, each whole file under its final name last.

    Safe to repeat and to interrupt: files already there with the same size are left alone. Segments of dead
    writers, which nobody seals, are copied under their open names once no process holds them.

    Raises:
        OSError: as the file systems raise it; what was copied stays.
    """
    copied = present = left_open = 0
    for path in [*_files(os.path.join(source, names.BLOBS)), *_files(names.segments_dir(source))]:
        name = os.path.basename(path)
        if names.is_temporary(name):
            continue
        destination = os.path.join(target, os.path.relpath(path, source))
        try:
            if name.endswith(".open") and LOCAL.is_locked(path):
                left_open += 1
            elif os.path.exists(destination) and os.path.getsize(destination) == os.path.getsize(path):
                present += 1
            else:
                _copy(path, destination)
                copied += 1
        except FileNotFoundError:
            # Sealed since it was listed: it is there under its other name, for the next shipment.
            left_open += 1
    return Shipped(copied, present, left_open)


def _copy(path: str, destination: str) -> None:
    import shutil

    os.makedirs(os.path.dirname(destination), exist_ok=True)
    temporary = os.path.join(os.path.dirname(destination), names.temporary_name(os.path.basename(path)))
    with open(path, "rb") as read, open(temporary, "xb") as write:
        shutil.copyfileobj(read, write, 1 << 20)
        write.flush()
        os.fsync(write.fileno())
    os.replace(temporary, destination)


def _files(directory: str) -> list[str]:
    return sorted(os.path.join(base, name) for base, _, found in os.walk(directory) for name in found)
