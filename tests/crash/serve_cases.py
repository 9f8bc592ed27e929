"""What the server does to a disk, as cases: batches with their receipts and index, uploads, artifacts, changes."""

from __future__ import annotations

import hashlib
import io
from collections import Counter
from collections.abc import Sequence
from typing import Any

import msgspec
from crash_cases import PROJECT, ROOT, killed, record, recorded, sound

from compactor.serve.api import ENDPOINTS
from compactor.serve.config import ServeConfig
from compactor.serve.gate import Gate
from compactor.serve.hub import Hub
from compactor.serve.intake import Intake
from compactor.serve.project import Project
from compactor.serve.seen import KEY_BYTES, Seen
from compactor.serve.wire import AlertEntry, BlobEntry, LogEntry, Staged, SystemEntry, UploadEntry
from compactor.serve.writes import (
    ArtifactLog,
    BulkBlob,
    BulkUpload,
    DeleteRun,
    RenameRun,
    artifact_log,
    bulk_upload_artifact_blob,
    bulk_upload_media,
    delete_run,
    rename_run,
)
from eventlog import names, tail
from eventlog.blobs import BlobStore
from eventlog.config import WriterConfig
from eventlog.snapshot import ReaderCache
from eventlog.store import Store
from eventlog.testing import CrashFs, FakeClock
from eventlog.testing.judge import Case
from eventlog.testing.trace import Recorder, replays

WRITERS = WriterConfig(sync_interval_s=None, segment_bytes=4096, on_error="raise")
LOST = frozenset({"gap", "damaged"})
LARGE = "v" * 70_000
BATCHES = 5


def _intake(fs: CrashFs) -> Intake:
    project = Project(ROOT, PROJECT, ReaderCache(fs), 1 << 20)
    return Intake(ROOT, PROJECT, project, config=WRITERS, fs=fs, memory_keys=4)


def _send(intake: Intake, batch: int) -> None:
    """Send a batch; each has numbers that no other has, and ids."""
    if batch == 2:
        intake.take_alerts([AlertEntry(PROJECT, "r", f"alert {i}", alert_id=f"a{i}") for i in range(2)])
    elif batch == 3:
        intake.take_system([SystemEntry(PROJECT, "r", {"cpu": 1000.0 + i}, log_id=f"s{i}") for i in range(2)])
    else:
        first = batch * 3
        config = {"lr": batch} if batch else {"lr": 0, "_Group": "g"}
        metrics: list[dict[str, Any]] = [{"x": float(i)} for i in range(first, first + 3)]
        if batch in (0, 4):
            metrics[1]["big"] = LARGE + str(batch)
        intake.take_logs([LogEntry(PROJECT, "r", m, config=config, log_id=f"l{m['x']}") for m in metrics])


def _numbers(fs: CrashFs) -> Counter[Any]:
    """Return how often each number, sample and alert is there."""
    if PROJECT not in tail.projects(fs, ROOT):
        return Counter()
    store = Store(ROOT, fs=fs)
    found: Counter[Any] = Counter()
    for rows, column in ((store.metrics(PROJECT), "x"), (store.system(PROJECT), "cpu")):
        found.update(rows[column].to_pylist() if column in rows.schema.names else ())
    events = store.events(PROJECT).to_pylist()
    found.update(msgspec.json.decode(row["payload"])["title"] for row in events if row["kind"] == "alert")
    return found


def _of_batch(batch: int) -> set[Any]:
    if batch == 2:
        return {"alert 0", "alert 1"}
    return {1000.0, 1001.0} if batch == 3 else {float(i) for i in range(batch * 3, batch * 3 + 3)}


def _check_intake(fs: CrashFs, notes: Sequence[Any], power: bool) -> None:  # noqa: FBT001
    if names.segments_dir(ROOT) in fs.state():
        sound(fs, allowed=LOST if power else frozenset())
    present = _numbers(fs)
    assert not present or max(present.values()) == 1
    for batch in notes:
        assert set(present) >= _of_batch(batch), f"batch {batch} was answered and is not there"
    # Every client that got no answer, and some that did, send again, to a server that starts on what is left.
    again = Recorder(fs)
    _serve(again)
    everything = {item for batch in range(BATCHES) for item in _of_batch(batch)}
    for disk in (again, again.after_crash("lost")):
        assert _numbers(disk) == Counter(dict.fromkeys(everything, 1))
        assert _index(disk).contains([_key("l0.0"), _key("a1"), _key("new")]) == [True, True, False]


def _key(entry_id: str) -> bytes:
    return hashlib.sha256(entry_id.encode()).digest()[:KEY_BYTES]


def _index(fs: CrashFs) -> Seen:
    return Seen(names.index_dir(ROOT, PROJECT), fs=fs)


def _serve(fs: Recorder) -> None:
    intake = _intake(fs)
    for batch in range(BATCHES):
        _send(intake, batch)
        fs.note(batch)
    _send(intake, 1)
    intake.close()


