"""Settings of the write side, frozen, each with its unit and default; the environment is read here only."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Literal

import msgspec

from eventlog.errors import UsageError
from eventlog.hub.address import parse_bucket

if TYPE_CHECKING:
    from collections.abc import Mapping

DEFAULT_DIR = "./eventlog-store"
_MAX_INTERVAL_S = 1e6
_ROLL_INTERVAL_S = 3600.0
_ROLL_INTERVAL_WITH_BUCKET_S = 60.0
_MAX_DIGITS = 18


class WriterConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a writer behaves. Immutable.

    Attributes:
        sync_interval_s: seconds between background syncs; None is off, then only `flush()`, a seal and
            `finish()` sync. Default 1.0: a power loss costs one second, at no cost to `log()`.
        segment_bytes: roll when a segment has grown to this. Default 64 MiB: read whole within a second.
        roll_interval_s: roll when a segment has become this old. None, the default, is 1 h, so that retention can
            work; with a bucket 60 s, for only what is sealed is shipped.
        on_error: "warn" counts what could not be kept and lets training go on; "raise" raises StorageError.
        inline_bytes: a value that is larger when encoded goes to a blob. Default 64 KiB.
        network_mount: what to do when the store is on a network or FUSE mount: "spool" writes to
            `spool_dir` and copies sealed segments over, "refuse" raises StorageError, "allow" takes the risk.
        spool_dir: local directory for spooling; None is a directory in the user's cache.
        bucket: hf://buckets/OWNER/NAME[/PREFIX]; a process of its own ships there what is sealed. Default None: no.
            Without background syncs nothing is sealed by its age, so it is shipped in the end.
        ship_interval_s: seconds between two looks of that process at the store. Default 30; each shipment of something
            new costs about ten requests.
        ship_flush_s: how long `finish()` waits, in seconds, until what was sealed is in the bucket; 0 is not at all.
            Default 60. What is not there by then is warned about, and stays in the store.
    """

    sync_interval_s: float | None = 1.0
    segment_bytes: int = 64 * 1024 * 1024
    roll_interval_s: float | None = None
    on_error: Literal["warn", "raise"] = "warn"
    inline_bytes: int = 64 * 1024
    network_mount: Literal["spool", "refuse", "allow"] = "spool"
    spool_dir: str | None = None
    bucket: str | None = None
    ship_interval_s: float = 30.0
    ship_flush_s: float = 60.0

    def __post_init__(self) -> None:
        """Check the ranges.

        Raises:
            UsageError: naming the field that is out of its range.
        """
        interval_s = self.sync_interval_s
        if interval_s is not None and not (_is_number(interval_s) and 0 < interval_s <= _MAX_INTERVAL_S):
            raise UsageError("sync_interval_s must be positive and at most 1e6, or None for off")
        if not isinstance(self.segment_bytes, int) or self.segment_bytes < 4096:
            raise UsageError("segment_bytes must be an integer of at least 4096")
        if self.roll_interval_s is not None and not (_is_number(self.roll_interval_s) and self.roll_interval_s > 0):
            raise UsageError("roll_interval_s must be positive, or None for the default")
        if not isinstance(self.inline_bytes, int) or self.inline_bytes < 256:
            raise UsageError("inline_bytes must be an integer of at least 256")
        if self.on_error not in ("warn", "raise"):
            raise UsageError('on_error must be "warn" or "raise"')
        if self.network_mount not in ("spool", "refuse", "allow"):
            raise UsageError('network_mount must be "spool", "refuse" or "allow"')
        if not (self.spool_dir is None or (isinstance(self.spool_dir, str) and "\0" not in self.spool_dir)):
            raise UsageError("spool_dir must be a path, or None")
        if self.bucket is not None:
            parse_bucket(self.bucket)
        if not (_is_number(self.ship_interval_s) and 0 < self.ship_interval_s <= _MAX_INTERVAL_S):
            raise UsageError("ship_interval_s must be positive and at most 1e6")
        if not (_is_number(self.ship_flush_s) and 0 <= self.ship_flush_s <= _MAX_INTERVAL_S):
            raise UsageError("ship_flush_s must be from 0 to 1e6")

    @property
    def rolls_after_s(self) -> float:
        """How old a segment becomes, in seconds: as was asked for, else what suits a store with or without a bucket."""
        if self.roll_interval_s is not None:
            return self.roll_interval_s
        return _ROLL_INTERVAL_S if self.bucket is None else _ROLL_INTERVAL_WITH_BUCKET_S


