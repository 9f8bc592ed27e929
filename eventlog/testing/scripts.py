"""Scripts: what one writer does, as data, so that a test can play it, stop it anywhere, and know what was promised."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from eventlog import schema, values
from eventlog.blobs import BlobStore
from eventlog.config import WriterConfig
from eventlog.errors import DurabilityUnknownError, StorageError
from eventlog.fs import Fs
from eventlog.writer import Writer

QUIET: Final = WriterConfig(sync_interval_s=None, segment_bytes=4096)
"""No thread, and a roll every 4 KiB."""


class Log(NamedTuple):
    """One `log()` call."""

    data: dict[str, Any]
    step: int | None = None


class System(NamedTuple):
    """One sample of system metrics."""

    numbers: dict[str, float]


class Append(NamedTuple):
    """One record of another kind."""

    record: schema.Record


class Roll(NamedTuple):
    """Seal the segment and sync."""


class Sync(NamedTuple):
    """Sync."""


Action = Log | System | Append | Roll | Sync


class Script(NamedTuple):
    """What one writer does.

    Attributes:
        run_id: that it logs to.
        rank: of its process.
        actions: in order.
        closes: whether it closes in the end, or just stops, as a killed process does.
    """

    run_id: str
    rank: int | None
    actions: tuple[Action, ...]
    closes: bool = True


class Progress:
    """How far a script got: what the writer has promised.

    Attributes:
        writer_id: of the writer, "" before it was made.
        returned_seq: every record up to it was appended by a call that has returned.
        synced_seq: every record up to it was covered by a sync that has returned.
        doubtful: syncs that said durability is unknown.
    """

    def __init__(self) -> None:
        """Start with no promise."""
        self.writer_id = ""
        self.returned_seq = 0
        self.synced_seq = 0
        self.doubtful = 0


def play(
    script: Script,
    fs: Fs,
    root: str,
    project: str,
    *,
    progress: Progress | None = None,
    config: WriterConfig = QUIET,
    time_ns: Callable[[], int] = time.time_ns,
) -> Progress:
    """Do what a script says with a new writer, and note in `progress` what was promised.

    Raises:
        Stopped: from a `CrashFs`; `progress` says how far it got.
    """
    progress = progress or Progress()
    writer = Writer(root, project, config=config, fs=fs, time_ns=time_ns)
    progress.writer_id = writer.writer_id
    for action in script.actions:
        _act(action, script, writer, BlobStore(root, fs), progress)
    if script.closes:
        _noting_sync(writer, writer.close, progress)
    return progress


def _act(action: Action, script: Script, writer: Writer, blobs: BlobStore, progress: Progress) -> None:
    if isinstance(action, Roll):
        _noting_sync(writer, writer.roll, progress)
        return
    if isinstance(action, Sync):
        _noting_sync(writer, writer.sync, progress)
        return
    if isinstance(action, Log):
        found = values.sort_out(action.data, blobs, writer.config.inline_bytes)
        shape = writer.shape(script.run_id, script.rank, tuple(found.numbers))
        kept = writer.log(shape, action.step, shape.pack(*found.numbers.values()), found.others or None)
    elif isinstance(action, System):
        shape = writer.shape(script.run_id, script.rank, tuple(action.numbers))
        kept = writer.system(shape, shape.pack(*action.numbers.values()))
    else:
        kept = writer.append(action.record)
    if kept:
        progress.returned_seq = writer.next_seq - 1


def _noting_sync(writer: Writer, sync: Callable[[], None], progress: Progress) -> None:
    reached = writer.next_seq - 1
    try:
        sync()
    except (DurabilityUnknownError, StorageError):
        progress.doubtful += 1
    else:
        progress.synced_seq = reached
