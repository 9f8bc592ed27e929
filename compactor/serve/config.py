"""Settings of the server: frozen, checked once, with defaults that just work."""

from __future__ import annotations

from typing import Final

import msgspec

from eventlog.errors import UsageError

LOOPBACK: Final = frozenset({"127.0.0.1", "::1", "localhost"})


class ServeConfig(msgspec.Struct, frozen=True, kw_only=True):
    """How a store is served.

    Attributes:
        host: the address to listen on.
        port: the port; 0 takes a free one.
        write_token: what a client must send to write; "" lets everybody write, on loopback only.
        compact: also fold the store in this process.
        ui: "trackio" for the dashboard of the installed wheel, "none" for the API alone.
        max_body_bytes: of a request with JSON; after an outage a client sends all that it kept at once.
        max_upload_bytes: of one uploaded file.
        cache_bytes: for what is kept decoded between polls.
        query_s: how long a query in SQL may take.
        query_rows: how many rows it may return.
        bucket: that the store is restored from, before which no write is taken, and published to; "" for none.
        ack: "disk" to answer a write when it is durable here, "bucket" to wait until the bucket has it, too.
    """

    host: str = "127.0.0.1"
    port: int = 7860
    write_token: str = ""
    compact: bool = True
    ui: str = "trackio"
    max_body_bytes: int = 512 * 1024 * 1024
    max_upload_bytes: int = 16 * 1024 * 1024 * 1024
    cache_bytes: int = 256 * 1024 * 1024
    query_s: float = 30.0
    query_rows: int = 10_000
    bucket: str = ""
    ack: str = "disk"

    def __post_init__(self) -> None:
        """Check the ranges.

        Raises:
            UsageError: naming the field that is out of its range.
        """
        if not self.write_token and self.host not in LOOPBACK:
            raise UsageError(
                f"refusing to listen on {self.host} with an empty write token: everybody who reaches it could write; "
                "give --write-token, or leave it out to have one made"
            )
        if not self.host or not self.host.isprintable():
            raise UsageError(f"host must be a name or an address, not {self.host!r}")
        if not all(" " < character < "\x7f" for character in self.write_token):
            raise UsageError("write_token must be ASCII without spaces, for a header, a cookie and an address hold it")
        if not 0 <= self.port < 1 << 16:
            raise UsageError("port must be 0 to 65535")
        if self.ui not in ("trackio", "none"):
            raise UsageError('ui must be "trackio" or "none"')
        if self.ack not in ("disk", "bucket"):
            raise UsageError('ack must be "disk" or "bucket"')
        if self.ack == "bucket" and not self.bucket:
            raise UsageError("--ack bucket goes with --bucket, which says where to")
        for field in ("max_body_bytes", "max_upload_bytes", "cache_bytes", "query_s", "query_rows"):
            if getattr(self, field) <= 0:
                raise UsageError(f"{field} must be above 0")
