"""Git repositories of datasets, models and Spaces: their life, commits over the API, listings, downloads and LFS.

A commit is atomic: one row on disk holds the whole tree. Each repository has one branch, main. Files that are not text,
or are larger than 10 MiB, are to be uploaded to the xet store (or by the LFS protocol) before the commit names their
SHA-256.
"""

from __future__ import annotations

import base64
import hashlib
import json
from typing import Any
from urllib.parse import parse_qs

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from localhub import spaces
from localhub.accounts import HubError, base_url, caller, check_read, check_write, signed_in, state_of
from localhub.cas import issue_token
from localhub.serving import file_answer, page
from localhub.state import State, now

KINDS = {"datasets": "dataset", "models": "model", "spaces": "space"}
LARGE_BYTES = 10 * 1024 * 1024


def git_oid(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def _entry(*, size: int, oid: str, sha256: str, lfs: bool, xet: str | None = None) -> dict[str, Any]:
    return {"size": size, "oid": oid, "sha256": sha256, "lfs": lfs, "xet": xet}


def _named(request: Request) -> tuple[str, str]:
    """Return kind and id of the repository in the address."""
    kind = KINDS.get(request.path_params.get("kind", "models"))
    if kind is None:
        raise HubError(404, "No such route")
    return kind, f"{request.path_params['owner']}/{request.path_params['name']}"


def readable(request: Request) -> tuple[str, str]:
    caller(request)  # a token that is bad is refused before anything is said of what exists
    kind, repo = _named(request)
    facts = state_of(request).repo(kind, repo)
    if facts is None:
        raise HubError(404, "Repository not found", "RepoNotFound")
    check_read(request, repo, private=facts["private"])
    return kind, repo


def writable(request: Request) -> tuple[str, str]:
    kind, repo = readable(request)
    check_write(request, repo)
    return kind, repo


def _commit_at(request: Request, kind: str, repo: str) -> dict[str, Any]:
    """Return the commit that the address names by its revision."""
    revision = request.path_params.get("revision", "main")
    commits = state_of(request).commits(kind, repo)
    found = [commit for commit in commits if revision in {"main", "refs/heads/main", "None", commit["oid"]}]
    if not found:
        raise HubError(404, f"Invalid rev id: {revision}", "RevisionNotFound")
    return found[0]


def _address(request: Request, kind: str, repo: str) -> str:
    return f"{base_url(request)}/{'' if kind == 'model' else kind + 's/'}{repo}"


async def create(request: Request) -> Response:
    payload, state = json.loads(await request.body()), state_of(request)
    facts = signed_in(request)
    kind, repo = payload.get("type", "model"), f"{payload.get('organization') or facts['user']}/{payload['name']}"
    check_write(request, repo)
    if kind == "space":
        spaces.check_plan(facts, payload)
    url = _address(request, kind, repo)
    if state.repo(kind, repo) is not None:
        raise HubError(409, f"You already created this {kind} repo", url=url)
    value = {"private": payload.get("visibility") == "private" or bool(payload.get("private")), "createdAt": now()}
    if kind == "space":
        value["space"] = spaces.new_space(payload)
    attributes = b"*.parquet filter=lfs diff=lfs merge=lfs -text\n"
    sha256 = hashlib.sha256(attributes).hexdigest()
    tree = {".gitattributes": _entry(size=len(attributes), oid=git_oid(attributes), sha256=sha256, lfs=False)}
    with state.together():
        state.put_blob(sha256, attributes)
        state.put_repo(kind, repo, value)
        state.add_commit(kind, repo, hashlib.sha1(f"{kind}/{repo}".encode()).hexdigest(), "initial commit", tree)
    return JSONResponse({"url": url, "name": repo, "id": repo})


async def delete(request: Request) -> Response:
    payload, state = json.loads(await request.body()), state_of(request)
    kind = payload.get("type", "model")
    repo = f"{payload.get('organization') or signed_in(request)['user']}/{payload['name']}"
    if state.repo(kind, repo) is None:
        raise HubError(404, "Repository not found", "RepoNotFound")
    check_write(request, repo)
    state.forget_repo(kind, repo)
    return JSONResponse({})


async def settings(request: Request) -> Response:
    (kind, repo), state = writable(request), state_of(request)
    payload, value = json.loads(await request.body()), state.repo(kind, repo)
    if "private" in payload or "visibility" in payload:
        value["private"] = payload.get("visibility", "") == "private" or bool(payload.get("private"))
    state.put_repo(kind, repo, value)
    return JSONResponse({"private": value["private"]})


async def validate_yaml(request: Request) -> Response:
    await request.body()
    return JSONResponse({"errors": [], "warnings": []})


async def info(request: Request) -> Response:
    kind, repo = readable(request)
    commit, state = _commit_at(request, kind, repo), state_of(request)
    value = state.repo(kind, repo)
    answer = {
        "id": repo,
        "author": repo.split("/")[0],
        "sha": commit["oid"],
        "createdAt": value["createdAt"],
        "lastModified": commit["at"],
        "private": value["private"],
        "gated": False,
        "disabled": False,
        "tags": [],
        "siblings": [{"rfilename": path} for path in sorted(commit["tree"])],
    }
    if kind == "space":
        answer |= spaces.shown(state, repo, value["space"])
    return JSONResponse(answer)


async def refs(request: Request) -> Response:
    kind, repo = readable(request)
    oid = state_of(request).commits(kind, repo)[0]["oid"]
    branch = {"name": "main", "ref": "refs/heads/main", "targetCommit": oid}
    return JSONResponse({"branches": [branch], "tags": [], "converts": []})


async def history(request: Request) -> Response:
    kind, repo = readable(request)
    commits = state_of(request).commits(kind, repo)
    return JSONResponse(
        [
            {"id": commit["oid"], "title": commit["title"], "message": "", "date": commit["at"], "authors": []}
            for commit in commits
        ]
    )


async def preupload(request: Request) -> Response:
    """Say of each file whether it goes into the commit or into the large store, and what is there under its name."""
    kind, repo = writable(request)
    tree, files = _commit_at(request, kind, repo)["tree"], []
    for file in json.loads(await request.body())["files"]:
        old = tree.get(file["path"])
        mode = "lfs" if _is_large(file["size"], base64.b64decode(file["sample"])) else "regular"
        oid = None if old is None else old["sha256"] if old["lfs"] else old["oid"]
        files.append({"path": file["path"], "uploadMode": mode, "shouldIgnore": False, "oid": oid})
    return JSONResponse({"files": files})


def _is_large(size: int, sample: bytes) -> bool:
    if size > LARGE_BYTES or b"\0" in sample:
        return True
    try:
        sample.decode()
    except UnicodeDecodeError as error:
        return error.start < len(sample) - 3  # a character cut off by the sample's end is text
    return False


def _large_entry(state: State, value: dict[str, Any]) -> dict[str, Any]:
    sha256 = value["oid"]
    stored, data = state.file_of_sha256(sha256), state.blob(sha256)
    if stored is None and data is None:
        raise HubError(400, f"LFS pointer pointed to a file that does not exist: {value['path']}")
    size = stored[1] if stored else len(data)
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n".encode()
    return _entry(size=size, oid=git_oid(pointer), sha256=sha256, lfs=True, xet=stored[0] if stored else None)


def _change(state: State, tree: dict[str, Any], item: dict[str, Any]) -> None:
    """Apply one line of a commit to a tree."""
    value, path = item["value"], item["value"]["path"]
    if item["key"] == "file":
        data = base64.b64decode(value["content"])
        sha256 = hashlib.sha256(data).hexdigest()
        state.put_blob(sha256, data)
        tree[path] = _entry(size=len(data), oid=git_oid(data), sha256=sha256, lfs=False)
    elif item["key"] == "lfsFile":
        tree[path] = _large_entry(state, value)
    elif item["key"] == "deletedFile":
        if tree.pop(path, None) is None:
            raise HubError(404, f"A file with the name {path} does not exist", "EntryNotFound")
    elif item["key"] == "deletedFolder":
        for name in [name for name in tree if name.startswith(path.rstrip("/") + "/")]:
            del tree[name]
    else:
        raise HubError(400, f"Unknown operation {item['key']}")


async def commit(request: Request) -> Response:
    (kind, repo), state = writable(request), state_of(request)
    lines = [json.loads(line) for line in (await request.body()).splitlines() if line]
    header, head = lines[0]["value"], _commit_at(request, kind, repo)
    if header.get("parentCommit") not in {None, head["oid"]}:
        raise HubError(412, "A commit has happened since. Please refresh and try again.")
    tree = dict(head["tree"])
    with state.together():
        for item in lines[1:]:
            _change(state, tree, item)
        oid = hashlib.sha1(json.dumps([head["oid"], header, tree], sort_keys=True).encode()).hexdigest()
        state.add_commit(kind, repo, oid, header["summary"], tree)
        if kind == "space":
            spaces.rebuild(state, repo)
    url = f"{_address(request, kind, repo)}/commit/{oid}"
    return JSONResponse({"success": True, "commitOid": oid, "commitUrl": url, "hookOutput": ""})


def _shown(path: str, entry: dict[str, Any]) -> dict[str, Any]:
    shown = {"type": "file", "oid": entry["oid"], "size": entry["size"], "path": path}
    if entry["lfs"]:
        shown["lfs"] = {"oid": entry["sha256"], "size": entry["size"], "pointerSize": 134}
    if entry["xet"]:
        shown["xetHash"] = entry["xet"]
    return shown


def _listed(tree: dict[str, Any], folder: str, *, recursive: bool) -> list[dict[str, Any]]:
    """Return what is in a folder, the folders of it included."""
    start, found = folder + "/" if folder else "", {}
    for path, entry in tree.items():
        if path.startswith(start):
            parts = path[len(start) :].split("/")
            for depth in range(1, len(parts)):
                name = start + "/".join(parts[:depth])
                if recursive or depth == 1:
                    found[name] = {"type": "directory", "oid": git_oid(name.encode()), "size": 0, "path": name}
            if recursive or len(parts) == 1:
                found[path] = _shown(path, entry)
    return [found[path] for path in sorted(found)]


async def tree(request: Request) -> Response:
    kind, repo = readable(request)
    folder, query = request.path_params.get("path", "").strip("/"), request.query_params
    files = _commit_at(request, kind, repo)["tree"]
    found = _listed(files, folder, recursive=query.get("recursive", "false").lower() == "true")
    if folder and not found:
        raise HubError(404, f"{folder} does not exist", "EntryNotFound")
    taken, headers = page(request, found, "path", state_of(request).setting("page_size"))
    return JSONResponse(taken, headers=headers)


async def paths_info(request: Request) -> Response:
    kind, repo = readable(request)
    files = _commit_at(request, kind, repo)["tree"]
    paths = [path.strip("/") for path in parse_qs((await request.body()).decode()).get("paths", [])]
    folders = {shown["path"]: shown for shown in _listed(files, "", recursive=True) if shown["type"] == "directory"}
    found = [_shown(path, files[path]) if path in files else folders.get(path) for path in paths]
    return JSONResponse([shown for shown in found if shown])


async def resolve(request: Request) -> Response:
    (kind, repo), state = readable(request), state_of(request)
    at = _commit_at(request, kind, repo)
    entry = at["tree"].get(request.path_params["path"])
    if entry is None:
        raise HubError(404, "Entry not found", "EntryNotFound")
    etag = f'"{entry["sha256"] if entry["lfs"] else entry["oid"]}"'
    headers = {"ETag": etag, "X-Repo-Commit": at["oid"], "X-Linked-Etag": etag, "X-Linked-Size": str(entry["size"])}
    if entry["xet"]:
        route = f"{base_url(request)}/api/{kind}s/{repo}/xet-read-token/{at['oid']}"
        headers |= {"X-Xet-Hash": entry["xet"], "X-Xet-Refresh-Route": route}
        return file_answer(request, entry["size"], lambda start, end: state.content(entry["xet"], start, end), headers)
    data = state.blob(entry["sha256"])
    return file_answer(request, len(data), lambda start, end: data[start:end], headers)


async def read_token(request: Request) -> Response:
    readable(request)
    return issue_token(request, "read")


async def write_token(request: Request) -> Response:
    writable(request)
    return issue_token(request, "write")


async def lfs_batch(request: Request) -> Response:
    """Say where to put large files, for callers that do not use the xet store."""
    writable(request)
    objects = []
    for wanted in json.loads(await request.body())["objects"]:
        known = state_of(request).blob(wanted["oid"]) or state_of(request).file_of_sha256(wanted["oid"])
        href = f"{base_url(request)}/lfs/{wanted['oid']}"
        objects.append(wanted if known else {**wanted, "actions": {"upload": {"href": href, "header": {}}}})
    return JSONResponse({"transfer": "basic", "objects": objects}, media_type="application/vnd.git-lfs+json")


async def lfs_put(request: Request) -> Response:
    """Take a large file; the address alone is the permission, as with the real store's signed ones."""
    data = await request.body()
    if hashlib.sha256(data).hexdigest() != request.path_params["oid"]:
        raise HubError(400, "The content has another SHA-256")
    state_of(request).put_blob(request.path_params["oid"], data)
    return Response()


_REPO = "/api/{kind}/{owner}/{name}"
ROUTES = [
    Route("/api/repos/create", create, methods=["POST"]),
    Route("/api/repos/delete", delete, methods=["DELETE"]),
    Route("/api/validate-yaml", validate_yaml, methods=["POST"]),
    Route("/lfs/{oid}", lfs_put, methods=["PUT"]),
    Route(_REPO, info, methods=["GET"]),
    Route(_REPO + "/revision/{revision}", info, methods=["GET"]),
    Route(_REPO + "/settings", settings, methods=["PUT"]),
    Route(_REPO + "/refs", refs, methods=["GET"]),
    Route(_REPO + "/commits/{revision}", history, methods=["GET"]),
    Route(_REPO + "/preupload/{revision}", preupload, methods=["POST"]),
    Route(_REPO + "/commit/{revision}", commit, methods=["POST"]),
    Route(_REPO + "/tree/{revision}", tree, methods=["GET"]),
    Route(_REPO + "/tree/{revision}/{path:path}", tree, methods=["GET"]),
    Route(_REPO + "/paths-info/{revision}", paths_info, methods=["POST"]),
    Route(_REPO + "/xet-read-token/{revision}", read_token, methods=["GET"]),
    Route(_REPO + "/xet-write-token/{revision}", write_token, methods=["GET"]),
    Route("/{kind}/{owner}/{name}.git/info/lfs/objects/batch", lfs_batch, methods=["POST"]),
    Route("/{kind}/{owner}/{name}/resolve/{revision}/{path:path}", resolve, methods=["GET"]),
    Route("/{owner}/{name}/resolve/{revision}/{path:path}", resolve, methods=["GET"]),
]
