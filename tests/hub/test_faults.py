"""Each fault of the local Hub, as the unmodified client sees it, and what the Hub holds afterwards."""

from __future__ import annotations

import time
from pathlib import Path

import httpx2
import pytest
from huggingface_hub.errors import BucketBatchError, HfHubHTTPError
from localhub.clients import fresh_client
from localhub.faults import Fault
from localhub.fixtures import noise
from localhub.journal import Served
from localhub.process import LocalHub
from localhub.sweep import revived

BATCH = "POST /api/buckets/{owner}/{name}/batch"
XORB_UPLOAD = "POST /v1/xorbs/default/{hash}"
XORB_DOWNLOAD = "GET /xorb/{hash}"
RESOLVE = "GET /buckets/{owner}/{name}/resolve/{path:path}"
TREE = "GET /api/buckets/{owner}/{name}/tree"
CREATE = "POST /api/buckets/{owner}/{name}"
DATA = noise(200_000)


def put(hub: LocalHub, bucket: str, *paths: str) -> None:
    hub.api().batch_bucket_files(bucket, add=[(DATA, path) for path in paths or ["file"]])


def paths(hub: LocalHub, bucket: str) -> list[str]:
    return [item.path for item in hub.api().list_bucket_tree(bucket, recursive=True)]


def of(served: list[Served], route: str) -> list[tuple[int, str]]:
    return [(one.status, one.fault) for one in served if one.route == route]


@pytest.mark.parametrize("route", [BATCH, XORB_UPLOAD])
@pytest.mark.parametrize(
    ("kind", "status"),
    [
        ("status-before", 503),
        ("status-after", 503),
        ("reset-before", 0),
        ("reset-after", 0),
        ("lost-reply", 0),
        ("rate-limit", 429),
        ("slow", 200),
    ],
)
def test_an_upload_passes_a_fault_that_ends_by_trying_again(
    hub: LocalHub, bucket: str, kind: str, status: int, route: str
) -> None:
    mark = hub.mark()
    with hub.faulty(kind, route=route):
        put(hub, bucket)
    assert paths(hub, bucket) == ["file"]
    assert of(hub.requests(mark), route) == [(200, kind)] if kind == "slow" else [(status, kind), (200, "")]


@pytest.mark.parametrize(("kind", "applied"), [("before", False), ("after", True)])
@pytest.mark.parametrize("how", ["status", "reset"])
def test_a_fault_before_leaves_nothing_and_one_after_leaves_all(
    hub: LocalHub, bucket: str, how: str, kind: str, *, applied: bool
) -> None:
    with hub.faulty(f"{how}-{kind}", route=BATCH, times=0), pytest.raises((HfHubHTTPError, httpx2.HTTPError)):
        put(hub, bucket)
    assert paths(hub, bucket) == (["file"] if applied else [])


def test_a_lost_reply_of_what_is_not_tried_again_raises_although_it_was_applied(hub: LocalHub) -> None:
    with hub.faulty("lost-reply", route=CREATE), pytest.raises(httpx2.RemoteProtocolError):
        hub.api().create_bucket("owner/new")
    assert hub.api().bucket_info("owner/new").id == "owner/new"
    with hub.faulty("reset-before", route=CREATE), pytest.raises(httpx2.HTTPError):
        hub.api().create_bucket("owner/other")
    assert [found.id for found in hub.api().list_buckets()] == ["owner/new"]


def test_a_delete_whose_reply_is_lost_is_tried_again_and_then_finds_nothing(hub: LocalHub, bucket: str) -> None:
    put(hub, bucket)
    with hub.faulty("lost-reply", route=BATCH), pytest.raises(BucketBatchError) as caught:
        hub.api().batch_bucket_files(bucket, delete=["file"])
    assert caught.value.failures == [{"path": "file", "error": "not found"}]
    assert paths(hub, bucket) == []


def test_the_client_gives_up_after_six_tries(hub: LocalHub, bucket: str) -> None:
    mark = hub.mark()
    with hub.faulty("status-before", route=TREE, times=0), pytest.raises(HfHubHTTPError) as caught:
        paths(hub, bucket)
    assert caught.value.response.status_code == 503
    assert of(hub.requests(mark), TREE) == [(503, "status-before")] * 6


def test_an_expired_token_is_not_tried_again(hub: LocalHub, bucket: str) -> None:
    mark = hub.mark()
    with hub.faulty("expired-token", route=BATCH), pytest.raises(HfHubHTTPError) as caught:
        put(hub, bucket)
    assert caught.value.response.status_code == 401
    assert of(hub.requests(mark), BATCH) == [(401, "expired-token")]
    assert paths(hub, bucket) == []


def test_a_rate_limit_says_how_long_to_wait(hub: LocalHub) -> None:
    hub.fault("rate-limit", path="/api/whoami-v2", retry_after=17)
    with pytest.raises(HfHubHTTPError) as caught:
        hub.api().whoami()
    assert caught.value.response.status_code == 429
    assert caught.value.response.headers["Retry-After"] == "17"


def test_a_batch_that_is_half_applied_keeps_its_first_operations(hub: LocalHub, bucket: str) -> None:
    with hub.faulty("half-batch", route=BATCH, operations=2, times=0), pytest.raises(HfHubHTTPError) as caught:
        put(hub, bucket, "a", "b", "c")
    assert caught.value.response.status_code == 500
    assert paths(hub, bucket) == ["a", "b"]
    with hub.faulty("half-batch", route=BATCH, operations=1):
        put(hub, bucket, "c", "d")
    assert paths(hub, bucket) == ["a", "b", "c", "d"]


