"""One curve out of the peers' own files, with the same data: trackio's database and tensorboard's event files."""

from __future__ import annotations

import json
import os
import subprocess
from typing import Any, Final

import environments
import stores
from grids import Grid, number

PEERS: Final = ("trackio", "tensorboard")
_RUNS: Final = 4
_SCRIPT: Final = os.path.join(os.path.dirname(os.path.abspath(__file__)), "curve_of_peer.py")


def measure(cache: str, rows: int, repeat: int, wanted: tuple[str, ...]) -> dict[str, Any]:
    """Return milliseconds by peer, or the reason why there are none; `rows` of each of four runs."""
    found: dict[str, Any] = {"points": _RUNS * rows * len(stores.METRICS), "ms": {}, "missing": {}}
    for peer in (peer for peer in PEERS if peer in wanted):
        home = os.path.join(cache, f"read-{peer}-{rows}")
        try:
            python = environments.python_of(peer)
        except environments.UnavailableError as error:
            found["missing"][peer] = str(error)
            continue
        times = [_call(python, peer, home, rows) for _ in range(repeat)]
        found["ms"][peer] = {key: stores.median_of(times, key) for key in times[0]}
    return found


def _call(python: str, peer: str, home: str, rows: int) -> dict[str, float]:
    variables = environments.variables(home, TRACKIO_DIR=os.path.join(home, "trackio"))
    os.makedirs(home, exist_ok=True)
    command = [python, _SCRIPT, peer, home, str(rows)]
    values = json.dumps([stores.rows_of("noisy", rows, run) for run in range(_RUNS)]) if not _is_filled(home) else ""
    done = subprocess.run(command, input=values.encode(), stdout=subprocess.PIPE, check=True, env=variables)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def _is_filled(home: str) -> bool:
    return os.path.exists(os.path.join(home, "filled"))


def grid(found: dict[str, Any]) -> Grid:
    """Return the table for people."""
    rows = [[peer, number(figures["first_ms"]), number(figures["again_ms"])] for peer, figures in found["ms"].items()]
    rows += [[peer, reason, ""] for peer, reason in found["missing"].items()]
    title = f"one curve out of a peer's own files, {found['points'] / 1e6:g} M points in {_RUNS} runs, ms"
    return Grid(title, ["", "just opened", "again"], rows)
