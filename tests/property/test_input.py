"""Whatever a script passes to the library: a typed error or a kept record, and a run that goes on afterwards."""

from __future__ import annotations

import contextlib
import enum
import math
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import eventlog
from compactor.config import CompactorConfig
from compactor.fold import fold
from eventlog import values
from eventlog.config import WriterConfig
from eventlog.errors import EventLogError, EventLogWarning
from eventlog.fs import LOCAL
from eventlog.run import Run
from eventlog.store import open_store
from eventlog.testing.strategies import HOSTILE_NAMES
from eventlog.verify import verify

QUIET = eventlog.WriterConfig(sync_interval_s=None, inline_bytes=512)
MANY = settings(max_examples=2 * settings.default.max_examples)
ASKED = (
    *("__str__", "__repr__", "__iter__", "__float__", "__int__", "__index__", "__len__", "__bool__", "__eq__"),
    *("__hash__", "__reduce__", "__class__", "item", "tolist", "to_plain", "size", "ndim", "dtype", "value", "keys"),
    *("items", "__getitem__", "__contains__", "__fspath__", "__array__", "numel", "read", "save", "columns"),
)


class SilentError(Exception):
    """What hostile objects raise: an error that cannot even say what it is."""

    def __str__(self) -> str:
        raise self


def raising(base: type, *names: str, error: BaseException | None = None) -> type:
    """Return a subclass of `base` whose methods and attributes of these names raise when they are asked."""

    def ask(*_args: Any, **_named: Any) -> Any:
        raise error or SilentError

    special = {name: ask if name.startswith("__") and name != "__class__" else property(ask) for name in names}
    if "__eq__" in special:
        special.setdefault("__hash__", lambda _self: 7)
    return type(f"Hostile{base.__name__.title()}", (base,), special)


def hostile(base: type, *arguments: Any) -> st.SearchStrategy[Any]:
    """Return objects of a subclass of `base` in which any of what the library may ask raises."""
    names = st.lists(st.sampled_from(ASKED), min_size=1, max_size=4, unique=True)
    errors = st.sampled_from([None, RuntimeError("CUDA error"), RecursionError(), KeyError("\ud800"), MemoryError()])
    return st.builds(lambda asked, error: raising(base, *asked, error=error)(*arguments), names, errors)


class Odd:
    """Looks like a tensor, and answers with something that is none."""

    def __init__(self, answer: Any, size: Any = 1, ndim: Any = 0) -> None:
        self._answer, self.size, self.ndim = answer, size, ndim

    def item(self) -> Any:
        return self._answer

    def tolist(self) -> Any:
        return self

    def to_plain(self, blobs: Any) -> Any:
        del blobs
        return self._answer


class Endless(Mapping):
    """A mapping that never ends, each value of which is the same mapping again."""

    def __getitem__(self, key: Any) -> Any:
        return Endless()

    def __iter__(self) -> Iterator[str]:
        return (str(number) for number in iter(int, 1))

    def __len__(self) -> int:
        return 1


class Color(enum.Enum):
    RED = 1


def cycles() -> list[Any]:
    """Return structures that hold themselves, or that are never complete though they are small."""
    ring: dict[str, Any] = {"number": 1.0}
    ring["left"] = ring["right"] = ring
    loop: list[Any] = []
    loop.extend([loop, loop])
    deep: Any = 1.0
    for _ in range(3000):
        deep = {"a": deep}
    return [ring, {"a": loop}, loop, deep, {"_type": "x", "a": ring}, Odd(loop), (ring, loop)]


NUMBERS = [0, 1, -1, 2**53 + 1, 2**63 - 1, 2**63, -(2**63) - 1, 2**64, 10**30, -(10**400), 10**5000, True, 0.5, 1e308]
NUMBERS += [math.nan, math.inf, -math.inf, -0.0, 5e-324, 1j]
SCALARS = [np.float16(1.5), np.float32(0.1), np.longdouble(1) / 3, np.int8(-1), np.uint64(2**64 - 1), np.bool_(True)]
SCALARS += [np.str_("text"), np.bytes_(b"\xff"), np.datetime64("NaT"), np.timedelta64(1, "s"), np.complex64(1j)]
SCALARS += [np.array(2.5), np.array([[1.0, math.nan]]), np.array([], dtype=object), np.array([object()])]
SCALARS += [np.zeros((), dtype=[("a", "<f8"), ("b", "S3")]), np.array(["\ud800"]), np.ma.masked, np.float64("nan")]
TEXTS = ["", "text", "\0", "\ud800", "a\udcff", "../x", "🦀" * 300, "x" * 4096, "\u202e", "CON", "a.", " a ", "_type"]
OBJECTS = [
    object(),
    object,
    len,
    Color.RED,
    Ellipsis,
    b"",
    b"\xff" * 700,
    bytearray(b"x"),
    memoryview(b"abc"),
    range(3),
]
OBJECTS += [Odd(1.0), Odd(1.0, size=object()), Odd(object()), Odd(Odd), Odd(1, ndim="x"), iter(int, 1), {1, "a"}]
OBJECTS += [{"_type": "table"}, {"_type": 5}, {"_type": "run_start"}, {"a": {}}, {"": {"": 1.0}}, [[], [None]]]
OBJECTS += [{1: 1.0, "1": 2.0}, {None: 1}, {(1, 2): {b"k": "v"}}, eventlog.File("/no/such/file"), Path("x")]
OBJECTS += [(x for x in "abc"), eventlog.Table(["a"], [[object()]]), eventlog.Trace([{"a": object()}]), lambda: 1]