def test_a_stale_listing_is_some_writes_behind_and_the_next_is_not(hub: LocalHub, bucket: str) -> None:
    put(hub, bucket, "a", "b")
    hub.api().batch_bucket_files(bucket, delete=["a"])
    put(hub, bucket, "c")
    with hub.faulty("stale-listing", route=TREE, behind=1):
        assert paths(hub, bucket) == ["b"]
    with hub.faulty("stale-listing", route=TREE, behind=2):
        assert paths(hub, bucket) == ["a", "b"]
    with hub.faulty("stale-listing", route=TREE, behind=99):
        assert paths(hub, bucket) == []
    with hub.faulty("slow", route=TREE):
        assert paths(hub, bucket) == ["b", "c"]
    assert paths(hub, bucket) == ["b", "c"]


def test_a_changed_byte_of_a_download_reaches_the_file_unseen(hub: LocalHub, bucket: str, tmp_path: Path) -> None:
    put(hub, bucket)
    fresh_client()
    with hub.faulty("wrong-bytes", route=XORB_DOWNLOAD):
        hub.api().download_bucket_files(bucket, [("file", tmp_path / "file")])
    got = (tmp_path / "file").read_bytes()
    assert len(got) == len(DATA)
    assert sum(mine != theirs for mine, theirs in zip(got, DATA, strict=True)) == 1
    with hub.faulty("wrong-bytes", route=RESOLVE):
        assert hub.filesystem().cat_file(f"hf://buckets/{bucket}/file") != DATA
    assert hub.filesystem().cat_file(f"hf://buckets/{bucket}/file") == DATA


@pytest.mark.parametrize("kind", ["short-body", "slow"])
def test_a_body_that_is_cut_or_drips_is_read_to_its_end(hub: LocalHub, bucket: str, tmp_path: Path, kind: str) -> None:
    put(hub, bucket)
    fresh_client()
    mark = hub.mark()
    with hub.faulty(kind, route=XORB_DOWNLOAD):
        hub.api().download_bucket_files(bucket, [("file", tmp_path / "file")])
    assert (tmp_path / "file").read_bytes() == DATA
    assert len(of(hub.requests(mark), XORB_DOWNLOAD)) == (2 if kind == "short-body" else 1)
    with hub.faulty(kind, route=RESOLVE):
        assert hub.filesystem().cat_file(f"hf://buckets/{bucket}/file") == DATA


def test_a_slow_peer_takes_the_time_that_the_fault_says(hub: LocalHub, bucket: str) -> None:
    put(hub, bucket)
    begin = time.monotonic()
    with hub.faulty("slow", route=RESOLVE, piece=20_000, pause=0.04):
        assert hub.filesystem().cat_file(f"hf://buckets/{bucket}/file") == DATA
    assert time.monotonic() - begin >= 0.3


def test_the_nth_request_fails_and_no_other(hub: LocalHub, bucket: str) -> None:
    hub.fault("status-before", method="GET", path="/tree$", nth=3, times=2, status=418)
    seen = []
    for _ in range(6):
        try:
            paths(hub, bucket)
        except HfHubHTTPError as error:
            seen.append(error.response.status_code)
        else:
            seen.append(200)
    assert seen == [200, 200, 418, 418, 200, 200]


@pytest.mark.parametrize("operations", [0, 1, 2, 3])
def test_a_hub_killed_amid_a_batch_keeps_the_operations_that_were_applied(
    hub: LocalHub, bucket: str, operations: int
) -> None:
    put(hub, bucket, "a")
    hub.fault("kill-amid", route=BATCH, operations=operations)
    with revived(hub):
        # The client tries again while the Hub is down and after; here it must see the first outcome alone.
        hub.fault("status-before", route=BATCH, nth=2, times=1, status=400)
        with pytest.raises(HfHubHTTPError if operations < 3 else BucketBatchError):
            hub.api().batch_bucket_files(bucket, add=[(DATA, "b")], delete=["a", "absent"])
    applied = [["a"], ["a", "b"], ["b"], ["b"]]
    assert paths(hub, bucket) == applied[operations]


def test_a_commit_on_a_hub_that_is_killed_is_there_whole_or_not_at_all(hub: LocalHub) -> None:
    hub.api().create_repo("owner/data", repo_type="dataset")

    def commit(path: str) -> None:
        hub.api().upload_file(path_or_fileobj=b"x", path_in_repo=path, repo_id="owner/data", repo_type="dataset")

    for kind, path in (("kill-before", "before"), ("kill-after", "after")):
        hub.fault(kind, path="/commit/main")
        with revived(hub), pytest.raises(httpx2.HTTPError):
            commit(path)
    listed = [item.path for item in hub.api().list_repo_tree("owner/data", repo_type="dataset")]
    assert listed == [".gitattributes", "after"]


def test_a_fault_with_an_unknown_field_is_refused(hub: LocalHub) -> None:
    answer = hub.control.post("/-/faults", json={"kind": "slow", "no_such_field": 1})
    assert answer.status_code == 400
    with pytest.raises(TypeError):
        Fault(kind="slow", no_such_field=1)
