"""The client in a process of its own: it goes where `HF_ENDPOINT` says, as whom `HF_TOKEN` says, and nowhere else."""

from __future__ import annotations

import socket
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from localhub.process import LocalHub, client_environment

# Reports every address that Python asks for a connection to; hf_xet's are its own, and meet the trap.
PRELUDE = """
import sys
asked = []
sys.addaudithook(lambda event, args: asked.append(str(args)) if event == "socket.getaddrinfo" else None)
from huggingface_hub import HfApi, HfFileSystem
"""
WORK = """
api = HfApi()
print(api.whoami()["name"])
api.create_bucket("owner/b")
api.batch_bucket_files("owner/b", add=[(bytes(range(256)) * 1000, "f")])
api.download_bucket_files("owner/b", [("f", "out")])
with HfFileSystem().open("hf://buckets/owner/b/f") as file:
    file.seek(255)
    print(file.read(1)[0])
api.create_repo("owner/d", repo_type="dataset")
api.upload_file(path_or_fileobj=bytes(1000), path_in_repo="x", repo_id="owner/d", repo_type="dataset")
api.hf_hub_download("owner/d", "x", repo_type="dataset")
print(sorted({text.split("'")[1] for text in asked}))
"""


class Trap:
    """A proxy that no request may reach: it notes the first line of each and answers 502."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        self.caught: list[str] = []
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            with connection:
                self.caught.append(connection.recv(4096).split(b"\r\n")[0].decode())
                connection.sendall(b"HTTP/1.1 502 Trapped\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")

    def close(self) -> None:
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self.thread.join()


@pytest.fixture
def trap() -> Iterator[Trap]:
    made = Trap()
    yield made
    made.close()


def run(hub: LocalHub, home: Path, code: str, trap: Trap, **more: str) -> subprocess.CompletedProcess[str]:
    home.mkdir()
    proxies = {f"{scheme}_{how}": trap.url for scheme in ("http", "https", "all") for how in ("proxy", "PROXY")}
    proxies = {name if name.endswith("proxy") else name.upper(): url for name, url in proxies.items()}
    environment = client_environment(hub.url, home, **{**proxies, "no_proxy": "127.0.0.1", **more})
    command = [sys.executable, "-c", textwrap.dedent(PRELUDE + code)]
    return subprocess.run(command, env=environment, cwd=home, capture_output=True, text=True, timeout=120, check=False)


def test_a_whole_round_leaves_loopback_nowhere(hub: LocalHub, tmp_path: Path, trap: Trap) -> None:
    mark = hub.mark()
    done = run(hub, tmp_path / "home", WORK, trap)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["owner", "255", "['127.0.0.1']"]
    assert trap.caught == []
    served = hub.requests(mark)
    assert {one.host for one in served} == {hub.url.removeprefix("http://")}
    assert sum(one.route.startswith("POST /v1/xorbs") for one in served) == 2
    assert (tmp_path / "home" / "out").read_bytes() == bytes(range(256)) * 1000
    assert (tmp_path / "home" / "xet").is_dir()
    assert (tmp_path / "home" / "hub").is_dir()


def test_the_trap_catches_python_and_hf_xet_alike(hub: LocalHub, tmp_path: Path, trap: Trap) -> None:
    code = """
    import hf_xet
    from huggingface_hub.utils import get_session
    print(get_session().get("http://elsewhere.invalid/python").status_code)
    session = hf_xet.XetSession()
    try:
        with session.new_upload_commit(
            token_refresh_url="http://elsewhere.invalid/xet", token_refresh_headers={}, custom_headers={}
        ) as commit:
            commit.start_upload_bytes(b"x" * 100_000, sha256=hf_xet.SKIP_SHA256)
    except Exception as error:
        print(type(error).__name__)
    """
    done = run(hub, tmp_path / "home", textwrap.dedent(code), trap, HF_XET_CLIENT_RETRY_MAX_ATTEMPTS="1")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == "502"
    paths = {line.split(" ")[1] for line in trap.caught}
    assert {"http://elsewhere.invalid/python", "http://elsewhere.invalid/xet"} <= paths


def test_an_expired_token_of_the_environment_is_told_apart_from_a_missing_bucket(
    hub: LocalHub, tmp_path: Path, trap: Trap
) -> None:
    hub.token("hf_expired", user="owner", role="write", expired=True)
    code = """
    from huggingface_hub.errors import BucketNotFoundError, HfHubHTTPError
    for token in (None, "hf_owner_write"):
        try:
            HfApi(token=token).bucket_info("owner/absent")
        except BucketNotFoundError:
            print("absent")
        except HfHubHTTPError as error:
            print(error.response.status_code)
    """
    done = run(hub, tmp_path / "home", textwrap.dedent(code), trap, HF_TOKEN="hf_expired")
    assert done.stdout.splitlines() == ["401", "absent"], done.stderr
    assert trap.caught == []


def test_the_hub_listens_on_loopback_alone(hub: LocalHub) -> None:
    port = f"{hub.port:04X}"
    rows = [line.split() for name in ("tcp", "tcp6") for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]]
    listening = [row[1] for row in rows if row[3] == "0A" and row[1].endswith(":" + port)]
    assert listening == [f"0100007F:{port}"]
