"""Calls that come while a store is restored: what is kept, what is refused, and what becomes of what cannot be done."""

from __future__ import annotations

import errno
import json
import logging
import os
import shutil
import time
from pathlib import Path

import pytest

from compactor.serve.api import ENDPOINTS
from compactor.serve.config import ServeConfig
from compactor.serve.errors import RequestError, UnavailableError
from compactor.serve.gate import Gate
from compactor.serve.hub import Hub
from eventlog import names
from eventlog.errors import StorageError
from eventlog.fs import LocalFs
from eventlog.store import open_store

BUCKET = "hf://buckets/me/runs"


def begin(
    root: Path,
    *,
    restoring: bool = True,
    bucket: str = BUCKET,
    ack: str = "disk",
    fs: LocalFs | None = None,
    **options: float,
):
    """Return a gate before a store, which is being restored or not."""
    mark = names.restoring_mark(str(root))
    os.makedirs(os.path.dirname(mark), exist_ok=True)
    if restoring:
        Path(mark).touch()
    elif os.path.exists(mark):
        os.unlink(mark)
    config = ServeConfig(write_token="t", bucket=bucket, ack=ack)
    return Gate(Hub(str(root), config, fs=fs or LocalFs()), **options)


def send(gate: Gate, name: str, **kwargs: object):
    return gate.call(name, ENDPOINTS[name], json.dumps({"kwargs": kwargs}).encode())


def entry(step: int, log_id: str | None = None, **more: object) -> dict[str, object]:
    return {"project": "p", "run": "a", "metrics": {"x": step / 2}, "step": step, "log_id": log_id, **more}


def steps(root: Path) -> list[int]:
    return sorted(open_store(root).metrics("p")["_step"].to_pylist())


def test_what_was_kept_has_the_time_at_which_it_came_and_the_order_in_which_it_came(tmp_path):
    gate = begin(tmp_path)
    for step in range(3):
        send(gate, "bulk_log", logs=[entry(step, f"l{step}")])
    send(gate, "bulk_log_system", logs=[{"project": "p", "run": "a", "metrics": {"cpu": 1.0}, "log_id": "s"}])
    came = os.stat(Path(names.held_dir(str(tmp_path))) / gate._hub.held.ids()[-1]).st_mtime_ns
    os.unlink(names.restoring_mark(str(tmp_path)))
    gate.drain()
    rows = open_store(tmp_path).metrics("p").sort_by("_seq").to_pylist()
    assert [row["_step"] for row in rows] == [0, 1, 2]
    times = [row["_time"].value if hasattr(row["_time"], "value") else row["_time"].timestamp() * 1e9 for row in rows]
    assert times == sorted(times)
    assert times[-1] <= came + 1e6
    assert open_store(tmp_path).system("p").num_rows == 1


def test_a_call_that_comes_while_others_are_done_is_kept_behind_them(tmp_path):
    gate = begin(tmp_path)
    send(gate, "bulk_log", logs=[entry(0, "l0")])
    os.unlink(names.restoring_mark(str(tmp_path)))
    done = gate._do

    def do_and_send(call_id: str) -> None:
        if len(gate._hub.held.ids()) == 1 and not steps_are_there(tmp_path):
            send(gate, "bulk_log", logs=[entry(1, "l1")])
        done(call_id)

    gate._do = do_and_send
    gate.drain()
    assert gate.is_open
    send(gate, "bulk_log", logs=[entry(2, "l2")])
    rows = open_store(tmp_path).metrics("p").sort_by("_seq")
    assert rows["_step"].to_pylist() == [0, 1, 2]


def steps_are_there(root: Path) -> bool:
    return "p" in open_store(root).projects()


def test_what_is_bad_is_refused_at_once_and_nothing_of_it_is_kept(tmp_path):
    gate = begin(tmp_path)
    for bad in ([entry(0, "l0"), entry(1, "l1", project="x" * 300)], [entry(0, "l0"), {"project": "p"}], "no list"):
        with pytest.raises(RequestError) as refused:
            send(gate, "bulk_log", logs=bad)
        assert refused.value.status == 400
    assert gate._hub.held.ids() == []


@pytest.mark.parametrize("name", ["rename_run", "delete_run", "artifact_log", "bulk_upload_media", "force_sync"])
def test_calls_that_need_to_know_what_is_there_wait(tmp_path, name):
    with pytest.raises(UnavailableError, match="restored"):
        send(begin(tmp_path), name)


def test_with_ack_bucket_nothing_is_taken_before_it_can_be_pushed(tmp_path):
    gate = begin(tmp_path, ack="bucket")
    with pytest.raises(UnavailableError, match="restored"):
        send(gate, "bulk_log", logs=[entry(0, "l0")])
    assert gate._hub.held.ids() == []


