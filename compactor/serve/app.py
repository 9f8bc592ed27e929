"""The routes: read a request within its limits, answer it in a thread, and send what came of it."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncGenerator, Callable
from functools import partial
from typing import Any, Final

import anyio
import orjson
from python_multipart.exceptions import MultipartParseError
from starlette.applications import Starlette
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, HTMLResponse, JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import Receive, Scope, Send

from compactor.serve import files, ui
from compactor.serve.access import COOKIE, PARAMETER, Access
from compactor.serve.acks import Acks
from compactor.serve.api import ENDPOINTS
from compactor.serve.errors import NotFoundError, RequestError, TooLargeError, UnavailableError
from compactor.serve.gate import Gate
from compactor.serve.hub import Hub
from compactor.serve.notice import Notice
from compactor.serve.reads import Raw
from compactor.serve.telemetry import Telemetry
from compactor.serve.typedrows import dump
from compactor.serve.uploads import Incoming
from compactor.serve.wire import API_VERSION
from eventlog.errors import EventLogError

log = logging.getLogger("compactor")
_READ_BODY_BYTES: Final = 4 * 1024 * 1024
_CHUNK_BYTES: Final = 256 * 1024
# A client that begins a run asks what there is of it, and takes no answer for nothing. It waits for 60 s.
_AWAIT_RESTORE: Final = frozenset({"get_runs_for_project", "get_run_summary"})
_RESTORE_S: Final = 45.0
_LOOK_S: Final = 0.1
_SAFE: Final = {"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer"}
# What was uploaded may be a page with scripts: it runs, if at all, without any access to this one.
_ISOLATED: Final = {**_SAFE, "Content-Security-Policy": "sandbox allow-scripts"}


class Pieces(Response):
    """An answer that is sent piece by piece, so that large ones are never copied as a whole."""

    media_type = "application/json"

    def __init__(self, pieces: list[bytes]) -> None:
        """Take the pieces; together they are the body."""
        super().__init__(None)
        self._pieces = pieces
        self.headers["content-length"] = str(sum(map(len, pieces)))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the pieces, waiting for the client between them."""
        del scope, receive
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        gathered: list[bytes] = []
        size = 0
        for piece in self._pieces:
            for at in range(0, len(piece), _CHUNK_BYTES):
                part = piece if len(piece) <= _CHUNK_BYTES else piece[at : at + _CHUNK_BYTES]
                gathered.append(part)
                size += len(part)
                if size >= _CHUNK_BYTES:
                    await send({"type": "http.response.body", "body": b"".join(gathered), "more_body": True})
                    gathered, size = [], 0
        await send({"type": "http.response.body", "body": b"".join(gathered), "more_body": False})


