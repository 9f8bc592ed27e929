"""Typed values on their way to the dashboard: ours become Trackio's; Trackio's own are kept as they were sent."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from typing import Any, Final

MEDIA: Final = {"image": "trackio.image", "audio": "trackio.audio", "video": "trackio.video", "file": "trackio.file"}
_SUFFIXES: Final = {"image": ".png", "audio": ".wav", "video": ".mp4", "file": ".bin"}
BLOB_PREFIX: Final = "blob"
INLINE_PREFIX: Final = "inline"
HISTOGRAMS: Final = frozenset({"histogram", "trackio.histogram"})
TRACES: Final = frozenset({"trace", "trackio.trace"})
REPORTS: Final = frozenset({"markdown", "trackio.markdown"})
SHOWN_AS_MEDIA: Final = frozenset(
    {
        *("image", "audio", "video", "table", "html"),
        *("trackio.image", "trackio.audio", "trackio.video", "trackio.table", "trackio.html", "trackio.object3d"),
    }
)


def to_trackio(value: Any, load_blob: Callable[[str], Any], place: str) -> Any:
    """Return a value as the dashboard reads it.

    Args:
        value: plain, as `values.from_json` returns it.
        load_blob: returns what the JSON in a blob holds, or None when it cannot be shown.
        place: the path under which a piece of HTML is fetched again, "" when it cannot be.
    """
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, list):
        return [to_trackio(item, load_blob, "") for item in value]
    if not isinstance(value, dict):
        return value
    kind = value.get("_type") if isinstance(value.get("_type"), str) else None
    if kind == "json" and isinstance(value.get("sha256"), str):
        loaded = load_blob(value["sha256"])
        # One level: a blob that refers to blobs could grow without end.
        return value if loaded is None else to_trackio(loaded, lambda _: None, place)
    if kind in MEDIA and isinstance(value.get("sha256"), str):
        return _media(str(kind), value)
    if kind == "histogram":
        return {"_type": "trackio.histogram", "bins": value.get("edges", []), "values": value.get("counts", [])}
    if kind == "table":
        return _table(value, load_blob)
    if kind == "markdown":
        return {"_type": "trackio.markdown", "_value": value.get("value", "")}
    if kind == "html" and place:
        return {"_type": "trackio.html", "file_path": place, "caption": ""}
    if kind == "trace":
        return {**{k: to_trackio(v, load_blob, "") for k, v in value.items()}, "_type": "trackio.trace"}
    return {key: to_trackio(item, load_blob, "") for key, item in value.items()}


def _media(kind: str, value: dict[str, Any]) -> dict[str, Any]:
    name = str(value.get("name") or "")
    suffix = os.path.splitext(name)[1].lower()
    suffix = suffix if suffix[1:].isalnum() and len(suffix) <= 8 else _SUFFIXES[kind]
    shown = {"_type": MEDIA[kind], "file_path": f"{BLOB_PREFIX}/{value['sha256']}{suffix}"}
    shown["caption"] = str(value.get("caption") or "")
    return shown


def _table(value: dict[str, Any], load_blob: Callable[[str], Any]) -> dict[str, Any]:
    columns, rows = value.get("columns"), value.get("data")
    if not isinstance(columns, list) or not isinstance(rows, list):
        return value
    shown = [
        {str(column): to_trackio(cell, load_blob, "") for column, cell in zip(columns, row, strict=False)}
        for row in rows
        if isinstance(row, list)
    ]
    return {"_type": "trackio.table", "_value": shown}
