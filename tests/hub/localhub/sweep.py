"""Sweeps: run an operation on the Hub once cleanly, then again with each fault at each of its requests."""

from __future__ import annotations

import contextlib
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from localhub.clients import fresh_client
from localhub.faults import BATCH_ONLY, DOWNLOAD_ONLY, LISTING_ONLY, Fault, Kind
from localhub.journal import Served
from localhub.process import LocalHub

# What can befall any request, and what the client cannot hide or can hide only by trying again.
ANYWHERE: tuple[Kind, ...] = ("status-before", "status-after", "reset-before", "reset-after", "lost-reply")
KILLS: tuple[Kind, ...] = ("kill-before", "kill-after")


@dataclass(frozen=True)
class Swept:
    """A run of the operation with one fault.

    Attributes:
        fault: what was set, with route and number of the request.
        at: the request of the clean run that it was set for.
        befell: whether a request met the fault; a run may take another way than the clean one.
        error: what the operation raised, or None.
        log: the requests of this run.
    """

    fault: Fault
    at: Served
    befell: bool
    error: Exception | None
    log: list[Served]


def applies(kind: Kind, served: Served) -> bool:
    """Tell whether a kind of fault can befall such a request."""
    if kind in BATCH_ONLY:
        return served.route.endswith("/batch")
    if kind in LISTING_ONLY:
        return "/api/buckets/" in served.route and "/tree" in served.route
    if kind in DOWNLOAD_ONLY:
        return served.method == "GET" and ("/resolve/" in served.route or served.route == "GET /xorb/{hash}")
    return True


def record(hub: LocalHub, operation: Callable[[], object]) -> list[Served]:
    """Run an operation with a fresh client and no fault, and return its requests; it must succeed."""
    fresh_client()
    mark = hub.mark()
    operation()
    return hub.requests(mark)


@contextlib.contextmanager
def revived(hub: LocalHub) -> Iterator[None]:
    """Start the Hub again, on what is on disk, whenever it dies inside the block."""
    ended = threading.Event()

    def revive() -> None:
        while not ended.wait(0.01):
            hub.revive()

    thread = threading.Thread(target=revive)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        hub.revive()


def sweep_faults(
    hub: LocalHub,
    operation: Callable[[], object],
    kinds: Sequence[Kind] = ANYWHERE,
    *,
    where: Callable[[Served], bool] = lambda _: True,
    reset: Callable[[], object] = lambda: None,
    in_turn: bool = False,
) -> Iterator[Swept]:
    """Run an operation with each fault at each of its requests; every run begins with the Hub as it is now.

    A request is found again by its route and by how many of that route came before it, since addresses hold hashes and
    times. A client that tries again meets a healthy Hub: each fault befalls one request. With "kill-" kinds the Hub is
    started again as soon as it is dead. What a run left on the Hub can be looked at before the next is asked for; after
    the last, the Hub is as the last run left it.

    Args:
        hub: the Hub; no fault may be set.
        operation: what to run; makes its own clients, and finds its local state as `reset` left it. It may raise.
        kinds: the faults; those that cannot befall a request are left out there.
        where: takes a request of the clean run and says whether to set faults there.
        reset: is called before each run, for what the operation changes outside the Hub.
        in_turn: each request meets only one of the faults, that which was met least so far: fewer runs.

    Yields:
        Each run, once it has ended.
    """
    hub.save("sweep")
    reset()
    clean = record(hub, operation)
    seen: Counter[str] = Counter()
    met: Counter[Kind] = Counter()
    for served in clean:
        seen[served.route] += 1
        chosen = [kind for kind in kinds if where(served) and applies(kind, served)]
        if in_turn and chosen:
            chosen = [min(chosen, key=met.__getitem__)]
        for kind in chosen:
            met[kind] += 1
            hub.load("sweep")
            reset()
            yield _run(hub, operation, Fault(kind=kind, route=served.route, nth=seen[served.route]), served)


def _run(hub: LocalHub, operation: Callable[[], object], fault: Fault, at: Served) -> Swept:
    fresh_client()
    mark = hub.mark()
    hub.set_fault(fault)
    error: Exception | None = None
    with revived(hub) if fault.kind.startswith("kill-") else contextlib.nullcontext():
        try:
            operation()
        except Exception as raised:  # noqa: BLE001 - whatever it raises is the outcome, and the caller judges it
            error = raised
    hub.clear_faults()
    log = hub.requests(mark)
    return Swept(fault, at, any(served.fault for served in log), error, log)
