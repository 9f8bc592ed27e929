"""Quarantine: set a copy of damaged bytes aside, with the reason beside it. Nothing damaged is ever deleted by this."""

from __future__ import annotations

import os

import msgspec

from eventlog import fs as seam
from eventlog import names
from eventlog.fs import Fs
from eventlog.manifest import Quarantined
from eventlog.tail import Damaged


def set_aside(fs: Fs, root: str, project: str, damages: list[Damaged]) -> list[Quarantined]:
    """Copy damaged byte ranges to the quarantine; durable and idempotent.

    Raises:
        OSError: as the file system raises it.
    """
    done: list[Quarantined] = []
    directory = names.quarantine_dir(root, project)
    if damages:
        fs.make_dirs(directory)
    for damage in damages:
        name = names.quarantine_name(damage.writer_id, damage.segno, damage.offset, damage.offset + damage.size_bytes)
        item = Quarantined(
            name=name,
            source=os.path.relpath(damage.path, root),
            offset=damage.offset,
            size_bytes=damage.size_bytes,
            reason=damage.reason,
        )
        present = set(fs.names(directory))
        if present & {name + ".bin", name + ".json"}:
            # Whoever put it there may have been killed before the name was synced.
            fs.sync_dir(directory)
        if name + ".bin" not in present:
            seam.put_if_absent(fs, directory, name + ".bin", _damaged_bytes(fs, damage))
        if name + ".json" not in present:
            seam.put_if_absent(fs, directory, name + ".json", msgspec.json.format(msgspec.json.encode(item)))
        done.append(item)
    return done


def _damaged_bytes(fs: Fs, damage: Damaged) -> bytes:
    try:
        return fs.read(damage.path, damage.offset, damage.size_bytes)
    except FileNotFoundError:
        sealed = names.segment_name(damage.segno, sealed=True)
        return fs.read(os.path.join(os.path.dirname(damage.path), sealed), damage.offset, damage.size_bytes)
