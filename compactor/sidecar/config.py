"""Settings of a sidecar: what its processes do, and how long its end may take."""

from __future__ import annotations

import math
from typing import NamedTuple

import msgspec

from compactor.config import CompactorConfig
from compactor.hub.sync import SyncConfig
from compactor.serve.config import ServeConfig
from eventlog.errors import UsageError


class PageOf(NamedTuple):
    """A static page that is filled beside.

    Attributes:
        bucket: the address of its bucket.
        project: which it shows.
    """

    bucket: str
    project: str


class SidecarConfig(msgspec.Struct, frozen=True, kw_only=True):
    """What a sidecar does; each of its processes is given all of it.

    Attributes:
        root: the store, absolute.
        bucket: its address.
        serve: settings of the server; None for a sidecar without one.
        compaction: settings of the compactor.
        sync: settings of what publishes.
        page: what is filled beside; None for no page.
        token_made: the write token was made for this start, so people have to be told.
        as_json: what is printed is for a script.
        stop_within_s: after SIGTERM all is over within so many seconds. Default 25: a Kubernetes pod has 30, and a
            Space what its README says.
    """

    root: str
    bucket: str
    serve: ServeConfig | None = None
    compaction: CompactorConfig = CompactorConfig()
    sync: SyncConfig = SyncConfig()
    page: PageOf | None = None
    token_made: bool = False
    as_json: bool = False
    stop_within_s: float = 25.0

    def __post_init__(self) -> None:
        """Check the ranges.

        Raises:
            UsageError: naming the field that is out of its range.
        """
        if not (math.isfinite(self.stop_within_s) and 1 <= self.stop_within_s <= 1e6):
            raise UsageError("stop_within_s must be from 1 to 1e6")
