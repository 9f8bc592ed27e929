"""Stores that go into a bucket and come out of it, and what must hold of both."""

from __future__ import annotations

import os
import random
from pathlib import Path

import eventlog
from compactor.config import CompactorConfig
from compactor.hub.plan import Limits
from compactor.hub.publish import BucketPublisher
from compactor.hub.sync import Sync, SyncConfig
from compactor.work import take_turn
from eventlog import names, verify
from eventlog.errors import ConflictError, DataError, StorageError
from eventlog.fs import LOCAL, Fs
from eventlog.hub import inbox
from eventlog.hub.address import BucketAddress
from eventlog.hub.bucket import Bucket
from eventlog.testing import contents

# HUB_FAULTS=all tries every fault at every request, and a kill at every step; else each request meets one of them.
ALL = os.environ.get("HUB_FAULTS") == "all"
# What may end a publish or a restore that is cut short; anything else is a fault of ours.
KNOWN = (StorageError, ConflictError, DataError)
NUMBERS = random.Random(5)
QUIET = eventlog.WriterConfig(sync_interval_s=None, segment_bytes=4096)
CONFIG = CompactorConfig(grace_s=0, fanout=2)


def log(root: object, name: str, steps: int = 200, project: str = "p", *, first: int = 0) -> str:
    """Log a run with numbers and a file, and return its writer_id."""
    with eventlog.init(project=project, name=name, dir=root, settings=QUIET, resume="allow") as run:
        for step in range(first, first + steps):
            run.log({"x": NUMBERS.random(), "y": float(len(name))}, step=step)
        run.log({"data": eventlog.File(name.encode() * 50, name="f.bin")})
        return run.writer_id


def fold(root: object, project: str = "p", fs: Fs = LOCAL, config: CompactorConfig = CONFIG) -> int:
    """Fold all that is new, and return the version."""
    return take_turn(fs, str(root), project, config).version


def client(hub: object, bucket: str, prefix: str = "") -> Bucket:
    return Bucket(BucketAddress(bucket, prefix), api=hub.api())


def publisher(hub: object, bucket: str, root: object, *, grace_s: float = 86_400.0) -> BucketPublisher:
    return BucketPublisher(LOCAL, str(root), client(hub, bucket), Limits(wave_files=3, grace_ns=int(grace_s * 1e9)))


def syncing(hub: object, bucket: str, root: object) -> Sync:
    return Sync(str(root), client(hub, bucket), SyncConfig(interval_s=0.05))


def rows(root: object, project: str = "p") -> list[contents.Row]:
    """Return all that a reader finds, in order."""
    return contents.of_store(LOCAL, str(root), project)


def is_clean(root: object, project: str = "p") -> None:
    report = verify.verify(str(root), project, blobs=True)
    assert report.ok, report


def files(root: object) -> dict[str, bytes]:
    """Return the files that a bucket has copies of."""
    found: dict[str, bytes] = {}
    for base, _, inside in os.walk(root):
        for name in inside:
            path = Path(base, name)
            relative = str(path.relative_to(root))
            if relative.split("/", maxsplit=1)[0] in {"snapshots", "segments", "blobs", "quarantine"}:
                found[relative] = path.read_bytes()
    return found


def check_whole(hub: object, bucket: str, project: str = "p") -> int:
    """Look at what a reader of the bucket needs now: all that the newest manifest names; return its version."""
    found = client(hub, bucket)
    there = {file.path: file for file in found.files("")}
    newest = inbox.newest(found, project)
    if newest is None:
        return 0
    base = names.snapshot_dir("", project)
    for file in newest.manifest.files:
        assert there[f"{base}/{file.path}"].size_bytes == file.size_bytes, (newest.manifest.version, file.path)
    return newest.manifest.version
