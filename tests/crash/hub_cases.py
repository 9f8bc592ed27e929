"""What a restore, a claim, the memory of a publisher and an import do to a disk, as cases."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any

from crash_cases import BLOB, ONCE, PROJECT, ROOT, Check, Work, killed, loop, newest, record, recorded, sound

from compactor.fold import fold
from compactor.hub import state
from compactor.hub.claim import claim
from compactor.hub.restore import restore
from eventlog import names
from eventlog.fs import write_all
from eventlog.hub.address import BucketAddress
from eventlog.hub.bucket import Bucket, Remote
from eventlog.importing.staging import Staging
from eventlog.manifest import Publisher
from eventlog.testing import CrashFs, FakeClock, Script, contents, play, scripts
from eventlog.testing.judge import Case
from eventlog.testing.trace import Recorder


class Held(Bucket):
    """A bucket that holds what a disk held, and whose downloads go, without a sync, to a simulated disk."""

    def __init__(self, held: CrashFs, fs: CrashFs) -> None:
        """Take both disks."""
        self.address = BucketAddress("me/held", "")
        self._fs = fs
        self._data = {path[len(ROOT) + 1 :]: data for path, data in held.state().items() if data is not None}

    def files(self, under: str) -> list[Remote]:
        return [self._at(path) for path in sorted(self._data) if path.startswith(f"{under}/")]

    def folders(self, under: str) -> list[str]:
        return sorted({file.path[len(under) + 1 :].split("/")[0] for file in self.files(under)})

    def info(self, paths: Iterable[str]) -> dict[str, Remote]:
        return {path: self._at(path) for path in paths if path in self._data}

    def read(self, file: Remote) -> bytes:
        return self._data[file.path]

    def download(self, files: Sequence[tuple[Remote, str]]) -> None:
        for file, path in files:
            fd = self._fs.create(path)
            write_all(self._fs, fd, self._data[file.path])
            self._fs.close(fd)

    def _at(self, path: str) -> Remote:
        data = self._data[path]
        return Remote(path, len(data), hashlib.sha256(data).hexdigest(), 0)


def _published(clock: FakeClock) -> CrashFs:
    """A disk whose files a bucket holds: a snapshot, and a segment with a blob that is not folded yet."""
    fs = CrashFs(time_ns=clock.time_ns)
    play(Script("run-a", 0, (scripts.Log({"x": 1.0, "big": BLOB}, 0),)), fs, ROOT, PROJECT, time_ns=clock.time_ns)
    fold(fs, ROOT, PROJECT, ONCE, time_ns=clock.time_ns)
    script = Script("run-b", 0, (scripts.Log({"x": 1.0, "big": BLOB}, 0),))
    play(script, fs, ROOT, PROJECT, time_ns=clock.time_ns)
    return fs


def _restore_case(name: str, held: CrashFs, start: CrashFs, clock: FakeClock) -> list[Case]:
    """A restore, also after one that was killed: before it put a file into a directory, or right after."""
    before = set(contents.of_store(start, ROOT, PROJECT))
    expected = sorted([*before, *contents.of_store(held, ROOT, PROJECT)])

    def work(fs: Recorder) -> None:
        restore(fs, ROOT, Held(held, fs), PROJECT, time_ns=clock.time_ns)
        fs.note("restored")

    def check(fs: CrashFs, notes: Sequence[Any], power: bool) -> None:  # noqa: FBT001
        del power
        if newest(fs).version:
            sound(fs)
        rows = contents.of_store(fs, ROOT, PROJECT)
        assert before <= set(rows) <= set(expected)
        assert not notes or sorted(rows) == expected
        again = Recorder(fs)
        work(again)
        assert sorted(contents.of_store(again, ROOT, PROJECT)) == expected
        left = again.after_crash("lost")
        sound(left)
        assert sorted(contents.of_store(left, ROOT, PROJECT)) == expected

    first = recorded(name, start, work, clock, check)
    return [first] + [
        recorded(also, left, work, clock, check)
        for also, left in killed(first)
        if _has_empty_directory(left) or ("at link" in also and _has_one_name(left))
    ]


def _has_one_name(fs: CrashFs) -> bool:
    """Say whether the first thing was just named: a blob, or a manifest before the first segment."""
    if not fs.is_dir(f"{ROOT}/{names.SNAPSHOTS}"):
        return True
    return bool(fs.names(names.manifests_dir(ROOT, PROJECT))) and not fs.is_dir(f"{ROOT}/{names.SEGMENTS}")


def _has_empty_directory(fs: CrashFs) -> bool:
    """Say whether the directory of a blob, or that of the manifests, was made and nothing was put into it."""
    blobs = names.blobs_dir(ROOT)
    empty = [f"{blobs}/{part}" for part in fs.subdirs(blobs)] + [names.manifests_dir(ROOT, PROJECT)]
    return any(fs.is_dir(path) and not fs.names(path) for path in empty)


def restore_cases() -> list[Case]:
    """A restore into nothing, and into a store that has folded records which the bucket lacks."""
    clock = FakeClock(tick_ns=1000)
    mine = CrashFs(time_ns=clock.time_ns)
    play(loop(4), mine, ROOT, PROJECT, time_ns=clock.time_ns)
    fold(mine, ROOT, PROJECT, ONCE, time_ns=clock.time_ns)
    return [
        *_restore_case("hub restore", _published(clock), CrashFs(time_ns=clock.time_ns), clock),
        *_restore_case("restore and merge", _published(clock), mine.after_crash("kept"), clock),
    ]


def claim_cases() -> list[Case]:
    """Claims in a store that has segments alone, also after one that was killed."""
    clock = FakeClock(tick_ns=1000)
    start = CrashFs(time_ns=clock.time_ns)
    play(loop(2), start, ROOT, PROJECT, time_ns=clock.time_ns)

    def work(fs: Recorder) -> None:
        publisher = Publisher(owner="me", epoch=3)
        fs.note(claim(fs, ROOT, PROJECT, publisher, above=7, time_ns=clock.time_ns).version)

    def check(fs: CrashFs, notes: Sequence[Any], power: bool) -> None:  # noqa: FBT001
        del power
        sound(fs)
        assert newest(fs).version >= (notes[-1] if notes else 0)

    return _and_killed("hub claim", start, work, clock, check)


def state_cases() -> list[Case]:
    """What a publisher remembers: the id that it gave itself, and the epoch in which it published."""
    clock = FakeClock(tick_ns=1000)
    bucket = "hf://buckets/me/held"

    def work(fs: Recorder) -> None:
        known = state.load(fs, ROOT, bucket)
        fs.note((known.owner, 0))
        state.save(
            fs,
            ROOT,
            state.BucketState(bucket=bucket, owner=known.owner, projects={PROJECT: state.ProjectState(epoch=2)}),
        )
        fs.note((known.owner, 2))

    def check(fs: CrashFs, notes: Sequence[Any], power: bool) -> None:  # noqa: FBT001
        del power
        known = state.load(record(fs, lambda _: None, clock), ROOT, bucket)
        if notes:
            owner, epoch = notes[-1]
            assert (known.owner, known.of(PROJECT).epoch >= epoch) == (owner, True)

    return _and_killed("hub state", CrashFs(), work, clock, check)


def import_cases() -> list[Case]:
    """Imports into a store that is not there yet: all of it, or none."""
    clock = FakeClock(tick_ns=1000)

    def bring(fs: CrashFs) -> None:
        with Staging(ROOT, fs=fs) as staging:
            staged = staging.begin(PROJECT)
            shape = staged.shape("r", None, ("x",))
            for step in range(3):
                staged.log(shape, 1000 + step, step, b"\x00" * 8, None)
            staged.bring_in()
            staged.close()

    def work(fs: Recorder) -> None:
        bring(fs)
        fs.note("imported")

    def check(fs: CrashFs, notes: Sequence[Any], power: bool) -> None:  # noqa: FBT001
        del power
        sound(fs)
        count = len(contents.of_store(fs, ROOT, PROJECT))
        assert count in ((3, 6) if notes else (0, 3, 6))
        bring(fs)
        assert len(contents.of_store(fs, ROOT, PROJECT)) == count + 3
        assert not fs.names(names.imports_dir(ROOT))

    return _and_killed("hub import", CrashFs(), work, clock, check)


def hub_cases() -> list[Case]:
    """Return every case of the bucket and of imports."""
    return [*restore_cases(), *claim_cases(), *state_cases(), *import_cases()]


def _and_killed(name: str, start: CrashFs, work: Work, clock: FakeClock, check: Check) -> list[Case]:
    first = recorded(name, start, work, clock, check)
    return [first, *(recorded(also, left, work, clock, check) for also, left in killed(first))]