def intake_cases() -> list[Case]:
    """Batches with their receipts, and the index that is saved and merged meanwhile; also after a killed server."""
    clock = FakeClock(tick_ns=1000)
    first = recorded("intake", CrashFs(), _serve, clock, _check_intake)
    found = [first]
    for name, left in (*killed(first), *_appended(first)):
        found.append(recorded(name, left, _serve, clock, _check_intake))
    return found


def _appended(case: Case) -> list[tuple[str, CrashFs]]:
    """Return the disks of a server that was killed after it appended a batch, before it synced it."""
    changes = case.trace.changes
    answered = next(i for i, change in enumerate(changes) if change.name == "note")
    wanted = [
        i + 1
        for i in range(answered, len(changes) - 1)
        if changes[i].name == "write" and changes[i + 1].name == "sync" and "/segments/" in changes[i].path
    ][:2]
    return [
        (f"{case.name}, killed before sync {made}", replay.fs.after_crash("kept"))
        for made, replay in replays(case.trace.start, changes)
        if made in wanted
    ]


def index_cases() -> list[Case]:
    """The index alone: a power loss leaves it as it was saved last, or as it is saved; never empty."""
    clock = FakeClock(tick_ns=1000)
    saves = 6

    def keys(save: int) -> list[bytes]:
        return [_key(f"{save} {i}") for i in range(5)]

    def work(fs: Recorder) -> None:
        for save in range(saves):
            seen = _index(fs)
            if seen.cursor.get("w", 0) < save + 1:
                seen.add(keys(save))
                seen.save({"w": save + 1})
            fs.note(save + 1)

    def check(fs: CrashFs, notes: Sequence[Any], power: bool) -> None:  # noqa: FBT001
        del power
        seen = _index(fs)
        reached = seen.cursor.get("w", 0)
        assert reached in (len(notes), len(notes) + 1)
        assert len(seen) == 5 * reached
        assert all(seen.contains([key for save in range(reached) for key in keys(save)]))
        again = Recorder(fs)
        work(again)
        assert _index(again).cursor == {"w": saves}
        # What is found saved is not saved again, and may have been the last to be.
        assert _index(again.after_crash("lost")).cursor["w"] >= saves - 1

    first = recorded("index of received ids", CrashFs(), work, clock, check)
    return [first, *(recorded(name, left, work, clock, check) for name, left in killed(first))]


def _hub(fs: CrashFs) -> Hub:
    return Hub(ROOT, ServeConfig(write_token="t"), fs=fs, writers=WRITERS)


def _stage(hub: Hub, data: bytes) -> Staged:
    return Staged(hub.incoming.keep(io.BytesIO(data)), "file.bin")


MEDIA = [b"picture" * 300, b"sound" * 300]
PARTS = [b"weights" * 300, b"tokens" * 300]


def _upload(fs: Recorder) -> None:
    hub = _hub(fs)
    hub.incoming.clean()
    for step, data in enumerate(MEDIA):
        bulk_upload_media(hub, BulkUpload([UploadEntry(PROJECT, _stage(hub, data), "r", step=step)]))
        fs.note(("media", step))
    manifest: list[dict[str, Any]] = []
    for data in PARTS:
        digest = hashlib.sha256(data).hexdigest()
        bulk_upload_artifact_blob(hub, BulkBlob(PROJECT, [BlobEntry(digest, _stage(hub, data))]))
        manifest.append({"path": f"part{len(manifest)}", "digest": digest, "size": len(data)})
        fs.note(("blob", digest))
    artifact_log(hub, ArtifactLog(PROJECT, "model", "model", manifest=manifest, run_name="r"))
    fs.note(("artifact", 0))
    hub.close()


def _check_upload(fs: CrashFs, notes: Sequence[Any], power: bool) -> None:  # noqa: FBT001
    if names.segments_dir(ROOT) in fs.state():
        sound(fs, allowed=LOST if power else frozenset())
    hub = _hub(fs)
    state = hub.state(PROJECT)
    for step, data in enumerate(MEDIA):
        digest = state.upload(f"{PROJECT}/r/{step}/file.bin")
        assert digest is not None or ("media", step) not in notes
        assert digest is None or hub.blobs.get(digest) == data
    for digest in [value for kind, value in notes if kind == "blob"]:
        assert BlobStore(ROOT, fs).get(digest) in PARTS
    assert state.events("artifact_version") or ("artifact", 0) not in notes
    again = Recorder(fs)
    _upload(again)
    for disk in (again, again.after_crash("lost")):
        sound(disk, allowed=LOST if power else frozenset())
        last = _hub(disk).state(PROJECT)
        versions = [msgspec.json.decode(row.payload)["version"] for row in last.events("artifact_version")]
        assert set(versions) == {"v0"}
        assert last.upload(f"{PROJECT}/r/1/file.bin") == hashlib.sha256(MEDIA[1]).hexdigest()
    assert not [path for path in again.state() if path.startswith(f"{names.incoming_dir(ROOT)}/")]


