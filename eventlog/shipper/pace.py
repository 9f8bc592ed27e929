"""When a shipper ships again, and when it has done enough: decided from what it knows alone."""

from __future__ import annotations

from typing import Final, NamedTuple

LINGER_S: Final = 600.0
"""For how long a shipper goes on trying after the last job has ended."""
_SETTLED_S: Final = 5.0
_SOON_S: Final = 1.0
_ASKED_S: Final = 5.0
_DESERTED_S: Final = 30.0
_JOBS_S: Final = 300.0
_MOST_DOUBLINGS: Final = 10


class Outcome(NamedTuple):
    """How shipping goes.

    Attributes:
        failures: how many shipments in a row have failed.
        lasting: the last failure will not pass by itself.
        asked: a job waits for it.
        deserted_s: for how long no job has been there; None when one is.
        left_open: how many segments were held by their writers.
    """

    failures: int = 0
    lasting: bool = False
    asked: bool = False
    deserted_s: float | None = None
    left_open: int = 0


def may_end(outcome: Outcome) -> bool:
    """Say whether a shipper that no job needs has nothing left that it could do.

    A process that dies gives its locks back one by one, so segments that are held right after that are looked at again.
    """
    if outcome.deserted_s is None:
        return False
    if outcome.failures:
        return outcome.deserted_s >= LINGER_S
    return not outcome.left_open or outcome.deserted_s >= _SETTLED_S


def pause_s(outcome: Outcome, interval_s: float) -> float:
    """Return the seconds until the next shipment, unless somebody asks for one before."""
    if not outcome.failures:
        return interval_s if outcome.deserted_s is None else min(interval_s, _SOON_S)
    most = _JOBS_S if outcome.deserted_s is None else _DESERTED_S
    if outcome.asked and not outcome.lasting:
        most = _ASKED_S
    return min(interval_s * 2.0 ** min(outcome.failures - 1, _MOST_DOUBLINGS), most)
