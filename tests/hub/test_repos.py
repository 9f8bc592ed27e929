"""Repositories on the local Hub, through the unmodified client: datasets, their commits, and downloads."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from huggingface_hub import CommitOperationAdd, CommitOperationDelete
from huggingface_hub.errors import (
    EntryNotFoundError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from localhub.fixtures import noise
from localhub.process import LocalHub
from localhub.sweep import record

REPO = "owner/data"


@pytest.fixture
def dataset(hub: LocalHub) -> str:
    hub.api().create_repo(REPO, repo_type="dataset")
    return REPO


def commit(hub: LocalHub, add: dict[str, bytes], delete: tuple[str, ...] = (), parent: str | None = None) -> str:
    operations = [CommitOperationAdd(path, data) for path, data in add.items()]
    operations += [CommitOperationDelete(path) for path in delete]
    done = hub.api().create_commit(REPO, operations, commit_message="m", repo_type="dataset", parent_commit=parent)
    return done.oid


def files(hub: LocalHub) -> list[str]:
    listed = hub.api().list_repo_tree(REPO, repo_type="dataset", recursive=True)
    return [item.path for item in listed if hasattr(item, "size") and item.path != ".gitattributes"]


def test_a_folder_goes_up_and_comes_back_the_same(hub: LocalHub, dataset: str, tmp_path: Path) -> None:
    contents = {"data/a.bin": noise(600_000), "data/b.parquet": b"PAR1\0", "README.md": b"# text\n", "empty": b""}
    for path, data in contents.items():
        (tmp_path / "up" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "up" / path).write_bytes(data)
    hub.api().upload_folder(repo_id=dataset, repo_type="dataset", folder_path=tmp_path / "up")
    hub.restart()
    hub.api().snapshot_download(dataset, repo_type="dataset", cache_dir=tmp_path / "c", local_dir=tmp_path / "down")
    assert {path: (tmp_path / "down" / path).read_bytes() for path in contents} == contents
    large = hub.api().get_paths_info(dataset, ["data/a.bin", "README.md", "data"], repo_type="dataset")
    assert [item.xet_hash is not None for item in large if hasattr(item, "size")] == [True, False]


@pytest.mark.usefixtures("dataset")
def test_a_commit_is_seen_whole_or_not_at_all(hub: LocalHub) -> None:
    commit(hub, {"a": b"1", "b/c": b"2"})
    with pytest.raises(HfHubHTTPError):
        commit(hub, {"d": b"4"}, delete=("absent",))
    assert files(hub) == ["a", "b/c"]
    commit(hub, {"d": b"4"}, delete=("a", "b/"))
    assert files(hub) == ["d"]


def test_a_commit_on_an_old_parent_is_refused(hub: LocalHub, dataset: str) -> None:
    first = commit(hub, {"a": b"1"})
    second = commit(hub, {"a": b"2"}, parent=first)
    with pytest.raises(HfHubHTTPError) as caught:
        commit(hub, {"a": b"3"}, parent=first)
    assert caught.value.response.status_code == 412
    assert hub.api().repo_info(dataset, repo_type="dataset").sha == second
    history = hub.api().list_repo_commits(dataset, repo_type="dataset")
    assert [item.commit_id for item in history][:2] == [second, first]


def test_old_revisions_stay_readable(hub: LocalHub, dataset: str, tmp_path: Path) -> None:
    first = commit(hub, {"a": b"1"})
    commit(hub, {"a": b"22"})

    def read(revision: str | None) -> bytes:
        path = hub.api().hf_hub_download(dataset, "a", repo_type="dataset", revision=revision, cache_dir=tmp_path)
        return Path(path).read_bytes()

    assert (read(first), read(None)) == (b"1", b"22")
    with pytest.raises(RevisionNotFoundError):
        read("f" * 40)


@pytest.mark.usefixtures("dataset")
def test_what_has_not_changed_is_not_committed_again(hub: LocalHub) -> None:
    contents = {"a.bin": noise(300_000), "t": b"text"}
    first = commit(hub, contents)
    assert commit(hub, contents) == first


@pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # in the client's own call of httpx2
def test_a_stream_goes_up_by_the_lfs_protocol_and_comes_back_the_same(
    hub: LocalHub, dataset: str, tmp_path: Path
) -> None:
    data = noise(200_000)

    def upload() -> None:
        stream = io.BufferedReader(io.BytesIO(data))
        hub.api().upload_file(path_or_fileobj=stream, path_in_repo="s.bin", repo_id=dataset, repo_type="dataset")

    served = record(hub, upload)
    assert any(one.route == "PUT /lfs/{oid}" for one in served)
    path = hub.api().hf_hub_download(dataset, "s.bin", repo_type="dataset", cache_dir=tmp_path)
    assert Path(path).read_bytes() == data


def test_trees_are_listed_in_pages_and_the_file_system_reads_ranges(hub: LocalHub, dataset: str) -> None:
    data = noise(300_000)
    commit(hub, {f"d/{number:02}": b"x" for number in range(20)} | {"big.bin": data})
    hub.set(page_size=6)
    assert len(files(hub)) == 21
    fs = hub.filesystem()
    assert len(fs.find(f"datasets/{dataset}/d")) == 20
    with fs.open(f"datasets/{dataset}/big.bin", "rb", block_size=1000) as file:
        file.seek(250_000)
        assert file.read(50) == data[250_000:250_050]


def test_what_is_missing_or_private_is_not_found(hub: LocalHub, dataset: str, tmp_path: Path) -> None:
    api, stranger = hub.api(), hub.api(hub.token("hf_stranger", user="stranger", role="write"))
    with pytest.raises(EntryNotFoundError):
        api.hf_hub_download(dataset, "absent", repo_type="dataset", cache_dir=tmp_path)
    api.update_repo_settings(dataset, private=True, repo_type="dataset")
    for client in (stranger, hub.api(token=False)):
        with pytest.raises(RepositoryNotFoundError):
            client.repo_info(dataset, repo_type="dataset")
        with pytest.raises((RepositoryNotFoundError, LocalEntryNotFoundError)):
            client.hf_hub_download(dataset, ".gitattributes", repo_type="dataset", cache_dir=tmp_path)
    api.delete_repo(dataset, repo_type="dataset")
    with pytest.raises(RepositoryNotFoundError):
        api.repo_info(dataset, repo_type="dataset")
    api.delete_repo(dataset, repo_type="dataset", missing_ok=True)


def test_a_repository_is_created_once_and_only_where_the_caller_may(hub: LocalHub, dataset: str) -> None:
    with pytest.raises(HfHubHTTPError) as caught:
        hub.api().create_repo(dataset, repo_type="dataset")
    assert caught.value.response.status_code == 409
    assert hub.api().create_repo(dataset, repo_type="dataset", exist_ok=True).repo_id == dataset
    with pytest.raises(HfHubHTTPError) as caught:
        hub.api().create_repo("other/data", repo_type="dataset")
    assert caught.value.response.status_code == 403
