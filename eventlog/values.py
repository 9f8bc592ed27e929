"""From what a user logs to what a record holds: numbers by name, everything else as plain msgpack values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec

from eventlog import schema

if TYPE_CHECKING:
    from eventlog.blobs import BlobStore

EXACT_INT: Final = 1 << 53
_MAX_DEPTH: Final = 64
_INT64_MIN: Final = -(1 << 63)
_UINT64_MAX: Final = (1 << 64) - 1
# What an object of the user raises when it is asked for its value may be anything, and must not stop training.
CONVERSION_ERRORS: Final = (Exception,)
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
    """Sort the values of a log call; nested dicts flatten with `/`. Never raises for a bad value.

    Args:
        data: what the user passed.
        blobs: where media and large values go.
        inline_bytes: an encoded value larger than this becomes a blob.
    """
    result = Sorted({}, {}, {})
    _sort_mapping(data, "", result, blobs, inline_bytes, 0)
    return result


def _sort_mapping(
    data: Mapping[Any, Any], prefix: str, into: Sorted, blobs: BlobStore, inline_bytes: int, depth: int
) -> None:
    for key, value in data.items():
        name = prefix + (key if isinstance(key, str) else str(key))
        if isinstance(value, Mapping) and value and "_type" not in value and depth < _MAX_DEPTH:
            _sort_mapping(value, name + "/", into, blobs, inline_bytes, depth + 1)
            continue
        if name in into.numbers or name in into.others:
            into.problems[name] = "the same name occurs twice in one call"
            continue
        try:
            name.encode("utf-8")
            _sort_value(name, value, into, blobs, inline_bytes)
        except CONVERSION_ERRORS as error:
            into.problems[name.encode("utf-8", "backslashreplace").decode()] = f"{type(error).__name__}: {error}"


def _sort_value(name: str, value: Any, into: Sorted, blobs: BlobStore, inline_bytes: int) -> None:
    value = unwrap_scalar(value)
    if type(value) is float:
        into.numbers[name] = value
    elif isinstance(value, int) and not isinstance(value, bool):
        if -EXACT_INT <= value <= EXACT_INT:
            into.numbers[name] = float(value)
            return
        into.others[name] = _plain_int(int(value))
        try:
            into.numbers[name] = float(value)
        except OverflowError:
            return
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
    return item() if count == 1 and getattr(value, "ndim", 0) == 0 else value


def to_plain(value: Any, blobs: BlobStore, depth: int = 0) -> Any:
    """Return a value as msgpack can hold it; media put their bytes among the blobs.

    Raises:
        TypeError: there is no faithful form.
        ValueError: nested too deeply.
        OSError: a blob could not be written.
    """
    if depth > _MAX_DEPTH:
        raise ValueError(f"nested more than {_MAX_DEPTH} deep")
    value = unwrap_scalar(value)
    if value is None or isinstance(value, bool | float):
        return value
    if isinstance(value, str):
        return _text(str(value))
    if isinstance(value, int):
        return _plain_int(int(value))
    if isinstance(value, Mapping):
        return {_text(str(k)): to_plain(v, blobs, depth + 1) for k, v in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [to_plain(v, blobs, depth + 1) for v in value]
    if hasattr(value, "to_plain"):
        return to_plain(value.to_plain(blobs), blobs, depth + 1)
    if isinstance(value, bytes | bytearray | memoryview):
        ref = blobs.put(bytes(value))
        return {"_type": "file", "sha256": ref.digest, "size_bytes": ref.size_bytes, "name": ""}
    if hasattr(value, "tolist"):
        return to_plain(value.tolist(), blobs, depth + 1)
    return to_plain(msgspec.to_builtins(value), blobs, depth + 1)


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
        return {k if isinstance(k, str) else str(k): _tag_floats(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_tag_floats(v) for v in value]
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


def plain_mapping(changes: Mapping[str, Any], blobs: BlobStore) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the plain values of a config or summary, and by name why others could not be kept."""
    kept: dict[str, Any] = {}
    problems: dict[str, str] = {}
    for key, value in changes.items():
        name = str(key)
        try:
            name.encode("utf-8")
            kept[name] = to_plain(value, blobs)
        except CONVERSION_ERRORS as error:
            problems[name.encode("utf-8", "backslashreplace").decode()] = f"{type(error).__name__}: {error}"
    return kept, problems
