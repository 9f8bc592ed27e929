"""A parent keeps its children alive, ends them in order, and ends itself only when one says that it cannot work."""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from pathlib import Path

import pytest

from compactor.sidecar.config import SidecarConfig
from compactor.sidecar.parent import children
from compactor.sidecar.supervise import Child, Supervisor
from eventlog.errors import UsageError

# Writes a line at each start and, when it is asked to end, another; what comes then says how it ends.
SCRIPT = """
import os, signal, sys, time
name, journal, end = sys.argv[1:]
def note(text):
    with open(journal, "a") as file:
        file.write(f"{name} {text}\\n")
def asked(number, frame):
    note("asked")
    if end != "stubborn":
        sys.exit(0)
signal.signal(signal.SIGTERM, asked)
note("started " + sys.stdin.read())
if end.isdigit():
    sys.exit(int(end))
while True:
    time.sleep(0.05)
"""


def child(name: str, journal: Path, end: str = "asked", *, needed: bool = False) -> Child:
    return Child(name, (sys.executable, "-c", SCRIPT, name, str(journal), end), f"for {name}".encode(), needed=needed)


def lines(journal: Path) -> list[str]:
    return journal.read_text().splitlines() if journal.exists() else []


def run(supervisor: Supervisor, until, journal: Path) -> int:
    """Run until a question about the journal is true; return the exit code."""

    def watch() -> None:
        deadline = time.monotonic() + 60
        while not until(lines(journal)) and time.monotonic() < deadline:
            time.sleep(0.02)
        supervisor.stop()

    watching = threading.Thread(target=watch)
    watching.start()
    code = supervisor.run()
    watching.join()
    return code


def test_children_are_told_what_to_do_and_end_one_after_another(tmp_path):
    journal = tmp_path / "journal"
    supervisor = Supervisor([child(name, journal) for name in "abc"], stop_within_s=30)
    assert run(supervisor, lambda seen: len(seen) == 3, journal) == 0
    assert sorted(lines(journal)[:3]) == [f"{name} started for {name}" for name in "abc"]
    assert lines(journal)[3:] == ["a asked", "b asked", "c asked"]


def test_a_child_that_ends_is_started_again_and_again(tmp_path, caplog):
    journal = tmp_path / "journal"
    supervisor = Supervisor([child("dies", journal, "3"), child("lives", journal)], stop_within_s=30)
    with caplog.at_level(logging.ERROR, "compactor"):
        assert run(supervisor, lambda seen: seen.count("dies started for dies") == 3, journal) == 0
    assert lines(journal).count("lives started for lives") == 1
    pauses = [float(record.getMessage().split(" in ")[1].split()[0]) for record in caplog.records]
    assert "the dies ended with exit code 3" in caplog.text
    assert 0.5 <= pauses[0] <= 1.0 <= pauses[1] <= 2.0


def test_a_child_that_cannot_be_started_again_is_tried_until_it_can_and_the_others_go_on(tmp_path, caplog):
    journal, program = tmp_path / "journal", tmp_path / "program"
    text = f"#!{sys.executable}\nopen({str(journal)!r}, 'a').write('program\\n')\n"

    def install() -> None:
        program.write_text(text)
        program.chmod(0o755)

    def until(seen: list[str]) -> bool:
        if seen.count("program") == 1 and program.exists():
            program.unlink()
        if "cannot be started" in caplog.text and not program.exists():
            install()
        return seen.count("program") > 1

    install()
    supervisor = Supervisor([Child("program", (str(program),)), child("lives", journal)], stop_within_s=30)
    with caplog.at_level(logging.ERROR, "compactor"):
        assert run(supervisor, until, journal) == 0
    assert "the program cannot be started: " in caplog.text
    assert lines(journal).count("lives started for lives") == 1


def test_a_child_that_does_not_end_is_killed_and_those_after_it_still_have_time(tmp_path, caplog):
    journal = tmp_path / "journal"
    supervisor = Supervisor([child("stubborn", journal, "stubborn"), child("polite", journal)], stop_within_s=2)
    with caplog.at_level(logging.ERROR, "compactor"):
        assert run(supervisor, lambda seen: len(seen) == 2, journal) == 0
    assert lines(journal)[2:] == ["stubborn asked", "polite asked"]
    assert caplog.messages == ["the stubborn did not end in time: killed"]


def test_a_needed_child_that_refuses_at_its_first_start_ends_all_with_its_code(tmp_path):
    journal = tmp_path / "journal"
    supervisor = Supervisor([child("a", journal), child("needed", journal, "2", needed=True)], stop_within_s=30)
    assert supervisor.run() == 2
    assert lines(journal).count("needed started for needed") == 1
    assert not [pid for pid in os.listdir("/proc") if pid.isdigit() and _is_of(pid, str(journal))]


def _is_of(pid: str, text: str) -> bool:
    try:
        return text in Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return False


def test_the_server_ends_before_the_sync_that_pushes_what_it_sealed():
    plain = SidecarConfig(root="/store", bucket="hf://buckets/me/runs")
    assert [item.name for item in children(plain)] == ["compactor", "sync"]
    from compactor.serve.config import ServeConfig

    served = SidecarConfig(root="/store", bucket=plain.bucket, serve=ServeConfig(write_token="secret"))
    assert [item.name for item in children(served)] == ["server", "compactor", "sync"]
    # What others on the machine can see of a process is its command.
    assert all("secret" not in word for item in children(served) for word in item.argv)
    assert all(b"secret" in item.stdin for item in children(served))


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), float("inf"), 2e6])
def test_an_end_without_any_time_or_without_end_is_refused(seconds):
    with pytest.raises(UsageError, match="stop_within_s"):
        SidecarConfig(root="/store", bucket="b", stop_within_s=seconds)
