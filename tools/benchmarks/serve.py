"""What a poll of the dashboard costs: nothing changed, and every run changed while 32 writers log; beside Trackio's."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, Final
from urllib.parse import urlsplit

import numpy as np
import stores
from charts import Panel

DEFAULT_RECORDS: Final = 625_000
WRITERS: Final = 32
_POINTS: Final = 3000
_POLLS: Final = 20
_FEW: Final = 50_000
_HERE: Final = os.path.dirname(os.path.abspath(__file__))
_TOKEN: Final = "bench"  # noqa: S105 - a server of its own, on loopback


def measure(cache: str, records: int, repeat: int) -> dict[str, Any]:
    """Return the figures; the two servers take turns, each alone on the machine."""
    short = max(records // 10, stores.RUNS)
    polls = _POLLS if records >= _FEW else 3
    ours: dict[str, list[dict[str, float]]] = {"long": [], "short": []}
    theirs: list[dict[str, float]] = []
    for _ in range(repeat):
        for length, count in (("long", records), ("short", short)):
            with stores.linked_copy(cache, stores.snapshot(cache, "noisy", count)) as root:
                ours[length].append(_eventlog(root, polls))
        theirs.append(_trackio(cache, records, polls))
    found = {
        "eventlog": _medians(ours["long"]),
        "eventlog_short_runs": _medians(ours["short"]),
        "trackio": _medians(theirs),
    }
    figures = ("unchanged_ms", "changed_ms")
    return {
        "parameters": {
            "records": records,
            "runs": stores.RUNS,
            "metrics": len(stores.METRICS),
            "max_points": _POINTS,
            "writers": WRITERS,
            "polls": polls,
            "repeat": repeat,
        },
        **found,
        "trackio_to_eventlog": {key: found["trackio"][key] / found["eventlog"][key] for key in figures},
        "long_to_short": {key: found["eventlog"][key] / found["eventlog_short_runs"][key] for key in figures},
    }


def _medians(results: list[dict[str, float]]) -> dict[str, float]:
    return {key: stores.median_of(results, key) for key in results[0]}


class Client:
    """A poller with one connection that is kept, as a browser's is."""

    def __init__(self, url: str, timeout_s: float = 120) -> None:
        """Connect."""
        address = urlsplit(url)
        self._connection = http.client.HTTPConnection(str(address.hostname), address.port, timeout=timeout_s)

    def call(self, name: str, **kwargs: Any) -> bytes:
        """Return the body of an answer; anything but 200 is an error."""
        headers = {"content-type": "application/json", "x-trackio-write-token": _TOKEN}
        self._connection.request("POST", f"/api/{name}", json.dumps(kwargs), headers)
        answer = self._connection.getresponse()
        body = answer.read()
        if answer.status != 200:
            raise RuntimeError(f"{name} answered {answer.status}: {body[:300]!r}")
        return body

    def time(self, name: str, **kwargs: Any) -> tuple[float, bytes]:
        """Return milliseconds and the body."""
        began = time.perf_counter()
        body = self.call(name, **kwargs)
        return (time.perf_counter() - began) * 1e3, body


def _poll(client: Client, change: Callable[[], None], polls: int) -> dict[str, float]:
    """Poll as the page does: first, again and again without a change, and after a change of every run each time."""
    records = json.loads(client.call("get_runs_for_project", project=stores.PROJECT))["data"]
    runs = [{"run": record["name"], "run_id": record["id"]} for record in records][: stores.RUNS]
    asked: dict[str, Any] = {"project": stores.PROJECT, "runs": runs, "max_points": _POINTS, "scalar_only": True}
    first, body = client.time("get_logs_batch", **asked)
    unchanged = [client.time("get_logs_batch", **asked)[0] for _ in range(polls)]
    changed, last = [], body
    for _ in range(polls):
        change()
        elapsed, newer = client.time("get_logs_batch", **asked)
        if newer == last:
            raise RuntimeError("every run was to have changed, and nothing did")
        changed.append(elapsed)
        last = newer
    rows = [len(run["logs"]) for run in json.loads(body)["data"]]
    return {
        "first_ms": first,
        "unchanged_ms": float(np.median(unchanged)),
        "unchanged_max_ms": max(unchanged),
        "changed_ms": float(np.median(changed)),
        "changed_max_ms": max(changed),
        "body_bytes": float(len(body)),
        "rows_a_run": float(np.median(rows)),
    }


