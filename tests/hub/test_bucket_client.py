"""Our own client of a bucket: what it sends comes back the same, what passes is tried again, what does not is told."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
from localhub.fixtures import BUCKET, noise
from localhub.process import LocalHub

from eventlog.errors import DataError, StorageError, UsageError
from eventlog.hub.address import BucketAddress, parse_bucket
from eventlog.hub.bucket import Bucket

BATCH = "POST /api/buckets/{owner}/{name}/batch"
DATA = noise(100_000)


def opened(hub: LocalHub, bucket: str, prefix: str = "", **client: object) -> Bucket:
    return Bucket(BucketAddress(bucket, prefix), api=hub.api(**client))


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("hf://buckets/me/runs", BucketAddress("me/runs")),
        ("me/runs", BucketAddress("me/runs")),
        ("me/runs/", BucketAddress("me/runs")),
        ("hf://buckets/me/runs/team/a b", BucketAddress("me/runs", "team/a b")),
    ],
)
def test_an_address_is_taken_in_both_forms_and_told_in_the_long_one(text: str, wanted: BucketAddress) -> None:
    assert parse_bucket(text) == wanted
    assert parse_bucket(str(wanted)) == wanted


@pytest.mark.parametrize(
    "text", ["", "me", "hf://me/runs", "hf://datasets/me/x", "me/runs/../x", "m e/runs", "me//x", 7]
)
def test_what_is_no_address_is_refused(text: object) -> None:
    with pytest.raises(UsageError, match="bucket"):
        parse_bucket(text)


@pytest.mark.parametrize("prefix", ["", "deep/er"])
def test_files_come_back_the_same_under_the_names_of_the_store(
    hub: LocalHub, bucket: str, tmp_path: Path, prefix: str
) -> None:
    client = opened(hub, bucket, prefix)
    (tmp_path / "empty").write_bytes(b"")
    client.upload([(DATA, "a/one"), (str(tmp_path / "empty"), "a/b/empty"), (b"x", "ab")])
    found = client.files("a")
    assert [(file.path, file.size_bytes) for file in found] == [("a/b/empty", 0), ("a/one", 100_000)]
    assert (client.folders("a"), client.folders("nothing"), client.files("nothing")) == (["b"], [], [])
    client.download([(file, str(tmp_path / str(number))) for number, file in enumerate(found)])
    assert ((tmp_path / "0").read_bytes(), (tmp_path / "1").read_bytes()) == (b"", DATA)
    assert client.read(found[1]) == DATA
    client.delete(["a/one", "a/never"])
    assert set(client.info(["a/one", "ab", "a/b/empty"])) == {"ab", "a/b/empty"}


@pytest.mark.parametrize(("kind", "times"), [("half-batch", 2), ("status-before", 7), ("reset-after", 7)])
def test_what_passes_is_tried_again(hub: LocalHub, bucket: str, kind: str, times: int) -> None:
    client = opened(hub, bucket)
    with hub.faulty(kind, route=BATCH, times=times):
        client.upload([(DATA, "one"), (b"2", "two")])
    with hub.faulty(kind, route=BATCH, times=times):
        client.delete(["one", "two"])
    assert client.files("") == []


def test_a_byte_that_is_changed_on_the_way_is_noticed_and_fetched_again(
    hub: LocalHub, bucket: str, tmp_path: Path
) -> None:
    client = opened(hub, bucket)
    client.upload([(DATA, "one")])
    route = "GET /xorb/{hash}"
    with hub.faulty("wrong-bytes", route=route):
        client.download([(client.info(["one"])["one"], str(tmp_path / "one"))])
    assert (tmp_path / "one").read_bytes() == DATA
    with hub.faulty("wrong-bytes", route=route, times=0), pytest.raises(DataError, match="not what the bucket holds"):
        client.download([(client.info(["one"])["one"], str(tmp_path / "one"))])


def test_what_the_hub_refuses_says_what_to_do(hub: LocalHub, bucket: str) -> None:
    for token, number, advice in (
        (hub.token("hf_old", user="owner", role="write", expired=True), errno.EACCES, "HF_TOKEN"),
        (hub.token("hf_read", user="owner", role="read"), errno.EACCES, "settings/tokens"),
    ):
        with pytest.raises(StorageError, match=advice) as caught:
            opened(hub, bucket, token=token).upload([(b"x", "x")])
        assert caught.value.errno == number
    other = Bucket(BucketAddress("owner/never"), api=hub.api())
    assert not other.exists()
    with pytest.raises(StorageError, match=r"hf://buckets/owner/never: .* check the name"):
        other.files("")
    with hub.faulty("reset-before", times=0), pytest.raises(StorageError, match="could not be reached"):
        opened(hub, bucket).files("")


@pytest.mark.parametrize("kind", ["lost-reply", "status-after"])
def test_a_bucket_is_created_once_whatever_the_answer_was(hub: LocalHub, kind: str) -> None:
    client = opened(hub, BUCKET)
    hub.fault(kind, route="POST /api/buckets/{owner}/{name}")
    try:
        assert client.create()
    except StorageError:
        assert not client.create()
    hub.clear_faults()
    assert client.exists()
    assert hub.api().bucket_info(BUCKET).private