def any_of(items: list[Any]) -> st.SearchStrategy[Any]:
    """Return one of some objects, which are never shown: some have no repr."""
    return st.integers(0, len(items) - 1).map(lambda index: items[index])


leaves = st.one_of(
    any_of([*NUMBERS, *SCALARS, *TEXTS, *OBJECTS]),
    st.none(),
    st.integers(),
    st.floats(),
    st.text(st.characters(), max_size=8),
    st.binary(max_size=8),
    any_of(cycles()),
    *(hostile(*base) for base in ((object,), (dict, {"a": 1.0}), (list, [1.0]), (int, 7), (float, 0.5), (str, "s"))),
)
keys = st.one_of(
    any_of([*TEXTS, *HOSTILE_NAMES, 1, None, 0.5, (1, "a"), b"\xff", True, Color.RED, frozenset()]),
    *(hostile(*base) for base in ((object,), (str, "name"), (int, 7))),
)


def maps(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[Any, Any]]:
    """Return dicts with hostile names; a name that cannot even be put into a dict is left out."""

    def build(pairs: list[tuple[Any, Any]]) -> dict[Any, Any]:
        made: dict[Any, Any] = {}
        for key, value in pairs:
            with contextlib.suppress(Exception):
                made[key] = value
        return made

    return st.lists(st.tuples(keys, inner), max_size=4).map(build)


anything = st.recursive(
    leaves,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.lists(inner, max_size=3).map(tuple), maps(inner)),
    max_leaves=6,
)


class Call(NamedTuple):
    """One call on a run: what it is called, and what it does."""

    name: str
    make: Callable[[Run], Any]


def calls() -> st.SearchStrategy[Call]:
    """Return calls of every method of a run, with anything as arguments."""

    def method(name: str, *arguments: st.SearchStrategy[Any], **named: st.SearchStrategy[Any]) -> Any:
        return st.builds(
            lambda given, more: Call(name, lambda run: getattr(run, name)(*given, **more)),
            st.tuples(*arguments),
            st.fixed_dictionaries({}, optional=named),
        )

    words = st.one_of(st.sampled_from(["minimize", "max", "warn", np.str_("info"), "killed"]), anything)
    return st.one_of(
        method("log", maps(anything)),
        method("log", maps(anything), anything),
        method("log", anything),
        method("log_system", maps(anything) | anything),
        method("alert", anything, anything, words, anything),
        method("define_metric", anything, step_metric=anything, goal=words, summary=words),
        method("on_sealed", anything),
        method("finish", anything.filter(lambda value: value is not None), anything),
        method("flush"),
        st.builds(lambda given: Call("config", lambda run: run.config.update(given)), maps(anything) | anything),
        st.builds(lambda key, value: Call("summary", lambda run: run.summary.__setitem__(key, value)), keys, anything),
    )


