"""Read a dataset that an export wrote: the rows of its tables become the records again that they were made from."""

from __future__ import annotations

import contextlib
import heapq
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby
from typing import Final, NamedTuple

import msgspec
import pyarrow as pa

from eventlog import schema
from eventlog.blobs import BlobStore
from eventlog.errors import DataError
from eventlog.exporting import layout
from eventlog.exporting.layout import DataFile, Index, Pack
from eventlog.importing import origins, records
from eventlog.importing.numbers import NumberRow, number_rows
from eventlog.importing.plan import NO_RUN, SourceRun, key_of
from eventlog.importing.sources import Place, batches
from eventlog.importing.staging import Staged
from eventlog.verify.references import references

FORM: Final = "eventlog"
_OF_WRITERS: Final = {
    schema.kind_name(schema.Receipt): "receipts, which are of use to the server of the source only",
    schema.kind_name(schema.Dropped): "notes of writers of the source that records could not be kept",
}


class _EventRow(NamedTuple):
    kind: str
    name: str
    step: int | None
    time_ns: int
    payload: str


class _Item(NamedTuple):
    """A row of any table, with what it is ordered by: the run's place in its pack, writer, seq."""

    place: tuple[int, str, int]
    run_id: str
    table: str
    row: NumberRow | _EventRow


