"""One process of a sidecar, which its parent starts: `python -m compactor.commands.child ROLE`, settings on stdin."""

from __future__ import annotations

import sys
from typing import Any

import msgspec

from compactor.commands.output import end, log_to_stderr
from compactor.commands.serving import tell_address
from compactor.commands.syncing import open_bucket, print_published, print_restored
from compactor.service import Service, stopping_on_signals
from compactor.sidecar.config import SidecarConfig
from compactor.sidecar.push import Push
from eventlog.errors import EventLogError


def _server(config: SidecarConfig) -> None:
    from compactor.serve.server import serve

    if config.serve is not None:
        ready = tell_address(config.root, as_json=config.as_json)
        serve(config.root, config.serve, config.compaction, token_made=config.token_made, on_ready=ready)
        end(0)


def _compactor(config: SidecarConfig) -> None:
    service = Service(config.root, config.compaction)
    with stopping_on_signals(service):
        service.run()
        # The server has ended: what it took last is published if it is folded, also where it could not seal it.
        service.fold_rest()


def _sync(config: SidecarConfig) -> None:
    told: dict[str, Any] = {"on_restored": print_restored, "on_published": print_published}
    push = Push(config.root, open_bucket(config.bucket), config.sync, **({} if config.as_json else told))
    with stopping_on_signals(push):
        push.run()


def _page(config: SidecarConfig) -> None:
    from compactor.commands.paging import page_of

    if config.page is not None:
        page = page_of(config.root, config.page.project, config.page.bucket, as_json=config.as_json, bucket_only=True)
        with stopping_on_signals(page):
            page.run()


def main() -> int:
    """Do the work of one role; return 2 for an error that trying again does not mend."""
    log_to_stderr()
    config = msgspec.json.decode(sys.stdin.buffer.read(), type=SidecarConfig)
    try:
        {"server": _server, "compactor": _compactor, "page": _page, "sync": _sync}[sys.argv[1]](config)
    except EventLogError as error:
        print(f"compactor: {error}", file=sys.stderr)  # noqa: T201 - what `ErrorGroup` does for a command
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
