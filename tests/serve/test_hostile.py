"""Hostile clients: names that lead elsewhere, wrong tokens, endless bodies; nothing gets out, nothing breaks in."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from compactor.serve.api import ENDPOINTS
from eventlog.store import open_store
from eventlog.testing.strategies import HOSTILE_NAMES

LABELS = [
    *("../../x", "..", ".", "/etc/passwd", "a\\..\\..\\b", "C:\\windows\\x", "nul\0name", "x" * 4096, "🦀.png", "CON"),
    *("con.txt", "a/../../b", "%2e%2e%2fx", "-rf", " ", "\n", "f\r\nSet-Cookie: a=b", "<script>.html", "\u202egpj.exe"),
    *("a//b///c", "....//x", "~/x", "$HOME", "file:///etc/passwd", "\ufeff", "e\u0301", "a\tb", "'; drop table", "."),
]
PLACES = [
    *("/etc/passwd", "../../../../etc/passwd", "media/../../../etc/passwd", "file:///etc/passwd", "p/../../secret"),
    *(
        "secret",
        "../secret",
        "..\\secret",
        "%2e%2e/secret",
        "p/files/../../../secret",
        "blob/../../../secret",
        "media/",
    ),
    *(
        "blob/",
        "blob/x",
        "inline/",
        "inline/x.html",
        "inline/bnVsbA.html",
        "segments/p",
        "index/p/lock",
        "p",
        "p/",
        "/",
    ),
    *("\0", "p/\0", "blobs/sha256", "p/a", "p/a/0", "p/files", "p/files/", "~/.ssh/id_rsa", "x" * 9000, ".", ".."),
]


def tree(directory: Path) -> dict[str, bytes]:
    """Return every file below a directory but those of the store, with its bytes."""
    found = {}
    for path in directory.rglob("*"):
        if path.is_file() and "store" not in path.relative_to(directory).parts and path.suffix != ".log":
            found[str(path)] = path.read_bytes()
    return found


def last_place(state: Any) -> str:
    """Return the path of the last upload that the store tells of."""
    events = open_store(state.root).events("p", kinds="upload")
    _, payload = max(zip(events["_seq"].to_pylist(), events["payload"].to_pylist(), strict=True))
    return json.loads(payload)["path"]


def test_no_name_of_an_upload_leads_out_of_the_blobs(server, state, tmp_path):
    (tmp_path / "secret").write_text("secret")
    before = tree(tmp_path)
    sent = {}
    for index, label in enumerate(LABELS):
        for kind, more in {
            "media": {"run": "a", "run_id": "r", "step": index},
            "file": {"run": None, "relative_path": label},
            "rooted": {"run": None, "relative_path": None},
        }.items():
            data = f"{index} {kind}".encode()
            staged = {"path": server.upload(data, name="x"), "orig_name": label}
            entry = {"project": "p", "uploaded_file": staged, **more}
            answer = server.post("bulk_upload_media", uploads=[entry])
            assert answer.status_code == (
                400 if kind == "file" and ".." in label.replace("\\", "/").split("/") else 200
            )
            if answer.status_code == 200:
                sent[last_place(state)] = data
    assert tree(tmp_path) == before
    kept = {path for path in state.files() if path.startswith("blobs")}
    digests = {hashlib.sha256(data).hexdigest() for data in sent.values()}
    assert {os.path.basename(path) for path in kept} >= digests
    assert {path.split("/")[0] for path in state.files()} == {"blobs", "segments"}
    assert not list((state.root / "incoming").iterdir())
    for place, data in sent.items():
        parts = place.split("/")
        assert place.startswith(("p/a/", "p/files/"))
        assert not {"..", ".", ""} & set(parts)
        assert "\0" not in place
        answer = server.file(place)
        assert (answer.status_code, answer.content) == (200, data), place
        assert "set-cookie" not in answer.headers
    state.proven()


def test_a_path_gets_what_was_uploaded_under_it_or_nothing(server, state, entry, tmp_path):
    (tmp_path / "secret").write_text("secret")
    (state.root / "secret").write_text("secret")
    assert server.logs([entry("1")]).status_code == 200
    segments = [f"{'../' * up}{path}" for path in state.files() for up in range(3)]
    for place in [*PLACES, *segments, *(f"p/files/{path}" for path in PLACES), *(f"media/{path}" for path in PLACES)]:
        answer = server.file(place)
        assert answer.status_code == 404, place
        assert answer.json() == {"error": "Not found"}
    assert server.http.get("/file").status_code == 400
    digest = hashlib.sha256(b"x").hexdigest()
    for path in (
        f"/artifact_blob/p/{digest}",
        "/artifact_blob/p/..%2f..%2fsecret",
        "/artifact_blob/p/",
        "/artifact_blob/",
    ):
        assert server.http.get(path, follow_redirects=True).status_code == 404


def test_only_what_the_server_gave_out_can_be_claimed_and_only_once(server, state):
    def claim(path: Any) -> int:
        entry = {"project": "p", "run": "a", "step": 0, "uploaded_file": {"path": path, "orig_name": "f"}}
        return server.post("bulk_upload_media", uploads=[entry]).status_code

    def claim_blob(path: Any, digest: str) -> int:
        uploads = [{"digest": digest, "uploaded_file": {"path": path}}]
        return server.post("bulk_upload_artifact_blob", project="p", uploads=uploads).status_code

    passwd = hashlib.sha256(Path("/etc/passwd").read_bytes()).hexdigest()
    token = server.upload(b"mine")
    mine = state.root / "incoming" / token
    for path in (
        "/etc/passwd",
        "../../etc/passwd",
        str(mine),
        f"./{token}",
        token.upper(),
        token[:-1],
        "",
        "\0",
        None,
        7,
    ):
        assert claim(path) == 400
        assert claim_blob(path, passwd) == 400
    assert [claim("0" * 32), claim_blob("0" * 32, passwd)] == [503, 503]
    assert mine.read_bytes() == b"mine"
    assert not [path for path in state.files() if not path.startswith("incoming")]
    assert claim_blob(token, passwd) == 400
    assert not mine.exists()
    assert server.call("check_artifact_blobs", project="p", digests=[passwd]) == {"present": []}
    token = server.upload(b"mine")
    assert [claim(token), claim(token)] == [200, 503]
    assert len(state.events("upload")) == 1
    for digest in ("../../../etc/passwd", "A" * 64, "0" * 63, "", "\0" * 64):
        assert server.post("check_artifact_blobs", project="p", digests=[digest]).status_code == 400
        assert claim_blob(server.upload(b"x"), digest) == 400


def projects() -> Iterator[str]:
    for name in (*HOSTILE_NAMES, "file:///etc", "p'; drop table metrics; --", "<img src=x>", "${jndi:x}", "a\r\nb"):
        if name and len(name.encode()) < 60:
            yield name


def test_hostile_names_of_projects_runs_and_metrics_are_inert_and_come_back_as_they_were(
    server, entry, state, tmp_path
):
    before = tree(tmp_path)
    names = list(projects())
    for index, name in enumerate(names):
        logs = [
            entry(f"{index}-{step}", step, project=name, run=name, run_id=name, metrics={name: step / 8})
            for step in (0, 1)
        ]
        assert server.logs(logs).status_code == 200, name
        alert = {"project": name, "run": name, "run_id": name, "title": name, "text": name, "alert_id": name}
        assert server.post("bulk_alert", alerts=[alert]).status_code == 200
    assert server.call("get_all_projects") == sorted(names) == open_store(state.root).projects()
    for name in names:
        assert [(run["id"], run["name"]) for run in server.call("get_runs_for_project", project=name)] == [(name, name)]
        assert server.call("get_metrics_for_run", project=name, run=name) == [name]
        values = server.call("get_metric_values", project=name, run=name, metric_name=name)
        assert [(item["step"], item["value"]) for item in values] == [(0, 0.0), (1, 0.125)]
        assert [row[name] for row in server.call("get_logs", project=name, run=name)] == [0.0, 0.125]
        (alert,) = server.call("get_alerts", project=name)
        assert (alert["run"], alert["title"], alert["text"]) == (name, name, name)
        rows = open_store(state.root).metrics(name, names=[name], narrow=True)
        assert rows["name"].to_pylist() == [name, name]
        assert server.call("query_project", project=name, query="select run_id, name from runs")["rows"] == [
            {"run_id": name, "name": name}
        ]
    assert tree(tmp_path) == before
    assert server.http.get("/metrics").status_code == 200
    state.proven()
    for name in names[::5]:
        state.fold(name)
        assert [row[name] for row in server.call("get_logs", project=name, run=name)] == [0.0, 0.125]
    state.proven()


def test_names_that_nothing_can_hold_are_refused(server, entry, state):
    for more in ({"project": "x" * 201}, {"project": "é" * 67}, {"run": "x" * 4097}, {"run_id": "x" * 4097}):
        assert server.logs([entry("1", **more)]).status_code == 400
    assert state.files() == {}
    assert server.call("get_all_projects") == []


def wrong_ways(token: str) -> Iterator[dict[str, Any]]:
    for given in ("", "wrong", token[:-1], f"{token}x", token.upper(), "null", "0"):
        yield {"headers": {"x-trackio-write-token": given}}
        yield {"headers": {"cookie": f"trackio_write_token={given}"}}
        yield {"params": {"write_token": given}}
    yield {}
    yield {"headers": {"authorization": f"Bearer {token}"}}
    yield {"headers": {"x-trackio-write-token": "wrong", "cookie": f"trackio_write_token={token}"}}


def test_every_call_that_writes_needs_the_token_and_no_call_that_reads_does(server, entry, state):
    assert server.logs([entry("1")]).status_code == 200
    files = state.files()
    body = {"project": "p", "run": "a", "logs": [entry("2")], "alerts": [], "uploads": [], "metrics": {"x": 1.0}}
    body |= {"old_name": "a", "new_name": "b", "name": "n", "metric_name": "x", "version_id": 1, "query": "select 1"}
    body |= {"runs": [], "digests": [], "type": "t"}
    with httpx.Client(base_url=server.url, trust_env=False) as stranger:
        for name, endpoint in ENDPOINTS.items():
            for way in wrong_ways(server.token) if endpoint.writes else ({},):
                answer = stranger.post(f"/api/{name}", json=body, **way)
                assert answer.status_code == (403 if endpoint.writes else 200), (name, way, answer.text)
        for way in wrong_ways(server.token):
            assert stranger.post("/api/upload", files={"files": ("f", b"x")}, **way).status_code == 403
        assert state.files() == files
        assert not (state.root / "incoming").exists()
        for way in (
            {"headers": {"x-trackio-write-token": server.token}},
            {"headers": {"cookie": f"trackio_write_token={server.token}"}},
            {"params": {"write_token": server.token}},
        ):
            assert stranger.post("/api/force_sync", json={}, **way).json() == {"data": True}
        page = stranger.get("/", params={"write_token": "wrong"})
        assert "set-cookie" not in page.headers
    assert server.token not in server.log.read_text()


def test_an_empty_token_lets_everybody_write_on_loopback_and_starts_nowhere_else(serving, entry, tmp_path):
    server = serving(token="")
    del server.http.headers["x-trackio-write-token"]
    assert server.logs([entry("1")]).status_code == 200
    for host in ("0.0.0.0", "::"):
        command = [sys.executable, "-m", "compactor", "serve", str(tmp_path / "other"), "--port", "0", "--host", host]
        done = subprocess.run([*command, "--write-token", ""], capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode != 0
        assert "empty write token" in done.stderr
        assert "--write-token" in done.stderr
        assert "Traceback" not in done.stderr
    assert not (tmp_path / "other").exists()


def test_nothing_lists_a_directory(server, entry):
    assert server.logs([entry("1")]).status_code == 200
    paths = ("/assets", "/assets/", "/static/trackio", "/static/trackio/", "/static/", "/segments", "/blobs/", "/index")
    for path in (
        *paths,
        "/file?path=p/",
        "/artifact_blob/p/",
        "/assets/..%2f..%2f..%2f__init__.py",
        "/static/trackio/../x",
    ):
        answer = server.http.get(path, follow_redirects=True)
        assert answer.status_code == 404, path
        assert len(answer.content) < 100


def test_errors_say_what_is_wrong_and_nothing_of_the_inside(server, state):
    multipart = {"content-type": "multipart/form-data; boundary=x"}
    answers = [
        server.http.post("/api/bulk_log", content=b"{"),
        server.http.post("/api/bulk_log", content=b"\xff\xfe"),
        server.http.post("/api/bulk_log", json={"kwargs": {"logs": "x"}}),
        server.http.post("/api/bulk_log", json={"kwargs": []}),
        server.http.post("/api/no_such_call", json={}),
        server.http.post("/api/", json={}),
        server.http.get("/api/bulk_log"),
        server.http.put("/api/bulk_log", json={}),
        server.http.get("/no/such/page"),
        server.http.get("/no-such-page"),
        server.http.get("/file", params={"path": "/etc/passwd"}),
        server.http.post("/api/upload", content=b"x"),
        server.http.post("/api/upload", content=b"x", headers={"content-type": "multipart/form-data"}),
        server.http.post("/api/upload", content=b"garbage", headers=multipart),
        server.http.post("/api/upload", content=b"--x\r\nno header", headers=multipart),
        server.http.post("/api/query_project", json={"project": "p", "query": "select"}),
        server.post("bulk_upload_media", uploads=[{"project": "p", "uploaded_file": {"path": "0" * 32}}]),
    ]
    assert [answer.status_code for answer in answers] == [
        *[400] * 4,
        404,
        404,
        405,
        405,
        *[404] * 3,
        *[400] * 4,
        404,
        503,
    ]
    for answer in answers:
        assert list(answer.json()) == ["error"]
        for hint in ("Traceback", ".py", str(state.root), "site-packages", "0x"):
            assert hint not in answer.text


def endless(size: int) -> Iterator[bytes]:
    for _ in range(size // 1000):
        yield b" " * 1000


def test_bodies_beyond_the_limits_are_refused_whether_they_say_their_length_or_not(serving, entry, state):
    server = serving("--max-body", "2000", "--max-upload", "5000")
    assert server.logs([entry("1")]).status_code == 200
    files = state.files()
    for content in (b" " * 2001, endless(3000)):
        assert server.http.post("/api/bulk_log", content=content).status_code == 413
    for content in (b" " * 5_000_000, endless(5_000_000)):
        assert server.http.post("/api/get_all_projects", content=content).status_code == 413
    head = b'--x\r\nContent-Disposition: form-data; name="files"; filename="f"\r\n\r\n'
    for size in (5001, 100_000, 5_000_000):
        for content in (head + bytes(size) + b"\r\n--x--\r\n", iter([head, *endless(size), b"\r\n--x--\r\n"])):
            if size > 5001 or isinstance(content, bytes):
                multipart = {"content-type": "multipart/form-data; boundary=x"}
                assert server.http.post("/api/upload", content=content, headers=multipart).status_code == 413
    assert state.files() == files
    assert not (state.root / "incoming").exists()
    assert server.file("x").status_code == 404
    assert server.upload(bytes(5000))
    assert server.logs([entry("2", 1)]).status_code == 200
    assert state.values()["a"].total() == 2


def test_what_comes_before_or_behind_a_body_has_an_end(server, state):
    chunked = b"POST /api/get_all_projects HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n2"
    starts = (
        b"GET /",
        b"GET / HTTP/1.1\r\n",
        b"GET / HTTP/1.1\r\na: ",
        chunked + b";",
        chunked + b"\r\n{}\r\n0\r\na: ",
    )
    for start in starts:
        with socket.create_connection(("127.0.0.1", server.port), 60) as connection:
            connection.sendall(start)
            with pytest.raises(ConnectionError):
                connection.sendall(b"x" * 20_000_000)
        if not start.startswith(chunked):
            with socket.create_connection(("127.0.0.1", server.port), 60) as connection:
                connection.sendall(start + b"x" * 70_000)
                head, _, body = connection.makefile("rb").read().partition(b"\r\n\r\n")
                assert (head[:13], body) == (b"HTTP/1.1 431 ", b'{"error":"Headers too large"}')
    with socket.create_connection(("127.0.0.1", server.port), 60) as connection:
        for _ in range(30):  # each is small, however many come
            connection.sendall(b"GET /healthz HTTP/1.1\r\na: " + b"x" * 5000 + b"\r\n\r\n")
            assert connection.recv(15) == b"HTTP/1.1 200 OK"
            while not connection.recv(65536).endswith(b"}"):
                pass
    assert state.files() == {}


def test_an_upload_that_breaks_off_leaves_nothing(server, state):
    def broken() -> Iterator[bytes]:
        yield b'--x\r\nContent-Disposition: form-data; name="files"; filename="f"\r\n\r\n'
        yield from endless(2_000_000)
        raise RuntimeError("gone")

    for _ in range(3):
        with pytest.raises(RuntimeError, match="gone"):
            server.http.post(
                "/api/upload", content=broken(), headers={"content-type": "multipart/form-data; boundary=x"}
            )
    assert server.upload(b"x")
    assert len(list((state.root / "incoming").iterdir())) == 1
    assert server.call("get_all_projects") == []


def test_uploaded_pages_run_in_a_sandbox_and_are_what_their_name_says_or_a_download(server, state, entry):
    page = b"<script>fetch('/api/delete_run')</script>"
    wanted = {
        "x.html": "text/html; charset=utf-8",
        "x.png": "image/png",
        "x.svg": "image/svg+xml",
        "x.js": "application/octet-stream",
        "x.exe": "application/octet-stream",
        "x": "application/octet-stream",
        "x.xhtml": "application/octet-stream",
        "x.txt": "text/plain; charset=utf-8",
    }
    uploads = [
        {"project": "p", "run": "a", "step": 0, "uploaded_file": {"path": server.upload(page), "orig_name": name}}
        for name in wanted
    ]
    server.call("bulk_upload_media", uploads=uploads)
    assert server.logs(
        [entry("1", run="a", run_id="a", metrics={"h": {"_type": "html", "value": page.decode()}})]
    ).is_success
    (row,) = server.call("get_logs", project="p", run="a")
    digest = hashlib.sha256(page).hexdigest()
    answers = {name: server.file(f"p/a/0/{name}") for name in wanted}
    assert {name: answer.headers["content-type"] for name, answer in answers.items()} == wanted
    others = [
        server.file(row["h"]["file_path"]),
        server.file(f"blob/{digest}.html"),
        server.http.get(f"/artifact_blob/p/{digest}"),
    ]
    for answer in (*answers.values(), *others):
        assert answer.content == page
        assert answer.headers["x-content-type-options"] == "nosniff"
        policy = answer.headers["content-security-policy"].split()
        assert policy[0] == "sandbox"
        assert not {"allow-same-origin", "allow-top-navigation", "allow-popups", "allow-forms"} & set(policy)
    state.proven()
