"""Fixtures of the process tests: real child processes that never outlive a test."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest


@pytest.fixture
def start(tmp_path):
    """Return a function that starts a Python child process; children that still live are killed at the end."""
    children: list[subprocess.Popen] = []

    def start_child(source: str, *args: object, name: str = "child") -> subprocess.Popen:
        script = tmp_path / f"{name}-{len(children)}.py"
        script.write_text(textwrap.dedent(source))
        command = [sys.executable, str(script), *map(str, args)]
        pipe = subprocess.PIPE
        child = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True)
        children.append(child)
        return child

    yield start_child
    for child in children:
        if child.poll() is None:
            child.kill()
        child.communicate()


@pytest.fixture
def compactor():
    """Return a function that starts a real compactor process; those that still live are killed at the end."""
    children: list[subprocess.Popen] = []

    def start_compactor(store: Path, *options: str) -> subprocess.Popen:
        command = [sys.executable, "-m", "compactor", "run", str(store), *options]
        child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        children.append(child)
        return child

    yield start_compactor
    for child in children:
        if child.poll() is None:
            child.kill()
        child.communicate()
