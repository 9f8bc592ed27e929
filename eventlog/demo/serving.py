"""The end of the demo: the dashboard of its store, served by the compactor in a process of its own."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import signal
import socket
import subprocess
import sys
from typing import Final

import click

PORT: Final = 7860
_NEEDED: Final = ("starlette", "uvicorn", "orjson", "python_multipart", "prometheus_client", "watchfiles")
_GRACE_S: Final = 10.0


def serve(root: str, port: int | None = None) -> int:
    """Serve a store until the process is interrupted, print the address; return the exit code.

    Args:
        root: the store.
        port: to listen on; default 7860, or a free one when that is taken.
    """
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        click.echo(
            f"no dashboard: serving needs {missing[0]}: pip install 'eventlog[trackio]'; --no-serve leaves it out"
        )
        return 0
    command = [sys.executable, "-m", "compactor", "serve", root, "--json", "--port", str(_free(port))]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as server:  # noqa: S603 - our own interpreter and module
        try:
            line = server.stdout.readline() if server.stdout is not None else b""
            if not line:
                return server.wait()
            address = json.loads(line)
            click.echo(f"\nthe dashboard: {address['url']}/   (Ctrl-C ends it; --no-serve leaves it out)")
            click.echo(f"  to delete and rename runs: {address['url']}/?write_token={address['write_token']}")
            for note in address["notes"]:
                click.echo(f"  note: {note}")
            sys.stdout.flush()
            return server.wait()
        except KeyboardInterrupt:
            return 0
        finally:
            _end(server)


def _end(server: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        server.send_signal(signal.SIGTERM)
    try:
        server.wait(_GRACE_S)
    except subprocess.TimeoutExpired:
        server.kill()


def _free(port: int | None) -> int:
    if port is not None:
        return port
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", PORT))
        except OSError:
            return 0
        return PORT
