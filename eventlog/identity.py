"""What identifies a run to its writers, and the record by which a process joins it."""

from __future__ import annotations

import os
import sys
from typing import Any

import msgspec

from eventlog import facts, schema, values


class RunInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What identifies a run to its writers.

    Attributes:
        project: the project's name.
        run_id: unique in the store.
        name: for people; need not be unique.
        group: runs that belong together, or None.
        tags: labels.
        config: hyperparameters at the start, plain values.
        rank: of this process, or None.
        world_size: how many ranks there are, or None.
        mode: "new", "resume" or "attach" (another process of a run that may be live).
        first_step: what `log()` without a step counts from.
    """

    project: str
    run_id: str
    name: str
    group: str | None = None
    tags: list[str] = []
    config: dict[str, Any] = {}
    rank: int | None = None
    world_size: int | None = None
    mode: str = "new"
    first_step: int = 0

    def start(self, time_ns: int, *, parent: str | None = None) -> schema.RunStart:
        """Return the record that announces this process.

        Args:
            time_ns: the time.
            parent: in a forked child, the parent's writer_id; the parent has told the rest already.
        """
        forked = parent is not None
        return schema.RunStart(
            time_ns=time_ns,
            run_id=self.run_id,
            project=self.project,
            name=self.name,
            group=self.group,
            tags=self.tags,
            config={} if forked else self.config,
            host=os.uname().nodename,
            user=values.printable(facts.user()),
            pid=os.getpid(),
            rank=self.rank,
            world_size=self.world_size,
            argv=[values.printable(str(argument)) for argument in getattr(sys, "argv", ())],
            git={} if forked else facts.git(),
            versions={} if forked else facts.versions(),
            mode="fork" if forked else self.mode,
            parent=parent,
        )
