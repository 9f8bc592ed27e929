"""Any arguments to any command: an exit code, one message that says what is wrong, and a store that is as it was."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import click
import pytest
from click.testing import CliRunner, Result
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import eventlog
from compactor.cli import cli as compactor_cli
from eventlog.commands import cli as eventlog_cli
from eventlog.config import WriterConfig
from eventlog.testing.strategies import HOSTILE_NAMES
from eventlog.verify import verify

settings.register_profile("cli", max_examples=25, deadline=None, derandomize=True, database=None)
settings.register_profile("cli-explore", settings.get_profile("cli"), max_examples=500, derandomize=False)
EXAMPLES = settings.get_profile("cli-explore" if os.environ.get("HYPOTHESIS_PROFILE") == "explore" else "cli")
UNCHECKED = (HealthCheck.too_slow, HealthCheck.function_scoped_fixture, HealthCheck.data_too_large)

TEXTS = (
    "",
    "p",
    "../x",
    "a\0b",
    "\udcff",
    "x" * 4096,
    "🦀",
    "CON",
    "-1",
    "--",
    "[red]",
    "\x1b[2J",
    "%s",
    *HOSTILE_NAMES,
)
NUMBERS = (
    "-1",
    "0",
    "1",
    "4",
    "nan",
    "inf",
    "-inf",
    "1e400",
    "1e-300",
    "9" * 30,
    "9" * 5000,
    "x",
    "",
    "٣",
    "0x10",
    " 1",
)
PATHS = (
    *("missing", "file", "file/below", "empty", "", "a\0b", "\udcff", "x" * 5000, "/dev/null", "store/segments", "-1"),
    *("other", "store/../store", "./store", "link", "loop", "manifest.json", "store/segments/p", "🦀", "~", "dangling"),
)
# What starts servers and processes is tried by processes of its own; what waits for more is told not to.
ELSEWHERE = ("serve", "demo")
ALWAYS = {"run": ("--once",), "static-export": ("--once",), "tail": ("--no-follow",)}
CHANGING = ("rename", "delete", "undelete", "ship", "run")


class Command(NamedTuple):
    """A command, by the way that leads to it."""

    top: click.Group
    way: tuple[str, ...]
    command: click.Command


def commands() -> Iterator[Command]:
    """Walk both trees, so that a command that is added is tried without being named here."""

    def walk(top: click.Group, way: tuple[str, ...], group: click.Group) -> Iterator[Command]:
        context = click.Context(group)
        for name in group.list_commands(context):
            command = group.get_command(context, name)
            if isinstance(command, click.Group):
                yield from walk(top, (*way, name), command)
            elif command is not None and name not in ELSEWHERE:
                yield Command(top, (*way, name), command)

    yield from walk(eventlog_cli, (), eventlog_cli)
    yield from walk(compactor_cli, (), compactor_cli)


GOOD = {"store": "store", "source": "store", "project": "p", "run": "n", "metric": "x", "name": "m", "file": "file"}


def values_for(parameter: click.Parameter) -> st.SearchStrategy[str]:
    """Return texts for a parameter, hostile ones and some that fit."""
    kind = parameter.type
    if isinstance(kind, click.Path):
        found = st.sampled_from(PATHS)
    elif isinstance(kind, click.Choice):
        found = st.sampled_from([*kind.choices, "nonsense", "", "\0"])
    elif kind.name in ("integer", "float", "integer range", "float range"):
        found = st.sampled_from(NUMBERS)
    else:
        found = st.sampled_from(TEXTS) | st.text(max_size=6)
    good = GOOD.get(str(parameter.name))
    return found if good is None else st.just(good) | st.just(good) | found


@st.composite
def arguments(draw: st.DrawFn, command: click.Command) -> list[str]:
    """Return what to type behind a command: mostly complete, now and then too little or too much."""
    typed: list[str] = []
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            flag = parameter.opts[0]
            if draw(st.integers(0, 3)) == 0 or parameter.required:
                typed += [flag] if parameter.is_flag else [flag, draw(values_for(parameter))]
        elif parameter.required or draw(st.booleans()):
            typed.append(draw(values_for(parameter)))
    typed += draw(st.sampled_from([[]] * 8 + [["--json"], ["more"], ["--no-such-option"], ["--help"]]))
    return typed


def make_place(place: Path) -> None:
    """Make a store with a folded run and a tail, and beside it what is none."""
    for name in ("n", "other"):
        with eventlog.init("p", name, dir=place / "store", settings=WriterConfig(sync_interval_s=None)) as run:
            for step in range(3):
                run.log({"x": step * 0.5, "text": "t"})
        if name == "n":
            run_command(compactor_cli, "run", str(place / "store"), "--once")
    (place / "file").write_bytes(b"no segment")
    (place / "empty").mkdir()
    (place / "other" / "segments").mkdir(parents=True)
    (place / "link").symlink_to("store")
    (place / "loop").symlink_to("loop")
    (place / "dangling").symlink_to("nothing")
    shutil.copy(next((place / "store").glob("snapshots/*/manifests/*.json")), place / "manifest.json")


def tree(place: Path) -> dict[str, bytes]:
    """Return every file below a directory."""
    return {str(path.relative_to(place)): path.read_bytes() for path in place.rglob("*") if path.is_file()}


def run_command(top: click.Group, *typed: str) -> Result:
    return CliRunner().invoke(top, list(typed))


def check(result: Result) -> None:
    """A command may succeed, find something, or refuse; it never falls over."""
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code in (0, 1, 2)
    assert "Traceback" not in result.output
    if result.exit_code == 2:
        assert result.stdout == ""
        lines = result.stderr.splitlines()
        assert 1 <= len(lines) <= 6
        assert len(lines[-1].strip("│╰─╯ ")) > 10 or lines[0].startswith("Usage:")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the current directory, with a store and what is none."""
    make_place(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    return tmp_path


@pytest.mark.parametrize("command", list(commands()), ids=lambda command: " ".join(command.way))
def test_no_arguments_break_a_command_or_change_what_it_only_reads(
    place: Path, command: Command, tmp_path_factory: Any
):
    spare = tmp_path_factory.mktemp("spare")
    shutil.copytree(place, spare / "place", symlinks=True)
    before = tree(place / "store")

    @settings(EXAMPLES, suppress_health_check=UNCHECKED)
    @given(arguments(command.command))
    def fuzz(typed: list[str]) -> None:
        result = run_command(command.top, *command.way, *ALWAYS.get(command.way[-1], ()), *typed)
        check(result)
        after = tree(place / "store")
        if command.way[-1] in CHANGING and result.exit_code == 0:
            assert verify(str(place / "store")).findings == []
            shutil.rmtree(place)
            shutil.copytree(spare / "place", place, symlinks=True)
            os.chdir(place)
        else:
            assert after == before
        if result.exit_code == 0 and "--json" in typed and command.way[-1] != "tail" and "--help" not in typed:
            assert result.stdout == "" or [json.loads(line) for line in documents(result.stdout)]

    fuzz()


def documents(text: str) -> list[str]:
    """Return the JSON documents of an output: one, or one a line."""
    return text.splitlines() if text.startswith("{") and text.count("\n{") else [text]


@pytest.mark.parametrize(
    "typed",
    [
        ("serve", "store", "--port", "-1"),
        ("serve", "store", "--port", "65536"),
        ("serve", "store", "--port", "9" * 30),
        ("serve", "store", "--max-body", "0"),
        ("serve", "store", "--cache", "-1"),
        ("serve", "store", "--ui", "nonsense"),
        ("serve", "store", "--host", "0.0.0.0", "--write-token", ""),
        ("serve", "store", "--write-token", "\udcff"),
        ("serve", "store", "--write-token", "a b\nc"),
        ("serve", "store", "--host", "x" * 100, "--write-token", "t"),
        ("serve", "store", "--host", "a\0b", "--write-token", "t"),
        ("serve", "store", "--host", "..", "--write-token", "t"),
        ("serve", ""),
        ("serve", "file"),
        ("serve", "file/below"),
        ("run", "store", "--sweep-interval", "nan"),
        ("run", "store", "--project", "p"),
        ("run", ""),
        ("run", "file"),
    ],
    ids=lambda typed: " ".join(typed)[:40],
)
def test_a_service_refuses_to_start_with_what_cannot_work(place: Path, typed: tuple[str, ...]):
    before = tree(place)
    result = run_command(compactor_cli, *typed)
    check(result)
    assert result.exit_code == 2
    assert tree(place) == before


def test_a_directory_that_is_no_store_is_never_taken_for_an_empty_one(place: Path):
    for way in (["verify"], ["projects"], ["runs"], ["tail"], ["export", "--format", "csv"], ["ship"]):
        more = ["target"] if way == ["ship"] else []
        result = run_command(eventlog_cli, *way, "empty", *more)
        assert (result.exit_code, result.stdout) == (2, "")
        assert "is no store: it has neither segments nor snapshots" in result.stderr
    for way in (["run", "--once"], ["plan"], ["status"]):
        result = run_command(compactor_cli, *way, "empty")
        assert (result.exit_code, result.stdout) == (2, "")
    result = run_command(compactor_cli, "run", "store", "--once", "--project", "nothing")
    assert result.exit_code == 2
    assert "there is no project 'nothing'" in result.stderr
    assert not (place / "target").exists()


def test_no_output_goes_into_a_store(place: Path):
    before = tree(place)
    (segment,) = ((place / "store").glob("segments/p/*/00000001.seg"),)
    for output in ("store", "store/x.csv", "link/x.csv", str(next(segment)), "./store/../store/snapshots"):
        typed = ["export", "store", "p", "--format", "csv", "--output", output, "--force"]
        result = run_command(eventlog_cli, *typed)
        assert result.exit_code == 2
        assert "is the store itself" in result.stderr
    for target in ("store", "store/segments", "link/x"):
        assert run_command(eventlog_cli, "ship", "store", target).exit_code == 2
    assert tree(place) == before


@pytest.mark.parametrize(
    ("module", "typed"),
    [
        ("eventlog", ["runs", "store", "\udcff"]),
        ("eventlog", ["admin", "rename", "store", "p", "n", "\udcff\udc80"]),
        ("eventlog", ["verify", ""]),
        ("compactor", ["status", "file"]),
    ],
)
def test_a_real_process_says_one_thing_and_ends_with_2(place: Path, module: str, typed: list[str]):
    command = [sys.executable, "-W", "error", "-m", module, *typed]
    done = subprocess.run(command, capture_output=True, cwd=place, timeout=120, check=False)
    assert (done.returncode, done.stdout) == (2, b"")
    assert b"Traceback" not in done.stderr
    assert done.stderr.strip()


def test_what_is_no_utf8_is_printed_by_its_escape(place: Path):
    command = [sys.executable, "-W", "error", "-m", "eventlog", "runs", "store", "p", "--metric", "\udcff"]
    done = subprocess.run(command, capture_output=True, cwd=place, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"\\udcff" in done.stdout
