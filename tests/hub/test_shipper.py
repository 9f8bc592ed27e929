"""A job with EVENTLOG_BUCKET: a process of its own ships what it seals, whatever becomes of job, shipper and Hub."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import signal
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from jobs import PATIENCE_S, Host, until
from localhub.process import LocalHub
from shipping import held, inbox_of, opened

from eventlog.store import open_store

SHORT = """
import eventlog
with eventlog.init() as run:
    for step in range(100):
        run.log({"x": step / 2})
    run.log({"file": eventlog.File(b"abc" * 1000)})
"""
COMMANDED = """
import sys
import eventlog
settings = eventlog.WriterConfig(roll_interval_s=0.2, sync_interval_s=0.1)
run = eventlog.init(settings=settings)
step = 0
print("ready", flush=True)
for line in sys.stdin:
    for _ in range(int(line)):
        run.log({"x": step / 2}, step=step)
        step += 1
    print(step, flush=True)
run.finish()
"""


def is_all_there(hub: LocalHub, bucket: str, host: Host) -> bool:
    return held(opened(hub, bucket)) == inbox_of(host.store) != {}


def sealed(host: Host) -> int:
    return len([*host.store.rglob("*.seg")])


def logged(host: Host) -> list[int]:
    return sorted(open_store(host.store).metrics("p", names=["x"])["_step"].to_pylist())


def test_all_that_a_job_logged_is_in_the_bucket_when_it_has_ended_and_its_shipper_ends_too(
    hub: LocalHub, bucket: str, host: Host
) -> None:
    assert host.run(SHORT) == ("", "")
    assert is_all_there(hub, bucket, host)
    assert len(held(opened(hub, bucket))) == 2
    until(lambda: not host.ships(), "the end of the shipper")
    assert "all is there" in host.log()


def test_a_job_ends_in_time_while_the_hub_is_down_says_what_is_left_and_the_shipper_goes_on(
    hub: LocalHub, bucket: str, host: Host
) -> None:
    hub.kill()
    # The pipes are read to their end, which comes only when nobody else has them open.
    out, err = host.run(SHORT, EVENTLOG_SHIP_FLUSH_S="0.5")
    assert (out, err.count("EventLogWarning")) == ("", 1)
    left = inbox_of(host.store)
    told = re.search(
        r"(\d+) segments and blobs \((\d+) bytes\) are not known to be there: .* (`.*`) does it later", err
    )
    assert told is not None, err
    assert (int(told[1]), int(told[2])) == (len(left), sum(size for size, _ in left.values()))
    assert told[3] == f"`eventlog ship {host.store} {host.address}`"
    assert host.ships()
    hub.revive()
    until(lambda: not host.ships(), "the end of the shipper")
    assert is_all_there(hub, bucket, host)


def test_the_command_in_the_warning_does_what_a_shipper_that_was_killed_left(
    hub: LocalHub, bucket: str, host: Host
) -> None:
    hub.kill()
    _, err = host.run(SHORT, EVENTLOG_SHIP_FLUSH_S="0.5")
    host.kill_shipper()
    hub.revive()
    assert held(opened(hub, bucket)) == {}
    (command,) = re.findall(r"`(eventlog ship .*?)`", err)
    done = host.call(*shlex.split(command))
    assert (done.returncode, done.stderr) == (0, "")
    assert is_all_there(hub, bucket, host)


def test_a_refusal_is_told_at_once_and_not_waited_for(host: Host) -> None:
    _, err = host.run(SHORT, HF_TOKEN="hf_nobody", EVENTLOG_SHIP_FLUSH_S="3600")
    assert err.count("are not known to be there") == 1
    assert "the Hub does not know this token" in err


def test_what_fails_while_the_job_runs_is_warned_about_once_then(host: Host) -> None:
    job = host.start(COMMANDED, HF_TOKEN="hf_nobody")
    job.stdout.readline()
    until(lambda: host.desk.state() and host.desk.state().error, "a failure")
    for _ in range(3):
        before = sealed(host)
        print(5, file=job.stdin, flush=True)
        until(lambda before=before: sealed(host) > before, "a seal")
        job.stdout.readline()
    line = job.stderr.readline()
    assert "nothing is shipped now" in line
    assert "the Hub does not know this token" in line
    _, err = job.communicate(timeout=PATIENCE_S)
    assert (job.returncode, err.count("nothing is shipped now")) == (0, 0)
    assert err.count("EventLogWarning") == 1
    assert "are not known to be there: " in err


def test_what_a_killed_job_left_is_shipped_and_then_the_shipper_ends(hub: LocalHub, bucket: str, host: Host) -> None:
    job = host.start(COMMANDED)
    job.stdout.readline()
    print(500, file=job.stdin, flush=True)
    assert job.stdout.readline() == "500\n"
    assert host.ships()
    job.kill()
    job.wait()
    until(lambda: not host.ships(), "the end of the shipper")
    assert is_all_there(hub, bucket, host)
    assert len(host.starts()) == 1
    assert logged(host) == list(range(500))


INTERRUPTED = """
import eventlog, time
with eventlog.init() as run:
    run.log({"x": 1.0})
    print("ready", flush=True)
    time.sleep(600)
