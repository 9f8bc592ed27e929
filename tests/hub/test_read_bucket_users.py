"""What people type to read a bucket: README's own lines, the commands, and what they are told when it cannot be."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import tenacity
from bucketcases import client, fold, log, publisher
from click.testing import CliRunner, Result
from huggingface_hub import constants
from huggingface_hub.utils import _http as http
from localhub.process import LocalHub, client_environment, free_port
from localhub.state import OWNER_TOKEN
from shipping import make_store

import eventlog
from eventlog import commands
from eventlog.errors import UsageError
from eventlog.hub.ship import ship
from eventlog.store import open_store

README = Path(__file__).parents[2] / "README.md"


def log_loss(root: Path) -> None:
    for name, metrics in (("baseline", ["loss"]), ("other", ["loss", "accuracy"])):
        with eventlog.init(project="mnist", name=name, dir=root) as run:
            for step in range(50):
                run.log(dict.fromkeys(metrics, 1 / (step + 1)), step=step)
        fold(root, "mnist")


@pytest.fixture
def store(hub: LocalHub, bucket: str, tmp_path: Path) -> Path:
    """Return a store that is in a bucket, with a snapshot and segments that are not folded."""
    root = tmp_path / "store"
    log_loss(root)
    publisher(hub, bucket, root).publish("mnist")
    ship(str(make_store(tmp_path / "host", name="late")), client(hub, bucket))
    return root


def run(hub: LocalHub, tmp_path: Path, *command: str, **more: str) -> subprocess.CompletedProcess[str]:
    environment = client_environment(hub.url, tmp_path / "home", **more)
    return subprocess.run(
        [sys.executable, *command],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.fixture
def here(hub: LocalHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Let the client of this process find the Hub by itself, as a user's does."""
    monkeypatch.setattr(constants, "ENDPOINT", hub.url)
    monkeypatch.setenv("HF_TOKEN", OWNER_TOKEN)
    monkeypatch.chdir(tmp_path)
    return monkeypatch


def cli(*arguments: str) -> Result:
    return CliRunner().invoke(commands.cli, arguments)


def test_the_lines_in_readme_read_a_bucket_with_our_code_and_without(
    hub: LocalHub, store: Path, bucket: str, tmp_path: Path
) -> None:
    section = README.read_text(encoding="utf-8").split("## Read from a bucket")[1].split("\n## ")[0]
    ours, others, plain = re.findall(r"```py\n(.*?)```", section, re.DOTALL)
    assert "eventlog" not in plain
    assert "store" not in plain
    check = "print(json.dumps(sorted(zip(*table.select(['_run_id', '_step', 'loss']).to_pydict().values()))))\n"
    wanted = open_store(store).metrics("mnist").select(["_run_id", "_step", "loss"]).to_pydict()
    for lines in (
        plain + check,
        ours + "import json\ntable = store.metrics('mnist')\n" + check,
        ours + others + "import json\ntable = store.dataset('mnist').to_table()\n" + check,
    ):
        (tmp_path / "lines.py").write_text(lines.replace("OWNER/NAME", bucket), encoding="utf-8")
        done = run(hub, tmp_path, "lines.py")
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout) == sorted([*row] for row in zip(*wanted.values(), strict=True))


@pytest.mark.usefixtures("here")
def test_commands_say_of_a_bucket_what_they_say_of_the_store(store: Path, bucket: str, tmp_path: Path) -> None:
    address = f"hf://buckets/{bucket}"
    for arguments in (
        ["projects", "--json"],
        ["runs", "mnist", "--json"],
        ["curve", "mnist", "baseline", "loss", "--json"],
        ["tail", "mnist", "--json", "--lines", "7"],
        ["export", "mnist", "--format", "jsonl", "--output", "out.jsonl", "--force"],
    ):
        verb, *rest = arguments
        there = cli(verb, address, *rest)
        assert (there.exit_code, there.stderr) == (0, "")
        written = (tmp_path / "out.jsonl").read_bytes() if verb == "export" else b""
        here = cli(verb, str(store), *rest)
        if verb == "projects":
            assert [item for item in json.loads(there.stdout) if item["project"] == "mnist"] == json.loads(here.stdout)
            assert [item["runs"] for item in json.loads(there.stdout)] == [2, 1]
        else:
            assert there.stdout == here.stdout
        if verb == "export":
            assert written == (tmp_path / "out.jsonl").read_bytes() != b""


