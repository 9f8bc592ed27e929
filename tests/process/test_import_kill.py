"""An import that is killed -9 at any point, and run again, brings each run in once."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from subprocess import Popen

import pytest

import eventlog
from eventlog.config import WriterConfig
from eventlog.exporting.dataset import export_dataset
from eventlog.exporting.target import Directory
from eventlog.fs import LOCAL
from eventlog.importing import sources
from eventlog.importing.perform import import_runs
from eventlog.testing import contents
from eventlog.verify import verify

PROJECT = "p"
RUNS, ROWS = 3, 400
QUIET = WriterConfig(sync_interval_s=None)

# Kills itself in the midst of what the real import does: at the nth call of one function.
CHILD = """
import os, signal, sys
from eventlog.importing import sources, staging
from eventlog.importing.perform import import_runs
from eventlog.blobs import BlobStore
source, root, place, nth = *sys.argv[1:4], int(sys.argv[4])
owner, name = {
    "blob": (BlobStore, "put_file"),
    "batch": (staging.Writer, "append_all"),
    "rename": (staging.LOCAL, "rename"),
    "renamed": (staging.LOCAL, "sync_dir"),
}[place]
real, calls = getattr(owner, name), []
def kill_here(*args, **kwargs):
    if place == "renamed" and os.path.basename(args[0]) != "p":
        return real(*args, **kwargs)
    if place == "rename" and not os.path.isdir(args[0]):
        return real(*args, **kwargs)
    calls.append(1)
    if len(calls) == nth:
        if place == "batch":
            real(args[0], args[1][: len(args[1]) // 2])
        os.kill(os.getpid(), signal.SIGKILL)
    return real(*args, **kwargs)
setattr(owner, name, kill_here)
import_runs(sources.Directory(source), root)
print("came to its end")
"""
# Whether the import is whole when the process dies there.
PLACES = [("blob", 2, False), ("batch", 2, False), ("rename", 1, False), ("renamed", 2, True)]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """Return a store and its export."""
    place = tmp_path_factory.mktemp("dataset")
    root, out = str(place / "store"), str(place / "out")
    for number in range(RUNS):
        with eventlog.init(PROJECT, f"run-{number}", dir=root, settings=QUIET) as run:
            for step in range(ROWS):
                run.log({"x": step * 0.5, "y": -1.0 if step % 7 else 2**60 + step}, step=step)
            run.log({"file": f"bytes of {number}".encode()})
    export_dataset(root, PROJECT, Directory(out))
    return root, out


def told(root: str) -> dict:
    found = contents.by_run(contents.of_store(LOCAL, root, PROJECT))
    found.pop("", None)
    return found


@pytest.mark.parametrize(("place", "nth", "whole"), PLACES)
def test_an_import_that_is_killed_anywhere_and_run_again_brings_each_run_in_once(
    dataset: tuple[str, str], tmp_path: Path, start: Callable[..., Popen], place: str, nth: int, *, whole: bool
) -> None:
    source, out = dataset
    root = str(tmp_path / "store")
    with eventlog.init(PROJECT, "here before", dir=root, settings=QUIET) as run:
        run.log({"x": 1.0})
    before = told(root)
    child = start(CHILD, out, root, place, nth)
    _, errors = child.communicate(timeout=120)
    assert child.returncode == -signal.SIGKILL, errors
    assert told(root) == (before | told(source) if whole else before)
    (done,) = import_runs(sources.Directory(out), root)
    assert (done.runs, len(done.present)) == ((0, RUNS) if whole else (RUNS, 0))
    assert told(root) == before | told(source)
    assert LOCAL.names(str(tmp_path / "store" / "imports")) == []
    assert verify(root).ok
