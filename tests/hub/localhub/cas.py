"""The xet store's routes: uploads of xorbs and shards, what a file is made of, and ranges of xorbs.

Routes that are not here answer 404, and then hf_xet falls back: from `/v2/shards` and `/v2/reconstructions` to `/v1`,
from `/v1/xorb-grants` to the direct upload. So a clean upload shows two requests that failed, which are no faults.
"""

from __future__ import annotations

import re
import time

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from localhub.accounts import HubError, base_url, state_of
from localhub.serving import asked_range
from localhub.state import State
from localhub.xetformat import Chunk, FileInfo, FormatError, chunks_of, dedup_shard, parse_shard


def issue_token(request: Request, kind: str) -> Response:
    """Hand out a short-lived token for the xet store, in the body and, for older callers, in the headers."""
    until = int(time.time()) + state_of(request).setting("xet_token_seconds")
    token, url = f"xet-{kind}-{until}", base_url(request)
    headers = {"X-Xet-Cas-Url": url, "X-Xet-Access-Token": token, "X-Xet-Token-Expiration": str(until)}
    return JSONResponse({"casUrl": url, "accessToken": token, "exp": until}, headers=headers)


def _check(request: Request, *kinds: str) -> None:
    match = re.fullmatch(r"Bearer xet-(read|write)-(\d+)", request.headers.get("authorization", ""))
    if match is None or int(match[2]) <= time.time():
        raise HubError(401, "The xet token is missing, wrong or expired")
    if match[1] not in kinds:
        raise HubError(403, f"A {match[1]} token does not do this")


async def upload_xorb(request: Request) -> Response:
    _check(request, "write")
    data = await request.body()
    chunks_of(data)
    return JSONResponse({"was_inserted": state_of(request).put_xorb(request.path_params["hash"], data)})


def _check_file(state: State, file: FileInfo) -> None:
    for term in file.terms:
        if not state.has_xorb(term.xorb):
            raise FormatError(f"file {file.hash} names xorb {term.xorb}, which was never uploaded")
        chunks = chunks_of(state.xorb(term.xorb))
        if not 0 <= term.first < term.last <= len(chunks):
            raise FormatError(f"file {file.hash} names chunks that xorb {term.xorb} does not have")
        if sum(chunk.size for chunk in chunks[term.first : term.last]) != term.size:
            raise FormatError(f"file {file.hash} names a wrong size of its part in xorb {term.xorb}")


async def upload_shard(request: Request) -> Response:
    _check(request, "write")
    state = state_of(request)
    files, xorbs = parse_shard(await request.body())
    for file in files:
        _check_file(state, file)
    for xorb in xorbs:
        if not state.has_xorb(xorb.hash):
            raise FormatError(f"xorb {xorb.hash} was never uploaded")
    state.put_shard(files, xorbs)
    return JSONResponse({"result": 1})


async def known_chunk(request: Request) -> Response:
    _check(request, "write")
    block = state_of(request).known_chunk(request.path_params["hash"])
    if block is None:
        raise HubError(404, "No xorb with this chunk")
    return Response(dedup_shard(block), media_type="application/octet-stream")


def _within(chunks: list[Chunk], first: int, last: int, start: int, end: int) -> list[int]:
    """Return which of the chunks hold a part of the bytes from `start` to `end`, counted from the first of them."""
    kept, place = [], 0
    for number in range(first, last):
        if place < end and place + chunks[number].size > start:
            kept.append(number)
        place += chunks[number].size
    return kept


async def reconstruction(request: Request) -> Response:
    """Tell of which chunks of which xorbs a file, or a range of it, is made, and where their bytes are."""
    _check(request, "read", "write")
    state, name = state_of(request), request.path_params["hash"]
    terms = state.terms(name)
    if terms is None:
        raise HubError(404, "No such file")
    size = sum(term.size for term in terms)
    start, end = asked_range(request, size) or (0, size)
    if start >= size:
        raise HubError(416, "The range is beyond the end")
    answer_terms, fetch, skip, place = [], {}, None, 0
    for term in terms:
        chunks = chunks_of(state.xorb(term.xorb))
        kept = _within(chunks, term.first, term.last, start - place, end - place)
        if kept:
            if skip is None:
                skip = start - place - sum(chunk.size for chunk in chunks[term.first : kept[0]])
            part = {"start": kept[0], "end": kept[-1] + 1}
            unpacked = sum(chunks[number].size for number in kept)
            answer_terms.append({"hash": term.xorb, "unpacked_length": unpacked, "range": part})
            stored = {"start": chunks[kept[0]].start, "end": chunks[kept[-1]].end - 1}
            url = f"{base_url(request)}/xorb/{term.xorb}"
            fetch.setdefault(term.xorb, []).append({"range": part, "url": url, "url_range": stored})
        place += term.size
    return JSONResponse({"offset_into_first_range": skip or 0, "terms": answer_terms, "fetch_info": fetch})


async def fetch_xorb(request: Request) -> Response:
    """Serve a range of a xorb; the address alone is the permission, as with the real store's signed ones."""
    state, name = state_of(request), request.path_params["hash"]
    if not state.has_xorb(name):
        raise HubError(404, "No such xorb")
    data = state.xorb(name)
    start, end = asked_range(request, len(data)) or (0, len(data))
    headers = {"Content-Range": f"bytes {start}-{end - 1}/{len(data)}"}
    return Response(data[start:end], 206, headers, media_type="application/octet-stream")


async def telemetry(request: Request) -> Response:
    await request.body()
    return JSONResponse({})


ROUTES = [
    Route("/v1/xorbs/default/{hash}", upload_xorb, methods=["POST"]),
    Route("/v1/shards", upload_shard, methods=["POST"]),
    Route("/v1/chunks/default/{hash}", known_chunk, methods=["GET"]),
    Route("/v1/reconstructions/{hash}", reconstruction, methods=["GET"]),
    Route("/xorb/{hash}", fetch_xorb, methods=["GET"]),
    Route("/v1/telemetry", telemetry, methods=["POST"]),
]
