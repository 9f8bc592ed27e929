"""Fixtures of the tests of the local Hub, and of what is tested against it."""

from jobs import host, make_host
from localhub.fixtures import bucket, hub, hub_process

__all__ = ["bucket", "host", "hub", "hub_process", "make_host"]
