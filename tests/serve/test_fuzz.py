"""Any bytes to any endpoint: never a 500, nothing stored of what was refused, and a store that is whole afterwards."""

from __future__ import annotations

import contextlib
import itertools
import json
import random
import socket
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient

from compactor.serve import wire
from compactor.serve.api import ENDPOINTS
from compactor.serve.app import build
from compactor.serve.artifacts import version_id_of
from compactor.serve.config import ServeConfig
from compactor.serve.gate import Gate
from compactor.serve.hub import Hub
from compactor.serve.telemetry import Telemetry
from eventlog.store import open_store

TOKEN = {"x-trackio-write-token": "t"}
DIGEST = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # of b"abc"
EDGES = [0, 1, -1, 64, 10_001, 2**31, 2**53 + 1, 2**63 - 1, 2**63, -(2**63) - 1, 2**64, 10**30, -(10**400)]
TEXTS = [
    "",
    "p",
    "a",
    "run-a",
    "x",
    "h",
    "\0",
    "..",
    "../x",
    "\ud800",
    "é\udfff",
    "NaN",
    "-Infinity",
    "v0",
    "latest",
    "9" * 5000,
]
TIMES = [
    "2026-01-02T03:04:05.678901+00:00",
    "0001-01-01T00:00:00+23:59",
    "9999-12-31T23:59:59.999999-23:59",
    "2026-02-30",
]

texts = st.one_of(st.sampled_from(TEXTS), st.text(st.characters(), max_size=8))
numbers = st.one_of(
    st.sampled_from(EDGES), st.integers(), st.floats(), st.sampled_from([float("nan"), float("inf"), 1e300])
)
scalars = st.one_of(st.none(), st.booleans(), numbers, texts, st.sampled_from(TIMES))
TYPES = ["trackio.image", "trackio.table", "trackio.trace", "trackio.histogram", "trackio.markdown", "trackio.html"]
TYPES += [
    "int",
    "float",
    "json",
    "file",
    "image",
    "table",
    "trace",
    "histogram",
    "html",
    "alert",
    "run_start",
    "unknown:1",
]
typed = st.builds(
    lambda kind, more: {"_type": kind, **more},
    st.sampled_from(TYPES),
    st.dictionaries(
        st.sampled_from(
            ["value", "_value", "sha256", "file_path", "messages", "spans", "metadata", "edges", "counts", "data"]
        ),
        st.one_of(
            scalars,
            st.lists(scalars, max_size=2),
            st.just(DIGEST),
            st.lists(st.dictionaries(texts, scalars), max_size=2),
        ),
        max_size=3,
    ),
)
values = st.recursive(
    st.one_of(scalars, typed),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(texts, inner, max_size=3)),
    max_leaves=8,
)
MAPS = [
    {"\ud800": 1},
    {"a": "\ud800"},
    {"a": -(10**30), "b": [2**64, {"c": "\udfff"}]},
    {"a": {"_type": "int", "value": "x"}},
]
maps = st.one_of(st.dictionaries(texts, values, max_size=3), st.sampled_from(MAPS))
FIELDS: dict[str, Any] = {
    "project": st.sampled_from([*["p"] * 8, "q", "../x", "\ud800"]),
    "run": st.sampled_from([*["a"] * 8, "b", None, "\ud800"]),
    "run_id": st.sampled_from([*["run-a"] * 4, "run-b", None, None, "\ud800"]),
    "run_name": st.sampled_from(["a", None]),
    "search": st.one_of(st.none(), texts),
    "metric_name": st.sampled_from(["x", "h", "step", "timestamp"]),
    "name": st.sampled_from(["art", "x/y", "n"]),
    "type": st.just("t"),
    "spec": st.sampled_from(["v0", "latest", None, "v99999999999999999999"]),
    "version_id": st.sampled_from([version_id_of(name, version) for name in ("art", "n") for version in ("v0", "v1")]),
    "old_name": st.sampled_from(["a", "b"]),
    "new_name": st.one_of(st.sampled_from(["a", " b "]), texts),
    "query": st.sampled_from(["select 1", "from metrics", "select * from events", "from runs", "from system limit 1"]),
    "metrics": maps,
    "config": st.one_of(st.none(), maps),
    "metadata": st.one_of(st.none(), maps),
    "manifest": st.lists(
        st.builds(
            lambda path, more: {"path": path, "digest": DIGEST, "size": 3, **more},
            st.sampled_from([*["f", "d/f", "g"] * 3, "../f", ""]),
            st.dictionaries(st.sampled_from(["size", "digest", "ref", "more", "path"]), values, max_size=1),
        ),
        min_size=1,
        max_size=2,
    ),
    "aliases": st.one_of(st.none(), st.lists(texts, max_size=2)),
    "digests": st.lists(st.sampled_from([DIGEST, "0" * 64, "x"]), max_size=2),
    "runs": st.lists(st.sampled_from([{"run": "a"}, {"run_id": "run-a"}, {}, {"run": "\ud800"}]), max_size=66),
    "level": st.sampled_from(["info", "warn", "error"]),
    "title": st.one_of(texts, st.just("t")),
    "step": st.one_of(st.none(), st.integers(0, 100), numbers),
    "timestamp": st.one_of(st.none(), st.sampled_from(TIMES)),
    "log_id": st.one_of(st.none(), st.integers(0, 10**9).map(str)),
    "alert_id": st.one_of(st.none(), st.integers(0, 10**9).map(str)),
    "digest": st.just(DIGEST),
    "uploaded_file": st.builds(
        lambda path, name: {"path": path, "orig_name": name},
        st.sampled_from([*["TOKEN"] * 6, "0" * 32, "/etc/passwd"]),
        texts,
    ),
}
ENTRIES = {
    "bulk_log": ("logs", wire.LogEntry),
    "bulk_log_system": ("logs", wire.SystemEntry),
    "bulk_alert": ("alerts", wire.AlertEntry),
    "bulk_upload_media": ("uploads", wire.UploadEntry),
    "bulk_upload_artifact_blob": ("uploads", wire.BlobEntry),
}


