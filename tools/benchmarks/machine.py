"""The facts of the machine and the versions: figures of two documents with different facts cannot be compared."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from typing import Any


def facts(directory: str) -> dict[str, Any]:
    """Return what the figures depend on; `directory` is where the data are."""
    packages = ("eventlog", "msgspec", "pyarrow", "numpy", "duckdb")
    return {
        "cpu": _line_of("/proc/cpuinfo", "model name"),
        "cores": os.cpu_count(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "load_1min": round(os.getloadavg()[0], 2),
        "system": f"{platform.system()} {platform.release()}",
        "file_system": _file_system(directory),
        "python": platform.python_version(),
        "versions": {name: importlib.metadata.version(name) for name in packages},
    }


def _line_of(path: str, key: str) -> str:
    try:
        with open(path, encoding="utf-8") as file:
            return next((line.split(":", 1)[1].strip() for line in file if line.startswith(key)), "")
    except OSError:
        return platform.processor()


def _file_system(directory: str) -> str:
    """Return the type of the file system that holds a directory, as /proc/mounts names it."""
    path = os.path.realpath(directory)
    best = ("", "")
    try:
        with open("/proc/mounts", encoding="utf-8") as file:
            for line in file:
                _, point, kind, *_ = line.split()
                if (path + "/").startswith(point.rstrip("/") + "/") and len(point) > len(best[0]):
                    best = (point, kind)
    except OSError:
        return ""
    return best[1]
