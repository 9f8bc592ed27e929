"""The files of a Space, made of what is wanted: pure, and without anything secret."""

from __future__ import annotations

import json
import shlex
from typing import Final

from compactor.hub.deploy.wanted import File, Package, Wanted
from eventlog.present import clean

MARK: Final = "eventlog-deploy.json"
"""The file by which a later deploy knows that a Space is its own."""
PORT: Final = 7860
STORE: Final = "/home/user/store"
_HOME: Final = "/home/user"
_GRACE: Final = "5m"
_STOP_WITHIN_S: Final = 280
_IMAGE: Final = "python:3.11-slim"
_EXTRAS: Final = "trackio,hub"


def space_files(wanted: Wanted) -> tuple[File, ...]:
    """Return all files of the Space, in the order of their paths; the same for the same wishes, byte by byte."""
    if wanted.package is not None:
        made = [File("Dockerfile", _dockerfile(wanted, wanted.package).encode())]
        made += [wanted.package.wheel] if wanted.package.wheel else []
    else:
        made = [*wanted.page, File("config.json", _document(_page_settings(wanted)))]
    made += [File("README.md", _readme(wanted).encode()), File(MARK, _document(_mark(wanted)))]
    return tuple(sorted(made, key=lambda file: file.path))


def is_ours(path: str) -> bool:
    """Say whether a path in a Space that is ours is one that a deploy puts there, so that it goes when it is old."""
    return path.startswith(("assets/", "static/trackio/")) or ("/" not in path and path.endswith(".whl"))


def serve_command(wanted: Wanted) -> list[str]:
    """Return what a Docker Space runs."""
    address = ["--host", "0.0.0.0", "--port", str(PORT)]  # noqa: S104 - in its container, where the Hub's proxy asks
    ack = ["--ack", wanted.ack] if wanted.ack != "disk" else []
    return [
        "compactor",
        "serve",
        STORE,
        "--bucket",
        str(wanted.bucket),
        "--stop-within",
        str(_STOP_WITHIN_S),
        *ack,
        *address,
    ]


def fill_command(wanted: Wanted) -> str:
    """Return what fills the bucket that a static page reads."""
    words = ["compactor", "static-export", "./eventlog-store", str(wanted.bucket), "--project", wanted.project or ""]
    return shlex.join(words)


def _dockerfile(wanted: Wanted, package: Package) -> str:
    install = f"eventlog[{_EXTRAS}]=={package.version}"
    copy = ""
    if package.wheel is not None:
        install = f"{_HOME}/{package.wheel.path}[{_EXTRAS}]"
        copy = f"COPY --chown=user {package.wheel.path} {_HOME}/\n"
    # In this form the server is told of SIGTERM itself, with no shell between.
    command = json.dumps(serve_command(wanted))
    return f"""\
FROM {_IMAGE}

RUN useradd --create-home --uid 1000 user
USER user
ENV HOME={_HOME} PATH={_HOME}/.local/bin:$PATH PYTHONUNBUFFERED=1
WORKDIR {_HOME}
{copy}RUN pip install --no-cache-dir --user "{install}" "trackio=={package.dashboard}"

EXPOSE {PORT}
CMD {command}
"""


def _page_settings(wanted: Wanted) -> dict[str, object]:
    """Return what Trackio's page reads before anything else."""
    return {
        "mode": "static",
        "project": wanted.project,
        "bucket_id": wanted.bucket.bucket,
        "version": wanted.page_version,
        "private": False,
    }


def _mark(wanted: Wanted) -> dict[str, object]:
    return {"made_by": "compactor deploy", "mode": wanted.mode, "bucket": str(wanted.bucket)}


def _document(value: dict[str, object]) -> bytes:
    return json.dumps(value, indent=2, ensure_ascii=False).encode() + b"\n"


def _readme(wanted: Wanted) -> str:
    name = wanted.space.split("/")[1]
    front = [f"title: {json.dumps(name)}", "emoji: 📈", "colorFrom: blue", "colorTo: green", f"sdk: {wanted.mode}"]
    if wanted.mode == "docker":
        front += [f"app_port: {PORT}", f"termination_grace_period: {_GRACE}"]
        text = (
            "The dashboard of an eventlog store, and the server that training "
            f"scripts log to. The store lives in the bucket `{wanted.bucket}`: this Space's own disk is lost at each "
            "restart.\n\nTo log here, set `TRACKIO_SERVER_URL` to the address of this Space's app and "
            f"`TRACKIO_WRITE_TOKEN` to what `compactor deploy {wanted.space}` printed."
        )
    else:
        text = (
            f"The runs of one project of an eventlog store, read from the bucket `"
            f"{wanted.bucket}`. Nothing runs here: a compactor that runs where the store is fills the bucket.\n\n"
            f"    {clean(fill_command(wanted))}"
        )
    lines = ["---", *front, "pinned: false", "tags:", "  - eventlog", "  - trackio", "---", "", f"# {name}", "", text]
    return "\n".join(lines) + "\n"
