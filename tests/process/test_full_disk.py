"""A disk that fills up, for real: training goes on, drops are counted, and logging resumes when space returns."""

from __future__ import annotations

import json
import os
import subprocess
import warnings

import pytest
from process_support import finish

from eventlog.store import open_store


@pytest.fixture
def small_disk(tmp_path):
    """A tmpfs of 1 MiB; skipped, loudly, where mounting is not allowed."""
    path = tmp_path / "small"
    path.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(path)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        if os.environ.get("CI"):
            pytest.fail(f"cannot mount a tmpfs in CI: {done.stderr}")
        warnings.warn(f"SKIPPED: cannot mount a tmpfs: {done.stderr}", UserWarning, stacklevel=1)
        pytest.skip("cannot mount a tmpfs")
    yield path
    subprocess.run(["umount", str(path)], check=True)


FILLING = """
    import json, os, sys, warnings, eventlog
    caught = []
    warnings.showwarning = lambda message, *rest, **more: caught.append(str(message))
    root = sys.argv[1]
    filler = os.path.join(root, "filler")
    run = eventlog.init(project="p", name="a", dir=os.path.join(root, "store"))
    kept = []
    def log(step):
        lost = run.lost
        run.log({"x": float(step)}, step=step)
        if run.lost == lost:
            kept.append(step)
    for step in range(100):
        log(step)
    file = os.open(filler, os.O_CREAT | os.O_WRONLY)
    try:
        while True:
            os.write(file, bytes(4096))
    except OSError:
        os.close(file)
    for step in range(100, 1000):
        log(step)
    lost = run.lost
    os.unlink(filler)
    for step in range(1000, 1100):
        log(step)
    run.finish()
    print(json.dumps({"lost": lost, "lost_after": run.lost, "kept": kept, "warnings": caught}))
"""


@pytest.mark.invariant(12)
def test_a_full_disk_costs_counted_records_and_never_training(small_disk, start):
    report = json.loads(finish(start(FILLING, small_disk)))
    assert report["lost"] > 0
    assert report["lost_after"] == report["lost"]
    assert len([text for text in report["warnings"] if "cannot write" in text]) == 1
    assert "ENOSPC" in report["warnings"][0]
    store = open_store(small_disk / "store")
    assert store.metrics("p")["_step"].to_pylist() == report["kept"]
    dropped = store.events("p", kinds="dropped")["payload"].to_pylist()
    assert sum(json.loads(text)["count"] for text in dropped) == report["lost"]


def test_a_file_size_limit_rolls_to_new_segments_and_loses_nothing(tmp_path, start):
    child = start(
        """
        import resource, sys, eventlog
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
        run = eventlog.init(project="p", name="a", dir=sys.argv[1])
        for step in range(3000):
            run.log({"x": float(step)}, step=step)
        run.finish()
        print(run.lost)
        """,
        tmp_path / "store",
    )
    assert finish(child).strip() == "0"
    assert open_store(tmp_path / "store").metrics("p")["_step"].to_pylist() == list(range(3000))
