"""README's blocks run, and what it says about commands, settings and files is so."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from eventlog.config import read_environment

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_the_python_blocks_run_one_after_the_other(tmp_path):
    script = tmp_path / "readme.py"
    command = "[sys.executable, '-m', 'compactor', 'run', './eventlog-store', '--once']"
    fold = f"import subprocess, sys; subprocess.run({command}, check=True)\n"
    log, *read = blocks("python")
    assert len(read) == 3
    script.write_text("\n".join([log, fold, *read]), encoding="utf-8")
    env = {key: value for key, value in os.environ.items() if not key.startswith("EVENTLOG_")}
    done = subprocess.run(
        [sys.executable, str(script)], cwd=tmp_path, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "'min': 0.01" in done.stdout.replace("<pyarrow.StructScalar: [(", "").replace(")]>", "").replace(
        "'min', ", "'min': "
    )


@pytest.mark.parametrize("line", [line for block in blocks("console") for line in block.splitlines()])
def test_every_command_that_readme_shows_exists(line):
    command = line.removeprefix("$ ").split("#")[0].split()
    assert line.startswith("$ ")
    program, *words = command
    if program.startswith("tools/"):
        assert os.access(ROOT / program, os.X_OK)
        return
    verb = words[0]
    options = [word for word in words if word.startswith("--")]
    done = subprocess.run([sys.executable, "-m", program, verb, "--help"], capture_output=True, text=True, check=True)
    for option in options:
        assert option in done.stdout


def test_every_command_there_is_is_named_in_readme():
    for program in ("eventlog", "compactor"):
        done = subprocess.run([sys.executable, "-m", program, "--help"], capture_output=True, text=True, check=True)
        verbs = re.findall(r"^  ([a-z-]+)  ", done.stdout.split("Commands:")[1], re.MULTILINE)
        assert verbs
        for verb in verbs:
            assert f"{program} {verb}" in README


def test_every_setting_in_the_table_is_read_and_every_variable_that_is_read_is_in_the_table():
    sources = [ROOT / "eventlog" / "config.py", ROOT / "compactor" / "commands" / "deploying.py"]
    read = {name for path in sources for name in re.findall(r'"(EVENTLOG_[A-Z_]+)"', path.read_text(encoding="utf-8"))}
    assert read == set(re.findall(r"`(EVENTLOG_[A-Z_]+)`", README))


def test_the_defaults_in_the_table_are_the_defaults():
    environment = read_environment({})
    assert environment.store_dir == "./eventlog-store"
    assert environment.writer.sync_interval_s == 1
    assert environment.writer.on_error == "warn"
    assert environment.writer.network_mount == "spool"
    assert environment.writer.bucket is None
    assert environment.writer.ship_interval_s == 30
    assert environment.writer.ship_flush_s == 60


def test_readme_names_no_file_that_is_not_there():
    for name in re.findall(r"\b(?:tools/[a-z]+(?:\.py)?|[A-Z]+\.md)\b", README):
        assert (ROOT / name).exists() or (ROOT / "eventlog" / name).exists(), name


def test_each_promise_names_tests_that_are_there():
    promises = README.split("## What is promised")[1].split("\nWhat is trusted")[0]
    rows = [row for row in promises.splitlines() if row.startswith("| ")][1:]
    assert len(rows) >= 13
    written = set()
    for path in (ROOT / "tests").rglob("test_*.py"):
        written |= set(re.findall(r"^def (test_\w+)", path.read_text(encoding="utf-8"), re.MULTILINE))
    for row in rows:
        named = re.findall(r"`(test_\w+|tools/\w+)[^`]*`", row.rsplit("|", 2)[1])
        assert named, row
        for name in named:
            assert name in written or os.access(ROOT / name, os.X_OK), name
