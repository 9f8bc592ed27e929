"""An append-only, log-structured event store for machine-learning runs: the write side's public names."""

from eventlog.config import WriterConfig
from eventlog.errors import (
    ConflictError,
    DataError,
    DurabilityUnknownError,
    EventLogError,
    EventLogWarning,
    NewerFormatError,
    StorageError,
    UsageError,
)
from eventlog.media import Audio, File, Histogram, Html, Image, Markdown, Table, Trace, Video
from eventlog.run import Run
from eventlog.session import alert, current_run, finish, init, log, log_system

__version__ = "0.1.0"

__all__ = [
    "Audio",
    "ConflictError",
    "DataError",
    "DurabilityUnknownError",
    "EventLogError",
    "EventLogWarning",
    "File",
    "Histogram",
    "Html",
    "Image",
    "Markdown",
    "NewerFormatError",
    "Run",
    "StorageError",
    "Table",
    "Trace",
    "UsageError",
    "Video",
    "WriterConfig",
    "alert",
    "current_run",
    "finish",
    "init",
    "log",
    "log_system",
]
