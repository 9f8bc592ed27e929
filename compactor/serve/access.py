"""Who may write: whoever sends the token, in a header, a cookie or the address."""

from __future__ import annotations

import secrets
from typing import Final
from urllib.parse import urlsplit

from starlette.requests import Request

from compactor.serve.errors import ForbiddenError

HEADER: Final = "x-trackio-write-token"
COOKIE: Final = "trackio_write_token"
PARAMETER: Final = "write_token"


class Access:
    """The rule of one server. Thread-safe."""

    def __init__(self, token: str) -> None:
        """Take the token; "" lets everybody write."""
        self._token = token.encode()

    def allows(self, request: Request) -> bool:
        """Say whether a request carries the token; the time that it takes tells nothing about it."""
        given = request.headers.get(HEADER) or request.cookies.get(COOKIE) or request.query_params.get(PARAMETER) or ""
        return not self._token or secrets.compare_digest(given.encode("utf-8", "replace"), self._token)

    def require(self, request: Request) -> None:
        """Let a request that may write pass.

        Raises:
            ForbiddenError: it may not.
        """
        origin = request.headers.get("origin")
        if origin and urlsplit(origin).netloc != request.headers.get("host"):
            raise ForbiddenError("a page of another site must not write here")
        if not self.allows(request):
            raise ForbiddenError(
                "writing needs the write token: set TRACKIO_WRITE_TOKEN to what the server printed at its start, "
                f"or send it in the header {HEADER}"
            )
