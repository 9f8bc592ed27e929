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


WRITING = """
    import errno, os, sys
    import numpy as np
    from eventlog import arrow, parquet
    from eventlog.fs import LocalFs

    class Filling(LocalFs):
        def __init__(self, left):
            self.left = left
        def write(self, fd, data):
            self.left -= 1
            if self.left < 0:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return os.write(fd, data)

    rows = 200_000
    one = arrow.encode_dictionary(["a"], [rows])
    numbers = arrow.from_numpy(np.arange(rows))
    noise = arrow.from_numpy(np.random.default_rng(1).random(rows))
    ranks = arrow.from_numpy(np.zeros(rows, np.int32))
    schema = arrow.table_schema("metrics", ["loss"])
    columns = [one, numbers, numbers.view(arrow.TIME), one, numbers, ranks, noise]
    table = arrow.pa.Table.from_arrays(columns, schema=schema)
    failed = 0
    while True:
        writer = parquet.Writer(LocalFs(), sys.argv[1], "p", "metrics", schema, 1, level=1)
        writer._sink._fs = Filling(failed)
        try:
            writer.write(table)
            writer.finish([])
            break
        except OSError as error:
            writer.discard()
            if error.errno != errno.ENOSPC:
                raise
            failed += 1
    (name,) = os.listdir(os.path.join(sys.argv[1], "snapshots", "p", "data", "metrics"))
    print(failed)
"""


def test_a_disk_that_is_full_at_any_write_of_a_data_file_ends_the_write_and_not_the_process(tmp_path, start):
    assert int(finish(start(WRITING, tmp_path))) > 10
