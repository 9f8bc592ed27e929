"""Facts about the process: read without running anything, and never an error."""

from __future__ import annotations

import os
import platform
import sys
from typing import Any

import numpy as np
import pytest

from eventlog import facts

COMMIT = "0123456789" * 4


def checkout(root: Any, head: str) -> str:
    (root / ".git").mkdir(parents=True)
    (root / ".git" / "HEAD").write_text(head + "\n")
    (root / "deep" / "down").mkdir(parents=True)
    return str(root / "deep" / "down")


def test_a_branch_with_a_loose_ref(tmp_path: Any):
    inside = checkout(tmp_path, "ref: refs/heads/feature/x")
    (tmp_path / ".git/refs/heads/feature").mkdir(parents=True)
    (tmp_path / ".git/refs/heads/feature/x").write_text(COMMIT + "\n")
    assert facts.git(inside) == {"commit": COMMIT, "branch": "feature/x"}


def test_a_branch_with_a_packed_ref(tmp_path: Any):
    inside = checkout(tmp_path, "ref: refs/heads/main")
    (tmp_path / ".git/packed-refs").write_text(
        f"# pack-refs\n{'f' * 40} refs/heads/not-main\n{COMMIT} refs/heads/main\n"
    )
    assert facts.git(inside) == {"commit": COMMIT, "branch": "main"}


def test_a_detached_head(tmp_path: Any):
    assert facts.git(checkout(tmp_path, COMMIT)) == {"commit": COMMIT}


def test_a_branch_without_a_commit(tmp_path: Any):
    inside = checkout(tmp_path, "ref: refs/heads/main")
    assert facts.git(inside) == {}
    (tmp_path / ".git/packed-refs").write_text("")
    assert facts.git(inside) == {"branch": "main"}


def test_a_broken_checkout_is_no_error(tmp_path: Any):
    (tmp_path / ".git").mkdir()
    assert facts.git(str(tmp_path)) == {}
    (tmp_path / ".git/HEAD").write_bytes(b"\xff\xfe")
    assert facts.git(str(tmp_path)) == {}


def test_without_a_checkout_there_are_no_facts():
    assert facts.git("/proc") == {}


def test_versions_are_those_of_imported_libraries_only():
    found = facts.versions()
    assert found["python"] == platform.python_version()
    assert found["numpy"] == np.__version__
    assert ("torch" in found) == ("torch" in sys.modules)


@pytest.mark.skipif(os.name != "posix", reason="uids are of POSIX")
def test_the_user_is_a_text():
    assert isinstance(facts.user(), str)
