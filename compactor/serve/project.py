"""One project as the dashboard sees it: kept from poll to poll, and told only what came since."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, NamedTuple, TypeVar, cast

import pyarrow as pa
import pyarrow.compute as pc

from compactor.serve.curves import Curves, merge_by_time
from compactor.serve.eventrows import event_rows, stretches
from compactor.serve.typedrows import TypedRows
from eventlog import runrows, schema, values
from eventlog.blobs import BlobStore
from eventlog.columns import Batch, EventRow
from eventlog.errors import ConflictError, EventLogError
from eventlog.feed import Feed
from eventlog.gather import Block
from eventlog.runs import RunPart, RunParts
from eventlog.snapshot import ReaderCache
from eventlog.view import View, name_of, started

_T = TypeVar("_T")
_KEPT_KINDS: Final = frozenset(
    schema.kind_name(kind) for kind in (schema.Alert, schema.ArtifactVersion, schema.ArtifactUse, schema.Upload)
)
_LARGEST_SHOWN_BLOB: Final = 64 * 1024 * 1024


class _Shown(NamedTuple):
    """An answer, and how the run was when it was made."""

    generation: int
    text: bytes


class Project:
    """The state of one project. Thread-safe; every method sees all that was appended before its call.

    What is decoded and rendered of runs is kept while it fits into `cache_bytes`, the least used goes first.

    Attributes:
        name: of the project.
        cached_bytes: about how much memory that takes.
    """

    def __init__(self, root: str, name: str, cache: ReaderCache, cache_bytes: int) -> None:
        """Prepare; nothing is read before the first question."""
        self.name = name
        self._root = root
        self._cache = cache
        self._fs = cache.fs
        self._limit = cache_bytes
        self._feed = Feed(self._fs, root, name, cache)
        self._blobs = BlobStore(root, self._fs)
        self._lock = threading.RLock()
        self._forget()

    def _forget(self) -> None:
        self._runs = RunParts()
        self._kinds: set[str] = set()
        self._events: dict[str, list[EventRow]] = {}
        self._curves: OrderedDict[tuple[str, str, int], Curves] = OrderedDict()
        self._typed: OrderedDict[str, TypedRows] = OrderedDict()
        self._shown: OrderedDict[tuple[str, str, int, bool], _Shown] = OrderedDict()
        self._generation: dict[str, int] = {}
        self.cached_bytes = 0
        self._events_loaded = False
        self._answers: dict[str, tuple[object, object]] = {}
        self._uploads: dict[str, tuple[tuple[int, str, int], str]] = {}
        self._uploads_known = 0

    def _ask(self, question: Callable[[], _T]) -> _T:
        """Answer with everything that is new; when files were collected meanwhile, start over once."""
        with self._lock:
            try:
                self._look()
                return question()
            except ConflictError:
                self._start_over()
                self._look()
                return question()

    def _start_over(self) -> None:
        self._feed = self.feed()

    def _look(self) -> None:
        try:
            news = self._feed.advance()
            if news.reset:
                self._forget()
                self._runs = RunParts(runrows.table_to_parts(self._feed.view.parts()))
            for batch in news.batches:
                self._absorb(batch)
        except BaseException:
            # What was taken in by half would be wrong for ever.
            self._start_over()
            raise

    def _absorb(self, batch: Batch) -> None:
        for run_id, part in batch.runs.parts.items():
            # A part that was given out is never changed: whoever has it reads it without a lock.
            known = self._runs.parts.get(run_id)
            fresh = RunPart(run_id) if known is None else known.copy()
            fresh.merge(part)
            self._runs.parts[run_id] = fresh
            self._generation[run_id] = self._generation.get(run_id, 0) + 1
        by_run: dict[tuple[str, str], list[Block]] = {}
        for table, blocks in (("metrics", batch.metrics), ("system", batch.system)):
            for block in blocks:
                by_run.setdefault((block.run_id, table), []).append(block)
        for (run_id, table, _), curves in self._curves.items():
            curves.add_blocks(by_run.get((run_id, table), ()))
        if not batch.events:
            return
        events: dict[str, list[EventRow]] = {}
        for row in batch.events:
            events.setdefault(row.run_id, []).append(row)
        for run_id, typed in self._typed.items():
            typed.add(events.get(run_id, ()))
        if self._events_loaded:
            self._keep(batch.events)

    def _keep(self, rows: Iterable[EventRow]) -> None:
        for row in rows:
            self._kinds.add(row.kind)
            if row.kind in _KEPT_KINDS:
                self._events.setdefault(row.kind, []).append(row)

    def _load_events(self) -> None:
        if self._events_loaded:
            return
        # After an error in the middle it is begun again.
        self._kinds.clear()
        self._events.clear()
        view = self._feed.view
        for reader, pieces in view.snapshot.select("events", None):
            for start, rows in stretches(pieces):
                kinds = reader.read(["kind"], [(start, rows)])["kind"].combine_chunks().cast(pa.string())
                self._kinds.update(pc.unique(kinds).to_pylist())
                wanted = pc.is_in(kinds, pa.array(sorted(_KEPT_KINDS)))
                if wanted.true_count:
                    self._keep(event_rows(reader.read(None, [(start, rows)]).filter(wanted)))
        for batch in view.tail.batches if view.tail is not None else ():
            self._keep(batch.events)
        self._events_loaded = True

    def find(self, run_id: str) -> RunPart | None:
        """Return what is known of a run, deleted or not."""
        return self._ask(lambda: self._runs.parts.get(run_id))

    def feed(self) -> Feed:
        """Return a feed of the project that nobody else uses."""
        return Feed(self._fs, self._root, self.name, self._cache)

    def runs(self) -> list[RunPart]:
        """Return the runs that are not deleted, by creation."""
        return self._ask(self._visible)

    def _visible(self) -> list[RunPart]:
        parts = [part for part in self._runs.parts.values() if part.run_id and not part.is_deleted]
        return sorted(parts, key=started)

    def resolve(self, run: str | None, run_id: str | None) -> RunPart | None:
        """Return the run with this id, else the latest with this name; None when there is none."""
        return self._ask(lambda: self._resolve(run, run_id))

    def _resolve(self, run: str | None, run_id: str | None) -> RunPart | None:
        part = self._runs.parts.get(run_id or "")
        if run_id and part is not None:
            return None if part.is_deleted else part
        named = [part for part in self._visible() if run is not None and name_of(part) == run]
        return named[-1] if named else None

    def kinds(self) -> set[str]:
        """Return the kinds of all events."""

        def question() -> set[str]:
            self._load_events()
            return set(self._kinds)

        return self._ask(question)

    def events(self, kind: str) -> list[EventRow]:
        """Return the events of a kind, also those of deleted runs: alerts, artifacts and uploads."""

        def question() -> list[EventRow]:
            self._load_events()
            return list(self._events.get(kind, ()))

        return self._ask(question)

    def remember(self, what: str, key: object, make: Callable[[], _T]) -> _T:
        """Return what `make` makes, made again only when the key has changed."""
        known = self._answers.get(what)
        if known is None or known[0] != key:
            known = self._answers[what] = (key, make())
        return cast("_T", known[1])

    def upload(self, path: str) -> str | None:
        """Return the digest of what was last uploaded under a path, or None."""

        def question() -> str | None:
            self._load_events()
            rows = self._events.get("upload", [])
            for row in rows[self._uploads_known :]:
                fields = values.from_json(row.payload)
                known = self._uploads.get(str(fields["path"]))
                at = (row.time_ns, row.writer_id, row.seq)
                if known is None or at > known[0]:
                    self._uploads[str(fields["path"])] = (at, str(fields["sha256"]))
            self._uploads_known = len(rows)
            found = self._uploads.get(path)
            return None if found is None else found[1]

        return self._ask(question)

    def values_of(self, run_id: str, writer_id: str, seq: int) -> list[EventRow]:
        """Return the typed values of one record of a run that is not deleted."""

        def question() -> list[EventRow]:
            if self._resolve(None, run_id) is None or not 0 < seq < 1 << 63:
                return []
            rows = self._feed.view.rows("events", [run_id], None)
            return event_rows(
                rows.filter(pc.and_(pc.equal(rows["_seq"], seq), pc.equal(rows["_writer"].cast("string"), writer_id)))
            )

        return self._ask(question)

    def logs(self, table: str, run_id: str, max_points: int, *, scalar_only: bool) -> bytes:
        """Return the sampled rows of a run as a JSON list, in the order of time; free when nothing has changed.

        Args:
            table: metrics or system.
            run_id: of the run.
            max_points: about so many rows of numbers.
            scalar_only: of the typed values only histograms.
        """
        return self._ask(lambda: self._logs(table, run_id, max_points, scalar_only=scalar_only))

    def logs_of(
        self, table: str, runs: Sequence[tuple[str | None, str | None]], max_points: int, *, scalar_only: bool
    ) -> list[bytes]:
        """Return the same for several runs, by (name, id), as of one look; an empty list for one that is not there."""

        def question() -> list[bytes]:
            found = [self._resolve(run, run_id) for run, run_id in runs]
            return [
                b"[]" if part is None else self._logs(table, part.run_id, max_points, scalar_only=scalar_only)
                for part in found
            ]

        return self._ask(question)

    def _logs(self, table: str, run_id: str, max_points: int, *, scalar_only: bool) -> bytes:
        key = (run_id, table, max_points, scalar_only)
        generation = self._generation.get(run_id, 0)
        shown = self._shown.get(key)
        if shown is None or shown.generation != generation:
            parts = [self._curves_of(table, run_id, max_points).render()]
            if table == "metrics":
                parts.append(self._typed_of(run_id).render(histograms_only=scalar_only))
            text = b"[" + b",".join(merge_by_time(parts)[1]) + b"]"
            shown = self._shown[key] = _Shown(generation, text)
            self._evict(run_id)
        self._shown.move_to_end(key)
        return shown.text

    def _curves_of(self, table: str, run_id: str, max_points: int) -> Curves:
        key = (run_id, table, max_points)
        known = self._curves.get(key)
        if known is None:
            known = Curves(table, max_points)
            known.add_table(self._feed.view.rows(table, [run_id], None))
            self._curves[key] = known
        self._curves.move_to_end(key)
        return known

    def _typed_of(self, run_id: str) -> TypedRows:
        known = self._typed.get(run_id)
        if known is None:
            known = TypedRows(self.name, self.load_blob)
            known.add(event_rows(self._feed.view.rows("events", [run_id], None)))
            self._typed[run_id] = known
            self._evict(run_id)
        self._typed.move_to_end(run_id)
        return known

    def typed(self, run_id: str, ask: Callable[[TypedRows], _T]) -> _T:
        """Ask the typed values of a run."""
        return self._ask(lambda: ask(self._typed_of(run_id)))

    def system_names(self, run_id: str) -> set[str]:
        """Return the names of a run's system metrics."""
        return self._ask(lambda: self._curves_of("system", run_id, 3000).names)

    def view(self, ask: Callable[[View], _T]) -> _T:
        """Ask the rows themselves."""
        return self._ask(lambda: ask(self._feed.view))

    def load_blob(self, digest: str) -> Any:
        """Return what the JSON in a blob holds, or None."""
        try:
            if self._fs.size(self._blobs.path(digest)) > _LARGEST_SHOWN_BLOB:
                return None
            return values.from_json(self._blobs.get(digest))
        except (EventLogError, OSError, ValueError, RecursionError):
            # Shown as the reference that it is: the blob is missing, damaged, or no JSON.
            return None

    def _weigh(self) -> None:
        kept = sum(item.size_bytes for item in self._curves.values())
        kept += sum(item.size_bytes for item in self._typed.values())
        self.cached_bytes = kept + sum(len(shown.text) for shown in self._shown.values())

    def _evict(self, answered: str) -> None:
        """Drop the runs that were not asked for longest, and never the one that is being answered."""
        self._weigh()
        while self.cached_bytes > self._limit:
            kept = [*(key[0] for key in self._curves), *self._typed]
            oldest = next((run_id for run_id in kept if run_id != answered), None)
            if oldest is None:
                # Only other widths of the same run are left; the newest of them is the answer.
                for key in list(self._shown)[:-1]:
                    del self._shown[key]
                    self._curves.pop(key[:3], None)
                self._weigh()
                return
            self._drop(oldest)

    def _drop(self, run_id: str) -> None:
        self._typed.pop(run_id, None)
        for curve in [key for key in self._curves if key[0] == run_id]:
            del self._curves[curve]
        for shown in [key for key in self._shown if key[0] == run_id]:
            del self._shown[shown]
        self._weigh()

    def drop_cached(self) -> None:
        """Let go of what was decoded and rendered; the next question brings back what it needs."""
        with self._lock:
            self._curves.clear()
            self._typed.clear()
            self._shown.clear()
            self.cached_bytes = 0
