"""Fixtures of the server's tests: real servers, the real Trackio client, raw HTTP, and the exact state of a store."""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from compactor.config import CompactorConfig
from compactor.work import take_turn
from eventlog.fs import LOCAL
from eventlog.store import open_store
from eventlog.verify import verify

TOKEN = "the-write-token"
HEADER = "x-trackio-write-token"
# Variables of the machine that would change what is tested.
_FOREIGN = ("TRACKIO_", "EVENTLOG_", "HF_", "HUGGING_FACE", "http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY")


def clean_environment(**more: str) -> dict[str, str]:
    """Return the environment of a child process without what the machine's owner has set."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(_FOREIGN)}
    return {**kept, "NO_PROXY": "127.0.0.1", "HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1", **more}


def free_port() -> int:
    """Return a port that is free, and that no outgoing connection takes while a server is down: below their range."""
    while True:
        port = random.SystemRandom().randrange(15_000, 32_000)
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


class Server:
    """One server process, and the ways to talk to it."""

    def __init__(self, store: Path, options: tuple[str, ...], port: int, log: Path, token: str) -> None:
        """Start the process and wait until it listens."""
        self.store = store
        self.log = log
        self.token = token
        command = [sys.executable, "-W", "error", "-m", "compactor", "serve", str(store), "--port", str(port), "--json"]
        with log.open("ab") as errors:
            self.process = subprocess.Popen(
                [*command, "--write-token", token, *options],
                stdout=subprocess.PIPE,
                stderr=errors,
                env=clean_environment(),
                text=True,
            )
        line = self.process.stdout.readline()
        if not line:
            self.process.wait()
            self.process.stdout.close()
            raise AssertionError(f"the server did not start:\n{log.read_text()}")
        self.url = json.loads(line)["url"]
        self.port = int(self.url.rsplit(":", 1)[1])
        self.http = httpx.Client(base_url=self.url, headers={HEADER: token}, timeout=60, verify=False, trust_env=False)

    def post(self, name: str, /, **kwargs: Any) -> httpx.Response:
        """Call an endpoint as the client does."""
        return self.http.post(f"/api/{name}", json={"args": [], "kwargs": kwargs})

    def call(self, name: str, /, **kwargs: Any) -> Any:
        """Call an endpoint that must succeed, and return its data."""
        answer = self.post(name, **kwargs)
        assert answer.status_code == 200, answer.text
        return answer.json()["data"]

    def logs(self, entries: list[dict[str, Any]]) -> httpx.Response:
        """Send a batch of logs."""
        return self.post("bulk_log", logs=entries)

    def upload(self, data: bytes, name: str = "x.bin") -> str:
        """Upload a file and return the token of it."""
        answer = self.http.post("/api/upload", files={"files": (name, data)})
        assert answer.status_code == 200, answer.text
        return answer.json()["paths"][0]

    def file(self, path: str) -> httpx.Response:
        """Ask for what the dashboard knows under a path."""
        return self.http.get("/file", params={"path": path})

    def kill(self) -> None:
        """Kill -9."""
        self.end(signal.SIGKILL)

    def end(self, number: int = signal.SIGTERM) -> int:
        """Send a signal, wait for the end, and return the exit code."""
        self.http.close()
        if self.process.poll() is None:
            self.process.send_signal(number)
        code = self.process.wait(60)
        self.process.stdout.close()
        return code


@pytest.fixture
def serving(tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """Return a function that starts a server; none outlives its test, and none may have failed inside."""
    servers: list[Server] = []

    def start(
        *options: str, store: Path | None = None, port: int | None = None, token: str = TOKEN, compact: bool = False
    ) -> Server:
        log = tmp_path / f"server-{len(servers)}.log"
        options = options if compact else ("--no-compact", *options)
        server = Server(store or tmp_path / "store", options, free_port() if port is None else port, log, token)
        servers.append(server)
        return server

    yield start
    for server in servers:
        with contextlib.suppress(ProcessLookupError):
            server.end(signal.SIGKILL)
        assert "Traceback" not in server.log.read_text()


@pytest.fixture
def server(serving: Callable[..., Server]) -> Server:
    """Return a server that does not fold."""
    return serving(port=0)


@pytest.fixture
def entry() -> Callable[..., dict[str, Any]]:
    """Return a function that makes one log of the client's wire."""

    def make(log_id: str | None, step: int | None = 0, **more: Any) -> dict[str, Any]:
        return {
            "project": "p",
            "run": "a",
            "run_id": "run-a",
            "metrics": {"x": 0.0 if step is None else step * 0.5},
            "step": step,
            "config": None,
            "log_id": log_id,
            **more,
        }

    return make


CLIENT = """
import json, os, sys, threading, time, warnings
import trackio

def init(project="p", name="a", **options):
    return trackio.init(
        project=project, name=name, auto_log_cpu=False, auto_log_gpu=False, embed=False, **options
    )
"""


