"""Hypothesis strategies: names, values, log calls, records of every kind, scripts of writers, and small stores."""

from __future__ import annotations

import struct
from typing import Any, Final

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from eventlog import schema
from eventlog.testing import scripts

HOSTILE_NAMES: Final = (
    ".", "..", "../up", "a/b", "a\\b", "/", " ", "\n", "\0", "%", "%41", "%2E", "CON", "con.txt", "nul", "COM1",
    "lpt9.x", "a.", ".a", "-rf", "~", "é", "e\u0301", "日本", "🦀", "\u202e", "\ufeff", "\uff21",
    "x" * 200, "x" * 201, "é" * 67,
    "_step", "_run_id", "._x", "..x", "train/loss", "train.loss", "__index_level_0__", "",
)  # fmt: skip
STEP_EDGES: Final = (
    0,
    1,
    127,
    128,
    255,
    256,
    65_535,
    65_536,
    2**32 - 1,
    2**32,
    2**53 + 1,
    2**63 - 1,
    -1,
    -32,
    -33,
    -(2**63),
)
_RUN_IDS: Final = ("run-a", "run-b", "run-ü")

_text: Final = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
_times: Final = st.integers(0, 2**63 - 1)


class Future(schema.Record, frozen=True, tag=99):
    """A record of a kind that this release does not know."""

    time_ns: int
    run_id: str
    note: str


def project_names() -> SearchStrategy[str]:
    """Names of projects: hostile ones, and any text, lone surrogates included."""
    return st.sampled_from(HOSTILE_NAMES) | st.text(max_size=80)


def metric_names() -> SearchStrategy[str]:
    """Names of metrics that UTF-8 can hold."""
    return st.sampled_from(("loss", "acc", "lr", "train/loss", *HOSTILE_NAMES)) | _text


def nan_payloads() -> SearchStrategy[float]:
    """Quiet NaNs of either sign with any payload."""
    bits = st.builds(lambda sign, low: sign << 63 | 0xFFF << 51 | low, st.integers(0, 1), st.integers(0, 2**51 - 1))
    return bits.map(lambda number: float(struct.unpack("<d", struct.pack("<Q", number))[0]))


def floats() -> SearchStrategy[float]:
    """Any float64."""
    return st.floats() | nan_payloads() | st.sampled_from((0.0, -0.0, 5e-324, 1.7976931348623157e308))


def plain_values(bits: int = 70) -> SearchStrategy[Any]:
    """Whatever people log that is kept inline: numbers, bools, strings, None, and nested lists and dicts of them.

    Records hold integers of at most 63 `bits`; what is logged is made to fit.
    """
    integers = st.integers(-(2**bits), 2**bits)
    leaves = st.none() | st.booleans() | integers | floats() | _text
    return st.recursive(
        leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_text, inner, max_size=3), max_leaves=6
    )


def log_data() -> SearchStrategy[dict[str, Any]]:
    """The dict of one `log()` call; mostly numbers."""
    numbers = st.dictionaries(metric_names(), floats(), max_size=5)
    return numbers | st.dictionaries(metric_names(), plain_values(), max_size=4)


def steps() -> SearchStrategy[int | None]:
    """Steps: none, edges of how integers are encoded, and any 64-bit integer."""
    return st.none() | st.sampled_from(STEP_EDGES) | st.integers(0, 300) | st.integers(-(2**63), 2**63 - 1)


def run_ids() -> SearchStrategy[str]:
    """A few run ids, so that writers share them."""
    return st.sampled_from(_RUN_IDS)


def run_starts() -> SearchStrategy[schema.RunStart]:
    """Starts of runs: new, resumed, attached, forked."""
    return st.builds(
        schema.RunStart,
        _times,
        run_ids(),
        st.just("p"),
        _text,
        st.none() | _text,
        st.lists(_text, max_size=2),
        st.dictionaries(_text, plain_values(63), max_size=3),
        rank=st.none() | st.integers(0, 7),
        mode=st.sampled_from(("new", "resume", "attach", "fork")),
    )


