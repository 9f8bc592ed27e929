"""The origins of imported runs: one record for each, which says where it came from, and is how it is known again.

It is an `admin` record of the action `import` that belongs to no run, so an imported run is what its source says.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from eventlog import schema
from eventlog.fs import LOCAL, Fs
from eventlog.importing.plan import NO_RUN, Here, Known, key_of
from eventlog.snapshot import ReaderCache
from eventlog.tail import projects
from eventlog.view import View
from eventlog.views import Views

ACTION: Final = "import"
_ADMIN: Final = schema.kind_name(schema.Admin)
_ROWS_AT_ONCE: Final = 16_384


class Origin(msgspec.Struct, frozen=True):
    """Where a run came from.

    Attributes:
        run_id: of the run in this store, "" for what belongs to no run.
        key: what tells it from every other run.
        source: the path or address that was read, with its revision.
        form: "eventlog" or "trackio".
        project: the run's project there.
        source_run_id: the run's id there.
        rows: how many were read, by table.
        software: what imported it.
    """

    run_id: str
    key: str
    source: str
    form: str
    project: str
    source_run_id: str
    rows: dict[str, int]
    software: str

    def record(self, time_ns: int) -> schema.Admin:
        """Return the record of an import at this time."""
        return schema.Admin(time_ns, NO_RUN, ACTION, msgspec.to_builtins(self))


class _Payload(msgspec.Struct):
    values: Origin


def is_origin(kind: str, name: str) -> bool:
    """Say whether a row of events is an origin."""
    return kind == _ADMIN and name == ACTION


def from_payload(payload: str) -> Origin | None:
    """Return the origin in the payload of a row of events, or None when it is not one that this release wrote."""
    try:
        return msgspec.json.decode(payload, type=_Payload).values
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None


def known_of(root: str, project: str, *, fs: Fs = LOCAL) -> Known:
    """Return what a project has already; nothing when there is no such project.

    Raises:
        DataError: a file is damaged.
        OSError: the store cannot be read.
    """
    if project not in projects(fs, root):
        return Known(frozenset(), {})
    return Views(fs, root, None, ReaderCache(fs)).answer(project, _known)


def _known(view: View) -> Known:
    runs = view.runs(deleted=True)
    ids = runs["run_id"].to_pylist()
    created = runs["created"].cast(pa.int64()).to_pylist()
    keys = {key_of(run_id, at or 0): Here(run_id, None) for run_id, at in zip(ids, created, strict=True)}
    for origin in _origins(view):
        keys[origin.key] = Here(origin.run_id, origin.rows)
    return Known(frozenset(ids), keys)


def _origins(view: View) -> Iterator[Origin]:
    for payload in _payloads(view):
        origin = from_payload(payload)
        if origin is not None:
            yield origin


def _payloads(view: View) -> Iterator[str]:
    columns = ["kind", "name", "payload"]
    for reader, pieces in view.snapshot.select("events", [NO_RUN]):
        for piece in pieces:
            for at in range(piece.start, piece.start + piece.rows, _ROWS_AT_ONCE):
                rows = reader.read(columns, [(at, min(_ROWS_AT_ONCE, piece.start + piece.rows - at))])
                yield from _chosen(rows)
    for batch in view.tail.batches if view.tail else ():
        yield from (row.payload for row in batch.events if is_origin(row.kind, row.name))


def _chosen(rows: Any) -> list[str]:
    mask = pc.and_(pc.equal(rows["kind"].cast(pa.string()), _ADMIN), pc.equal(rows["name"], ACTION))
    return list(rows.filter(mask)["payload"].to_pylist())
