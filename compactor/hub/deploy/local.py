"""Reads on this machine what a deploy sends: the page's files, a wheel, and from where this package was installed."""

from __future__ import annotations

import importlib.metadata
import json
import os

import eventlog
from compactor.hub.deploy.wanted import File, Package
from eventlog.errors import UsageError


def page_files(dist: str, assets: str) -> tuple[File, ...]:
    """Return the files of Trackio's page as its own static deploy lays them out.

    Args:
        dist: the directory of the page.
        assets: the directory of the logos.

    Raises:
        OSError: a file cannot be read.
    """
    return (*_tree(dist, ""), *_tree(assets, "static/trackio/"))


def _tree(directory: str, under: str) -> list[File]:
    found = []
    for parent, _, files in os.walk(directory):
        for name in files:
            path = os.path.join(parent, name)
            relative = os.path.relpath(path, directory).replace(os.sep, "/")
            with open(path, "rb") as file:
                found.append(File(under + relative, file.read()))
    return found


def package(version: str, dashboard: str, wheel: str | None) -> Package:
    """Return what a Docker Space is to install: the wheel, or this release from the package index.

    Args:
        version: of this package.
        dashboard: the version of Trackio.
        wheel: a path, or None.

    Raises:
        UsageError: there is no wheel, and what runs here is no release of the index: another would be installed.
        OSError: the wheel cannot be read.
    """
    if wheel is not None:
        with open(wheel, "rb") as file:
            return Package(version, dashboard, File(os.path.basename(wheel), file.read()))
    source = source_of_this()
    if source is not None:
        raise UsageError(
            f"this eventlog was installed from {source}, not from the package index, so the Space cannot install the "
            f"same: build a wheel with `pip wheel --no-deps --wheel-dir dist {source}` and pass it with --wheel"
        )
    return Package(version, dashboard)


def source_of_this() -> str | None:
    """Return from where this package was installed, or None when that was the package index."""
    try:
        text = importlib.metadata.distribution("eventlog").read_text("direct_url.json")
    except importlib.metadata.PackageNotFoundError:
        return os.path.dirname(os.path.dirname(os.path.abspath(eventlog.__file__)))
    return None if text is None else str(json.loads(text).get("url"))
