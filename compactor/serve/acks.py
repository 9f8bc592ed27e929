"""Answer a write only when a bucket has it: all who wait share one push."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Final

from compactor.serve.errors import UnavailableError
from eventlog.errors import EventLogError

log = logging.getLogger("compactor")
_PATIENCE_S: Final = 50.0  # clients wait for 60
_END_S: Final = 5.0


class _Round:
    """One push, and what came of it."""

    def __init__(self) -> None:
        self.waiting = 0
        self.is_over = False
        self.error = ""


class Acks:
    """Pushes in rounds, each for all who came before it began. Thread-safe."""

    def __init__(self, push: Callable[[], object], *, patience_s: float = _PATIENCE_S) -> None:
        """Take what pushes.

        Args:
            push: brings all that was taken before it was called to the bucket, and raises when it cannot.
            patience_s: nobody waits longer than so many seconds.
        """
        self._push = push
        self._patience_s = patience_s
        self._changed = threading.Condition()
        self._next = _Round()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="eventlog-acks", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """How many wait for a push that has not begun."""
        return self._next.waiting

    def wait(self) -> None:
        """Return when a push that began after this call has ended well.

        Raises:
            UnavailableError: it failed, or takes too long; the client sends the same again, and it is kept once.
        """
        with self._changed:
            mine = self._next
            mine.waiting += 1
            self._changed.notify_all()
            self._changed.wait_for(lambda: mine.is_over or self._closed, self._patience_s)
            if not mine.is_over:
                raise UnavailableError("not in the bucket yet: send it again")
            if mine.error:
                raise UnavailableError(f"not in the bucket: {mine.error}")

    def close(self) -> None:
        """Let go of those who wait; they are answered that it is not there yet."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        # A push that hangs ends with the process: what it did not finish is pushed by the next one.
        self._thread.join(_END_S)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._next.waiting or self._closed)
                if self._closed:
                    return
                current, self._next = self._next, _Round()
            error = self._try()
            with self._changed:
                current.error, current.is_over = error, True
                self._changed.notify_all()

    def _try(self) -> str:
        try:
            self._push()
        except (EventLogError, OSError) as error:
            log.error("what was taken cannot be pushed: %s", error)  # noqa: TRY400 - it says all
            return (error.strerror if isinstance(error, OSError) else None) or type(error).__name__
        except Exception as error:  # whatever it is: this thread must live, or nothing is answered again
            log.exception("what was taken cannot be pushed")
            return type(error).__name__
        return ""