def test_what_cannot_be_done_is_set_aside_and_counted_and_the_rest_is_done(tmp_path, caplog):
    gate = begin(tmp_path)
    for step in range(3):
        send(gate, "bulk_log", logs=[entry(step, f"l{step}")])
    first, second, _ = gate._hub.held.ids()
    directory = Path(names.held_dir(str(tmp_path)))
    (directory / first).write_bytes(b"\xff damaged")
    (directory / second).write_bytes((directory / second).read_bytes().replace(b'"bulk_log"', b'"unknown!"'))
    with caplog.at_level(logging.ERROR, "compactor"):
        gate = begin(tmp_path, restoring=False)
        gate.drain()
    assert gate.is_open
    assert steps(tmp_path) == [2]
    assert gate._hub.held.refused() == 2
    assert sorted(path.name for path in directory.iterdir()) == [f"{first}.refused", f"{second}.refused"]
    assert [first in message or second in message for message in caplog.messages] == [True, True]


def test_what_waits_is_done_although_the_next_start_has_no_bucket(tmp_path):
    send(begin(tmp_path), "bulk_log", logs=[entry(0, "l0")])
    gate = begin(tmp_path, restoring=False, bucket="")
    assert (gate.is_restored, gate.is_open) == (True, False)
    gate.drain()
    assert steps(tmp_path) == [0]


class Full(LocalFs):
    """A disk without room, as long as that is wanted."""

    is_full = True

    def write(self, fd, data, /):
        if self.is_full:
            raise OSError(errno.ENOSPC, "No space left on device")
        return super().write(fd, data)


def test_without_room_it_is_not_answered_as_kept_and_what_waits_is_tried_again(tmp_path):
    fs = Full()
    gate = begin(tmp_path, fs=fs)
    with pytest.raises(UnavailableError, match="No space left"):
        send(gate, "bulk_log", logs=[entry(0, "l0")])
    assert gate._hub.held.ids() == []
    fs.is_full = False
    send(gate, "bulk_log", logs=[entry(0, "l0")])
    os.unlink(names.restoring_mark(str(tmp_path)))
    fs.is_full = True
    with pytest.raises((UnavailableError, StorageError)):
        gate.drain()
    assert (len(gate._hub.held.ids()), gate.is_open) == (1, False)
    fs.is_full = False
    gate.drain()
    assert steps(tmp_path) == [0]


def test_what_waits_too_long_for_a_restore_is_refused_for_a_client_keeps_it(tmp_path):
    gate = begin(tmp_path, kept_s=0)
    with pytest.raises(UnavailableError, match="restored"):
        send(gate, "bulk_log", logs=[entry(0, "l0")])
    assert gate._hub.held.ids() == []


def test_at_the_end_no_more_is_done_than_there_is_time_for(tmp_path):
    gate = begin(tmp_path, end_s=0)
    for step in range(3):
        send(gate, "bulk_log", logs=[entry(step, f"l{step}")])
    os.unlink(names.restoring_mark(str(tmp_path)))
    gate.close()
    gate.drain()
    assert (len(gate._hub.held.ids()), gate.is_open) == (3, False)
    again = begin(tmp_path, restoring=False)
    again.drain()
    assert steps(tmp_path) == [0, 1, 2]


def test_an_error_that_nobody_thought_of_is_told_and_what_waits_is_tried_again(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr("compactor.serve.gate._PAUSE_S", 0.01)
    gate = begin(tmp_path)
    send(gate, "bulk_log", logs=[entry(0, "l0")])
    done, failures = gate._do, [RuntimeError("unheard of")]

    def do(call_id: str) -> None:
        if failures:
            raise failures.pop()
        done(call_id)

    gate._do = do
    os.unlink(names.restoring_mark(str(tmp_path)))
    with caplog.at_level(logging.ERROR, "compactor"):
        gate.start()
        while not gate.is_open:
            time.sleep(0.01)
    assert "unheard of" in caplog.text
    assert steps(tmp_path) == [0]


def test_ids_that_came_with_segments_of_another_server_are_known_before_the_next_batch(tmp_path):
    old, new = tmp_path / "old", tmp_path / "new"
    here = begin(new, restoring=False)
    here.drain()
    here._hub._reread_s = 0
    send(here, "bulk_log", logs=[entry(0, "l0")])
    there = begin(old, restoring=False)
    there.drain()
    send(there, "bulk_log", logs=[entry(1, "l1"), entry(2, "l2")])
    there._hub.close()
    shutil.copytree(old / "segments", new / "segments", dirs_exist_ok=True)
    # The client did not hear the old server's answer.
    send(here, "bulk_log", logs=[entry(2, "l2"), entry(3, "l3")])
    assert steps(new) == [0, 1, 2, 3]
