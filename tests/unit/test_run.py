"""The run: what each method keeps, what it says when it cannot, and how a run ends."""

from __future__ import annotations

import os
import pickle
from typing import Any

import numpy as np
import pytest

import eventlog
from eventlog import EventLogWarning, UsageError, names, schema
from eventlog.config import WriterConfig
from eventlog.fs import LOCAL
from eventlog.identity import RunInfo
from eventlog.run import Run

HUGE = 10**5000


def test_a_new_run_is_on_disk_before_anything_is_logged(start: Any, back: Any):
    run = start(name="n", config={"lr": 0.1}, group="g", tags=["t", 5])
    (record,) = back.of_kind(schema.RunStart)
    assert (record.run_id, record.project, record.name, record.group) == (run.id, "p", "n", "g")
    assert (record.tags, record.config, record.mode, record.parent) == (["t", "5"], {"lr": 0.1}, "new", None)
    assert (record.pid, record.host, record.rank) == (os.getpid(), os.uname().nodename, None)
    assert "python" in record.versions


def test_steps_count_up_by_themselves_and_from_where_the_user_says(start: Any, back: Any):
    run = start()
    run.log({"a": 1.0})
    run.log({"a": 1.0})
    run.log({"a": 1.0}, step=10)
    run.log({"a": 1.0})
    run.log({"a": "text"})
    run.log({"a": 1.0}, step=-3)
    run.log({"a": 1.0})
    assert [call.step for call in back.calls()] == [0, 1, 10, 11, 12, -3, -2]


@pytest.mark.parametrize(
    ("step", "kept"),
    [
        (0, 0),
        (1000.0, 1000),
        (np.int64(5), 5),
        (np.int32(-5), -5),
        (np.float64(7.0), 7),
        (np.array(9), 9),
        (2**63 - 1, 2**63 - 1),
        (-(2**63), -(2**63)),
    ],
    ids=repr,
)
@pytest.mark.parametrize("value", [1.0, "text"])
def test_integer_steps_are_kept(start: Any, back: Any, step: Any, kept: int, value: Any):
    run = start()
    run.log({"a": 1.0}, step=0)
    run.log({"a": value}, step=step)
    run.finish()
    assert [call.step for call in back.calls()] == [0, kept]
    assert len(back.records()) == 4


@pytest.mark.parametrize(
    "step",
    [0.5, 2**63, -(2**63) - 1, float("nan"), float("inf"), "7", True, np.float32(0.5), [1], HUGE],
    ids=["fraction", "above", "below", "nan", "inf", "text", "bool", "float32", "list", "huge"],
)
def test_other_steps_are_warned_about_and_the_record_is_kept_without(start: Any, back: Any, step: Any):
    run = start()
    run.log({"a": 0.0})
    with pytest.warns(EventLogWarning, match="not a 64-bit integer") as caught:
        run.log({"a": 1.0, "b": "x"}, step=step)
    run.log({"a": 2.0}, step=step)
    assert len(caught) == 1
    run.log({"a": 3.0})
    assert [(call.step, call.numbers["a"]) for call in back.calls()] == [(0, 0.0), (None, 1.0), (None, 2.0), (1, 3.0)]


def test_after_the_highest_step_records_are_kept_without_one(start: Any, back: Any):
    run = start()
    run.log({"a": 1.0}, step=2**63 - 1)
    with pytest.warns(EventLogWarning, match="not a 64-bit integer"):
        run.log({"a": 2.0})
    run.log({"a": 3.0})
    run.log({"a": 4.0}, step=5)
    assert [call.step for call in back.calls()] == [2**63 - 1, None, None, 5]
    back.records()


@pytest.mark.parametrize("data", [None, 5, "text", [("a", 1)], {"a"}], ids=repr)
def test_what_is_no_dict_is_refused(start: Any, data: Any):
    with pytest.raises(UsageError, match="takes a dict"):
        start().log(data)


def test_an_empty_call_is_a_record(start: Any, back: Any):
    start().log({})
    assert back.only_call().numbers == {}
    back.records()


def test_a_warning_names_the_key_once_and_points_at_the_caller(start: Any, back: Any):
    run = start()
    with pytest.warns(EventLogWarning, match="'bad' was not kept") as caught:
        run.log({"bad": object(), "good": 1.0})
    assert caught[0].filename == __file__
    run.log({"bad": object(), "good": 2.0})
    assert [call.numbers for call in back.calls()] == [{"good": 1.0}, {"good": 2.0}]


