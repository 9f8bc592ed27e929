"""Verify: account for every record of every writer of a store. It finds, and never repairs."""

from eventlog.verify.report import Finding, Report
from eventlog.verify.whole import verify

__all__ = ["Finding", "Report", "verify"]
