"""A static page's bucket: filled, left alone when nothing is new, and never in need of repair."""

from __future__ import annotations

import io
import json
import shlex
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import pyarrow.parquet as pq
import pytest
from bucketcases import ALL, KNOWN, check_whole, client, log
from click.testing import CliRunner
from dying import dies
from huggingface_hub import constants
from localhub.faults import Kind
from localhub.process import LocalHub, client_environment
from localhub.sweep import sweep_faults

import eventlog
from compactor.cli import cli
from compactor.page.bucket import PageBucket
from compactor.page.config import PageConfig
from compactor.page.export import Exported, PageExport
from eventlog.errors import UsageError
from eventlog.hub.address import BucketAddress
from eventlog.hub.bucket import Bucket

PAGE = "owner/page"
KINDS: tuple[Kind, ...] = ("status-before", "lost-reply", "expired-token", "half-batch", "stale-listing")


def export(hub: LocalHub, store: Path, bucket: Bucket | None = None, **settings: Any) -> Exported:
    place = PageBucket(bucket or client(hub, PAGE))
    return PageExport(str(store), "p", place, PageConfig(**settings)).once()


def read(hub: LocalHub, directory: Path) -> dict[str, bytes]:
    """Return all files of the page, as anybody gets them who has no token."""
    bucket = Bucket(BucketAddress(PAGE), api=hub.api(token=False))
    directory.mkdir(exist_ok=True)
    wanted = [(file, str(directory / str(number))) for number, file in enumerate(bucket.files(""))]
    bucket.download(wanted)
    return {file.path: Path(local).read_bytes() for file, local in wanted}


def shown(hub: LocalHub, directory: Path) -> set[str]:
    """Check what a page that is loaded now shows, and return the names of its runs."""
    files = read(hub, directory)
    if "runs.json" not in files:
        return set()
    rows = pq.read_table(io.BytesIO(files["metrics.parquet"])).to_pylist()
    named = [json.loads(row["data"])["file_path"] for row in rows if row.get("data")]
    assert named
    # Media come before the tables that name them, and the list of runs comes last.
    assert {path.replace("p/", "media/", 1) for path in named} <= files.keys()
    listed = {run["name"] for run in json.loads(files["runs.json"])}
    assert listed <= {row["run_name"] for row in rows}
    return listed


def test_an_export_makes_a_public_bucket_and_one_without_news_uploads_nothing(hub: LocalHub, tmp_path: Path) -> None:
    log(tmp_path / "store", "a", 20)
    first = export(hub, tmp_path / "store")
    assert not hub.api().bucket_info(PAGE).private
    files = read(hub, tmp_path / "read")
    assert first.uploaded == len(files) - 1  # the mark
    assert b"a" * 50 in files.values()
    assert shown(hub, tmp_path / "read") == {"a"}
    mark = hub.mark()
    again = export(hub, tmp_path / "store")
    assert (again.uploaded, again.uploaded_bytes, again.deleted) == (0, 0, 0)
    assert [served.route for served in hub.requests(mark) if served.method == "POST"] == [
        "POST /api/buckets/{owner}/{name}/paths-info"
    ] * 2
    assert read(hub, tmp_path / "read") == files


def test_only_what_has_changed_goes_up_and_media_once(hub: LocalHub, tmp_path: Path) -> None:
    log(tmp_path / "store", "a", 20)
    export(hub, tmp_path / "store")
    before = read(hub, tmp_path / "read")
    log(tmp_path / "store", "b", 20)
    export(hub, tmp_path / "store")
    after = read(hub, tmp_path / "read")
    changed = {path for path in after if before.get(path) != after[path]}
    assert {path for path in changed if not path.startswith("media/")} == {
        "metrics.parquet",
        "aux/configs.parquet",
        "runs.json",
        "eventlog-page.json",
    }
    assert len([path for path in changed if path.startswith("media/")]) == 1
    assert shown(hub, tmp_path / "read") == {"a", "b"}


class Before:
    """A page that shows one run, and a store that has two."""

    def __init__(self, hub: LocalHub, directory: Path) -> None:
        self.hub, self.store, self.read = hub, directory / "store", directory / "read"
        log(self.store, "a", 20)
        export(hub, self.store)
        log(self.store, "b", 20)

    def export(self, bucket: Bucket | None = None) -> None:
        export(self.hub, self.store, bucket)

    def check(self) -> set[str]:
        """The page shows one run or both, and everything that they name; exporting again ends with both."""
        now = shown(self.hub, self.read)
        assert now in ({"a"}, {"a", "b"})
        self.export()
        assert shown(self.hub, self.read) == {"a", "b"}
        return now


