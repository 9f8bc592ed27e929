"""Does the steps of a deploy, in their order, through a client of the Hub."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from compactor.hub.deploy import look
from compactor.hub.deploy.plan import (
    AskForToken,
    CheckToken,
    CreateBucket,
    CreateSpace,
    HideSpace,
    Restart,
    SetHardware,
    SetSecret,
    Step,
    Upload,
    Wait,
    description,
)
from compactor.hub.deploy.wanted import Secret, Wanted
from eventlog.errors import ConflictError, StorageError, UsageError
from eventlog.hub.address import BucketAddress
from eventlog.hub.bucket import Bucket
from eventlog.hub.failures import retrying, status_of, told

if TYPE_CHECKING:
    from huggingface_hub import HfApi

NEW_TOKEN_URL = "https://huggingface.co/settings/tokens/new?tokenType=fineGrained"  # noqa: S105 - an address


class PaymentRequiredError(StorageError):
    """The Hub does this for paying accounts only; the message says what is free."""


class Executor:
    """Does steps for one Space. Each step may be done again, also when its reply was lost.

    Attributes:
        commit: the id of what was uploaded, or None as long as nothing was.
        notes: what people should know of what was done.
    """

    def __init__(self, api: HfApi, wanted: Wanted) -> None:
        """Take the client, with the token of whoever deploys, and what is wanted."""
        self._api = api
        self._wanted = wanted
        self.commit: str | None = None
        self.notes: list[str] = []

    def run(self, steps: Iterable[Step], on_step: Callable[[Step], None] = lambda _: None) -> None:
        """Do all steps but the waiting.

        Args:
            steps: as planned.
            on_step: told of each step before it is done.

        Raises:
            UsageError: a token is missing or wrong, or the Hub finds a value wrong; the message says what to do.
            PaymentRequiredError: the account has no plan for this; the message has the command for what is free.
            ConflictError: the Space was not there, and is now.
            StorageError: the Hub refused or could not be reached. What was done stays; deploy again.
        """
        for step in steps:
            on_step(step)
            with self._explained(step):
                self._do(step)

    def _do(self, step: Step) -> None:
        api = self._api
        match step:
            case CreateBucket(bucket, private):
                Bucket(BucketAddress(bucket), api=api).create(private=private)
            case AskForToken(bucket):
                raise UsageError(missing_token(bucket))
            case CheckToken(bucket, secret):
                self._check_token(bucket, secret)
            case CreateSpace():
                self._create_space(step)
            case HideSpace(space):
                self._call(lambda: api.update_repo_settings(space, repo_type="space", private=True))
            case SetHardware(space, hardware):
                # The type names today's flavours; the Hub knows better.
                self._call(lambda: api.request_space_hardware(space, hardware))  # type: ignore[arg-type]
            case SetSecret(space, secret):
                self._set_secret(space, secret)
            case Upload():
                self._upload(step)
            case Restart(space):
                self._call(lambda: api.restart_space(space))
            case Wait():
                pass

    @retrying
    def _call(self, call: Callable[[], object]) -> None:
        """Make a call that may be made twice."""
        with told(self._wanted.space):
            call()

    def _set_secret(self, space: str, secret: Secret) -> None:
        text = description(secret)
        self._call(lambda: self._api.add_space_secret(space, secret.key, secret.value, description=text))

    def _create_space(self, step: CreateSpace) -> None:
        """Create the Space; when the reply was lost and it is there, it gets its secrets once more."""
        tries = 0

        @retrying
        def attempt() -> bool:
            nonlocal tries
            tries += 1
            with told(step.space):
                if tries > 1 and self._api.repo_exists(step.space, repo_type="space"):
                    return False
                self._create_repo(step)
            return True

        if not attempt():
            for secret in step.secrets:
                self._set_secret(step.space, secret)

    def _create_repo(self, step: CreateSpace) -> None:
        from huggingface_hub.errors import HfHubHTTPError

        secrets = [
            {"key": secret.key, "value": secret.value, "description": description(secret)} for secret in step.secrets
        ]
        try:
            self._api.create_repo(
                step.space,
                repo_type="space",
                space_sdk=step.sdk,
                private=step.private,
                space_hardware=step.hardware,  # type: ignore[arg-type]
                space_secrets=secrets or None,
            )
        except HfHubHTTPError as error:
            # Not `exist_ok`: what was not there when it was looked for, and is now, is somebody else's.
            if status_of(error) == 409:
                text = f"there is a Space {step.space} by now, or one that this token does not see: name another"
                raise ConflictError(f"{text}, or deploy again") from error
            raise

    def _upload(self, step: Upload) -> None:
        tries = 0

        @retrying
        def attempt() -> None:
            nonlocal tries
            tries += 1
            deleted = step.deleted
            if tries > 1 and deleted:
                # A commit whose reply was lost may have been applied; what is gone cannot be deleted again.
                there = look.space_files(self._api, step.space)
                deleted = tuple(path for path in deleted if path in there)
            self._commit(step, deleted)

        attempt()

    def _commit(self, step: Upload, deleted: Sequence[str]) -> None:
        from huggingface_hub import CommitOperationAdd, CommitOperationDelete

        adds = [CommitOperationAdd(path_in_repo=file.path, path_or_fileobj=file.data) for file in step.files]
        deletes = [CommitOperationDelete(path_in_repo=path) for path in deleted]
        with told(step.space):
            done = self._api.create_commit(
                step.space, [*adds, *deletes], commit_message="compactor deploy", repo_type="space"
            )
        self.commit = done.oid

    def _check_token(self, bucket: str, secret: Secret) -> None:
        role = self._role(secret.value)
        if role is None:
            raise UsageError(f"the Hub does not know the bucket token, or it has expired: {how_to_make(bucket)}")
        if role == "read":
            raise UsageError(f"the bucket token may only read: {how_to_make(bucket)}")
        if look.bucket_private(self._api, bucket, secret.value) is None:
            raise UsageError(f"the bucket token may not see {bucket}: {how_to_make(bucket)}")
        if role == "write":
            self.notes.append(
                "the bucket token may write to everything of its account, and whoever can change the Space can read "
                f"it; safer: {how_to_make(bucket)}"
            )

    @retrying
    def _role(self, token: str) -> str | None:
        """Return what kind of token it is, or None for one that is none."""
        from huggingface_hub.errors import HfHubHTTPError

        with told("the bucket token"):
            try:
                facts = self._api.whoami(token=token)
            except HfHubHTTPError as error:
                if status_of(error) == 401:
                    return None
                raise
        return str(facts.get("auth", {}).get("accessToken", {}).get("role"))

    @contextlib.contextmanager
    def _explained(self, step: Step) -> Iterator[None]:
        """Say more of a refusal than that the Hub refused, where this step knows more."""
        try:
            yield
        except StorageError as error:
            cause = error.__cause__
            status = None if cause is None else status_of(cause)
            if status == 402:
                raise PaymentRequiredError(errno.EPERM, f"{self._unpaid(step)} {_said(error)}") from error
            if status in (400, 422):
                raise UsageError(f"{self._wanted.space}: the Hub does not take this. {_said(error)}") from error
            raise
        except UsageError:
            raise
        except ValueError as error:
            # The client itself refuses names and front matter before anything is sent.
            raise UsageError(f"{self._wanted.space}: the client of the Hub does not take this: {error}") from error

    def _unpaid(self, step: Step) -> str:
        wanted = self._wanted
        if isinstance(step, SetHardware) or (isinstance(step, CreateSpace) and step.hardware):
            return (
                f"{wanted.space}: the hardware {wanted.hardware} has to be paid for: add a payment method at "
                "https://huggingface.co/settings/billing, or leave out --hardware."
            )
        return (
            f"{wanted.space}: a Docker Space needs a paid plan, see https://huggingface.co/pricing. A page that reads "
            "a bucket, which a compactor on another machine writes, is free: "
            f"{static_command(wanted)} (with your project for PROJECT)."
        )


def _said(error: StorageError) -> str:
    """Return what the Hub said, without the address and the advice that the client puts around it."""
    return f"The Hub says: {getattr(error.__cause__, 'server_message', None) or error.__cause__}"


def static_command(wanted: Wanted) -> str:
    """Return the command that deploys a free page under the same name."""
    return f"compactor deploy {wanted.space} --mode static --project PROJECT"


def how_to_make(bucket: str) -> str:
    """Return how to get a token that the Space may have."""
    return (
        f"make a fine-grained token at {NEW_TOKEN_URL} that may read and write the bucket {bucket} and nothing else, "
        "and pass it in EVENTLOG_BUCKET_TOKEN"
    )


def missing_token(bucket: str) -> str:
    """Return what to do when a Space has no token for its bucket."""
    return (
        f"the Space needs a token of its own for its bucket {bucket}, for yours is never copied into a Space. Bucket "
        f"and Space are there; now {how_to_make(bucket)}, and deploy again"
    )