"""


def test_an_interrupt_of_the_jobs_whole_group_still_ships_all(hub: LocalHub, bucket: str, host: Host) -> None:
    job = host.start(INTERRUPTED)
    job.stdout.readline()
    shipper = host.pid()
    assert os.getpgid(shipper) != os.getpgid(job.pid)
    assert os.getsid(shipper) != os.getsid(job.pid)
    os.killpg(job.pid, signal.SIGINT)
    _, err = job.communicate(timeout=PATIENCE_S)
    assert (job.returncode, "KeyboardInterrupt" in err, "EventLogWarning" in err) == (-signal.SIGINT, True, False)
    assert is_all_there(hub, bucket, host)
    assert host.starts() == [shipper]


def test_a_second_interrupt_ends_the_wait_and_what_is_left_is_told_all_the_same(hub: LocalHub, host: Host) -> None:
    hub.kill()
    job = host.start(INTERRUPTED, EVENTLOG_SHIP_FLUSH_S="3600")
    job.stdout.readline()
    os.killpg(job.pid, signal.SIGINT)
    until(host.desk.asks, "the wait")
    os.killpg(job.pid, signal.SIGINT)
    _, err = job.communicate(timeout=PATIENCE_S)
    assert job.returncode == -signal.SIGINT
    assert re.search(r"1 segments and blobs \(\d+ bytes\) are not known to be there", err)
    assert host.ships()
    assert not host.desk.asks()
    hub.revive()


UNFINISHED = """
import eventlog
run = eventlog.init()
run.log({"x": 1.0})
"""


def test_a_run_that_nobody_finishes_is_shipped_at_the_exit(hub: LocalHub, bucket: str, host: Host) -> None:
    assert host.run(UNFINISHED) == ("", "")
    assert is_all_there(hub, bucket, host)
    assert [path for path in inbox_of(host.store) if path.endswith(".open")] == []


def test_a_shipper_is_no_child_of_the_job_and_has_none_of_its_files(host: Host) -> None:
    job = host.start(
        "import os\nos.dup2(1, 63)\nos.set_inheritable(63, True)\n" + COMMANDED, PYTHONINSPECT="1", PYTHONPATH="here"
    )
    job.stdout.readline()
    shipper = Path("/proc") / str(host.pid())
    assert int((shipper / "stat").read_text().rsplit(")", 1)[1].split()[1]) != job.pid
    children = Path(f"/proc/{job.pid}/task/{job.pid}/children").read_text()
    assert children == ""
    files = set()
    for name in os.listdir(shipper / "fd"):
        with contextlib.suppress(FileNotFoundError):  # closed since
            files.add(os.readlink(shipper / "fd" / name))
    mine = {os.readlink(f"/proc/{job.pid}/fd/{number}") for number in (0, 1, 2, 63)}
    assert not files & mine
    assert os.readlink(shipper / "cwd") == "/"
    command = (shipper / "cmdline").read_bytes().split(b"\0")
    assert command[1] == b"-P"
    assert host.environment["HF_TOKEN"].encode() not in b" ".join(command), "others may see it"


FAMILY = """
import multiprocessing, os, sys
import eventlog

def work(run, number):
    run.log({"worker": float(number)})
    run.finish()

