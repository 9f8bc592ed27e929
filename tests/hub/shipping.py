"""What tests of shipping share: stores with a few runs, and what a bucket holds."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from localhub.process import LocalHub

import eventlog
from eventlog.config import WriterConfig
from eventlog.hub.address import BucketAddress
from eventlog.hub.bucket import Bucket, Remote, hash_of
from eventlog.identity import RunInfo
from eventlog.run import Run

QUIET = WriterConfig(sync_interval_s=None)
_INBOX = ("blobs", "segments")


def opened(hub: LocalHub, bucket: str, prefix: str = "", **client: object) -> Bucket:
    return Bucket(BucketAddress(bucket, prefix), api=hub.api(**client))


def begin(root: Path, name: str = "r", project: str = "p") -> Run:
    return Run(str(root), RunInfo(project=project, run_id=name, name=name), config=QUIET)


def make_store(root: Path, *, name: str = "r", segments: int = 2) -> Path:
    """Make a store with one run in so many sealed segments, and a blob for each."""
    run = begin(root, name)
    for number in range(segments):
        run.log({"loss": number / 2, "file": eventlog.File(f"{name} {number}".encode() * 20)}, step=number)
        if number + 1 < segments:
            run._writer.roll()
    run.finish()
    return root


def die(run: Run) -> Path:
    """Let a run's writer end as by kill -9; return its open segment."""
    eventlog.run._open_runs.discard(run)
    segment = run._writer._segment
    segment.close()
    return Path(segment.path)


def inbox_of(root: Path) -> dict[str, tuple[int, str]]:
    """Return size and hash of each blob and segment of a store, by path."""
    paths = [os.path.join(base, name) for part in _INBOX for base, _, files in os.walk(root / part) for name in files]
    facts = zip(paths, hash_of(paths), strict=True)
    return {os.path.relpath(path, root): (os.stat(path).st_size, digest) for path, digest in facts}


def held(bucket: Bucket) -> dict[str, tuple[int, str]]:
    """Return the same of a bucket."""
    return {file.path: _facts(file) for part in _INBOX for file in bucket.files(part)}


def _facts(file: Remote) -> tuple[int, str]:
    return file.size_bytes, file.xet_hash


def blobs_are_with(bucket: Bucket, wanted: Iterable[str]) -> bool:
    """Tell whether a bucket that has any of these segments has all of these blobs."""
    there = set(held(bucket))
    blobs = {path for path in wanted if path.startswith("blobs/")}
    return blobs <= there or not (set(wanted) - blobs) & there
