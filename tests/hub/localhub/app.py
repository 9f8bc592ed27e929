"""The application: all routes, the errors, and the control routes by which a test sets faults and reads the log."""

from __future__ import annotations

import json

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from localhub import accounts, buckets, cas, repos, spaces
from localhub.accounts import HubError, state_of
from localhub.faults import Fault
from localhub.journal import Journal
from localhub.state import State
from localhub.wire import CONTROL, Wire
from localhub.xetformat import FormatError


def _json(value: object) -> Response:
    return Response(msgspec.json.encode(value), media_type="application/json")


async def _ready(_: Request) -> Response:
    return _json({})


async def _requests(request: Request) -> Response:
    return _json(request.app.state.journal.requests(int(request.query_params.get("since", "0"))))


async def _faults(request: Request) -> Response:
    journal = request.app.state.journal
    if request.method == "POST":
        journal.set_fault(msgspec.json.decode(await request.body(), type=Fault))
    elif request.method == "DELETE":
        journal.clear_faults()
    return _json([{"fault": fault, "seen": seen} for _, fault, seen in journal.faults()])


async def _settings(request: Request) -> Response:
    for key, value in json.loads(await request.body()).items():
        state_of(request).set(key, value)
    return _json({})


async def _tokens(request: Request) -> Response:
    facts = json.loads(await request.body())
    state_of(request).put_token(facts.pop("token"), **facts)
    return _json({})


async def _save(request: Request) -> Response:
    state_of(request).save(request.path_params["name"])
    return _json({})


async def _load(request: Request) -> Response:
    state_of(request).load(request.path_params["name"])
    return _json({})


async def _hub_error(_: Request, error: HubError) -> Response:
    return error.answer()


async def _format_error(_: Request, error: FormatError | msgspec.ValidationError) -> Response:
    return HubError(400, str(error)).answer()


async def _not_served(_: Request, error: HTTPException) -> Response:
    return JSONResponse({"error": f"The local Hub does not know this: {error.detail}"}, error.status_code)


_CONTROL_ROUTES = [
    Route(CONTROL + "ready", _ready, methods=["GET"]),
    Route(CONTROL + "requests", _requests, methods=["GET"]),
    Route(CONTROL + "faults", _faults, methods=["GET", "POST", "DELETE"]),
    Route(CONTROL + "settings", _settings, methods=["POST"]),
    Route(CONTROL + "tokens", _tokens, methods=["POST"]),
    Route(CONTROL + "save/{name}", _save, methods=["POST"]),
    Route(CONTROL + "load/{name}", _load, methods=["POST"]),
]


def make_app(directory: str) -> Wire:
    """Return the ASGI application of a Hub that keeps its state in a directory."""
    errors = {
        HubError: _hub_error,
        FormatError: _format_error,
        msgspec.ValidationError: _format_error,
        HTTPException: _not_served,
    }
    routes = [*_CONTROL_ROUTES, *accounts.ROUTES, *buckets.ROUTES, *spaces.ROUTES, *repos.ROUTES, *cas.ROUTES]
    app = Starlette(routes=routes, exception_handlers=errors)
    app.state.hub = State(directory)
    app.state.journal = Journal(directory)
    return Wire(app, app.state.journal)
