"""Buckets on the local Hub, through the unmodified client: bytes, listings, ranges, batches, privacy."""

from __future__ import annotations

from pathlib import Path

import pytest
from huggingface_hub import BucketFile, BucketFolder
from huggingface_hub.errors import BucketBatchError, BucketNotFoundError, EntryNotFoundError, HfHubHTTPError
from localhub.clients import fresh_client
from localhub.fixtures import noise
from localhub.process import LocalHub
from localhub.sweep import record

CONTENTS = {
    "empty": b"",
    "one": b"1",
    "text": b"a line\n" * 40_000,
    "noise": noise(700_000),
    "numbers": b"".join(number.to_bytes(4, "little") for number in range(100_000)),
    "deep/er/file": b"deep",
    "name with spaces & ünicode?#%": b"named",
}


def put(hub: LocalHub, bucket: str, **files: bytes) -> None:
    hub.api().batch_bucket_files(bucket, add=[(data, path) for path, data in files.items()])


def get(hub: LocalHub, bucket: str, path: str, to: Path) -> bytes:
    hub.api().download_bucket_files(bucket, [(path, to)], raise_on_missing_files=True)
    return to.read_bytes()


def paths(hub: LocalHub, bucket: str) -> list[str]:
    return [item.path for item in hub.api().list_bucket_tree(bucket, recursive=True)]


def test_files_of_every_shape_come_back_the_same_from_bytes_and_from_disk(
    hub: LocalHub, bucket: str, tmp_path: Path
) -> None:
    local = [(tmp_path / f"in-{number}", path) for number, path in enumerate(CONTENTS)]
    for file, path in local:
        file.write_bytes(CONTENTS[path])
    hub.api().batch_bucket_files(bucket, add=[(data, "b/" + path) for path, data in CONTENTS.items()])
    hub.api().batch_bucket_files(bucket, add=[(file, "d/" + path) for file, path in local])
    hub.restart()
    fresh_client()
    wanted = [(f"{where}/{path}", tmp_path / f"out-{where}" / path) for where in "bd" for path in CONTENTS]
    hub.api().download_bucket_files(bucket, wanted)
    assert {path: out.read_bytes() for path, out in wanted} == {path: CONTENTS[path[2:]] for path, _ in wanted}
    sizes = {
        info.path: info.size for info in hub.api().get_bucket_paths_info(bucket, ["d/" + path for path in CONTENTS])
    }
    assert sizes == {"d/" + path: len(data) for path, data in CONTENTS.items()}


def test_a_big_file_goes_up_as_many_chunks_in_several_xorbs_and_comes_back_the_same(
    hub: LocalHub, bucket: str, tmp_path: Path
) -> None:
    data = noise(70_000_000)
    uploads = record(hub, lambda: put(hub, bucket, big=data))
    assert sum(served.route.startswith("POST /v1/xorbs") for served in uploads) == 2
    assert get(hub, bucket, "big", tmp_path / "big") == data


def test_what_the_hub_has_is_not_uploaded_again_by_a_client_that_never_saw_it(
    hub: LocalHub, bucket: str, tmp_path: Path
) -> None:
    data = noise(2_000_000)
    put(hub, bucket, first=data)
    changed = data[:1_500_000] + b"inserted" + data[1_500_000:]
    again = record(hub, lambda: put(hub, bucket, second=changed, third=data))
    assert 0 < sum(served.received for served in again) < 400_000
    assert get(hub, bucket, "second", tmp_path / "second") == changed
    assert get(hub, bucket, "third", tmp_path / "third") == data


def test_a_listing_of_many_pages_has_every_file_once_in_order(hub: LocalHub, bucket: str) -> None:
    names = [f"d{number % 7}/f{number:03}" for number in range(100)]
    put(hub, bucket, **dict.fromkeys(names, b"x"))
    hub.set(page_size=9)
    mark = hub.mark()
    assert paths(hub, bucket) == sorted(names)
    assert len(hub.requests(mark)) == 12
    assert [item.path for item in hub.api().list_bucket_tree(bucket)] == [f"d{number}" for number in range(7)]


def test_a_prefix_is_matched_letter_by_letter_and_folders_stand_for_what_is_below(hub: LocalHub, bucket: str) -> None:
    put(hub, bucket, **dict.fromkeys(["logs/a", "logs/x/b", "logs.json", "logs_old/c", "other"], b"x"))

    def listed(prefix: str) -> dict[str, type]:
        return {item.path: type(item) for item in hub.api().list_bucket_tree(bucket, prefix=prefix)}

    assert listed("logs") == {
        "logs/a": BucketFile,
        "logs/x": BucketFolder,
        "logs.json": BucketFile,
        "logs_old": BucketFolder,
    }
    assert listed("logs/x/b") == {"logs/x/b": BucketFile}
    assert listed("nothing") == {}


