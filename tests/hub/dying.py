"""A client of a bucket that kills its own process, as `kill -9` would, before or after a call of a number."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any

from localhub.clients import fresh_client

from eventlog.hub.bucket import Bucket


class Dying(Bucket):
    """Counts its calls, and dies at one of them."""

    calls = 0
    at = 0
    after = False

    def _count(self, *, after: bool) -> None:
        Dying.calls += not after
        if Dying.calls == Dying.at and after == Dying.after:
            os.kill(os.getpid(), signal.SIGKILL)


def _dying(name: str) -> Callable[..., Any]:
    def call(self: Dying, *args: Any, **options: Any) -> Any:
        self._count(after=False)
        answer = getattr(Bucket, name)(self, *args, **options)
        self._count(after=True)
        return answer

    return call


for _name in ("files", "info", "upload", "download", "delete"):
    setattr(Dying, _name, _dying(_name))


def dies(bucket: Bucket, operation: Callable[[Bucket], object], step: int) -> bool:
    """Run an operation in a child process that is killed at a step, two of which are a call; say whether it was."""
    fresh_client()
    child = os.fork()
    if not child:
        code = 1
        try:
            Dying.at, Dying.after = step // 2 + 1, step % 2 == 1
            operation(Dying(bucket.address, api=bucket._api))
            code = 0
        finally:
            os._exit(code)
    status = os.waitpid(child, 0)[1]
    assert status == 0 or os.WTERMSIG(status) == signal.SIGKILL
    return status != 0
