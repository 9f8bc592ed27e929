"""How each peer of `tools/bench peers` logs a run and reads it back. Imports nothing of a peer before it is started.

Each is used as its documentation says, by its cheapest call that takes a step's ten metrics, with what it does beside
(system metrics, console capture, sync to a server) switched off.
"""

from __future__ import annotations

import dataclasses
import os
import struct
from collections.abc import Callable, Iterator
from typing import Any, Final

from workload import PROJECT

Log = Callable[[dict[str, float], int], Any]
Point = tuple[str, int, str, float]
_ONE: Final = "run"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Subject:
    """One way to log.

    Attributes:
        environment: name of its environment, "" for this project's own.
        how: the calls, for people.
        start: takes a directory and a run's name; returns what logs a step and what finishes the run.
        read: yields each point that another process finds in the directory: run, step, name, value.
        variables: of the environment of both processes; `{root}` is the directory.
        settle: returns what another process must call before it can read, if anything; its time counts as writing.
    """

    environment: str
    how: str
    start: Callable[[str, str], tuple[Log, Callable[[], Any]]]
    read: Callable[[str], Iterator[Point]]
    variables: dict[str, str] = dataclasses.field(default_factory=dict)
    settle: Callable[[str], Callable[[], Any]] | None = None


def _start_limit(root: str, _name: str) -> tuple[Log, Callable[[], Any]]:
    import write

    return write.bare_loop(root, values=10)


def _read_limit(root: str) -> Iterator[Point]:
    import zlib

    from eventlog.schema import Log as Record
    from eventlog.schema import decode

    with open(os.path.join(root, "bare"), "rb") as file:
        data = file.read()
    names = _names_in(root)
    header, place = struct.Struct("<II"), 0
    while place < len(data):
        crc, size = header.unpack_from(data, place)
        payload = data[place + 8 : place + 8 + size]
        if zlib.crc32(payload) != crc:
            raise ValueError(f"the bare loop's file is damaged at {place}")
        record = decode(payload)
        if not isinstance(record, Record) or record.step is None:
            raise TypeError(f"the bare loop's file holds something else at {place}")
        for name, value in zip(names, struct.unpack("<10d", record.values), strict=True):
            yield _ONE, record.step, name, value
        place += 8 + size


def _names_in(root: str) -> list[str]:
    """The bare loop writes no names: they are those of the workload, which lies beside its directory."""
    import json

    with open(os.path.join(os.path.dirname(root), "workload.json"), encoding="utf-8") as file:
        return list(json.load(file)["names"])


def _start_eventlog(root: str, name: str) -> tuple[Log, Callable[[], Any]]:
    import eventlog

    run = eventlog.init(PROJECT, name, dir=root)
    return run.log, run.finish


def _read_eventlog(root: str) -> Iterator[Point]:
    from eventlog.store import open_store

    store = open_store(root)
    runs = store.runs(PROJECT)
    run_of = dict(zip(runs["run_id"].to_pylist(), runs["name"].to_pylist(), strict=True))
    table = store.metrics(PROJECT)
    steps, ids = (table[name].to_pylist() for name in ("_step", "_run_id"))
    for name in table.schema.names:
        if not name.startswith("_"):
            for run_id, step, value in zip(ids, steps, table[name].to_pylist(), strict=True):
                if value is not None:
                    yield run_of[run_id], step, name, value


def _start_trackio(_root: str, name: str) -> tuple[Log, Callable[[], Any]]:
    import trackio

    run = trackio.init(project=PROJECT, name=name, embed=False, auto_log_gpu=False, auto_log_cpu=False)
    return run.log, trackio.finish


def _read_trackio(_root: str) -> Iterator[Point]:
    from trackio.sqlite_storage import SQLiteStorage

    for run in SQLiteStorage.get_run_records(PROJECT):
        for line in SQLiteStorage.get_logs(PROJECT, run["name"], run_id=run["id"]):
            step = line.pop("step")
            for name, value in line.items():
                if name != "timestamp":
                    yield run["name"], step, name, value


def _settle_trackio(_root: str) -> Callable[[], Any]:
    from trackio.fragments import import_inbox_dir

    return import_inbox_dir


def _start_tensorboard(root: str, _name: str) -> tuple[Log, Callable[[], Any]]:
    import time

    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.summary.writer.event_file_writer import EventFileWriter

    writer = EventFileWriter(root)
    value_of, summary_of, now = Summary.Value, Summary, time.time

    def log(data: dict[str, float], step: int) -> None:
        values = [value_of(tag=tag, simple_value=value) for tag, value in data.items()]
        writer.add_event(Event(wall_time=now(), step=step, summary=summary_of(value=values)))

    return log, writer.close


def _start_tensorboardx(root: str, _name: str) -> tuple[Log, Callable[[], Any]]:
    from tensorboardX import SummaryWriter

    writer = SummaryWriter(root)
    add = writer.add_scalar

    def log(data: dict[str, float], step: int) -> None:
        for tag, value in data.items():
            add(tag, value, step)

    return log, writer.close


def _read_tensorboard(root: str) -> Iterator[Point]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(root, size_guidance={"scalars": 0, "tensors": 0})
    events.Reload()
    for tag in events.Tags()["scalars"]:
        for event in events.Scalars(tag):
            yield _ONE, event.step, tag, event.value
    for tag in events.Tags()["tensors"]:
        for event in events.Tensors(tag):
            yield _ONE, event.step, tag, event.tensor_proto.float_val[0]


