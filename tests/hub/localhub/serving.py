"""Answers with the bytes of a file: whole, in ranges, or only what HEAD tells."""

from __future__ import annotations

import re
from collections.abc import Callable
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import Response

from localhub.accounts import base_url


def asked_range(request: Request, size: int) -> tuple[int, int] | None:
    """Return the part that is asked for, whose start may be beyond the size, or None for the whole."""
    match = re.fullmatch(r"bytes=(\d*)-(\d*)", request.headers.get("range", ""))
    if match is None or not any(match.groups()):
        return None
    first, last = match.groups()
    if not first:
        return max(size - int(last), 0), size
    return int(first), min(int(last) + 1, size) if last else size


def file_answer(request: Request, size: int, read: Callable[[int, int], bytes], headers: dict[str, str]) -> Response:
    """Answer a GET or HEAD on a file."""
    headers = {"Accept-Ranges": "bytes", "Content-Type": "application/octet-stream", **headers}
    if request.method == "HEAD":
        return Response(headers={**headers, "Content-Length": str(size)})
    part = asked_range(request, size)
    if part is None:
        return Response(read(0, size), headers=headers)
    start, end = part
    if start >= size:
        return Response(status_code=416, headers={**headers, "Content-Range": f"bytes */{size}"})
    return Response(read(start, end), 206, {**headers, "Content-Range": f"bytes {start}-{end - 1}/{size}"})


def page(request: Request, entries: list[dict], key: str, size: int) -> tuple[list[dict], dict[str, str]]:
    """Cut one page out of entries that are in the order of a key, and return it with the header that names the next."""
    after = request.query_params.get("cursor")
    left = [entry for entry in entries if after is None or entry[key] > after]
    taken = left[:size]
    if len(taken) == len(left):
        return taken, {}
    query = {**request.query_params, "cursor": taken[-1][key]}
    return taken, {"Link": f'<{base_url(request)}{request.url.path}?{urlencode(query)}>; rel="next"'}