@pytest.mark.timeout(3600)
def test_an_export_that_meets_a_fault_at_any_request_leaves_a_page_that_shows_all_it_names(
    hub: LocalHub, tmp_path: Path
) -> None:
    before = Before(hub, tmp_path)
    met: Counter[str] = Counter()
    bucket_only: Callable[[Any], bool] = lambda served: "/api/buckets/" in served.path  # noqa: E731
    for swept in sweep_faults(hub, before.export, KINDS, where=bucket_only, in_turn=not ALL):
        assert swept.error is None or isinstance(swept.error, KNOWN), swept
        before.check()
        met[swept.fault.kind] += swept.befell
    assert set(met) == set(KINDS)


@pytest.mark.timeout(3600)
def test_an_exporter_that_is_killed_at_any_of_its_steps_is_continued(hub: LocalHub, tmp_path: Path) -> None:
    before = Before(hub, tmp_path)
    hub.save("before")
    found: list[set[str]] = []
    step = 0 if ALL else 2  # so that the last step, after which all is there, is one of them
    while dies(client(hub, PAGE), before.export, step):
        found.append(before.check())
        hub.load("before")
        step += 1 if ALL else 3
    assert found[0] == {"a"}
    assert found[-1] == {"a", "b"}
    assert len(found) > 5


def test_a_first_export_that_is_killed_anywhere_does_not_take_its_page_for_somebody_elses(
    hub: LocalHub, tmp_path: Path
) -> None:
    log(tmp_path / "store", "a", 20)
    hub.save("nothing")
    step = 0
    while dies(client(hub, PAGE), lambda bucket: export(hub, tmp_path / "store", bucket), step):
        export(hub, tmp_path / "store")
        assert shown(hub, tmp_path / "read") == {"a"}
        hub.load("nothing")
        step += 1 if ALL else 3
    assert step > 12


def test_a_bucket_that_holds_a_store_or_another_page_is_not_written_to(hub: LocalHub, tmp_path: Path) -> None:
    log(tmp_path / "store", "a", 20)
    hub.api().create_bucket("owner/private", private=True)
    with pytest.raises(UsageError, match="is private, and a page reads it without any token"):
        export(hub, tmp_path / "store", client(hub, "owner/private"))
    assert client(hub, "owner/private").files("") == []
    hub.api().create_bucket(PAGE)
    client(hub, PAGE).upload([(b"x", "segments/p/w/1.seg")])
    with pytest.raises(UsageError, match="holds other things than a page"):
        export(hub, tmp_path / "store")
    with pytest.raises(UsageError, match="holds other things than a page"):
        PageExport(str(tmp_path / "store"), "p", PageBucket(client(hub, PAGE))).check()
    assert [file.path for file in client(hub, PAGE).files("")] == ["segments/p/w/1.seg"]
    with pytest.raises(UsageError, match="reads its bucket as a whole"):
        PageBucket(client(hub, PAGE, "prefix"))


# As processes.


def start(hub: LocalHub, home: Path, command: str) -> subprocess.Popen[str]:
    home.mkdir(exist_ok=True)
    words = [sys.executable, "-m", *shlex.split(command)]
    pipe = subprocess.PIPE
    return subprocess.Popen(words, env=client_environment(hub.url, home), stdout=pipe, stderr=pipe, text=True)


def test_sync_fills_the_page_beside_the_bucket_until_it_is_stopped_and_once_more_then(
    hub: LocalHub, bucket: str, tmp_path: Path
) -> None:
    store = tmp_path / "store"
    log(store, "a", 20)
    page = f"--static-export {PAGE} --project p"
    once = start(hub, tmp_path / "home", f"compactor sync {store} hf://buckets/{bucket} {page} --once --json")
    out, err = once.communicate(timeout=60)
    assert once.returncode == 0, err
    assert [json.loads(line)["project"] for line in out.splitlines()] == ["p", "p"]
    assert shown(hub, tmp_path / "read") == {"a"}
    service = start(hub, tmp_path / "home", f"compactor sync {store} hf://buckets/{bucket} {page} --interval 0.1")
    try:
        told = ""
        while "the page shows 1 runs" not in told:
            line = service.stdout.readline()
            assert line, service.stderr.read()
            told += line
        log(store, "b", 20)
        service.send_signal(signal.SIGTERM)
        out, err = service.communicate(timeout=60)
    finally:
        service.kill()
        service.communicate()
    assert service.returncode == 0, err
    assert "the page shows 2 runs" in out
    assert shown(hub, tmp_path / "read") == {"a", "b"}
    assert any(file.path.startswith("segments/p/") for file in client(hub, bucket).files(""))
    check_whole(hub, bucket)


