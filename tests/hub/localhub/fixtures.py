"""Fixtures for tests with a local Hub; a conftest takes them by import."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from localhub.clients import isolated_client
from localhub.process import LocalHub

BUCKET = "owner/bucket"


@pytest.fixture(scope="session")
def hub_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalHub]:
    """Return a Hub that all tests of this process share."""
    hub = LocalHub(tmp_path_factory.mktemp("localhub") / "state")
    hub.save("new")
    yield hub
    hub.close()


@pytest.fixture
def hub(hub_process: LocalHub, tmp_path: Path) -> Iterator[LocalHub]:
    """Return a Hub that knows nothing yet but its owner, with this process's client ready for it."""
    hub_process.revive()
    hub_process.clear_faults()
    hub_process.load("new")
    home = tmp_path / "client-of-the-hub"
    home.mkdir()
    with isolated_client(str(home), hub_process.answers):
        yield hub_process


@pytest.fixture
def bucket(hub: LocalHub) -> str:
    """Return the name of an empty bucket."""
    hub.api().create_bucket(BUCKET)
    return BUCKET


def noise(size: int, seed: int = 0) -> bytes:
    """Return bytes that do not compress, the same for the same seed."""
    return random.Random(seed).randbytes(size)
