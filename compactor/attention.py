"""What the service knows of a project between its sweeps, so that a look at what is idle costs next to nothing."""

from __future__ import annotations

from typing import Final

from compactor.plan import pending_bytes
from compactor.survey import segments_of, unreadable_segments
from eventlog import manifest as manifests
from eventlog.fs import Fs
from eventlog.glance import Glance
from eventlog.manifest import Manifest, Watermark

_TRUSTED_S: Final = 60.0


class Attention:
    """The newest manifest of a project, and which writers had nothing new after it. Not thread-safe."""

    def __init__(self, fs: Fs, root: str, project: str) -> None:
        """Take the project; everything is looked at the first time."""
        self._fs = fs
        self._root = root
        self._project = project
        self._glance = Glance(fs, root, project, _TRUSTED_S)
        self._manifest = manifests.empty(project)

    def manifest(self) -> Manifest:
        """Return the newest manifest; it is read only when there is a newer one.

        Raises:
            OSError: as the file system raises it.
            DataError: as `manifests.load_newest`.
        """
        versions = manifests.versions(self._fs, self._root, self._project)
        if versions and versions[-1] != self._manifest.version:
            self._manifest, _ = manifests.load_newest(self._fs, self._root, self._project)
        return self._manifest

    def pending(self) -> dict[str, int]:
        """Return how many bytes after its watermark each writer has that has any.

        It takes two system calls for a writer that is idle, and one look at its directory for any other.

        Raises:
            OSError: as the file system raises it.
            DataError: as `manifests.load_newest`.
        """
        marks = self.manifest().writers
        unreadable = unreadable_segments(self._manifest)
        found: dict[str, int] = {}
        for writer_id in self._glance.living(marks):
            if self._glance.is_same(writer_id):
                continue
            changed_ns = self._glance.changed_ns(writer_id)
            mark = marks.get(writer_id, Watermark())
            segments = segments_of(self._fs, self._root, self._project, writer_id)
            pending = pending_bytes(writer_id, segments, mark, unreadable)
            if pending:
                found[writer_id] = pending
            else:
                self._glance.remember(writer_id, changed_ns, mark)
        return found
