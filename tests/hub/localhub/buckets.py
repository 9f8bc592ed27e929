"""Buckets: their life, their listings, their files, and the batches that change them.

A batch is not atomic, as the real one is not: each of its operations is applied, and on disk, before the next is looked
at. Those that cannot be applied are named in the answer, which is a 200 while any succeeded and a 422 when none did.
"""

from __future__ import annotations

import json
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from localhub.accounts import HubError, base_url, caller, check_read, check_write, signed_in, state_of
from localhub.cas import issue_token
from localhub.faults import fault_of
from localhub.serving import file_answer, page
from localhub.state import BucketEntry, State, time_text

MOST_OPERATIONS = 1000


def _name(request: Request) -> str:
    owner, name = request.path_params["owner"], request.path_params["name"]
    return f"{signed_in(request)['user'] if owner == 'me' else owner}/{name}"


def _readable(request: Request) -> str:
    caller(request)  # a token that is bad is refused before anything is said of what exists
    bucket = _name(request)
    facts = state_of(request).bucket(bucket)
    if facts is None:
        raise HubError(404, "Repository not found", "RepoNotFound")
    check_read(request, bucket, private=facts["private"])
    return bucket


def _writable(request: Request) -> str:
    bucket = _readable(request)
    check_write(request, bucket)
    return bucket


def _info(state: State, bucket: str) -> dict[str, Any]:
    entries = state.entries(bucket)
    return {**state.bucket(bucket), "size": sum(entry.size for entry in entries), "totalFiles": len(entries)}


def _file(entry: BucketEntry) -> dict[str, Any]:
    return {
        "type": "file",
        "path": entry.path,
        "size": entry.size,
        "xetHash": entry.xet_hash,
        "mtime": entry.mtime,
        "uploadedAt": entry.uploaded_at,
    }


async def create(request: Request) -> Response:
    bucket, state = _name(request), state_of(request)
    check_write(request, bucket)
    url = f"{base_url(request)}/buckets/{bucket}"
    if state.bucket(bucket) is not None:
        raise HubError(409, "You already created this bucket", url=url)
    payload = json.loads(await request.body() or "{}")
    state.create_bucket(bucket, private=payload.get("visibility") == "private" or bool(payload.get("private")))
    return JSONResponse({"url": url, "name": bucket, "id": bucket})


async def info(request: Request) -> Response:
    return JSONResponse(_info(state_of(request), _readable(request)))


async def listing(request: Request) -> Response:
    state, owner = state_of(request), request.path_params["owner"]
    user = signed_in(request)["user"]
    owner = user if owner == "me" else owner
    infos = [_info(state, bucket) for bucket in state.buckets(owner)]
    search = request.query_params.get("search", "")
    shown = [facts for facts in infos if search in facts["id"] and (owner == user or not facts["private"])]
    taken, headers = page(request, shown, "id", state.setting("page_size"))
    return JSONResponse(taken, headers=headers)


async def delete(request: Request) -> Response:
    state_of(request).forget_bucket(_writable(request))
    return JSONResponse({})


async def settings(request: Request) -> Response:
    bucket, private = _writable(request), json.loads(await request.body())["private"]
    state_of(request).db.execute("update buckets set private = ? where id = ?", (private, bucket))
    return JSONResponse({"private": private})


async def move(request: Request) -> Response:
    payload, state = json.loads(await request.body()), state_of(request)
    if payload["type"] != "bucket" or state.bucket(payload["fromRepo"]) is None:
        raise HubError(404, "Repository not found", "RepoNotFound")
    check_write(request, payload["fromRepo"])
    check_write(request, payload["toRepo"])
    if state.bucket(payload["toRepo"]) is not None:
        raise HubError(409, "You already created this bucket")
    state.move_bucket(payload["fromRepo"], payload["toRepo"])
    return JSONResponse({})


def _children(entries: list[BucketEntry], prefix: str) -> list[dict[str, Any]]:
    """Return the files and directories right below a prefix, which is matched letter by letter."""
    found: dict[str, dict[str, Any]] = {}
    for entry in entries:
        rest = entry.path[len(prefix) :]
        cut = rest.find("/", 1)
        if cut < 0:
            found[entry.path] = _file(entry)
        else:
            path = prefix + rest[:cut]
            found[path] = {"type": "directory", "path": path, "uploadedAt": entry.uploaded_at}
    return [found[path] for path in sorted(found)]


