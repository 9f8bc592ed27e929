"""Make records of the rows of a Trackio export."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from eventlog import nesting, schema, values
from eventlog.blobs import BlobStore
from eventlog.config import WriterConfig
from eventlog.importing.plan import NO_RUN
from eventlog.importing.sources import Place
from eventlog.importing.staging import Staged
from eventlog.importing.trackio_files import Files
from eventlog.importing.trackio_values import media_of, step_of, time_of, value_of

_OF_ROWS: Final = frozenset({"id", "run_id", "run_name", "timestamp", "log_id", "space_id"})
FACTS: Final = {
    "metrics": _OF_ROWS | {"step"},
    "system": _OF_ROWS,
    "configs": frozenset({"id", "run_id", "run_name", "created_at"}),
}
"""The columns of each table that are not what was logged."""
_INLINE_BYTES: Final = WriterConfig().inline_bytes


class RunFacts(msgspec.Struct):
    """What is known of a run before its rows are read."""

    name: str
    created_ns: int | None = None
    rows: dict[str, int] = {}
    config: dict[str, Any] = {}


def run_of(row: Mapping[str, Any]) -> str | None:
    """Return the id of a row's run; older exports know only its name."""
    for key in ("run_id", "run_name"):
        if isinstance(row.get(key), str) and row[key]:
            return str(row[key])
    return None


def logged_in(table: str, row: Mapping[str, Any]) -> dict[str, Any]:
    """Return what was logged in a row of a table; null is what another row has and this one has not."""
    return {key: value_of(cell) for key, cell in row.items() if key not in FACTS[table] and cell is not None}


class RecordMaker:
    """Makes records of rows. Not thread-safe."""

    def __init__(
        self,
        place: Place,
        files: Files,
        ids: Mapping[str, str],
        blobs: BlobStore,
        into: Staged,
        left_out: Counter[str],
    ) -> None:
        """Take where files are, the ids that runs have here, what takes records, and what counts what is not kept."""
        self._left_out = left_out
        self._there = place.listing()
        self._place = place
        self._files = files
        self._ids = ids
        self._blobs = blobs
        self._into = into
        self._latest_ns: dict[str, int] = {}
        self._uploaded: set[str] = set()

    def start(self, run_id: str, facts: RunFacts) -> None:
        """Begin a run with its config."""
        config = self._plain(facts.config)
        group, user = config.get("_Group"), config.get("_Username")
        created_ns = facts.created_ns or 0
        self._latest_ns[run_id] = created_ns
        record = schema.RunStart(
            created_ns,
            self._ids[run_id],
            self._into.project,
            values.printable(facts.name),
            group if isinstance(group, str) else None,
            [],
            config,
            user=user if isinstance(user, str) else "",
        )
        self._into.add(record, len(schema.encode(record)))

    def _plain(self, given: dict[str, Any]) -> dict[str, Any]:
        kept, _, problems = values.plain_mapping(given, self._blobs)
        self._left_out["values of configs"] += len(problems)
        return kept

    def _moment(self, row: Mapping[str, Any]) -> tuple[str, int]:
        """Return the run of a row and its time; one whose time cannot be read has that of the row before it."""
        run_id = run_of(row) or ""
        moment = time_of(row.get("timestamp"))
        if moment is None:
            self._left_out["times of rows, which have the time of the row before them"] += 1
            return run_id, self._latest_ns[run_id]
        self._latest_ns[run_id] = moment
        return run_id, moment

    def log(self, row: dict[str, Any]) -> None:
        """Take a row of metrics."""
        run_id, moment = self._moment(row)
        logged = logged_in("metrics", row)
        step = step_of(row.get("step"))
        if step is None and row.get("step") is not None:
            self._left_out["steps that are no 64-bit integers"] += 1
        self._log(run_id, moment, step, logged)

    def _log(self, run_id: str, moment: int, step: int | None, logged: dict[str, Any]) -> None:
        for value in media_of(logged):
            self._media(value, run_id, moment, step)
        found = values.sort_out(logged, self._blobs, _INLINE_BYTES)
        self._left_out["values of metrics"] += len(found.problems)
        shape = self._into.shape(self._ids[run_id], None, tuple(found.numbers))
        self._into.log(shape, moment, step, shape.pack(*found.numbers.values()), found.others or None)

    def system(self, row: dict[str, Any]) -> None:
        """Take a row of system metrics."""
        run_id, moment = self._moment(row)
        logged = logged_in("system", row)
        found = values.sort_out(logged, self._blobs, _INLINE_BYTES)
        self._left_out["values of system metrics that are no numbers"] += len(found.problems) + len(found.others)
        shape = self._into.shape(self._ids[run_id], None, tuple(found.numbers))
        self._into.add(schema.System(moment, shape.number, shape.pack(*found.numbers.values())), 8 * len(found.numbers))

    def traces(self, rows: list[dict[str, Any]]) -> None:
        """Take the traces that were logged under one name in one call."""
        first = rows[0]
        if run_of(first) not in self._ids:
            return
        run_id, moment = self._moment(first)
        made = [
            {"_type": "trackio.trace", **{key: _parsed(row.get(key)) for key in ("messages", "metadata", "spans")}}
            for row in sorted(rows, key=lambda row: row.get("trace_index") or 0)
        ]
        single = len(rows) == 1 and first.get("trace_index") is None
        self._log(run_id, moment, step_of(first.get("step")), {str(first.get("key")): made[0] if single else made})

    def _media(self, value: dict[str, Any], run_id: str, moment: int, step: int | None) -> None:
        """Keep the file that a value names, under the name that it then has for the project here."""
        # Values begin with the project's name, and so does the directory, unless it is that of one project.
        rest = value["file_path"].partition("/")[2]
        local = f"{self._files.media}/{rest}"
        if local not in self._there:
            self._left_out["media that values name and the source has not"] += 1
            return
        value["file_path"] = f"{self._into.project}/{rest}"
        self._upload(local, value["file_path"], moment, self._ids[run_id], step)

    def own_file(self, name: str) -> None:
        """Keep a file of the whole project."""
        rest = name.removeprefix(f"{self._files.media}/")
        moment = max(self._latest_ns.values(), default=0)
        self._upload(name, f"{self._into.project}/{rest}", moment, NO_RUN, None)

    def _upload(self, local: str, path: str, moment: int, run_id: str, step: int | None) -> None:
        if path in self._uploaded:
            return
        self._uploaded.add(path)
        with self._place.fetch(local) as fetched, open(fetched, "rb") as file:
            blob = self._blobs.put_file(file)
        self._into.add(schema.Upload(moment, run_id, path, blob.digest, blob.size_bytes, step), 128)


def _parsed(cell: Any) -> Any:
    if isinstance(cell, str | bytes):
        try:
            value = msgspec.json.decode(cell)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return cell
        return cell if nesting.is_deep(value) else value
    return cell