rarely = st.sampled_from([False] * 7 + [True])


@st.composite
def arguments(draw: st.DrawFn, form: type[msgspec.Struct]) -> dict[str, Any]:
    """Return arguments that are mostly right: so that what is behind the checks is reached."""
    chosen = {name: draw(FIELDS[name]) for name in form.__struct_fields__ if name in FIELDS}
    if form.__struct_fields__ and draw(rarely):
        name = draw(st.sampled_from(form.__struct_fields__))
        chosen[name] = draw(values)
    if chosen and draw(rarely):
        del chosen[draw(st.sampled_from(sorted(chosen)))]
    return chosen


@st.composite
def calls(draw: st.DrawFn, name: str) -> bytes:
    """Return the body of a call with hostile values, in each of the forms that a call may have."""
    form = ENDPOINTS[name].form
    chosen = draw(arguments(form))
    if name in ENTRIES:
        field, entry = ENTRIES[name]
        chosen[field] = draw(st.lists(arguments(entry), min_size=1, max_size=2))
    listed = [chosen.get(field) for field in form.__struct_fields__]
    forms: list[Any] = [chosen, {"args": [], "kwargs": chosen}]
    if None not in listed:
        forms += [listed, {"data": listed}, {"args": listed}]
    return json.dumps(draw(st.sampled_from(forms))).encode()


