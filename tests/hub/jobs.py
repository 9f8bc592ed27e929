"""Jobs with a bucket for tests: real training processes on a host of their own, and the shipper that they start."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from localhub.process import LocalHub, client_environment

from eventlog.shipper.desk import Desk

PATIENCE_S = 60.0


def until(happened: Callable[[], object], what: str) -> None:
    """Wait for something that must happen."""
    deadline = time.monotonic() + PATIENCE_S
    while not happened():
        assert time.monotonic() < deadline, f"waited in vain: {what}"
        time.sleep(0.02)


class Host:
    """A machine with a store of its own, whose jobs know the address of a bucket.

    Attributes:
        store: its directory.
        address: of the bucket.
        environment: of its jobs.
    """

    def __init__(self, url: str, bucket: str, directory: Path, **more: str) -> None:
        """Take the Hub's URL, the bucket, a directory for all that the host has, and more variables of its jobs."""
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self.store = directory / "store"
        self.address = f"hf://buckets/{bucket}"
        mine = {"EVENTLOG_BUCKET": self.address, "EVENTLOG_DIR": str(self.store), "EVENTLOG_SHIP_INTERVAL_S": "0.2"}
        kept = client_environment(url, directory / "home", **{**mine, "EVENTLOG_PROJECT": "p", **more})
        self.environment = {name: value for name, value in kept.items() if name != "PYTHONPATH"}
        self.children: list[subprocess.Popen[str]] = []

    def start(self, source: str, *arguments: object, **more: str) -> subprocess.Popen[str]:
        """Start a job, in a process group of its own, and with pipes."""
        script = self.directory / f"train-{len(self.children)}.py"
        script.write_text(source)
        pipe = subprocess.PIPE
        child = subprocess.Popen(
            [sys.executable, str(script), *map(str, arguments)],
            stdin=pipe,
            stdout=pipe,
            stderr=pipe,
            text=True,
            env={**self.environment, **more},
            process_group=0,
        )
        self.children.append(child)
        return child

    def run(self, source: str, *arguments: object, **more: str) -> tuple[str, str]:
        """Run a job to its end, which must be a good one; return what it printed, and its warnings."""
        out, err = self.start(source, *arguments, **more).communicate(timeout=PATIENCE_S)
        assert self.children[-1].returncode == 0, err
        return out, err

    def call(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command of ours."""
        line = [sys.executable, "-m", *command]
        return subprocess.run(line, env=self.environment, capture_output=True, text=True, timeout=120, check=False)

    @property
    def desk(self) -> Desk:
        """Where its jobs and its shipper meet."""
        return Desk(str(self.store), self.address)

    def ships(self) -> bool:
        """Tell whether a shipper lives."""
        if not os.path.isdir(self.desk.directory):
            return False
        held = self.desk.take()
        if held is not None:
            os.close(held)
        return held is None

    def pid(self) -> int:
        """Return the process id of the living shipper."""
        until(lambda: self.ships() and self.desk.state() is not None, "a shipper")
        return self.desk.state().pid

    def starts(self) -> list[int]:
        """Return the process ids of all shippers that have begun, in order."""
        return [int(pid) for pid in re.findall(r"(\d+) INFO shipping ", self.log())]

    def log(self) -> str:
        """Return what shippers have logged."""
        with contextlib.suppress(FileNotFoundError):
            return Path(self.desk.log_path).read_text()
        return ""

    def kill_shipper(self) -> None:
        """Kill -9."""
        while self.ships():
            state = self.desk.state()
            if state is not None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(state.pid, signal.SIGKILL)
            time.sleep(0.02)

    def close(self) -> None:
        """Leave no process behind."""
        for child in self.children:
            if child.poll() is None:
                child.kill()
            child.communicate()
        self.kill_shipper()


@pytest.fixture
def make_host(hub: LocalHub, bucket: str, tmp_path: Path) -> Iterator[Callable[..., Host]]:
    """Return a function that makes a host."""
    hosts: list[Host] = []

    def make(name: str = "host", **more: str) -> Host:
        hosts.append(Host(more.pop("url", hub.url), bucket, tmp_path / name, **more))
        return hosts[-1]

    yield make
    for host in hosts:
        host.close()


@pytest.fixture
def host(make_host: Callable[..., Host]) -> Host:
    """Return one host."""
    return make_host()
