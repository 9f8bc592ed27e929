"""What a deploy does: pure. From what is wanted and what the Hub has, the calls that are missing, in their order."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from compactor.hub.deploy.files import MARK, is_ours, space_files
from compactor.hub.deploy.wanted import BUCKET_TOKEN, WRITE_TOKEN, File, Secret, Wanted
from eventlog.errors import UsageError

MASK: Final = "***"
_MADE_BY_THE_HUB: Final = frozenset({".gitattributes", "README.md"})
_STOPPED: Final = frozenset({"STOPPED", "RUNTIME_ERROR", "BUILD_ERROR", "CONFIG_ERROR"})
_PAUSED: Final = "PAUSED"


@dataclass(frozen=True, slots=True)
class Known:
    """By what the Hub knows a file's bytes: git's id, or for a large one its SHA-256."""

    oid: str
    sha256: str | None = None

    def is_of(self, data: bytes) -> bool:
        """Say whether these are its bytes."""
        if self.sha256 is not None:
            return hashlib.sha256(data).hexdigest() == self.sha256
        return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest() == self.oid


@dataclass(frozen=True, slots=True, kw_only=True)
class Existing:
    """A Space that is there.

    Attributes:
        sdk: what it is made of.
        private: only its owner sees it.
        stage: of its life, as the Hub names it.
        hardware: the flavour that was asked for last.
        secrets: the description of each.
        files: what is in its repository, by path.
    """

    sdk: str | None
    private: bool = False
    stage: str = "RUNNING"
    hardware: str | None = None
    secrets: Mapping[str, str | None] = field(default_factory=dict)
    files: Mapping[str, Known] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Found:
    """What the Hub has; nothing by default.

    Attributes:
        bucket_private: whether the bucket is private; None when there is no bucket.
        space: None when there is none.
    """

    bucket_private: bool | None = None
    space: Existing | None = None


@dataclass(frozen=True, slots=True)
class CreateBucket:
    """Make the bucket, which is not there."""

    bucket: str
    private: bool


@dataclass(frozen=True, slots=True)
class AskForToken:
    """Stop, and say which token to make: the Space has none for its bucket, and none was given."""

    bucket: str


@dataclass(frozen=True, slots=True)
class CheckToken:
    """See that the token that was given is one, and sees the bucket, before it goes into the Space."""

    bucket: str
    secret: Secret


@dataclass(frozen=True, slots=True)
class CreateSpace:
    """Make the Space with its secrets, so that its first start has them; None for what its owner's default is."""

    space: str
    sdk: str
    private: bool | None
    hardware: str | None
    secrets: tuple[Secret, ...]


@dataclass(frozen=True, slots=True)
class HideSpace:
    """Make the Space private."""

    space: str


@dataclass(frozen=True, slots=True)
class SetHardware:
    """Ask for another flavour."""

    space: str
    hardware: str


@dataclass(frozen=True, slots=True)
class SetSecret:
    """Add a secret, or replace it; a Space that runs starts anew with it."""

    space: str
    secret: Secret


@dataclass(frozen=True, slots=True)
class Upload:
    """Commit the files that are new or changed, and delete those of an earlier deploy, all at once."""

    space: str
    files: tuple[File, ...]
    deleted: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Restart:
    """Start a Space that stands still, and that nothing else in the plan starts."""

    space: str


@dataclass(frozen=True, slots=True)
class Wait:
    """Wait until the Space runs what was uploaded, and answers on this path."""

    space: str
    path: str


Step = (
    CreateBucket
    | AskForToken
    | CheckToken
    | CreateSpace
    | HideSpace
    | SetHardware
    | SetSecret
    | Upload
    | Restart
    | Wait
)


def plan_deploy(wanted: Wanted, found: Found) -> tuple[Step, ...]:
    """Return the steps, to be done in this order. Cut off after any, and planned again, the rest follows.

    A Space keeps its write token unless a new one is wanted; nothing private is made public; what is there and the same
    is not uploaded.

    Raises:
        UsageError: the Space is of another kind, or not one of a deploy; or the bucket of a static page is private.
    """
    static = wanted.mode == "static"
    bucket = wanted.bucket.bucket
    if static and found.bucket_private:
        raise UsageError(
            f"the bucket {bucket} is private, and a static page reads it without any token: give the page a bucket of "
            "its own with --bucket"
        )
    if found.space is not None:
        _check_ours(wanted, found.space)
    steps: list[Step] = [CreateBucket(bucket, private=not static)] * (found.bucket_private is None)
    keeps_token = _keeps_token(wanted, found.space)
    if not static and wanted.bucket_token is None and not keeps_token:
        # The Space is made first: whoever has no plan for it is to learn so before making a bucket and a token.
        made = [_create(wanted, ())] * (found.space is None)
        return (*made, *steps, AskForToken(bucket))
    if wanted.bucket_token is not None and not keeps_token:
        steps.append(CheckToken(bucket, Secret(BUCKET_TOKEN, wanted.bucket_token)))
    given = _secrets(wanted, found.space)
    steps += _space_steps(wanted, found.space, given)
    return (*steps, Wait(wanted.space, "/config.json" if static else "/healthz"))


def sends_write_token(steps: tuple[Step, ...]) -> bool:
    """Say whether these steps give the Space another write token than it may have had."""
    sent = [
        secret
        for step in steps
        if isinstance(step, CreateSpace | SetSecret)
        for secret in (step.secrets if isinstance(step, CreateSpace) else (step.secret,))
    ]
    return any(secret.key == WRITE_TOKEN for secret in sent)