def test_values_may_change_their_type(start: Any, back: Any):
    run = start()
    for value in (1.0, "x", 2, None, True, [1], 3.0):
        run.log({"a": value})
    calls = back.calls()
    assert [call.numbers.get("a") for call in calls] == [1.0, None, 2.0, None, None, None, 3.0]
    assert [call.others.get("a", "-") for call in calls] == ["-", "x", "-", None, True, [1], "-"]
    back.records()


def test_system_metrics_are_numbers(start: Any, back: Any):
    run = start()
    with pytest.warns(EventLogWarning, match="system metrics are numbers"):
        run.log_system({"cpu": 50.0, "gpu": {"0": 10}, "name": "x"})
    (call,) = back.calls(schema.System)
    assert call.numbers == {"cpu": 50.0, "gpu/0": 10.0}
    back.records()


def test_config_is_a_mapping_and_its_changes_are_records(start: Any, back: Any):
    run = start(config={"lr": 0.1, "net": {"depth": 3}})
    run.config["lr"] = 0.2
    run.config.update({"a": 1}, b=np.float32(0.5))
    run.config.update({"c": (1, 2)}, allow_val_change=True)
    assert dict(run.config)["lr"] == 0.2
    assert len(run.config) == 5
    assert [record.values for record in back.of_kind(schema.ConfigPatch)] == [
        {"lr": 0.2},
        {"a": 1, "b": 0.5},
        {"c": [1, 2]},
    ]
    with pytest.raises(UsageError):
        del run.config["lr"]


def test_summary_is_a_mapping_and_its_changes_are_records(start: Any, back: Any):
    run = start()
    run.summary["best"] = 0.5
    run.summary.update({"when": 3})
    assert run.summary == {"best": 0.5, "when": 3}
    assert [record.values for record in back.of_kind(schema.SummarySet)] == [{"best": 0.5}, {"when": 3}]


@pytest.mark.parametrize("bad", [object(), "\ud800", {"a": {"\ud800": 1}}], ids=["object", "text", "key"])
def test_config_that_cannot_be_kept_is_warned_about_and_the_rest_is_kept(start: Any, back: Any, bad: Any):
    with pytest.warns(EventLogWarning, match="'bad' was not kept"):
        run = start(config={"bad": bad, "good": 1})
    with pytest.warns(EventLogWarning, match="'worse' was not kept"):
        run.config.update({"worse": bad, "better": 2})
    with pytest.warns(EventLogWarning, match="'worst' was not kept"):
        run.summary["worst"] = bad
    (record,) = back.of_kind(schema.RunStart)
    assert record.config == {"good": 1}
    assert [patch.values for patch in back.of_kind(schema.ConfigPatch)] == [{"better": 2}]


def test_metrics_are_defined(start: Any, back: Any):
    run = start()
    run.define_metric("loss*", step_metric="epoch", goal="minimize", summary="min")
    (record,) = back.of_kind(schema.MetricDef)
    assert (record.name, record.step_metric, record.goal, record.summary) == ("loss*", "epoch", "minimize", "min")
    for wrong in ({"goal": "down"}, {"summary": "median"}):
        with pytest.raises(UsageError):
            run.define_metric("loss", **wrong)


def test_alerts_are_kept_with_the_step_of_the_last_log(start: Any, back: Any):
    run = start()
    run.alert("before")
    run.log({"a": 1.0}, step=41)
    run.alert("title", "text", level="WARNING")
    run.alert("title", level="error", step=5)
    with pytest.raises(UsageError, match="level"):
        run.alert("title", level="loud")
    alerts = back.of_kind(schema.Alert)
    assert [(alert.title, alert.text, alert.level, alert.step) for alert in alerts] == [
        ("before", "", "warn", None),
        ("title", "text", "warn", 41),
        ("title", "", "error", 5),
    ]
    assert len({alert.alert_id for alert in alerts}) == 3


def test_texts_that_utf8_cannot_hold_do_not_stop_training(start: Any, back: Any):
    run = start()
    run.alert("a\ud800", "b\udcff")
    run.define_metric("c\ud800")
    run.log({"good": 1.0})
    assert back.only_call().numbers == {"good": 1.0}
    assert back.of_kind(schema.Alert)[0].title == "a\\ud800"


def test_finish_seals_says_how_and_is_repeatable(start: Any, back: Any):
    run = start()
    run.log({"a": 1.0})
    run.finish("killed", 9)
    run.finish()
    (end,) = back.of_kind(schema.RunEnd)
    assert (end.run_id, end.status, end.exit_code) == (run.id, "killed", 9)
    assert [path[-4:] for path in back.files()] == [".seg"]
    with pytest.raises(UsageError, match="finished"):
        run.log({"a": 2.0})


