"""Many threads, forks, spawned workers and signals on one run: every record once, each process under its own writer."""

from __future__ import annotations

import collections
import subprocess
import sys
import threading
from typing import Any

import pytest

from eventlog import schema


def counted(back: Any) -> dict[str, int]:
    """Return how many log records each writer has; `records` checks that seqs are gap-free and read alike."""
    back.records()
    return collections.Counter(call.writer_id for call in back.calls())


def test_eight_threads_lose_and_double_nothing(start: Any, back: Any):
    run = start()

    def work(thread: int) -> None:
        for number in range(500):
            run.log({f"t{thread}": float(number), "n": number})

    threads = [threading.Thread(target=work, args=(thread,)) for thread in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    run.finish()
    calls = back.calls()
    assert len(calls) == 4000
    for thread in range(8):
        mine = [call.numbers["n"] for call in calls if f"t{thread}" in call.numbers]
        assert mine == list(range(500))
    assert sorted(call.step for call in calls) == list(range(4000))
    assert len(back.records()) == 4002


def test_threads_may_log_while_another_flushes(start: Any, back: Any):
    run = start()
    done = threading.Event()

    def flush() -> None:
        while not done.is_set():
            run.flush()

    flusher = threading.Thread(target=flush)
    flusher.start()
    for number in range(500):
        run.log({"n": float(number)})
    done.set()
    flusher.join()
    run.finish()
    assert [call.numbers["n"] for call in back.calls()] == list(range(500))


FORK = """
import os, sys
import eventlog
run = eventlog.init("p", dir=sys.argv[1], name="n")
for i in range(5):
    run.log({"loss": float(i)})
    run.log({"text": "x", "loss": float(i)})
child = os.fork()
if not child:
    for i in range(7):
        run.log({"loss": 100.0 + i})
        run.log({"new": 1.0})
    run.log({"text": "child", "loss": 1.0})
    run.finish()
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
for i in range(3):
    run.log({"loss": 200.0 + i})
run.finish()
"""


def test_a_forked_child_has_a_writer_of_its_own_and_both_are_complete(script: Any, back: Any):
    script(FORK)
    assert sorted(counted(back).values()) == [13, 15]
    starts = back.of_kind(schema.RunStart)
    assert len({record.run_id for record in starts}) == 1
    (fork,) = [record for record in starts if record.mode == "fork"]
    (new,) = [record for record in starts if record.mode == "new"]
    assert fork.parent in back.writers()
    assert fork.pid != new.pid
    assert len(back.of_kind(schema.RunEnd)) == 1
    assert [call.numbers["loss"] for call in back.calls() if call.numbers.get("loss", 0) >= 100] == [
        *(200.0 + i for i in range(3)),
        *(100.0 + i for i in range(7)),
    ]


FORK_IN_THREADS = """
import os, sys, threading
import eventlog
run = eventlog.init("p", dir=sys.argv[1], name="n")
stop = threading.Event()
def work(name):
    while not stop.is_set():
        run.log({name: 1.0})
threads = [threading.Thread(target=work, args=(f"t{i}",)) for i in range(3)]
for thread in threads:
    thread.start()
for number in range(5):
    child = os.fork()
    if not child:
        for i in range(10):
            run.log({"child": float(i)})
        run.finish()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
stop.set()
for thread in threads:
    thread.join()
run.finish()
"""


def test_a_fork_while_other_threads_log_neither_hangs_nor_doubles(script: Any, back: Any):
    script(FORK_IN_THREADS)
    back.records()
    children = collections.Counter(call.writer_id for call in back.calls() if "child" in call.numbers)
    assert list(children.values()) == [10] * 5


def test_a_child_that_logs_nothing_leaves_nothing(script: Any, back: Any):
    code = """
import os, sys
import eventlog
run = eventlog.init("p", dir=sys.argv[1])
run.log({"a": 1.0})
child = os.fork()
if not child:
    sys.exit(0)
assert os.waitpid(child, 0)[1] == 0
run.log({"a": 2.0})
"""
    script(code)
    assert list(counted(back).values()) == [2]
    assert [end.status for end in back.of_kind(schema.RunEnd)] == ["finished"]


SPAWN = """
import multiprocessing, sys
import eventlog

def work(run, number):
    for i in range(5):
        run.log({"worker": float(number), "i": float(i)})

def main():
    run = eventlog.init("p", dir=sys.argv[1], name="n")
    run.log({"main": 1.0})
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=work, args=(run, number)) for number in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    run.finish()

if __name__ == "__main__":
    main()
"""


def test_spawned_workers_log_to_the_same_run(back: Any, tmp_path: Any):
    path = tmp_path / "train.py"
    path.write_text(SPAWN)
    command = [sys.executable, "-W", "error", str(path), back.root]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert sorted(counted(back).values()) == [1, 5, 5]
    assert len({call.run_id for call in back.calls()}) == 1
    assert sorted(record.mode for record in back.of_kind(schema.RunStart)) == ["attach", "attach", "new"]


SIGNALS = """
import itertools, signal, sys
import eventlog
run = eventlog.init("p", dir=sys.argv[1])
ticks = itertools.count(1)
def handler(number, frame):
    tick = next(ticks)
    run.log({"tick": float(tick), f"n{tick % 50}": 1.0})
signal.signal(signal.SIGALRM, handler)
signal.setitimer(signal.ITIMER_REAL, 0.0002, 0.0002)
for i in range(20_000):
    run.log({"loss": float(i)})
    if i % 100 == 0:
        run.log({"loss": -1.0, "text": "x", f"s{i}": 1.0})
signal.setitimer(signal.ITIMER_REAL, 0)
run.finish()
print(next(ticks) - 1)
"""


@pytest.mark.timeout(60)
def test_a_signal_handler_may_log_in_the_middle_of_a_log(script: Any, back: Any):
    ticks = int(script(SIGNALS))
    assert ticks > 50
    calls = back.calls()
    assert sorted(call.numbers["tick"] for call in calls if "tick" in call.numbers) == list(range(1, ticks + 1))
    losses = [call.numbers["loss"] for call in calls if "loss" in call.numbers]
    assert [loss for loss in losses if loss >= 0] == list(range(20_000))
    back.records()


FINISH_IN_HANDLER = """
import os, signal, sys
import eventlog
run = eventlog.init("p", dir=sys.argv[1])
def handler(number, frame):
    run.finish("killed", 15)
    sys.exit(0)
signal.signal(signal.SIGTERM, handler)
for i in range(1_000_000):
    run.log({"loss": float(i)})
    if i == 500:
        os.kill(os.getpid(), signal.SIGTERM)
"""


def test_a_signal_handler_may_finish_the_run(script: Any, back: Any):
    script(FINISH_IN_HANDLER)
    assert len(back.calls()) == 501
    assert [end.status for end in back.of_kind(schema.RunEnd)] == ["killed"]


INTERRUPTS = """
import signal, sys
import eventlog
run = eventlog.init("p", dir=sys.argv[1])
armed = False
def handler(number, frame):
    if armed:
        raise KeyboardInterrupt
signal.signal(signal.SIGALRM, handler)
kept = []
interrupts = 0
i = 0
while interrupts < 120 and i < 100_000:
    i += 1
    try:
        try:
            armed = True
            signal.setitimer(signal.ITIMER_REAL, 0.00002 + (i % 37) * 0.000003)
            run.log({"loss": float(i)})
            kept.append(i)
            run.log({"loss": float(i), "text": "x"}, step=i)
        finally:
            armed = False
    except KeyboardInterrupt:
        interrupts += 1
        armed = False
signal.setitimer(signal.ITIMER_REAL, 0)
run.finish()
print(interrupts, *kept)
"""


@pytest.mark.timeout(60)
def test_interrupts_at_any_moment_neither_double_nor_lose_what_was_logged(script: Any, back: Any):
    interrupts, *kept = map(int, script(INTERRUPTS).split())
    assert interrupts > 100
    back.records()
    found = [call.numbers["loss"] for call in back.calls() if not call.others]
    assert len(found) == len(set(found))
    assert set(kept) <= set(found)


EXITS = {
    "finished": ("", "finished"),
    "sys.exit": ("sys.exit(0)", "finished"),
    "exception": ("raise RuntimeError('boom')", "failed"),
}


@pytest.mark.parametrize("case", EXITS)
def test_a_run_that_was_not_finished_is_finished_at_exit(store: str, back: Any, case: str):
    line, status = EXITS[case]
    code = f"import sys, eventlog\nrun = eventlog.init('p', dir=sys.argv[1])\nrun.log({{'a': 1.0}})\n{line}"
    subprocess.run([sys.executable, "-c", code, store], capture_output=True, timeout=60, check=False)
    assert [end.status for end in back.of_kind(schema.RunEnd)] == [status]
    assert [path[-4:] for path in back.files()] == [".seg"]


def test_a_process_that_ends_without_goodbye_leaves_every_record(script: Any, back: Any):
    script(
        "import os, sys, eventlog\n"
        "run = eventlog.init('p', dir=sys.argv[1])\n"
        "for i in range(100):\n"
        "    run.log({'a': float(i)})\n"
        "os._exit(0)"
    )
    assert [call.numbers["a"] for call in back.calls()] == list(range(100))
    assert [path[-5:] for path in back.files()] == [".open"]
