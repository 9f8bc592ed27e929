"""Spaces beyond their repository: who may create them, secrets, variables, volumes, hardware, and how they start.

A Space that has an app moves through the setting `space_stages`, one step each time that its runtime is asked for: no
test waits for a clock. A static Space runs at once and cannot be paused, restarted or given volumes.

Below `/host/OWNER/NAME` stands in for a Space's host, once the setting `space_hosts` names it: a static Space sends its
files, any other answers 200 while it runs and 503 while it does not. To strangers a private one does not exist.
"""

from __future__ import annotations

import json
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from localhub.accounts import HubError, caller, check_read, check_write, state_of
from localhub.state import State, now

FREE_HARDWARE = "cpu-basic"


def check_plan(facts: dict[str, Any], payload: dict[str, Any]) -> None:
    """Refuse what the caller's plan does not pay for, as since July 2026."""
    plan, hardware = facts.get("plan", "free"), payload.get("hardware") or FREE_HARDWARE
    if payload["sdk"] == "static":
        return
    if hardware == FREE_HARDWARE and plan != "pro":
        raise HubError(402, "Docker and Gradio Spaces on cpu-basic require a PRO subscription")
    if hardware != FREE_HARDWARE and not facts.get("billing"):
        raise HubError(402, "Upgraded hardware requires a payment method and prepaid credits")


def _keyed(items: list[dict[str, str]] | None) -> dict[str, dict[str, Any]]:
    return {item["key"]: {**item, "updatedAt": now()} for item in items or ()}


def new_space(payload: dict[str, Any]) -> dict[str, Any]:
    static = payload["sdk"] == "static"
    if static and payload.get("volumes"):
        raise HubError(400, "Volumes are not supported on static Spaces")
    return {
        "sdk": payload["sdk"],
        "stage": "RUNNING" if static else "NO_APP_FILE",
        "next": [],
        "hardware": None if static else payload.get("hardware") or FREE_HARDWARE,
        "sleep": payload.get("sleepTimeSeconds"),
        "volumes": payload.get("volumes"),
        "secrets": _keyed(payload.get("secrets")),
        "variables": _keyed(payload.get("variables")),
    }


def _begin(state: State, space: dict[str, Any]) -> None:
    """Let a Space build and start anew."""
    stages = state.setting("space_stages")
    space["stage"], space["next"] = stages[0], stages[1:]


def rebuild(state: State, repo: str) -> None:
    """Begin the build that follows a commit."""
    value = state.repo("space", repo)
    space = value["space"]
    if space["sdk"] != "static":
        app = {"docker": "Dockerfile", "gradio": "app.py"}[space["sdk"]]
        head = state.commits("space", repo)[0]
        if app in head["tree"]:
            space["builds"] = head["oid"]
            _begin(state, space)
        else:
            space["stage"], space["next"] = "NO_APP_FILE", []
        state.put_repo("space", repo, value)


def _runtime(space: dict[str, Any]) -> dict[str, Any]:
    running = space["stage"] not in {"NO_APP_FILE", "BUILDING"}
    hardware = {"current": space["hardware"] if running else None, "requested": space["hardware"]}
    runtime = {"stage": space["stage"], "hardware": hardware, "gcTimeout": space["sleep"], "storage": None}
    if "runs" in space:
        runtime["sha"] = space["runs"]
    return runtime if space["volumes"] is None else {**runtime, "volumes": space["volumes"]}


def shown(state: State, repo: str, space: dict[str, Any]) -> dict[str, Any]:
    """Return what the information on a Space has beyond that on any repository."""
    subdomain = repo.replace("/", "-").lower()
    host = state.setting("space_hosts").get(repo, f"https://{subdomain}.hf.space")
    return {"sdk": space["sdk"], "subdomain": subdomain, "host": host, "runtime": _runtime(space)}


def _open(request: Request, *, change: bool) -> tuple[State, str, dict[str, Any]]:
    repo, state = f"{request.path_params['owner']}/{request.path_params['name']}", state_of(request)
    caller(request)
    value = state.repo("space", repo)
    if value is None:
        raise HubError(404, "Repository not found", "RepoNotFound")
    check_read(request, repo, private=value["private"])
    if change:
        check_write(request, repo)
    return state, repo, value


async def runtime(request: Request) -> Response:
    state, repo, value = _open(request, change=False)
    answer, space = _runtime(value["space"]), value["space"]
    if space["next"]:
        space["stage"] = space["next"].pop(0)
        if not space["next"] and "builds" in space:
            space["runs"] = space["builds"]
        state.put_repo("space", repo, value)
    return JSONResponse(answer)


async def host(request: Request) -> Response:
    """Answer as the app of a Space does."""
    state, repo, value = _open(request, change=False)
    space, path = value["space"], request.path_params["path"]
    if space["sdk"] != "static":
        return JSONResponse({"path": path}, 200 if space["stage"] == "RUNNING" else 503)
    entry = state.commits("space", repo)[0]["tree"].get(path or "index.html")
    if entry is None:
        raise HubError(404, "Not found")
    data = state.blob(entry["sha256"])
    return Response(state.content(entry["xet"], 0, entry["size"]) if data is None else data)


