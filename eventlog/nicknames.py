"""Names for runs that were given none: two words and a number."""

from __future__ import annotations

import os
from typing import Final

_ADJECTIVES: Final = (
    "amber",
    "brisk",
    "calm",
    "deep",
    "early",
    "fair",
    "gentle",
    "hidden",
    "ivory",
    "keen",
    "lunar",
    "mild",
    "noble",
    "open",
    "pale",
    "quiet",
    "rapid",
    "solid",
    "tidal",
    "vivid",
)
_NOUNS: Final = (
    "acre",
    "brook",
    "cedar",
    "dune",
    "ember",
    "field",
    "grove",
    "harbor",
    "inlet",
    "jetty",
    "knoll",
    "lake",
    "marsh",
    "north",
    "orchard",
    "pine",
    "ridge",
    "stone",
    "trail",
    "wave",
)


def fresh() -> str:
    """Return a name, most likely one that no other run has."""
    return _words(int.from_bytes(os.urandom(8), "big"))


def name_for(run_id: str) -> str:
    """Return the same name in every process that shares a run id."""
    import hashlib

    number = int.from_bytes(hashlib.sha256(run_id.encode("utf-8", "replace")).digest()[:8], "big")
    return _words(number)


def _words(number: int) -> str:
    adjective, noun = _ADJECTIVES[number % len(_ADJECTIVES)], _NOUNS[number // 64 % len(_NOUNS)]
    return f"{adjective}-{noun}-{number // 4096 % 1000}"
