"""The handle on a local Hub: starts and kills its process, sets faults, reads the log, and makes clients of it."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import httpx
import msgspec

from localhub.faults import Fault, Kind
from localhub.journal import Served
from localhub.state import OWNER_TOKEN

if TYPE_CHECKING:
    from huggingface_hub import HfApi, HfFileSystem

_FOREIGN = ("hf_", "hugging", "http_proxy", "https_proxy", "all_proxy", "no_proxy")  # in lower case


def free_port() -> int:
    """Return a free port below those of outgoing connections, so that none takes it while the Hub is down."""
    while True:
        port = random.SystemRandom().randrange(15_000, 32_000)
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


def client_environment(url: str, home: Path, token: str = OWNER_TOKEN, **more: str) -> dict[str, str]:
    """Return the environment for a process whose client knows this Hub and nothing of the machine's owner."""
    kept = {name: value for name, value in os.environ.items() if not name.lower().startswith(_FOREIGN)}
    mine = {
        "HF_ENDPOINT": url,
        "HF_TOKEN": token,
        "HF_HOME": str(home),
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_UPDATE_CHECK": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_XET_TELEMETRY_ENABLED": "0",
        "HF_XET_CLIENT_RETRY_BASE_DELAY": "10ms",
        "NO_PROXY": "127.0.0.1",
    }
    return {**kept, **mine, **more}


class LocalHub:
    """A Hub in a process of its own, on loopback, with its state in a directory.

    Attributes:
        directory: the state; a new Hub on the same directory knows all that the old one knew.
        url: the address, the same after each start.
        process: the process that runs now.
    """

    def __init__(self, directory: Path) -> None:
        """Start the Hub."""
        self.directory = directory
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = directory.parent / f"{directory.name}.log"
        # A connection that is kept would be one to a process that has been killed since.
        limits = httpx.Limits(max_keepalive_connections=0)
        self.control = httpx.Client(base_url=self.url, timeout=60, trust_env=False, limits=limits)
        self.start()

    # The process.

    def start(self) -> None:
        """Start the process and wait until it listens."""
        command = [sys.executable, "-m", "localhub", "--dir", str(self.directory), "--port", str(self.port)]
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
        with self.log.open("ab") as errors:
            self.process = subprocess.Popen(
                [*command, "--end-with-stdin"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=environment,
            )
        line = self.process.stdout.readline()
        if not line:
            self._reap()
            raise AssertionError(f"the local Hub did not start:\n{self.log.read_text()}")
        assert json.loads(line)["url"] == self.url

    def kill(self) -> None:
        """Kill -9."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
        self._reap()

    def answers(self) -> bool:
        """Tell whether the Hub answers; one that is being killed may still take connections."""
        try:
            return self.control.get("/-/ready").status_code == 200
        except httpx.TransportError:
            return False

    def revive(self) -> None:
        """Start the Hub again if it is dead or dying, and return when it answers."""
        while not self.answers():
            if self.process.poll() is not None:
                self._reap()
                self.start()
            time.sleep(0.01)

    def _reap(self) -> None:
        self.process.wait(60)
        self.process.stdin.close()
        self.process.stdout.close()

    def restart(self) -> None:
        """Kill -9 and start again on what is on disk."""
        self.kill()
        self.start()

    def close(self) -> None:
        """End the Hub; none of its requests may have failed inside."""
        self.control.close()
        self.kill()
        assert "Traceback" not in self.log.read_text(), self.log.read_text()

    # What a test tells it and asks it.

    def _call(self, method: str, path: str, value: object = None, **query: Any) -> bytes:
        content = None if value is None else msgspec.json.encode(value)
        answer = self.control.request(method, f"/-/{path}", content=content, params=query)
        assert answer.status_code == 200, answer.text
        return answer.content

    def set_fault(self, fault: Fault) -> None:
        """Let requests fail from now on."""
        self._call("POST", "faults", fault)

    def fault(self, kind: Kind, **facts: Any) -> None:
        """Let requests fail from now on; see `Fault` for which and how."""
        self.set_fault(Fault(kind=kind, **facts))

    def clear_faults(self) -> None:
        """Let all requests pass again."""
        self._call("DELETE", "faults")

    @contextlib.contextmanager
    def faulty(self, kind: Kind, **facts: Any) -> Iterator[None]:
        """Let requests fail inside the block; the fault must have befallen one."""
        mark = self.mark()
        self.fault(kind, **facts)
        yield
        self.clear_faults()
        assert any(served.fault for served in self.requests(mark)), f"{kind} befell no request"

    def requests(self, since: int = 0) -> list[Served]:
        """Return the log after the request of a number."""
        return msgspec.json.decode(self._call("GET", "requests", since=since), type=list[Served])

    def mark(self) -> int:
        """Return the number of the latest request, for `requests`."""
        return max((served.number for served in self.requests()), default=0)

    def set(self, **settings: Any) -> None:
        """Change settings; `localhub.state.DEFAULTS` names them."""
        self._call("POST", "settings", settings)

    def token(self, token: str, **facts: Any) -> str:
        """Make or change a token.

        Args:
            token: the token itself, which is returned.
            facts: `user`; `role`, which is "read", "write" or "fineGrained", then with `only`, a list of ids; and where
                they differ from a free account without billing, `plan`, `billing` and `expired`.
        """
        self._call("POST", "tokens", {"token": token, **facts})
        return token

    def save(self, name: str = "start") -> None:
        """Keep all that the Hub knows, under a name."""
        self._call("POST", f"save/{name}")

    def load(self, name: str = "start") -> None:
        """Go back to what was kept; the log and the faults stay."""
        self._call("POST", f"load/{name}")

    # Clients in this process.

    def api(self, token: str | Literal[False] = OWNER_TOKEN) -> HfApi:
        """Return a client; with False as its token, one that is nobody."""
        from huggingface_hub import HfApi

        return HfApi(endpoint=self.url, token=token)

    def filesystem(self, token: str = OWNER_TOKEN) -> HfFileSystem:
        """Return a file system with caches of its own."""
        from huggingface_hub import HfFileSystem

        return HfFileSystem(endpoint=self.url, token=token, skip_instance_cache=True)
