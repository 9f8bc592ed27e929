"""Arguments that raise, never end, or fit nowhere: each costs itself, is named, and leaves nothing behind."""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pytest

import eventlog
from eventlog import facts, frame, schema, values
from eventlog.config import WriterConfig, read_environment
from eventlog.errors import EventLogError, EventLogWarning, StorageError, UsageError
from eventlog.verify import verify


class SilentError(Exception):
    """An error that cannot say what it is."""

    def __str__(self) -> str:
        raise self


class Mute:
    """An object that raises such an error whatever it is asked."""

    def __str__(self) -> str:
        raise SilentError

    __repr__ = __bool__ = __len__ = __iter__ = __float__ = __int__ = __fspath__ = __str__  # type: ignore[assignment]

    def __eq__(self, other: object) -> bool:
        raise SilentError

    def __hash__(self) -> int:
        return 1

    @property
    def item(self) -> Any:
        raise SilentError

    value = to_plain = tolist = item


def test_a_name_a_value_and_a_step_that_raise_are_told_and_the_rest_is_kept(start: Any, back: Any):
    run = start()
    run.log({"a": 0.0})
    with pytest.warns(EventLogWarning) as caught:
        run.log({Mute(): 1.0, "bad": Mute(), "inner": {Mute(): 1.0, "b": 2.0}, "a": 3.0}, step=Mute())
    assert sorted(str(warning.message).split(": ", 1)[1] for warning in caught) == [
        "'(a key of type Mute)' was not kept: SilentError: it cannot say why",
        "'bad' was not kept: SilentError: it cannot say why",
        "'inner/(a key of type Mute)' was not kept: SilentError: it cannot say why",
        "the step cannot be read (SilentError: it cannot say why); the record is kept without a step",
    ]
    assert [(call.step, call.numbers) for call in back.calls()] == [(0, {"a": 0.0}), (None, {"inner/b": 2.0, "a": 3.0})]


def test_every_method_refuses_what_it_cannot_read_by_an_error_of_its_own(start: Any, back: Any):
    run = start()
    for call in (
        lambda: run.log(Mute()),
        lambda: run.log(iter(int, 1)),
        lambda: run.log_system(Mute()),
        lambda: run.alert(Mute()),
        lambda: run.alert("t", level=Mute()),
        lambda: run.define_metric(Mute()),
        lambda: run.define_metric("m", goal=Mute()),
        lambda: run.on_sealed(Mute()),
        lambda: run.config.update(Mute()),
        lambda: run.finish(Mute()),
        lambda: run.finish("done"),
        lambda: run.finish(exit_code=1 << 64),
        lambda: run.finish(exit_code=None),
        lambda: eventlog.Histogram(Mute()),
        lambda: eventlog.Histogram([1.0], bins="x"),
        lambda: eventlog.Table(["a"], Mute()),
        lambda: eventlog.Table(["a"], 5),
        lambda: eventlog.Table(["a"]).add_data(*[Mute()] * 2),
        lambda: eventlog.Trace([5]),
        lambda: eventlog.File(Mute()),
        lambda: eventlog.Image(Mute()),
        lambda: eventlog.Audio([0.5], sample_rate="8 kHz"),
        lambda: eventlog.Markdown(Mute()),
        *(lambda name=name: eventlog.init(**{name: Mute()}) for name in INIT),
        lambda: eventlog.init(dir="a\0b"),
        lambda: eventlog.init(dir="\ud800"),
        lambda: eventlog.init(resume=5),
        lambda: eventlog.init(tags=5),
    ):
        with pytest.raises(UsageError):
            call()
    run.log({"a": 1.0})
    run.finish(np.str_("failed"), np.int64(3))
    assert [call.numbers for call in back.calls()] == [{"a": 1.0}]
    assert [(end.status, end.exit_code) for end in back.of_kind(schema.RunEnd)] == [("failed", 3)]


INIT = ("project", "name", "id", "group", "tags", "config", "dir", "resume", "settings")


def test_what_holds_itself_twice_is_left_out_at_once(start: Any, back: Any):
    ring: dict[str, Any] = {"number": 1.0}
    ring["left"] = ring["right"] = ring
    loop: list[Any] = []
    loop += [loop, loop]
    with pytest.warns(EventLogWarning, match="not kept") as caught:
        start(config={"ring": ring}).log({"ring": ring, "loop": loop})
    assert back.only_call().numbers == {"ring/number": 1.0}
    assert [str(warning.message).split(" was ")[0].split(" ")[-1] for warning in caught] == [
        "'ring'",
        "'ring/left'",
        "'ring/right'",
        "'loop'",
    ]


class Endless(Mapping):
    """A mapping that never ends."""

    def __getitem__(self, key: Any) -> Any:
        return 1.0

    def __iter__(self) -> Iterator[str]:
        return map(str, iter(object, None))

    def __len__(self) -> int:
        return 1


