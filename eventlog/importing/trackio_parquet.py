"""Read one project of a Trackio export: which runs it has, and then all rows of those that are wanted."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import groupby
from typing import Any, Final

from eventlog.blobs import BlobStore
from eventlog.importing.plan import NO_RUN, SourceRun, key_of
from eventlog.importing.sources import Place, batches, row_count
from eventlog.importing.staging import Staged
from eventlog.importing.trackio_files import Files
from eventlog.importing.trackio_records import RecordMaker, RunFacts, logged_in, run_of
from eventlog.importing.trackio_values import time_of

FORM: Final = "trackio"
_FILES: Final = "files"


class TrackioProject:
    """One project of an export of Trackio. Not thread-safe.

    Attributes:
        name: there.
        form: "trackio".
        runs: all of them, and the project's own files when there are any.
        left_out: counts what cannot be kept, by reason.
    """

    def __init__(self, place: Place, files: Files) -> None:
        """Take the place, and read which runs there are.

        Raises:
            DataError: a file is damaged.
            StorageError: it cannot be read.
        """
        self.name = files.project
        self.form = FORM
        self.left_out: Counter[str] = Counter()
        self._place = place
        self._files = files
        self._there = place.listing()
        self._facts: dict[str, RunFacts] = {}
        for kind in files.tables:
            self._survey(kind)
        for label, name in files.others.items():
            with place.fetch(name) as path:
                self.left_out[f"rows of {label}"] += row_count(path, f"{place}/{name}")
        self.runs = [
            SourceRun(run_id, facts.name, key_of(run_id, facts.created_ns or 0), facts.rows)
            for run_id, facts in self._facts.items()
        ]
        own = self._own_files()
        if own:
            key = f"files of {self.name}: " + ", ".join(f"{name} {self._there[name]}" for name in own)
            self.runs.append(SourceRun(NO_RUN, "", key_of(NO_RUN, _hash(key)), {"files": len(own)}))

    def _batches(self, name: str, columns: list[str] | None = None) -> Iterator[Any]:
        with self._place.fetch(name) as path:
            yield from batches(path, f"{self._place}/{name}", columns)

    def _rows(self, kind: str, columns: list[str] | None = None) -> Iterator[dict[str, Any]]:
        for batch in self._batches(self._files.tables[kind], columns):
            yield from batch.to_pylist()

    def _survey(self, kind: str) -> None:
        columns = None if kind == "configs" else ["run_id", "run_name", "timestamp"]
        for row in self._rows(kind, columns):
            run_id = run_of(row)
            if run_id is None:
                self.left_out[f"rows of {kind} that name no run"] += 1
                continue
            facts = self._facts.setdefault(run_id, RunFacts(run_id))
            facts.name = str(row.get("run_name") or facts.name)
            moment = time_of(row.get("created_at" if kind == "configs" else "timestamp"))
            if moment is not None and (facts.created_ns is None or moment < facts.created_ns):
                facts.created_ns = moment
            facts.rows[kind] = facts.rows.get(kind, 0) + 1
            if kind == "configs":
                facts.config = logged_in("configs", row)

    def _own_files(self) -> list[str]:
        prefix = f"{self._files.media}/{_FILES}/"
        return sorted(name for name in self._there if name.startswith(prefix))

    def read(self, ids: Mapping[str, str], root: str, into: Staged) -> None:
        """Hand over all records of some runs, their blobs first: see `sources.Project`.

        Raises:
            DataError: a file is damaged.
            StorageError: it cannot be read or kept.
        """
        reading = RecordMaker(self._place, self._files, ids, BlobStore(root), into, self.left_out)
        for run_id, facts in self._facts.items():
            if run_id in ids:
                reading.start(run_id, facts)
        for kind, take in (("metrics", reading.log), ("system", reading.system)):
            for row in self._rows(kind) if kind in self._files.tables else ():
                if run_of(row) in ids:
                    take(row)
        if "traces" in self._files.tables:
            for _, rows in groupby(self._rows("traces"), key=_trace_key):
                reading.traces(list(rows))
        if NO_RUN in ids:
            for name in self._own_files():
                reading.own_file(name)


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:7])


def _trace_key(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(row.get(key) for key in ("run_id", "run_name", "log_id", "step", "timestamp", "key"))