class App:
    """The handlers of one server. No handler touches the disk in the event loop."""

    def __init__(
        self, hub: Hub, gate: Gate, acks: Acks | None, telemetry: Telemetry, dashboard: ui.Dashboard | None
    ) -> None:
        """Take what is served, what lets calls through, what waits for the bucket, and how it looks."""
        self._hub = hub
        self._gate = gate
        self._acks = acks
        self._telemetry = telemetry
        self._dashboard = dashboard
        self._access = Access(hub.config.write_token)
        self._notice = Notice(hub)
        # Those who wait for the disk do not hold up those who read.
        self._writing = anyio.CapacityLimiter(64)
        self._reading = anyio.CapacityLimiter(16)
        self._querying = anyio.CapacityLimiter(2)

    async def version(self, request: Request) -> Response:
        """Say that this server speaks Trackio's API."""
        del request
        version = self._dashboard.version if self._dashboard is not None else "0.43.0"
        return JSONResponse(
            {"version": version, "api_version": API_VERSION, "api_transport": "http", "writes_paused": False}
        )

    async def health(self, request: Request) -> Response:
        """Answer at once."""
        del request
        return JSONResponse({"status": "ok" if self._gate.is_restored else "restoring"})

    async def metrics(self, request: Request) -> Response:
        """Return numbers for Prometheus."""
        del request
        text = await self._read(self._telemetry.text)
        return Response(text, media_type="text/plain; version=0.0.4; charset=utf-8")

    async def notice(self, request: Request) -> Response:
        """Say why there is nothing to see."""
        del request
        return JSONResponse({"text": await self._read(self._notice.text)}, headers={"Cache-Control": "no-store"})

    async def call(self, request: Request) -> Response:
        """Answer a call of the API."""
        name = request.path_params["name"]
        if name == "get_run_mutation_status":
            allowed = self._access.allows(request)
            return _json({"spaces": False, "allowed": allowed, "auth": "local" if allowed else "none"})
        endpoint = ENDPOINTS.get(name)
        if endpoint is None:
            raise NotFoundError(f"Unknown API: {name}")
        if endpoint.writes:
            self._access.require(request)
        limit = self._hub.config.max_body_bytes if endpoint.writes else _READ_BODY_BYTES
        body = await _body(request, limit)

        if name in _AWAIT_RESTORE:
            await self._restored()

        def answer() -> Response:
            result = self._gate.call(name, endpoint, body)
            if endpoint.writes and self._acks is not None:
                self._acks.wait()
            return Pieces([b'{"data":', *result.pieces, b"}"]) if isinstance(result, Raw) else _json(result)

        limiter = self._writing if endpoint.writes else self._querying if name == "query_project" else self._reading
        return await anyio.to_thread.run_sync(answer, limiter=limiter)

    async def _restored(self) -> None:
        """Wait for a restore, in no thread: a client that begins a run asks once, and goes on without an answer."""
        with anyio.move_on_after(_RESTORE_S):
            while not self._gate.is_open:  # noqa: ASYNC110 - it opens in another thread
                await anyio.sleep(_LOOK_S)
        if not self._gate.is_restored:
            raise UnavailableError("the store is being restored from its bucket: ask again soon")

    async def upload(self, request: Request) -> Response:
        """Take files, streamed to disk; each answer is a token that only this server understands."""
        self._access.require(request)
        limit = self._hub.config.max_upload_bytes
        if not request.headers.get("content-type", "").startswith("multipart/form-data"):
            raise RequestError("files are uploaded as multipart/form-data")
        tokens: list[str] = []
        stream = _limited(request, limit + _READ_BODY_BYTES)
        async with contextlib.AsyncExitStack() as stack:
            form = await MultiPartParser(request.headers, stream, max_files=1000, max_fields=1000).parse()
            stack.push_async_callback(form.close)
            for item in form.getlist("files"):
                if isinstance(item, UploadFile):
                    store = partial(_store, self._hub.incoming, item, limit)
                    tokens.append(await anyio.to_thread.run_sync(store, limiter=self._writing))
        return JSONResponse({"paths": tokens})

    async def file(self, request: Request) -> Response:
        """Send what a value or the list of files names."""
        path = request.query_params.get("path")
        if not path:
            raise RequestError("Missing path")
        found = await self._read(partial(files.find_file, self._hub, path))
        if not found.path:
            return Response(found.text, media_type=found.media_type, headers=_ISOLATED)
        return FileResponse(found.path, media_type=found.media_type, headers=_ISOLATED)

    async def artifact_blob(self, request: Request) -> Response:
        """Send a file of an artifact."""
        path = await self._read(partial(files.blob_path, self._hub, request.path_params["digest"]))
        return FileResponse(path, media_type="application/octet-stream", headers=_ISOLATED)

    async def page(self, request: Request) -> Response:
        """Send the dashboard; whoever comes with the token in the address keeps it in a cookie."""
        if request.path_params.get("page", "") not in ui.PAGES:
            raise NotFoundError("Not found")
        if self._dashboard is None:
            text = ui.MISSING_PAGE if self._hub.config.ui == "trackio" else "<!DOCTYPE html><title>eventlog</title>"
            return HTMLResponse(text, headers=_SAFE)
        answer = HTMLResponse(await self._read(self._dashboard.page), headers=_SAFE)
        token = request.query_params.get(PARAMETER)
        if token and self._access.allows(request):
            answer.set_cookie(COOKIE, token, httponly=True, samesite="strict", path="/")
        return answer

    async def _read(self, question: Callable[[], Any]) -> Any:
        return await anyio.to_thread.run_sync(question, limiter=self._reading)


