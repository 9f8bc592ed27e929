"""Publish a project to a bucket: carry out the plan, step by step, as the only publisher that the bucket has."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Final

import msgspec

from compactor.hub import lineage, state
from compactor.hub.claim import claim
from compactor.hub.lineage import Next
from compactor.hub.plan import (
    Delete,
    File,
    Limits,
    Offer,
    Publish,
    Step,
    Upload,
    Verify,
    offer,
    plan_publish,
    unequal_segments,
)
from compactor.hub.pull import local_blobs, pull
from compactor.hub.restore import restore
from compactor.survey import survey
from eventlog import manifest as manifests
from eventlog import names
from eventlog.errors import ConflictError, DataError, StorageError
from eventlog.fs import Fs
from eventlog.hub import inbox
from eventlog.hub.bucket import Bucket, Remote, hash_of
from eventlog.manifest import Manifest, Publisher

_TRIES: Final = 5


class Published(msgspec.Struct, frozen=True, kw_only=True):
    """What a publish did in a project.

    Attributes:
        project: its name.
        version: of the snapshot that the bucket shows now.
        epoch: in which this store publishes.
        uploaded: files that went up.
        uploaded_bytes: their size.
        deleted: files of the bucket that nobody needs any more.
        pulled: segments that hosts had put into the bucket and that were brought here.
        conflicts: segments that the bucket has with other records: a writer was copied, and neither was replaced.
        seconds: how long it took.
    """

    project: str
    version: int
    epoch: int
    uploaded: int
    uploaded_bytes: int
    deleted: int
    pulled: int
    conflicts: list[str]
    seconds: float

    @property
    def did_something(self) -> bool:
        """Whether anything has changed here or there."""
        return bool(self.uploaded or self.deleted or self.pulled)


class BucketPublisher:
    """Publishes the projects of a store to one bucket. Not thread-safe; several on one store do the same twice.

    Killed at any step, or refused at any request, it leaves the bucket with the old snapshot or the new one, and
    publishes the rest when it is asked again. What is new is all that a publish costs.
    """

    def __init__(
        self,
        fs: Fs,
        root: str,
        bucket: Bucket,
        limits: Limits,
        *,
        time_ns: Callable[[], int] = time.time_ns,
        monotonic_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        """Take the store and the bucket, which must be there; nothing is asked yet.

        Args:
            fs: the file system.
            root: the store.
            bucket: where to.
            limits: how to cut the work.
            time_ns: the clock that manifests are dated by.
            monotonic_ns: the clock that says how long ago the Hub's was read.
        """
        self._fs = fs
        self._root = root
        self._bucket = bucket
        self._limits = limits
        self._time_ns = time_ns
        self._monotonic_ns = monotonic_ns
        self._blobs: dict[str, Remote] | None = None
        self._hashes: dict[str, str] = {}
        self._manifests: dict[str, inbox.Published] = {}
        self._hub_ns, self._hub_at_ns = 0, 0

    def publish(self, project: str, *, take_over: bool = False) -> Published:
        """Bring what the bucket's inbox has into the store, and what the store has into the bucket.

        Before the first publish, what the bucket holds is merged forward into the store, and the bucket is claimed:
        whoever published before must stop.

        Args:
            project: its name.
            take_over: claim the bucket again, although another store has taken it over since.

        Raises:
            FencedError: another store has taken the bucket over since this one published there.
            DivergedError: what store and bucket hold cannot be merged.
            ConflictError: the store or the bucket changes faster than it can be published.
            DataError: a file is not what its manifest says; the old snapshot stays.
            StorageError: the Hub refused or could not be reached; the bucket shows the old snapshot or the new one.
            OSError: as the file system raises it.
        """
        began = self._monotonic_ns()
        known = state.load(self._fs, self._root, str(self._bucket))
        if take_over:
            known = self._remember(known, project, epoch=0)
        for _ in range(_TRIES):
            try:
                return self._publish(project, known, began)
            except FileNotFoundError as error:
                if isinstance(error, StorageError):
                    raise
                # Collected here since it was listed: there is a newer snapshot that does without it.
                known = state.load(self._fs, self._root, str(self._bucket))
        raise ConflictError(f"files of {project!r} are collected faster than they can be published")

    def _publish(self, project: str, known: state.BucketState, began: int) -> Published:
        listing = self._listing(project)
        theirs = self._theirs(project, listing)
        known = self._claim(project, known, theirs)
        epoch = known.of(project).epoch
        pulled = pull(self._fs, self._root, self._bucket, project, listing)
        if self._blobs is None or pulled.blobs:
            self._blobs = {file.path: file for file in self._bucket.files(names.BLOBS)}
        listing += self._blobs.values()
        offered = self._offer(project)
        held = self._held(project, listing, theirs)
        self._read_clock(listing)
        steps = plan_publish(offered, listing, held, self._limits, self._now_ns())
        done = self._run(steps, offered, epoch)
        conflicts = [file.path for file in unequal_segments(offered, listing)]
        version = offered.manifest.version
        self._remember(known, project, epoch=epoch, version=version, published_ns=self._time_ns(), error="")
        return Published(
            project=project,
            version=version,
            epoch=epoch,
            uploaded=len(done),
            uploaded_bytes=sum(file.size_bytes for file in done),
            deleted=sum(len(step.paths) for step in steps if isinstance(step, Delete)),
            pulled=pulled.segments,
            conflicts=conflicts,
            seconds=(self._monotonic_ns() - began) / 1e9,
        )

    # What the bucket has.

    def _listing(self, project: str) -> list[Remote]:
        return [
            *self._bucket.files(names.snapshot_dir("", project)),
            *self._bucket.files(names.project_segments_dir("", project)),
            *self._bucket.files(names.quarantine_dir("", project)),
        ]

    def _theirs(self, project: str, listing: Iterable[Remote]) -> Manifest | None:
        found = inbox.newest(self._bucket, project, listing, self._manifests)
        return None if found is None else found.manifest

    def _held(self, project: str, listing: Iterable[Remote], theirs: Manifest | None) -> list[Manifest]:
        """Return the snapshots in the bucket that can be read: what only a damaged one names is not deleted."""
        held: list[Manifest] = [] if theirs is None else [theirs]
        files = inbox.manifest_files(project, listing).values()
        for file in files:
            try:
                held.append(inbox.load(self._bucket, file, self._manifests).manifest)
            except DataError:
                continue
        for gone in self._manifests.keys() - {file.xet_hash for file in files}:
            del self._manifests[gone]
        return held

    # Who publishes.

    def _claim(self, project: str, known: state.BucketState, theirs: Manifest | None) -> state.BucketState:
        """Be the one who publishes: merge forward what the bucket has, and write the claim into a manifest."""
        for _ in range(_TRIES):
            mine, _ = manifests.load_newest(self._fs, self._root, project)
            following, epoch = lineage.decide(known.owner, known.of(project).epoch, mine, theirs)
            if following is Next.PUBLISH:
                return known
            if following is Next.MERGE:
                restore(self._fs, self._root, self._bucket, project, time_ns=self._time_ns)
                theirs = self._theirs(project, self._bucket.files(names.manifests_dir("", project)))
                continue
            publisher = Publisher(owner=known.owner, epoch=epoch)
            above = 0 if theirs is None else theirs.version
            claim(self._fs, self._root, project, publisher, above=above, time_ns=self._time_ns)
            return self._remember(known, project, epoch=epoch)
        raise ConflictError(f"{self._bucket} changes faster than {project!r} can be merged with it")

    def _still_mine(self, offered: Offer, epoch: int) -> None:
        """Ask, not the listing, whether somebody else has published since.

        Raises:
            FencedError: another store has.
        """
        mine = offered.manifest
        newest = self._theirs(mine.project, self._bucket.files(names.manifests_dir("", mine.project)))
        if newest not in (None, mine):
            owner = mine.publisher.owner if isinstance(mine.publisher, Publisher) else ""
            lineage.decide(owner, epoch, mine, newest)

    # What the store has.

    def _offer(self, project: str) -> Offer:
        manifest, _ = manifests.load_newest(self._fs, self._root, project)
        size = self._fs.size(names.manifest_path(self._root, project, manifest.version))
        loose = [File(path, size_bytes) for path, size_bytes in local_blobs(self._fs, self._root)]
        directory = names.quarantine_dir("", project)
        loose += [
            File(os.path.join(directory, entry.name), entry.size_bytes)
            for entry in self._fs.entries(os.path.join(self._root, directory))
            if names.is_quarantine_file(entry.name)
        ]
        return offer(survey(self._fs, self._root, project), manifest, size, loose)

    # The steps.

    def _run(self, steps: Sequence[Step], offered: Offer, epoch: int) -> list[File]:
        done: list[File] = []
        for step in steps:
            if isinstance(step, Upload):
                self._bucket.upload([(self._local(file), file.path) for file in step.files])
                self._hash(step.files)
                done += step.files
            elif isinstance(step, Verify):
                self._verify(step.files)
            elif isinstance(step, Publish):
                self._still_mine(offered, epoch)
                self._bucket.upload([(self._local(step.file), step.file.path)])
                self._know(offered)
                self._still_mine(offered, epoch)
                done.append(step.file)
            else:
                self._bucket.delete(step.paths)
                for path in step.paths:
                    self._hashes.pop(path, None)
        return done

    def _local(self, file: File) -> str:
        return os.path.join(self._root, file.path)

    def _hash(self, files: Sequence[File]) -> None:
        hashes = hash_of([self._local(file) for file in files])
        self._hashes |= {file.path: found for file, found in zip(files, hashes, strict=True)}

    def _know(self, offered: Offer) -> None:
        """Spare the download of the manifest that was just uploaded."""
        path = self._local(offered.manifest_file)
        (found,) = hash_of([path])
        remote = Remote(offered.manifest_file.path, offered.manifest_file.size_bytes, found, 0)
        self._manifests[found] = inbox.Published(offered.manifest, self._fs.read(path), remote)

    def _verify(self, files: Sequence[File]) -> None:
        """Compare with the bucket: sizes of all, and hashes of what this publisher uploaded."""
        found = self._bucket.info([file.path for file in files])
        for file in files:
            remote = found.get(file.path)
            wanted = self._hashes.get(file.path)
            if remote is None or remote.size_bytes != file.size_bytes or wanted not in (None, remote.xet_hash):
                self._hashes.pop(file.path, None)
                raise DataError(f"{self._bucket}/{file.path}", None, "the bucket has not got what was uploaded")
            if self._blobs is not None and file.path.startswith(names.BLOBS):
                self._blobs[file.path] = remote

    # Clocks and memory.

    def _read_clock(self, listing: Iterable[Remote]) -> None:
        newest = max((file.uploaded_ns for file in listing), default=0)
        if newest > self._hub_ns:
            self._hub_ns, self._hub_at_ns = newest, self._monotonic_ns()

    def _now_ns(self) -> int:
        """Return a time by the Hub's clock that is not after the present, whatever this machine's clock says."""
        return self._hub_ns + self._monotonic_ns() - self._hub_at_ns

    def _remember(self, known: state.BucketState, project: str, **facts: int | str) -> state.BucketState:
        changed = msgspec.structs.replace(known.of(project), **facts)
        known = msgspec.structs.replace(known, projects={**known.projects, project: changed})
        state.save(self._fs, self._root, known)
        return known
