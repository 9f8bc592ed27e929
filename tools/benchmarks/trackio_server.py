"""Trackio's own server on the data of `tools/bench serve`, in a directory of its own; filled when it is empty."""

from __future__ import annotations

import json
import os
import socket
import sys

import stores
import uvicorn
from trackio.server import build_starlette_app_only
from trackio.sqlite_storage import SQLiteStorage


def fill(records: int) -> None:
    """Log what the store of eventlog holds, through Trackio's storage."""
    each = records // stores.RUNS
    for index in range(stores.RUNS):
        rows = stores.rows_of("noisy", each, 100 * 1000 + index)
        SQLiteStorage.bulk_log(
            project=stores.PROJECT,
            run=f"run-{index:02d}",
            run_id=f"id-{index:02d}",
            metrics_list=[dict(zip(stores.METRICS, row, strict=True)) for row in rows],
            steps=list(range(each)),
            log_ids=[f"{index}-{step}" for step in range(each)],
        )


def main() -> None:
    """Fill, then serve; the address is the first line of output."""
    done = os.path.join(os.environ["TRACKIO_DIR"], "filled")
    if not os.path.exists(done):
        fill(int(sys.argv[1]))
        with open(done, "w", encoding="ascii") as file:
            file.write("yes")
    listening = socket.create_server(("127.0.0.1", 0))
    app, _ = build_starlette_app_only()
    print(json.dumps({"url": f"http://127.0.0.1:{listening.getsockname()[1]}"}), flush=True)
    uvicorn.Server(uvicorn.Config(app, log_level="warning")).run(sockets=[listening])


if __name__ == "__main__":
    main()