def test_what_is_small_and_never_complete_ends_at_a_limit(start: Any, back: Any, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(values, "MAX_ITEMS", 1000)
    monkeypatch.setattr(values, "MAX_NAMES", 1000)
    lists: Any = [1.0]
    maps: Any = {"n": 1.0}
    for _ in range(50):
        lists = [lists, lists]
        maps = {"l": maps, "r": maps}
    run = start()
    with pytest.warns(EventLogWarning, match="more than 1000") as caught:
        run.log({"lists": lists, "maps": maps, "endless": Endless(), "typed": {"_type": "x", "v": Endless()}, "a": 2.0})
    assert len(caught) < 200
    found = back.only_call().numbers
    assert found.pop("a") == 2.0
    assert 900 < len(found) <= 1100


def test_limits_leave_room_for_what_people_log(start: Any, back: Any):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        start().log({"many": {str(number): float(number) for number in range(20_000)}, "long": list(range(200_000))})
    assert len(back.only_call().numbers) == 20_000


def test_a_numpy_longdouble_is_a_number(start: Any, back: Any):
    start().log({"a": np.longdouble("0.5"), "b": [np.longdouble(2)]})
    call = back.only_call()
    assert (call.numbers, call.others) == ({"a": 0.5}, {"b": [2.0]})


@pytest.mark.parametrize("values_", [{"config": {"a": "x" * 5000}}, {"name": "x" * 5000}, {"tags": ["x" * 5000]}])
def test_a_start_that_no_frame_holds_is_refused_and_leaves_no_thread_and_no_file_open(
    store: str, monkeypatch: pytest.MonkeyPatch, values_: dict[str, Any]
):
    monkeypatch.setattr(frame, "MAX_PAYLOAD_BYTES", (1 << 12) - 1)
    before = threading.active_count(), len(os.listdir("/proc/self/fd"))
    with pytest.raises(UsageError, match="too large"):
        eventlog.init("p", dir=store, **values_)
    for thread in threading.enumerate():
        if thread.name.startswith("eventlog-sync"):
            thread.join()
    assert (threading.active_count(), len(os.listdir("/proc/self/fd"))) == before
    assert verify(store).findings == []


def test_names_that_no_frame_holds_are_refused_and_the_run_goes_on(
    start: Any, back: Any, store: str, monkeypatch: pytest.MonkeyPatch
):
    run = start()
    monkeypatch.setattr(frame, "MAX_PAYLOAD_BYTES", (1 << 12) - 1)
    for _ in range(2):
        with pytest.raises(UsageError, match="too large"):
            run.log({"x" * 5000: 1.0})
    run.log({"a": 1.0})
    run.finish()
    assert back.only_call().numbers == {"a": 1.0}
    assert verify(store).findings == []


def test_where_warnings_are_errors_the_record_is_kept_first(start: Any, back: Any):
    run = start()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(EventLogWarning):
            run.log({"a": 1.0, "bad": object()}, step="x")
        with pytest.raises(EventLogWarning):
            run.log_system({"cpu": 1.0, "other": object()})
        with pytest.raises(EventLogWarning):
            run.config.update({"lr": 1.0, "worse": object()})
    assert back.only_call().numbers == {"a": 1.0}
    assert len(back.calls(schema.System)) == 1
    assert [patch.values for patch in back.of_kind(schema.ConfigPatch)] == [{"lr": 1.0}]


def test_what_a_callback_raises_ends_neither_the_sync_nor_the_finish(start: Any, back: Any):
    def fail(path: str) -> None:
        raise RuntimeError(path)

    run = start(settings=WriterConfig(sync_interval_s=0.01, segment_bytes=4096))
    run.on_sealed(fail)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for index in range(500):
            run.log({"a": float(index)})
        run.finish()
    assert [path[-4:] for path in back.files()] == [".seg"] * len(back.files())
    assert len(caught) == len(back.files()) > 2
    assert "on_sealed failed" in str(caught[0].message)


@pytest.mark.parametrize(
    "settings",
    [
        {"sync_interval_s": float("inf")},
        {"sync_interval_s": 1e7},
        {"sync_interval_s": "1"},
        {"segment_bytes": "x"},
        {"segment_bytes": 1e9},
        {"roll_interval_s": "1"},
        {"roll_interval_s": float("nan")},
        {"inline_bytes": 512.5},
        {"on_error": "ignore"},
        {"network_mount": None},
        {"spool_dir": "a\0b"},
        {"spool_dir": 5},
        {"ship_interval_s": 0},
        {"ship_interval_s": None},
        {"ship_flush_s": -1},
        {"ship_flush_s": float("inf")},
    ],
    ids=str,
)
def test_settings_of_another_type_or_beyond_what_a_thread_can_wait_are_refused(settings: dict[str, Any]):
    with pytest.raises(UsageError, match=next(iter(settings))):
        WriterConfig(**settings)


def test_odd_environments_do_not_stop_a_start(start: Any, back: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Any):
    assert read_environment({"RANK": "9" * 5000, "SLURM_PROCID": "3", "WORLD_SIZE": "9" * 30}).rank == 3
    with pytest.raises(UsageError, match="sync_interval_s"):
        read_environment({"EVENTLOG_SYNC_INTERVAL_S": "1e400"})
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "HEAD").write_bytes(b"ref: refs/\0/x")
    assert facts.git(str(tmp_path)) == {}
    monkeypatch.setattr("sys.argv", [b"train.py", 5, "\udcff"])
    start()
    assert back.of_kind(schema.RunStart)[0].argv == ["b'train.py'", "5", "\\udcff"]
    monkeypatch.delattr("sys.argv")
    start()


def test_a_current_directory_that_is_gone_is_an_error_of_the_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any
):
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    with pytest.raises(StorageError, match="current directory"):
        eventlog.init("p")
    eventlog.init("p", dir=tmp_path / "store").finish()


def test_one_tag_may_be_a_text_and_an_empty_directory_is_the_default(monkeypatch: pytest.MonkeyPatch, tmp_path: Any):
    monkeypatch.chdir(tmp_path)
    with eventlog.init("p", tags="night", dir="") as run:
        assert run.dir == str(tmp_path / "eventlog-store")
        assert run._info.tags == ["night"]


def test_each_error_is_one_of_the_library():
    assert issubclass(UsageError, EventLogError)
    with pytest.raises(EventLogError):
        eventlog.init("p", dir=5)