def main():
    run = eventlog.init()
    print("ready", flush=True)
    child = os.fork()
    if not child:
        for step in range(10):
            run.log({"child": float(step), "file": eventlog.File(b"of a child")})
        run.finish()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    workers = [multiprocessing.get_context("spawn").Process(target=work, args=(run, n)) for n in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    run.log({"x": 1.0})
    sys.stdin.read()
    run.finish()

if __name__ == "__main__":
    main()
"""


def test_ranks_forks_workers_and_jobs_of_one_store_share_one_shipper(hub: LocalHub, bucket: str, host: Host) -> None:
    ranks = [host.start(FAMILY, RANK=str(rank), EVENTLOG_RUN_ID="shared") for rank in range(3)]
    for rank in ranks:
        assert rank.stdout.readline() == "ready\n"
    for rank in ranks:
        out, err = rank.communicate("", timeout=PATIENCE_S)
        assert (rank.returncode, out, err) == (0, "", "")
    assert is_all_there(hub, bucket, host)
    assert len(host.starts()) == 1
    rows = open_store(host.store).metrics("p")
    assert sorted(step for step in rows["child"].to_pylist() if step is not None) == sorted([*range(10)] * 3)
    assert sorted(number for number in rows["worker"].to_pylist() if number is not None) == [0, 0, 0, 1, 1, 1]


def test_jobs_that_come_and_go_are_all_shipped(hub: LocalHub, bucket: str, host: Host) -> None:
    """One joins while the shipper of another is about to end."""
    for _ in range(3):
        for job in [host.start(SHORT) for _ in range(2)]:
            out, err = job.communicate(timeout=PATIENCE_S)
            assert (job.returncode, out, err) == (0, "", "")
            assert is_all_there(hub, bucket, host) or any(other.poll() is None for other in host.children)
    assert is_all_there(hub, bucket, host)
    assert len(inbox_of(host.store)) == 7


def test_a_shipper_that_was_killed_is_started_again_while_the_job_runs(hub: LocalHub, bucket: str, host: Host) -> None:
    job = host.start(COMMANDED)
    job.stdout.readline()
    host.kill_shipper()
    first = host.starts()
    print(100, file=job.stdin, flush=True)
    until(lambda: len(host.starts()) > len(first), "another shipper")
    until(lambda: any(path.endswith(".seg") for path in held(opened(hub, bucket))), "a shipment")
    host.kill_shipper()
    assert job.communicate("7\n", timeout=PATIENCE_S)[1] == ""
    assert is_all_there(hub, bucket, host)
    assert logged(host) == list(range(107))


def test_log_goes_on_while_a_request_of_the_shipper_hangs(make_host: Callable[..., Host]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        host = make_host(url=f"http://127.0.0.1:{silent.getsockname()[1]}", EVENTLOG_SHIP_FLUSH_S="0.5")
        job = host.start(COMMANDED)
        job.stdout.readline()
        print(100, file=job.stdin, flush=True)
        assert job.stdout.readline() == "100\n"
        silent.settimeout(PATIENCE_S)
        request, _ = silent.accept()
        request.settimeout(PATIENCE_S)
        with request:
            assert request.recv(4) in (b"GET ", b"POST")
            for more in range(1, 4):
                before = sealed(host)
                print(10_000, file=job.stdin, flush=True)
                assert job.stdout.readline() == f"{100 + more * 10_000}\n"
                until(lambda before=before: sealed(host) > before, "a seal")
            assert job.poll() is None
            _, err = job.communicate(timeout=PATIENCE_S)
            host.kill_shipper()
    assert (job.returncode, "are not known to be there" in err) == (0, True)
    assert logged(host) == list(range(30_100))


TWO_RUNS = """
import eventlog
one, two = eventlog.init(name="one"), eventlog.init(name="two")
for run in (one, two):
    run.log({"x": 1.0})
one.finish()
print("one")
two.finish()
three = eventlog.init(name="three")
three.finish()
"""


def test_only_the_last_run_waits_and_those_after_one_that_waited_in_vain_wait_a_moment(
    hub: LocalHub, host: Host
) -> None:
    hub.kill()
    _, err = host.run(TWO_RUNS, EVENTLOG_SHIP_FLUSH_S="2")
    assert err.count("it was not done after") == 2
    hub.revive()


NOTEBOOK = """
import gc
import eventlog
for number in range(3):
    run = eventlog.init(name=str(number))
    run.log({"x": float(number)})
    gc.collect()
run.finish()
"""


def test_runs_that_a_notebook_drops_are_named_by_a_finish_and_shipped_at_the_exit(
    hub: LocalHub, bucket: str, host: Host
) -> None:
    _, err = host.run(NOTEBOOK)
    assert err.count("EventLogWarning") == 1
    assert "2 runs of this process are not finished" in err
    assert is_all_there(hub, bucket, host)
    assert sealed(host) == 3


RUN_OF_A_CHILD = """
import os
import eventlog
run = eventlog.init(name="parent")
child = os.fork()
if not child:
    with eventlog.init(name="child") as mine:
        mine.log({"x": 1.0})
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
run.finish()
"""


def test_a_run_that_a_forked_child_begins_is_waited_for_in_the_child(hub: LocalHub, host: Host) -> None:
    hub.kill()
    _, err = host.run(RUN_OF_A_CHILD, EVENTLOG_SHIP_FLUSH_S="0.5")
    assert err.count("it was not done after") == 2
    hub.revive()


def test_without_waiting_the_shipper_does_it_afterwards(hub: LocalHub, bucket: str, host: Host) -> None:
    assert host.run(SHORT, EVENTLOG_SHIP_FLUSH_S="0") == ("", "")
    until(lambda: not host.ships(), "the end of the shipper")
    assert is_all_there(hub, bucket, host)


MODULES = """
import sys
import eventlog
with eventlog.init() as run:
    run.log({"x": 1.0, "file": eventlog.File(b"x")})
    run._writer.roll()
    run.log({"x": 2.0})
roots = {name.split(".")[0] for name in sys.modules}
print(*sorted(roots - set(sys.stdlib_module_names) - {"__main__", "eventlog", "msgspec"}))
"""
ENVIRONMENT = ("__editable__", "_virtualenv", "_distutils_hack", "sitecustomize", "usercustomize", "typing_extensions")


def test_a_job_with_a_bucket_imports_msgspec_and_the_standard_library_only(
    hub: LocalHub, bucket: str, host: Host
) -> None:
    out, err = host.run(MODULES)
    assert err == ""
    assert [name for name in out.split() if not name.startswith(ENVIRONMENT)] == []
    assert is_all_there(hub, bucket, host)


def test_a_shipper_imports_nothing_from_where_the_job_was_started(hub: LocalHub, bucket: str, host: Host) -> None:
    for module in ("eventlog", "huggingface_hub", "tenacity", "logging", "random"):
        (host.directory / f"{module}.py").write_text(f"raise SystemExit('{module} of the user')")
    clean = "import sys\nsys.path[:] = [path for path in sys.path if path != sys.path[0]]\n"
    script = f"import os\nos.chdir({str(host.directory)!r})\n{clean}{SHORT}"
    assert host.run(script) == ("", "")
    assert is_all_there(hub, bucket, host)


MISSING = """
import importlib.util
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, *more: None if name == "huggingface_hub" else find(name, *more)
"""


def test_without_the_hubs_client_it_is_warned_once_and_all_is_kept(host: Host) -> None:
    out, err = host.run(MISSING + SHORT + SHORT)
    assert (out, err.count("EventLogWarning")) == ("", 1)
    assert "pip install 'eventlog[hub]'" in err
    assert f"`eventlog ship {host.store} {host.address}`" in err
    assert not host.ships()
    assert logged(host) == sorted([*range(100)] * 2)


def test_with_an_old_client_of_the_hub_it_is_said_what_to_install(host: Host) -> None:
    old = host.directory / "old" / "huggingface_hub"
    old.mkdir(parents=True)
    (old / "__init__.py").write_text("")
    _, err = host.run(SHORT, PYTHONPATH=str(old.parent))
    assert "the Hub needs a newer huggingface_hub: pip install 'eventlog[hub]'" in err
    assert logged(host) == [*range(100)]


def test_what_cannot_be_started_is_warned_about_and_training_goes_on(host: Host) -> None:
    _, err = host.run("import sys\nsys.executable = '/nowhere/python'\n" + SHORT)
    assert "no process can be started that ships" in err
    assert logged(host) == [*range(100)]
    _, err = host.run("import sys\nsys.executable = '/bin/false'\n" + SHORT)
    assert "it ended with 1" in err


def test_a_spool_is_what_is_shipped_for_a_store_on_a_network_mount(hub: LocalHub, bucket: str, host: Host) -> None:
    mounted = "from eventlog import mounts\nmounts.unsuitable_mount = lambda path: 'nfs'\n"
    _, err = host.run(mounted + SHORT, EVENTLOG_SPOOL_DIR=str(host.directory / "spools"))
    assert err.count("EventLogWarning") == 1, "the one about the mount"
    (spool,) = (host.directory / "spools").iterdir()
    assert held(opened(hub, bucket)) == inbox_of(spool) == inbox_of(host.store)
    assert not (host.store / "hub").exists()
    assert (spool / "hub").exists()


def test_other_records_under_the_same_name_are_told_and_not_replaced(hub: LocalHub, bucket: str, host: Host) -> None:
    host.run(SHORT)
    until(lambda: not host.ships(), "the end of the shipper")
    (segment,) = (path for path in held(opened(hub, bucket)) if path.startswith("segments/"))
    opened(hub, bucket).upload([(b"of another host", segment)])
    _, err = host.run(SHORT)
    assert err.count("EventLogWarning") == 1
    assert f"{segment} holds other records than the store, and is not replaced" in err
    assert held(opened(hub, bucket))[segment][0] == len(b"of another host")


def test_a_shipper_ends_when_its_store_is_removed(host: Host) -> None:
    job = host.start(INTERRUPTED)
    job.stdout.readline()
    shipper = host.pid()
    shutil.rmtree(host.store)
    until(lambda: not os.path.exists(f"/proc/{shipper}"), "the end of the shipper")


@pytest.mark.parametrize("address", ["hf://datasets/a/b", "a", "hf://buckets/a/b/../c"])
def test_an_address_that_is_none_is_refused_at_the_start(host: Host, address: str) -> None:
    job = host.start(SHORT, EVENTLOG_BUCKET=address)
    _, err = job.communicate(timeout=PATIENCE_S)
    assert job.returncode == 1
    assert "UsageError" in err
    assert not host.store.exists()
