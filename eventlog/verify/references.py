"""Which blobs the payloads of events name, and whether they are there."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final, NamedTuple

import msgspec

from eventlog import names, parquet, schema
from eventlog.fs import Fs
from eventlog.verify.report import Code

_MARK: Final = '"sha256"'
_UNTYPED: Final = (schema.kind_name(schema.ArtifactVersion), schema.kind_name(schema.Upload))


class Reference(NamedTuple):
    """A blob that a record names."""

    digest: str
    size_bytes: int


def references(kind: str, payload: str) -> Iterator[Reference]:
    """Yield the blobs that one row of events names; never raises.

    A reference is a dict with `_type`, a digest as `sha256`, and `size_bytes`; in an upload, and in the `files` of an
    artifact, the type may be missing.
    """
    if _MARK not in payload:
        return
    try:
        plain = msgspec.json.decode(payload)
    except msgspec.MsgspecError:
        return
    yield from _walk(plain, typed=kind not in _UNTYPED)


def _walk(plain: Any, *, typed: bool) -> Iterator[Reference]:
    if isinstance(plain, dict):
        digest, size = plain.get("sha256"), plain.get("size_bytes")
        if (not typed or "_type" in plain) and isinstance(digest, str) and isinstance(size, int):
            if names.is_digest(digest):
                yield Reference(digest, size)
            return
        plain = list(plain.values())
    if isinstance(plain, list):
        for value in plain:
            yield from _walk(value, typed=typed)


class Blobs:
    """Looks every blob up once. Not thread-safe; memory grows with the number of blobs."""

    def __init__(self, fs: Fs, root: str, *, contents: bool) -> None:
        """Take the store; `contents` also reads and hashes every blob."""
        self._fs = fs
        self._root = root
        self._contents = contents
        self._known: dict[Reference, tuple[Code, str] | None] = {}

    def check(self, found: Iterable[Reference]) -> Iterator[tuple[Code, str, str]]:
        """Yield (code, digest, message) for each blob that is not as it should be, the first time it is named.

        Raises:
            OSError: a blob is there but cannot be read.
        """
        for reference in found:
            if reference in self._known:
                continue
            problem = self._known[reference] = self._look(reference)
            if problem is not None:
                yield problem[0], f"blobs/sha256/{reference.digest[:2]}/{reference.digest}", problem[1]

    def _look(self, reference: Reference) -> tuple[Code, str] | None:
        path = names.blob_path(self._root, reference.digest)
        try:
            size = self._fs.size(path)
        except FileNotFoundError:
            return "blob_missing", "a record names this blob and it is not there"
        if size != reference.size_bytes:
            return "blob_changed", f"has {size} bytes, the record that names it says {reference.size_bytes}"
        if self._contents and parquet.sha256(self._fs, path) != reference.digest:
            return "blob_changed", "the bytes do not match the digest that is the blob's name"
        return None
