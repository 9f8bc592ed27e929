"""What a dead writer left is folded whole, shown as settled and collected; one that only sleeps is not dead."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import msgspec
import pytest
from damage_support import (
    CONFIG,
    HOUR_S,
    MONTH_S,
    PROJECT,
    RECORDS,
    ROOT,
    WRITER_ID,
    clean_rows,
    codes,
    every_kind,
    fold_dead,
    gaps_of,
    neighbour,
    quarantine,
    read,
    store_with,
    without,
)

from compactor.config import CompactorConfig
from compactor.status import project_status
from compactor.work import take_turn
from eventlog import frame, names, schema
from eventlog import manifest as manifests
from eventlog.fs import LOCAL
from eventlog.testing import CrashFs, contents, forge
from eventlog.verify import verify

MADE = every_kind(sealed=False)
LAST = MADE.records[-1]
PATH = f"{names.writer_dir(ROOT, PROJECT, WRITER_ID)}/{names.segment_name(1, sealed=False)}"
TORN = {
    "nothing": b"",
    "half a header": MADE.data[LAST.offset : LAST.offset + 7],
    "half a frame": MADE.data[LAST.offset : LAST.end - 1],
    "zeros": bytes(5000),
    "a few zeros": bytes(3),
}
DAMAGED = {
    "noise": b"\xa7" * 600,
    "zeros and then noise": bytes(512) + b"\xa7" * 9,
    "a frame of zeros": MADE.data[LAST.offset : LAST.offset + 14] + bytes(LAST.end - LAST.offset - 14),
}


def pending(fs: CrashFs) -> int:
    return project_status(fs, ROOT, PROJECT).pending_bytes


def removed(fs: CrashFs, clock) -> list[str]:
    before = fs.names(names.writer_dir(ROOT, PROJECT, WRITER_ID))
    take_turn(fs, ROOT, PROJECT, CONFIG, time_ns=clock.time_ns)
    return [name for name in before if name not in fs.names(names.writer_dir(ROOT, PROJECT, WRITER_ID))]


@pytest.mark.parametrize("rest", TORN.values(), ids=TORN.keys())
def test_a_torn_tail_is_the_end_of_a_dead_writers_segment_and_no_loss(rest):
    fs = store_with(MADE.data[: LAST.offset] + rest, sealed=False)
    folded = fold_dead(fs)
    assert (pending(fs), quarantine(fs), gaps_of(folded.manifest)) == (0, {}, [])
    assert codes(fs) == set()
    again = take_turn(fs, ROOT, PROJECT, CONFIG, time_ns=folded.clock.time_ns)
    assert (again.folds, again.version) == (0, folded.manifest.version)
    folded.clock.advance(MONTH_S)
    assert removed(fs, folded.clock) == ["00000001.open"]
    assert contents.of_store(fs, ROOT, PROJECT) == without(clean_rows(), {LAST.seq})
    assert codes(fs) == set()


@pytest.mark.parametrize("what", DAMAGED)
def test_other_damage_at_the_end_is_set_aside_before_the_segment_goes(what):
    fs = store_with(MADE.data[: LAST.offset] + DAMAGED[what], sealed=False)
    folded = fold_dead(fs)
    assert pending(fs) == 0
    assert list(quarantine(fs).values()) == [DAMAGED[what]]
    assert gaps_of(folded.manifest) == ([(LAST.seq, LAST.seq)] if "frame" in what else [])
    assert take_turn(fs, ROOT, PROJECT, CONFIG, time_ns=folded.clock.time_ns).folds == 0
    folded.clock.advance(MONTH_S)
    assert removed(fs, folded.clock) == ["00000001.open"]
    assert contents.of_store(fs, ROOT, PROJECT) == without(clean_rows(), {LAST.seq})
    assert "quarantined" in codes(fs)


@pytest.mark.parametrize("size", [0, 1, 63])
def test_a_segment_that_never_got_its_header_is_collected(size):
    fs = store_with(MADE.data[:size], sealed=False)
    other = neighbour()
    forge.put(fs, ROOT, PROJECT, other.header, other.data, sealed=False)
    folded = fold_dead(fs)
    folded.clock.advance(MONTH_S)
    assert removed(fs, folded.clock) == ["00000001.open"]
    assert quarantine(fs) == {}


def test_a_segment_that_no_reader_can_tell_is_set_aside_whole_and_waits_for_nobody():
    data = bytes(64) + b"\0" * 40 + MADE.data[104:]
    fs = store_with(data, sealed=False)
    assert read(data, sealed=False).damages == []
    folded = fold_dead(fs)
    assert list(quarantine(fs).values()) == [data]
    assert pending(fs) == 0
    folded.clock.advance(HOUR_S * 2)
    take_turn(fs, ROOT, PROJECT, CONFIG, time_ns=folded.clock.time_ns)
    folded.clock.advance(MONTH_S)
    assert removed(fs, folded.clock) == ["00000001.open"]
    assert codes(fs) == {"quarantined"}


def test_a_foreign_segment_with_a_high_number_hides_none_that_its_writer_makes_later():
    fs = store_with(MADE.data, sealed=False)
    other = forge.header(9, 1, "01j1" + "0" * 22)
    forge.put(fs, ROOT, PROJECT, other._replace(writer_id=WRITER_ID), forge.forge([forge.start(other)], other).data,
              sealed=True)  # fmt: skip
    folded = fold_dead(fs)
    head = forge.header(2, len(RECORDS) + 1)
    late = forge.forge([forge.start(head), forge.record(schema.Heartbeat(5, "r"))], head)
    forge.put(fs, ROOT, PROJECT, head, late.data, sealed=False)
    take_turn(fs, ROOT, PROJECT, CONFIG, time_ns=folded.clock.time_ns)
    assert len(contents.of_store(fs, ROOT, PROJECT)) == len(clean_rows()) + 1
    assert manifests.load_newest(fs, ROOT, PROJECT)[0].gaps == []


@pytest.mark.parametrize("rest", [*TORN.values(), *DAMAGED.values()], ids=[*TORN, *DAMAGED])
def test_before_the_grace_period_and_under_a_lock_nothing_is_taken_for_an_end(rest):
    data = MADE.data[: LAST.offset] + rest
    fs = store_with(data, sealed=False)
    turn = take_turn(fs, ROOT, PROJECT, CONFIG, time_ns=lambda: forge.NOW_NS + int(CONFIG.grace_s * 1e9) - 1)
    assert (turn.records, quarantine(fs), pending(fs)) == (len(RECORDS) - 1, {}, len(rest))
    held = CrashFs(time_ns=lambda: forge.NOW_NS)
    held.make_dirs(os.path.dirname(PATH))
    fd = held.create(PATH)
    assert held.lock(fd)
    held.write(fd, data)
    manifest = fold_dead(held).manifest
    assert (quarantine(held), pending(held)) == ({}, len(rest))
    assert manifest.writers[WRITER_ID].ended_bytes is msgspec.UNSET


@pytest.mark.parametrize("rest", [*TORN.values(), *DAMAGED.values()], ids=[*TORN, *DAMAGED])
@pytest.mark.parametrize("cut_back", [False, True])
def test_a_writer_that_goes_on_after_it_was_taken_for_dead_loses_nothing(rest, cut_back):
    """It appends after what stands there, or cuts its unfinished append back first, and uses the seq again."""
    fs = store_with(b"", sealed=False)
    data = MADE.data[: LAST.offset] + rest
    fs.unlink(PATH)
    fd = fs.create(PATH)
    fs.write(fd, data)
    folded = fold_dead(fs)
    known = not cut_back and gaps_of(folded.manifest) != []
    if cut_back and gaps_of(folded.manifest) == []:
        fs.truncate(fd, LAST.offset)
        fs.write(fd, MADE.data[LAST.offset :])
    else:
        # The frame of the last record is there, damaged: its writer goes on with the next seq.
        known = gaps_of(folded.manifest) != []
        seq = LAST.seq + 1 if known else LAST.seq
        fs.write(fd, frame.build(MADE.data[LAST.offset + 14 : LAST.end], seq - 1))
    more = frame.build(schema.encode(schema.Heartbeat(5, "r")), len(RECORDS) + known)
    fs.write(fd, more)
    assert pending(fs) > 0
    before = contents.of_store(fs, ROOT, PROJECT)
    take_turn(fs, ROOT, PROJECT, CONFIG, time_ns=folded.clock.time_ns)
    after = contents.of_store(fs, ROOT, PROJECT)
    assert before == after
    assert pending(fs) == 0
    assert len({row.seq for row in after}) == len(RECORDS) + 1
    newest = manifests.load_newest(fs, ROOT, PROJECT)[0]
    assert gaps_of(newest) == gaps_of(folded.manifest)
    assert newest.writers[WRITER_ID].duplicates == 0


def test_a_length_that_lies_hides_nothing_once_the_segment_has_ended():
    victim = MADE.records[4]
    lie = frame.pack_length_seq(1 << 27, victim.seq - 1)
    check = frame.zlib.crc32(lie) & 0xFFFF
    data = bytearray(MADE.data)
    data[victim.offset : victim.offset + 14] = frame.pack_header(1, check, 1 << 27, victim.seq - 1)
    assert read(bytes(data), sealed=False).mark.seq == victim.seq - 1
    for sealed in (False, True):
        found = read(bytes(data), sealed=sealed, dead=True)
        assert found.rows == without(clean_rows(), {victim.seq})
        assert found.gaps == [(victim.seq, victim.seq)]
        assert (victim.offset, victim.end) in found.damages


SLEEPER = """
import sys, time, eventlog
run = eventlog.init("p", "r", dir=sys.argv[1], settings=eventlog.WriterConfig(sync_interval_s=None))
for step in range(5):
    run.log({"x": float(step)}, step=step)
