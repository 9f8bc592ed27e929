"""The read side's front door: a store is its snapshots and their tails, complete to the last `log()`."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from eventlog import arrow, query, tail
from eventlog import manifest as manifests
from eventlog import names as naming
from eventlog.blobs import BlobStore
from eventlog.errors import UsageError, shown
from eventlog.fs import LOCAL, Fs
from eventlog.hub.address import is_remote
from eventlog.hub.ranged import HOLE_BYTES, PART_BYTES
from eventlog.manifest import Manifest
from eventlog.resume import Earlier
from eventlog.snapshot import ReaderCache
from eventlog.view import View
from eventlog.views import Views

if TYPE_CHECKING:
    import pyarrow.dataset as pads


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


class Store:
    """A store, read-only. Thread-safe. It never writes, locks or repairs, so a read-only mount will do.

    Every answer is the newest snapshot and what was appended after it, unless the store was pinned with `at`.
    Runs are given by id or by name; a name means all runs of that name. Deleted runs are left out.
    """

    def __init__(self, root: str, *, fs: Fs = LOCAL, version: int | None = None) -> None:
        """Take the directory; `open_store` is the way in for users."""
        self.root = root
        self._fs = fs
        self._views = Views(fs, root, version, ReaderCache(fs))

    def at(self, version: int) -> Store:
        """Return the store as it was at a snapshot version: what that version had folded, without any tail.

        Versions count for each project by itself; see `versions`. A project that never had this version
        raises UsageError when it is read, one whose version was collected raises ConflictError.
        """
        pinned = Store(self.root, fs=self._fs, version=version)
        pinned._views = Views(self._fs, self.root, version, self._views.cache)
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
            UsageError: the project's name is bad, or it never had the pinned version.
            ConflictError: the pinned version was collected.
            DataError: the pinned manifest is damaged, or of a newer format.
        """
        return self._views.manifest(project)

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
        return self._views.answer(project, lambda view: view.runs(deleted=deleted))

    def find_run(self, project: str, *, name: str | None = None, run_id: str | None = None) -> Earlier | None:
        """Return the run with this id, or the latest of this name; None when there is none, or no such project.

        Raises:
            DataError: a file is damaged.
        """
        if project not in self.projects():
            return None
        return self._views.answer(project, lambda view: view.find(name=name, run_id=run_id))

    def metric_names(self, project: str, *, table: str = "metrics") -> list[str]:
        """Return the names of all metrics of a project, sorted.

        Raises:
            UsageError: no such project.
        """

        def ask(view: View) -> set[str]:
            live = view.tail.metric_names(table) if view.tail else set()
            return view.snapshot.metric_names(table) | live

        return sorted(self._views.answer(project, ask))

    def metrics(
        self,
        project: str,
        *,
        runs: str | Iterable[str] | None = None,
        names: str | Iterable[str] | None = None,
        steps: query.Steps | range | None = None,
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
        rows = self._numbers(project, "metrics", _listed(runs), _listed(names))
        if steps is not None:
            rows = query.between_steps(rows, steps)
        return query.narrow(rows) if narrow else rows

    def system(
        self, project: str, *, runs: str | Iterable[str] | None = None, names: str | Iterable[str] | None = None
    ) -> pa.Table:
        """Return system metrics: as `metrics`, without steps.

        Raises:
            UsageError: no such project or run.
            DataError: a file is damaged.
        """
        return self._numbers(project, "system", _listed(runs), _listed(names))

    def _numbers(self, project: str, table: str, runs: list[str] | None, names: list[str] | None) -> pa.Table:
        if names is None:
            return self._rows(project, table, runs, None)
        metrics = [arrow.escape(name) for name in names]
        structural = [field.name for field in arrow.STRUCTURAL[table]]
        return query.with_any(self._rows(project, table, runs, [*structural, *metrics]), metrics)

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
        return self._views.answer(project, lambda view: view.rows(table, runs, columns))

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
        table = self._views.answer(project, lambda view: view.curve(view.one_run(run), name))
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
        return self._views.answer(project, lambda view: view.snapshot.paths(table))

    def dataset(self, project: str, table: str = "metrics") -> pads.Dataset:
        """Return a pyarrow Dataset over exactly the snapshot's files, with the union of their columns.

        Columns that are dictionaries elsewhere are plain strings here, so that grouping works across files.

        For `runs`, which has files of parts, the dataset is the merged table in memory.

        Raises:
            UsageError: no such project or table.
        """
        import pyarrow.dataset as pads

        _check_table(table)
        if table == "runs":
            return pads.dataset(self.runs(project))

        def ask(view: View) -> pads.Dataset:
            readers = [selected.reader for selected in view.snapshot.select(table, None)]
            columns = sorted({c for reader in readers for c in arrow.metric_columns(table, reader.schema)})
            schema = arrow.plain_schema(arrow.table_schema(table, [] if table == "events" else columns))
            form = pads.ParquetFileFormat()
            if any(not isinstance(reader.source, str) for reader in readers):
                together = pa.CacheOptions(hole_size_limit=HOLE_BYTES, range_size_limit=PART_BYTES, lazy=True)
                form = pads.ParquetFileFormat(pre_buffer=True, cache_options=together)
                return pads.FileSystemDataset([form.make_fragment(reader.source) for reader in readers], schema, form)
            return pads.dataset(view.snapshot.paths(table), schema=schema, format=form)

        return self._views.answer(project, ask)

    def follow(self, project: str, cursor: dict[str, int] | None = None) -> Since:
        """Return what came since a cursor, from snapshot and tail; without one, everything.

        Raises:
            UsageError: no such project.
            DataError: a file is damaged.
        """

        def ask(view: View) -> Since:
            since = dict(cursor or {})
            metrics, system, events = (view.since(table, since) for table in ("metrics", "system", "events"))
            return Since({**since, **view.reached()}, metrics, system, events)

        return self._views.answer(project, ask)

    def blob(self, digest: str) -> bytes:
        """Return a blob's bytes, checked against its name.

        Raises:
            UsageError: `digest` is no digest.
            FileNotFoundError: there is no such blob.
            DataError: its bytes have changed.
        """
        return BlobStore(self.root, self._fs).get(digest)


def open_store(path: str | os.PathLike[str]) -> Store:
    """Return the store in a directory or in a bucket, for reading. Nothing is created, and no bucket is written to.

    Args:
        path: a directory, or `hf://buckets/OWNER/NAME[/PREFIX]`. Answers from a bucket are complete to what hosts have
            shipped, as it was at most five seconds ago.

    Raises:
        UsageError: there is no such directory, `path` is no path, or the client of the Hub is not installed.
        StorageError: there is no such bucket for this token, or the Hub could not be reached.
    """
    if is_remote(path):
        from eventlog.hub.filesystem import BucketFs

        bucket = BucketFs.at(str(path))
        return Store(bucket.root, fs=bucket)
    try:
        root = os.path.abspath(os.fsdecode(path))
    except (TypeError, ValueError) as error:
        raise UsageError(f"a store is the path of a directory, not {shown(path)}") from error
    if not path:
        raise UsageError("a store is the path of a directory: it is empty")
    if not os.path.isdir(root):
        raise UsageError(f"there is no store in {root}: the directory does not exist")
    return Store(root)


def is_store(root: str) -> bool:
    """Say whether a directory holds what a writer or a compactor makes first."""
    return any(map(os.path.isdir, (naming.segments_dir(root), naming.snapshots_dir(root))))


def _listed(value: str | Iterable[str] | None) -> list[str] | None:
    if value is None:
        return None
    return [value] if isinstance(value, str) else list(value)


def _check_table(table: str) -> None:
    if table not in naming.TABLES:
        raise UsageError(f"there is no table {table!r}; there are: {', '.join(naming.TABLES)}")
