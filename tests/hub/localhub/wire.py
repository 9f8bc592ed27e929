"""Between the socket and the routes: writes the log, and does to a request what its fault says."""

from __future__ import annotations

import asyncio
import functools
import socket
import struct

import msgspec
from starlette.applications import Starlette
from starlette.routing import Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from localhub.faults import BEFORE, Fault, kill_hub, refusal
from localhub.journal import Journal, Served

CONTROL = "/-/"
_TRANSPORT = "localhub.transport"


class Protocol(H11Protocol):
    """Uvicorn's HTTP protocol, which also hands each request the transport it came on."""

    def connection_made(self, transport: asyncio.Transport) -> None:
        super().connection_made(transport)
        self.app = functools.partial(_with_transport, self.app, transport)


async def _with_transport(
    app: ASGIApp, transport: asyncio.Transport, scope: Scope, receive: Receive, send: Send
) -> None:
    scope[_TRANSPORT] = transport
    await app(scope, receive, send)


async def _read_body(receive: Receive) -> bytes | None:
    """Return the body, or None when the caller went away before it had come."""
    parts = []
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        parts.append(message.get("body", b""))
        if not message.get("more_body", False):
            return b"".join(parts)


async def _hang_up(scope: Scope, receive: Receive, *, reset: bool) -> None:
    """Close the connection, after what was written to it or, with `reset`, at once and with an RST."""
    transport = scope[_TRANSPORT]
    if reset:
        linger = struct.pack("ii", 1, 0)
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        transport.abort()
    else:
        transport.close()
    while (await receive())["type"] != "http.disconnect":
        pass


class Reply:
    """What the routes answered, kept until it is known what goes out."""

    def __init__(self) -> None:
        self.start: Message = {}
        self.body = b""

    async def take(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.start = message
        else:
            self.body += message.get("body", b"")

    async def send(self, send: Send) -> None:
        await send(self.start)
        await send({"type": "http.response.body", "body": self.body})


class Wire:
    """The ASGI application around the routes."""

    def __init__(self, app: Starlette, journal: Journal) -> None:
        self.app = app
        self.journal = journal

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"].startswith(CONTROL):
            await self.app(scope, receive, send)
            return
        served = self._note(scope)
        fault = self.journal.meet(scope["method"], scope["path"], served.route)
        if fault:
            served = msgspec.structs.replace(served, fault=fault.kind)
            self.journal.put(served)
        if fault and fault.kind == "reset-before":
            await _hang_up(scope, receive, reset=True)
            return
        body = await _read_body(receive)
        if body is None:
            return
        served = msgspec.structs.replace(served, received=len(body))
        self.journal.put(served)
        reply = await self._answer(scope, body, fault)
        sent = await self._deliver(scope, receive, send, reply, fault)
        if sent is not None:
            self.journal.put(msgspec.structs.replace(served, sent=sent, status=reply.start["status"]))

    def _note(self, scope: Scope) -> Served:
        headers = {key.decode("latin-1"): value.decode("latin-1") for key, value in scope["headers"]}
        served = Served(
            number=self.journal.next_number(),
            method=scope["method"],
            path=scope["path"],
            query=scope["query_string"].decode("latin-1"),
            route=f"{scope['method']} {self._pattern(scope)}",
            host=headers.get("host", ""),
            range=headers.get("range", ""),
            authorized="authorization" in headers,
        )
        self.journal.put(served)
        return served

    def _pattern(self, scope: Scope) -> str:
        return next((route.path for route in self.app.routes if route.matches(scope)[0] == Match.FULL), "unknown")

    async def _answer(self, scope: Scope, body: bytes, fault: Fault | None) -> Reply:
        """Let the routes answer, unless the fault comes before them."""
        reply = Reply()

        async def receive() -> Message:
            return {"type": "http.request", "body": body}

        if fault and fault.kind == "kill-before":
            kill_hub()
        if fault is None or fault.kind not in BEFORE:
            await self.app({**scope, "localhub.fault": fault}, receive, reply.take)
        error = refusal(fault) if fault else None
        if error:
            answer = error.answer()
            if fault.kind == "rate-limit":
                answer.headers["Retry-After"] = str(fault.retry_after)
            reply = Reply()
            await answer(scope, receive, reply.take)
        return reply

    async def _deliver(
        self, scope: Scope, receive: Receive, send: Send, reply: Reply, fault: Fault | None
    ) -> int | None:
        """Send the reply, or what the fault leaves of it; return its bytes' number, or None when nothing went out."""
        kind = fault.kind if fault else ""
        if kind == "kill-after":
            kill_hub()
        if kind in {"reset-after", "lost-reply"}:
            await _hang_up(scope, receive, reset=kind == "reset-after")
            return None
        if kind == "wrong-bytes" and reply.body:
            middle = len(reply.body) // 2
            reply.body = reply.body[:middle] + bytes([reply.body[middle] ^ 0xFF]) + reply.body[middle + 1 :]
        if kind == "short-body":
            half = reply.body[: len(reply.body) // 2]
            await send(reply.start)
            await send({"type": "http.response.body", "body": half, "more_body": True})
            await _hang_up(scope, receive, reset=False)
            return len(half)
        if kind == "slow":
            await self._drip(send, reply, fault)
        else:
            await reply.send(send)
        return 0 if scope["method"] == "HEAD" else len(reply.body)

    async def _drip(self, send: Send, reply: Reply, fault: Fault) -> None:
        await send(reply.start)
        for at in range(0, len(reply.body), fault.piece):
            await send({"type": "http.response.body", "body": reply.body[at : at + fault.piece], "more_body": True})
            await asyncio.sleep(fault.pause)
        await send({"type": "http.response.body"})
