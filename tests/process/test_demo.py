"""The demo, run as a user runs it: real processes, real kills, and checks that cannot be satisfied by less."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from click.testing import CliRunner

import eventlog
from eventlog.demo import demo, recorded
from eventlog.demo.checks import Expected, compare_all
from eventlog.demo.present import sparkline
from eventlog.store import open_store

COMMAND = [sys.executable, "-c", "from eventlog.demo import demo; demo()"]


def processes_that_mention(text: str) -> list[str]:
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            command = Path("/proc", pid, "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if text in command and int(pid) != os.getpid():
            found.append(command)
    return found


@pytest.fixture
def without_pandas(tmp_path):
    """The environment of a user who installed the extras, but not pandas, which pyarrow uses where it is."""
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    (hidden / "pandas.py").write_text("raise ImportError('pandas is hidden')")
    return {**os.environ, "PYTHONPATH": str(hidden)}


def test_demo_kills_two_processes_and_finds_nothing_lost_doubled_or_changed(tmp_path, without_pandas):
    root = str(tmp_path / "store")
    done = subprocess.run(
        [*COMMAND, "--dir", root, "--seconds", "4", "--no-serve", "--json"],
        check=False,
        capture_output=True,
        timeout=120,
        env=without_pandas,
    )
    assert done.returncode == 0, done.stderr.decode()
    assert done.stderr == b""
    outcome = json.loads(done.stdout)
    assert outcome["ok"]
    assert outcome["problems"] == outcome["findings"] == []
    # 4 x 1001 calls, one start for each of five processes, one end for each but the killed one.
    assert outcome["records"] == outcome["folded"] + outcome["tail"] == 4 * 1001 + 5 + 4
    assert (outcome["lost"], outcome["doubled"], outcome["gaps"], outcome["dropped"]) == (0, 0, 0, 0)
    assert [(run["name"], run["rows"], run["values"]) for run in outcome["runs"]] == [
        (name, 1001, 7 * 1000 + 6) for name in recorded.NAMES
    ]
    kill = outcome["course"]["writer_kill"]
    assert 400 <= kill["acknowledged"] <= kill["in_store"] < 1000
    assert outcome["returned"] == 4 * 1001 - (kill["in_store"] - kill["acknowledged"])
    assert outcome["course"]["compactor_kill"]["version"] >= 1
    assert outcome["course"]["seen"]["polls"] > 5
    assert set(outcome["course"]["seen"]["rows"].values()) == {1001}
    assert processes_that_mention(root) == []

    pasted = subprocess.run(
        [sys.executable, "-c", "\n".join(outcome["read"])],
        check=False,
        capture_output=True,
        timeout=60,
        env=without_pandas,
    )
    assert pasted.returncode == 0, pasted.stderr.decode()
    assert pasted.stdout.count(b"'loss_count': 1000") == 4

    again = CliRunner().invoke(demo, ["--dir", root])
    assert again.exit_code == 2
    assert "choose another --dir" in again.output


@pytest.mark.parametrize(("number", "exit_code"), [(signal.SIGINT, 1), (signal.SIGTERM, 143)])
def test_demo_that_is_interrupted_leaves_no_process(tmp_path, number, exit_code):
    root = str(tmp_path / "store")
    running = subprocess.Popen(
        [*COMMAND, "--dir", root, "--seconds", "30"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 30
    while len(processes_that_mention(root)) < 7 and time.monotonic() < deadline:
        time.sleep(0.05)
    running.send_signal(number)
    assert running.wait(30) == exit_code
    assert processes_that_mention(root) == []


def test_process_that_ends_early_ends_the_demo_with_what_it_said(tmp_path):
    root = tmp_path / "store"
    (root / "segments").mkdir(parents=True)
    # The directory of the project is taken by a file: no training can start.
    (root / "segments" / recorded.PROJECT).write_text("in the way")
    done = subprocess.run(
        [*COMMAND, "--dir", str(root), "--seconds", "4", "--json"],
        check=False,
        capture_output=True,
        timeout=120,
        env={**os.environ, "EVENTLOG_ON_ERROR": "raise"},
    )
    assert done.returncode == 1
    assert b"the training" in done.stderr
    assert done.stdout == b""
    assert processes_that_mention(str(root)) == []


@pytest.fixture
def logged(tmp_path):
    """A store with the first lines of one recording, logged in this process."""
    recording = recorded.load("lr3e-4")
    short = recorded.Recording(recording.name, recording.config, recording.lines[:50])

    def log(change=lambda lines: lines, config=None):
        run = eventlog.init("p", short.name, config=short.config if config is None else config, dir=tmp_path)
        for line in change([dict(line) for line in short.lines]):
            run.log(line, step=line.pop("step"))
        run.finish()
        return compare_all(open_store(tmp_path), "p", [Expected(short)])[short.name]

    return log


def test_equal_values_have_no_differences(logged):
    assert logged() == []


def changed_by_one_bit(lines):
    lines[7]["loss"] = -lines[7]["loss"] if lines[7]["loss"] == 0 else lines[7]["loss"] * (1 + 2**-52)
    return lines


def another_step(lines):
    lines[49]["step"] += 1
    return lines


def one_value_more(lines):
    lines[3]["extra"] = 0.0
    return lines


def one_value_less(lines):
    del lines[3]["entropy"]
    return lines


@pytest.mark.parametrize(
    "change",
    [
        changed_by_one_bit,
        another_step,
        one_value_more,
        one_value_less,
        pytest.param(lambda lines: lines[:-1], id="end_missing"),
        pytest.param(lambda lines: [*lines, lines[-1] | {"step": 1}], id="line_more"),
        pytest.param(lambda lines: [*lines[:20], dict(lines[19]), *lines[20:]], id="line_doubled"),
        pytest.param(lambda lines: [*lines[:10], lines[11], lines[10], *lines[12:]], id="lines_exchanged"),
    ],
)
def test_any_other_value_place_or_number_of_values_is_a_difference(logged, change):
    assert logged(change) != []


def test_config_of_another_type_is_a_difference(logged):
    assert logged(config=recorded.load("lr3e-4").config | {"seed": 2.0}) != []


def test_recordings_are_whole():
    recordings = recorded.load_all()
    assert [recording.config["learning_rate"] for recording in recordings] == [1e-4, 3e-4, 1e-3, 3e-3]
    for recording in recordings:
        assert recording.steps == [*range(1, 1001), 1000]
        assert recording.line_after(None) == 0
        assert recording.line_after(400) == 400
    size = sum(path.stat().st_size for path in Path(recorded.__file__).parent.joinpath("data").iterdir())
    assert size < 400_000


def test_sparkline_shows_the_lowest_and_the_highest():
    import numpy as np

    assert sparkline(np.array([0.0, 7.0, 3.0]), 3) == "▁█▄"
    assert sparkline(np.array([2.0, 2.0]), 8) == "▁▁"
    assert sparkline(np.empty(0)) == ""


def test_demo_ends_with_the_dashboard_of_its_store(tmp_path):
    command = [*COMMAND, "--dir", str(tmp_path / "store"), "--seconds", "2", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:
        try:
            printed = []
            for line in child.stdout:
                printed.append(line.decode())
                if "the dashboard: " in printed[-1]:
                    break
            url = printed[-1].split("the dashboard: ", 1)[1].split()[0]
            asked = urllib.request.Request(f"{url}api/get_runs_for_project", b'{"project": "trl-sft"}')
            with urllib.request.urlopen(asked, timeout=30) as answer:
                runs = json.loads(answer.read())["data"]
            assert len(runs) == 4
            with urllib.request.urlopen(url, timeout=30) as answer:
                assert b"<div id=" in answer.read()
        finally:
            child.send_signal(signal.SIGINT)
            child.communicate(timeout=60)
    assert child.returncode == 0
    assert processes_that_mention(str(tmp_path)) == []