def records() -> SearchStrategy[schema.Record]:
    """Records of every kind that takes a seq and no shape, and one of a kind from the future."""
    times, runs = _times, run_ids()
    fields = st.dictionaries(_text, plain_values(63), max_size=3)
    tombstones = st.one_of(
        st.builds(schema.Admin, times, runs, st.just("rename"), st.fixed_dictionaries({"name": _text})),
        st.builds(schema.Admin, times, runs, st.just("tag"), st.fixed_dictionaries({"tags": st.lists(_text)})),
        st.builds(schema.Admin, times, runs, st.sampled_from(("delete", "undelete", "move"))),
    )
    optional = st.none() | _text
    return st.one_of(
        run_starts(),
        st.builds(schema.ConfigPatch, times, runs, fields),
        st.builds(schema.SummarySet, times, runs, fields),
        st.builds(schema.MetricDef, times, runs, _text, optional, optional, optional),
        st.builds(schema.Alert, times, runs, _text, _text, st.sampled_from(("info", "warn", "error")), steps(), _text),
        st.builds(schema.Console, times, runs, st.sampled_from(("stdout", "stderr")), _text),
        st.builds(schema.Heartbeat, times, runs),
        st.builds(schema.ArtifactVersion, times, runs, _text, _text, _text, _text),
        st.builds(schema.ArtifactUse, times, runs, _text, _text),
        tombstones,
        st.builds(schema.Dropped, times, st.just(""), st.integers(1, 1000), _text, times),
        st.builds(schema.Receipt, times, st.just(""), st.binary(min_size=12, max_size=12)),
        st.builds(schema.Upload, times, runs, st.text(max_size=20), st.just("0" * 64), st.integers(0, 1 << 40)),
        st.builds(schema.RunEnd, times, runs, st.sampled_from(("finished", "failed")), st.integers(0, 255)),
        st.builds(Future, times, runs, _text),
    )


@st.composite
def stretches(draw: st.DrawFn) -> list[scripts.Action]:
    """Calls of one loop: the same names again and again, with steps that cross the edges of their encoding."""
    count = draw(st.integers(1, 120))
    metrics = draw(st.lists(metric_names(), max_size=3, unique=True))
    numbers = draw(st.lists(floats(), min_size=1, max_size=5))
    start = draw(st.none() | st.sampled_from(STEP_EDGES).map(lambda edge: edge - 40) | st.integers(0, 70_000))
    stride = draw(st.sampled_from((1, 1, 1, 0, -1, 1000)))
    odd = draw(st.none() | st.integers(0, count - 1))
    calls: list[scripts.Action] = []
    for index in range(count):
        data = {name: numbers[(index + at) % len(numbers)] for at, name in enumerate(metrics)}
        step = None if start is None else max(min(start + index * stride, 2**63 - 1), -(2**63))
        if index == odd:
            step = draw(steps())
        calls.append(scripts.Log(data, step))
    return calls


@st.composite
def writer_scripts(draw: st.DrawFn, *, rolls: bool = True) -> scripts.Script:
    """What one writer does: loops, single calls, other records, rolls and syncs."""
    system = st.builds(scripts.System, st.dictionaries(metric_names(), floats(), max_size=3))
    single = st.one_of(st.builds(scripts.Log, log_data(), steps()), system, st.builds(scripts.Append, records()))
    parts = stretches() | st.lists(single, max_size=6)
    if rolls:
        parts |= st.just([scripts.Roll()]) | st.just([scripts.Sync()])
    actions = [action for part in draw(st.lists(parts, max_size=5)) for action in part]
    rank = draw(st.none() | st.integers(0, 7))
    return scripts.Script(draw(run_ids()), rank, tuple(actions), draw(st.booleans()))


def stores(max_writers: int = 3) -> SearchStrategy[list[scripts.Script]]:
    """What the writers of a small store do, one after the other."""
    return st.lists(writer_scripts(), min_size=1, max_size=max_writers)
