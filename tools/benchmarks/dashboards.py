"""The dashboard of `tools/bench crowd`: a server on a directory that others log into, polled as a page would."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import threading
import time
from http.client import HTTPException
from typing import Any, Final, Self

import environments
import watched
import workload
from serve import Client

TOKEN: Final = "bench"  # noqa: S105 - servers of its own, on loopback
LOOK_S: Final = 0.1
_POINTS: Final = 3000
_HERE: Final = os.path.dirname(os.path.abspath(__file__))


class Dashboard:
    """A server, and a thread that polls it as a dashboard does, from `poll` to the end of the block."""

    def __init__(self, subject: str, root: str, home: str, variables: dict[str, str], limit_s: float) -> None:
        """Serve a directory of eventlog's or of Trackio's; an answer that takes longer than the limit is an error."""
        if subject == "eventlog":
            python = environments.python_of("")
            command = [python, "-m", "compactor", "serve", root, "--port", "0", "--json", "--ui", "none"]
            command += ["--write-token", TOKEN]
        else:
            command = [environments.python_of("trackio"), os.path.join(_HERE, "crowd_server.py")]
        self._command = command
        more = {**variables, "TRACKIO_DIR": root, "TRACKIO_WRITE_TOKEN": TOKEN, "TRACKIO_STORAGE_MODE": "sqlite"}
        self._variables = environments.variables(home, **more)
        self._limit_s = limit_s
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._over = threading.Event()
        self._times: list[float] = []
        self._errors: list[str] = []
        self.url = ""

    def __enter__(self) -> Self:
        """Start the server.

        Raises:
            watched.FailedError: it did not start.
        """
        self._said = tempfile.TemporaryFile()
        self._process = subprocess.Popen(
            self._command,
            stdout=subprocess.PIPE,
            stderr=self._said,
            env=self._variables,
            start_new_session=True,
        )
        line = self._process.stdout.readline() if self._process.stdout else b""
        if not line:
            self.__exit__()
            raise watched.FailedError(f"no server: {watched.last_lines(self._said)}")
        self.url = json.loads(line)["url"]
        return self

    def poll(self) -> None:
        """Poll from now on, like a page that has been open for a while: what a server does once is done."""
        self._thread.start()
        while not self._times and not self._errors and not self._over.is_set():
            time.sleep(LOOK_S / 10)
        self._times.clear()

    def __exit__(self, *_: object) -> None:
        """Look no more, and end the server as a service manager would."""
        self._over.set()
        self._process.terminate()
        try:
            self._process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._thread.is_alive():
            self._thread.join()
        if self._process.stdout:
            self._process.stdout.close()

    def _look(self) -> None:
        client = Client(self.url, self._limit_s)
        while not self._over.is_set():
            began = time.perf_counter()
            try:
                _look_once(client)
                self._times.append((time.perf_counter() - began) * 1e3)
            except (RuntimeError, OSError, HTTPException, ValueError, KeyError) as error:
                if not self._over.is_set():
                    self._errors.append(f"{type(error).__name__}: {error}"[:300])
                client = Client(self.url, self._limit_s)
            self._over.wait(LOOK_S)

    def figures(self) -> dict[str, Any]:
        """Return how long each poll took, in milliseconds, and what went wrong."""
        return {
            "polls": self._times,
            "poll_errors": len(self._errors),
            "poll_error": self._errors[0] if self._errors else "",
        }


def _look_once(client: Client) -> None:
    """Ask what a page asks that shows all metrics of all runs."""
    records = json.loads(client.call("get_runs_for_project", project=workload.PROJECT))["data"]
    runs = [{"run": record["name"], "run_id": record["id"]} for record in records]
    asked = {"project": workload.PROJECT, "runs": runs, "max_points": _POINTS, "scalar_only": True}
    answer = json.loads(client.call("get_logs_batch", **asked))["data"]
    if len(answer) != len(runs):
        raise ValueError(f"{len(runs)} runs were asked for, and {len(answer)} came")
