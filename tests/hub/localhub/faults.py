"""Faults: which request is to fail, in which of the ways in which a real Hub fails."""

from __future__ import annotations

import os
import re
import signal
from typing import Literal, get_args

import msgspec
from starlette.requests import Request

from localhub.accounts import HubError

Kind = Literal[
    "status-before",  # answers `status`; nothing was applied
    "status-after",  # answers `status`; the request was applied
    "reset-before",  # resets the connection (RST) at the request's head, which cuts a large body; nothing was applied
    "reset-after",  # resets the connection; the request was applied
    "lost-reply",  # closes the connection without a word (FIN); the request was applied
    "expired-token",  # answers 401 as for a token that has expired; nothing was applied
    "rate-limit",  # answers 429 with Retry-After: `retry_after`; nothing was applied
    "half-batch",  # applies the first `operations` of a batch and then answers 500
    "slow",  # answers rightly, `piece` bytes at a time with `pause` seconds between
    "short-body",  # answers rightly, but the connection closes after half of the body
    "wrong-bytes",  # answers with one byte of the body changed
    "stale-listing",  # lists a bucket as it was `behind` writes ago
    "kill-before",  # the Hub kills itself (-9); nothing was applied
    "kill-amid",  # the Hub kills itself after the first `operations` of a batch
    "kill-after",  # the Hub kills itself; the request was applied, and the caller hears nothing
]
KINDS: tuple[Kind, ...] = get_args(Kind)
BEFORE = {"status-before", "reset-before", "expired-token", "rate-limit", "kill-before"}
# Kinds that only some requests know; every other kind can befall any request.
BATCH_ONLY = {"half-batch", "kill-amid"}
LISTING_ONLY = {"stale-listing"}
DOWNLOAD_ONLY = {"short-body", "wrong-bytes"}


class Fault(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A fault and the requests that it befalls: those that match all that is given, from the `nth` on, `times` times.

    Attributes:
        kind: what happens.
        method: GET, HEAD, POST, PUT or DELETE; "" matches all.
        path: a regular expression that is found in the path; "" matches all.
        route: the route as the log names it, such as "POST /api/buckets/{owner}/{name}/batch"; "" matches all.
        nth: the first matching request that fails, counted from 1 since the fault was set.
        times: how many matching requests fail in a row; 0 for all from then on.
        status: for "status-before" and "status-after".
        retry_after: seconds, for "rate-limit".
        operations: for "half-batch" and "kill-amid".
        behind: for "stale-listing".
        piece: bytes, for "slow".
        pause: seconds, for "slow".
    """

    kind: Kind
    method: str = ""
    path: str = ""
    route: str = ""
    nth: int = 1
    times: int = 1
    status: int = 503
    retry_after: int = 1
    operations: int = 1
    behind: int = 1
    piece: int = 16_384
    pause: float = 0.02

    def matches(self, method: str, path: str, route: str) -> bool:
        return (
            self.method in {"", method}
            and self.route in {"", route}
            and re.search(self.path, path, re.DOTALL) is not None
        )

    def due(self, count: int) -> bool:
        """Tell whether the fault befalls the matching request of this number, from 1."""
        return count >= self.nth and (self.times == 0 or count < self.nth + self.times)

    def between_operations(self, applied: int) -> None:
        """End a batch here if so many operations were to be applied; a handler calls it before each operation."""
        if self.kind in BATCH_ONLY and applied == self.operations:
            if self.kind == "kill-amid":
                kill_hub()
            raise HubError(500, "Internal error: the batch was applied in part")


def kill_hub() -> None:
    """Let the Hub die as by kill -9."""
    os.kill(os.getpid(), signal.SIGKILL)


def fault_of(request: Request) -> Fault | None:
    """Return the fault that this request meets, for handlers in whose midst it happens."""
    return request.scope.get("localhub.fault")


def refusal(fault: Fault) -> HubError | None:
    """Return the error that a fault answers with, or None for one that has no answer of its own."""
    if fault.kind in {"status-before", "status-after"}:
        return HubError(fault.status, "A fault that the test asked for")
    if fault.kind == "expired-token":
        return HubError(401, 'User Access Token "local" is expired')
    if fault.kind == "rate-limit":
        return HubError(429, "We had to rate limit you")
    return None
