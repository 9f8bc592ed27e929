"""What can go wrong with the Hub: which failures pass by themselves, and what to tell people of the others."""

from __future__ import annotations

import contextlib
import errno
import functools
import re
from collections.abc import Callable, Iterator
from typing import Any, Final, ParamSpec, TypeVar

from eventlog.errors import StorageError, UsageError, describe

_P = ParamSpec("_P")
_T = TypeVar("_T")
_TRIES: Final = 3
_LONGEST_WAIT_S: Final = 20.0
_TOLD: Final = re.compile(r"\(([45][0-9][0-9]) ")
_PASSING: Final = frozenset({408, 409, 425, 429, 500, 502, 503, 504})
_REFUSED: Final = {
    401: "the Hub does not know this token, or it has expired: run `hf auth login`, or set HF_TOKEN",
    402: "the Hub asks for a paid plan for this",
    403: "this token may not do that: make one at https://huggingface.co/settings/tokens that may",
    404: "there is no such thing on the Hub, or this token may not see it: check the name, and HF_TOKEN",
    413: "the Hub finds it too large, or the storage of this account is full",
}


def need_client() -> None:
    """Check that the client of the Hub is installed, and knows buckets.

    Raises:
        UsageError: it is not, with the command that installs it.
    """
    try:
        import hf_xet  # noqa: F401
        import tenacity  # noqa: F401
        from huggingface_hub import BucketFile  # noqa: F401
    except ModuleNotFoundError as error:
        raise UsageError(f"the Hub needs {error.name}: pip install 'eventlog[hub]'") from None
    except ImportError as error:
        raise UsageError(f"the Hub needs a newer {error.name}: pip install 'eventlog[hub]'") from None


def status_of(error: BaseException) -> int | None:
    """Return the HTTP status with which the Hub refused, or None when there was no such answer."""
    from huggingface_hub.errors import HfHubHTTPError

    if isinstance(error, HfHubHTTPError):
        return error.response.status_code
    # hf_xet raises ConnectionError for uploads and RuntimeError for downloads, whatever the cause, and tells it.
    told = _TOLD.search(str(error)) if isinstance(error, (ConnectionError, RuntimeError)) else None
    return None if told is None else int(told[1])


def passes(error: BaseException) -> bool:
    """Say whether trying again may help: the Hub is busy, or a connection broke."""
    import httpx2
    from huggingface_hub.errors import BucketBatchError, XetDownloadError

    if isinstance(error, StorageError):
        return error.__cause__ is not None and passes(error.__cause__)
    if isinstance(error, BucketBatchError):
        return True
    status = status_of(error)
    if status is not None:
        return status in _PASSING
    return isinstance(error, (httpx2.HTTPError, XetDownloadError, ConnectionError, TimeoutError)) or (
        type(error) is RuntimeError
    )


def retrying(call: Callable[_P, _T]) -> Callable[_P, _T]:
    """Let a call be made three times, with growing, random waits, when what failed may pass by itself.

    The client tries each request up to six times already; this is for what it does not try again: uploads and
    downloads of bytes, and batches of which a part failed. So the call must be one that may be repeated.
    """

    @functools.wraps(call)
    def repeated(*args: _P.args, **kwargs: _P.kwargs) -> _T:
        import tenacity

        policy = tenacity.Retrying(
            stop=tenacity.stop_after_attempt(_TRIES),
            wait=tenacity.wait_random_exponential(multiplier=1, max=_LONGEST_WAIT_S),
            retry=tenacity.retry_if_exception(passes),
            reraise=True,
        )
        return policy(call, *args, **kwargs)

    return repeated


@contextlib.contextmanager
def told(where: str) -> Iterator[None]:
    """Turn what the client raises into an error that names the place and says what to do.

    Raises:
        StorageError: the Hub refused or could not be reached; `errno` is EACCES where a token is to blame, ENOENT
            where there is no such thing, and EIO elsewhere.
    """
    import httpx2
    from hf_xet import XetAuthenticationError, XetObjectNotFoundError
    from huggingface_hub.errors import (
        EntryNotFoundError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        XetDownloadError,
    )

    try:
        yield
    except StorageError:
        raise
    except XetAuthenticationError as error:
        raise StorageError(errno.EACCES, f"{where}: {_REFUSED[401]} ({_first_line(error)})") from error
    except XetObjectNotFoundError as error:
        raise StorageError(errno.ENOENT, f"{where}: {_first_line(error)}") from error
    except LocalEntryNotFoundError as error:
        # It is a FileNotFoundError too, and what went wrong on the Hub is its cause.
        cause = error.__cause__ or error
        raise StorageError(errno.EIO, f"{where}: a file could not be had: {_first_line(cause)}") from cause
    except (FileNotFoundError, IsADirectoryError, PermissionError, NotADirectoryError):
        raise  # of a file on this machine
    except EntryNotFoundError as error:
        raise StorageError(errno.ENOENT, f"{where}: {_first_line(error)}") from error
    except OfflineModeIsEnabled as error:
        raise StorageError(errno.ENETDOWN, f"{where}: the client is set to be offline: unset HF_HUB_OFFLINE") from error
    except (httpx2.HTTPError, XetDownloadError, ConnectionError, TimeoutError, RuntimeError) as error:
        status = status_of(error)
        if status is not None:
            number = {401: errno.EACCES, 403: errno.EACCES, 404: errno.ENOENT}.get(status, errno.EIO)
            advice = _REFUSED.get(status, "trying again later may help")
            raise StorageError(number, f"{where}: {advice} ({_first_line(error)})") from error
        raise StorageError(errno.EIO, f"{where}: the Hub could not be reached: {describe(error)}") from error


def _first_line(error: Any) -> str:
    return str(error).strip().partition("\n")[0]
