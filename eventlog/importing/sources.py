"""Where an import reads: what it asks of a place, the place that is a directory, and what is counted on the way."""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from eventlog.errors import DataError, UsageError
from eventlog.importing.plan import SourceRun
from eventlog.importing.staging import Staged

BATCH_CELLS = 1 << 21


class Place(Protocol):
    """A directory of files, here or elsewhere, that does not change while it is read."""

    def __str__(self) -> str:
        """Return what people call it."""

    @property
    def origin(self) -> str:
        """What is read, as exactly as it can be said, for the records."""

    def listing(self) -> Mapping[str, int]:
        """Return the sizes of all files, by name."""

    def fetch(self, name: str) -> AbstractContextManager[str]:
        """Return a context with the path of a file on this machine.

        Raises:
            FileNotFoundError: there is no such file.
            DataError: it arrives other than it is there.
            StorageError: it cannot be had.
        """


class Directory:
    """A directory on this machine."""

    def __init__(self, root: str) -> None:
        """Take the directory.

        Raises:
            UsageError: there is none.
        """
        self._root = os.path.abspath(root)
        if not os.path.isdir(self._root):
            raise UsageError(f"there is no directory {self._root}")

    def __str__(self) -> str:
        """Return its path."""
        return self._root

    @property
    def origin(self) -> str:
        """Its path."""
        return self._root

    def listing(self) -> dict[str, int]:
        """Return the sizes of all files, by name."""
        found: dict[str, int] = {}
        for directory, _, files in os.walk(self._root):
            for name in files:
                path = os.path.join(directory, name)
                with contextlib.suppress(FileNotFoundError):
                    found[os.path.relpath(path, self._root).replace(os.sep, "/")] = os.path.getsize(path)
        return found

    @contextlib.contextmanager
    def fetch(self, name: str) -> Iterator[str]:
        """Return a context with the path of a file."""
        yield os.path.join(self._root, name)


class Project(Protocol):
    """One project of a source.

    Attributes:
        name: there.
        form: of the source: "eventlog" or "trackio".
        runs: all of them, and what belongs to no run when there is any.
        left_out: counts what cannot be kept, by reason.
    """

    name: str
    form: str
    runs: list[SourceRun]
    left_out: Counter[str]

    def read(self, ids: Mapping[str, str], root: str, into: Staged) -> None:
        """Hand over all records of some runs, their blobs first.

        Args:
            ids: the runs wanted, and their ids in the store.
            root: the store's directory, for blobs.
            into: takes the records.

        Raises:
            DataError: a file is damaged, or not what the index says.
            StorageError: it cannot be read or kept.
        """


def row_count(path: str, name: str) -> int:
    """Return how many rows a parquet file has.

    Raises:
        DataError: it is no parquet file, or a damaged one.
    """
    try:
        return int(pq.read_metadata(path).num_rows)
    except (pa.ArrowException, OSError) as error:
        raise DataError(name, None, f"cannot be read as parquet: {error}") from error


def batches(path: str, name: str, columns: list[str] | None = None) -> Iterator[pa.RecordBatch]:
    """Yield the rows of a parquet file, a bounded number of cells at once.

    Args:
        path: on this machine.
        name: for messages.
        columns: only these, those of them that are there; None for all.

    Raises:
        DataError: it is no parquet file, or a damaged one.
    """
    try:
        with pq.ParquetFile(path) as file:
            there = file.schema_arrow.names
            wanted = None if columns is None else [column for column in columns if column in there]
            if len(set(there)) < len(there):
                raise DataError(name, None, "two of its columns have one name")
            rows = max(BATCH_CELLS // max(len(there if wanted is None else wanted), 1), 1)
            yield from file.iter_batches(batch_size=min(rows, 1 << 16), columns=wanted)
    except (pa.ArrowException, OSError) as error:
        raise DataError(name, None, f"cannot be read as parquet: {error}") from error
