"""From what a user logs to what a record holds: numbers by name, everything else as plain msgpack values."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec

from eventlog import schema
from eventlog.errors import FOREIGN_ERRORS, describe

if TYPE_CHECKING:
    from eventlog.blobs import BlobStore

EXACT_INT: Final = 1 << 53
_MAX_DEPTH: Final = 64
MAX_ITEMS: Final = 1 << 24
MAX_NAMES: Final = 1 << 20
_INT64_MIN: Final = -(1 << 63)
_UINT64_MAX: Final = (1 << 64) - 1
_encode: Final = msgspec.msgpack.Encoder().encode
_to_json: Final = msgspec.json.encode


class Sorted(NamedTuple):
    """A log call sorted out.

    Attributes:
        numbers: by name, float64.
        others: by name, plain values.
        problems: by name, why a value could not be kept.
    """

    numbers: dict[str, float]
    others: dict[str, Any]
    problems: dict[str, str]


def sort_out(data: Mapping[Any, Any], blobs: BlobStore, inline_bytes: int) -> Sorted:
    """Sort the values of a log call; nested dicts flatten with `/`. Never raises for a bad name or value.

    Args:
        data: what the user passed, as a dict.
        blobs: where media and large values go.
        inline_bytes: an encoded value larger than this becomes a blob.
    """
    result = Sorted({}, {}, {})
    _sort_mapping(data, "", result, blobs, inline_bytes, ())
    return result


def _sort_mapping(
    data: Mapping[Any, Any], prefix: str, into: Sorted, blobs: BlobStore, inline_bytes: int, above: tuple[int, ...]
) -> None:
    """Sort one mapping; `above` are the ids of those that it is in."""
    for key, value in data.items():
        name = f"{prefix}(a key of type {type(key).__name__})"
        try:
            name = prefix + str(key)
            name.encode("utf-8")
            if len(above) >= _MAX_DEPTH or not _flattens(value):
                _sort_value(name, value, into, blobs, inline_bytes)
                continue
            if id(value) in above:
                raise ValueError("it contains itself")
            _sort_mapping(value, name + "/", into, blobs, inline_bytes, (*above, id(value)))
        except FOREIGN_ERRORS as error:
            into.problems[printable(name)] = describe(error)
        if above and sum(map(len, into)) > MAX_NAMES:
            raise ValueError(f"more than {MAX_NAMES} names in one call")


def _flattens(value: Any) -> bool:
    return isinstance(value, Mapping) and bool(value) and "_type" not in value


def _sort_value(name: str, value: Any, into: Sorted, blobs: BlobStore, inline_bytes: int) -> None:
    if name in into.numbers or name in into.others:
        raise ValueError("the same name occurs twice in one call")
    value = unwrap_scalar(value)
    if type(value) is float:
        into.numbers[name] = value
    elif isinstance(value, int) and not isinstance(value, bool):
        exact = int(value)
        if not -EXACT_INT <= exact <= EXACT_INT:
            into.others[name] = _plain_int(exact)
        with contextlib.suppress(OverflowError):
            into.numbers[name] = float(exact)
    elif isinstance(value, float):
        into.numbers[name] = float(value)
    else:
        into.others[name] = fit(to_plain(value, blobs), blobs, inline_bytes)


def unwrap_scalar(value: Any) -> Any:
    """Return the Python number inside a numpy, torch or jax scalar, or the value as it is."""
    if isinstance(value, bool | int | float | str):
        return value
    item = getattr(value, "item", None)
    if item is None or not callable(item):
        return value
    count = getattr(value, "size", None)
    if callable(count):
        count = value.numel() if hasattr(value, "numel") else None
    if count != 1 or getattr(value, "ndim", 0) != 0:
        return value
    inside = item()
    # The item of a numpy.longdouble is the same again: Python has no such number.
    return float(inside) if getattr(getattr(inside, "dtype", None), "kind", "") == "f" else inside


def to_plain(value: Any, blobs: BlobStore) -> Any:
    """Return a value as msgpack can hold it; media put their bytes among the blobs.

    Raises:
        TypeError: there is no faithful form.
        ValueError: nested more than 64 deep, as what contains itself is, or more than 2**24 items in all.
        OSError: a blob could not be written.
        Exception: whatever an object raises when it is asked for its value.
    """
    return _Plainer(blobs).plain(value, 0)


class _Plainer:
    """Makes one value plain, and counts its items: what holds the same list twice, 60 deep, is never complete."""

    def __init__(self, blobs: BlobStore) -> None:
        self._blobs = blobs
        self._left = MAX_ITEMS

    def plain(self, value: Any, depth: int) -> Any:
        if depth > _MAX_DEPTH:
            raise ValueError(f"nested more than {_MAX_DEPTH} deep")
        self._left -= 1
        if self._left < 0:
            raise ValueError(f"it has more than {MAX_ITEMS} items")
        value = unwrap_scalar(value)
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, float):
            return float(value)
        if isinstance(value, str):
            return _text(str(value))
        if isinstance(value, int):
            return _plain_int(int(value))
        if isinstance(value, Mapping):
            return {_text(str(k)): self.plain(v, depth + 1) for k, v in value.items()}
        if isinstance(value, list | tuple | set | frozenset):
            return [self.plain(v, depth + 1) for v in value]
        if hasattr(value, "to_plain"):
            return self.plain(value.to_plain(self._blobs), depth + 1)
        if isinstance(value, bytes | bytearray | memoryview):
            ref = self._blobs.put(bytes(value))
            return {"_type": "file", "sha256": ref.digest, "size_bytes": ref.size_bytes, "name": ""}
        if hasattr(value, "tolist"):
            return self.plain(value.tolist(), depth + 1)
        return self.plain(msgspec.to_builtins(value), depth + 1)


def _text(text: str) -> str:
    text.encode("utf-8")  # raises ValueError for a lone surrogate, which no file can hold
    return text


def printable(text: str) -> str:
    """Return a text that UTF-8 can hold: lone surrogates, as in arguments that are no UTF-8, become escapes."""
    return text.encode("utf-8", "backslashreplace").decode()


def fit(plain: Any, blobs: BlobStore, inline_bytes: int) -> Any:
    """Return a plain value, or a reference to the blob that now holds it as JSON when it is large."""
    if isinstance(plain, int | float | None) or len(_encode(plain)) <= inline_bytes:
        return plain
    text = to_json(plain)
    ref = blobs.put(text)
    kind = plain.get("_type") if isinstance(plain, dict) else None
    return {"_type": "json", "of": kind or type(plain).__name__, "sha256": ref.digest, "size_bytes": ref.size_bytes}


def _plain_int(value: int) -> Any:
    return value if _INT64_MIN <= value <= _UINT64_MAX else {"_type": "int", "value": str(value)}


def to_json(plain: Any) -> bytes:
    """Return plain values as JSON text, without loss: what JSON lacks becomes a dict with `_type`.

    NaN and infinities are `{"_type":"float","value":"nan"}` (inf, -inf), ints beyond 64 bits
    `{"_type":"int","value":"..."}`, bytes `{"_type":"bytes","hex":"..."}`. Dicts keep their order.
    """
    return _to_json(_tag_floats(plain))


def _tag_floats(value: Any) -> Any:
    if isinstance(value, float):
        return value if value - value == 0.0 else {"_type": "float", "value": repr(value)}
    if isinstance(value, dict):
        if all(isinstance(k, str) for k in value):
            return {k: _tag_floats(v) for k, v in value.items()}
        return {"_type": "map", "items": [[_tag_floats(k), _tag_floats(v)] for k, v in value.items()]}
    if isinstance(value, list | tuple):
        return [_tag_floats(v) for v in value]
    if isinstance(value, msgspec.msgpack.Ext):
        return {"_type": "ext", "code": value.code, "hex": bytes(value.data).hex()}
    if isinstance(value, bytes):
        return {"_type": "bytes", "hex": value.hex()}
    if isinstance(value, int) and not isinstance(value, bool):
        return _plain_int(value)
    if value is None or isinstance(value, bool | str):
        return value
    return {"_type": "unknown", "text": str(value)}


def from_json(text: str | bytes) -> Any:
    """Return what `to_json` was given, with floats and big ints as such."""
    return _untag(msgspec.json.decode(text))


def _untag(value: Any) -> Any:
    if isinstance(value, dict):
        if len(value) == 2 and value.get("_type") in ("float", "int") and isinstance(value.get("value"), str):
            try:
                return float(value["value"]) if value["_type"] == "float" else int(value["value"])
            except ValueError:
                return value  # a user's own dict
        return {k: _untag(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_untag(v) for v in value]
    return value


_SIMPLE_KINDS: Final[dict[type, str]] = {bool: "bool", int: "int", float: "float", str: "text", type(None): "null"}


_RECORD_KINDS: Final = frozenset(schema.kind_name(kind) for kind in schema.KINDS)


def kind_of(plain: Any) -> str:
    """Return the kind that a value's row in `events` has: text, bool, int, null, json, or its `_type`.

    A list of typed values, as of traces, has their `_type` when they share one.
    A `_type` that is the name of a record's kind, or of an unknown one, is json: a value cannot pass for a record.
    """
    if isinstance(plain, dict) and isinstance(plain.get("_type"), str):
        kind = str(plain["_type"])
        return "json" if kind in _RECORD_KINDS or kind.startswith("unknown:") else kind
    if isinstance(plain, list) and plain and all(isinstance(item, dict) and "_type" in item for item in plain):
        kinds = {kind_of(item) for item in plain}
        return kinds.pop() if len(kinds) == 1 else "json"
    return _SIMPLE_KINDS.get(type(plain), "json")


class PlainMapping(NamedTuple):
    """A config or summary made plain.

    Attributes:
        kept: by name, plain values.
        given: by name, what the user gave for those.
        problems: by name, why a value could not be kept.
    """

    kept: dict[str, Any]
    given: dict[str, Any]
    problems: dict[str, str]


def plain_mapping(changes: Mapping[Any, Any], blobs: BlobStore) -> PlainMapping:
    """Return the plain values of a config or summary. Never raises for a bad name or value."""
    plain = PlainMapping({}, {}, {})
    for key, value in changes.items():
        name = f"(a key of type {type(key).__name__})"
        try:
            name = str(key)
            name.encode("utf-8")
            plain.kept[name] = to_plain(value, blobs)
            plain.given[name] = value
        except FOREIGN_ERRORS as error:
            plain.problems[printable(name)] = describe(error)
    return plain
