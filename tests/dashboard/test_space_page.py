"""A Space that lost its disk shows in a browser what Trackio's client had logged to it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from localhub.fixtures import bucket, hub, hub_process
from localhub.process import client_environment
from spacecases import TOKEN, Space, wait_until

__all__ = ["bucket", "hub", "hub_process"]
HERE = Path(__file__).parent
OFTEN = ("--interval", "0.3")


def log_over_http(space: Space, directory: Path, *arguments: str) -> None:
    home = directory / "-".join(["client", *map(os.path.basename, arguments)])
    home.mkdir()
    theirs = {"TRACKIO_DIR": str(home), "TRACKIO_SERVER_URL": space.url, "TRACKIO_WRITE_TOKEN": TOKEN}
    client = client_environment(space.url, home, "", HF_HUB_OFFLINE="1", **theirs)
    command = [sys.executable, "-W", "error::UserWarning", str(HERE / "with_trackio.py"), *arguments]
    done = subprocess.run(command, env=client, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"


def is_published(space: Space) -> bool:
    said = space.numbers()
    return [value for name, value in said.items() if name.startswith("eventlog_bucket_lag_versions")] == [0] and not [
        value for name, value in said.items() if name.startswith("eventlog_pending_bytes") and value
    ]


def test_after_the_disk_was_lost_every_run_picture_and_alert_of_a_trackio_client_is_shown_again(
    hub, bucket, windows, tmp_path
):
    space = Space(hub, bucket, tmp_path / "space").start(*OFTEN)
    try:
        work = tmp_path / "work"
        work.mkdir()
        log_over_http(space, tmp_path, "everything", "digits", str(work))
        wait_until(lambda: is_published(space), "the bucket has it")
        space.kill()
        space.wipe()
        space.start(*OFTEN)
        wait_until(space.is_ready, "the store is restored")
        log_over_http(space, tmp_path, "few", "digits", "afterwards")
        window = windows(space)
        page = window.open(project="digits")
        window.wait_for_drawing("loss")
        drawn = window.plotted("loss")
        assert drawn["over-http"] == [(step, 2.0 / (step + 1)) for step in range(40)]
        assert drawn["afterwards"] == [(0, 9.0), (1, 8.0), (2, 7.0)]
        assert {*drawn} == {"over-http", "reads-artifact", "afterwards"}
        window.keep("space")
        window.open("media", project="digits")
        page.locator("img[src*='/file?path=']").first.wait_for()
        widths = "images => images.map(image => image.complete ? image.naturalWidth : 0)"
        wait_until(lambda: 96 in page.locator("img").evaluate_all(widths), "the picture of before is shown")
        window.open("reports", project="digits")
        page.get_by_text("Over HTTP: error").first.wait_for()
        page.goto("about:blank")  # it would go on to ask a server that has ended
        assert space.end() == 0
    finally:
        space.close()