async def tree(request: Request) -> Response:
    bucket, state, prefix = _readable(request), state_of(request), request.path_params.get("path", "")
    fault = fault_of(request)
    behind = fault.behind if fault and fault.kind == "stale-listing" else 0
    entries = state.entries(bucket, prefix, behind=behind)
    recursive = request.query_params.get("recursive", "false") == "true"
    found = [_file(entry) for entry in entries] if recursive else _children(entries, prefix)
    taken, headers = page(request, found, "path", state.setting("page_size"))
    return JSONResponse(taken, headers=headers)


async def paths_info(request: Request) -> Response:
    bucket, state = _readable(request), state_of(request)
    paths = json.loads(await request.body())["paths"]
    entries = (state.entry(bucket, path) for path in paths)
    return JSONResponse([_file(entry) for entry in entries if entry])


async def resolve(request: Request) -> Response:
    bucket, state = _readable(request), state_of(request)
    entry = state.entry(bucket, request.path_params["path"])
    if entry is None:
        raise HubError(404, "Entry not found", "EntryNotFound")
    headers = {
        "ETag": f'"{entry.xet_hash}"',
        "X-Linked-Size": str(entry.size),
        "X-Linked-Etag": f'"{entry.xet_hash}"',
        "X-Xet-Hash": entry.xet_hash,
        "X-Xet-Refresh-Route": f"{base_url(request)}/api/buckets/{bucket}/xet-read-token",
    }
    return file_answer(request, entry.size, lambda start, end: state.content(entry.xet_hash, start, end), headers)


async def read_token(request: Request) -> Response:
    _readable(request)
    return issue_token(request, "read")


async def write_token(request: Request) -> Response:
    _writable(request)
    return issue_token(request, "write")


def _problem(state: State, bucket: str, operation: dict[str, Any]) -> str | None:
    """Tell why an operation cannot be applied, or None."""
    path = operation["path"]
    if not path or path.startswith("/") or any(part in {"", ".", ".."} for part in path.split("/")):
        return "invalid path"
    if operation["type"] == "deleteFile":
        return None if state.entry(bucket, path) else "not found"
    return None if state.file_size(operation["xetHash"]) is not None else "xet hash not found"


def _apply(state: State, bucket: str, operation: dict[str, Any]) -> None:
    if operation["type"] == "deleteFile":
        state.write(bucket, operation["path"], None)
        return
    facts = {"content_type": operation.get("contentType")}
    if operation.get("mtime") is not None:
        facts["mtime"] = time_text(operation["mtime"] / 1000)
    state.write(bucket, operation["path"], operation["xetHash"], **facts)


async def batch(request: Request) -> Response:
    bucket, state, fault = _writable(request), state_of(request), fault_of(request)
    operations = [json.loads(line) for line in (await request.body()).splitlines() if line]
    if len(operations) > MOST_OPERATIONS:
        raise HubError(400, f"A batch has at most {MOST_OPERATIONS} operations")
    failed = []
    for number, operation in enumerate(operations):
        if fault:
            fault.between_operations(number)
        problem = _problem(state, bucket, operation)
        if problem:
            failed.append({"path": operation["path"], "error": problem})
        else:
            _apply(state, bucket, operation)
    done = len(operations) - len(failed)
    answer = {"success": not failed, "processed": len(operations), "succeeded": done, "failed": failed}
    return JSONResponse(answer, 422 if failed and not done else 200)


_BUCKET = "/api/buckets/{owner}/{name}"
ROUTES = [
    Route("/api/repos/move", move, methods=["POST"]),
    Route("/api/buckets/{owner}", listing, methods=["GET"]),
    Route(_BUCKET, create, methods=["POST"]),
    Route(_BUCKET, info, methods=["GET"]),
    Route(_BUCKET, delete, methods=["DELETE"]),
    Route(_BUCKET + "/settings", settings, methods=["PUT"]),
    Route(_BUCKET + "/tree", tree, methods=["GET"]),
    Route(_BUCKET + "/tree/{path:path}", tree, methods=["GET"]),
    Route(_BUCKET + "/paths-info", paths_info, methods=["POST"]),
    Route(_BUCKET + "/batch", batch, methods=["POST"]),
    Route(_BUCKET + "/xet-read-token", read_token, methods=["GET"]),
    Route(_BUCKET + "/xet-write-token", write_token, methods=["GET"]),
    Route("/buckets/{owner}/{name}/resolve/{path:path}", resolve, methods=["GET"]),
]
