"""`init` and the module-level functions: names, environment, resuming, and where the records go."""

from __future__ import annotations

import os
import threading
from typing import Any

import pytest

import eventlog
from eventlog import EventLogWarning, UsageError, schema, session
from eventlog.config import WriterConfig
from eventlog.errors import StorageError
from eventlog.spool import Spool


def test_the_module_level_functions_speak_to_the_current_run(start: Any, back: Any):
    run = start()
    assert eventlog.current_run() is run
    eventlog.log({"a": 1.0}, step=3)
    eventlog.log_system({"cpu": 2.0})
    eventlog.alert("title", "text", "error", 5)
    eventlog.finish()
    assert (back.only_call().numbers, back.only_call().step) == ({"a": 1.0}, 3)
    assert back.calls(schema.System)[0].numbers == {"cpu": 2.0}
    (alert,) = back.of_kind(schema.Alert)
    assert (alert.title, alert.text, alert.level, alert.step) == ("title", "text", "error", 5)
    assert len(back.of_kind(schema.RunEnd)) == 1


def test_without_a_run_they_say_what_to_do():
    for call in (lambda: eventlog.log({}), lambda: eventlog.log_system({}), lambda: eventlog.alert("x")):
        with pytest.raises(UsageError, match="init"):
            call()
    with pytest.raises(UsageError, match="init"):
        eventlog.current_run()
    eventlog.finish()


def test_the_run_that_was_started_last_is_the_current_one_and_the_others_go_on(start: Any, back: Any):
    first, second = start(name="first"), start(name="second")
    eventlog.log({"a": 2.0})
    first.log({"a": 1.0})
    assert {call.run_id: call.numbers["a"] for call in back.calls()} == {first.id: 1.0, second.id: 2.0}


def test_finish_says_how_the_run_ended(start: Any, back: Any):
    start()
    eventlog.finish("failed", 3)
    assert [(end.status, end.exit_code) for end in back.of_kind(schema.RunEnd)] == [("failed", 3)]


def test_the_defaults_are_a_directory_here_and_a_readable_name(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch, reading: Any
):
    monkeypatch.chdir(tmp_path)
    run = eventlog.init(settings=WriterConfig(sync_interval_s=None))
    assert run.dir == str(tmp_path / "eventlog-store")
    assert run.project == "default"
    assert len(run.name.split("-")) == 3
    run.finish()
    assert len(reading(run.dir, "default").records()) == 2


def test_the_environment_says_where_and_what(tmp_path: Any, monkeypatch: pytest.MonkeyPatch, reading: Any):
    root = str(tmp_path / "from-env")
    for name, value in {
        "EVENTLOG_DIR": root,
        "EVENTLOG_PROJECT": "env project",
        "EVENTLOG_RUN_ID": "shared",
        "EVENTLOG_RUN_NAME": "named",
        "EVENTLOG_SYNC_INTERVAL_S": "off",
        "RANK": "1",
        "WORLD_SIZE": "2",
    }.items():
        monkeypatch.setenv(name, value)
    before = threading.active_count()
    run = eventlog.init()
    assert threading.active_count() == before
    run.log({"a": 1.0})
    run.finish()
    assert (run.dir, run.project, run.id, run.name) == (root, "env project", "shared", "named")
    back = reading(root, "env project")
    (record,) = back.of_kind(schema.RunStart)
    assert (record.rank, record.world_size, record.mode) == (1, 2, "attach")
    assert back.only_call().rank == 1