def build(hub: Hub, gate: Gate, acks: Acks | None, telemetry: Telemetry) -> Starlette:
    """Return the application of a server."""
    dashboard = ui.find_dashboard() if hub.config.ui == "trackio" else None
    app = App(hub, gate, acks, telemetry, dashboard)
    routes: list[Route | Mount] = [
        Route("/version", app.version),
        Route("/healthz", app.health),
        Route("/metrics", app.metrics),
        Route("/config.json", _config),
        Route("/eventlog/notice", app.notice),
        Route("/eventlog/notice.js", _notice_script),
        Route("/api/upload", app.upload, methods=["POST"]),
        Route("/api/{name:path}", app.call, methods=["POST"]),
        Route("/file", app.file),
        Route("/artifact_blob/{project:path}/{digest:str}", app.artifact_blob),
        Route("/", app.page),
        Route("/{page:str}", app.page),
    ]
    if dashboard is not None:
        routes[-2:-2] = [
            Mount("/assets", StaticFiles(directory=f"{dashboard.dist}/assets")),
            Mount("/static/trackio", StaticFiles(directory=dashboard.assets)),
        ]
    handlers: dict[Any, Any] = {
        RequestError: _refused,
        EventLogError: _unavailable,
        OSError: _unavailable,
        HTTPException: _http_error,
        ClientDisconnect: _gone,
        MultiPartException: _bad_form,
        MultipartParseError: _bad_form,
        Exception: _failed,
    }
    return Starlette(routes=routes, exception_handlers=handlers)


async def _config(request: Request) -> Response:
    del request
    return JSONResponse({"mode": "server"})


async def _notice_script(request: Request) -> Response:
    del request
    return Response(ui.NOTICE_SCRIPT, media_type="text/javascript", headers=_SAFE)


def _json(result: Any) -> Response:
    return Pieces([b'{"data":', dump(result), b"}"])


async def _body(request: Request, limit: int) -> bytes:
    """Return a request's body.

    Raises:
        TooLargeError: it is longer than the limit; no more than that was read.
    """
    gathered = bytearray()
    async for chunk in _limited(request, limit):
        gathered += chunk
    return bytes(gathered)


async def _limited(request: Request, limit: int) -> AsyncGenerator[bytes, None]:
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > limit:
            raise TooLargeError(f"the body has more than {limit} bytes")
        yield chunk


def _store(incoming: Incoming, item: UploadFile, limit: int) -> str:
    if (item.size or 0) > limit:
        raise TooLargeError(f"an upload has at most {limit} bytes")
    return incoming.keep(item.file)


def _error(status: int, text: str) -> Response:
    headers = {"Retry-After": "1"} if status == 503 else None
    return Response(orjson.dumps({"error": text}), status, headers, media_type="application/json")


async def _refused(request: Request, error: RequestError) -> Response:
    del request
    return _error(error.status, str(error).encode("utf-8", "backslashreplace").decode())


async def _unavailable(request: Request, error: EventLogError | OSError) -> Response:
    log.error("%s: %s", request.url.path, error)
    # Where the store is, and what of it is damaged, is for its owner: in the log.
    what = error.strerror if isinstance(error, OSError) else type(error).__name__
    return _error(503, f"the store cannot answer now: {what}")


async def _http_error(request: Request, error: HTTPException) -> Response:
    del request
    return _error(error.status_code, error.detail)


async def _bad_form(request: Request, error: Exception) -> Response:
    del request
    return _error(400, f"the form cannot be read: {error}")


async def _gone(request: Request, error: Exception) -> Response:
    del request, error
    return _error(400, "the client went away")


async def _failed(request: Request, error: Exception) -> Response:
    log.error("%s failed", request.url.path, exc_info=error)
    return _error(500, "the server failed; its log says how")
