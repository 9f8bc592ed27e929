"""Say why the dashboard has nothing to show: no project, nothing logged yet, or a store that cannot be read."""

from __future__ import annotations

import os
import threading
import time

from compactor.serve.hub import Hub
from eventlog import names, tail
from eventlog.errors import EventLogError
from eventlog.fs import LOCAL

_KEPT_S = 1.0


class Notice:
    """The text for an empty page. Thread-safe; looks at the store at most once a second."""

    def __init__(self, hub: Hub) -> None:
        """Take what is served."""
        self._hub = hub
        self._lock = threading.Lock()
        self._until = 0.0
        self._text = ""
        self._seen = False

    def text(self) -> str:
        """Return why there is nothing to show; "" when there is something."""
        with self._lock:
            if time.monotonic() >= self._until:
                self._text = self._ask()
                self._until = time.monotonic() + _KEPT_S
            return self._text

    def _ask(self) -> str:
        root = self._hub.root
        try:
            if self._hub.is_restoring():
                return f"The store is being restored from {self._hub.config.bucket}: what is there appears by and by."
            # A store that can be read once more costs a listing; whether there are runs is asked until there are.
            projects = self._hub.names()
            if self._seen and projects:
                return ""
            if not projects and not os.path.isdir(names.segments_dir(root)):
                return f"The server cannot read {root}: its directory is gone"
            if not projects:
                return (
                    f"No project yet in {root}.\n"
                    "Log a run with eventlog.init(project=...), or point a Trackio client here with TRACKIO_SERVER_URL "
                    "and TRACKIO_WRITE_TOKEN."
                )
            for project in projects:
                state = self._hub.find(project)
                if state is not None and any(sum(part.records.values()) > 1 for part in state.runs()):
                    self._seen = True
                    return ""
            writers = {project: len(tail.writers(LOCAL, root, project)) for project in projects}
        except (EventLogError, OSError) as error:
            return f"The server cannot read {root}: {error}"
        listed = ", ".join(f"{count} in {project!r}" for project, count in writers.items())
        return f"Writers seen ({listed}), but nothing logged yet."
