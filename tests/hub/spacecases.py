"""A Space as its container sees it: a sidecar with a store on a disk that can be wiped, and a bucket that stays."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
from localhub.process import LocalHub, client_environment, free_port

from eventlog.store import open_store

TOKEN = "the-write-token"
PATIENCE_S = 120.0


def wait_until(question: Callable[[], Any], what: str) -> Any:
    """Ask until the answer is true, and return it."""
    deadline = time.monotonic() + PATIENCE_S
    while not (answer := question()):
        assert time.monotonic() < deadline, f"still not so after {PATIENCE_S} s: {what}"
        time.sleep(0.05)
    return answer


def entry(log_id: str, step: int, value: float | None = None, run: str = "a") -> dict[str, Any]:
    """Return one log as Trackio's client sends it."""
    metrics = {"x": step * 0.5 if value is None else value}
    facts = {"project": "p", "run": run, "run_id": f"run-{run}", "step": step, "config": None, "log_id": log_id}
    return {**facts, "metrics": metrics}


class Space:
    """One sidecar after another on the same disk, until that is wiped."""

    def __init__(self, hub: LocalHub, bucket: str, directory: Path) -> None:
        """Take the Hub, the bucket and a directory for the disk; nothing is started."""
        directory.mkdir(exist_ok=True)
        self.store = directory / "store"
        self.log = directory / "log"
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.bucket = f"hf://buckets/{bucket}"
        self._environment = client_environment(hub.url, directory / "home")
        self.process: subprocess.Popen[str] | None = None
        self.http = httpx.Client(
            base_url=self.url, headers={"x-trackio-write-token": TOKEN}, timeout=60, trust_env=False
        )

    def command(self, *options: str) -> list[str]:
        address = ["--port", str(self.port), "--write-token", TOKEN, "--bucket", self.bucket]
        return [sys.executable, "-m", "compactor", "serve", str(self.store), *address, "--json", *options]

    def start(self, *options: str) -> Space:
        """Start the processes, and return when the server listens."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command(*options), stdout=subprocess.PIPE, stderr=log, env=self._environment, text=True
            )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, self.log.read_text()
        assert json.loads(line)["url"] == self.url
        return self

    def children(self) -> dict[str, int]:
        """Return the processes that the parent has now, by role."""
        pid = self.process.pid
        found = {}
        for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            words = Path(f"/proc/{child}/cmdline").read_bytes().decode().split("\0")
            if "compactor.commands.child" in words:
                found[words[words.index("compactor.commands.child") + 1]] = int(child)
        return found

    def kill(self) -> None:
        """Kill -9 everything at once, as when a machine goes away."""
        os.kill(self.process.pid, signal.SIGSTOP)  # or it would start them again
        for child in self.children().values():
            os.kill(child, signal.SIGKILL)
        self.process.kill()
        self._reap()

    def end(self, timeout_s: float = 60) -> int:
        """Send SIGTERM, as the Hub does, and return the exit code."""
        self.process.terminate()
        return self._reap(timeout_s)

    def wipe(self) -> None:
        """Lose the disk."""
        shutil.rmtree(self.store)

    def close(self) -> None:
        """Leave nothing running."""
        self.http.close()
        if self.process is not None and self.process.poll() is None:
            self.kill()
        assert "Traceback" not in self.log.read_text(), self.log.read_text()

    def _reap(self, timeout_s: float = 60) -> int:
        code = self.process.wait(timeout_s)
        self.process.stdout.close()
        return code

    # What clients do.

    def post(self, name: str, /, **kwargs: Any) -> httpx.Response:
        """Call an endpoint as the client does."""
        return self.http.post(f"/api/{name}", json={"args": [], "kwargs": kwargs})

    def logs(self, *entries: dict[str, Any]) -> None:
        """Send a batch that must be taken."""
        answer = self.post("bulk_log", logs=list(entries))
        assert answer.status_code == 200, answer.text

    def call(self, name: str, /, **kwargs: Any) -> Any:
        """Call an endpoint that must succeed, and return its data."""
        answer = self.post(name, **kwargs)
        assert answer.status_code == 200, answer.text
        return answer.json()["data"]

    def health(self) -> str:
        answer = self.http.get("/healthz")
        assert answer.status_code == 200
        return answer.json()["status"]

    def is_ready(self) -> bool:
        return self.health() == "ok"

    def numbers(self) -> dict[str, float]:
        """Return what /metrics says, by name and labels."""
        lines = [line for line in self.http.get("/metrics").text.splitlines() if not line.startswith("#")]
        return {line.rsplit(" ", 1)[0]: float(line.rsplit(" ", 1)[1]) for line in lines}

    def values(self, run: str = "run-a") -> Counter[tuple[int, float]]:
        """Return how often each (step, x) of a run is in the store, read by the library."""
        opened = open_store(self.store)
        if "p" not in opened.projects():
            return Counter()
        rows = opened.metrics("p", names=["x"], runs=[run]).to_pylist()
        return Counter((row["_step"], row["x"]) for row in rows)