class Client:
    """A process with the unmodified Trackio client."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        """Take the process."""
        self.process = process

    def wait_for(self, text: str) -> None:
        """Read the output up to a line that the script prints."""
        for line in self.process.stdout:
            if line.strip() == text:
                return
        raise AssertionError(f"the client ended without {text!r}:\n{self.process.stderr.read()}")

    def go_on(self) -> None:
        """Let a script go on that waits for a line."""
        self.process.stdin.write("go\n")
        self.process.stdin.flush()

    def finish(self, code: int = 0) -> str:
        """Wait for the end, and return the output."""
        out, errors = self.process.communicate(timeout=200)
        assert self.process.returncode == code, errors
        return out


@pytest.fixture
def trackio(tmp_path: Path) -> Iterator[Callable[..., Client]]:
    """Return a function that starts a script with the client, which has a directory of its own."""
    clients: list[Client] = []

    def start(url: str, code: str, *args: object, token: str = TOKEN) -> Client:
        home = tmp_path / f"client-{len(clients)}"
        home.mkdir()
        script = home / "script.py"
        script.write_text(CLIENT + textwrap.dedent(code))
        mine = {"TRACKIO_DIR": str(home / "trackio"), "HF_HOME": str(home / "hf"), "HOME": str(home)}
        process = subprocess.Popen(
            [sys.executable, str(script), *map(str, args)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=home,
            env=clean_environment(**mine, TRACKIO_SERVER_URL=url, TRACKIO_WRITE_TOKEN=token),
            text=True,
        )
        clients.append(Client(process))
        return clients[-1]

    yield start
    for client in clients:
        if client.process.poll() is None:
            client.process.kill()
        client.process.communicate()


class Proxy:
    """A TCP proxy in which calls fail as told: before the server saw them, or after it has answered."""

    def __init__(self, port: int, plan: list[str]) -> None:
        """Listen; the n-th call that writes meets the fate that the plan says, and those beyond it pass."""
        self.plan = list(plan)
        self._port = port
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listening.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listening.accept()
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            request = b""
            while b"\r\n\r\n" not in request:
                request += connection.recv(65536)
            head, _, body = request.partition(b"\r\n\r\n")
            size = re.search(rb"(?i)content-length: (\d+)", head)
            while size and len(body) < int(size[1]):
                body += connection.recv(65536)
            fate = self.plan.pop(0) if head.startswith(b"POST /api/bulk") and self.plan else "pass"
            if fate == "503":
                connection.sendall(b"HTTP/1.1 503 Not now\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            if fate in ("pass", "lose"):
                self._forward(connection, head + b"\r\n\r\n" + body, lose=fate == "lose")

    def _forward(self, connection: socket.socket, request: bytes, *, lose: bool) -> None:
        with socket.create_connection(("127.0.0.1", self._port), 60) as upstream:
            upstream.sendall(request.replace(b"onnection: keep-alive", b"onnection: close", 1))
            while answer := upstream.recv(65536):
                if not lose:
                    connection.sendall(answer)

    def close(self) -> None:
        """Listen no more."""
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()


@pytest.fixture
def proxy() -> Iterator[Callable[..., Proxy]]:
    """Return a function that puts a proxy before a server."""
    proxies: list[Proxy] = []

    def start(port: int, plan: list[str]) -> Proxy:
        proxies.append(Proxy(port, plan))
        return proxies[-1]

    yield start
    for item in proxies:
        item.close()


class State:
    """What a store holds, read by the library and never through the server."""

    def __init__(self, root: Path) -> None:
        """Take the store; it may not exist yet."""
        self.root = root

    def proven(self) -> None:
        """Account for every record of every writer."""
        report = verify(str(self.root), blobs=True)
        assert (report.findings, report.lost, report.doubled, report.gaps, report.dropped) == ([], 0, 0, 0, 0)

    def values(self, name: str = "x", project: str = "p") -> dict[str, Counter[tuple[int | None, float]]]:
        """Return for each run, by name, how often each (step, value) of a metric is there."""
        opened = open_store(self.root)
        names = {row["run_id"]: row["name"] for row in opened.runs(project).to_pylist()}
        found: dict[str, Counter[tuple[int | None, float]]] = {run: Counter() for run in names.values()}
        rows = opened.metrics(project, names=[name])
        columns = (rows[column].to_pylist() for column in ("_run_id", "_step", name))
        for run, step, value in zip(*columns, strict=True):
            found[names[run]][step, value] += 1
        return found

    def events(self, kind: str, project: str = "p") -> list[dict[str, Any]]:
        """Return the payloads of the events of a kind, in the order of writer and seq."""
        return [json.loads(text) for text in open_store(self.root).events(project, kinds=kind)["payload"].to_pylist()]

    def run(self, name: str = "a", project: str = "p") -> dict[str, Any]:
        """Return the one run of a name."""
        (run,) = [row for row in open_store(self.root).runs(project).to_pylist() if row["name"] == name]
        return {**run, "config": json.loads(run["config"])}

    def files(self) -> dict[str, int]:
        """Return every file of the store but the server's own index, with its size."""
        found = {}
        for directory, _, names in os.walk(self.root):
            for name in names:
                path = os.path.join(directory, name)
                found[os.path.relpath(path, self.root)] = os.path.getsize(path)
        return {path: size for path, size in found.items() if not path.startswith(("index", "incoming"))}

    def forget_index(self) -> None:
        """Delete the server's private index, if it has saved one."""
        shutil.rmtree(self.root / "index", ignore_errors=True)

    def fold(self, project: str = "p", **options: Any) -> None:
        """Do everything that a compactor has to do now."""
        take_turn(LOCAL, str(self.root), project, CompactorConfig(**options))


@pytest.fixture
def state(tmp_path: Path) -> State:
    """Return what the store of the test's servers holds."""
    return State(tmp_path / "store")
