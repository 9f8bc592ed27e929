"""Segments under cuts and flipped bits: what comes out was logged, and damage costs no more than the frames it hits."""

from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventlog import names, schema, segment, tail
from eventlog.columns import Batch
from eventlog.config import WriterConfig
from eventlog.manifest import Watermark
from eventlog.testing import CrashFs, FakeClock, Script, contents, play, scripts, strategies

ROOT, PROJECT = "/store", "p"
ONE_SEGMENT = WriterConfig(sync_interval_s=None)


class Written(NamedTuple):
    writer_id: str
    data: bytes
    header: segment.Header
    items: list[segment.Item]


def write(script: Script) -> Written | None:
    """Return the only segment that a script writes, with the seal when it closes."""
    fs = CrashFs()
    writer_id = play(script, fs, ROOT, PROJECT, config=ONE_SEGMENT, time_ns=FakeClock(tick_ns=1000).time_ns).writer_id
    directory = names.writer_dir(ROOT, PROJECT, writer_id)
    files = [fs.read(f"{directory}/{entry.name}") for entry in fs.entries(directory)]
    if not files:
        return None
    header = segment.parse_header(files[0], directory)
    items = [item for item in segment.items(files[0], header) if isinstance(item, segment.Item)]
    return Written(writer_id, files[0], header, items)


def store_with(writer_id: str, data: bytes, *, sealed: bool) -> CrashFs:
    fs = CrashFs()
    directory = names.writer_dir(ROOT, PROJECT, writer_id)
    fs.make_dirs(directory)
    fd = fs.create(f"{directory}/{names.segment_name(1, sealed=sealed)}")
    fs.write(fd, data)
    fs.close(fd)
    return fs


class Read(NamedTuple):
    rows: list[contents.Row]
    gaps: list[tuple[int, int]]
    damages: list[tail.Damaged]
    mark: Watermark


def read(writer_id: str, data: bytes, *, sealed: bool, budget_bytes: int = 1 << 40) -> Read:
    """Read with the fast path; with a small budget in many goes, each from the watermark of the one before."""
    fs = store_with(writer_id, data, sealed=sealed)
    batch, mark = Batch(), Watermark()
    gaps: list[tuple[int, int]] = []
    damages: list[tail.Damaged] = []
    more = True
    while more:
        found = tail.WriterReader(fs, ROOT, PROJECT, writer_id, mark, batch).read(budget_bytes)
        gaps += [(gap.first_seq, gap.last_seq) for gap in found.gaps]
        damages += found.damages
        mark, more = found.watermark, found.more
    return Read(contents.of_batch(batch), gaps, damages, mark)


def records_in(data: bytes, header: segment.Header) -> list[tuple[int, bytes]]:
    return [
        (item.seq, data[item.offset + 14 : item.end])
        for item in segment.items(data, header)
        if isinstance(item, segment.Item) and not isinstance(item.record, schema.STRUCTURAL)
    ]


@pytest.mark.invariant(2)
@given(strategies.writer_scripts(rolls=False), st.data())
def test_any_prefix_of_a_segment_scans_to_a_prefix_of_its_records(script, data):
    written = write(script)
    if written is None:
        return
    size = data.draw(st.integers(0, len(written.data)))
    whole = records_in(written.data, written.header)
    prefix = written.data[:size]
    found = records_in(prefix, written.header)
    assert found == whole[: len(found)]
    complete = [item for item in written.items if item.end <= size]
    assert len(found) == sum(not isinstance(item.record, schema.STRUCTURAL) for item in complete)
    result = read(written.writer_id, prefix, sealed=False)
    last = result.mark.seq
    assert last == len(found)
    assert result.gaps == []
    everything = read(written.writer_id, written.data, sealed=False)
    assert result.rows == [row for row in everything.rows if row.seq <= last]


def flipped(data: bytes, bit: int) -> bytes:
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def check_flip(written: Written, bit: int, *, sealed: bool, clean: Read, budget_bytes: int = 1 << 40) -> None:
    """Assert that a flipped bit is never data and costs at most the record it hits, with its seq as the gap."""
    data = flipped(written.data, bit)
    hit = next((item for item in written.items if item.offset <= bit // 8 < item.end), None)
    # The check of length and seq is only asked when the body is bad: a flip in it alone costs nothing.
    harmless = hit is not None and bit // 8 - hit.offset in (4, 5)
    record_hit = hit is not None and not harmless and not isinstance(hit.record, schema.STRUCTURAL)
    lost = {hit.seq} if record_hit else set()
    assert records_in(data, written.header) == [
        pair for pair in records_in(written.data, written.header) if pair[0] not in lost
    ]
    result = read(written.writer_id, data, sealed=sealed, budget_bytes=budget_bytes)
    assert result.rows == [row for row in clean.rows if row.seq not in lost]
    last_read = max((item.seq for item in written.items if hit is not None and item.offset > hit.offset), default=0)
    known = lost and last_read > max(lost)
    assert result.gaps == ([(seq, seq) for seq in lost] if known else [])
    if known or sealed:
        assert (result.damages != []) == (not harmless)


@pytest.mark.invariant(2)
@given(strategies.writer_scripts(rolls=False), st.booleans(), st.sampled_from([1 << 40, 1]), st.data())
def test_a_flipped_bit_is_never_data_and_costs_only_the_frame_it_hits(script, sealed, budget_bytes, data):
    written = write(script._replace(closes=script.closes or sealed))
    if written is None:
        return
    clean = read(written.writer_id, written.data, sealed=sealed)
    for bit in data.draw(st.lists(st.integers(0, len(written.data) * 8 - 1), min_size=1, max_size=12)):
        check_flip(written, bit, sealed=sealed, clean=clean, budget_bytes=budget_bytes)


SMALL = Script(
    "run-a",
    0,
    (scripts.Log({"loss": 0.5}, 1), scripts.Log({"loss": 0.25, "text": "x"}, 2), scripts.Log({"loss": 0.125}, 3)),
)


@pytest.mark.invariant(2)
@pytest.mark.parametrize("sealed", [False, True])
def test_no_bit_of_a_small_segment_can_flip_into_data(sealed):
    written = write(SMALL._replace(closes=sealed))
    assert written is not None
    clean = read(written.writer_id, written.data, sealed=sealed)
    for bit in range(len(written.data) * 8):
        check_flip(written, bit, sealed=sealed, clean=clean)


@pytest.mark.invariant(2)
def test_a_flipped_bit_in_a_long_stretch_of_like_frames_costs_one_row():
    calls = tuple(scripts.Log({"loss": index / 7, "acc": -index / 3}, index) for index in range(200))
    written = write(Script("run-a", None, calls))
    assert written is not None
    clean = read(written.writer_id, written.data, sealed=True)
    assert len(clean.rows) == 200
    for bit in range(3, len(written.data) * 8, 911):
        check_flip(written, bit, sealed=True, clean=clean)


@pytest.mark.invariant(2)
@given(strategies.writer_scripts(rolls=False), st.binary(max_size=200), st.data())
def test_overwritten_bytes_never_become_a_row_that_was_not_logged(script, junk, data):
    written = write(script)
    if written is None:
        return
    at = data.draw(st.integers(0, len(written.data)))
    damaged = written.data[:at] + junk + written.data[at + len(junk) :]
    clean = read(written.writer_id, written.data, sealed=False)
    assert set(read(written.writer_id, damaged, sealed=False).rows) <= set(clean.rows)
    assert set(records_in(damaged, written.header)) <= set(records_in(written.data, written.header))
