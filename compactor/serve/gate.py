"""What becomes of calls while the store is being restored: logs are kept and done afterwards, the rest waits."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable
from typing import Any, Final

from compactor.serve import writes
from compactor.serve.api import ENDPOINTS, Endpoint
from compactor.serve.errors import RequestError, UnavailableError
from compactor.serve.held import HeldCall
from compactor.serve.hub import Hub
from compactor.serve.making import check_entry
from compactor.serve.wire import AlertEntry, LogEntry, SystemEntry, bind, iso, parse_call
from eventlog.errors import EventLogError

log = logging.getLogger("compactor")
Entry = LogEntry | SystemEntry | AlertEntry
_LOOK_S: Final = 0.1
_PAUSE_S: Final = 2.0
_END_S: Final = 5.0
KEPT_S: Final = 600.0
"""For how long calls are kept: when a restore takes longer, something is wrong, and clients keep what they have."""
_RESTORING: Final = "the store is being restored from its bucket: send it again soon"


class Gate:
    """Lets calls through, or keeps them while the store is restored. Thread-safe.

    What a client has sent before is known only when the store is restored. So calls with logs, system metrics and
    alerts are kept until then, durable before their answer, and done in their order, each once. Other calls that
    write, and with `ack` "bucket" all of them, are refused until then; clients send those again.
    """

    def __init__(self, hub: Hub, *, kept_s: float = KEPT_S, end_s: float = _END_S) -> None:
        """Take what is served; a store without a bucket is open at once, unless calls wait from an earlier start.

        Args:
            hub: what is served.
            kept_s: after so many seconds calls are refused that cannot be done yet.
            end_s: for so many seconds `close` lets the rest be done.

        Raises:
            OSError: as the file system raises it.
        """
        self._hub = hub
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._told = ""
        self._keeps_until = time.monotonic() + kept_s
        self._end_s = end_s
        self._deadline = math.inf
        self.is_restored = not hub.config.bucket
        self.is_open = self.is_restored and not hub.held.ids()
        self._thread = threading.Thread(target=self._run, name="eventlog-gate", daemon=True)

    def start(self) -> None:
        """Wait for the restore, and do what was kept then, in a thread of its own."""
        if not self.is_open:
            self._thread.start()

    def call(self, name: str, endpoint: Endpoint, body: bytes) -> Any:
        """Answer a call, or keep it for later and answer that it is kept.

        Raises:
            RequestError: as the call; checked before it is kept.
            UnavailableError: not before the store is restored.
        """
        args, kwargs = parse_call(body)
        if endpoint.writes and not self.is_open:
            with self._lock:
                # Looked at once more: nothing may be kept when those that were have all been done.
                if not self.is_open:
                    self._keep(name, endpoint, args, kwargs, body)
                    return None
        return endpoint.call(self._hub, args, kwargs)

    def _keep(self, name: str, endpoint: Endpoint, args: list[Any], kwargs: dict[str, Any], body: bytes) -> None:
        if self._hub.config.ack == "bucket" or name not in _HELD or time.monotonic() >= self._keeps_until:
            raise UnavailableError(_RESTORING)
        for entry in _entries(bind(endpoint.form, args, kwargs)):
            check_entry(entry)
            self._hub.check_project(entry.project)
        self._hub.held.keep(name, time.time_ns(), body)

    def drain(self) -> None:
        """Do the calls that wait, when the store is restored; open when all are done.

        Raises:
            OSError: as the file system raises it.
            EventLogError: a call cannot be done now.
        """
        self.is_restored = self.is_restored or not self._hub.is_restoring()
        while self.is_restored and not self.is_open and time.monotonic() < self._deadline:
            waiting = self._hub.held.ids()
            for call_id in waiting:
                if time.monotonic() >= self._deadline:
                    return
                self._do(call_id)
            if not waiting:
                with self._lock:
                    if not self._hub.held.ids():
                        self._hub.held.clean()
                        self.is_open = True

    def _do(self, call_id: str) -> None:
        held = self._hub.held
        try:
            call = held.read(call_id)
            name, bound = call.name, self._bound(call)
        except (RequestError, ValueError, KeyError) as error:
            self._refuse(call_id, error)
            return
        try:
            _HELD[name](self._hub, bound)
        except UnavailableError:
            raise
        except RequestError as error:
            self._refuse(call_id, error)
            return
        held.done(call_id)

    def _refuse(self, call_id: str, error: Exception) -> None:
        self._hub.held.refuse(call_id)
        log.error("a call that was kept cannot be done: %s is set aside: %s", call_id, error)

    def _bound(self, call: HeldCall) -> Any:
        """Return the arguments, with the time that the call came, and ids for entries that have none."""
        bound = bind(ENDPOINTS[call.name].form, *parse_call(call.body))
        if isinstance(bound, writes.SingleLog):
            bound = writes.BulkLog([writes.entry_of(bound)])
        for index, entry in enumerate(_entries(bound)):
            entry.timestamp = entry.timestamp or iso(call.received_ns + 1000 * index)
            made = f"{call.id} {index}"
            if isinstance(entry, AlertEntry):
                entry.alert_id = entry.alert_id or made
            else:
                entry.log_id = entry.log_id or made
        return bound

    def _run(self) -> None:
        while not self.is_open and not self._stop.wait(_LOOK_S):
            try:
                self.drain()
            except Exception as error:
                if str(error) != self._told:
                    self._told = str(error)
                    log.error(  # noqa: TRY400 - the traceback only where it is not ours
                        "calls that were kept cannot be done: %s (trying again)",
                        error,
                        exc_info=None if isinstance(error, EventLogError | OSError) else error,
                    )
                self._stop.wait(_PAUSE_S)

    def close(self) -> None:
        """Do what waits for a moment more, and the rest at the next start."""
        self._deadline = time.monotonic() + self._end_s
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(self._end_s + 1)


_HELD: Final[dict[str, Callable[[Hub, Any], None]]] = {
    "bulk_log": writes.bulk_log,
    "bulk_log_system": writes.bulk_log_system,
    "bulk_alert": writes.bulk_alert,
    "log": writes.bulk_log,
}


def _entries(call: Any) -> list[Entry]:
    if isinstance(call, writes.SingleLog):
        return [writes.entry_of(call)]
    return list(call.alerts if isinstance(call, writes.BulkAlert) else call.logs)
