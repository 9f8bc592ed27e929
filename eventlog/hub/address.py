"""The address of a bucket: its id, and the directory in it under which a store's copy is kept."""

from __future__ import annotations

import os
import re
from typing import Final, NamedTuple

from eventlog.errors import UsageError, shown

SCHEME: Final = "hf://"
_SPOILT: Final = "hf:/"
_BUCKETS: Final = "hf://buckets/"
_PART: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}")


class BucketAddress(NamedTuple):
    """Where in a bucket a store's copy is.

    Attributes:
        bucket: OWNER/NAME.
        prefix: the directory in it, without slashes at its ends; "" for the whole bucket.
    """

    bucket: str
    prefix: str = ""

    def __str__(self) -> str:
        """Return it as `parse_bucket` takes it."""
        return _BUCKETS + "/".join(filter(None, self))

    def path(self, name: str) -> str:
        """Return the path in the bucket of a file of the store."""
        return f"{self.prefix}/{name}" if self.prefix else name

    def name(self, path: str) -> str:
        """Return the name in the store of a path in the bucket."""
        return path.removeprefix(f"{self.prefix}/") if self.prefix else path


def is_remote(text: object) -> bool:
    """Say whether a path is an address on the Hub rather than a place on this machine.

    Also one that went through `pathlib`, which makes one slash of two: it is no address any more, and no place either.
    """
    return isinstance(text, (str, os.PathLike)) and str(text).startswith(_SPOILT)


def parse_bucket(text: str) -> BucketAddress:
    """Return the address in `hf://buckets/OWNER/NAME[/PREFIX]`, or in its short form `OWNER/NAME[/PREFIX]`.

    Raises:
        UsageError: it is neither.
    """
    form = "a bucket is hf://buckets/OWNER/NAME, or OWNER/NAME, with a directory in it after another slash"
    if not isinstance(text, str) or (is_remote(text) and not text.startswith(_BUCKETS)):
        raise UsageError(f"{form}, not {shown(text)}")
    parts = text.removeprefix(_BUCKETS).rstrip("/").split("/")
    if len(parts) < 2 or not all(map(_PART.fullmatch, parts[:2])):
        raise UsageError(f"{form}, not {shown(text)}")
    if not all(part.isprintable() and part not in ("", ".", "..") for part in parts[2:]):
        raise UsageError(f"the directory in a bucket is made of names between slashes: {shown(text)}")
    return BucketAddress("/".join(parts[:2]), "/".join(parts[2:]))
