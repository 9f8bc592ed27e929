"""What a request can be refused for, each with its HTTP status."""

from __future__ import annotations

from eventlog.errors import EventLogError


class RequestError(EventLogError):
    """A request is answered with an error; nothing of it was stored.

    Attributes:
        status: the HTTP status.
    """

    status = 400


class NotFoundError(RequestError):
    """There is no such thing."""

    status = 404


class ForbiddenError(RequestError):
    """The write token is missing or wrong."""

    status = 403


class TooLargeError(RequestError):
    """The body is larger than the server takes."""

    status = 413


class UnavailableError(RequestError):
    """Not now: the client should send the same again, and nothing will be stored twice."""

    status = 503