junk = st.one_of(
    st.binary(max_size=40),
    values.map(lambda value: json.dumps(value).encode()),
    st.builds(lambda value: json.dumps({"args": value, "kwargs": value}).encode(), values),
    st.builds(lambda value, size: json.dumps({"data": [value]}).encode()[:size], values, st.integers(0, 60)),
)
DEEP = [b"[" * 10_000 + b"]" * 10_000, b'{"a":' * 10_000 + b"1" + b"}" * 10_000, b'{"kwargs":' + b"[" * 10_000]
DEEP += [b'{"kwargs":{"logs":[{"project":"p","run":"a","metrics":' + b'{"a":' * 3000 + b"1" + b"}" * 3003 + b"]}}"]
DEEP += [b'{"kwargs":{"logs":[{"project":"p","run":"a","metrics":{"a":' + b"[" * 300 + b"]" * 300 + b"}}]}}"]
DEEP += [b'{"project":"p","run":"a","metrics":{"a":' + b"[" * 900 + b"]" * 900 + b"}}"]


@contextlib.contextmanager
def serving_inside(root: Path) -> Iterator[SimpleNamespace]:
    """Yield a server in this process that has something to show."""
    hub = Hub(str(root), ServeConfig(write_token="t", query_s=2.0))
    with TestClient(build(hub, Gate(hub), None, Telemetry(hub)), raise_server_exceptions=False) as client:
        metrics = {"x": 1.0, "h": {"_type": "trackio.histogram", "bins": [0, 1], "values": [1]}, "text": "t"}
        entry = {"project": "p", "run": "a", "run_id": "run-a", "metrics": metrics, "step": 0, "config": {"lr": 1}}
        token = client.post("/api/upload", files={"files": ("f", b"abc")}, headers=TOKEN).json()["paths"][0]
        file = {"path": "f", "digest": DIGEST, "size": 3}
        for name, body in {
            "bulk_log": {"logs": [entry]},
            "bulk_upload_artifact_blob": {"project": "p", "uploads": [{**file, "uploaded_file": {"path": token}}]},
            "artifact_log": {"project": "p", "name": "art", "type": "t", "manifest": [file], "run_id": "run-a"},
        }.items():
            assert client.post(f"/api/{name}", json=body, headers=TOKEN).status_code == 200
        yield SimpleNamespace(root=root, client=client)
    hub.close()


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimpleNamespace]:
    """Return a server in this process that many tests share: what one of them stores, all of them read."""
    with serving_inside(tmp_path_factory.mktemp("fuzz") / "store") as inside:
        yield inside


def files(root: Path) -> dict[str, int]:
    """Return the files with records and their sizes; a blob that no record names is garbage, and may stay."""
    return {str(path): path.stat().st_size for path in root.glob("segments/*/*/*")}


def check(world: SimpleNamespace, name: str, body: bytes) -> None:
    """Send a body and look at what came of it."""
    if b"TOKEN" in body:
        token = world.client.post("/api/upload", files={"files": ("f", b"abc")}, headers=TOKEN).json()["paths"][0]
        body = body.replace(b"TOKEN", token.encode())
    before = files(world.root)
    answer = world.client.post(f"/api/{name}", content=body, headers=TOKEN)
    assert answer.status_code in (200, 400, 404, 503), answer.text
    if answer.status_code == 503:
        assert "uploaded file is gone" in answer.text
    if answer.status_code == 200:
        assert list(answer.json()) == ["data"]
    else:
        assert list(answer.json()) == ["error"]
    if answer.status_code != 200 or not ENDPOINTS[name].writes:
        assert files(world.root) == before


def read_everything(world: SimpleNamespace) -> None:
    """Ask every call that reads about every project and run: nothing that was stored may break one."""
    given_ = {"metric_name": "x", "query": "from events", "name": "art", "version_id": 1, "runs": [{"run": "a"}]}
    for project in world.client.post("/api/get_all_projects").json()["data"]:
        runs = world.client.post("/api/get_runs_for_project", json={"project": project}).json()["data"]
        for run in [*runs[:3], {"id": None, "name": None}]:
            for name, endpoint in ENDPOINTS.items():
                if not endpoint.writes:
                    body = {**given_, "project": project, "run": run["name"], "run_id": run["id"]}
                    answer = world.client.post(f"/api/{name}", json=body)
                    assert answer.status_code == 200, (name, project, run, answer.text)
                    assert list(answer.json()) == ["data"]