with open(run._writer._segment.path, "ab") as file:
    file.write(b"\\xa7" * 100)  # as a page that is half written looks
print("ready", flush=True)
sys.stdin.readline()
run.log({"x": 5.0}, step=5)
run.finish()
print("done", flush=True)
"""


def test_a_process_that_is_stopped_for_hours_is_not_dead_and_goes_on(tmp_path):
    store = str(tmp_path)
    child = subprocess.Popen([sys.executable, "-c", SLEEPER, store], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert child.stdin is not None
        assert child.stdout is not None
        assert child.stdout.readline() == b"ready\n"
        child.send_signal(signal.SIGSTOP)
        later = time.time_ns() + int(MONTH_S * 1e9)
        turn = take_turn(LOCAL, store, "p", CompactorConfig(segment_retention_s=0.0), time_ns=lambda: later)
        assert (turn.records, turn.removed) == (6, 0)
        (writer_id,) = manifests.load_newest(LOCAL, store, "p")[0].writers
        assert manifests.load_newest(LOCAL, store, "p")[0].writers[writer_id].ended_bytes is msgspec.UNSET
        assert manifests.load_newest(LOCAL, store, "p")[0].quarantined == []
        child.send_signal(signal.SIGCONT)
        out, _ = child.communicate(b"\n", timeout=60)
        assert out == b"done\n"
    finally:
        child.kill()
        child.wait()
    take_turn(LOCAL, store, "p", CompactorConfig())
    report = verify(store)
    assert (report.records, report.gaps, report.lost) == (8, 0, 0)
    assert {finding.code for finding in report.findings} == {"quarantined"}


def test_a_killed_process_is_dead_once_the_grace_period_is_over(tmp_path):
    store = str(tmp_path)
    child = subprocess.Popen([sys.executable, "-c", SLEEPER, store], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert child.stdout is not None
    assert child.stdout.readline() == b"ready\n"
    child.kill()
    child.communicate(timeout=60)
    later = time.time_ns() + int(2 * HOUR_S * 1e9)
    take_turn(LOCAL, store, "p", CompactorConfig(), time_ns=lambda: later)
    status = project_status(LOCAL, store, "p")
    assert (status.pending_bytes, status.quarantined, status.records) == (0, 1, 6)
    collected = take_turn(LOCAL, store, "p", CompactorConfig(), time_ns=lambda: later + int(MONTH_S * 1e9))
    assert collected.removed >= 1
    assert verify(store).records == 6
