"""Run a function of a benchmark in a fresh process, so that nothing that ran before is in its memory or its figures."""

from __future__ import annotations

import importlib
import json
import os
import resource
import subprocess
import sys
from typing import Any


def call(module: str, function: str, **arguments: Any) -> Any:
    """Return what `module.function(**arguments)` returns in a process of its own; all of it must fit JSON."""
    command = [sys.executable, os.path.abspath(__file__), module, function, json.dumps(arguments)]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def rss_bytes() -> int:
    """Return the memory that this process has resident now."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


def peak_rss_bytes(pid: int | None = None) -> int:
    """Return the most memory that a process had resident, this one by default.

    `ru_maxrss` is inherited from the parent across fork and exec, so the kernel's own high-water mark is asked.
    """
    with open(f"/proc/{pid or 'self'}/status", encoding="ascii") as file:
        line = next(line for line in file if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024


if __name__ == "__main__":
    print(json.dumps(getattr(importlib.import_module(sys.argv[1]), sys.argv[2])(**json.loads(sys.argv[3]))))
