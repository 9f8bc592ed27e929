"""The fast way through a segment and the plain one give the same rows."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventlog import tail
from eventlog.columns import Batch
from eventlog.config import WriterConfig
from eventlog.manifest import Watermark
from eventlog.testing import CrashFs, FakeClock, Script, contents, play, scripts, strategies

ROOT, PROJECT = "/store", "p"
BIG = WriterConfig(sync_interval_s=None)


def played(stores: list[Script], *, config: WriterConfig = BIG) -> CrashFs:
    fs, clock = CrashFs(), FakeClock(tick_ns=1000)
    for script in stores:
        play(script, fs, ROOT, PROJECT, config=config, time_ns=clock.time_ns)
    return fs


def fast_rows(fs: CrashFs, budget_bytes: int = 1 << 40) -> tuple[list[contents.Row], dict[str, int]]:
    batch = Batch()
    for writer_id in tail.writers(fs, ROOT, PROJECT):
        mark, more = Watermark(), True
        while more:
            found = tail.WriterReader(fs, ROOT, PROJECT, writer_id, mark, batch).read(budget_bytes)
            mark, more = found.watermark, found.more
            assert found.gaps == []
            assert found.damages == []
    return contents.of_batch(batch), batch.checksums()


@pytest.mark.invariant(8)
@given(strategies.stores(), st.sampled_from([1 << 40, 20_000, 1]))
def test_the_fast_path_gives_the_rows_of_the_plain_one(store, budget_bytes):
    fs = played(store)
    rows, _ = fast_rows(fs, budget_bytes)
    assert rows == contents.of_segments(fs, ROOT, PROJECT)


@given(strategies.stores(), st.sampled_from([20_000, 1]))
def test_reading_in_many_goes_gives_the_checksums_of_reading_at_once(store, budget_bytes):
    fs = played(store, config=scripts.QUIET)
    assert fast_rows(fs, budget_bytes) == fast_rows(fs)


def check_loop(steps: list[int | None], metric_names: tuple[str, ...] = ("loss",)) -> None:
    calls = [scripts.Log({name: float(i) for name in metric_names}, step) for i, step in enumerate(steps)]
    fs = played([Script("run-a", 3, tuple(calls))])
    rows, _ = fast_rows(fs)
    assert rows == contents.of_segments(fs, ROOT, PROJECT)
    assert [row.step for row in rows] == steps


@pytest.mark.parametrize("edge", strategies.STEP_EDGES)
def test_steps_across_the_edges_of_their_encoding_are_read_exactly(edge):
    low, high = max(edge - 100, -(2**63)), min(edge + 100, 2**63 - 1)
    check_loop(list(range(low, high + 1)))
    check_loop(list(range(high, low - 1, -1)))


def test_rows_without_a_step_are_read_between_rows_with_one():
    check_loop([None] * 64)
    check_loop([*range(64), None, *range(64), *[None] * 64, *range(300, 364)])
    check_loop([None if index % 40 == 39 else index for index in range(200)])


@pytest.mark.parametrize("width", [0, 1, 3, 31, 32, 33, 8192])
def test_wide_and_empty_rows_are_read_alike(width):
    check_loop(list(range(40)), tuple(f"m{index}" for index in range(width)))


def test_many_shapes_are_read_alike_when_their_numbers_outgrow_one_byte():
    calls = [
        scripts.Log({f"m{shape}": float(i)}, i) for shape in range(300) for i in range(40 if shape % 50 > 47 else 1)
    ]
    fs = played([Script("run-a", None, tuple(calls))])
    rows, _ = fast_rows(fs)
    assert rows == contents.of_segments(fs, ROOT, PROJECT)
    assert len(rows) == len(calls)


@given(st.lists(strategies.nan_payloads() | strategies.floats(), min_size=64, max_size=64))
def test_every_float_keeps_its_bits(numbers):
    fs = played([Script("run-a", None, tuple(scripts.Log({"x": number}, i) for i, number in enumerate(numbers)))])
    rows, _ = fast_rows(fs)
    assert rows == contents.of_segments(fs, ROOT, PROJECT)
    expected = [contents.cell(number) for number in numbers]
    assert [row.cells[0][1] for row in rows] == expected
