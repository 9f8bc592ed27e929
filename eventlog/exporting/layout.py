"""The files of an exported dataset: their names, and the index that says what is in which. FORMAT.md says every field.

A dataset holds one project. Its runs are divided into *packs*; a pack has files of each table, and is written anew as
a whole when one of its runs has changed. File names hold the hash of what is in them, so no file is ever replaced.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from typing import Final

import msgspec

from eventlog import names
from eventlog.errors import DataError, NewerFormatError

FORMAT: Final = 1
INDEX: Final = "eventlog.json"
CARD: Final = "README.md"
DATA: Final = "data"
TABLES: Final = ("metrics", "system", "events")
_DATA_FILE: Final = re.compile(r"data/(metrics|system|events|runs)/[0-9]{5}-[0-9]{3}-[0-9a-f]{16}\.parquet")
_BLOB: Final = re.compile(r"blobs/sha256/([0-9a-f]{2})/(\1[0-9a-f]{62})")


class DataFile(msgspec.Struct, frozen=True):
    """A parquet file of the dataset."""

    path: str
    rows: int
    size_bytes: int
    sha256: str


class PackedRun(msgspec.Struct, frozen=True, array_like=True):
    """A run in a pack, and how many rows it has in each table; "" stands for what belongs to no run."""

    run_id: str
    metrics: int
    system: int
    events: int


class Pack(msgspec.Struct, frozen=True):
    """Some runs, in the order of their rows, their files by table, and the blobs that their events name."""

    number: int
    runs: list[PackedRun]
    files: dict[str, list[DataFile]]
    blobs: list[str] = []

    def all_files(self) -> Iterator[DataFile]:
        """Yield the files of all tables."""
        for files in self.files.values():
            yield from files


class Index(msgspec.Struct, frozen=True):
    """What a dataset holds.

    Attributes:
        format: of the dataset.
        project: the project's name.
        software: what wrote it.
        columns: the metric columns that all files of a table have, by table.
        packs: in the order of their numbers.
        runs: the files of the table of runs.
    """

    format: int
    project: str
    software: str
    columns: dict[str, list[str]]
    packs: list[Pack]
    runs: list[DataFile]

    def all_files(self) -> Iterator[DataFile]:
        """Yield all data files."""
        for pack in self.packs:
            yield from pack.all_files()
        yield from self.runs


def encode(index: Index) -> bytes:
    """Return an index as the file holds it: the same bytes for the same dataset."""
    return msgspec.json.format(msgspec.json.encode(index, order="deterministic"), indent=1) + b"\n"


def decode(data: bytes, path: str) -> Index:
    """Return the index in a file.

    Raises:
        NewerFormatError: it is of a format that this release does not read.
        DataError: it is no index, or names files that could lead anywhere else.
    """
    try:
        version = msgspec.json.decode(data, type=_Versioned).format
        if version > FORMAT:
            raise NewerFormatError(path, None, f"is of format {version}, this release reads {FORMAT}: upgrade eventlog")
        index = msgspec.json.decode(data, type=Index)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise DataError(path, None, f"is no index of a dataset: {error}") from None
    for file in index.all_files():
        if _DATA_FILE.fullmatch(file.path) is None:
            raise DataError(path, None, f"names the file {file.path!r}, which no dataset has")
    known: set[str] = set()
    for pack in index.packs:
        if not all(map(names.is_digest, pack.blobs)):
            raise DataError(path, None, f"pack {pack.number} names a blob that none can be")
        if set(pack.files) != set(TABLES):
            raise DataError(path, None, f"pack {pack.number} has other tables than a dataset")
        ids = {run.run_id for run in pack.runs}
        if len(ids) < len(pack.runs) or ids & known:
            raise DataError(path, None, f"pack {pack.number} has a run twice, or one of another pack")
        known |= ids
    return index


class _Versioned(msgspec.Struct):
    format: int


def data_path(table: str, number: int, part: int, sha256: str) -> str:
    """Return the name of a data file."""
    return f"{DATA}/{table}/{number:05d}-{part:03d}-{sha256[:16]}.parquet"


def blob_path(digest: str) -> str:
    """Return the name of a blob, the same as in a store."""
    return f"{names.BLOBS}/sha256/{digest[:2]}/{digest}"


def is_ours(path: str) -> bool:
    """Say whether a file of a dataset is one that an export made, and may delete."""
    return _DATA_FILE.fullmatch(path) is not None or _BLOB.fullmatch(path) is not None


def sha256_of(path: str) -> str:
    """Return the SHA-256 of a local file.

    Raises:
        OSError: it cannot be read.
    """
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
