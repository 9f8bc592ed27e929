"""A cheap look at a project's writers: which of them may have something new, for one or two system calls each."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from typing import Final, NamedTuple

import msgspec

from eventlog import names
from eventlog.fs import Fs
from eventlog.manifest import Watermark

_SETTLED_NS: Final = 1_000_000_000


class _Seen(NamedTuple):
    """How a writer's files looked when they had been read to their end.

    Attributes:
        changed_ns: when its directory was changed last.
        path: of the segment that is appended to.
        size_bytes: of that segment.
        until_s: by when to look properly again.
    """

    changed_ns: int
    path: str
    size_bytes: int
    until_s: float


class Glance:
    """Remembers how the files of a project's writers looked when all of them had been read. Not thread-safe.

    It is a hint that errs on the safe side: a directory that was changed within the last second is not trusted,
    and nothing is trusted for long, for a mount may not keep its directories' times.
    """

    def __init__(self, fs: Fs, root: str, project: str, trusted_s: float = 5.0) -> None:
        """Take the project, and for how many seconds to trust what was seen; nothing is known at first."""
        self._trusted_s = trusted_s
        self._fs = fs
        self._root = root
        self._project = project
        self._directory = names.project_segments_dir(root, project)
        self._seen: dict[str, _Seen] = {}
        self._living: list[str] = []
        self._listed_ns = 0
        self._listed_until_s = 0.0

    def living(self, marks: Mapping[str, Watermark]) -> list[str]:
        """Return the ids of the writers that may write again, in order; one system call while there is no new one.

        Raises:
            OSError: as the file system raises it.
        """
        changed_ns = self._changed_ns(self._directory)
        if changed_ns != self._listed_ns or time.monotonic() > self._listed_until_s:
            self._living = [name for name in self._fs.subdirs(self._directory) if names.is_writer_id(name)]
            self._listed_ns = changed_ns if _is_settled(changed_ns) else 0
            self._listed_until_s = time.monotonic() + self._trusted_s
        self._living = [name for name in self._living if not (name in marks and marks[name].done)]
        return self._living

    def changed_ns(self, writer_id: str) -> int:
        """Return when a writer's directory was changed last, to be asked for before it is read; 0 when it is gone.

        Raises:
            OSError: as the file system raises it.
        """
        return self._changed_ns(names.writer_dir(self._root, self._project, writer_id))

    def is_same(self, writer_id: str) -> bool:
        """Say whether a writer's files look as they did when they had been read; two system calls.

        Raises:
            OSError: as the file system raises it.
        """
        seen = self._seen.get(writer_id)
        if seen is None or time.monotonic() > seen.until_s or self.changed_ns(writer_id) != seen.changed_ns:
            return False
        try:
            return self._fs.size(seen.path) == seen.size_bytes
        except FileNotFoundError:
            return False

    def remember(self, writer_id: str, changed_ns: int, mark: Watermark) -> None:
        """Remember that a writer was read to its end.

        Args:
            writer_id: the writer.
            changed_ns: what `changed_ns` said before it was read.
            mark: how far it was read.
        """
        self._seen.pop(writer_id, None)
        if mark.segno and _is_settled(changed_ns):
            directory = names.writer_dir(self._root, self._project, writer_id)
            path = os.path.join(directory, names.segment_name(mark.segno, sealed=False))
            size = mark.offset if mark.ended_bytes is msgspec.UNSET else mark.ended_bytes
            self._seen[writer_id] = _Seen(changed_ns, path, size, time.monotonic() + self._trusted_s)

    def _changed_ns(self, path: str) -> int:
        try:
            return self._fs.changed_ns(path)
        except FileNotFoundError:
            return 0


def _is_settled(changed_ns: int) -> bool:
    """Say whether a directory changed so long ago that it cannot change again without another time."""
    return 0 < changed_ns < time.time_ns() - _SETTLED_NS