def upload_cases() -> list[Case]:
    """Uploads: staged, then a blob, then the record that names it; and artifacts, blobs first; also once more."""
    clock = FakeClock(tick_ns=1000)
    first = recorded("upload", CrashFs(), _upload, clock, _check_upload)
    return [first, *(recorded(name, left, _upload, clock, _check_upload) for name, left in killed(first))]


def _gate(fs: CrashFs) -> Gate:
    bucket = ServeConfig(write_token="t", bucket="hf://buckets/me/held")
    return Gate(Hub(ROOT, bucket, fs=fs, writers=WRITERS))


def _hold(fs: Recorder) -> None:
    gate = _gate(fs)
    for batch in range(3):
        # The last of them has no ids of the client's own.
        ids = ["", ""] if batch == 2 else [f"l{batch}.{i}" for i in range(2)]
        logs = [LogEntry(PROJECT, "r", {"x": batch * 2.0 + i}, log_id=log_id) for i, log_id in enumerate(ids)]
        gate.call("bulk_log", ENDPOINTS["bulk_log"], msgspec.json.encode({"kwargs": {"logs": logs}}))
        fs.note(batch)
    _let_through(fs, gate)


def _let_through(fs: CrashFs, gate: Gate) -> None:
    if gate._hub.is_restoring():
        fs.unlink(names.restoring_mark(ROOT))
    gate.drain()
    gate._hub.close()


def _check_held(fs: CrashFs, notes: Sequence[Any], power: bool) -> None:  # noqa: FBT001
    if names.segments_dir(ROOT) in fs.state():
        sound(fs, allowed=LOST if power else frozenset())
    again = Recorder(fs)
    gate = _gate(again)
    _let_through(again, gate)
    for disk in (again, again.after_crash("lost")):
        present = _numbers(disk)
        assert set(present) >= {batch * 2.0 + i for batch in notes for i in range(2)}
        assert not present or max(present.values()) == 1
    assert gate.is_open
    assert not again.names(names.held_dir(ROOT))


def held_cases() -> list[Case]:
    """Calls that are kept while the store is restored, and done then; also after a server that was killed at it."""
    clock = FakeClock(tick_ns=1000)
    start = CrashFs(time_ns=clock.time_ns)
    recorder = record(start, _begin_restore, clock)
    first = recorded("held", recorder.after_crash("kept"), _hold, clock, _check_held)
    return [first, *(recorded(name, left, _hold_more, clock, _check_held) for name, left in killed(first))]


def _begin_restore(fs: Recorder) -> None:
    fs.make_dirs(names.hub_dir(ROOT))
    fs.close(fs.create(names.restoring_mark(ROOT)))
    fs.sync_dir(names.hub_dir(ROOT))


def _hold_more(fs: Recorder) -> None:
    """Do what is left, as the next server does, while another call comes."""
    gate = _gate(fs)
    logs = [LogEntry(PROJECT, "r", {"x": 6.0}, log_id="l6"), LogEntry(PROJECT, "r", {"x": 7.0}, log_id="l7")]
    gate.call("bulk_log", ENDPOINTS["bulk_log"], msgspec.json.encode({"kwargs": {"logs": logs}}))
    fs.note(3)
    _let_through(fs, gate)


def change_case() -> Case:
    """Runs that clients rename and delete."""
    clock = FakeClock(tick_ns=1000)
    start = CrashFs(time_ns=clock.time_ns)
    recorder = record(start, _begin, clock)
    start = recorder.after_crash("kept")
    states = [("r", False), ("new", False), ("new", True)]

    def work(fs: Recorder) -> None:
        hub = _hub(fs)
        if seen(fs) == 0:
            rename_run(hub, RenameRun(PROJECT, "r", "new"))
        fs.note(1)
        delete_run(hub, DeleteRun(PROJECT, "new"))
        fs.note(2)
        hub.close()

    def seen(fs: CrashFs) -> int:
        (row,) = Store(ROOT, fs=fs).runs(PROJECT, deleted=True).select(["name", "deleted"]).to_pylist()
        return states.index((row["name"], row["deleted"]))

    def check(fs: CrashFs, notes: Sequence[Any], power: bool) -> None:  # noqa: FBT001
        sound(fs, allowed=LOST if power else frozenset())
        assert seen(fs) >= (notes[-1] if notes else 0)
        again = Recorder(fs)
        work(again)
        assert seen(again) == 2
        # Who deletes what is deleted already is told that it is not there, which promises nothing.
        assert seen(again.after_crash("lost")) >= 1

    return recorded("changes of runs by clients", start, work, clock, check)


def _begin(fs: Recorder) -> None:
    intake = _intake(fs)
    _send(intake, 0)
    intake.close()


def serve_cases() -> list[Case]:
    """Return every case of the server."""
    return [*intake_cases(), *index_cases(), *upload_cases(), *held_cases(), change_case()]