def keeps_or_refuses(made: Callable[[], Any]) -> Any:
    """Return what a call returns, or None when it refused with an error of the library; anything else is a fault."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            found, said = made(), "kept"
        except EventLogError as error:
            found, said = None, str(error)
    assert 0 < len(said) < 6000
    for warning in caught:
        foreign = issubclass(warning.category, DeprecationWarning | RuntimeWarning | np.exceptions.ComplexWarning)
        assert foreign or issubclass(warning.category, EventLogWarning)
        assert len(str(warning.message)) < 6000
    return found


def goes_on(run: Run, root: str) -> None:
    """Log one more, finish, account for every record, and read all of it in two ways."""
    run.log({"at the end": 42.0}, step=7)
    run.finish()
    for _ in range(2):
        report = verify(root)
        assert (report.findings, report.lost, report.gaps) == ([], 0, 0)
        assert report.dropped == run.lost
        store = open_store(root)
        found = store.metrics(run.project, names=["at the end"])
        assert [value for value in found["at the end"].to_pylist() if value is not None] == [42.0]
        (row,) = store.runs(run.project).to_pylist()
        assert (row["run_id"], row["status"]) == (run.id, "finished")
        for name in store.metric_names(run.project):
            store.curve(run.project, run.id, name, max_points=10)
        for payload in store.events(run.project)["payload"].to_pylist():
            values.from_json(payload)
        fold(LOCAL, root, run.project, CompactorConfig())


@contextlib.contextmanager
def current_directory() -> Iterator[None]:
    """Be in a directory of which also the parent goes afterwards: some names lead there."""
    with tempfile.TemporaryDirectory() as parent:
        inner = os.path.join(parent, "inner")
        os.mkdir(inner)
        with contextlib.chdir(inner):
            yield


@given(st.lists(calls(), min_size=1, max_size=10))
def test_any_arguments_are_kept_or_refused_and_the_run_goes_on(steps):
    with tempfile.TemporaryDirectory() as root:
        run = eventlog.init("p", "n", dir=root, settings=QUIET)
        for call in steps:
            keeps_or_refuses(lambda call=call: call.make(run))
        if run.writer_id and not run._finished:
            goes_on(run, root)
        assert verify(root).findings == []


@MANY
@given(
    st.fixed_dictionaries(
        {},
        optional={
            "project": st.sampled_from([*TEXTS, *HOSTILE_NAMES]) | anything,
            "name": keys | anything,
            "config": maps(anything) | anything,
            "group": anything,
            "tags": st.lists(keys, max_size=3)
            | anything.filter(lambda value: type(value).__name__ != "callable_iterator"),
            "dir": st.sampled_from(["", "\0", "\ud800", "x" * 5000, b"bytes", 7, None, "file/below"]) | leaves,
            "resume": st.sampled_from(["allow", "must", "never", "", None, True]) | anything,
            "id": keys | anything,
            "settings": anything,
        },
    )
)
def test_any_arguments_of_init_start_a_run_or_are_refused(options):
    with current_directory():
        Path("file").write_bytes(b"")
        options.setdefault("dir", "store")
        run = keeps_or_refuses(lambda: eventlog.init(**options))
        if run is None:
            return
        if run.lost or not os.path.isdir(run.dir):
            keeps_or_refuses(run.finish)
            return
        goes_on(run, run.dir)
        assert open_store(run.dir).runs(run.project)["name"].to_pylist() == [run.name]


@MANY
@given(
    st.fixed_dictionaries(
        {},
        optional={
            field: st.sampled_from([*fitting, None, 0, -1, 1e400, math.nan, 2**64, "", "x", "\0", "\ud800"]) | anything
            for field, fitting in {
                "sync_interval_s": [0.001, 1, 3600.0],
                "segment_bytes": [4096, 2**20],
                "roll_interval_s": [0.001, 60],
                "inline_bytes": [256, 2**20],
                "on_error": ["warn", "raise"],
                "network_mount": ["spool", "refuse", "allow"],
                "spool_dir": ["spool"],
            }.items()
        },
    )
)
def test_any_settings_are_refused_or_a_run_logs_with_them(settings_):
    made = keeps_or_refuses(lambda: WriterConfig(**settings_))
    if made is not None:
        with tempfile.TemporaryDirectory() as root:
            goes_on(eventlog.init("p", "n", dir=root, settings=made), root)


VARIABLES = ["EVENTLOG_DIR", "EVENTLOG_PROJECT", "EVENTLOG_RUN_ID", "EVENTLOG_RUN_NAME", "EVENTLOG_SYNC_INTERVAL_S"]
VARIABLES += ["EVENTLOG_ON_ERROR", "EVENTLOG_NETWORK_MOUNT", "EVENTLOG_SPOOL_DIR", "RANK", "WORLD_SIZE", "SLURM_PROCID"]
WORDS = [
    "",
    "0",
    "-1",
    "off",
    "OFF",
    "nan",
    "inf",
    "1e400",
    "9" * 5000,
    "٣",
    "raise",
    "spool",
    "store",
    "../x",
    "x" * 4096,
]
words = st.sampled_from([*WORDS, "🦀", "CON", "\udcff", " "]) | st.text(
    st.characters(exclude_characters="\0"), max_size=6
)


@MANY
@given(st.dictionaries(st.sampled_from(VARIABLES), words, max_size=4))
@example({"EVENTLOG_ON_ERROR": "\udcff"})
def test_any_environment_is_refused_or_a_run_logs_under_it(variables):
    with current_directory(), pytest.MonkeyPatch.context() as patch:
        for name in VARIABLES:
            patch.delenv(name, raising=False)
        for name, text in variables.items():
            # No process can be given other surrogates; and Arrow opens no file in a directory whose name is no UTF-8.
            with contextlib.suppress(UnicodeEncodeError):
                patch.setenv(name, text.replace("\udcff", "x") if name == "EVENTLOG_DIR" else text)
        run = keeps_or_refuses(eventlog.init)
        if run is None:
            return
        if run.lost or not os.path.isdir(run.dir):
            keeps_or_refuses(run.finish)
            return
        goes_on(run, run.dir)
