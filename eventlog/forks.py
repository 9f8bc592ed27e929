"""Forks: what must not be shared with a forked child is told so in the child, even when Python did not fork."""

from __future__ import annotations

import contextlib
import mmap
import os
import weakref
from typing import Final, Protocol

_MADV_WIPEONFORK: Final = 18


class Forkable(Protocol):
    """Something that a forked child must not share with its parent."""

    def become_child(self) -> None:
        """Become independent of the parent; called in the child."""


alive_page: Final = mmap.mmap(-1, mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
"""Byte 0 is 1 in this process. The kernel wipes it in a child, so one look at it tells of a fork that Python did
not do, at a tenth of the cost of getpid()."""
with contextlib.suppress(OSError):
    alive_page.madvise(_MADV_WIPEONFORK)
alive_page[0] = 1

_forkables: Final[weakref.WeakSet[Forkable]] = weakref.WeakSet()


def register(item: Forkable) -> None:
    """Have `become_child` called on `item` in every forked child, as long as it lives."""
    _forkables.add(item)


def after_fork_in_child() -> None:
    """Tell everything that is registered; runs by itself after os.fork()."""
    for item in list(_forkables):
        item.become_child()
    alive_page[0] = 1


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=after_fork_in_child)
