"""The commands of `eventlog`, one module a purpose; they need click and rich, which the library does not."""

from eventlog.commands.group import cli

__all__ = ["cli"]
