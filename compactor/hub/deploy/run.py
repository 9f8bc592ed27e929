"""A deploy as a whole: ask, plan, do, wait; or only the plan."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec

from compactor.hub.deploy.execute import Executor, how_to_make
from compactor.hub.deploy.files import fill_command
from compactor.hub.deploy.health import Awaited, wait
from compactor.hub.deploy.look import look, space_host
from compactor.hub.deploy.plan import (
    AskForToken,
    Existing,
    Found,
    Step,
    Wait,
    call_of,
    plan_deploy,
    questions,
    sends_write_token,
)
from compactor.hub.deploy.wanted import Wanted
from eventlog.errors import UsageError

if TYPE_CHECKING:
    from huggingface_hub import HfApi


class Deployed(msgspec.Struct, frozen=True, kw_only=True):
    """A Space that answers, or that was not waited for.

    Attributes:
        space: OWNER/NAME.
        mode: "docker" or "static".
        page: where people find it.
        url: of the app itself, without a slash at the end.
        bucket: where its data live.
        steps: the calls that changed something, with secrets masked.
        write_token: what was put into the Space now; None when it keeps the one it has, or takes none.
        environment: what training processes need to log to it, as far as it is known.
        fill: the command that fills the bucket of a static page; None for a server, which does it itself.
        notes: what people should know.
    """

    space: str
    mode: str
    page: str
    url: str
    bucket: str
    steps: list[dict[str, Any]]
    write_token: str | None
    environment: dict[str, str]
    fill: str | None
    notes: list[str]


def dry_run(wanted: Wanted) -> list[dict[str, Any]]:
    """Return every call of a first deploy, those that only ask included, without making any; secrets are masked.

    Where the bucket's token is still to be made, the calls of the second deploy, which has it, follow.

    Raises:
        UsageError: it cannot be done as it is wanted.
    """
    steps = plan_deploy(wanted, Found())
    if isinstance(steps[-1], AskForToken):
        then = dataclasses.replace(wanted, bucket_token="made-by-then")  # noqa: S106 - stands for one
        steps += plan_deploy(then, Found(bucket_private=True, space=Existing(sdk=wanted.mode)))
    return [*questions(wanted), *map(call_of, steps)]


def deploy(
    api: HfApi,
    wanted: Wanted,
    *,
    timeout_s: float = 900.0,
    on_step: Callable[[Step], None] = lambda _: None,
    on_state: Callable[[str], None] = lambda _: None,
    sleep: Callable[[float], None] = time.sleep,
) -> Deployed:
    """Make the Space as it is wanted, and return when it answers. What is so already stays untouched.

    Args:
        api: a client of the Hub with the token of whoever deploys, which goes to the Hub and, for a private Space, to
            the Space's own host over https; never into the Space.
        wanted: the Space.
        timeout_s: how long to wait for it; 0 does not wait.
        on_step: told of each step before it is done.
        on_state: told what is waited for, at each look.
        sleep: waits for seconds.

    Raises:
        UsageError: it cannot be done as it is wanted; the message says what to do.
        ConflictError: the Space was not there, and is now.
        PaymentRequiredError: the account has no plan for it; the message has the command for what is free.
        StorageError: the Hub refused, could not be reached, or the Space did not start: deploy again for the rest.
    """
    own = own_token(api)
    refuse_own_token(wanted, own)
    steps = plan_deploy(wanted, look(api, wanted))
    executor = Executor(api, wanted)
    executor.run(steps, on_step)
    url, private = space_host(api, wanted.space)
    waited = steps[-1]
    if timeout_s > 0 and isinstance(waited, Wait):
        commit = executor.commit if wanted.mode == "docker" else None
        awaited = Awaited(space=wanted.space, url=url + waited.path, commit=commit, token=own if private else None)
        wait(api, awaited, timeout_s=timeout_s, on_state=on_state, sleep=sleep)
    sent = wanted.write_token if sends_write_token(steps) else None
    return Deployed(
        space=wanted.space,
        mode=wanted.mode,
        page=wanted.page_url,
        url=url,
        bucket=str(wanted.bucket),
        steps=[call_of(step) for step in steps if not isinstance(step, Wait)],
        write_token=sent,
        environment=_environment(wanted, url, sent, private=private),
        fill=fill_command(wanted) if wanted.mode == "static" else None,
        notes=[*executor.notes, *_notes(wanted, sent, private=private)],
    )


def own_token(api: HfApi) -> str | None:
    """Return the token of whoever deploys."""
    from huggingface_hub import get_token

    return api.token if isinstance(api.token, str) else get_token()


def refuse_own_token(wanted: Wanted, own: str | None) -> None:
    """Check that the token that goes into the Space is not the one that deploys it.

    Raises:
        UsageError: it is, with what to do instead.
    """
    from huggingface_hub import get_token

    if wanted.bucket_token is not None and wanted.bucket_token in (own, get_token()):
        raise UsageError(
            "the bucket token is your own login token: whoever can change the Space could do with it all that you can; "
            + how_to_make(wanted.bucket.bucket)
        )


def _environment(wanted: Wanted, url: str, write_token: str | None, *, private: bool) -> dict[str, str]:
    if wanted.mode == "static":
        return {}
    if private:
        return {"EVENTLOG_BUCKET": str(wanted.bucket)}
    token = {} if write_token is None else {"TRACKIO_WRITE_TOKEN": write_token}
    return {"TRACKIO_SERVER_URL": url, **token}


def _notes(wanted: Wanted, write_token: str | None, *, private: bool) -> list[str]:
    if wanted.mode == "static":
        return [f"everybody can read the bucket {wanted.bucket.bucket} as a whole"]
    notes = []
    if private:
        notes.append(
            "the host of a private Space answers only to requests with a token of the Hub, and Trackio's client sends "
            "none to TRACKIO_SERVER_URL: let training processes ship to the bucket instead"
        )
    if write_token is None:
        notes.append("the Space keeps its write token, which was printed when it was made; --new-token makes another")
    return notes
