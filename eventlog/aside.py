"""Warnings of work that nobody called for in this moment: they are told, and never raise."""

from __future__ import annotations

import contextlib
import sys
import warnings

from eventlog.errors import FOREIGN_ERRORS, EventLogWarning


def warn_aside(text: str, stacklevel: int = 1) -> None:
    """Warn; where somebody has made an error of that, say it on stderr. Never raises.

    In a thread of ours such an error would end the thread, and at the end of a run what is still to be done.

    Args:
        text: what could not be done, and what to do.
        stacklevel: as of `warnings.warn`, seen from the caller.
    """
    try:
        warnings.warn(text, EventLogWarning, stacklevel=stacklevel + 1)
    except FOREIGN_ERRORS:  # the warning itself, or whatever somebody's `showwarning` raises
        stream = sys.stderr
        if stream is not None:
            # It may be closed, or a pipe that nobody reads: then there is nowhere left to say it.
            with contextlib.suppress(*FOREIGN_ERRORS):
                stream.write(f"{EventLogWarning.__name__}: {text}\n")
