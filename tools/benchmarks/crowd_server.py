"""Trackio's own server for `tools/bench crowd`, in Trackio's environment; with SYSTEM=spaces as a Space runs it."""

from __future__ import annotations

import json
import os
import socket
from typing import Any

import uvicorn
from trackio.server import build_starlette_app_only


class HubToken:
    """Gives each request the token that the Hub's clients send to a Space: this machine has no Hub to log in at."""

    def __init__(self, app: Any, token: str) -> None:
        """Stand before an application."""
        self._app = app
        self._header = (b"authorization", f"Bearer {token}".encode())

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        """Answer as the application does."""
        if scope["type"] == "http":
            scope = {**scope, "headers": [*scope["headers"], self._header]}
        await self._app(scope, receive, send)


def main() -> None:
    """Serve; the address is the first line of output."""
    listening = socket.create_server(("127.0.0.1", 0))
    app, _ = build_starlette_app_only()
    if os.environ.get("SYSTEM") == "spaces":
        app = HubToken(app, os.environ["HF_TOKEN"])
    print(json.dumps({"url": f"http://127.0.0.1:{listening.getsockname()[1]}"}), flush=True)
    uvicorn.Server(uvicorn.Config(app, log_level="warning")).run(sockets=[listening])


if __name__ == "__main__":
    main()
