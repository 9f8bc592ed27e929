"""Fixtures of the tests of the local Hub, and of what is tested against it."""

from localhub.fixtures import bucket, hub, hub_process

__all__ = ["bucket", "hub", "hub_process"]
