"""The order-free checksum: any lost, doubled or changed row changes it; order, batches and columns do not."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from eventlog import arrow, proof
from eventlog.checksum import MASK, event_hash
from eventlog.columns import EventRow, block_checksum
from eventlog.gather import Block
from eventlog.testing import strategies


@st.composite
def blocks(draw: st.DrawFn) -> Block:
    rows = draw(st.integers(1, 6))
    metric_names = tuple(draw(st.lists(strategies.metric_names(), max_size=3, unique=True)))
    steps = draw(st.lists(strategies.steps(), min_size=rows, max_size=rows))
    has_step = np.array([step is not None for step in steps])
    numbers = st.lists(st.floats(allow_nan=False), min_size=len(metric_names), max_size=len(metric_names))
    values = [draw(numbers) for _ in range(rows)]
    return Block(
        draw(strategies.run_ids()),
        draw(st.none() | st.integers(0, 3)),
        draw(st.sampled_from(["writer-a", "writer-b"])),
        metric_names,
        np.arange(rows, dtype=np.int64) + draw(st.integers(1, 2**40)),
        np.array(draw(st.lists(st.integers(0, 2**62), min_size=rows, max_size=rows)), np.int64),
        np.array([step or 0 for step in steps], np.int64) if has_step.any() else None,
        None if has_step.all() or not has_step.any() else has_step,
        np.array(values, np.float64).reshape(rows, len(metric_names)),
    )


def rows_of(block: Block, index: list[int]) -> Block:
    def pick(column):
        return None if column is None else column[index]

    return block._replace(
        seq=block.seq[index],
        time_ns=block.time_ns[index],
        step=pick(block.step),
        has_step=pick(block.has_step),
        values=block.values[index],
    )


@pytest.mark.invariant(8)
@given(blocks(), st.randoms())
def test_order_and_batches_do_not_change_it(block, random):
    order = list(range(len(block.seq)))
    random.shuffle(order)
    cut = random.randrange(len(order) + 1)
    parts = [part for part in (order[:cut], order[cut:]) if part]
    assert sum(block_checksum("metrics", rows_of(block, part)) for part in parts) & MASK == block_checksum(
        "metrics", block
    )


@pytest.mark.invariant(8)
@given(blocks(), st.data())
def test_a_lost_or_doubled_row_changes_it(block, data):
    whole = list(range(len(block.seq)))
    lost = data.draw(st.sampled_from(whole))
    checksum = block_checksum("metrics", block)
    rest = [index for index in whole if index != lost]
    assert not rest or block_checksum("metrics", rows_of(block, rest)) != checksum
    assert block_checksum("metrics", rows_of(block, [*whole, lost])) != checksum


@pytest.mark.invariant(8)
@given(blocks(), st.data())
def test_one_changed_cell_changes_it(block, data):
    row = data.draw(st.integers(0, len(block.seq) - 1))
    field = data.draw(st.sampled_from(["seq", "time_ns", "step", "values"]))
    column = getattr(block, field)
    assume(column is not None and column.size)
    assume(field != "step" or block.has_step is None or block.has_step[row])
    changed = column.copy()
    bits = changed.reshape(len(block.seq), -1)[row].view(np.uint64)
    bits[-1] ^= np.uint64(1 << data.draw(st.integers(0, 63)))
    assert block_checksum("metrics", block._replace(**{field: changed})) != block_checksum("metrics", block)


@pytest.mark.invariant(8)
@given(blocks(), st.data())
def test_another_run_writer_rank_name_or_missing_step_changes_it(block, data):
    checksum = block_checksum("metrics", block)
    for other in (
        block._replace(run_id=block.run_id + "x"),
        block._replace(writer_id=block.writer_id + "x"),
        block._replace(rank=4),
        block._replace(step=None, has_step=None) if block.step is not None else block._replace(rank=4),
        block._replace(names=tuple(name + "x" for name in block.names)) if block.names else block._replace(rank=4),
    ):
        assert block_checksum("metrics", other) != checksum
    assert data is not None


@pytest.mark.invariant(8)
@given(st.lists(blocks(), min_size=1, max_size=4))
def test_it_is_recomputed_from_the_table_that_the_rows_became(found):
    rows = arrow.blocks_to_rows("metrics", [b._replace(writer_id=f"writer-{i}") for i, b in enumerate(found)]).table
    expected = sum(block_checksum("metrics", b._replace(writer_id=f"writer-{i}")) for i, b in enumerate(found)) & MASK
    assert proof.rows_checksum("metrics", rows) == expected


@pytest.mark.invariant(8)
@given(st.integers(0, 7), st.text(max_size=5))
def test_one_changed_cell_of_an_event_changes_it(field, text):
    row = EventRow("run-a", "text", "note", None, 1, "writer-a", 1, '"x"')
    cells = list(row)
    cells[field] = text if isinstance(cells[field], str) else len(text) + 2
    assume(tuple(cells) != tuple(row))
    assert event_hash(cells) != event_hash(row)


@pytest.mark.invariant(8)
def test_cells_of_an_event_cannot_trade_places():
    one = EventRow("run-a", "text\0str:x", "y", None, 1, "writer-a", 1, "{}")
    other = EventRow("run-a", "text", "x\0str:y", None, 1, "writer-a", 1, "{}")
    assert event_hash(one) != event_hash(other)