def test_arguments_count_more_than_the_environment(store: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("EVENTLOG_DIR", "/does/not/exist")
    monkeypatch.setenv("EVENTLOG_PROJECT", "other")
    monkeypatch.setenv("EVENTLOG_RUN_ID", "other")
    run = eventlog.init("p", "n", dir=store, id="mine")
    assert (run.dir, run.project, run.id, run.name) == (store, "p", "mine", "n")


def test_a_bad_environment_is_refused_by_name(store: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("EVENTLOG_SYNC_INTERVAL_S", "never")
    with pytest.raises(UsageError, match="EVENTLOG_SYNC_INTERVAL_S"):
        eventlog.init("p", dir=store)
    assert not os.path.exists(store)


def test_ranks_that_share_an_id_share_a_name_and_one_of_them_starts_the_run(
    start: Any, back: Any, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("EVENTLOG_RUN_ID", "job-17")
    monkeypatch.setenv("WORLD_SIZE", "3")
    runs = []
    for rank in range(3):
        monkeypatch.setenv("RANK", str(rank))
        runs.append(start())
        runs[-1].log({"loss": float(rank)})
    assert len({run.name for run in runs}) == 1
    for run in runs:
        run.finish()
    assert sorted(record.mode for record in back.of_kind(schema.RunStart)) == ["attach", "attach", "new"]
    assert sorted((call.rank, call.numbers["loss"]) for call in back.calls()) == [(0, 0.0), (1, 1.0), (2, 2.0)]


def test_by_default_the_same_name_is_a_new_run(start: Any):
    first = start(name="n")
    first.finish()
    assert start(name="n").id != first.id


@pytest.mark.parametrize("resume", ["allow", "must", True])
def test_a_run_is_continued_by_name_with_its_steps(start: Any, back: Any, resume: Any):
    first = start(name="n")
    for _ in range(3):
        first.log({"a": 1.0})
    first.finish()
    second = start(name="n", resume=resume)
    assert second.id == first.id
    second.log({"a": 2.0})
    second.log({"a": 2.0}, step=100)
    second.finish()
    third = start(name="n", resume=resume)
    third.log({"a": 3.0})
    third.finish()
    assert sorted(call.step for call in back.calls()) == [0, 1, 2, 3, 100, 101]
    assert {call.run_id for call in back.calls()} == {first.id}
    assert sorted(record.mode for record in back.of_kind(schema.RunStart)) == ["new", "resume", "resume"]


def test_a_run_is_continued_by_id_whatever_its_name(start: Any):
    first = start(name="n")
    first.log({"a": 1.0}, step=9)
    first.finish()
    second = start(id=first.id, resume="must")
    assert (second.id, second.name) == (first.id, "n")
    second.log({"a": 1.0})
    assert second._step == 11


def test_a_run_that_crashed_is_continued_from_its_last_record(start: Any, script: Any, back: Any):
    script(
        "import os, sys, eventlog\n"
        "run = eventlog.init('p', 'n', dir=sys.argv[1])\n"
        "for i in range(10): run.log({'a': 1.0})\n"
        "os._exit(0)"
    )
    run = start(name="n", resume="must")
    run.log({"a": 2.0})
    assert sorted(call.step for call in back.calls()) == list(range(11))


def test_the_latest_of_several_runs_of_a_name_is_continued(start: Any):
    start(name="n").finish()
    second = start(name="n")
    second.finish()
    assert start(name="n", resume="allow").id == second.id


def test_allow_starts_a_run_when_there_is_none(start: Any, back: Any):
    run = start(name="n", resume="allow")
    assert run.name == "n"
    assert [record.mode for record in back.of_kind(schema.RunStart)] == ["new"]


def test_must_refuses_when_there_is_none(start: Any, store: str):
    with pytest.raises(UsageError, match="no run of name 'n'"):
        start(name="n", resume="must")
    with pytest.raises(UsageError, match="no run of id 'x'"):
        start(id="x", resume="must")
    with pytest.raises(UsageError, match="needs the name or the id"):
        start(resume="must")
    assert not os.path.exists(store)


@pytest.mark.parametrize("resume", ["always", "", "Must"])
def test_other_ways_to_resume_are_refused(start: Any, resume: Any):
    with pytest.raises(UsageError, match="resume must be"):
        start(resume=resume)


@pytest.mark.parametrize("project", ["x" * 300, "\ud800"])
def test_a_project_that_cannot_be_named_is_refused(store: str, project: str):
    with pytest.raises(UsageError):
        eventlog.init(project, dir=store)


def test_a_store_that_cannot_be_written_does_not_stop_training(tmp_path: Any):
    (tmp_path / "file").write_text("in the way")
    with pytest.warns(EventLogWarning, match="Training goes on"):
        run = eventlog.init("p", dir=tmp_path / "file" / "store", settings=WriterConfig(sync_interval_s=None))
    run.log({"a": 1.0})
    assert run.lost == 1
    run.finish()


def test_a_store_that_cannot_be_written_raises_on_request(tmp_path: Any):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError):
        eventlog.init("p", dir=tmp_path / "file" / "store", settings=WriterConfig(on_error="raise"))


def test_arguments_that_are_not_utf8_do_not_stop_training(script: Any, back: Any):
    script("import sys, eventlog\neventlog.init('p', dir=sys.argv[1]).log({'a': 1.0})", "caf\udce9")
    assert back.of_kind(schema.RunStart)[0].argv[-1] == "caf\\udce9"
    assert back.only_call().numbers == {"a": 1.0}


SETTINGS = {kind: WriterConfig(network_mount=kind) for kind in ("spool", "refuse", "allow")}


def test_a_local_store_is_written_directly(store: str):
    for settings in SETTINGS.values():
        assert session._place(store, settings) == (store, None)


@pytest.fixture
def network_store() -> str:
    """Return a path on a mount that counts as unsuitable here, if the machine has one."""
    from eventlog import mounts

    with open("/proc/self/mountinfo", encoding="utf-8") as file:
        points = [line.split(" ")[4] for line in file]
    found = next((point for point in points if mounts.unsuitable_mount(point)), None)
    if found is None:
        pytest.skip("this machine has no network or FUSE mount")
    return os.path.join(found, "store")


def test_a_network_store_is_spooled_refused_or_allowed(network_store: str):
    assert session._place(network_store, SETTINGS["allow"]) == (network_store, None)
    with pytest.raises(StorageError, match="EVENTLOG_NETWORK_MOUNT=spool"):
        session._place(network_store, SETTINGS["refuse"])
    with pytest.warns(EventLogWarning, match="eventlog ship"):
        root, spool = session._place(network_store, SETTINGS["spool"])
    assert spool == Spool.for_store(network_store, None)
    assert root == spool.directory