class Environment(msgspec.Struct, frozen=True, kw_only=True):
    """What the environment variables say.

    Attributes:
        store_dir: EVENTLOG_DIR, default `./eventlog-store`.
        project: EVENTLOG_PROJECT, or None.
        run_id: EVENTLOG_RUN_ID, shared by processes that log to one run, or None.
        name: EVENTLOG_RUN_NAME, or None.
        rank: RANK, SLURM_PROCID or OMPI_COMM_WORLD_RANK, the first that is a number, or None.
        world_size: WORLD_SIZE, SLURM_NTASKS or OMPI_COMM_WORLD_SIZE, likewise.
        writer: settings from EVENTLOG_SYNC_INTERVAL_S ("off" or seconds), EVENTLOG_ON_ERROR,
            EVENTLOG_NETWORK_MOUNT, EVENTLOG_SPOOL_DIR, EVENTLOG_BUCKET, EVENTLOG_SHIP_INTERVAL_S and
            EVENTLOG_SHIP_FLUSH_S over the defaults.
    """

    store_dir: str
    project: str | None
    run_id: str | None
    name: str | None
    rank: int | None
    world_size: int | None
    writer: WriterConfig


def read_environment(environ: Mapping[str, str] | None = None) -> Environment:
    """Return what the environment says, checked.

    Raises:
        UsageError: a variable has a value that does not fit; the message names it.
    """
    env = os.environ if environ is None else environ
    settings: dict[str, object] = {}
    interval = env.get("EVENTLOG_SYNC_INTERVAL_S")
    if interval:
        settings["sync_interval_s"] = (
            None if interval.lower() == "off" else _number("EVENTLOG_SYNC_INTERVAL_S", interval, " or off")
        )
    for field, variable in (
        ("ship_interval_s", "EVENTLOG_SHIP_INTERVAL_S"),
        ("ship_flush_s", "EVENTLOG_SHIP_FLUSH_S"),
    ):
        if env.get(variable):
            settings[field] = _number(variable, env[variable])
    for field, variable in (
        ("on_error", "EVENTLOG_ON_ERROR"),
        ("network_mount", "EVENTLOG_NETWORK_MOUNT"),
        ("spool_dir", "EVENTLOG_SPOOL_DIR"),
        ("bucket", "EVENTLOG_BUCKET"),
    ):
        if env.get(variable):
            settings[field] = env[variable]
    try:
        writer = msgspec.convert(settings, WriterConfig)
    except (msgspec.ValidationError, UnicodeError) as error:
        raise UsageError(f"the environment holds a bad EVENTLOG_ setting: {error}") from None
    return Environment(
        store_dir=env.get("EVENTLOG_DIR") or DEFAULT_DIR,
        project=env.get("EVENTLOG_PROJECT") or None,
        run_id=env.get("EVENTLOG_RUN_ID") or None,
        name=env.get("EVENTLOG_RUN_NAME") or None,
        rank=_first_int(env, "RANK", "SLURM_PROCID", "OMPI_COMM_WORLD_RANK"),
        world_size=_first_int(env, "WORLD_SIZE", "SLURM_NTASKS", "OMPI_COMM_WORLD_SIZE"),
        writer=writer,
    )


def _number(variable: str, text: str, more: str = "") -> float:
    try:
        return float(text)
    except ValueError:
        raise UsageError(f"{variable} must be a number of seconds{more}, not {text!r}") from None


def _first_int(env: Mapping[str, str], *variables: str) -> int | None:
    for variable in variables:
        text = env.get(variable, "")
        if text.isascii() and text.isdigit() and len(text) <= _MAX_DIGITS:
            return int(text)
    return None


def _is_number(value: object) -> bool:
    return isinstance(value, int | float)