class ExportedProject:
    """The project of a dataset. Not thread-safe.

    Attributes:
        name: there.
        form: "eventlog".
        runs: all of them, and what belongs to no run when there is any.
        left_out: counts what cannot be kept, by reason.
    """

    def __init__(self, place: Place, index: Index) -> None:
        """Take the place and its index, and read the table of runs.

        Raises:
            DataError: a file is damaged, or not what the index says.
            StorageError: it cannot be read.
        """
        self.name = index.project
        self.form = FORM
        self.left_out: Counter[str] = Counter()
        self._place = place
        self._index = index
        self._there = place.listing()
        for file in index.all_files():
            if file.path not in self._there:
                raise DataError(f"{place}/{file.path}", None, "is missing, and the index names it")
        self.runs = self._runs()

    def _runs(self) -> list[SourceRun]:
        facts: dict[str, tuple[str, int]] = {}
        for file in self._index.runs:
            for batch in self._batches(file, ["run_id", "name", "created"]):
                created = batch["created"].cast(pa.int64())
                columns = (batch["run_id"].to_pylist(), batch["name"].to_pylist(), created.to_pylist())
                facts.update((run_id, (name, at or 0)) for run_id, name, at in zip(*columns, strict=True))
        found: list[SourceRun] = []
        for pack in self._index.packs:
            for run in pack.runs:
                rows = {"metrics": run.metrics, "system": run.system, "events": run.events}
                if run.run_id == NO_RUN:
                    found += self._of_no_run(pack)
                elif run.run_id in facts:
                    name, created_ns = facts[run.run_id]
                    found.append(SourceRun(run.run_id, name, key_of(run.run_id, created_ns), rows))
                else:
                    raise DataError(f"{self._place}", None, f"the table of runs lacks the run {run.run_id!r}")
        return found

    def _of_no_run(self, pack: Pack) -> list[SourceRun]:
        """Return what belongs to no run, if there is any that is imported: it is known again by its first time."""
        times: list[int] = []
        for file in pack.files["events"]:
            for batch in self._batches(file, ["_run_id", "kind", "name", "_time"]):
                columns = (batch[name].to_pylist() for name in ("_run_id", "kind", "name"))
                moments = batch["_time"].cast(pa.int64()).to_pylist()
                for run_id, kind, name, at in zip(*columns, moments, strict=True):
                    if run_id == NO_RUN and kind not in _OF_WRITERS and not origins.is_origin(kind, name):
                        times.append(at)
        return [SourceRun(NO_RUN, "", key_of(NO_RUN, min(times)), {"events": len(times)})] if times else []

    @contextlib.contextmanager
    def _checked(self, file: DataFile) -> Iterator[str]:
        with self._place.fetch(file.path) as path:
            if layout.sha256_of(path) != file.sha256:
                raise DataError(f"{self._place}/{file.path}", None, "is not the file that the index names")
            yield path

    def _batches(self, file: DataFile, columns: list[str] | None = None) -> Iterator[pa.RecordBatch]:
        with self._checked(file) as path:
            yield from batches(path, f"{self._place}/{file.path}", columns)

    def read(self, ids: Mapping[str, str], root: str, into: Staged) -> None:
        """Hand over all records of some runs, their blobs first: see `sources.Project`.

        Raises:
            DataError: a file is damaged, or not what the index says.
            StorageError: it cannot be read or kept.
        """
        made = records.Maker(ids, into)
        for pack in self._index.packs:
            if any(run.run_id in ids or run.run_id == NO_RUN for run in pack.runs):
                self._read_pack(pack, ids, root, made)

    def _read_pack(self, pack: Pack, ids: Mapping[str, str], root: str, made: records.Maker) -> None:
        order = {run.run_id: at for at, run in enumerate(pack.runs)}
        blobs = BlobStore(root)
        fetched: set[str] = set()
        counted: Counter[tuple[str, str]] = Counter()
        streams = (self._items(table, pack.files[table], order, counted) for table in layout.TABLES)
        in_order = heapq.merge(*streams, key=lambda item: item.place)
        for _, items in groupby(in_order, key=lambda item: item.place):
            rows = list(items)
            run_id = rows[0].run_id
            events = [item.row for item in rows if isinstance(item.row, _EventRow)]
            if run_id == NO_RUN and not self._is_wanted(events, ids, made):
                continue
            if run_id in ids:
                for event in events:
                    self._fetch_blobs(event, blobs, fetched)
                numbers = [(item.table, item.row) for item in rows if isinstance(item.row, NumberRow)]
                self._add(made, run_id, numbers, events)
        for run in pack.runs:
            expected = {"metrics": run.metrics, "system": run.system, "events": run.events}
            if any(counted[run.run_id, table] != rows for table, rows in expected.items()):
                raise DataError(f"{self._place}", None, f"the run {run.run_id!r} has not the rows that the index says")

    def _add(
        self, made: records.Maker, run_id: str, numbers: list[tuple[str, NumberRow]], events: list[_EventRow]
    ) -> None:
        try:
            made.add(run_id, numbers, events)
        except (msgspec.MsgspecError, AttributeError, TypeError, OverflowError, RecursionError) as error:
            raise DataError(f"{self._place}", None, f"an event of the run {run_id!r} is none: {error!r}") from error

    def _is_wanted(self, events: list[_EventRow], ids: Mapping[str, str], made: records.Maker) -> bool:
        """Say whether a record of no run is imported as one; origins of imported runs are told of by the way."""
        for event in events:
            if event.kind in _OF_WRITERS:
                self.left_out[_OF_WRITERS[event.kind]] += 1
                return False
            if origins.is_origin(event.kind, event.name):
                origin = origins.from_payload(event.payload)
                if origin is not None and origin.run_id in ids:
                    made.add_origin(event.time_ns, origin)
                return False
        return NO_RUN in ids

    def _items(
        self, table: str, files: Iterable[DataFile], order: Mapping[str, int], counted: Counter[tuple[str, str]]
    ) -> Iterator[_Item]:
        for file in files:
            for batch in self._batches(file):
                rows = _event_rows(batch) if table == "events" else number_rows(table, batch)
                try:
                    for run_id, writer_id, seq, row in rows:
                        counted[run_id, table] += 1
                        yield _Item((order[run_id], writer_id, seq), run_id, table, row)
                except (KeyError, pa.ArrowException, TypeError, ValueError) as error:
                    message = f"has not the columns or the runs of a table of {table}: {error!r}"
                    raise DataError(f"{self._place}/{file.path}", None, message) from error

    def _fetch_blobs(self, event: _EventRow, blobs: BlobStore, fetched: set[str]) -> None:
        for reference in references(event.kind, event.payload):
            if reference.digest in fetched:
                continue
            fetched.add(reference.digest)
            path = layout.blob_path(reference.digest)
            if _has(blobs.path(reference.digest), reference.size_bytes):
                continue
            if path not in self._there:
                self.left_out["blobs that the dataset has not"] += 1
                continue
            with self._place.fetch(path) as local:
                if layout.sha256_of(local) != reference.digest:
                    self.left_out["blobs whose bytes have changed"] += 1
                    continue
                with open(local, "rb") as file:
                    blobs.put_file(file)


def _has(path: str, size_bytes: int) -> bool:
    try:
        return os.path.getsize(path) == size_bytes
    except FileNotFoundError:
        return False


def _event_rows(batch: pa.RecordBatch) -> Iterator[tuple[str, str, int, _EventRow]]:
    run_ids, writer_ids, seqs = (batch[name].to_pylist() for name in ("_run_id", "_writer", "_seq"))
    kinds, names, steps, payloads = (batch[name].to_pylist() for name in ("kind", "name", "_step", "payload"))
    times = batch["_time"].cast(pa.int64()).to_pylist()
    rows = map(_EventRow, kinds, names, steps, times, payloads)
    yield from zip(run_ids, writer_ids, seqs, rows, strict=True)
