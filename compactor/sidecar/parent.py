"""The parent of a sidecar: which processes it has, and in which order they begin and end."""

from __future__ import annotations

import sys

import msgspec

from compactor.service import stopping_on_signals
from compactor.sidecar.config import SidecarConfig
from compactor.sidecar.push import mark_restoring
from compactor.sidecar.supervise import Child, Supervisor

CHILD = "compactor.commands.child"
"""The module that is run for each."""


def children(config: SidecarConfig) -> list[Child]:
    """Return the processes of a sidecar.

    The server ends first, for what it seals is what is pushed last; the sync ends last, with one more push.
    """
    stdin = msgspec.json.encode(config)
    roles = ["server"] * (config.serve is not None) + ["compactor"] + ["page"] * (config.page is not None) + ["sync"]
    return [
        # -P: nothing is imported from the directory in which this was started.
        Child(role, (sys.executable, "-P", "-m", CHILD, role), stdin, needed=role == "server")
        for role in roles
    ]


def run(config: SidecarConfig) -> int:
    """Run a sidecar until SIGTERM or SIGINT.

    Everything that was acknowledged is on local disk when this returns, and in the bucket when the last push made it.

    Returns:
        0, or the exit code of a server that refused to work at its first start.

    Raises:
        OSError: the store cannot be created, or a process not be started.
    """
    mark_restoring(config.root)
    supervisor = Supervisor(children(config), stop_within_s=config.stop_within_s)
    with stopping_on_signals(supervisor):
        return supervisor.run()
