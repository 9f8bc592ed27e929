"""One process that serves a store and, unless told not to, compacts it."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Final

import msgspec
import uvicorn
from starlette.applications import Starlette
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from compactor.config import CompactorConfig
from compactor.serve import ui
from compactor.serve.acks import Acks
from compactor.serve.app import build
from compactor.serve.config import ServeConfig
from compactor.serve.gate import Gate
from compactor.serve.hub import Hub
from compactor.serve.telemetry import Telemetry
from compactor.service import Service
from eventlog import names
from eventlog.errors import StorageError, UsageError
from eventlog.fs import LOCAL
from eventlog.hub.address import parse_bucket
from eventlog.hub.bucket import Bucket
from eventlog.hub.ship import Memory, ship

_GRACE_S = 5
_MAX_HEAD_BYTES: Final = 65_536
_TOO_LARGE: Final = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-type: application/json\r\ncontent-length: 29\r\n"
    b'connection: close\r\n\r\n{"error":"Headers too large"}'
)


class Address(msgspec.Struct, frozen=True):
    """Where a server is, and how to use it.

    Attributes:
        url: without a slash at the end.
        write_token: what writers send.
        made: the token was made for this start.
        notes: what people should know.
    """

    url: str
    write_token: str
    made: bool
    notes: list[str]


def serve(
    root: str,
    config: ServeConfig,
    compaction: CompactorConfig,
    *,
    token_made: bool = False,
    on_ready: Callable[[Address], None] = lambda _: None,
) -> None:
    """Serve until SIGTERM or SIGINT: then take nothing more, seal what was taken, and return.

    Being killed loses nothing that was answered with 200.

    Args:
        root: the store; its directory is created.
        config: settings of the server.
        compaction: settings of the compactor.
        token_made: the token was made for this start, so people have to be told.
        on_ready: told the address once it is listened on.

    Raises:
        UsageError: no host can have that name.
        StorageError: the address is taken, or the store cannot be created.
    """
    try:
        LOCAL.make_dirs(names.segments_dir(root), durable=False)
        listening = _listen(config.host, config.port)
    except UnicodeError as error:
        raise UsageError(f"{config.host!r} is no name of a host: {error}") from error
    except OSError as error:
        raise StorageError(error.errno or 0, f"cannot serve {root} on {config.host}:{config.port}: {error}") from error
    hub = Hub(root, config)
    hub.incoming.clean()
    gate, acks, telemetry = Gate(hub), _acks(hub), Telemetry(hub)
    server = uvicorn.Server(_settings(build(hub, gate, acks, telemetry)))
    with contextlib.closing(listening), _stopping(server), _compacting(root, config, compaction, telemetry):
        try:
            on_ready(_address(config, listening, made=token_made))
            gate.start()
            server.run(sockets=[listening])
        finally:
            if acks is not None:
                acks.close()
            gate.close()
            hub.close()


def _settings(app: Starlette) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http=_LimitedProtocol,
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=_GRACE_S,
        lifespan="off",
    )


def _acks(hub: Hub) -> Acks | None:
    """Return what waits for the bucket, when writes are to be answered only then."""
    if hub.config.ack != "bucket":
        return None
    bucket, memory = Bucket(parse_bucket(hub.config.bucket)), Memory()

    def push() -> None:
        hub.roll()
        shipped = ship(hub.root, bucket, memory=memory)
        mine = hub.writer_ids()
        for path in shipped.conflicts:
            if os.path.basename(os.path.dirname(path)) in mine:
                raise StorageError(errno.EEXIST, f"{bucket} holds other records than {path}")

    return Acks(push)


class _LimitedProtocol(HttpToolsProtocol):
    """HTTP with a limit on what is no body: the parser takes addresses, headers, chunk lines and trailers without end.

    Bodies are limited where they are read.
    """

    _waiting_bytes = 0

    def data_received(self, data: bytes) -> None:
        """Parse what came; when that has been no whole head and no body for too long, end the connection."""
        self._waiting_bytes += len(data)
        super().data_received(data)
        if self._waiting_bytes > _MAX_HEAD_BYTES and not self.transport.is_closing():
            if self.cycle is None or self.cycle.response_complete:
                self.transport.write(_TOO_LARGE)
            self.transport.close()

    def on_headers_complete(self) -> None:
        """Go on to the body."""
        self._waiting_bytes = 0
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Take a part of the body."""
        self._waiting_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Go on to the next request."""
        self._waiting_bytes = 0
        super().on_message_complete()


@contextlib.contextmanager
def _stopping(server: uvicorn.Server) -> Iterator[None]:
    """Stop at SIGTERM and SIGINT, and return: uvicorn raises them once more when it has stopped, which ends nothing."""

    def handle(number: int, frame: FrameType | None) -> None:
        del number, frame
        server.should_exit = True

    previous = {number: signal.signal(number, handle) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family, backlog=2048)


def _address(config: ServeConfig, listening: socket.socket, *, made: bool) -> Address:
    host, port = listening.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else {"0.0.0.0": "127.0.0.1"}.get(host, host)  # noqa: S104 - shown, not bound
    notes: list[str] = []
    if config.ui == "trackio":
        dashboard = ui.find_dashboard()
        if dashboard is None:
            notes.append("no dashboard: pip install 'eventlog[trackio]'")
        elif not dashboard.is_tested:
            tested = ", ".join(sorted(ui.TESTED))
            notes.append(
                f"the dashboard of trackio {dashboard.version} is untested with this release (tested: {tested})"
            )
    return Address(f"http://{shown}:{port}", config.write_token, made, notes)


@contextlib.contextmanager
def _compacting(root: str, config: ServeConfig, compaction: CompactorConfig, telemetry: Telemetry) -> Iterator[None]:
    if not config.compact:
        yield
        return
    service = Service(root, compaction, on_turn=telemetry.note)
    thread = threading.Thread(target=service.run, name="compactor", daemon=True)
    thread.start()
    try:
        yield
    finally:
        service.stop()
        thread.join(_GRACE_S)


def make_token(given: str | None) -> tuple[str, bool]:
    """Return (the write token, whether it was made now): as given, else $TRACKIO_WRITE_TOKEN, else a fresh one."""
    token = given if given is not None else os.environ.get("TRACKIO_WRITE_TOKEN")
    return (secrets.token_urlsafe(24), True) if token is None else (token, False)