def hear(pipe: IO[str] | None, text: str) -> None:
    """Read what a service tells, up to the line that says this."""
    assert pipe is not None
    while text not in (line := pipe.readline()):
        assert line


@pytest.mark.parametrize("ends", [False, True])
def test_what_keeps_the_page_from_being_filled_does_not_keep_the_store_from_being_published(
    hub: LocalHub, bucket: str, tmp_path: Path, *, ends: bool
) -> None:
    store = tmp_path / "store"
    log(store, "a", 20)
    command = f"compactor sync {store} hf://buckets/{bucket} --static-export {PAGE} --project p --interval 0.1"
    # The first look at the page's bucket is refused. The second too; or it is one that no page can read.
    hub.fault("status-before", method="GET", path=f"/api/buckets/{PAGE}$", status=403, times=1 if ends else 2)
    if ends:
        hub.api().create_bucket(PAGE, private=True)
    service = start(hub, tmp_path / "home", command)
    try:
        hear(service.stderr, "the page is not kept up to date any more" if ends else "this token may not do that")
        hear(service.stdout, "is published")
        log(store, "b", 20)
        hear(service.stdout, "is published")
        service.send_signal(signal.SIGTERM)
        out, err = service.communicate(timeout=60)
    finally:
        service.kill()
        service.communicate()
    assert service.returncode == (2 if ends else 0), (out, err)
    assert ("compactor: the bucket owner/page is private" in err) == ends
    assert ends or shown(hub, tmp_path / "read") == {"a", "b"}
    check_whole(hub, bucket)


def test_the_service_waits_for_a_project_and_tries_again_what_the_hub_refuses(hub: LocalHub, tmp_path: Path) -> None:
    store = tmp_path / "store"
    with eventlog.init(project="other", name="x", dir=store) as run:
        run.log({"x": 1.0})
    command = f"compactor static-export {store} hf://buckets/{PAGE} --project p --interval 0.05"
    service = start(hub, tmp_path / "home", command)
    try:
        while "there is no project 'p'" not in (line := service.stderr.readline()):
            assert line, service.stdout.read()
        hub.fault("status-before", method="POST", path="/batch", status=403, times=2)
        log(store, "a", 20)
        while "this token may not do that" not in (line := service.stderr.readline()):
            assert line
        assert "the page shows 1 runs" in service.stdout.readline()
        service.send_signal(signal.SIGINT)
        assert service.wait(60) == 0
    finally:
        service.kill()
        service.communicate()
    assert shown(hub, tmp_path / "read") == {"a"}


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("sync {store} hf://buckets/owner/bucket --once --project p", "--project goes with --static-export"),
        ("sync {store} hf://buckets/owner/bucket --once --static-export owner/page", "name it with --project"),
        ("sync {store} owner/bucket/x --once --static-export owner/bucket --project p", "one of its own"),
        ("static-export {store} hf://buckets/owner/page --project p --points 3", "points must be"),
        ("static-export {store} hf://datasets/owner/page --project p", "a bucket is hf://buckets/OWNER/NAME"),
        ("static-export {store}/nowhere hf://buckets/owner/page", "does not exist"),
    ],
)
def test_what_does_not_fit_together_is_refused_before_anything_is_made(
    hub: LocalHub, tmp_path: Path, words: str, told: str
) -> None:
    log(tmp_path / "store", "a", 3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(constants, "ENDPOINT", hub.url)
        patch.setenv("HF_TOKEN", "hf_owner_write")
        done = CliRunner().invoke(cli, shlex.split(words.format(store=tmp_path / "store")), prog_name="compactor")
    assert (done.exit_code, done.stdout, told in done.stderr) == (2, "", True), done.output
    assert list(hub.api().list_buckets()) == []
