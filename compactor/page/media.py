"""The media of one run on their way to a page: each becomes a file with the name of its bytes."""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Callable, Iterator
from typing import Any

import pyarrow.compute as pc

from compactor.page.layout import MEDIA, blob_file
from compactor.serve.errors import NotFoundError
from compactor.serve.files import Found, Own, find_file
from compactor.serve.hub import Hub
from compactor.serve.project import Project
from compactor.serve.typed import MEDIA as KINDS
from eventlog import values


class Media:
    """What the values of a run refer to.

    Attributes:
        files: local path by the path on the page.
        missing: paths of which nothing is there: never uploaded, or not yet.
    """

    def __init__(self, hub: Hub, project: Project, run_id: str, directory: str) -> None:
        """Take the store and the run; texts that are no blobs are written to the directory."""
        self._hub = hub
        self._own = Own(project.name, functools.cache(lambda: named_blobs(project, run_id)))
        self._directory = directory
        self._places: dict[str, str] = {}
        self.files: dict[str, str] = {}
        self.missing: set[str] = set()

    def placed(self, value: Any) -> Any:
        """Return a value of the dashboard in which every medium has its path on the page.

        Raises:
            OSError: a text cannot be written.
        """
        if isinstance(value, list):
            return [self.placed(item) for item in value]
        if not isinstance(value, dict):
            return value
        shown = {key: self.placed(item) for key, item in value.items()}
        path = value.get("file_path")
        if isinstance(path, str) and path:
            shown["file_path"] = self._place(path)
        return shown

    def _place(self, path: str) -> str:
        known = self._places.get(path)
        if known is None:
            known = self._places[path] = self._found(path)
        return known

    def _found(self, path: str) -> str:
        found = find(self._hub, path, self._own)
        if found is None:
            self.missing.add(path)
            return path
        local = found.path
        digest = os.path.basename(local)
        if not local:
            digest = hashlib.sha256(found.text).hexdigest()
            local = os.path.join(self._directory, digest)
            with open(local, "wb") as file:
                file.write(found.text)
        name = blob_file(digest, path)
        self.files[MEDIA + name] = local
        # The page takes the project's name off before it asks.
        return f"{self._own.project}/{name}"


def find(hub: Hub, path: str, own: Own) -> Found | None:
    """Return what a path means in a project, or None.

    What belongs to another project may be private, and a page never is.
    """
    try:
        return find_file(hub, path, only=own)
    except NotFoundError:
        return None


def named_blobs(project: Project, run_id: str) -> frozenset[str]:
    """Return the digests of the media that values of a run name by them, as those of eventlog's own writers do.

    By a path such a blob is shown too, and anybody could log a path.
    """
    payloads = project.view(lambda view: view.rows("events", [run_id], None)["payload"])
    wanted = payloads.filter(pc.match_substring(payloads, '"sha256"'))
    return frozenset(digest for payload in wanted.to_pylist() for digest in _named(payload, project.load_blob))


def _named(payload: str, load_blob: Callable[[str], Any]) -> Iterator[str]:
    waiting = [(values.from_json(payload), True)]
    while waiting:
        value, is_record = waiting.pop()
        if isinstance(value, list):
            waiting += [(item, is_record) for item in value]
        elif isinstance(value, dict):
            kind, digest = value.get("_type"), value.get("sha256")
            if kind == "json" and isinstance(digest, str) and is_record:
                waiting.append((load_blob(digest), False))
            elif isinstance(kind, str) and kind in KINDS and isinstance(digest, str):
                yield digest
            else:
                waiting += [(item, is_record) for item in value.values()]