def test_verify_accounts_for_every_record_in_a_bucket_and_finds_what_is_damaged(
    hub: LocalHub, bucket: str, tmp_path: Path
) -> None:
    address, store = f"hf://buckets/{bucket}", tmp_path / "store"
    log(store, "a")
    fold(store)
    log(store, "b")
    publisher(hub, bucket, store).publish("p")
    here = json.loads(cli("verify", str(store), "--json", "--blobs").stdout)
    done = run(hub, tmp_path, "-m", "eventlog", "verify", address, "--json", "--blobs")
    assert (done.returncode, done.stderr) == (0, "")
    there = json.loads(done.stdout)
    for fact in ("records", "folded", "tail", "gaps", "files", "checksum", "findings"):
        assert there["projects"][0][fact] == here["projects"][0][fact], fact
    path = Path(open_store(store).files("p")[0])
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    client(hub, bucket).upload([(bytes(data), str(path.relative_to(store)))])
    done = run(hub, tmp_path, "-m", "eventlog", "verify", address, "--json")
    assert done.returncode == 1
    found = [finding["where"] for finding in json.loads(done.stdout)["findings"]]
    assert any(path.name in where for where in found), found


def test_what_writes_or_needs_a_store_on_this_machine_says_so_and_makes_nothing(
    hub: LocalHub, store: Path, bucket: str, tmp_path: Path, here: pytest.MonkeyPatch
) -> None:
    address, before = f"hf://buckets/{bucket}", hub.mark()
    assert cli("export", str(store), "mnist", "--to", str(tmp_path / "exported")).exit_code == 0
    for arguments in (
        ["admin", "delete", address, "mnist", "baseline"],
        ["ship", address, str(tmp_path / "x")],
        ["import", str(tmp_path / "exported"), address],
        ["export", address, "mnist", "--to", str(tmp_path / "x")],
    ):
        done = cli(*arguments)
        assert (done.exit_code, f"compactor restore {address}" in done.stderr) == (2, True), done.stderr
    for place in (address, Path(address)):
        with pytest.raises(UsageError, match="EVENTLOG_BUCKET"):
            eventlog.init(project="p", dir=place)
    here.setenv("EVENTLOG_DIR", address)
    with pytest.raises(UsageError, match="EVENTLOG_BUCKET"):
        eventlog.init(project="p")
    assert hub.requests(before) == []
    assert sorted(os.listdir(tmp_path)) == ["client-of-the-hub", "exported", "host", "store"]


@pytest.mark.usefixtures("store")
def test_an_error_says_in_one_line_what_to_do(hub: LocalHub, bucket: str, here: pytest.MonkeyPatch) -> None:
    address = f"hf://buckets/{bucket}"
    hub.api().create_bucket("owner/empty")
    changes: dict[str, Callable[[pytest.MonkeyPatch], None]] = {
        "": lambda _: None,
        "bad token": lambda patch: patch.setenv("HF_TOKEN", "hf_nobody"),
        "offline": lambda patch: patch.setattr(constants, "HF_HUB_OFFLINE", True),
        "no client": lambda patch: patch.setitem(sys.modules, "hf_xet", None),
    }
    for place, change, wanted in (
        ("hf://buckets/owner/never", "", "no such thing on the Hub, or this token may not see it"),
        (address, "bad token", "run `hf auth login`, or set HF_TOKEN"),
        (address, "offline", "unset HF_HUB_OFFLINE"),
        (address, "no client", "pip install 'eventlog[hub]'"),
        ("hf://buckets/owner", "", "a bucket is hf://buckets/OWNER/NAME"),
        ("hf://datasets/owner/x", "", "a bucket is hf://buckets/OWNER/NAME"),
        ("hf://buckets/owner/empty", "", "holds no store"),
        (f"{address}/nowhere", "", "holds no store"),
    ):
        with here.context() as patch:
            changes[change](patch)
            done = cli("runs", place, "mnist")
        assert (done.exit_code, done.stdout) == (2, ""), (place, change)
        assert wanted in done.stderr, done.stderr
        assert len(done.stderr.splitlines()) == 1
    with pytest.raises(UsageError, match=r"hf://buckets/OWNER/NAME"):
        open_store(Path(address))


def test_a_hub_that_cannot_be_reached_is_told(bucket: str, here: pytest.MonkeyPatch) -> None:
    here.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{free_port()}")
    here.setattr(http, "time", SimpleNamespace(sleep=lambda _: None))
    here.setattr(tenacity.nap, "time", SimpleNamespace(sleep=lambda _: None))
    done = cli("projects", f"hf://buckets/{bucket}")
    assert done.exit_code == 2
    assert "the Hub could not be reached" in done.stderr.splitlines()[-1]
