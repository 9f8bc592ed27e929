"""Make records again of the rows that were made of them: the inverse of `eventlog.columns`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, Protocol

import msgspec

from eventlog import schema, values
from eventlog.importing.numbers import NumberRow
from eventlog.importing.origins import Origin
from eventlog.importing.staging import Staged

_KINDS: Final = {schema.kind_name(kind): kind for kind in schema.KINDS}
_UNKNOWN: Final = "unknown:"
_SPECIAL: Final = frozenset({"nan", "inf", "-inf"})
_encode: Final = msgspec.msgpack.encode


class EventRow(Protocol):
    """A row of events without what says whose it is."""

    @property
    def kind(self) -> str:
        """Of the record or value."""

    @property
    def name(self) -> str:
        """Of the value."""

    @property
    def step(self) -> int | None:
        """Of the record."""

    @property
    def time_ns(self) -> int:
        """Of the record."""

    @property
    def payload(self) -> str:
        """As JSON text."""


class Maker:
    """Makes records of rows, with the ids that their runs have in the store. Not thread-safe."""

    def __init__(self, ids: Mapping[str, str], into: Staged) -> None:
        """Take the new ids by the old ones, and what takes the records."""
        self._ids = ids
        self._into = into

    def add(self, run_id: str, numbers: Sequence[tuple[str, NumberRow]], events: Sequence[EventRow]) -> None:
        """Hand over the record that these rows were made of.

        Raises:
            StorageError: it cannot be kept.
        """
        new_id = self._ids[run_id]
        if len(events) == 1 and (events[0].kind in _KINDS or events[0].kind.startswith(_UNKNOWN)):
            self._into.add(*self._record(events[0], run_id, new_id))
            return
        others = {event.name: value_of(event.kind, event.payload) for event in events}
        if not numbers:
            shape = self._into.shape(new_id, None, ())
            self._into.log(shape, events[0].time_ns, events[0].step, b"", others)
            return
        table, row = numbers[0]
        shape = self._into.shape(new_id, row.rank, row.names)
        if table == "system":
            self._into.add(schema.System(row.time_ns, shape.number, row.packed), len(row.packed))
        else:
            self._into.log(shape, row.time_ns, row.step, row.packed, others or None)

    def add_origin(self, time_ns: int, origin: Origin) -> None:
        """Hand over what the source says of where it has a run from.

        Raises:
            StorageError: it cannot be kept.
        """
        renamed = msgspec.structs.replace(origin, run_id=self._ids[origin.run_id])
        self._into.add(renamed.record(time_ns), 256)

    def _record(self, event: EventRow, run_id: str, new_id: str) -> tuple[schema.Record | msgspec.Raw, int]:
        fields = msgspec.json.decode(event.payload)
        if event.kind.startswith(_UNKNOWN):
            payload = unknown_payload(event.kind.removeprefix(_UNKNOWN), fields, run_id, new_id)
            return msgspec.Raw(payload), len(payload)
        kind = _KINDS[event.kind]
        if fields.get("run_id") == run_id:
            fields["run_id"] = new_id
        if kind is schema.RunStart:
            fields["project"] = self._into.project
        payload = _encode([schema.kind_number(kind), *(restore(fields.get(name)) for name in kind.__struct_fields__)])
        return msgspec.Raw(payload), len(payload)


def unknown_payload(label: str, fields: Any, run_id: str, new_id: str) -> bytes:
    """Return the payload that a reader took for an unknown kind: whatever is missing in it is missing there too."""
    restored = restore(fields)
    if label in ("undecodable", "nested_too_deeply") and isinstance(restored, bytes):
        return restored
    if label == "unkeyed" or not isinstance(restored, list):
        return _encode(restored)
    if len(restored) >= 2 and isinstance(restored[0], int) and restored[1] == run_id:
        restored[1] = new_id
    return _encode([int(label) if label.isdecimal() and label.isascii() else label, *restored])


def value_of(kind: str, payload: str) -> Any:
    """Return the value of a name in `others` from its row of events.

    What JSON lacks and what a user wrote to look like it are the same text; the kind of the row tells them apart.
    """
    plain = msgspec.json.decode(payload)
    value = restore(plain)
    return value if values.kind_of(value) == kind else plain


def restore(value: Any) -> Any:
    """Return what JSON text stands for, so that it becomes the same text again; integers may stay tagged."""
    if isinstance(value, list):
        return [restore(item) for item in value]
    if not isinstance(value, dict):
        return value
    special = _restore_special(value.get("_type"), value)
    return {key: restore(item) for key, item in value.items()} if special is None else special


def _restore_special(kind: Any, value: dict[str, Any]) -> Any | None:
    try:
        if kind == "float" and set(value) == {"_type", "value"} and value["value"] in _SPECIAL:
            return float(value["value"])
        if kind == "bytes" and set(value) == {"_type", "hex"}:
            return bytes.fromhex(value["hex"])
        if kind == "ext" and set(value) == {"_type", "code", "hex"}:
            return msgspec.msgpack.Ext(value["code"], bytes.fromhex(value["hex"]))
        if kind == "map" and set(value) == {"_type", "items"}:
            return {_key(key): restore(item) for key, item in value["items"]}
    except (TypeError, ValueError):
        return None
    return None


def _key(key: Any) -> Any:
    restored = restore(key)
    return tuple(restored) if isinstance(restored, list) else restored
