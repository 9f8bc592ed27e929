"""Trackio's wire: what a call looks like, what its entries hold, and how values travel. Pure."""

from __future__ import annotations

import hashlib
import json
import math
from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypeVar

import msgspec

from compactor.serve.errors import RequestError

API_VERSION: Final = 1
ID_BYTES: Final = 12
NO_ID: Final = bytes(ID_BYTES)
_MAX_NAME_CHARS: Final = 4096
_MAX_DEPTH: Final = 150
_SPECIAL: Final = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
_CLIENT_ONLY: Final = frozenset({"allow_val_change"})
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_T = TypeVar("_T", bound=msgspec.Struct)


class LogEntry(msgspec.Struct):
    """One `log()` of a client."""

    project: str
    run: str
    metrics: dict[str, Any]
    run_id: str | None = None
    step: int | float | None = None
    config: dict[str, Any] | None = None
    log_id: str | None = None
    timestamp: str | None = None


class SystemEntry(msgspec.Struct):
    """One sample of system metrics."""

    project: str
    run: str
    metrics: dict[str, Any]
    run_id: str | None = None
    timestamp: str | None = None
    log_id: str | None = None


class AlertEntry(msgspec.Struct):
    """One alert."""

    project: str
    run: str
    title: str
    run_id: str | None = None
    text: str | None = None
    level: str = "warn"
    step: int | float | None = None
    timestamp: str | None = None
    alert_id: str | None = None


class Staged(msgspec.Struct):
    """What the client calls a file that it has uploaded."""

    path: str
    orig_name: str | None = None


class UploadEntry(msgspec.Struct):
    """An uploaded file, and what it is."""

    project: str
    uploaded_file: Staged
    run: str | None = None
    run_id: str | None = None
    step: int | float | None = None
    relative_path: str | None = None


class BlobEntry(msgspec.Struct):
    """An uploaded file of an artifact."""

    digest: str
    uploaded_file: Staged


def parse_call(body: bytes) -> tuple[list[Any], dict[str, Any]]:
    """Return (positional, by name) of a call: `{"args", "kwargs"}`, `{"data": [...]}`, a list, or the names flat.

    Raises:
        RequestError: it is no JSON.
    """
    if not body.strip():
        return [], {}
    call = parse_json(body)
    if isinstance(call, list):
        return call, {}
    if not isinstance(call, dict):
        return [call], {}
    if "args" in call or "kwargs" in call:
        args, kwargs = call.get("args") or [], call.get("kwargs") or {}
        if not isinstance(args, list) or not isinstance(kwargs, dict):
            raise RequestError("args must be a list and kwargs an object")
        return args, kwargs
    if isinstance(call.get("data"), list):
        return call["data"], {}
    return [], call


def parse_json(body: bytes) -> Any:
    """Return what a body holds; the tokens NaN and Infinity, which Python writes, are understood.

    Raises:
        RequestError: it is no JSON.
    """
    try:
        return msgspec.json.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        try:
            return json.loads(body)
        except (ValueError, RecursionError) as error:
            raise RequestError(f"the body is no JSON: {error}") from None


def bind(form: type[_T], args: list[Any], kwargs: dict[str, Any]) -> _T:
    """Return the arguments of a call, checked; names that the form lacks are left out.

    Raises:
        RequestError: one is missing or of a wrong type.
    """
    fields = form.__struct_fields__
    given = {**dict(zip(fields, args, strict=False)), **{name: kwargs[name] for name in fields if name in kwargs}}
    try:
        return msgspec.convert(given, form)
    except msgspec.ValidationError as error:
        raise RequestError(str(error)) from None
    except UnicodeEncodeError:
        raise RequestError("an argument is no valid Unicode, or of a wrong type") from None
    except RecursionError:
        raise RequestError("nested too deeply") from None


def checked_name(text: str, what: str) -> str:
    """Return a name that UTF-8 can hold and that is not endless.

    Raises:
        RequestError: it is not.
    """
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise RequestError(f"{what} is no valid Unicode") from None
    if not text or len(text) > _MAX_NAME_CHARS:
        raise RequestError(f"{what} must have 1 to {_MAX_NAME_CHARS} characters")
    return text


def restore(value: Any, depth: int = 0) -> Any:
    """Return a value with the floats that JSON cannot hold, which travel as "NaN", "Infinity" and "-Infinity".

    What is nested more deeply than any record can hold stays as it is.
    """
    if isinstance(value, str):
        return _SPECIAL.get(value, value)
    if isinstance(value, dict) and depth < _MAX_DEPTH:
        return {key: restore(item, depth + 1) for key, item in value.items()}
    if isinstance(value, list) and depth < _MAX_DEPTH:
        return [restore(item, depth + 1) for item in value]
    return value


def restore_config(config: dict[str, Any]) -> dict[str, Any]:
    """Return a config without what the client only says by mistake."""
    return {key: restore(value) for key, value in config.items() if key not in _CLIENT_ONLY}


def id_key(text: str | None) -> bytes:
    """Return the 12 bytes that stand for a client's id; twelve zeros when there is none."""
    if not text:
        return NO_ID
    return hashlib.sha256(text.encode("utf-8", "backslashreplace")).digest()[:ID_BYTES]


def time_ns(text: str | None) -> int | None:
    """Return the nanoseconds of an ISO time, or None when it is none that a record can hold; without zone it is UTC."""
    if not text:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    nanoseconds = (moment - _EPOCH) // timedelta(microseconds=1) * 1000
    return nanoseconds if _fits(nanoseconds) else None


def iso(nanoseconds: int | None) -> str | None:
    """Return an ISO time in UTC, with microseconds, as Trackio writes it."""
    if nanoseconds is None:
        return None
    return datetime.fromtimestamp(nanoseconds // 1000 / 1e6, UTC).isoformat(timespec="microseconds")


def whole(step: float | None) -> int | None:
    """Return a step as a 64-bit integer; None when it is no such number."""
    if step is None or isinstance(step, bool) or (isinstance(step, float) and not step.is_integer()):
        return None
    number = int(step)
    return number if _fits(number) else None


def _fits(number: int) -> bool:
    return -(1 << 63) <= number < 1 << 63