def _eventlog(root: str, polls: int) -> dict[str, float]:
    command = [sys.executable, "-m", "compactor", "serve", root, "--port", "0", "--json", "--ui", "none"]
    with _process([*command, "--write-token", _TOKEN]) as server:
        line = server.stdout.readline() if server.stdout else b""
        client = Client(json.loads(line)["url"])
        with _process([sys.executable, os.path.join(_HERE, "crew.py"), root, str(WRITERS)]) as crew:
            if crew.stdout is None or crew.stdout.readline().strip() != b"ready" or crew.stdin is None:
                raise RuntimeError("the writers did not start")
            orders = crew.stdin

            def change() -> None:
                # From now on each writer logs 20 times a second; a second later every run has new rows.
                orders.write(b"log\n")
                orders.flush()
                time.sleep(1.0)

            return _poll(client, change, polls)


def _trackio(cache: str, records: int, polls: int) -> dict[str, float]:
    home = os.path.join(cache, f"trackio-{records}")
    environment = {**os.environ, "TRACKIO_DIR": home, "TRACKIO_WRITE_TOKEN": _TOKEN, "HF_HUB_OFFLINE": "1"}
    script = os.path.join(_HERE, "trackio_server.py")
    with _process([sys.executable, script, str(records)], environment) as server:
        line = server.stdout.readline() if server.stdout else b""
        client = Client(json.loads(line)["url"])
        records_of = json.loads(client.call("get_runs_for_project", project=stores.PROJECT))["data"]
        steps = iter(range(10_000_000, 20_000_000))

        def change() -> None:
            step = next(steps)
            logs = [
                {
                    "project": stores.PROJECT,
                    "run": run["name"],
                    "run_id": run["id"],
                    "metrics": dict.fromkeys(stores.METRICS, float(step)),
                    "step": step,
                    "config": None,
                    "log_id": f"{run['id']}-{step}-{time.time_ns()}",
                }
                for run in records_of
            ]
            client.call("bulk_log", logs=logs, hf_token=None)

        return _poll(client, change, polls)


@contextlib.contextmanager
def _process(command: list[str], environment: dict[str, str] | None = None) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment) as process:
        try:
            yield process
        finally:
            process.terminate()


def table(found: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Yield rows for people."""
    ours, theirs = found["eventlog"], found["trackio"]
    for key, text in (
        ("first_ms", "first poll"),
        ("unchanged_ms", "poll, nothing changed"),
        ("changed_ms", "poll, every run changed"),
        ("changed_max_ms", "  the slowest"),
    ):
        yield text, f"{ours[key]:.1f} ms", f"trackio {theirs[key]:.0f} ms"
    yield "rows a run, bytes", f"{ours['rows_a_run']:.0f}, {ours['body_bytes']:,.0f}", f"{theirs['rows_a_run']:.0f}"
    ratio = found["long_to_short"]
    yield "10x longer runs, changed", f"{ratio['changed_ms']:.2f}x", ""
    yield "10x longer runs, nothing changed", f"{ratio['unchanged_ms']:.2f}x", ""


def panels(found: dict[str, Any]) -> list[Panel]:
    """Return what `--plot` draws."""
    subjects = {"eventlog": "eventlog", "eventlog_short_runs": "eventlog, a tenth of the rows", "trackio": "trackio"}
    kinds = {"first_ms": "first", "unchanged_ms": "nothing changed", "changed_ms": "every run changed"}
    series = {text: [found[subject][key] for subject in subjects] for key, text in kinds.items()}
    return [
        Panel(title="A poll of the dashboard", unit="ms, less is better", labels=[*subjects.values()], series=series)
    ]
