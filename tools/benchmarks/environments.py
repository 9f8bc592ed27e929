"""The environments of the peers and the charts: one each in `.venv-peers`, made from its requirements on first use."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from typing import Final

_HERE: Final = os.path.dirname(os.path.abspath(__file__))
_HOME: Final = os.path.join(os.path.dirname(os.path.dirname(_HERE)), ".venv-peers")
_STAMP: Final = "eventlog-stamp.json"
_QUIET: Final = {
    "AIM_UI_TELEMETRY_ENABLED": "0",
    "DO_NOT_TRACK": "1",
    "GIT_PYTHON_REFRESH": "quiet",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_OFFLINE": "1",
    "MLFLOW_ALLOW_FILE_STORE": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "WANDB_MODE": "offline",
    "WANDB_SILENT": "true",
}
_SETTINGS_OF: Final = ("AIM_", "EVENTLOG_", "HF_", "MLFLOW_", "SPACE_", "TRACKIO_", "WANDB_")


class UnavailableError(Exception):
    """An environment cannot be made on this machine; the message is the reason, for people."""


def python_of(name: str) -> str:
    """Return the Python of an environment, which is made when it is not there; "" is the one that runs this.

    Raises:
        UnavailableError: it cannot be made here. The next call tries again.
    """
    if not name:
        return sys.executable
    directory = os.path.join(_HOME, name)
    wanted = _wanted(name)
    with _alone(name):
        if _stamp(directory).get("requirements") != wanted:
            _make(name, directory, wanted)
    return os.path.join(directory, "bin", "python")


def versions(name: str) -> dict[str, str]:
    """Return the version of each package that the requirements of an environment name."""
    return dict(_stamp(os.path.join(_HOME, name)).get("versions", {}))


def variables(home: str, **more: str) -> dict[str, str]:
    """Return an environment for a peer: nothing of the user's settings of any peer, a home of its own, no network."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(_SETTINGS_OF)}
    # As pip installs a package: compiled.
    kept.pop("PYTHONDONTWRITEBYTECODE", None)
    return {**kept, **_QUIET, "HOME": home, **more}


def _wanted(name: str) -> str:
    with open(os.path.join(_HERE, "requirements", f"{name}.txt"), "rb") as file:
        return hashlib.sha256(file.read()).hexdigest()


def _stamp(directory: str) -> dict[str, dict[str, str]]:
    try:
        with open(os.path.join(directory, _STAMP), encoding="utf-8") as file:
            return dict(json.load(file))
    except FileNotFoundError:
        return {}


@contextlib.contextmanager
def _alone(name: str) -> Iterator[None]:
    """Keep two runs of the benchmarks from making the same environment at once."""
    os.makedirs(_HOME, exist_ok=True)
    with open(os.path.join(_HOME, f"{name}.lock"), "w", encoding="ascii") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _make(name: str, directory: str, wanted: str) -> None:
    print(f"tools/bench: making .venv-peers/{name}", file=sys.stderr, flush=True)
    requirements = os.path.join(_HERE, "requirements", f"{name}.txt")
    python = os.path.join(directory, "bin", "python")
    pip = [python, "-m", "pip", "--disable-pip-version-check"]
    shutil.rmtree(directory, ignore_errors=True)
    _run([sys.executable, "-m", "venv", directory])
    _run([*pip, "install", "--quiet", "--requirement", requirements])
    listed = json.loads(_run([*pip, "list", "--format", "json"]))
    installed = {entry["name"].lower(): entry["version"] for entry in listed}
    with open(requirements, encoding="utf-8") as file:
        named = [line.split("==")[0].strip() for line in file if line.strip()]
    stamp = {"requirements": wanted, "versions": {package: installed[package.lower()] for package in named}}
    with open(os.path.join(directory, _STAMP), "w", encoding="utf-8") as file:
        json.dump(stamp, file)


def _run(command: list[str]) -> bytes:
    done = subprocess.run(command, capture_output=True, check=False)
    if done.returncode:
        lines = [line for line in done.stderr.decode(errors="replace").splitlines() if line.startswith("ERROR")]
        said = lines[-1] if lines else f"{' '.join(command[:4])} ended with {done.returncode}"
        raise UnavailableError(f"not installed here: {said}")
    return done.stdout
