"""The read side's front door: a store is its snapshots and their tails, complete to the last `log()`."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads

from eventlog import arrow, manifest as manifests, names as naming, query, tail
from eventlog.blobs import BlobStore
from eventlog.errors import ConflictError, UsageError
from eventlog.fs import LOCAL, Fs
from eventlog.live import LiveTail
from eventlog.manifest import DataFile, Manifest
from eventlog.resume import Earlier
from eventlog.runs import RunPart, RunParts
from eventlog.snapshot import ReaderCache, Snapshot

_T = TypeVar("_T")
Steps = tuple[int | None, int | None]


class Since(NamedTuple):
    """What came since a cursor.

    Attributes:
        cursor: pass it to the next `follow`; a dict of writer_id to seq, fit for JSON.
        metrics, system, events: the new rows, as the methods of those names return them.
    """

    cursor: dict[str, int]
    metrics: pa.Table
    system: pa.Table
    events: pa.Table


class _View(NamedTuple):
    """A snapshot and its tail, read at one moment."""

    snapshot: Snapshot
    tail: LiveTail | None


class Store:
    """A store, read-only. Thread-safe. It never writes, locks or repairs, so a read-only mount will do.

    Every answer is the newest snapshot and what was appended after it, unless the store was pinned with `at`.
    Runs are given by id or by name; a name means all runs of that name. Deleted runs are left out.
    """

    def __init__(self, root: str, *, fs: Fs = LOCAL, version: int | None = None) -> None:
        """Take the directory; `open_store` is the way in for users."""
        self.root = root
        self._fs = fs
        self._version = version
        self._cache = ReaderCache(fs)
        self._views: dict[str, _View] = {}
        self._lock = threading.RLock()

    def at(self, version: int) -> Store:
        """Return the store as it was at a snapshot version: what that version had folded, without any tail.

        Versions count for each project by itself; see `versions`. A project that never had this version
        raises UsageError when it is read, one whose version was collected raises ConflictError.
        """
        pinned = Store(self.root, fs=self._fs, version=version)
        pinned._cache = self._cache  # noqa: SLF001 - files never change, so both may share what is open
        return pinned

    def projects(self) -> list[str]:
        """Return the names of all projects, in order.

        Raises:
            OSError: the store cannot be listed.
        """
        return tail.projects(self._fs, self.root)

    def versions(self, project: str) -> list[int]:
        """Return the snapshot versions of a project that can still be read, ascending."""
        return manifests.versions(self._fs, self.root, project)

    def manifest(self, project: str) -> Manifest:
        """Return the manifest that answers come from now; version 0 is the empty snapshot before the first fold.

        Raises:
            UsageError: the project does not exist, or never had the pinned version.
            ConflictError: the pinned version was collected.
            DataError: the pinned manifest is damaged, or of a newer format.
        """
        naming.encode_name(project)
        if self._version is None:
            return manifests.load_newest(self._fs, self.root, project)[0]
        try:
            return manifests.load(self._fs, self.root, project, self._version)
        except FileNotFoundError:
            newest = (self.versions(project) or [0])[-1]
            if self._version > newest:
                raise UsageError(f"project {project!r} has no version {self._version}, the newest is {newest}") from None
            raise ConflictError(f"version {self._version} of {project!r} was collected") from None

    def _view(self, project: str) -> _View:
        """Return what to answer from, with the tail read to its present end. The caller holds the lock."""
        if project not in self._views and project not in self.projects():
            raise UsageError(f"there is no project {project!r} in {self.root}; there are: {self.projects()}")
        known = self._views.get(project)
        versions = manifests.versions(self._fs, self.root, project)
        newest = versions[-1] if versions else 0
        if self._version is not None:
            if known is None:
                known = _View(Snapshot(self._fs, self.root, self.manifest(project), self._cache), None)
        elif known is None or known.snapshot.manifest.version != newest or known.tail is None or known.tail.is_large:
            found = self.manifest(project)
            snapshot = Snapshot(self._fs, self.root, found, self._cache)
            if known is not None and known.snapshot.manifest.version == found.version:
                snapshot = known.snapshot
            known = _View(snapshot, LiveTail(self._fs, self.root, found))
        if known.tail is not None:
            known.tail.refresh()
        self._views[project] = known
        return known

    def _answer(self, project: str, ask: Callable[[_View], _T]) -> _T:
        """Ask a view; when its files were collected while it was asked, ask a new one."""
        with self._lock:
            try:
                return ask(self._view(project))
            except ConflictError:
                if self._version is not None:
                    raise
                self._views.pop(project, None)
                return ask(self._view(project))

    def runs(self, project: str, *, deleted: bool = False) -> pa.Table:
        """Return one row a run, ordered by creation.

        Args:
            project: its name.
            deleted: also runs that were deleted.

        Returns:
            Columns run_id, name, group, tags (list), status, exit_code, config, summary and metric_defs (JSON
            text), created, first_time and last_time (timestamp[ns, UTC]), last_step, host, user, world_size,
            start (JSON text), counts logs, system, events, alerts and dropped, deleted, and metrics: a map of
            name to first, last, min, min_step, max, max_step, mean, count.

        Raises:
            UsageError: no such project.
            DataError: a file is damaged.
        """
        parts = self._answer(project, lambda view: _parts(view, stats=True))
        return query.runs_table(part for part in parts.values() if deleted or not part.is_deleted)

    def find_run(self, project: str, *, name: str | None = None, run_id: str | None = None) -> Earlier | None:
        """Return the run with this id, or the latest of this name; None when there is none, or no such project.

        Raises:
            DataError: a file is damaged.
        """
        if project not in self.projects():
            return None
        parts = self._answer(project, lambda view: _parts(view, stats=False))
        found = [
            part
            for part in parts.values()
            if not part.is_deleted and (part.run_id == run_id if run_id is not None else _name(part) == name)
        ]
        if not found:
            return None
        part = max(found, key=lambda part: (part.start[0] if part.start else (0,), part.run_id))
        return Earlier(part.run_id, _name(part), part.last_step)

    def metric_names(self, project: str, *, table: str = "metrics") -> list[str]:
        """Return the names of all metrics of a project, sorted.

        Raises:
            UsageError: no such project.
        """

        def ask(view: _View) -> set[str]:
            live = view.tail.metric_names(table) if view.tail else set()
            return view.snapshot.metric_names(table) | live

        return sorted(self._answer(project, ask))

    def metrics(
        self,
        project: str,
        *,
        runs: str | Iterable[str] | None = None,
        names: str | Iterable[str] | None = None,
        steps: Steps | range | None = None,
        narrow: bool = False,
    ) -> pa.Table:
        """Return what was logged as numbers, sorted by (_run_id, _writer, _seq).

        Args:
            project: its name.
            runs: only these runs.
            names: only these metrics, and only rows that have one of them.
            steps: only steps from the first to the second, both included; None for no bound. A range as usual.
            narrow: one row a point instead of one a `log()`.

        Returns:
            Wide: _run_id and _writer (dictionary), _step (int64), _time (timestamp[ns, UTC]), _seq (int64),
            _rank (int32), and one float64 column a metric, null where it was not logged. Metrics whose names
            start with `_` or `.` have one more dot before them. Narrow: _run_id, name, _step, _time, value,
            _writer, _seq.

        Raises:
            UsageError: no such project or run.
            DataError: a file is damaged.
        """
        metric_names = _listed(names)
        columns = None
        if metric_names is not None:
            columns = [*(f.name for f in arrow.STRUCTURAL["metrics"]), *(arrow.escape(n) for n in metric_names)]
        rows = self._rows(project, "metrics", _listed(runs), columns)
        if columns is not None:
            rows = query.with_any(rows, columns[len(arrow.STRUCTURAL["metrics"]) :])
        if steps is not None:
            rows = query.between_steps(rows, _bounds(steps))
        return query.narrow(rows) if narrow else rows

    def system(
        self, project: str, *, runs: str | Iterable[str] | None = None, names: str | Iterable[str] | None = None
    ) -> pa.Table:
        """Return system metrics: as `metrics`, without steps.

        Raises:
            UsageError: no such project or run.
            DataError: a file is damaged.
        """
        metric_names = _listed(names)
        columns = None
        if metric_names is not None:
            columns = [*(f.name for f in arrow.STRUCTURAL["system"]), *(arrow.escape(n) for n in metric_names)]
        rows = self._rows(project, "system", _listed(runs), columns)
        return rows if columns is None else query.with_any(rows, columns[len(arrow.STRUCTURAL["system"]) :])

    def events(
        self,
        project: str,
        *,
        kinds: str | Iterable[str] | None = None,
        runs: str | Iterable[str] | None = None,
        names: str | Iterable[str] | None = None,
    ) -> pa.Table:
        """Return everything that is no number, sorted by (_run_id, _writer, _seq).

        Args:
            project: its name.
            kinds: only these: kinds of records (alert, run_start, ...) and of values (text, image, table, ...).
            runs: only these runs.
            names: only events of these names.

        Returns:
            Columns _run_id, kind, name, _step, _time, _writer, _seq, and payload (JSON text).

        Raises:
            UsageError: no such project or run.
            DataError: a file is damaged.
        """
        rows = self._rows(project, "events", _listed(runs), None)
        for column, wanted in (("kind", _listed(kinds)), ("name", _listed(names))):
            if wanted is not None:
                rows = rows.filter(pc.is_in(rows[column].cast(pa.string()), pa.array(wanted, pa.string())))
        return rows

    def _rows(self, project: str, table: str, runs: list[str] | None, columns: list[str] | None) -> pa.Table:
        def ask(view: _View) -> pa.Table:
            wanted = self._wanted(view, runs)
            found = list(view.snapshot.tables(table, wanted, columns))
            if view.tail is not None:
                found.append(view.tail.table(table, wanted))
            return query.unite(table, found, columns)

        return self._answer(project, ask)

    def _wanted(self, view: _View, runs: Sequence[str] | None) -> Collection[str] | None:
        """Return the ids of the runs asked for, without deleted ones; None for all."""
        parts = _parts(view, stats=False)
        deleted = {run_id for run_id, part in parts.items() if part.is_deleted}
        if runs is None:
            return None if not deleted else {run_id for run_id in parts if run_id not in deleted}
        wanted: set[str] = set()
        for run in runs:
            if run in parts:
                wanted.add(run)
                continue
            named = {run_id for run_id, part in parts.items() if _name(part) == run}
            if not named:
                raise UsageError(f"there is no run {run!r} in project {view.snapshot.manifest.project!r}")
            wanted |= named
        return wanted - deleted

    def curve(self, project: str, run: str, name: str, *, max_points: int | None = None) -> pa.Table:
        """Return one metric of one run, in the order of (_writer, _seq).

        Args:
            project: its name.
            run: id, or name: then the latest run of that name.
            name: of the metric.
            max_points: at most so many points, at least 4: the lowest and highest of each of equal buckets, a NaN
                where there is one, and the first and last point. Default all.

        Returns:
            Columns _step (int64), _time (timestamp[ns, UTC]) and value (float64); no rows when the run never
            logged this metric.

        Raises:
            UsageError: no such project or run, or `max_points` below 4.
            DataError: a file is damaged.
        """
        if max_points is not None and max_points < 4:
            raise UsageError("max_points must be at least 4")
        table = self._answer(project, lambda view: _curve(view, _one_run(view, run), name))
        if max_points is not None and table.num_rows > max_points:
            chosen = query.downsample(table["value"].to_numpy(), max_points)
            table = table.take(pa.array(chosen))
        return table

    def files(self, project: str, table: str = "metrics") -> list[str]:
        """Return the paths of exactly the snapshot's parquet files of a table, for other readers.

        Globbing the directory instead counts rows twice after a compaction. The tail is not in these files.

        Raises:
            UsageError: no such project or table.
        """
        _check_table(table)
        return self._answer(project, lambda view: view.snapshot.paths(table))

    def dataset(self, project: str, table: str = "metrics") -> pads.Dataset:
        """Return a pyarrow Dataset over exactly the snapshot's files, with the union of their columns.

        For `runs`, which has files of parts, the dataset is the merged table in memory.

        Raises:
            UsageError: no such project or table.
        """
        _check_table(table)
        if table == "runs":
            return pads.dataset(self.runs(project))

        def ask(view: _View) -> pads.Dataset:
            readers = [selected.reader for selected in view.snapshot.select(table, None)]
            columns = sorted({c for reader in readers for c in arrow.metric_columns(table, reader.schema)})
            schema = arrow.table_schema(table, [] if table == "events" else columns)
            return pads.dataset(view.snapshot.paths(table), schema=schema, format="parquet")

        return self._answer(project, ask)

    def follow(self, project: str, cursor: dict[str, int] | None = None) -> Since:
        """Return what came since a cursor, from snapshot and tail; without one, everything.

        Raises:
            UsageError: no such project.
            DataError: a file is damaged.
        """

        def ask(view: _View) -> Since:
            wanted = self._wanted(view, None)
            live = view.tail
            since = dict(cursor or {})
            found: dict[str, pa.Table] = {}
            for table in ("metrics", "system", "events"):
                parts = list(view.snapshot.since(table, since))
                if live is not None:
                    parts.append(live.table(table, None, since))
                rows = query.unite(table, parts, None)
                if wanted is not None:
                    rows = rows.filter(pc.is_in(rows["_run_id"].cast(pa.string()), pa.array(sorted(wanted), pa.string())))
                found[table] = rows
            marks = live.marks if live is not None else view.snapshot.manifest.writers
            reached = {writer_id: mark.seq for writer_id, mark in marks.items()}
            return Since({**since, **reached}, found["metrics"], found["system"], found["events"])

        return self._answer(project, ask)

    def blob(self, digest: str) -> bytes:
        """Return a blob's bytes, checked against its name.

        Raises:
            UsageError: `digest` is no digest.
            FileNotFoundError: there is no such blob.
            DataError: its bytes have changed.
        """
        return BlobStore(self.root, self._fs).get(digest)


def open_store(path: str | os.PathLike[str]) -> Store:
    """Return the store in a directory, for reading. Nothing is created.

    Raises:
        UsageError: there is no such directory.
    """
    root = os.path.abspath(os.fspath(path))
    if not os.path.isdir(root):
        raise UsageError(f"there is no store in {root}: the directory does not exist")
    return Store(root)


def _parts(view: _View, *, stats: bool) -> dict[str, RunPart]:
    merged = RunParts(view.snapshot.parts(stats=stats))
    for part in view.tail.parts() if view.tail is not None else ():
        merged.add(part if stats else arrow.without_stats(part))
    merged.parts.pop("", None)
    return merged.parts


def _one_run(view: _View, run: str) -> str:
    parts = _parts(view, stats=False)
    if run in parts and not parts[run].is_deleted:
        return run
    named = [part for part in parts.values() if _name(part) == run and not part.is_deleted]
    if not named:
        raise UsageError(f"there is no run {run!r} in project {view.snapshot.manifest.project!r}")
    return max(named, key=lambda part: (part.start[0] if part.start else (0,), part.run_id)).run_id


def _name(part: RunPart) -> str:
    return part.name[1] if part.name else part.run_id


def _curve(view: _View, run_id: str, name: str) -> pa.Table:
    column = arrow.escape(name)
    columns = ["_step", "_time", column]
    pieces: list[tuple[str, int, int, pa.Table]] = []
    overlapping = False
    for reader, found in view.snapshot.select("metrics", [run_id], name):
        rows = reader.read([*columns, "_seq"], [(piece.start, piece.rows) for piece in found])
        start = 0
        for piece in found:
            pieces.append((piece.writer_id, piece.first_seq, piece.last_seq, rows.slice(start, piece.rows)))
            start += piece.rows
    for block in view.tail.blocks("metrics", [run_id]) if view.tail is not None else ():
        if name in block.names:
            rows = arrow.blocks_to_rows("metrics", [block]).table.select([*columns, "_seq"])
            pieces.append((block.writer_id, int(block.seq[0]), int(block.seq[-1]), rows))
    if not pieces:
        return query.CURVE.empty_table()
    pieces.sort(key=lambda piece: piece[:2])
    for before, after in zip(pieces, pieces[1:], strict=False):
        overlapping = overlapping or (before[0] == after[0] and before[2] >= after[1])
    table = pa.concat_tables([piece[3] for piece in pieces])
    if overlapping:
        writers = np.repeat(
            np.unique([piece[0] for piece in pieces], return_inverse=True)[1], [piece[3].num_rows for piece in pieces]
        )
        table = table.take(pa.array(np.lexsort((table["_seq"].to_numpy(), writers))))
    if table[column].null_count:
        table = table.filter(pc.is_valid(table[column]))
    return pa.table([table[c] for c in columns], schema=query.CURVE)


def _listed(value: str | Iterable[str] | None) -> list[str] | None:
    if value is None:
        return None
    return [value] if isinstance(value, str) else list(value)


def _bounds(steps: Any) -> Steps:
    if isinstance(steps, range):
        return (steps.start, steps.stop - 1) if steps.step == 1 else _refuse_steps(steps)
    try:
        low, high = steps
    except (TypeError, ValueError):
        return _refuse_steps(steps)
    return low, high


def _refuse_steps(steps: Any) -> Steps:
    raise UsageError(f"steps is (first, last) or a range with step 1, not {steps!r}")


def _check_table(table: str) -> None:
    if table not in naming.TABLES:
        raise UsageError(f"there is no table {table!r}; there are: {', '.join(naming.TABLES)}")


__all__ = ["DataFile", "Since", "Store", "open_store"]
