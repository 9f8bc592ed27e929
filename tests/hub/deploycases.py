"""What the tests of deploy share: a Space as it is wanted, and what the local Hub has of it."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from typing import Any

from localhub.process import LocalHub

from compactor.hub.deploy.plan import Step, sends_write_token
from compactor.hub.deploy.run import Deployed, deploy
from compactor.hub.deploy.wanted import BUCKET_TOKEN, WRITE_TOKEN, File, Package, Wanted
from eventlog.errors import EventLogError
from eventlog.hub.address import BucketAddress, parse_bucket

SPACE = "owner/space"
BUCKET = "owner/space"
TOKEN = "hf_for_the_bucket"
PACKAGE = Package("1.2.3", "0.43.0")
PAGE = (
    File("index.html", b"<html></html>"),
    File("assets/a-1.js", b"1\n"),
    File("static/trackio/logo.png", b"\x89PNG\0\1"),
)


def docker(bucket: str = BUCKET, **facts: Any) -> Wanted:
    """Return a server as it is wanted."""
    given = {"package": PACKAGE, "write_token": "write-1", "bucket_token": TOKEN, **facts}
    return Wanted(space=SPACE, mode="docker", bucket=parse_bucket(bucket), **given)


def static(bucket: str = "owner/page", **facts: Any) -> Wanted:
    """Return a page as it is wanted."""
    given = {"project": "a project", "page": PAGE, "page_version": "0.43.0", **facts}
    return Wanted(space=SPACE, mode="static", bucket=BucketAddress(bucket), **given)


class Story:
    """Deploys to a local Hub, as the owner, and remembers which write tokens its user was told."""

    def __init__(self, hub: LocalHub) -> None:
        self.hub = hub
        self.told: set[str] = set()
        self.states: list[str] = []
        hub.token(TOKEN, user="owner", role="fineGrained", only=[BUCKET, "owner/other"])
        hub.set(space_hosts={SPACE: f"{hub.url}/host/{SPACE}"})

    def deploy(self, wanted: Wanted, token: str = "hf_owner_write", **more: Any) -> Deployed:
        """Deploy without waiting between looks; a write token is told when it was sent, or may have been."""
        begun: list[Step] = []
        given = {"timeout_s": 60, "on_state": self.states.append, "sleep": lambda _: None, **more}
        try:
            done = deploy(self.hub.api(token), wanted, on_step=begun.append, **given)
        except EventLogError:
            self.told |= {wanted.write_token} if sends_write_token(tuple(begun)) else set()
            raise
        self.told |= {done.write_token} - {None}
        return done

    def space(self) -> dict[str, Any] | None:
        """Return what the Hub knows of the Space, the values of secrets included."""
        with contextlib.closing(sqlite3.connect(self.hub.directory / "state.sqlite")) as db:
            row = db.execute("select value from repos where kind = 'space' and id = ?", (SPACE,)).fetchone()
        return None if row is None else json.loads(row[0])

    def secrets(self) -> dict[str, str]:
        """Return the secrets of the Space."""
        return {key: secret["value"] for key, secret in self.space()["space"]["secrets"].items()}

    def files(self) -> dict[str, bytes]:
        """Return the files that the Space's repository has, as a browser would get them."""
        tree = self.hub.api().list_repo_files(SPACE, repo_type="space")
        prefix = f"/spaces/{SPACE}/resolve/main/"
        return {path: self.hub.control.get(prefix + path).content for path in tree if path != ".gitattributes"}

    def writes(self, since: int) -> list[str]:
        """Return the routes of the requests that could change something."""
        return [served.route for served in self.hub.requests(since) if served.method != "GET"]

    def bucket(self, name: str = BUCKET) -> Any:
        """Return what is known of a bucket, or None."""
        found = [item for item in self.hub.api().list_buckets("owner") if item.id == name]
        return found[0] if found else None


def kinds(steps: tuple[Step, ...]) -> list[str]:
    """Return the names of steps."""
    return [type(step).__name__ for step in steps]


SECRETS = {WRITE_TOKEN: "write-1", BUCKET_TOKEN: TOKEN}
