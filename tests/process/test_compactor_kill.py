"""The compactor killed at each of its steps, for real: the old snapshot or the new one, and a rerun converges."""

from __future__ import annotations

import signal

import pytest
from process_support import finish

import eventlog
from compactor.commit import totals
from compactor.config import CompactorConfig
from compactor.work import take_turn
from eventlog.fs import LOCAL
from eventlog.store import open_store

KILLED_AT_STEP = """
    import os, signal, sys
    from compactor.config import CompactorConfig
    from compactor.work import take_turn
    from eventlog.fs import LocalFs

    class Deadly(LocalFs):
        left = int(sys.argv[2])

        def __getattribute__(self, name):
            if name in {"create", "write", "sync", "sync_dir", "link", "rename", "unlink", "rmdir", "make_dirs"}:
                Deadly.left -= 1
                if Deadly.left == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
            return super().__getattribute__(name)

    config = CompactorConfig(batch_bytes=6000, fanout=2, grace_s=0.0, segment_retention_s=0.0)
    take_turn(Deadly(), sys.argv[1], "p", config)
    print("survived")
"""


def make_store(path) -> list[float]:
    for name in ("a", "b"):
        with eventlog.init(project="p", name=name, dir=path) as run:
            for step in range(100):
                run.log(
                    {"x": step + len(name) / 2, "text": f"t{step}"} if step % 10 == 0 else {"x": step / 2}, step=step
                )
    return read(path)


def read(path) -> list:
    store = open_store(path)
    rows = store.metrics("p")
    events = store.events("p")
    return [rows["_seq"].to_pylist(), rows["x"].to_pylist(), events["_seq"].to_pylist(), events["payload"].to_pylist()]


@pytest.mark.invariant(9)
def test_a_compactor_killed_at_each_step_leaves_old_or_new_and_a_rerun_converges(tmp_path, start):
    whole = make_store(tmp_path / "store")
    kills = 0
    step = 1
    while True:
        child = start(KILLED_AT_STEP, tmp_path / "store", step)
        out, err = child.communicate(timeout=60)
        assert read(tmp_path / "store") == whole
        if child.returncode == 0:
            assert "survived" in out, err
            break
        assert child.returncode == -signal.SIGKILL, err
        kills += 1
        step += 3 if step < 60 else 11
    assert kills > 10
    take_turn(LOCAL, str(tmp_path / "store"), "p", CompactorConfig(grace_s=0.0))
    manifest = open_store(tmp_path / "store").manifest("p")
    assert totals(manifest, "metrics")[0] == 200
    assert read(tmp_path / "store") == whole


def test_sigterm_ends_the_service_cleanly_and_what_it_folded_stays(tmp_path, compactor):
    make_store(tmp_path / "store")
    service = compactor(tmp_path / "store", "--sweep-interval", "0.1")
    assert "watching" in service.stderr.readline()
    line = service.stdout.readline()
    assert "p: version" in line
    service.send_signal(signal.SIGTERM)
    finish(service)
    assert totals(open_store(tmp_path / "store").manifest("p"), "metrics")[0] == 200
