"""Waits until a Space runs what was deployed and answers, and sends a token nowhere but to the Space's own host."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from eventlog.errors import StorageError, describe
from eventlog.hub.failures import retrying, told

if TYPE_CHECKING:
    import httpx2
    from huggingface_hub import HfApi, SpaceRuntime

_POLL_S: Final = 2.0
_REQUEST_S: Final = 10.0
_PATIENCE: Final = 5
"""How often in a row the Hub must call a Space broken: right after a commit it may still speak of what was before."""
_BROKEN: Final = frozenset(
    {"BUILD_ERROR", "CONFIG_ERROR", "RUNTIME_ERROR", "NO_APP_FILE", "PAUSED", "STOPPED", "DELETING"}
)
_UP: Final = frozenset({"RUNNING", "SLEEPING"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Awaited:
    """What to wait for.

    Attributes:
        space: OWNER/NAME.
        url: what is to answer with 200.
        commit: what the Space is to run, where the Hub tells; None for anything.
        token: of whoever deploys, for a private Space; None for a public one.
    """

    space: str
    url: str
    commit: str | None = None
    token: str | None = None


def headers_for(url: str, token: str | None) -> dict[str, str]:
    """Return what goes with a request: a token only over https, so that nobody between sees it."""
    return {"Authorization": f"Bearer {token}"} if token and urlsplit(url).scheme == "https" else {}


def wait(
    api: HfApi,
    awaited: Awaited,
    *,
    timeout_s: float,
    on_state: Callable[[str], None] = lambda _: None,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Return when the Space answers.

    Args:
        api: the client, with the token of whoever deploys.
        awaited: what to wait for.
        timeout_s: for how long.
        on_state: told what is waited for, at each look.
        clock: seconds.
        sleep: waits for seconds.

    Raises:
        StorageError: the Space does not start, or did not answer in time; says where its log is.
    """
    import httpx2

    until = clock() + timeout_s
    broken = 0
    # A redirect is not followed: the token would go with it.
    with httpx2.Client(follow_redirects=False, timeout=_REQUEST_S) as client:
        while True:
            stage, state = _look(api, awaited, client)
            if stage is None:
                return
            on_state(state)
            broken = broken + 1 if stage in _BROKEN else 0
            log = f"its log is at https://huggingface.co/spaces/{awaited.space}?logs=container"
            if broken == _PATIENCE:
                raise StorageError(errno.EIO, f"{awaited.space} does not start, its stage is {stage}: {log}")
            if clock() >= until:
                text = (
                    f"{awaited.space} did not answer within {timeout_s:g} seconds ({state}); it may still start: {log}"
                )
                raise StorageError(errno.ETIMEDOUT, text)
            sleep(_POLL_S)


def _look(api: HfApi, awaited: Awaited, client: httpx2.Client) -> tuple[str | None, str]:
    """Return the stage, or None when all is well, and what to tell of it."""
    try:
        runtime = _runtime(api, awaited.space)
    except StorageError as error:
        if error.errno in (errno.EACCES, errno.ENOENT):
            raise
        return "", str(error)  # the Hub is busy, and the Space is not: go on
    stage = str(getattr(runtime.stage, "value", runtime.stage))
    if stage not in _UP:
        return stage, stage.lower().replace("_", " ")
    runs = runtime.raw.get("sha")
    if awaited.commit and runs and runs != awaited.commit:
        return stage, "still running what was there before"
    answer = _answer(client, awaited)
    return (None, "") if answer == "200" else (stage, f"{awaited.url} answers: {answer}")


@retrying
def _runtime(api: HfApi, space: str) -> SpaceRuntime:
    with told(space):
        return api.get_space_runtime(space)


def _answer(client: httpx2.Client, awaited: Awaited) -> str:
    import httpx2

    headers = headers_for(awaited.url, awaited.token)
    try:
        return str(client.get(awaited.url, headers=headers).status_code)
    except (httpx2.HTTPError, httpx2.InvalidURL) as error:
        return describe(error)
