"""Settings of the compactor, frozen, each with its unit and the reason for its default."""

from __future__ import annotations

import math

import msgspec

from eventlog.errors import UsageError

_MAX_S = 1e9


class CompactorConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the compactor behaves. Immutable.

    Attributes:
        batch_bytes: bytes of frames a fold holds at once. Default 24 MiB: within 300 MiB of memory for any backlog.
        fanout: this many files of one level become one of the next. Default 4: few files to open for a read,
            and each row is written once a level.
        max_file_bytes: a file as large as this is not merged any more. Default 1 GiB.
        sweep_interval_s: look at everything at least so often. Default 2 s: events are only a hint.
        fold_interval_s: fold a project at most so often while little is new. Default 5 s.
        fold_soon_bytes: but at once when so much is new. Default 8 MiB.
        grace_s: how long files stay after they were superseded, for readers that opened them. Default 1 h.
        segment_retention_s: how long segments stay after they were folded; None is for ever. Default 7 days.
        missing_grace_s: how long to wait for a missing segment before it counts as lost. Default 60 s.
    """

    batch_bytes: int = 24 * 1024 * 1024
    fanout: int = 4
    max_file_bytes: int = 1024 * 1024 * 1024
    sweep_interval_s: float = 2.0
    fold_interval_s: float = 5.0
    fold_soon_bytes: int = 8 * 1024 * 1024
    grace_s: float = 3600.0
    segment_retention_s: float | None = 7 * 86_400.0
    missing_grace_s: float = 60.0

    def __post_init__(self) -> None:
        """Check the ranges.

        Raises:
            UsageError: naming the field that is out of its range.
        """
        times = (self.sweep_interval_s, self.fold_interval_s, self.grace_s, self.missing_grace_s)
        if not all(math.isfinite(seconds) and seconds <= _MAX_S for seconds in (*times, self.segment_retention_s or 0)):
            raise UsageError("times are seconds, at most 1e9; segments are kept for ever with None")
        if self.batch_bytes < 4096:
            raise UsageError("batch_bytes must be at least 4096")
        if self.fanout < 2:
            raise UsageError("fanout must be at least 2")
        if self.max_file_bytes < 1:
            raise UsageError("max_file_bytes must be positive")
        if min(self.sweep_interval_s, self.fold_interval_s) <= 0:
            raise UsageError("sweep_interval_s and fold_interval_s must be positive")
        if self.grace_s < 0 or self.missing_grace_s < 0 or (self.segment_retention_s or 0) < 0:
            raise UsageError("grace_s, missing_grace_s and segment_retention_s must not be negative")
