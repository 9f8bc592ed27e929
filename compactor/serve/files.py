"""Find the bytes behind a path of the dashboard: always a blob of the store, never a path on the disk."""

from __future__ import annotations

import mimetypes
import os
from collections.abc import Callable, Collection
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


class Own(NamedTuple):
    """What one project has of its own in a store of several.

    Attributes:
        project: its name.
        digests: of the blobs that its values name; blobs of all projects are in one place.
    """

    project: str
    digests: Callable[[], Collection[str]] = frozenset


def find_file(hub: Hub, path: str, *, only: Own | None = None) -> Found:
    """Return what a path means that a value, or the list of files, gave to the dashboard.

    Args:
        hub: where to look.
        path: as the value has it.
        only: what belongs to other projects than this one is not found.

    Raises:
        NotFoundError: nothing of that name was logged or uploaded.
    """
    name = path.rsplit("/", 1)[-1]
    # The dashboard puts the directory of media before a path; a project may have the name of any of them.
    for place in dict.fromkeys((path, path.removeprefix(f"{MEDIA_DIR}/"))):
        head, _, rest = place.partition("/")
        where = parse_inline_path(place) if head == INLINE_PREFIX else None
        if where is not None and (only is None or only.project == where[0]):
            return Found("", _inline(hub, where), "text/html", "page.html")
        digest = os.path.splitext(rest)[0] if head == BLOB_PREFIX else ""
        if not names.is_digest(digest):
            digest = _uploaded(hub, place, hub.names() if only is None else [only.project])
        elif only is not None and digest not in only.digests():
            continue
        if digest:
            return Found(blob_path(hub, digest), b"", media_type(name), name)
    raise NotFoundError("Not found")


def blob_path(hub: Hub, digest: str) -> str:
    """Return the path of a blob that is there.

    Raises:
        NotFoundError: it is not.
    """
    if not names.is_digest(digest) or not os.path.isfile(hub.blobs.path(digest)):
        raise NotFoundError("Not found")
    return hub.blobs.path(digest)


def _uploaded(hub: Hub, path: str, projects: list[str]) -> str:
    """Return the digest of what was uploaded to one of these projects under a path, or "".

    Clients also shorten a project's name.
    """
    for prefix, project in [*zip(projects, projects, strict=True), *((canonical(name), name) for name in projects)]:
        if path.startswith(f"{prefix}/"):
            state = hub.find(project)
            digest = state.upload(f"{project}/{path.removeprefix(f'{prefix}/')}") if state is not None else None
            if digest is not None:
                return digest
    return ""


def canonical(project: str) -> str:
    """Return the name that Trackio's client gives a project's directory."""
    return "".join(c for c in project if c.isalnum() or c in "-_") or "default"


def _inline(hub: Hub, where: tuple[str, str, str, int, str]) -> bytes:
    project, run_id, writer_id, seq, name = where
    state = hub.find(project)
    if state is None:
        raise NotFoundError("Not found")
    for row in state.values_of(run_id, writer_id, seq):
        value = values.from_json(row.payload) if row.name == name else None
        if isinstance(value, dict) and value.get("_type") == "html":
            return str(value.get("value", "")).encode("utf-8", "replace")
    raise NotFoundError("Not found")


def media_type(name: str) -> str:
    """Return what a browser may take a file for; what it could not show becomes a download."""
    guessed = mimetypes.guess_type(name)[0] or ""
    return guessed if guessed.startswith(_SHOWN) else "application/octet-stream"
