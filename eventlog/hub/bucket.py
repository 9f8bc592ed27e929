"""A bucket of the Hub as this project uses it: list, ask, upload, download, delete, each safe to repeat."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar
from urllib.parse import quote

from eventlog.errors import DataError
from eventlog.hub.address import BucketAddress
from eventlog.hub.failures import need_client, retrying, status_of, told

if TYPE_CHECKING:
    from huggingface_hub import BucketFile, HfApi

MOST_PATHS: Final = 1000
"""How many files one call may name."""
_EMPTY_HASH: Final = "0" * 64
_T = TypeVar("_T")


class Remote(NamedTuple):
    """A file in a bucket.

    Attributes:
        path: as in the store, with `/`.
        size_bytes: of the file.
        xet_hash: of its bytes, as `hash_of` tells for a local file.
        uploaded_ns: when it was uploaded, by the Hub's clock.
    """

    path: str
    size_bytes: int
    xet_hash: str
    uploaded_ns: int


class Bucket:
    """A bucket, or a directory in one, with the names of a store. Thread-safe; holds no state.

    Every call tries again by itself what may pass, and is safe to repeat. What stays wrong is a StorageError that
    names the bucket and says what to do.
    """

    def __init__(self, address: BucketAddress, *, api: HfApi | None = None) -> None:
        """Take the address; nothing is asked yet.

        Args:
            address: of the bucket.
            api: a client with its endpoint and token; default is that of the environment, looked at anew in each call.

        Raises:
            UsageError: the client of the Hub is not installed.
        """
        need_client()
        self.address = address
        if api is None:
            from huggingface_hub import HfApi

            api = HfApi()
        self._api = api

    def __str__(self) -> str:
        """Return the address."""
        return str(self.address)

    def exists(self) -> bool:
        """Say whether the bucket is there, for this token.

        Raises:
            StorageError: the Hub refused or could not be reached.
        """
        return self.is_private() is not None

    def is_private(self) -> bool | None:
        """Say whether only those who may see it do; None when it is not there, for this token.

        Raises:
            StorageError: the Hub refused or could not be reached.
        """
        from huggingface_hub.errors import HfHubHTTPError

        with told(str(self)):
            try:
                return bool(self._api.bucket_info(self.address.bucket).private)
            except HfHubHTTPError as error:
                if status_of(error) == 404:
                    return None
                raise

    def create(self, *, private: bool = True) -> bool:
        """Create the bucket unless it is there; return whether it was created.

        Raises:
            StorageError: the Hub refused or could not be reached.
        """
        from huggingface_hub.errors import HfHubHTTPError

        if self.exists():
            return False
        with told(str(self)):
            try:
                self._api.create_bucket(self.address.bucket, private=private)
            except HfHubHTTPError as error:
                # Made meanwhile, perhaps by a try of ours whose answer was lost.
                if status_of(error) != 409 or not self.exists():
                    raise
                return False
        return True

    def files(self, under: str) -> list[Remote]:
        """Return all files below a directory of the store, in order. The listing may be some writes behind.

        Raises:
            StorageError: the Hub refused or could not be reached.
        """
        prefix = self.address.path(f"{under}/") if under else self.address.path("")
        return [self._remote(item) for item in self._tree(prefix, recursive=True) if item.type == "file"]

    def folders(self, under: str) -> list[str]:
        """Return the names of the directories right in a directory of the store, in order; likewise.

        Raises:
            StorageError: the Hub refused or could not be reached.
        """
        found = self._tree(self.address.path(f"{under}/"), recursive=False)
        return [os.path.basename(item.path.rstrip("/")) for item in found if item.type == "directory"]

    @retrying
    def _tree(self, prefix: str, *, recursive: bool) -> Sequence[Any]:
        with told(str(self)):
            return list(self._api.list_bucket_tree(self.address.bucket, prefix or None, recursive=recursive))

    @retrying
    def info(self, paths: Iterable[str]) -> dict[str, Remote]:
        """Return those of these files that are there, by path: the truth, not the listing.

        Raises:
            StorageError: the Hub refused or could not be reached.
        """
        asked = [self.address.path(path) for path in paths]
        with told(str(self)):
            found = [self._remote(item) for item in self._api.get_bucket_paths_info(self.address.bucket, asked)]
        return {item.path: item for item in found}

    @retrying
    def upload(self, files: Sequence[tuple[str | bytes, str]]) -> None:
        """Upload (local path or bytes, path) pairs; when this returns, all are there.

        When it raises, any of them may be there, each whole.

        Raises:
            StorageError: the Hub refused or could not be reached.
            FileNotFoundError: a local file is not there.
        """
        for part in in_parts(files):
            for source, _ in part:
                if isinstance(source, str):
                    os.stat(source)  # the client says nothing that a caller could tell from other failures
            with told(str(self)):
                self._api.batch_bucket_files(
                    self.address.bucket, add=[(source, self.address.path(path)) for source, path in part]
                )

    def download(self, files: Sequence[tuple[Remote, str]]) -> None:
        """Download files to local paths, which are made or replaced, and compare each with its hash.

        When it raises, any of the paths may hold anything: download beside, and rename.

        Raises:
            DataError: what came is not what the bucket holds, also after trying again.
            StorageError: the Hub refused or could not be reached, or a file is gone.
        """
        for part in in_parts(files):
            wanted = [(self._named(remote), to) for remote, to in part]
            self._fetch(wanted)
            broken = _broken(part)
            if broken:
                self._fetch([wanted[index] for index in broken])
                still = _broken([part[index] for index in broken])
                if still:
                    path = part[broken[still[0]]][0].path
                    raise DataError(f"{self}/{path}", None, "what was downloaded is not what the bucket holds")

    @retrying
    def _fetch(self, wanted: Sequence[tuple[BucketFile, str]]) -> None:
        with told(str(self)):
            self._api.download_bucket_files(self.address.bucket, [*wanted], raise_on_missing_files=True)

    def read(self, file: Remote) -> bytes:
        """Return the bytes of a small file, compared with its hash.

        Raises:
            DataError: what came is not what the bucket holds.
            StorageError: the Hub refused or could not be reached, or the file is gone.
        """
        with tempfile.TemporaryDirectory(prefix="eventlog-") as directory:
            path = os.path.join(directory, "file")
            self.download([(file, path)])
            with open(path, "rb") as read:
                return read.read()

    @retrying
    def fetch(self, path: str, start: int = 0, end: int | None = None) -> bytes:
        """Return the bytes of a file from `start` to before `end`, in one request; they are not compared with a hash.

        Args:
            path: of the file.
            start: of the first byte.
            end: of the byte after the last, which must be in the file; None for the whole file, whatever `start` is.

        Raises:
            StorageError: the Hub refused or could not be reached; `errno` is ENOENT when the file is gone.
        """
        from huggingface_hub import constants
        from huggingface_hub.utils import (  # type: ignore[attr-defined]
            build_hf_headers,
            hf_raise_for_status,
            http_backoff,
        )

        if end is not None and end <= start:
            return b""
        headers = build_hf_headers(token=self._api.token)
        if end is not None:
            headers["range"] = f"bytes={start}-{end - 1}"
        url = f"{self._api.endpoint}/buckets/{self.address.bucket}/resolve/{quote(self.address.path(path))}"
        with told(f"{self}/{path}"):
            answer = http_backoff("GET", url, headers=headers, timeout=constants.HF_HUB_DOWNLOAD_TIMEOUT)
            hf_raise_for_status(answer)
            data: bytes = answer.content
            if end is None:
                return data
            data = data if answer.status_code == 206 else data[start:end]
            if len(data) != end - start:
                raise ConnectionError(f"{len(data)} bytes came of {end - start}")
            return data

    @retrying
    def delete(self, paths: Sequence[str]) -> None:
        """Delete files; those that are not there count as deleted.

        Raises:
            StorageError: the Hub refused or could not be reached; any of them may be gone.
        """
        from huggingface_hub.errors import BucketBatchError

        for part in in_parts(paths):
            with told(str(self)):
                try:
                    self._api.batch_bucket_files(self.address.bucket, delete=[self.address.path(path) for path in part])
                except BucketBatchError as error:
                    # Its own second try, after an answer that was lost, finds nothing to delete.
                    if any(failure.get("error") != "not found" for failure in error.failures):
                        raise

    def _named(self, file: Remote) -> BucketFile:
        from huggingface_hub import BucketFile

        facts: dict[str, Any] = {"size": file.size_bytes, "xetHash": file.xet_hash}
        return BucketFile(type="file", path=self.address.path(file.path), **facts)  # type: ignore[no-untyped-call]

    def _remote(self, item: BucketFile) -> Remote:
        uploaded = item.uploaded_at or item.mtime
        uploaded_ns = 0 if uploaded is None else int(uploaded.timestamp() * 1e6) * 1000
        return Remote(self.address.name(item.path), item.size, item.xet_hash, uploaded_ns)


def hash_of(paths: Sequence[str]) -> list[str]:
    """Return the hashes by which the Hub names the bytes of local files.

    Raises:
        OSError: a file cannot be read.
    """
    import hf_xet

    filled = [path for path in paths if os.stat(path).st_size]
    found = dict(zip(filled, hf_xet.hash_files(filled), strict=True)) if filled else {}
    return [found[path].hash if path in found else _EMPTY_HASH for path in paths]


def hash_of_bytes(data: bytes) -> str:
    """Return the hash by which the Hub names these bytes.

    Raises:
        OSError: there is no place for a temporary file.
    """
    with tempfile.NamedTemporaryFile(prefix="eventlog-") as file:  # hf_xet takes paths only
        file.write(data)
        file.flush()
        return hash_of([file.name])[0]


def _broken(files: Sequence[tuple[Remote, str]]) -> list[int]:
    hashes = hash_of([path for _, path in files])
    return [
        index
        for index, ((remote, path), found) in enumerate(zip(files, hashes, strict=True))
        if os.stat(path).st_size != remote.size_bytes or (remote.size_bytes and found != remote.xet_hash)
    ]


def in_parts(items: Sequence[_T]) -> Iterator[Sequence[_T]]:
    """Cut what one call may name."""
    for start in range(0, len(items), MOST_PATHS):
        yield items[start : start + MOST_PATHS]
