"""What the store does to a disk, as cases: each a recorded trace, and what must hold of every disk a crash leaves."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

from compactor.collect import collect
from compactor.commit import totals
from compactor.config import CompactorConfig
from compactor.fold import fold
from compactor.rebuild import broken_files, rebuild
from compactor.work import merge_all, take_turn
from eventlog import manifest as manifests
from eventlog import media, names, segment
from eventlog.commands.changing import append_change
from eventlog.config import WriterConfig
from eventlog.identity import RunInfo
from eventlog.manifest import Manifest
from eventlog.run import Run
from eventlog.spool import ship
from eventlog.store import Store
from eventlog.testing import CrashFs, FakeClock, Progress, Script, contents, play, scripts
from eventlog.testing.judge import Case
from eventlog.testing.trace import Recorder, replays
from eventlog.verify import verify

ROOT, SPOOL, PROJECT = "/store", "/spool", "p"
TABLES = ("metrics", "system", "events")
ONCE = CompactorConfig()
OFTEN = CompactorConfig(batch_bytes=4096, fanout=2)
AGED = CompactorConfig(fanout=2, grace_s=3600.0, segment_retention_s=86_400.0)
MONTH_S = 30 * 86_400.0
BLOB = "b" * 70_000
SMALL = WriterConfig(sync_interval_s=None, segment_bytes=4096)

Work = Callable[[Recorder], None]
Check = Callable[[CrashFs, Sequence[Any], bool], None]


def record(start: CrashFs, work: Work, clock: FakeClock) -> Recorder:
    recorder = Recorder(start, time_ns=clock.time_ns)
    work(recorder)
    return recorder


def recorded(name: str, start: CrashFs, work: Work, clock: FakeClock, check: Check) -> Case:
    return Case(name, record(start, work, clock).trace(start), check)


def killed(case: Case) -> list[tuple[str, CrashFs]]:
    """Return the disks of a case whose process was killed right after its first change of each kind and place.

    Only changes that make a name: what a later process finds and must not take for durable.
    """
    found: list[tuple[str, CrashFs]] = []
    seen: set[tuple[object, ...]] = set()
    for made, replay in replays(case.trace.start, case.trace.changes):
        change = case.trace.changes[made - 1] if made else None
        if change is None or change.name not in ("mkdir", "create", "link", "rename", "unlink"):
            continue
        place = (change.name, change.lines, os.path.dirname(change.path))
        if place not in seen:
            seen.add(place)
            found.append((f"{case.name}, killed at {change.name} {made}", replay.fs.after_crash("kept")))
    return found


def sound(fs: CrashFs, root: str = ROOT, allowed: frozenset[str] = frozenset()) -> None:
    """Assert what `verify` and every manifest say, and that sealed segments are whole."""
    report = verify(root, fs=fs, blobs=True)
    assert [finding for finding in report.findings if finding.code not in allowed] == []
    for path, data in fs.state().items():
        if path.startswith(f"{root}/") and path.endswith(".seg") and not names.is_temporary(os.path.basename(path)):
            items = list(segment.items(data or b"", segment.parse_header(data or b"", path)))
            assert not [item for item in items if isinstance(item, segment.Damage)] or "quarantined" in allowed
            assert type(items[-1].record).__name__ == "Seal"
    for version in manifests.versions(fs, root, PROJECT):
        manifest = manifests.load(fs, root, PROJECT, version)
        rows = contents.of_snapshot(fs, root, manifest)
        assert len(rows) == sum(totals(manifest, table)[0] for table in TABLES)


def loop(count: int, *, closes: bool = True) -> Script:
    calls = [scripts.Log({"loss": i / 7, "acc": float(i)}, i) for i in range(count)]
    odd = (scripts.Log({"note": "x", "lr": 0.1}, count), scripts.System({"cpu": 0.5}))
    return Script("run-a", 0, (*calls, *odd, scripts.Sync()), closes=closes)


def newest(fs: CrashFs) -> Manifest:
    return manifests.load_newest(fs, ROOT, PROJECT)[0]


class _Noting(Progress):
    """Notes on the trace what the writer has promised."""

    def __init__(self, fs: Recorder) -> None:
        self._fs = fs
        super().__init__()

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        if name in ("returned_seq", "synced_seq") and value:
            self._fs.note((self.writer_id, self.returned_seq, self.synced_seq))


def _check_writer(truth: list[contents.Row], again: Work | None, also: frozenset[str] = frozenset()) -> Check:
    everything = set(truth)

    def check(fs: CrashFs, notes: Sequence[Any], power: bool) -> None:  # noqa: FBT001
        sound(fs, allowed=frozenset({"gap", "damaged"}) | also if power else frozenset())
        rows = contents.of_store(fs, ROOT, PROJECT)
        assert set(rows) <= everything
        if not power and notes and notes[-1] == "closed":
            assert not [path for path in fs.state() if path.endswith(".open") and notes[0][0] in path]
        notes = [note for note in notes if note != "closed"]
        assert len(set(rows)) == len(rows)
        if notes:
            writer_id, returned, synced = notes[-1]
            seqs = {row.seq for row in rows if row.writer_id == writer_id}
            assert seqs >= set(range(1, (synced if power else returned) + 1))
        if again is not None:
            work = record(fs, again, FakeClock(tick_ns=1000))
            after = contents.of_store(work.after_crash("lost"), ROOT, PROJECT)
            mine = {row.writer_id for row in after} - {row.writer_id for row in truth}
            assert len(mine) == 1
            assert {row for row in after if row.writer_id not in mine} <= everything

    return check


def _lively(fs: Recorder, clock: FakeClock) -> None:
    steps = [scripts.Log({"loss": i / 7}, i) for i in range(8)]
    wide = [scripts.Log({f"m{i}": float(i), "loss": 2.0}, i) for i in range(6)]
    actions = (*steps[:2], scripts.Sync(), scripts.Log({"big": BLOB}, 9), *steps[2:5], scripts.System({"cpu": 0.5}))
    script = Script("run-a", 1, (*actions, scripts.Sync(), scripts.Roll(), *wide, scripts.Sync(), *steps[5:]))
    play(script, fs, ROOT, PROJECT, progress=_Noting(fs), config=SMALL, time_ns=clock.time_ns)
    fs.note("closed")


def _brief(fs: Recorder) -> None:
    script = Script("run-b", 1, (scripts.Log({"loss": 1.0, "big": BLOB}, 0), scripts.Sync()))
    play(script, fs, ROOT, PROJECT, progress=_Noting(fs), config=SMALL, time_ns=FakeClock(tick_ns=1000).time_ns)


def writer_cases() -> list[Case]:
    """Segments and blobs: from an empty disk, and after a process that was killed anywhere in the middle."""
    clock = FakeClock(tick_ns=1000)

    def work(fs: Recorder) -> None:
        _lively(fs, clock)

    def truth(fs: CrashFs) -> list[contents.Row]:
        return contents.of_store(fs, ROOT, PROJECT)

    def make(name: str, start: CrashFs, what: Work, again: Work | None) -> Case:
        recorder = record(start, what, clock)
        return Case(name, recorder.trace(start), _check_writer(truth(recorder), again))

    first = make("seal", CrashFs(), work, _brief)
    return [first, *(make(name, start, _brief, None) for name, start in killed(first))]


def run_case() -> Case:
    """A run as users have it, with a file beside its numbers."""
    clock = FakeClock(tick_ns=1000)

    def work(fs: Recorder) -> None:
        info = RunInfo(project=PROJECT, run_id="r", name="n", config={"lr": 1})
        run = Run(ROOT, info, config=SMALL, fs=fs, time_ns=clock.time_ns)
        run.log({"x": 1.0, "file": media.File(b"bytes of a file", name="f")})
        run.flush()
        fs.note((run._writer.writer_id, 2, 2))
        run.summary["best"] = 2.0
        run.alert("title")
        run.finish()
        fs.note((run._writer.writer_id, 5, 5))

    recorder = record(CrashFs(), work, clock)
    return Case("run", recorder.trace(CrashFs()), _check_writer(contents.of_store(recorder, ROOT, PROJECT), None))


def republish_case() -> Case:
    """A sync fails: the segment is written again under its sealed name, and the open name goes last."""
    clock = FakeClock(tick_ns=1000)

    def work(fs: Recorder) -> None:
        fs.fail_next("sync", 5, 1)
        script = Script("run-a", 1, (*(scripts.Log({"loss": i / 7}, i) for i in range(5)), scripts.Sync()))
        play(script, fs, ROOT, PROJECT, progress=_Noting(fs), config=SMALL, time_ns=clock.time_ns)

    recorder = record(CrashFs(), work, clock)
    # The open file that the sync gave up on is still there, and is not what was sealed.
    check = _check_writer(contents.of_store(recorder, ROOT, PROJECT), None, frozenset({"conflict"}))
    return Case("seal after a failed sync", recorder.trace(CrashFs()), check)


def _damage(fs: CrashFs, clock: FakeClock) -> None:
    """Flip a bit in a record of a sealed segment, as a bad disk does, and keep it so."""
    writer_id = play(loop(12), fs, ROOT, PROJECT, time_ns=clock.time_ns).writer_id
    directory = names.writer_dir(ROOT, PROJECT, writer_id)
    path = f"{directory}/{names.segment_name(1, sealed=True)}"
    data = bytearray(fs.read(path))
    data[len(data) // 2] ^= 0x10
    _put(fs, path, bytes(data))


def _put(fs: CrashFs, path: str, data: bytes) -> None:
    fs.unlink(path)
    fd = fs.create(path)
    fs.write(fd, data)
    fs.sync(fd)
    fs.close(fd)
    fs.sync_dir(os.path.dirname(path))


def _unfolded(clock: FakeClock, *, folded: bool) -> CrashFs:
    fs = CrashFs(time_ns=clock.time_ns)
    if folded:
        play(loop(8), fs, ROOT, PROJECT, time_ns=clock.time_ns)
        fold(fs, ROOT, PROJECT, ONCE, time_ns=clock.time_ns)
    play(loop(6, closes=False), fs, ROOT, PROJECT, time_ns=clock.time_ns)
    _damage(fs, clock)
    return fs.after_crash("kept")


def _check_fold(start: CrashFs, expected: list[contents.Row], again: Work | None) -> Check:
    parent = newest(start).version
    allowed = frozenset({"gap", "damaged", "quarantined"})

    def check(fs: CrashFs, notes: Sequence[Any], power: bool) -> None:  # noqa: FBT001
        del power
        sound(fs, allowed=allowed)
        assert contents.of_store(fs, ROOT, PROJECT) == expected
        manifest = newest(fs)
        assert manifest.version >= (notes[-1] if notes else parent)
        for item in manifest.quarantined:
            place = f"{names.quarantine_dir(ROOT, PROJECT)}/{item.name}"
            assert fs.read(f"{place}.bin") == fs.read(f"{ROOT}/{item.source}", item.offset, item.size_bytes)
            assert item.reason.encode() in fs.read(f"{place}.json")
        if again is not None:
            work = record(fs, again, FakeClock(tick_ns=1000))
            done = newest(work)
            assert contents.of_snapshot(work, ROOT, done) == expected
            assert contents.of_store(work.after_crash("lost"), ROOT, PROJECT) == expected

    return check


def fold_cases() -> list[Case]:
    """A fold with damage to quarantine, the first of a store and a later one, also after one that was killed."""
    clock = FakeClock(tick_ns=1000)

    def work(fs: Recorder) -> None:
        fs.note(fold(fs, ROOT, PROJECT, ONCE, time_ns=clock.time_ns).manifest.version)

    found: list[Case] = []
    for name, folded in (("first fold", False), ("fold", True)):
        start = _unfolded(clock, folded=folded)
        expected = contents.of_store(start, ROOT, PROJECT)
        case = recorded(name, start, work, clock, _check_fold(start, expected, work))
        found.append(case)
        if not folded:
            for also, left in killed(case):
                if newest(left).version == newest(start).version:
                    found.append(recorded(also, left, work, clock, _check_fold(left, expected, None)))
    return found


def compact_case() -> Case:
    """Merges of what many folds left."""
    clock = FakeClock(tick_ns=1000)
    start = CrashFs(time_ns=clock.time_ns)
    for count in (6, 4):
        play(loop(count), start, ROOT, PROJECT, time_ns=clock.time_ns)
        fold(start, ROOT, PROJECT, OFTEN, time_ns=clock.time_ns)

    def work(fs: Recorder) -> None:
        merge_all(fs, ROOT, PROJECT, OFTEN, time_ns=clock.time_ns)
        fs.note(newest(fs).version)

    expected = contents.of_store(start, ROOT, PROJECT)
    return recorded("compact", start, work, clock, _check_fold(start, expected, work))


def _aged(clock: FakeClock, *, killed_fold: bool, folds: Sequence[int] = (6, 3)) -> CrashFs:
    """A store with several snapshots, merged files, folded segments, and what killed processes left; a month on."""
    fs = CrashFs(time_ns=clock.time_ns)
    for count in folds:
        play(loop(count, closes=count != 3), fs, ROOT, PROJECT, time_ns=clock.time_ns)
        fold(fs, ROOT, PROJECT, AGED, time_ns=clock.time_ns)
        clock.advance(60)
    merge_all(fs, ROOT, PROJECT, AGED, time_ns=clock.time_ns)
    play(loop(2), fs, ROOT, PROJECT, time_ns=clock.time_ns)
    if killed_fold:
        recorder = record(fs, lambda disk: _fold_aged(disk, clock), clock)
        last = max(i for i, change in enumerate(recorder.changes) if change.name == "sync_dir")
        fs = next(replay.fs for made, replay in replays(fs, recorder.changes) if made == last)
    clock.advance(MONTH_S)
    return fs.after_crash("kept")


def _fold_aged(fs: CrashFs, clock: FakeClock) -> None:
    fold(fs, ROOT, PROJECT, AGED, time_ns=clock.time_ns)


def _check_collect(expected: list[contents.Row], work: Work, left: set[str] | None) -> Check:
    def check(fs: CrashFs, notes: Sequence[Any], power: bool) -> None:  # noqa: FBT001
        del notes, power
        sound(fs)
        assert contents.of_store(fs, ROOT, PROJECT) == expected
        again = Recorder(fs)
        work(again)
        sound(again)
        assert contents.of_store(again, ROOT, PROJECT) == expected
        if left is not None:
            assert _files(again) == left
        assert contents.of_store(again.after_crash("lost"), ROOT, PROJECT) == expected

    return check


def _files(fs: CrashFs) -> set[str]:
    """Return the paths of all files; a sealed segment may have its open name again after a power loss."""
    return {path.removesuffix(".open").removesuffix(".seg") for path, data in fs.state().items() if data is not None}


def collect_cases() -> list[Case]:
    """Collections of all that has expired; also after a fold that was killed before its manifest was durable."""
    found: list[Case] = []
    for name, killed_fold, folds in (
        ("collect", False, (6, 3)),
        ("collect after a killed fold", True, (6, 3)),
        ("collect after a killed first fold", True, ()),
    ):
        clock = FakeClock()
        start = _aged(clock, killed_fold=killed_fold, folds=folds)
        expected = contents.of_store(start, ROOT, PROJECT)

        def work(fs: CrashFs, clock: FakeClock = clock) -> None:
            collect(fs, ROOT, PROJECT, AGED, time_ns=clock.time_ns)

        left = None if killed_fold else _files(record(start, work, clock))
        found.append(recorded(name, start, work, clock, _check_collect(expected, work, left)))
    return found


def turn_case() -> Case:
    """A whole turn: fold, merge, and collect by retention."""
    clock = FakeClock()
    start = _aged(clock, killed_fold=False)
    expected = contents.of_store(start, ROOT, PROJECT)

    def work(fs: CrashFs) -> None:
        take_turn(fs, ROOT, PROJECT, AGED, time_ns=clock.time_ns)

    return recorded("turn", start, work, clock, _check_collect(expected, work, None))


def rebuild_case() -> Case:
    """A data file that a bad disk changed is replaced from segments."""
    clock = FakeClock(tick_ns=1000)
    start = CrashFs(time_ns=clock.time_ns)
    for count in (6, 4):
        play(loop(count), start, ROOT, PROJECT, time_ns=clock.time_ns)
        fold(start, ROOT, PROJECT, ONCE, time_ns=clock.time_ns)
    expected = contents.of_store(start, ROOT, PROJECT)
    path = f"{names.snapshot_dir(ROOT, PROJECT)}/{newest(start).of_table('metrics')[0].path}"
    data = bytearray(start.read(path))
    data[len(data) // 3] ^= 1
    _put(start, path, bytes(data))
    old = newest(start).version

    def work(fs: Recorder) -> None:
        rebuild(fs, ROOT, PROJECT, ONCE, time_ns=clock.time_ns)
        fs.note(newest(fs).version)

    def check(fs: CrashFs, notes: Sequence[Any], power: bool) -> None:  # noqa: FBT001
        del power
        manifest = newest(fs)
        assert manifest.version in ((old + 1,) if notes else (old, old + 1))
        assert len(broken_files(fs, ROOT, manifest)) == (manifest.version == old)
        assert contents.of_segments(fs, ROOT, PROJECT) == expected
        # Whoever finds the new manifest may lose it to a power loss, but then also rebuilds again.
        again = Recorder(fs)
        work(again)
        last = Recorder(again.after_crash("lost"))
        work(last)
        for disk in (again, last):
            assert contents.of_store(disk, ROOT, PROJECT) == expected
            assert broken_files(disk, ROOT, newest(disk)) == []

    return recorded("rebuild", start, work, clock, check)


def spool_cases() -> list[Case]:
    """A shipment from a spool to a store, also after one that was killed."""
    clock = FakeClock(tick_ns=1000)
    start = CrashFs(time_ns=clock.time_ns)
    calls = (scripts.Log({"loss": 1.0, "big": BLOB}, 0), scripts.Log({"loss": 2.0}, 1))
    play(Script("run-a", 0, calls), start, SPOOL, PROJECT, time_ns=clock.time_ns)
    expected = contents.of_store(start, SPOOL, PROJECT)

    def work(fs: Recorder) -> None:
        ship(SPOOL, ROOT, fs=fs)
        fs.note("shipped")

    def check(fs: CrashFs, notes: Sequence[Any], power: bool) -> None:  # noqa: FBT001
        del power
        sound(fs)
        rows = contents.of_store(fs, ROOT, PROJECT)
        assert set(rows) <= set(expected)
        assert not notes or rows == expected
        again = Recorder(fs)
        work(again)
        for disk in (again, again.after_crash("lost")):
            sound(disk)
            assert contents.of_store(disk, ROOT, PROJECT) == expected

    first = recorded("spool", start, work, clock, check)
    return [first, *(recorded(name, left, work, clock, check) for name, left in killed(first))]


def admin_case() -> Case:
    """The commands that rename and delete a run, of which nothing was folded or all."""
    clock = FakeClock(tick_ns=1000)
    start = CrashFs(time_ns=clock.time_ns)
    info = RunInfo(project=PROJECT, run_id="run-a", name="old")
    Run(ROOT, info, config=SMALL, fs=start, time_ns=clock.time_ns).finish()
    fold(start, ROOT, PROJECT, ONCE, time_ns=clock.time_ns)
    states = [("old", False), ("new", False), ("new", True)]

    def work(fs: Recorder) -> None:
        append_change(ROOT, PROJECT, "run-a", "rename", {"name": "new"}, fs=fs)
        fs.note(1)
        append_change(ROOT, PROJECT, "run-a", "delete", {}, fs=fs)
        fs.note(2)

    def seen(fs: CrashFs) -> int:
        (row,) = Store(ROOT, fs=fs).runs(PROJECT, deleted=True).select(["name", "deleted"]).to_pylist()
        return states.index((row["name"], row["deleted"]))

    def check(fs: CrashFs, notes: Sequence[Any], power: bool) -> None:  # noqa: FBT001
        sound(fs, allowed=frozenset({"gap", "damaged"} if power else ()))
        assert seen(fs) >= (notes[-1] if notes else 0)
        again = Recorder(fs)
        work(again)
        assert seen(again.after_crash("lost")) == 2

    return recorded("rename and delete", start, work, clock, check)


def store_cases() -> list[Case]:
    """Return every case but the server's."""
    return [
        *writer_cases(),
        run_case(),
        republish_case(),
        *fold_cases(),
        compact_case(),
        *collect_cases(),
        turn_case(),
        rebuild_case(),
        *spool_cases(),
        admin_case(),
    ]
