"""A writer stopped at any step, on a disk that crashed in any way: what was promised is there, and nothing else is."""

from collections.abc import Iterable

import pytest

from eventlog import names, segment, tail, values
from eventlog.blobs import BlobStore
from eventlog.columns import Batch
from eventlog.manifest import Watermark
from eventlog.testing import CrashFs, FakeClock, Progress, Script, contents, play, scripts, sweep

ROOT, PROJECT = "/store", "p"
BLOB = "b" * 70_000


def lively() -> Script:
    """Single calls and long loops, several segments, blobs, system metrics, syncs by hand, and a last word."""
    loop = [scripts.Log({"loss": i / 7, "acc": float(i)}, i) for i in range(40)]
    return Script(
        "run-a",
        1,
        (
            scripts.Log({"loss": 1.0, "note": "hello"}, 0),
            scripts.Sync(),
            *loop[:10],
            scripts.System({"cpu": 0.5}),
            scripts.Sync(),
            scripts.Log({"big": BLOB}, 11),
            *loop[10:],
            scripts.Roll(),
            *(scripts.Log({f"m{i}": float(i), "loss": 2.0}, i) for i in range(24)),
            scripts.Sync(),
            *loop[:5],
        ),
    )


def replay(fs: CrashFs, progress: Progress, script: Script | None = None) -> None:
    play(script or lively(), fs, ROOT, PROJECT, progress=progress, time_ns=FakeClock(tick_ns=1000).time_ns)


def anonymous(rows: Iterable[contents.Row]) -> list[contents.Row]:
    return [row._replace(writer_id="") for row in rows]


def read_all(fs: CrashFs) -> tuple[list[contents.Row], set[int], list[tail.Gap]]:
    batch = Batch()
    gaps: list[tail.Gap] = []
    for writer_id in tail.writers(fs, ROOT, PROJECT):
        gaps += tail.WriterReader(fs, ROOT, PROJECT, writer_id, Watermark(), batch).read().gaps
    rows = contents.of_batch(batch)
    return rows, {row.seq for row in rows}, gaps


def logged() -> set[contents.Row]:
    """Every row of the undisturbed script."""
    fs = CrashFs()
    replay(fs, Progress())
    return set(anonymous(read_all(fs)[0]))


def check(after: CrashFs, promised_seq: int, truth: set[contents.Row]) -> None:
    """Assert that all up to a seq is there, that nothing is there that was not logged, and nothing twice."""
    rows, seqs, gaps = read_all(after)
    found = anonymous(rows)
    assert set(found) <= truth
    assert len(set(found)) == len(found)
    assert seqs >= set(range(1, promised_seq + 1))
    missing = {seq for gap in gaps for seq in range(gap.first_seq, gap.last_seq + 1)}
    assert not missing & seqs
    assert set(range(1, max(seqs, default=0) + 1)) == seqs | {seq for seq in missing if seq < max(seqs, default=0)}
    for row in rows:
        payload = dict(row.cells).get("payload")
        value = values.from_json(payload) if payload else None
        if isinstance(value, dict) and "sha256" in value:
            assert BLOB.encode() in BlobStore(ROOT, after).get(value["sha256"])


@pytest.mark.invariant(9)
@pytest.mark.parametrize("half_written", [False, True])
def test_a_writer_killed_at_any_step_keeps_what_it_promised(half_written):
    truth = logged()
    progress = Progress()

    def work(fs: CrashFs) -> None:
        nonlocal progress
        progress = Progress()
        replay(fs, progress)

    steps = 0
    for stop in sweep.stops(CrashFs(), work, half_written=half_written):
        steps += 1
        for crash in sweep.crashes(stop.fs):
            promised = progress.returned_seq if crash.mode == "kept" else progress.synced_seq
            check(crash.fs, promised, truth)
    assert steps > 100
    assert progress.returned_seq == progress.synced_seq == 72


@pytest.mark.invariant(3)
def test_a_sealed_segment_is_whole_whatever_the_crash():
    for stop in sweep.stops(CrashFs(), lambda fs: replay(fs, Progress())):
        for crash in sweep.crashes(stop.fs, seeds=(None, 1, 2, 3)):
            for writer_id in tail.writers(crash.fs, ROOT, PROJECT):
                directory = names.writer_dir(ROOT, PROJECT, writer_id)
                for entry in crash.fs.entries(directory):
                    if not entry.name.endswith(".seg"):
                        continue
                    data = crash.fs.read(f"{directory}/{entry.name}")
                    items = list(segment.items(data, segment.parse_header(data, entry.name)))
                    assert not any(isinstance(item, segment.Damage) for item in items)
                    assert type(items[-1].record).__name__ == "Seal"
                    assert items[-1].end == len(data)


@pytest.mark.invariant(1)
def test_a_new_process_goes_on_beside_what_a_crash_left():
    truth = logged()
    for stop in sweep.stops(CrashFs(), lambda fs: replay(fs, Progress()), every=7):
        for crash in sweep.crashes(stop.fs):
            before = read_all(crash.fs)[0]
            progress = Progress()
            replay(crash.fs, progress)
            rows = read_all(crash.fs)[0]
            mine = [row for row in rows if row.writer_id == progress.writer_id]
            assert set(anonymous(mine)) == truth
            assert [row for row in rows if row.writer_id != progress.writer_id] == before
            assert truth == set(
                anonymous(
                    row for row in read_all(crash.fs.after_crash("lost"))[0] if row.writer_id == progress.writer_id
                )
            )


@pytest.mark.invariant(1)
def test_a_segment_is_created_once_and_only_under_a_new_name():
    fs = CrashFs()
    replay(fs, Progress())
    replay(fs, Progress())
    created = [path for name, path in fs.operations if name == "create"]
    assert len(created) == len(set(created))


@pytest.mark.parametrize("kind", ["file", "dir"])
def test_these_tests_notice_a_writer_that_does_not_sync(kind):
    truth = logged()
    fs = CrashFs()
    fs.ignore_sync(kind)
    progress = Progress()
    replay(fs, progress)
    with pytest.raises(AssertionError):
        check(fs.after_crash("lost"), progress.synced_seq, truth)


def test_a_clock_set_back_changes_times_and_nothing_else():
    fs, clock = CrashFs(), FakeClock(tick_ns=1000)
    calls = [scripts.Log({"x": float(i)}, i) for i in range(10)]
    play(Script("run-a", None, tuple(calls)), fs, ROOT, PROJECT, time_ns=clock.time_ns)
    clock.set_back(3600)
    play(Script("run-a", None, tuple(calls)), fs, ROOT, PROJECT, time_ns=clock.time_ns)
    rows, _, gaps = read_all(fs)
    assert gaps == []
    assert sorted(row.step for row in rows) == sorted([*range(10)] * 2)
