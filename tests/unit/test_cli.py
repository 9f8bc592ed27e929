"""Every command says what it found, in text or JSON, and with its exit code."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
from typing import Any

import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

import eventlog
from compactor.config import CompactorConfig
from compactor.fold import fold
from eventlog import cli as entry
from eventlog import names, present
from eventlog.commands import cli
from eventlog.commands.group import _MODULES
from eventlog.config import WriterConfig
from eventlog.fs import LOCAL
from eventlog.store import open_store

PROJECT = "p"
QUIET = WriterConfig(sync_interval_s=None)
HOSTILE = "[red]evil[/red] \x1b[2J"


@pytest.fixture
def root(tmp_path: Any) -> str:
    """Return a store with two runs, the first folded."""
    store = str(tmp_path / "store")
    with eventlog.init(PROJECT, "first", dir=store, settings=QUIET) as run:
        for step in range(100):
            run.log({"loss": 1.0 / (step + 1), "odd": math.nan if step % 2 else math.inf})
        run.log({"note": "hello"})
        run.log_system({"cpu": 5.0})
    fold(LOCAL, store, PROJECT, CompactorConfig())
    with eventlog.init(PROJECT, HOSTILE, dir=store, settings=QUIET) as run:
        run.log({"loss": 7.0})
    return store


def run(*arguments: str, code: int = 0) -> Result:
    result = CliRunner().invoke(cli, list(arguments))
    assert result.exit_code == code, (result.output, result.exception)
    return result


def document(*arguments: str, code: int = 0) -> Any:
    result = run(*arguments, "--json", code=code)
    assert result.stderr == ""
    return json.loads(result.stdout)


def error(*arguments: str) -> str:
    """Return the one line that a failing command prints."""
    result = run(*arguments, code=2)
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    return line


def segment_of(root: str, writer: int = 0) -> str:
    directory = names.project_segments_dir(root, PROJECT)
    return os.path.join(directory, sorted(os.listdir(directory))[writer], names.segment_name(1, sealed=True))


def flip(path: str, offset: int) -> None:
    with open(path, "r+b") as file:
        file.seek(offset)
        (byte,) = file.read(1)
        file.seek(offset)
        file.write(bytes([byte ^ 0x10]))


def test_verify_exits_with_0_when_every_record_is_accounted_for(root: str):
    assert "107 records, every record is accounted for" in run("verify", root).stdout
    report = document("verify", root, "--project", PROJECT, "--blobs")
    assert (report["ok"], report["records"], report["findings"]) == (True, 107, [])


def test_verify_exits_with_1_when_there_are_findings(root: str):
    flip(segment_of(root, 1), 250)
    report = document("verify", root, code=1)
    assert not report["ok"]
    assert {finding["code"] for finding in report["findings"]} <= {"damaged", "gap"}
    output = run("verify", root, code=1).stdout
    assert "damaged: p: segments/p/" in output
    assert "findings" in output


def test_verify_exits_with_2_when_it_cannot_look(root: str):
    assert "there is no store in" in error("verify", root + "/nothing")
    assert "there is no project 'q'" in error("verify", root, "--project", "q")


def test_projects_are_listed(root: str):
    expected = {"project": PROJECT, "runs": 2, "logs": 101, "version": 1, "folded": 104, "files": 4}
    (found,) = document("projects", root)
    assert found == expected
    assert PROJECT in run("projects", root).stdout


def test_runs_are_listed_with_a_curve(root: str):
    first, second = document("runs", root)
    assert (first["name"], first["logs"], first["status"]) == ("first", 100, "finished")
    assert first["metrics"]["odd"]["max"] == "Infinity"
    assert second["name"] == HOSTILE
    output = run("runs", root, PROJECT).stdout
    assert "█" in output
    assert "[red]evil[/red] \\x1b[2J" in output
    assert "\x1b[2J" not in output
    assert "first" not in run("runs", root, "--limit", "1").stdout
    assert "odd" in run("runs", root, "--metric", "odd").stdout


def test_a_project_may_be_left_out_only_when_there_is_one(root: str):
    eventlog.init("other", "run", dir=root, settings=QUIET).finish()
    assert "has not exactly one: other, p" in error("runs", root)
    assert document("runs", root, "other")[0]["name"] == "run"


def test_a_curve_is_drawn_with_its_extremes(root: str):
    output = run("curve", root, PROJECT, "first", "loss").stdout
    assert "min 0.01 at step 99" in output
    assert "max 1 at step 0" in output
    assert "last 0.01 at step 99" in output
    assert any("⠀" <= character <= "⣿" for character in output)
    found = document("curve", root, PROJECT, "first", "odd", "--max-points", "10")
    assert len(found["value"]) == len(found["step"]) == len(found["time"]) <= 10
    assert {"NaN", "Infinity"} == set(found["value"])
    assert len(document("curve", root, PROJECT, "first", "loss")["value"]) == 100
    assert "no finite value" in run("curve", root, PROJECT, "first", "odd").stdout


def test_what_has_no_curve_is_named(root: str):
    assert "has no metric 'nothing'; metrics of the project: loss, odd" in error(
        "curve", root, PROJECT, "first", "nothing"
    )
    assert "there is no run 'nobody'" in error("curve", root, PROJECT, "nobody", "loss")
    run("curve", root, PROJECT, "first", "loss", "--max-points", "2", code=2)


def test_tail_prints_the_last_rows_in_order(root: str):
    output = run("tail", root, "--no-follow", "--lines", "4").stdout.splitlines()
    assert len(output) == 4
    assert "step 0 loss=7" in output[2]
    assert "run_end" in output[3]
    assert "\x1b" not in "".join(output)
    assert run("tail", root, "--no-follow", "--lines", "0").stdout == ""
    everything = run("tail", root, "--no-follow", "--lines", "1000", "--json").stdout.splitlines()
    rows = [json.loads(line) for line in everything]
    assert len(rows) == 107
    assert {row["table"] for row in rows} == {"metrics", "system", "events"}
    assert [row["_time"] for row in rows] == sorted(row["_time"] for row in rows)


def test_tail_follows_until_it_is_interrupted(root: str):
    command = [sys.executable, "-m", "eventlog", "tail", root, "--json", "--follow", "--interval", "0.05"]
    child = subprocess.Popen([*command, "--lines", "1"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert json.loads(child.stdout.readline())["kind"] == "run_end"
    with eventlog.init(PROJECT, "third", dir=root, settings=QUIET) as logged:
        for step in range(3):
            logged.log({"loss": float(step)})
        rows = [json.loads(child.stdout.readline()) for _ in range(4)]
    assert [row.get("loss") for row in rows] == [None, 0.0, 1.0, 2.0]
    child.send_signal(signal.SIGINT)
    _, errors = child.communicate(timeout=60)
    assert (child.returncode, errors) == (0, "")


def test_inspect_shows_every_kind_of_file(root: str):
    path = segment_of(root)
    assert "run_start" in run("inspect", path).stdout
    assert document("inspect", path, "--limit", "3")["left_out"] > 100
    flip(path, 900)
    assert "damage" in run("inspect", path, "--limit", "2", code=1).stdout
    manifest = names.manifest_path(root, PROJECT, 1)
    assert document("inspect", manifest)["form"] == "manifest"
    assert "metric_names" in run("inspect", manifest).stdout
    (data, *_) = open_store(root).files(PROJECT)
    assert "_run_id" in run("inspect", data).stdout
    assert "neither a segment" in error("inspect", os.path.abspath(__file__))
    assert error("inspect", "/nothing/here") == "eventlog: /nothing/here: No such file or directory"


@pytest.mark.parametrize("form", ["parquet", "csv", "jsonl"])
def test_export_makes_one_file_a_table(root: str, tmp_path: Any, form: str):
    output = str(tmp_path / "out")
    done = document("export", root, "--format", form, "--table", "all", "--output", output)
    assert {name: value["rows"] for name, value in done.items()} == {
        "metrics": 101,
        "system": 1,
        "events": 5,
        "runs": 2,
    }
    assert sorted(os.listdir(output)) == sorted(f"{name}.{form}" for name in done)
    assert "is there already; --force replaces it" in error("export", root, "--format", form, "--output", output)
    single = run("export", root, PROJECT, "--format", form, "--output", output, "--force").stdout
    assert f"metrics.{form}: 101 rows" in single
    named = str(tmp_path / "narrow")
    assert document("export", root, "--format", form, "--narrow", "--output", named)["metrics"]["rows"] == 201


def test_export_names_its_files_after_the_project(root: str, tmp_path: Any, monkeypatch: pytest.MonkeyPatch):
    eventlog.init("a/b", "run", dir=root, settings=QUIET).finish()
    monkeypatch.chdir(tmp_path)
    run("export", root, "a/b", "--format", "csv", "--table", "runs")
    assert os.path.exists("a%2Fb-runs.csv")
    run("export", root, "a/b", "--format", "csv", "--table", "all")
    assert sorted(os.listdir("a%2Fb")) == ["events.csv", "metrics.csv", "runs.csv", "system.csv"]
    run("export", root, "a/b", "--format", "xlsx", code=2)


def test_runs_are_renamed_deleted_and_undeleted_by_records(root: str):
    before = {path: LOCAL.read(path) for path in all_files(root)}
    assert document("admin", "rename", root, PROJECT, "first", "better")["values"] == {"name": "better"}
    assert "deleted" in run("admin", "delete", root, PROJECT, "better").stdout
    assert [row["name"] for row in document("runs", root)] == [HOSTILE]
    assert [row["deleted"] for row in document("runs", root, "--deleted")] == [True, False]
    assert "deleted" in run("runs", root, "--deleted").stdout
    run("admin", "undelete", root, PROJECT, "better")
    assert [row["name"] for row in document("runs", root)] == ["better", HOSTILE]
    assert {path: LOCAL.read(path) for path in before} == before
    assert document("verify", root)["records"] == 110


def all_files(root: str) -> list[str]:
    return [os.path.join(base, name) for base, _, found in os.walk(root) for name in found]


def test_admin_refuses_what_is_not_one_run(root: str):
    eventlog.init(PROJECT, "first", dir=root, settings=QUIET).finish()
    assert "there are 2 runs named 'first'" in error("admin", "delete", root, PROJECT, "first")
    assert "there is no run 'nobody'" in error("admin", "rename", root, PROJECT, "nobody", "x")
    assert "a name that is not empty" in error("admin", "rename", root, PROJECT, HOSTILE, "")
    assert "no project 'q'" in error("admin", "delete", root, "q", "first")


def test_admin_tells_when_a_clock_ahead_of_it_wins(root: str):
    from eventlog import schema
    from eventlog.writer import Writer

    writer = Writer(root, PROJECT, config=QUIET)
    run_id = document("runs", root)[0]["run_id"]
    writer.append(schema.Admin(time.time_ns() + 10**15, run_id, "delete", {}))
    writer.close()
    assert "by a clock ahead of this one" in error("admin", "undelete", root, PROJECT, run_id)


def test_ship_copies_a_spool(root: str, tmp_path: Any):
    target = str(tmp_path / "target")
    shipped = document("ship", root, target)
    assert shipped.pop("copied_bytes") > 0
    assert shipped == {"copied": 2, "present": 0, "left_open": 0, "conflicts": []}
    assert "0 files copied, 2 were there, 0 are still open" in run("ship", root, target).stdout
    assert document("verify", target)["records"] == 107


@pytest.mark.parametrize("command", sorted(_MODULES))
def test_every_command_explains_itself(command: str):
    assert f"Usage: cli {command}" in run(command, "--help").stdout


def test_the_command_is_an_entry_point_and_a_module():
    for command in (["-m", "eventlog"], ["-c", "from eventlog.cli import main; main()"]):
        done = subprocess.run([sys.executable, *command, "--version"], capture_output=True, text=True, check=True)
        assert done.stdout == f"eventlog, version {eventlog.__version__}\n"
    run("nonsense", code=2)


def test_an_error_of_a_real_process_is_one_line_and_exit_code_2(tmp_path: Any):
    command = [sys.executable, "-m", "eventlog", "runs", str(tmp_path / "nothing")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("eventlog: there is no store")


@pytest.mark.parametrize("package", ["click", "rich", "pyarrow", "numpy"])
def test_a_missing_package_is_one_line_that_says_what_to_install(package: str):
    code = f"import sys; sys.modules[{package!r}] = None; sys.argv = ['eventlog', 'runs', '.']\n"
    code += "from eventlog.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == f"eventlog: the command line needs {package}: pip install 'eventlog[cli]'\n"
    assert entry.main.__doc__


@given(st.lists(st.floats(width=64), max_size=200), st.integers(1, 40))
def test_a_sparkline_has_at_most_its_width_and_shows_the_spike(values: list[float], width: int):
    line = present.sparkline(values, width)
    assert len(line) == min(width, len(values))
    finite = [value for value in values if math.isfinite(value)]
    if len(set(finite)) > 1 and not any(math.isinf(value) for value in values) and max(finite) > min(finite):
        middle = max(finite) / 2 + min(finite) / 2
        furthest = max(abs(value - middle) for value in finite)
        assert ("█" in line or "▁" in line) or furthest == 0


@given(st.lists(st.floats(width=64), max_size=300), st.integers(1, 50), st.integers(1, 12))
def test_a_plot_is_a_rectangle_that_reaches_both_extremes(values: list[float], width: int, height: int):
    lines = present.plot(values, width, height)
    if not any(math.isfinite(value) for value in values):
        assert lines == ["(no finite value)"]
        return
    assert len(lines) == height
    assert len({len(line) for line in lines}) == 1
    dots = [any(character > "⠀" for character in line if character >= "⠀") for line in lines]
    finite = [value for value in values if math.isfinite(value)]
    if max(finite) / 2 > min(finite) / 2:
        assert dots[0]
        assert dots[-1]


@pytest.mark.parametrize(
    ("seconds", "expected"), [(-5, "0 s ago"), (59, "59 s ago"), (120, "2 m ago"), (7200, "2 h ago"), (2e6, "23 d ago")]
)
def test_times_are_told_as_ages(seconds: float, expected: str):
    now = 10**18
    assert present.ago(now - int(seconds * 1e9), now) == expected


@given(st.text())
def test_cleaned_text_cannot_steer_a_terminal(text: str):
    assert present.clean(text).isprintable()


def test_sizes_have_units():
    assert [present.size(number) for number in (5, 2048, 3 << 20, 1 << 50)] == [
        "5 B",
        "2.0 KiB",
        "3.0 MiB",
        "1024.0 TiB",
    ]
