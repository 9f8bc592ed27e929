"""Find an earlier run by name with the standard library alone, so that a training process can continue it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

from eventlog import names, schema, segment
from eventlog.errors import DataError
from eventlog.fs import LOCAL, Fs

if TYPE_CHECKING:
    from collections.abc import Iterator


class Earlier(NamedTuple):
    """A run that was logged before; `last_step` is None when it never had one."""

    run_id: str
    name: str
    last_step: int | None


def find_run(
    root: str, project: str, *, name: str | None = None, run_id: str | None = None, fs: Fs = LOCAL
) -> Earlier | None:
    """Return the run with this id, or the latest of this name, as the retained segments tell; None when there is none.

    Reads every record of the project's segments one by one. Runs whose segments were collected are found by
    `eventlog.store`, which needs pyarrow; `Run` asks that first where it can.
    """
    runs: dict[str, tuple[int, str]] = {}
    deleted: dict[str, tuple[int, bool]] = {}
    steps: dict[str, int] = {}
    for record, shapes in _records(root, project, fs):
        if isinstance(record, schema.RunStart):
            runs.setdefault(record.run_id, (record.time_ns, record.name))
        elif isinstance(record, schema.Admin):
            _apply_admin(record, runs, deleted)
        elif isinstance(record, schema.Log) and record.step is not None and record.shape in shapes:
            owner = shapes[record.shape]
            steps[owner] = max(steps.get(owner, record.step), record.step)
    found = [
        (time_ns, key, found_name)
        for key, (time_ns, found_name) in runs.items()
        if (key == run_id if run_id is not None else found_name == name) and not deleted.get(key, (0, False))[1]
    ]
    if not found:
        return None
    _, key, found_name = max(found)
    return Earlier(key, found_name, steps.get(key))


def _apply_admin(record: schema.Admin, runs: dict[str, tuple[int, str]], deleted: dict[str, tuple[int, bool]]) -> None:
    if record.action == "rename" and record.run_id in runs:
        runs[record.run_id] = (runs[record.run_id][0], str(record.values.get("name", "")))
    elif record.action in ("delete", "undelete") and record.time_ns >= deleted.get(record.run_id, (0, False))[0]:
        deleted[record.run_id] = (record.time_ns, record.action == "delete")


def _records(root: str, project: str, fs: Fs) -> Iterator[tuple[schema.AnyRecord, dict[int, str]]]:
    base = names.project_segments_dir(root, project)
    for writer_id in fs.subdirs(base):
        directory = os.path.join(base, writer_id)
        for entry in fs.entries(directory):
            if names.parse_segment_name(entry.name) is None:
                continue
            path = os.path.join(directory, entry.name)
            data = fs.read(path)
            try:
                header = segment.parse_header(data, path)
            except DataError:
                recovered = segment.recover_header(data)
                if recovered is None:
                    continue
                header = recovered
            shapes: dict[int, str] = {}
            for item in segment.items(data, header):
                if isinstance(item, segment.Item):
                    if item.structural and isinstance(item.record, schema.Shape):
                        shapes[item.record.shape] = item.record.run_id
                    yield item.record, shapes
