"""Facts about this process and its surroundings that a run_start record carries."""

from __future__ import annotations

import os
import sys
from typing import Any


def user() -> str:
    """Return the user's name, or "" where the system has none for this uid."""
    import getpass

    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):
        return ""


def versions() -> dict[str, str]:
    """Return the versions of Python, the platform and the libraries that are already imported."""
    import platform

    found = {"python": platform.python_version(), "platform": platform.platform()}
    for module in ("torch", "transformers", "trl", "accelerate", "jax", "numpy"):
        version: Any = getattr(sys.modules.get(module), "__version__", None)
        if isinstance(version, str):
            found[module] = str(version)  # torch's is of a subclass, which msgspec refuses
    return found


def git(start: str | None = None) -> dict[str, str]:
    """Return {"commit", "branch"} of the git checkout around a directory, read without running git; {} when none."""
    try:
        directory = os.path.abspath(start or os.getcwd())
    except OSError:
        return {}
    while not os.path.isdir(os.path.join(directory, ".git")):
        parent = os.path.dirname(directory)
        if parent == directory:
            return {}
        directory = parent
    return _read_head(os.path.join(directory, ".git"))


def _read_head(git_dir: str) -> dict[str, str]:
    try:
        head = _read(os.path.join(git_dir, "HEAD"))
        if not head.startswith("ref: "):
            return {"commit": head}
        ref = head[5:]
        branch = ref.removeprefix("refs/heads/")
        loose = os.path.join(git_dir, *ref.split("/"))
        if os.path.exists(loose):
            return {"commit": _read(loose), "branch": branch}
        for line in _read(os.path.join(git_dir, "packed-refs")).splitlines():
            if line.endswith(" " + ref):
                return {"commit": line.split(" ")[0], "branch": branch}
    except (OSError, ValueError):
        return {}
    return {"branch": branch}


def _read(path: str) -> str:
    with open(path, encoding="utf-8") as file:
        return file.read().strip()
