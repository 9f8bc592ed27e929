"""`python -m localhub --dir D --port 0`: serve the Hub on loopback, and print a line of JSON with its address."""

from __future__ import annotations

import argparse
import json
import os
import socket
import sys
import threading

import uvicorn

from localhub.app import make_app
from localhub.wire import Protocol


def _end_with_stdin() -> None:
    """Die when the process that started this one does, which closes the pipe between them."""
    sys.stdin.buffer.read()
    os._exit(0)


def main() -> None:
    """Listen on loopback only, say where, and serve until killed."""
    parser = argparse.ArgumentParser(prog="localhub", description=__doc__)
    parser.add_argument("--dir", required=True, help="where the state is kept")
    parser.add_argument("--port", type=int, default=0, help="0 for any that is free")
    parser.add_argument("--end-with-stdin", action="store_true", help="end when standard input is closed")
    options = parser.parse_args()
    if options.end_with_stdin:
        threading.Thread(target=_end_with_stdin, daemon=True).start()
    listener = socket.create_server(("127.0.0.1", options.port))
    # Connections inherit it. Without it each answer, sent as head and body, waits 40 ms for the client's delayed ACK:
    # asyncio sets it only on sockets whose protocol is named, and those of `create_server` have none.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    config = uvicorn.Config(
        make_app(options.dir), http=Protocol, ws="none", lifespan="off", log_level="warning", loop="asyncio"
    )
    sys.stdout.write(json.dumps({"url": f"http://127.0.0.1:{listener.getsockname()[1]}"}) + "\n")
    sys.stdout.flush()
    uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    main()