def test_the_file_system_lists_and_reads_ranges_and_asks_for_no_more_than_it_needs(hub: LocalHub, bucket: str) -> None:
    data = CONTENTS["noise"]
    put(hub, bucket, **{"d/noise": data, "d/text": CONTENTS["text"], "top": b"t"})
    fs = hub.filesystem()
    root = f"hf://buckets/{bucket}"
    assert sorted(fs.ls(f"{root}/d", detail=False)) == [f"buckets/{bucket}/d/noise", f"buckets/{bucket}/d/text"]
    mark = hub.mark()
    with fs.open(f"{root}/d/noise", "rb", block_size=10_000) as file:
        file.seek(500_000)
        assert file.read(100) == data[500_000:500_100]
        file.seek(500_100)
        assert file.read(100) == data[500_100:500_200]
    asked = hub.requests(mark)
    assert [served.method for served in asked] == ["GET"], "the listing and the second read come from the caches"
    assert asked[0].range.startswith("bytes=500000-")
    assert asked[0].sent == 10_100
    assert fs.cat_file(f"{root}/d/noise", start=-7) == data[-7:]
    assert fs.cat_file(f"{root}/d/text") == CONTENTS["text"]
    with fs.open(f"{root}/new", "wb") as file:
        file.write(b"written")
    assert fs.cat_file(f"{root}/new") == b"written"
    with pytest.raises(FileNotFoundError):
        fs.info(f"{root}/nothing")


def test_a_head_tells_size_and_hash(hub: LocalHub, bucket: str) -> None:
    put(hub, bucket, file=CONTENTS["noise"])
    facts = hub.api().get_bucket_file_metadata(bucket, "file")
    (info,) = hub.api().get_bucket_paths_info(bucket, ["file", "absent"])
    assert (facts.size, facts.xet_file_data.file_hash) == (700_000, info.xet_hash)
    with pytest.raises(EntryNotFoundError):
        hub.api().get_bucket_file_metadata(bucket, "absent")


def test_ranges_are_served_as_asked_and_none_beyond_the_end(hub: LocalHub, bucket: str) -> None:
    data = CONTENTS["numbers"]
    put(hub, bucket, file=data)

    def ask(text: str) -> tuple[int, bytes]:
        headers = {"Range": text, "Authorization": "Bearer hf_owner_write"}
        answer = hub.control.get(f"/buckets/{bucket}/resolve/file", headers=headers)
        return answer.status_code, answer.content

    end = len(data)
    assert ask("bytes=3-9") == (206, data[3:10])
    assert ask(f"bytes={end - 5}-") == (206, data[-5:])
    assert ask("bytes=-6") == (206, data[-6:])
    assert ask(f"bytes={end - 1}-{end + 99}") == (206, data[-1:])
    assert ask(f"bytes={end}-")[0] == 416


def test_a_batch_applies_what_it_can_and_names_the_rest(hub: LocalHub, bucket: str) -> None:
    put(hub, bucket, old=b"old")
    with pytest.raises(BucketBatchError) as caught:
        hub.api().batch_bucket_files(bucket, add=[(b"new", "new")], delete=["absent", "old"])
    assert caught.value.failures == [{"path": "absent", "error": "not found"}]
    assert caught.value.response.status_code == 200
    assert paths(hub, bucket) == ["new"]
    with pytest.raises(BucketBatchError) as caught:
        hub.api().batch_bucket_files(bucket, delete=["absent", "../up"])
    assert caught.value.response.status_code == 422


def test_a_file_whose_content_was_never_uploaded_is_refused(hub: LocalHub, bucket: str) -> None:
    with pytest.raises(BucketBatchError, match="xet hash not found"):
        hub.api().batch_bucket_files(bucket, copy=[("bucket", bucket, "ab" * 32, "file")])


def test_a_copy_by_hash_and_a_file_put_twice_have_the_last_content(hub: LocalHub, bucket: str, tmp_path: Path) -> None:
    put(hub, bucket, a=b"first", b=b"second")
    hub.api().copy_files(f"hf://buckets/{bucket}/a", f"hf://buckets/{bucket}/c")
    put(hub, bucket, a=b"third")
    assert {path: get(hub, bucket, path, tmp_path / path) for path in "abc"} == {
        "a": b"third",
        "b": b"second",
        "c": b"first",
    }


def test_more_than_a_thousand_operations_go_in_several_batches_adds_before_deletes(hub: LocalHub, bucket: str) -> None:
    put(hub, bucket, old=b"old")
    names = [f"{number:04}" for number in range(1001)]
    mark = hub.mark()
    hub.api().batch_bucket_files(bucket, add=[(b"x", name) for name in names], delete=["old"])
    assert paths(hub, bucket) == names
    batches = [served for served in hub.requests(mark) if served.route.endswith("/batch")]
    assert len(batches) == 3


