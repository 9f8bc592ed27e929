"""Ways for a process to end: kill -9, SIGTERM, os._exit, sys.exit, an exception; every acknowledged record stays."""

from __future__ import annotations

import os
import signal
import time

import pytest
from process_support import finish, values_by_step

from eventlog.store import open_store

WRITER = """
    import sys, eventlog
    run = eventlog.init(project="p", name=sys.argv[2], dir=sys.argv[1])
    step = 0
    while True:
        run.log({"x": step * 0.5, "y": float(step)}, step=step)
        sys.stdout.write(f"{step}\\n")
        sys.stdout.flush()
        step += 1
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_every_acknowledged_record_survives_a_kill_in_mid_append(tmp_path, start, number):
    store = tmp_path / "store"
    child = start(WRITER, store, "a")
    acknowledged = -1
    deadline = time.monotonic() + 30
    while acknowledged < 2000 and time.monotonic() < deadline:
        acknowledged = int(child.stdout.readline())
    os.kill(child.pid, number)
    rest = child.stdout.read().split("\n")
    acknowledged = max([acknowledged, *(int(line) for line in rest[:-1] if line)])
    child.wait()
    found = values_by_step(store, "p", "x")["a"]
    assert set(found) >= {(step, step * 0.5) for step in range(acknowledged + 1)}
    assert len(found) <= acknowledged + 2
    assert set(found.values()) == {1}


@pytest.mark.parametrize(
    ("ending", "code", "status"),
    [
        ("os._exit(7)", 7, "running"),
        ("sys.exit(0)", 0, "finished"),
        ("raise RuntimeError('boom')", 1, "failed"),
        ("run.finish()", 0, "finished"),
    ],
)
def test_the_records_and_the_status_tell_how_a_process_ended(tmp_path, start, ending, code, status):
    store = tmp_path / "store"
    child = start(
        f"""
        import os, sys, eventlog
        run = eventlog.init(project="p", name="a", dir=sys.argv[1])
        for step in range(100):
            run.log({{"x": float(step)}}, step=step)
        {ending}
        """,
        store,
    )
    finish(child, code)
    assert len(values_by_step(store, "p", "x")["a"]) == 100
    assert open_store(store).runs("p")["status"].to_pylist() == [status]


def test_sigterm_with_the_scripts_own_handler_keeps_what_the_handler_logs(tmp_path, start):
    store = tmp_path / "store"
    child = start(
        """
        import signal, sys, eventlog
        run = eventlog.init(project="p", name="a", dir=sys.argv[1])
        def stop(number, frame):
            run.log({"last": 1.0})
            run.finish("killed", 143)
            sys.exit(0)
        signal.signal(signal.SIGTERM, stop)
        print("ready", flush=True)
        step = 0
        while True:
            run.log({"x": float(step)}, step=step)
            step += 1
        """,
        store,
    )
    child.stdout.readline()
    time.sleep(0.3)
    child.send_signal(signal.SIGTERM)
    finish(child)
    rows = open_store(store).metrics("p")
    seqs = rows["_seq"].to_pylist()
    assert sorted(seqs) == list(range(min(seqs), min(seqs) + len(seqs)))
    assert rows["last"].drop_null().to_pylist() == [1.0]


def test_a_killed_run_is_resumed_after_its_last_step(tmp_path, start):
    store = tmp_path / "store"
    child = start(WRITER, store, "a")
    while int(child.stdout.readline()) < 500:
        pass
    child.kill()
    child.wait()
    again = start(
        """
        import sys, eventlog
        with eventlog.init(project="p", name="a", dir=sys.argv[1], resume="must") as run:
            for _ in range(100):
                run.log({"x": -1.0})
        """,
        store,
    )
    finish(again)
    found = values_by_step(store, "p", "x")
    assert list(found) == ["a"]
    steps = sorted(step for step, _ in found["a"])
    assert steps == list(range(len(steps)))
    assert sum(count for (_, value), count in found["a"].items() if value == -1.0) == 100


def test_a_forked_child_writes_for_itself_and_neither_doubles_nor_loses(tmp_path, start):
    store = tmp_path / "store"
    child = start(
        """
        import os, sys, threading, eventlog
        run = eventlog.init(project="p", name="a", dir=sys.argv[1])
        stop = threading.Event()
        def busy():
            step = 0
            while not stop.is_set():
                run.log({"thread": float(step)}, step=step)
                step += 1
        thread = threading.Thread(target=busy)
        thread.start()
        pids = []
        for index in range(5):
            pid = os.fork()
            if pid == 0:
                for step in range(200):
                    run.log({"x": float(index * 1000 + step)}, step=step)
                run.finish()
                os._exit(0)
            pids.append(pid)
        for pid in pids:
            assert os.waitpid(pid, 0)[1] == 0
        stop.set()
        thread.join()
        run.log({"x": -1.0}, step=0)
        run.finish()
        """,
        store,
    )
    finish(child)
    found = values_by_step(store, "p", "x")["a"]
    expected = {(step, float(index * 1000 + step)) for index in range(5) for step in range(200)} | {(0, -1.0)}
    assert set(found) == expected
    assert set(found.values()) == {1}
    threaded = open_store(store).metrics("p", names=["thread"])
    assert threaded["_step"].to_pylist() == list(range(threaded.num_rows))
    assert len(os.listdir(store / "segments" / "p")) == 6
    assert open_store(store).runs("p")["status"].to_pylist() == ["finished"]


def test_spawned_and_pool_workers_log_to_the_run_they_were_given(tmp_path, start):
    store = tmp_path / "store"
    child = start(
        """
        import multiprocessing, sys, eventlog

        def work(run, worker):
            for step in range(50):
                run.log({"x": float(worker * 100 + step)}, step=step)
            run.finish()

        if __name__ == "__main__":
            run = eventlog.init(project="p", name="a", dir=sys.argv[1])
            context = multiprocessing.get_context("spawn")
            workers = [context.Process(target=work, args=(run, i)) for i in range(3)]
            for worker in workers:
                worker.start()
            for worker in workers:
                worker.join()
                assert worker.exitcode == 0
            run.finish()
        """,
        store,
    )
    finish(child)
    found = values_by_step(store, "p", "x")["a"]
    assert set(found) == {(step, float(worker * 100 + step)) for worker in range(3) for step in range(50)}


def test_ranks_share_a_run_by_id_and_keep_their_rank(tmp_path, start, monkeypatch):
    store = tmp_path / "store"
    children = []
    for rank in range(3):
        monkeypatch.setenv("RANK", str(rank))
        monkeypatch.setenv("WORLD_SIZE", "3")
        monkeypatch.setenv("EVENTLOG_RUN_ID", "shared-run")
        children.append(
            start(
                """
                import os, sys, eventlog
                with eventlog.init(project="p", dir=sys.argv[1]) as run:
                    for step in range(20):
                        run.log({"x": float(os.environ["RANK"])}, step=step)
                """,
                store,
            )
        )
    for child in children:
        finish(child)
    rows = open_store(store).metrics("p")
    assert set(rows["_run_id"].to_pylist()) == {"shared-run"}
    assert sorted(set(zip(rows["_rank"].to_pylist(), rows["x"].to_pylist(), strict=True))) == [
        (0, 0.0),
        (1, 1.0),
        (2, 2.0),
    ]
    assert rows.num_rows == 60
    runs = open_store(store).runs("p").to_pylist()
    assert [run["run_id"] for run in runs] == ["shared-run"]
    assert runs[0]["world_size"] == 3
