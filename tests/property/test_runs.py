"""Parts of runs merge to the same whatever the order and the grouping, and survive their way through a file."""

import copy
import math
import struct
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventlog import runrows, schema
from eventlog.columns import Batch, Decoder
from eventlog.runs import RunPart, RunParts
from eventlog.testing import strategies

SHAPE = schema.Shape(0, "run-a", None, ["loss", "acc"], 0)


def plain(parts: RunParts) -> dict[str, Any]:
    """Return parts as values that compare: NaN equals NaN, and the total is left to `close`."""
    result = {}
    for run_id, part in parts.parts.items():
        fields = msgspec.to_builtins(part)
        fields["stats"] = {name: [*stat[:2], *stat[3:]] for name, stat in fields["stats"].items()}
        result[run_id] = repr(sorted((key, _sorted(value)) for key, value in fields.items()))
    return result


def _sorted(value: Any) -> Any:
    if isinstance(value, dict):
        return sorted((key, _sorted(inner)) for key, inner in value.items())
    if isinstance(value, float) and value == 0:
        return 0.0
    return [_sorted(inner) for inner in value] if isinstance(value, list | tuple) else value


def totals(parts: RunParts) -> dict[tuple[str, str], float]:
    return {(run_id, name): stat.total for run_id, part in parts.parts.items() for name, stat in part.stats.items()}


def same(one: RunParts, other: RunParts) -> bool:
    mine, theirs = totals(one), totals(other)
    close = mine.keys() == theirs.keys() and all(_close(mine[key], theirs[key]) for key in mine)
    return close and plain(one) == plain(other)


def _close(one: float, other: float) -> bool:
    finite = math.isfinite(one) and math.isfinite(other)
    return not finite or math.isclose(one, other, rel_tol=1e-9, abs_tol=1e-9)


def merged(*parts: RunParts) -> RunParts:
    result = RunParts()
    for part in parts:
        result.merge(copy.deepcopy(part))
    return result


@st.composite
def part_lists(draw: st.DrawFn) -> list[RunParts]:
    """Three parts of the same runs, each from records of its own, of two writers."""
    finite = st.sampled_from([0.0, 1.0, -1.0, 2.5, math.nan, math.inf])
    logs = st.tuples(strategies.steps(), finite, finite)
    found = []
    seq = 1
    for _ in range(3):
        batch = Batch()
        decoder = Decoder(draw(st.sampled_from(["writer-a", "writer-b"])), batch)
        decoder.start_segment({0: SHAPE})
        for step, loss, acc in draw(st.lists(logs, max_size=4)):
            values = struct.pack("<2d", loss, acc)
            decoder.add_record(schema.Log(draw(st.integers(0, 2**62)), step, 0, values), seq)
            seq += 1
        for record in draw(st.lists(strategies.records(), max_size=5)):
            decoder.add_record(schema.decode(schema.encode(record)), seq)
            seq += 1
        decoder.finish()
        found.append(batch.runs)
    return found


@given(part_lists())
def test_parts_merge_to_the_same_in_any_order(parts):
    a, b, c = parts
    whole = merged(a, b, c)
    for order in ((a, c, b), (b, a, c), (b, c, a), (c, a, b), (c, b, a)):
        assert same(merged(*order), whole)


@given(part_lists())
def test_parts_merge_to_the_same_in_any_grouping(parts):
    a, b, c = parts
    assert same(merged(merged(a, b), c), merged(a, merged(b, c)))
    assert same(merged(RunParts(), a), a)


def read_back(parts: RunParts) -> RunParts:
    table = runrows.parts_to_table(copy.deepcopy(list(parts.parts.values())))
    return RunParts(runrows.table_to_parts(table))


def part_of(*records: schema.Record, first_seq: int = 1) -> RunParts:
    batch = Batch()
    decoder = Decoder("writer-a", batch)
    for seq, record in enumerate(records, first_seq):
        decoder.add_record(record, seq)
    return batch.runs


@given(part_lists())
def test_parts_read_back_from_their_table_go_on_as_they_were(parts):
    for part in parts:
        for run in part.parts.values():
            run.config.clear()
            run.summary.clear()
    a, b, c = parts
    assert same(read_back(merged(a, b)), merged(a, b))
    assert same(merged(read_back(merged(a, b)), c), merged(a, b, c))


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_a_config_value_that_json_lacks_is_read_back(number):
    whole = part_of(schema.ConfigPatch(1, "run-a", {"lr": number}), schema.SummarySet(2, "run-a", {"loss": number}))
    assert same(read_back(whole), whole)


def test_the_name_of_a_resumed_run_does_not_depend_on_the_batches():
    first, second = (schema.RunStart(t, "run-a", "p", f"name{t}", mode="resume") for t in (1, 2))
    assert same(part_of(first, second), merged(part_of(first), part_of(second, first_seq=2)))


def test_the_comparison_notices_a_difference():
    one, other = RunParts([RunPart("r", dropped=1)]), RunParts([RunPart("r", dropped=2)])
    assert not same(one, other)