async def _change_keyed(request: Request, which: str) -> dict[str, Any]:
    """Add, change or delete a secret or a variable; a Space that runs starts anew with it."""
    state, repo, value = _open(request, change=request.method != "GET")
    space = value["space"]
    if request.method != "GET":
        item = json.loads(await request.body())
        if request.method == "DELETE":
            space[which].pop(item["key"], None)
        else:
            space[which][item["key"]] = {**item, "updatedAt": now()}
        if space["sdk"] != "static" and space["stage"] == "RUNNING":
            _begin(state, space)
        state.put_repo("space", repo, value)
    return space[which]


async def secrets(request: Request) -> Response:
    kept = await _change_keyed(request, "secrets")
    check_write(request, f"{request.path_params['owner']}/{request.path_params['name']}")
    hidden = {key: {name: fact for name, fact in item.items() if name != "value"} for key, item in kept.items()}
    return JSONResponse(hidden)


async def variables(request: Request) -> Response:
    return JSONResponse(await _change_keyed(request, "variables"))


def _not_static(space: dict[str, Any]) -> None:
    if space["sdk"] == "static":
        raise HubError(400, "This does not apply to static Spaces")


async def pause(request: Request) -> Response:
    state, repo, value = _open(request, change=True)
    _not_static(value["space"])
    value["space"].update(stage="PAUSED", next=[])
    state.put_repo("space", repo, value)
    return JSONResponse(_runtime(value["space"]))


async def restart(request: Request) -> Response:
    state, repo, value = _open(request, change=True)
    _not_static(value["space"])
    rebuild(state, repo)
    return JSONResponse(_runtime(state.repo("space", repo)["space"]))


async def hardware(request: Request) -> Response:
    state, repo, value = _open(request, change=True)
    _not_static(value["space"])
    payload = json.loads(await request.body())
    facts = check_write(request, repo)
    check_plan(facts, {"sdk": value["space"]["sdk"], "hardware": payload["flavor"]})
    value["space"].update(hardware=payload["flavor"], sleep=payload.get("sleepTimeSeconds", value["space"]["sleep"]))
    state.put_repo("space", repo, value)
    return JSONResponse(_runtime(value["space"]))


async def sleep_time(request: Request) -> Response:
    state, repo, value = _open(request, change=True)
    value["space"]["sleep"] = json.loads(await request.body())["seconds"]
    state.put_repo("space", repo, value)
    return JSONResponse(_runtime(value["space"]))


async def volumes(request: Request) -> Response:
    state, repo, value = _open(request, change=True)
    space = value["space"]
    _not_static(space)
    if request.method == "DELETE":
        if not space["volumes"]:
            raise HubError(400, "No volumes attached")
        space["volumes"] = None
    else:
        wanted = json.loads(await request.body())["volumes"]
        for volume in wanted:
            known = (
                state.bucket(volume["source"])
                if volume["type"] == "bucket"
                else state.repo(volume["type"], volume["source"])
            )
            if known is None:
                raise HubError(404, f"No {volume['type']} {volume['source']}", "RepoNotFound")
        space["volumes"] = wanted
    _begin(state, space)
    state.put_repo("space", repo, value)
    return JSONResponse(_runtime(space))


async def logs(request: Request) -> Response:
    _open(request, change=False)
    # Long ago: the client leaves out what is newer than its request.
    event = {"data": f"log of {request.path_params['which']}\n", "timestamp": "2026-01-01T00:00:00.000Z"}
    return Response(f"data: {json.dumps(event)}\n\n", media_type="text/event-stream")


async def hardware_list(_: Request) -> Response:
    return JSONResponse([{"name": FREE_HARDWARE, "prettyName": "CPU Basic", "cpu": "2 vCPU", "ram": "16 GB"}])


_SPACE = "/api/spaces/{owner}/{name}"
ROUTES = [
    Route("/host/{owner}/{name}/{path:path}", host, methods=["GET"]),
    Route("/api/spaces/hardware", hardware_list, methods=["GET"]),
    Route(_SPACE + "/runtime", runtime, methods=["GET"]),
    Route(_SPACE + "/secrets", secrets, methods=["GET", "POST", "DELETE"]),
    Route(_SPACE + "/variables", variables, methods=["GET", "POST", "DELETE"]),
    Route(_SPACE + "/pause", pause, methods=["POST"]),
    Route(_SPACE + "/restart", restart, methods=["POST"]),
    Route(_SPACE + "/hardware", hardware, methods=["POST"]),
    Route(_SPACE + "/sleeptime", sleep_time, methods=["POST"]),
    Route(_SPACE + "/volumes", volumes, methods=["PUT", "DELETE"]),
    Route(_SPACE + "/logs/{which}", logs, methods=["GET"]),
]