def test_a_bucket_lives_and_dies_with_its_names(hub: LocalHub, bucket: str) -> None:
    api = hub.api()
    with pytest.raises(HfHubHTTPError) as caught:
        api.create_bucket(bucket)
    assert caught.value.response.status_code == 409
    api.create_bucket(bucket, exist_ok=True)
    put(hub, bucket, file=b"12345")
    info = api.bucket_info(bucket)
    assert (info.size, info.total_files, info.private) == (5, 1, False)
    api.move_bucket(bucket, "owner/moved")
    assert [found.id for found in api.list_buckets()] == ["owner/moved"]
    assert paths(hub, "owner/moved") == ["file"]
    api.delete_bucket("owner/moved")
    with pytest.raises(BucketNotFoundError):
        api.bucket_info("owner/moved")
    api.delete_bucket("owner/moved", missing_ok=True)


def test_tokens_see_and_change_what_they_may(hub: LocalHub) -> None:
    owner = hub.api()
    owner.create_bucket("owner/private", private=True)
    owner.create_bucket("owner/public")
    put(hub, "owner/private", file=b"secret")
    stranger = hub.api(hub.token("hf_stranger", user="stranger", role="write"))
    reader = hub.api(hub.token("hf_reader", user="owner", role="read"))
    narrow = hub.api(hub.token("hf_narrow", user="owner", role="fineGrained", only=["owner/public"]))
    for api in (stranger, narrow, hub.api(token=False)):
        with pytest.raises(BucketNotFoundError):
            list(api.list_bucket_tree("owner/private"))
    for api, name in ((stranger, "owner/public"), (reader, "owner/private")):
        with pytest.raises(HfHubHTTPError) as caught:
            api.batch_bucket_files(name, delete=["file"])
        assert caught.value.response.status_code == 403
    assert [item.path for item in reader.list_bucket_tree("owner/private")] == ["file"]
    narrow.batch_bucket_files("owner/public", add=[(b"x", "x")])
    owner.update_bucket_settings("owner/private", private=False)
    assert [item.path for item in stranger.list_bucket_tree("owner/private")] == ["file"]


def test_a_token_that_is_unknown_or_expired_is_refused_everywhere(hub: LocalHub, bucket: str) -> None:
    expired = hub.token("hf_expired", user="owner", role="write", expired=True)
    for token in (expired, "hf_unknown"):
        api = hub.api(token)
        for call in (api.whoami, lambda api=api: api.bucket_info(bucket), lambda api=api: api.create_bucket("owner/x")):
            with pytest.raises(HfHubHTTPError) as caught:
                call()
            assert caught.value.response.status_code == 401
    assert hub.api().whoami()["name"] == "owner"
    narrow = hub.api(hub.token("hf_narrow", user="owner", role="fineGrained", only=[bucket])).whoami()
    assert narrow["auth"]["accessToken"]["role"] == "fineGrained"


def test_a_xet_token_that_is_about_to_expire_is_asked_for_again_before_each_use(
    hub: LocalHub, bucket: str, tmp_path: Path
) -> None:
    def asked() -> int:
        served = record(hub, lambda: put(hub, bucket, file=CONTENTS["noise"]))
        return sum(one.route.endswith("/xet-write-token") for one in served)

    assert asked() == 1
    hub.set(xet_token_seconds=25)
    assert asked() > 1
    assert get(hub, bucket, "file", tmp_path / "file") == CONTENTS["noise"]


def test_the_xet_store_refuses_tokens_that_are_missing_expired_or_for_something_else(
    hub: LocalHub, bucket: str
) -> None:
    put(hub, bucket, file=CONTENTS["noise"])
    (info,) = hub.api().get_bucket_paths_info(bucket, ["file"])

    def ask(method: str, path: str, token: str) -> int:
        return hub.control.request(method, path, headers={"Authorization": f"Bearer {token}"}).status_code

    reconstruction = f"/v1/reconstructions/{info.xet_hash}"
    assert ask("GET", reconstruction, "xet-read-99999999999") == 200
    assert ask("GET", reconstruction, "xet-read-1") == 401
    assert ask("GET", reconstruction, "hf_owner_write") == 401
    assert ask("POST", "/v1/shards", "xet-read-99999999999") == 403


def test_a_shard_that_names_what_was_never_uploaded_is_refused(hub: LocalHub, bucket: str) -> None:
    hub.save("empty")
    put(hub, bucket, file=CONTENTS["noise"])
    hub.load("empty")  # the client still believes that its chunks are there
    with pytest.raises(ConnectionError, match="400"):
        put(hub, bucket, other=CONTENTS["noise"])
    fresh_client()
    put(hub, bucket, other=CONTENTS["noise"])
    assert paths(hub, bucket) == ["other"]