def description(secret: Secret) -> str:
    """Return what a secret is told apart by later, since its value cannot be read back."""
    if secret.key == WRITE_TOKEN:
        return "what training scripts send to log here"
    digest = hashlib.sha256(secret.value.encode()).hexdigest()
    return f"opens the bucket; SHA-256 begins with {digest[:12]}"


def _check_ours(wanted: Wanted, space: Existing) -> None:
    if space.sdk != wanted.mode:
        raise UsageError(
            f"{wanted.space} is a Space of the kind {space.sdk}, not {wanted.mode}: name another Space, or delete it "
            f"in the settings on {wanted.page_url}"
        )
    foreign = space.files.keys() - _MADE_BY_THE_HUB
    if foreign and MARK not in space.files:
        raise UsageError(
            f"{wanted.space} has files that no deploy put there, such as {min(foreign)}: name another Space, or delete "
            f"it in the settings on {wanted.page_url}"
        )


def _keeps_token(wanted: Wanted, space: Existing | None) -> bool:
    """Say whether the Space has the token for this bucket; one for another bucket does not open this one."""
    if space is None or BUCKET_TOKEN not in space.secrets or MARK not in space.files:
        return False
    if not all(space.files[MARK].is_of(file.data) for file in space_files(wanted) if file.path == MARK):
        return False
    had = space.secrets[BUCKET_TOKEN]
    return wanted.bucket_token is None or had == description(Secret(BUCKET_TOKEN, wanted.bucket_token))


def _secrets(wanted: Wanted, space: Existing | None) -> tuple[Secret, ...]:
    """Return the secrets that the Space lacks, or that are to be another."""
    if wanted.mode == "static":
        return ()
    had = {} if space is None else space.secrets
    made = []
    if wanted.new_token or WRITE_TOKEN not in had:
        made.append(Secret(WRITE_TOKEN, wanted.write_token))
    if wanted.bucket_token is not None:
        secret = Secret(BUCKET_TOKEN, wanted.bucket_token)
        made += [secret] * (had.get(BUCKET_TOKEN) != description(secret))
    return tuple(made)


def _create(wanted: Wanted, secrets: tuple[Secret, ...]) -> CreateSpace:
    private = False if wanted.mode == "static" else wanted.private or None
    return CreateSpace(wanted.space, wanted.mode, private, wanted.hardware, secrets)


def _space_steps(wanted: Wanted, space: Existing | None, secrets: tuple[Secret, ...]) -> list[Step]:
    name, files = wanted.space, space_files(wanted)
    if space is None:
        return [_create(wanted, secrets), Upload(name, files, ())]
    steps: list[Step] = [HideSpace(name)] * (wanted.private and not space.private)
    if wanted.hardware is not None and wanted.hardware != space.hardware:
        steps.append(SetHardware(name, wanted.hardware))
    steps += [SetSecret(name, secret) for secret in secrets]
    upload = changes(name, files, space.files)
    steps += [upload] * bool(upload.files or upload.deleted)
    if space.stage == _PAUSED or (space.stage in _STOPPED and upload not in steps):
        steps.append(Restart(name))
    return steps


def changes(space: str, files: tuple[File, ...], there: Mapping[str, Known]) -> Upload:
    """Return the upload that makes what is there to these files."""
    new = tuple(file for file in files if file.path not in there or not there[file.path].is_of(file.data))
    wanted = {file.path for file in files}
    return Upload(space, new, tuple(sorted(path for path in there if is_ours(path) and path not in wanted)))


def questions(wanted: Wanted) -> tuple[dict[str, Any], ...]:
    """Return what is asked of the Hub before the plan is made: calls that change nothing."""
    asked: list[dict[str, Any]] = [
        {"call": "bucket_info", "bucket_id": wanted.bucket.bucket},
        {"call": "space_info", "repo_id": wanted.space},
        {"call": "list_repo_tree", "repo_id": wanted.space, "repo_type": "space", "recursive": True},
    ]
    return (*asked, *([{"call": "get_space_secrets", "repo_id": wanted.space}] * (wanted.mode == "docker")))


def call_of(step: Step) -> dict[str, Any]:
    """Return a step as the call of the Hub's client that it is, with each secret masked."""
    match step:
        case CreateBucket(bucket, private):
            return {"call": "create_bucket", "bucket_id": bucket, "private": private}
        case AskForToken(bucket):
            return {"call": "stop", "why": f"no token for the bucket {bucket} was given: set EVENTLOG_BUCKET_TOKEN"}
        case CheckToken(bucket, _):
            return {"call": "whoami", "token": MASK, "and": f"bucket_info of {bucket}"}
        case CreateSpace(space, sdk, private, hardware, secrets):
            chosen = {"private": private, "space_hardware": hardware}
            given = {name: value for name, value in chosen.items() if value is not None}
            hidden = {"space_secrets": {secret.key: MASK for secret in secrets}} if secrets else {}
            return {"call": "create_repo", "repo_id": space, "repo_type": "space", "space_sdk": sdk, **given, **hidden}
        case HideSpace(space):
            return {"call": "update_repo_settings", "repo_id": space, "repo_type": "space", "private": True}
        case SetHardware(space, hardware):
            return {"call": "request_space_hardware", "repo_id": space, "hardware": hardware}
        case SetSecret(space, secret):
            return {"call": "add_space_secret", "repo_id": space, "key": secret.key, "value": MASK}
        case Upload(space, files, deleted):
            sizes = {file.path: len(file.data) for file in files}
            call = {"call": "create_commit", "repo_id": space, "repo_type": "space", "add": sizes}
            return {**call, "delete": [*deleted]} if deleted else call
        case Restart(space):
            return {"call": "restart_space", "repo_id": space}
        case Wait(space, path):
            return {"call": "get", "url": f"the host of {space}{path}"}