def prove(world: SimpleNamespace, state: Any) -> None:
    """Account for every record, fold all of them, and account again."""
    found = type(state)(world.root)
    found.proven()
    for project in open_store(world.root).projects():
        found.fold(project)
    found.proven()


def fuzz(world: SimpleNamespace, name: str, most: int) -> None:
    """Send junk, deep junk, and calls with hostile values."""

    @settings(max_examples=most // 2)
    @given(junk)
    def send_junk(body: bytes) -> None:
        check(world, name, body)

    @settings(max_examples=most)
    @given(calls(name))
    def send_calls(body: bytes) -> None:
        check(world, name, body)

    for deep in DEEP:
        check(world, name, deep)
    send_junk()
    send_calls()


@pytest.mark.parametrize("name", [name for name, endpoint in ENDPOINTS.items() if not endpoint.writes])
def test_no_body_breaks_a_call_that_reads(world, name):
    fuzz(world, name, settings.default.max_examples)


@pytest.mark.parametrize("name", [name for name, endpoint in ENDPOINTS.items() if endpoint.writes])
def test_no_body_breaks_a_call_that_writes_nor_what_is_read_afterwards(world, state, tmp_path, name):
    if name == "delete_run":
        with serving_inside(tmp_path / "store") as other:
            fuzz(other, name, settings.default.max_examples)
            read_everything(other)
            prove(other, state)
        return
    fuzz(
        world,
        name,
        2 * settings.default.max_examples if name in (*ENTRIES, "artifact_log") else settings.default.max_examples,
    )
    read_everything(world)
    prove(world, state)
    read_everything(world)


paths = st.one_of(
    texts,
    st.lists(
        st.sampled_from(["p", "a", "0", "files", "blob", "inline", "media", "..", ".", "", DIGEST]), max_size=5
    ).map("/".join),
    st.binary(max_size=20).map(lambda data: f"inline/{data.hex()}.html"),
)


@given(paths)
@example(f"blob/{DIGEST}.png/../x")
def test_no_path_of_a_file_breaks_the_server(world, path):
    text = path.encode("utf-8", "surrogatepass")
    answer = world.client.get("/file", params={"path": text})
    assert answer.status_code in (200, 400, 404)
    assert answer.status_code == 404 or answer.content in (b"abc", b'{"error":"Missing path"}')


@given(paths, st.sampled_from(["GET", "POST", "HEAD", "PUT", "DELETE", "OPTIONS"]))
def test_no_address_breaks_the_server(world, path, method):
    address = path.encode("utf-8", "surrogatepass").hex("%")
    answer = world.client.request(method, "/" + (f"%{address}" if address else ""), headers=TOKEN)
    assert answer.status_code in (200, 400, 403, 404, 405)


HEADERS = [
    "range",
    "cookie",
    "content-type",
    "if-none-match",
    "if-modified-since",
    "if-range",
    "accept-encoding",
    "host",
]
HEADERS += ["x-trackio-write-token", "accept", "origin", "transfer-encoding", "expect", "upgrade", "authorization"]


HEADER_VALUES = [b"bytes=0-0", b"bytes=-5,0-,99-", b"bytes=9999999999999999999999-", b"chunked", b'a="\x01;;=']
HEADER_VALUES += [b"multipart/form-data", b"multipart/form-data; boundary=", b"trackio_write_token=\xff"]
HEADER_VALUES += [b"multipart/form-data; boundary=x; charset=nonsense"]
header_values = st.one_of(st.binary(max_size=30), st.sampled_from(HEADER_VALUES))


@given(st.dictionaries(st.sampled_from(HEADERS), header_values, max_size=3))
def test_no_header_breaks_the_server(world, headers):
    given_ = {name: value.replace(b"\r", b"").replace(b"\n", b"") for name, value in headers.items()}
    before = files(world.root)
    for method, address in (
        ("GET", "/"),
        ("GET", f"/artifact_blob/p/{DIGEST}"),
        ("POST", "/api/bulk_log"),
        ("POST", "/api/upload"),
    ):
        answer = world.client.request(method, address, headers=given_, content=b"--x\r\n\r\n")
        assert answer.status_code in (200, 206, 304, 400, 403, 404, 416), answer.text
    assert files(world.root) == before


FORM = [b"--x", b"--x--", b"\r\n", b"Content-Disposition: form-data", b"abc", b"\0", b"\xff" * 9, b":", b"a: b"]
FORM += [b'Content-Disposition: form-data; name="files"; filename="f"', b"Content-Type: multipart/mixed; boundary=y"]
FORM += [b"Content-Disposition: form-data; name=\"files\"; filename*=utf-8''%2e%2e%2fx"]
FORM += [b'Content-Disposition: form-data; name="files"']


@given(st.lists(st.sampled_from(FORM), max_size=12).map(b"".join))
@settings(max_examples=100)
def test_no_form_breaks_an_upload(world, body):
    headers = {**TOKEN, "content-type": "multipart/form-data; boundary=x"}
    answer = world.client.post("/api/upload", content=body, headers=headers)
    assert answer.status_code in (200, 400)
    for token in answer.json().get("paths", []):
        assert (world.root / "incoming" / token).is_file()


PLAUSIBLE = {
    "project": "p",
    "run": "a",
    "metric_name": "x",
    "metrics": {"x": 1.0},
    "logs": [],
    "alerts": [],
    "uploads": [],
}
PLAUSIBLE |= {
    "name": "art",
    "type": "t",
    "query": "select 1",
    "version_id": 1,
    "runs": [],
    "digests": [],
    "old_name": "a",
}
PLAUSIBLE |= {"manifest": [{"path": "f", "digest": DIGEST, "size": 3, "ref": "x://y"}], "new_name": "a"}
_LOG = {"project": "p", "run": "a", "metrics": {}}
INNER: dict[str, dict[str, Any]] = {
    "bulk_log": {
        "value": {"logs": [{**_LOG, "metrics": {"v": "DEEP"}}]},
        "typed": {"logs": [{**_LOG, "metrics": {"v": {"_type": "trackio.trace", "messages": "DEEP"}}}]},
        "config": {"logs": [{**_LOG, "config": {"v": "DEEP"}}]},
        "step": {"logs": [{**_LOG, "step": "DEEP"}]},
    },
    "artifact_log": {
        field: {**PLAUSIBLE, "manifest": [{**PLAUSIBLE["manifest"][0], field: "DEEP"}]}  # type: ignore[index]
        for field in ("path", "size", "digest", "ref", "more")
    },
}


def test_random_bytes_and_calls_leave_a_real_server_alive_and_its_store_whole(server, entry, state):
    assert server.logs([entry("1")]).status_code == 200
    dice = random.Random(7)
    for _ in range(60):
        with socket.create_connection(("127.0.0.1", server.port), 10) as connection:
            head = dice.choice(
                [b"", b"GET /file?path=", b"POST /api/bulk_log HTTP/1.1\r\n", b"GET / HTTP/1.1\r\nHost: x\r\n"]
            )
            connection.sendall(head + dice.randbytes(dice.randrange(400)) + dice.choice([b"", b"\r\n\r\n"]))
    for name, endpoint in ENDPOINTS.items():
        for field, depth, (left, right) in itertools.product(
            (*endpoint.form.__struct_fields__, *INNER.get(name, ())),
            (100, 400, 900, 1500),
            (("[", "]"), ('{"a":', "}")),
        ):
            nested = left * depth + ("1" if left != "[" else "") + right * depth
            body = json.dumps(
                {**PLAUSIBLE, field: "DEEP"} if field in endpoint.form.__struct_fields__ else INNER[name][field]
            )
            answer = server.http.post(f"/api/{name}", content=body.replace('"DEEP"', nested))
            assert answer.status_code in (200, 400, 404, 503), (name, field, depth, answer.text)
    calls = [*DEEP, b"", b"\xff", b"[]", b"null", b'{"kwargs":{"logs":[{}]}}', b'"\\ud800"', b"1" * 5000, b"NaN"]
    for name in ENDPOINTS:
        for body in calls:
            answer = server.http.post(f"/api/{name}", content=body)
            assert answer.status_code in (200, 400, 404), (name, body[:40], answer.text)
    assert server.process.poll() is None
    assert server.http.get("/healthz").json() == {"status": "ok"}
    assert server.logs([entry("2", 1)]).status_code == 200
    state.proven()


LONG = b"x" * 100_000
LENGTHS = [
    b"",
    b"0",
    b"-1",
    b"+2",
    b"0x2",
    b"2, 2",
    b"2_0",
    b"9" * 30,
    b"2\r\nContent-Length: 2",
    b"2\r\nContent-Length: 3",
]
CODINGS = [b"chunked", b"gzip, chunked", b"chunked, chunked", b"identity", b"\xff", b"chunked\r\nContent-Length: 2"]
LINES = [b"", b": a", b"a", b"a b: c", b" a: b", b"a: b\r\n c", b"a: \0", b"\0: a", b"\xff: \xff"]
LINES += [
    b"a: " + LONG,
    LONG + b": a",
    b"a: b\r\n" * 5000,
    b"Content-Encoding: gzip",
    b"Content-Encoding: br, nonsense",
]
LINES += [b"Host: " + host for host in (b"", b"[::", b"a\r\nHost: b", b"x:99999999", b"\xff", b"a/../b")]
LINES += [b"Content-Type: " + kind for kind in (b"", b";;=", b"multipart/form-data; boundary=" + LONG[:9000])]
LINES += [
    b"Expect: 100-continue",
    b"Expect: more",
    b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x",
]
LINES += [b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: x"]
HEADS = [b"Content-Length: " + length for length in LENGTHS]
HEADS += [b"Transfer-Encoding: " + coding for coding in CODINGS]
HEADS += [b"Content-Length: 2\r\n" + line for line in LINES]
SENT = [b"{}", b"", b"2\r\n{}\r\n0\r\n\r\n", b"-1\r\n{}", b"f" * 17 + b"\r\n{}", b"2;a=\r\n{}\r\n0\r\na: b\r\n\r\n"]
ASKED = [b"POST /api/get_all_projects", b"POST /api/bulk_log", b"POST /api/upload", b"GET /"]


def test_no_header_breaks_a_real_server_or_leaves_anything_in_the_store(server, entry, state):
    assert server.logs([entry("1")]).status_code == 200
    before, seen = state.files(), set()
    token = b"X-Trackio-Write-Token: " + server.token.encode()
    for head in HEADS:
        with contextlib.ExitStack() as stack:
            opened = []
            for asked, sent in itertools.product(ASKED, SENT):
                connection = stack.enter_context(socket.create_connection(("127.0.0.1", server.port), 30))
                opened.append(connection)
                with contextlib.suppress(ConnectionError):  # the server may have seen enough
                    connection.sendall(b"\r\n".join([asked + b" HTTP/1.1", token, head, b"", sent]))
            # All of them are answered by now, but those that wait for more: they get the end.
            assert server.http.get("/healthz").status_code == 200
            for connection in opened:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_WR)
                    seen.add(connection.recv(65536)[:12])
    allowed = (200, 400, 404, 405, 411, 413, 417, 431)
    assert seen <= {b"", b"HTTP/1.1 100", *(b"HTTP/1.1 %d" % status for status in allowed)}
    assert {b"HTTP/1.1 200", b"HTTP/1.1 400"} <= seen
    assert state.files() == before
    assert server.logs([entry("2", 1)]).status_code == 200
    state.proven()
