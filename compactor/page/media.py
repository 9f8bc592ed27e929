"""The media of one run on their way to a page: each becomes a file with the name of its bytes."""

from __future__ import annotations

import hashlib
import os
from typing import Any

from compactor.page.layout import MEDIA, blob_file
from compactor.serve.errors import NotFoundError
from compactor.serve.files import Found, find_file
from compactor.serve.hub import Hub


class Media:
    """What some values refer to.

    Attributes:
        files: local path by the path on the page.
        missing: paths of which nothing is there: never uploaded, or not yet.
    """

    def __init__(self, hub: Hub, project: str, directory: str) -> None:
        """Take the store; texts that are no blobs are written to the directory."""
        self._hub = hub
        self._project = project
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
        found = find(self._hub, path, self._project)
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
        return f"{self._project}/{name}"


def find(hub: Hub, path: str, project: str) -> Found | None:
    """Return what a path means in a project, or None.

    What was uploaded to another project may be private, and a page never is.
    """
    try:
        return find_file(hub, path, only=project)
    except NotFoundError:
        return None