def test_a_context_manager_finishes(start: Any, back: Any):
    with start() as run:
        run.log({"a": 1.0})
    assert [end.status for end in back.of_kind(schema.RunEnd)] == ["finished"]


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (RuntimeError("x"), "failed", 1),
        (KeyboardInterrupt(), "failed", 1),
        (SystemExit(2), "failed", 1),
        (SystemExit(0), "finished", 0),
        (SystemExit(None), "finished", 0),
    ],
    ids=repr,
)
def test_a_context_manager_says_failed_when_the_body_raised(
    start: Any, back: Any, error: BaseException, status: str, code: int
):
    with pytest.raises(type(error)), start():
        raise error
    assert [(end.status, end.exit_code) for end in back.of_kind(schema.RunEnd)] == [(status, code)]


def test_flush_makes_durable(store: str, faulty: Any):
    config = WriterConfig(sync_interval_s=None)
    run = Run(store, RunInfo(project="p", run_id="r", name="n"), config=config, fs=faulty)
    run.log({"a": 1.0})
    assert "sync" not in [kind for kind, _ in faulty.calls]
    run.flush()
    assert faulty.calls[-1][0] == "sync"
    run.finish()


@pytest.mark.invariant(11)
def test_blobs_are_on_disk_before_the_record_names_them(store: str, faulty: Any):
    config = WriterConfig(sync_interval_s=None)
    run = Run(store, RunInfo(project="p", run_id="r", name="n"), config=config, fs=faulty)
    faulty.calls.clear()
    run.log({"x": eventlog.File(b"data")})
    kinds = [kind for kind, _ in faulty.calls]
    link = kinds.index("link")
    assert kinds[:link].count("sync") == 1
    assert "sync_dir" in kinds[link:]
    record_write = len(kinds) - 1 - kinds[::-1].index("write")
    assert record_write > link + kinds[link:].index("sync_dir")
    run.finish()


def test_a_blob_that_cannot_be_put_costs_its_value_only(store: str, faulty: Any, back: Any):
    run = Run(store, RunInfo(project="p", run_id="r", name="n"), config=WriterConfig(sync_interval_s=None), fs=faulty)

    def fail(_fd: int, _data: bytes) -> None:
        faulty.before_write = None
        raise OSError(28, "full")

    faulty.before_write = fail
    with pytest.warns(EventLogWarning, match="'x' was not kept: OSError"):
        run.log({"x": b"data", "y": 1.0})
    run.finish()
    assert back.only_call().numbers == {"y": 1.0}


def test_two_runs_in_one_process_do_not_meet(start: Any, back: Any):
    one, two = start(name="one"), start(name="two")
    for step in range(3):
        one.log({"a": float(step)})
        two.log({"a": float(-step), "b": 1.0})
    one.finish()
    two.finish()
    by_run = {run.id: [call.numbers["a"] for call in back.calls() if call.run_id == run.id] for run in (one, two)}
    assert by_run == {one.id: [0.0, 1.0, 2.0], two.id: [0.0, -1.0, -2.0]}
    assert len(back.writers()) == 2
    back.records()


def test_a_run_knows_itself(start: Any, store: str):
    run = start(name="n")
    assert repr(run) == f"Run(project='p', name='n', id={run.id!r})"
    assert (run.project, run.name, run.dir, run.lost) == ("p", "n", store, 0)
    assert names.is_writer_id(run.writer_id)


def test_a_pickled_run_attaches_with_a_writer_of_its_own(start: Any, back: Any):
    run = start(config={"lr": 1})
    run.log({"a": 1.0})
    twin = pickle.loads(pickle.dumps(run))
    assert twin.id == run.id
    assert twin.writer_id != run.writer_id
    twin.log({"a": 2.0})
    twin._writer.close()
    run.finish()
    assert {call.run_id for call in back.calls()} == {run.id}
    assert sorted(call.numbers["a"] for call in back.calls()) == [1.0, 2.0]
    assert sorted(record.mode for record in back.of_kind(schema.RunStart)) == ["attach", "new"]


def test_the_callback_hears_of_sealed_segments(start: Any):
    run = start()
    heard: list[str] = []
    run.on_sealed(heard.append)
    run.finish()
    assert [path[-4:] for path in heard] == [".seg"]
    assert LOCAL.size(heard[0])
