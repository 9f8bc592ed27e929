"""The typed values of one run as rows of JSON, in the order of time: media, tables, texts, traces, histograms."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, NamedTuple

import msgspec
import numpy as np
import orjson
from numpy.typing import NDArray

from compactor.serve.sampler import iso_times
from compactor.serve.typed import HISTOGRAMS, INLINE_PREFIX, REPORTS, SHOWN_AS_MEDIA, TRACES, to_trackio
from eventlog import schema, values
from eventlog.columns import EventRow

_RECORD_KINDS: Final = frozenset(schema.kind_name(kind) for kind in schema.KINDS)
_MOST_HISTOGRAMS: Final = 512
_ALL_SHOWN: Final = SHOWN_AS_MEDIA | REPORTS | TRACES
_MAX_DEPTH: Final = 200
_OPTIONS: Final = orjson.OPT_NON_STR_KEYS | orjson.OPT_SERIALIZE_NUMPY


class _Row(NamedTuple):
    """The typed values of one `log()`.

    Attributes:
        time_ns: when.
        kinds: of the values.
        text: all of them, as a JSON object.
        histograms: those alone, b"" when there are none.
    """

    time_ns: int
    kinds: frozenset[str]
    text: bytes
    histograms: bytes


def is_value(row: EventRow) -> bool:
    """Say whether a row of events is a value that was logged, and not a record of another kind."""
    return row.kind not in _RECORD_KINDS and not row.kind.startswith("unknown:")


class TypedRows:
    """The typed values of a run. Not thread-safe: its project holds a lock."""

    def __init__(self, project: str, load_blob: Callable[[str], Any]) -> None:
        """Start without rows; `load_blob` returns what the JSON in a blob holds, or None."""
        self._project = project
        self._load_blob = load_blob
        self._rows: list[_Row] = []
        self._bytes = 0

    @property
    def size_bytes(self) -> int:
        """About how much memory it takes."""
        return self._bytes

    def add(self, events: Iterable[EventRow]) -> None:
        """Add rows of events; those of one record come one after the other."""
        together: dict[tuple[str, int], list[EventRow]] = {}
        for event in events:
            if is_value(event):
                together.setdefault((event.writer_id, event.seq), []).append(event)
        ordered = sorted(together.values(), key=lambda group: group[0].time_ns)
        stamps = iso_times(np.array([group[0].time_ns for group in ordered], np.int64))
        for group, stamp in zip(ordered, stamps, strict=True):
            row = self._row(group, stamp)
            self._rows.append(row)
            self._bytes += len(row.text) + len(row.histograms) + 200

    def _row(self, group: Sequence[EventRow], stamp: str) -> _Row:
        first = group[0]
        shown: dict[str, Any] = {}
        histograms: dict[str, Any] = {}
        for event in group:
            place = inline_path(self._project, event) if event.kind == "html" else ""
            shown[event.name] = to_trackio(values.from_json(event.payload), self._load_blob, place)
            if event.kind in HISTOGRAMS:
                histograms[event.name] = shown[event.name]
        tail = {"timestamp": stamp, "step": first.step}
        kinds = frozenset(event.kind for event in group)
        text = dump({**shown, **tail})
        return _Row(first.time_ns, kinds, text, dump({**histograms, **tail}) if histograms else b"")

    def render(self, *, histograms_only: bool) -> tuple[NDArray[np.int64], list[bytes]]:
        """Return the times and the JSON objects; of many histograms, more than a chart can show, each n-th."""
        if not histograms_only:
            return np.array([row.time_ns for row in self._rows], np.int64), [row.text for row in self._rows]
        rows = _thinned([row for row in self._rows if row.histograms])
        return np.array([row.time_ns for row in rows], np.int64), [row.histograms for row in rows]

    def of_kinds(self, kinds: frozenset[str]) -> list[dict[str, Any]]:
        """Return the rows that have a value of one of these kinds, decoded."""
        return [orjson.loads(row.text) for row in self._rows if not kinds.isdisjoint(row.kinds)]

    def decoded(self) -> list[dict[str, Any]]:
        """Return the rows: all that a tab lists one by one, and of many others, such as histograms, each n-th."""
        others = [row for row in self._rows if _ALL_SHOWN.isdisjoint(row.kinds)]
        gone = set(map(id, others)) - set(map(id, _thinned(others)))
        return [orjson.loads(row.text) for row in self._rows if id(row) not in gone]

    def named(self, name: str) -> list[dict[str, Any]]:
        """Return the values of one name, each with its time and step."""
        wanted = ("timestamp", "step", name)
        decoded = (orjson.loads(row.text) for row in self._rows if dump(name) in row.text)
        return [{key: row[key] for key in wanted} for row in decoded if name in row]

    def names(self) -> set[str]:
        """Return the names of all values."""
        return {name for row in self._rows for name in orjson.loads(row.text)} - {"timestamp", "step"}


def _thinned(rows: list[_Row]) -> list[_Row]:
    """Return as many as a chart can show: each n-th, and the last."""
    stride = 1
    while len(rows) // stride > _MOST_HISTOGRAMS:
        stride *= 2
    return [*rows[:-1:stride], rows[-1]] if rows else []


def inline_path(project: str, event: EventRow) -> str:
    """Return the path under which a value in a record is fetched by itself."""
    where = dump([project, event.run_id, event.writer_id, event.seq, event.name])
    return f"{INLINE_PREFIX}/{base64.urlsafe_b64encode(where).decode().rstrip('=')}.html"


def parse_inline_path(path: str) -> tuple[str, str, str, int, str] | None:
    """Return (project, run_id, writer_id, seq, name) of such a path, or None."""
    token = path.removeprefix(f"{INLINE_PREFIX}/").removesuffix(".html")
    try:
        where = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))
        return msgspec.json.decode(where, type=tuple[str, str, str, int, str])
    except (ValueError, msgspec.MsgspecError):
        return None


def dump(value: Any) -> bytes:
    """Return JSON; integers beyond 64 bits become text, and so does what is nested too deeply."""
    try:
        return orjson.dumps(value, default=str, option=_OPTIONS)
    except orjson.JSONEncodeError:
        return orjson.dumps(_encodable(value, 0), default=str, option=_OPTIONS)


def _encodable(value: Any, depth: int) -> Any:
    if isinstance(value, str):
        return values.printable(value)
    if isinstance(value, int) and not -(1 << 63) <= value < 1 << 64:
        return str(value)
    if depth > _MAX_DEPTH:
        return "..."
    if isinstance(value, dict):
        return {values.printable(str(key)): _encodable(item, depth + 1) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_encodable(item, depth + 1) for item in value]
    return value
