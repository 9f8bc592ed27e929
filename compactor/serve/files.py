"""Find the bytes behind a path of the dashboard: always a blob of the store, never a path on the disk."""

from __future__ import annotations

import mimetypes
import os
from typing import Final, NamedTuple

from compactor.serve.errors import NotFoundError
from compactor.serve.hub import Hub
from compactor.serve.typed import BLOB_PREFIX, INLINE_PREFIX
from compactor.serve.typedrows import parse_inline_path
from eventlog import names, values

MEDIA_DIR: Final = "media"
_SHOWN: Final = ("image/", "audio/", "video/", "text/plain", "text/html", "application/json", "model/")


class Found(NamedTuple):
    """What to send: a file, or a text.

    Attributes:
        path: of the blob, "" for a text.
        text: bytes that are no blob.
        media_type: for the browser.
        name: for a download.
    """

    path: str
    text: bytes
    media_type: str
    name: str


def find_file(hub: Hub, path: str) -> Found:
    """Return what a path means that a value, or the list of files, gave to the dashboard.

    Raises:
        NotFoundError: nothing of that name was logged or uploaded.
    """
    path = path.removeprefix(f"{MEDIA_DIR}/")
    head, _, rest = path.partition("/")
    name = path.rsplit("/", 1)[-1]
    if head == INLINE_PREFIX:
        return Found("", _inline(hub, path), "text/html", "page.html")
    digest = os.path.splitext(rest)[0] if head == BLOB_PREFIX else _uploaded(hub, path)
    return Found(blob_path(hub, digest), b"", media_type(name), name)


def blob_path(hub: Hub, digest: str) -> str:
    """Return the path of a blob that is there.

    Raises:
        NotFoundError: it is not.
    """
    if not names.is_digest(digest) or not os.path.isfile(hub.blobs.path(digest)):
        raise NotFoundError("Not found")
    return hub.blobs.path(digest)


def _uploaded(hub: Hub, path: str) -> str:
    """Return the digest of what was uploaded under a path; clients also write a project's name in a shorter form."""
    for project in hub.names():
        for prefix in dict.fromkeys((project, canonical(project))):
            if path.startswith(f"{prefix}/"):
                wanted = f"{project}/{path.removeprefix(f'{prefix}/')}"
                state = hub.find(project)
                digest = state.upload(wanted) if state is not None else None
                if digest is not None:
                    return digest
    raise NotFoundError("Not found")


def canonical(project: str) -> str:
    """Return the name that Trackio's client gives a project's directory."""
    return "".join(c for c in project if c.isalnum() or c in "-_") or "default"


def _inline(hub: Hub, path: str) -> bytes:
    where = parse_inline_path(path)
    state = hub.find(where[0]) if where is not None else None
    if where is None or state is None:
        raise NotFoundError("Not found")
    _, run_id, writer_id, seq, name = where
    for row in state.values_of(run_id, writer_id, seq):
        value = values.from_json(row.payload) if row.name == name else None
        if isinstance(value, dict) and value.get("_type") == "html":
            return str(value.get("value", "")).encode("utf-8", "replace")
    raise NotFoundError("Not found")


def media_type(name: str) -> str:
    """Return what a browser may take a file for; what it could not show becomes a download."""
    guessed = mimetypes.guess_type(name)[0] or ""
    return guessed if guessed.startswith(_SHOWN) else "application/octet-stream"