def _start_wandb(root: str, name: str) -> tuple[Log, Callable[[], Any]]:
    import wandb

    settings = wandb.Settings(console="off", x_disable_stats=True, disable_git=True, save_code=False)
    run = wandb.init(project=PROJECT, name=name, dir=root, mode="offline", settings=settings)
    return run.log, run.finish


def _read_wandb(root: str) -> Iterator[Point]:
    import json

    from wandb.proto.wandb_internal_pb2 import Record

    paths = [os.path.join(parent, entry) for parent, _, entries in os.walk(root) for entry in entries]
    for path in paths:
        if path.endswith(".wandb"):
            for data in _records_of_wandb(path):
                record = Record()
                record.ParseFromString(data)
                if record.WhichOneof("record_type") == "history":
                    items = record.history.item
                    line = {"/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in items}
                    yield from ((_ONE, line["_step"], key, line[key]) for key in line if not key.startswith("_"))


def _records_of_wandb(path: str) -> Iterator[bytes]:
    """Yield the records of its file: LevelDB's log format behind seven bytes. wandb itself has no reader in Python."""
    with open(path, "rb") as file:
        data = file.read()
    place, parts = 7, b""
    while place + 7 <= len(data):
        left = 32_768 - place % 32_768
        if left < 7:
            place += left
            continue
        size, kind = struct.unpack_from("<HB", data, place + 4)
        if not 1 <= kind <= 4:
            raise ValueError(f"no record at {place}")
        parts += data[place + 7 : place + 7 + size]
        place += 7 + size
        # Whole or last: the parts so far are one record.
        if kind in (1, 4):
            yield parts
            parts = b""


def _start_aim(root: str, name: str) -> tuple[Log, Callable[[], Any]]:
    from aim import Run

    run = Run(
        repo=root,
        experiment=PROJECT,
        system_tracking_interval=None,
        capture_terminal_logs=False,
        log_system_params=False,
    )
    run.name = name
    track = run.track
    return lambda data, step: track(data, step=step), run.close


def _settle_aim(root: str) -> Callable[[], Any]:
    from aim import Repo
    from aim.sdk.index_manager import RepoIndexManager

    repo = Repo.from_path(root)
    manager = RepoIndexManager.get_index_manager(repo)
    return lambda: [manager.index(run_hash) for run_hash in repo.list_all_runs()]


def _read_aim(root: str) -> Iterator[Point]:
    from aim import Repo

    for run in Repo.from_path(root).iter_runs():
        for metric in run.metrics():
            for step, (value, *_) in metric.data.items():
                yield run.name, int(step), metric.name, float(value)


def _start_mlflow(_root: str, name: str) -> tuple[Log, Callable[[], Any]]:
    import mlflow

    mlflow.set_experiment(PROJECT)
    mlflow.start_run(run_name=name, log_system_metrics=False)
    # The synchronous call of its documentation; step is its second argument.
    return mlflow.log_metrics, mlflow.end_run


def _read_mlflow(_root: str) -> Iterator[Point]:
    from mlflow import MlflowClient

    client = MlflowClient()
    experiment = client.get_experiment_by_name(PROJECT)
    for run in client.search_runs([experiment.experiment_id]):
        for name in run.data.metrics:
            for metric in client.get_metric_history(run.info.run_id, name):
                yield run.info.run_name, metric.step, name, metric.value


SUBJECTS: Final = {
    "limit": Subject(
        environment="", how="the bare loop: encode, checksum, one write(2)", start=_start_limit, read=_read_limit
    ),
    "eventlog": Subject(environment="", how="run.log(dict, step)", start=_start_eventlog, read=_read_eventlog),
    "trackio": Subject(
        environment="trackio",
        how="run.log(dict, step), SQLite",
        start=_start_trackio,
        read=_read_trackio,
        variables={"TRACKIO_DIR": "{root}", "TRACKIO_STORAGE_MODE": "sqlite"},
    ),
    "trackio-fragments": Subject(
        environment="trackio",
        how="run.log(dict, step), JSONL fragments, which a dashboard imports into SQLite",
        start=_start_trackio,
        read=_read_trackio,
        variables={"TRACKIO_DIR": "{root}", "TRACKIO_STORAGE_MODE": "jsonl"},
        settle=_settle_trackio,
    ),
    "tensorboard": Subject(
        environment="tensorboard",
        how="EventFileWriter.add_event, one event of ten values a step",
        start=_start_tensorboard,
        read=_read_tensorboard,
    ),
    "tensorboardX": Subject(
        environment="tensorboard",
        how="SummaryWriter.add_scalar, ten calls a step",
        start=_start_tensorboardx,
        read=_read_tensorboard,
    ),
    "wandb-offline": Subject(
        environment="wandb", how="run.log(dict, step), mode offline", start=_start_wandb, read=_read_wandb
    ),
    "aim": Subject(
        environment="aim",
        how="run.track(dict, step), which a dashboard indexes",
        start=_start_aim,
        read=_read_aim,
        settle=_settle_aim,
    ),
    "mlflow-file": Subject(
        environment="mlflow",
        how="mlflow.log_metrics(dict, step), file store",
        start=_start_mlflow,
        read=_read_mlflow,
        variables={"MLFLOW_TRACKING_URI": "file://{root}"},
    ),
    "mlflow-sqlite": Subject(
        environment="mlflow",
        how="mlflow.log_metrics(dict, step), SQLite",
        start=_start_mlflow,
        read=_read_mlflow,
        variables={"MLFLOW_TRACKING_URI": "sqlite:///{root}/mlflow.db", "MLFLOW_ARTIFACT_ROOT": "{root}"},
    ),
}
