"""A dataset repository of the Hub: what is in it, its files, compared with their hashes, and commits of exports."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from eventlog.errors import ConflictError, DataError, UsageError, shown
from eventlog.hub.failures import need_client, passes, retrying, status_of, told

if TYPE_CHECKING:
    from huggingface_hub import CommitOperationAdd, HfApi

SCHEME: Final = "hf://datasets/"
_PART: Final = re.compile(r"(?!.*(?:--|\.\.|\.git$))[A-Za-z0-9_](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9_])?")
"""Of an owner or a name: what the Hub takes."""
_KIND: Final = "dataset"
_TRIES: Final = 3
_CHUNK_BYTES: Final = 1 << 20
_KEPT_UNDER: Final = "blobs/"


class DatasetAddress(NamedTuple):
    """A dataset repository, and the directory in it, "" for all of it."""

    repo: str
    path: str = ""

    def __str__(self) -> str:
        """Return it as `parse_dataset` takes it."""
        return SCHEME + "/".join(filter(None, self))


def is_dataset(text: object) -> bool:
    """Say whether a text is the address of a dataset repository."""
    return isinstance(text, str) and text.startswith(SCHEME)


def parse_dataset(text: str) -> DatasetAddress:
    """Return the address in `hf://datasets/OWNER/NAME[/PATH]`.

    Raises:
        UsageError: it is none.
    """
    form = "a dataset is hf://datasets/OWNER/NAME, with a directory in it after another slash"
    if not is_dataset(text):
        raise UsageError(f"{form}, not {shown(text)}")
    parts = text.removeprefix(SCHEME).rstrip("/").split("/")
    if len(parts) < 2 or not all(map(_PART.fullmatch, parts[:2])):
        raise UsageError(f"{form}, not {shown(text)}")
    if not all(part.isprintable() and part not in ("", ".", "..") for part in parts[2:]):
        raise UsageError(f"the directory in a dataset is made of names between slashes: {shown(text)}")
    return DatasetAddress("/".join(parts[:2]), "/".join(parts[2:]))


class RepoFile(NamedTuple):
    """A file of a repository: its size, and the SHA-256 of its bytes, or their git hash where it is a small one."""

    size_bytes: int
    sha256: str
    git_hash: str


class DatasetRepo:
    """A dataset repository as it was at one commit, and what is to become of it. Not thread-safe.

    Names are relative to the directory of the address; only the card is that of the whole repository.

    Attributes:
        repo: the address of the repository.
        path: the directory in it.
        revision: the commit that all is read from; "" before there is one.
    """

    def __init__(self, address: DatasetAddress, *, api: HfApi | None = None) -> None:
        """Take the address; nothing is asked yet.

        Args:
            address: of the repository.
            api: a client with its endpoint and token; default is that of the environment.

        Raises:
            UsageError: the client of the Hub is not installed.
        """
        need_client()
        if api is None:
            from huggingface_hub import HfApi

            api = HfApi()
        self.repo = SCHEME + address.repo
        self.path = address.path
        self.revision = ""
        self._address = address
        self._api = api
        self._files: dict[str, RepoFile] = {}
        self._additions: list[CommitOperationAdd] = []

    def __str__(self) -> str:
        """Return the address."""
        return str(self._address)

    @property
    def origin(self) -> str:
        """The address and the commit that all is read from."""
        return f"{self._address}@{self.revision}"

    def open(self) -> None:
        """Look at the newest commit; all that is read later is of that one.

        Raises:
            StorageError: there is no such repository for this token, or the Hub refused or could not be reached.
        """
        self.revision = self._head()
        self._files = self._tree(self.revision)

    def open_or_create(self, *, private: bool = False) -> bool:
        """Create the repository unless it is there, then look at it; return whether it was created.

        Args:
            private: nobody else may see it.

        Raises:
            UsageError: it is there, and everybody can see it, though it was to be private.
            StorageError: the Hub refused or could not be reached.
        """
        created = False
        facts = self._facts()
        if facts is None:
            created = self._create(private=private)
            facts = self._facts()
        if private and facts is not None and not facts.private:
            raise UsageError(f"{self.repo} is there already and public: change it there, or name another one")
        self.open()
        return created

    @retrying
    def _facts(self) -> Any | None:
        from huggingface_hub.errors import HfHubHTTPError

        with told(self.repo):
            try:
                return self._api.repo_info(self._address.repo, repo_type=_KIND)
            except HfHubHTTPError as error:
                if status_of(error) == 404:
                    return None
                raise

    def _create(self, *, private: bool) -> bool:
        from huggingface_hub.errors import HfHubHTTPError

        with told(self.repo):
            for left in reversed(range(_TRIES)):
                try:
                    self._api.create_repo(self._address.repo, repo_type=_KIND, private=private)
                except HfHubHTTPError as error:
                    # Made meanwhile, perhaps by a try of ours whose answer was lost.
                    if status_of(error) == 409:
                        return False
                    if not (left and passes(error)):
                        raise
                except Exception as error:
                    if not (left and passes(error)):
                        raise
                else:
                    return True
        return False

    @retrying
    def _head(self) -> str:
        with told(self.repo):
            return str(self._api.repo_info(self._address.repo, repo_type=_KIND).sha)

    @retrying
    def _tree(self, revision: str) -> dict[str, RepoFile]:
        from huggingface_hub.hf_api import RepoFile as Found

        found: dict[str, RepoFile] = {}
        with told(self.repo):
            for item in self._api.list_repo_tree(
                self._address.repo, repo_type=_KIND, revision=revision, recursive=True
            ):
                if isinstance(item, Found):
                    sha256 = item.lfs.sha256 if item.lfs is not None else ""
                    found[item.path] = RepoFile(item.size, sha256, item.blob_id)
        return found

    def listing(self) -> dict[str, int]:
        """Return the sizes of the files in the directory, by name."""
        prefix = self._full("")
        return {path[len(prefix) :]: file.size_bytes for path, file in self._files.items() if path.startswith(prefix)}

    def _full(self, name: str) -> str:
        return f"{self.path}/{name}" if self.path else name

    def read(self, name: str) -> bytes | None:
        """Return the bytes of a small file, or None when it is not there.

        Raises:
            DataError: what came is not what the repository holds.
            StorageError: the Hub refused or could not be reached.
        """
        return self._read(self._full(name))

    def index(self) -> bytes | None:
        """Return the index of the dataset that is there; errors as `read`."""
        return self.read("eventlog.json")

    def card(self) -> bytes | None:
        """Return the card of the repository; errors as `read`."""
        return self._read("README.md")

    def _read(self, full: str) -> bytes | None:
        if full not in self._files:
            return None
        with self._downloaded(full) as local, open(local, "rb") as file:
            return file.read()

    def fetch(self, name: str) -> contextlib.AbstractContextManager[str]:
        """Return a context with the path of a local copy of a file, which is removed at its end.

        Raises:
            FileNotFoundError: there is no such file.
            DataError: what came is not what the repository holds, also after trying again.
            StorageError: the Hub refused or could not be reached.
        """
        return self._downloaded(self._full(name))

    @contextlib.contextmanager
    def _downloaded(self, full: str) -> Iterator[str]:
        expected = self._files.get(full)
        if expected is None:
            raise FileNotFoundError(f"{self.repo} has no file {full}")
        with tempfile.TemporaryDirectory(prefix="eventlog-") as directory:
            for _ in range(2):
                local = self._download(full, directory)
                if _agrees(local, expected):
                    break
                shutil.rmtree(directory)
                os.mkdir(directory)
            else:
                raise DataError(f"{self.repo}/{full}", None, "what was downloaded is not what the repository holds")
            yield local

    @retrying
    def _download(self, full: str, directory: str) -> str:
        with told(self.repo):
            return self._api.hf_hub_download(
                self._address.repo, full, repo_type=_KIND, revision=self.revision, local_dir=directory
            )

    def add(self, files: Sequence[tuple[str, str]]) -> None:
        """Upload files, as (name, local path) pairs; nobody sees them before `finish`.

        Raises:
            StorageError: the Hub refused or could not be reached.
        """
        from huggingface_hub import CommitOperationAdd

        additions = [CommitOperationAdd(self._full(name), local) for name, local in files]
        self._upload(additions)
        for (name, local), addition in zip(files, additions, strict=True):
            # What is small goes up with the commit; blobs are still there then.
            if addition.path_or_fileobj == local and not name.startswith(_KEPT_UNDER):
                with open(local, "rb") as file:
                    self._additions.append(CommitOperationAdd(self._full(name), file.read()))
            else:
                self._additions.append(addition)

    @retrying
    def _upload(self, additions: Sequence[CommitOperationAdd]) -> None:
        with told(self.repo):
            self._api.preupload_lfs_files(self._address.repo, additions, repo_type=_KIND)

    def finish(self, index: bytes, card: bytes, obsolete: Sequence[str], message: str) -> None:
        """Make one commit of all that was added, on top of the one that was looked at.

        Raises:
            ConflictError: somebody else has committed meanwhile; nothing of this one is there.
            StorageError: the Hub refused or could not be reached; the commit is there as a whole, or not at all.
        """
        from huggingface_hub import CommitOperationAdd, CommitOperationDelete

        operations = [
            *self._additions,
            CommitOperationAdd(self._full("eventlog.json"), index),
            CommitOperationAdd("README.md", card),
            *(CommitOperationDelete(self._full(name)) for name in obsolete),
        ]
        wanted = {"README.md": card, self._full("eventlog.json"): index}
        self._commit(operations, wanted, message)
        self._additions = []

    def _commit(self, operations: Sequence[Any], wanted: dict[str, bytes], message: str) -> None:
        """Commit; a try whose answer was lost is told by what it left, so that none is made twice."""
        for left in reversed(range(_TRIES)):
            try:
                with told(self.repo):
                    self._api.create_commit(
                        self._address.repo,
                        operations,
                        commit_message=message,
                        repo_type=_KIND,
                        parent_commit=self.revision,
                    )
            except Exception as error:
                head = self._head()
                if head != self.revision:
                    if self._is(head, wanted):
                        break
                    raise ConflictError(f"{self.repo} was changed meanwhile: try again") from error
                if not (left and passes(error)):
                    raise
            else:
                return

    def _is(self, revision: str, wanted: dict[str, bytes]) -> bool:
        files = self._tree(revision)
        return all(path in files and _is_file(data, files[path]) for path, data in wanted.items())


def _is_file(data: bytes, file: RepoFile) -> bool:
    if file.sha256:
        return hashlib.sha256(data).hexdigest() == file.sha256
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest() == file.git_hash


def _agrees(path: str, file: RepoFile) -> bool:
    if os.path.getsize(path) != file.size_bytes:
        return False
    digest = hashlib.sha256() if file.sha256 else hashlib.sha1(b"blob %d\0" % file.size_bytes, usedforsecurity=False)
    with open(path, "rb") as read:
        while data := read.read(_CHUNK_BYTES):
            digest.update(data)
    return digest.hexdigest() == (file.sha256 or file.git_hash)
