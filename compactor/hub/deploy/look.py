"""Asks the Hub what is there of a Space and its bucket; changes nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from compactor.hub.deploy.plan import Existing, Found, Known
from compactor.hub.deploy.wanted import Wanted
from eventlog.hub.failures import retrying, status_of, told

if TYPE_CHECKING:
    from huggingface_hub import HfApi, SpaceInfo


def look(api: HfApi, wanted: Wanted) -> Found:
    """Return what the Hub has. What this token may not see counts as not there; making it will tell.

    Args:
        api: the client, with the token of whoever deploys.
        wanted: what to look for.

    Raises:
        StorageError: the Hub refused or could not be reached.
    """
    space = _space(api, wanted.space)
    return Found(bucket_private(api, wanted.bucket.bucket), _existing(api, wanted, space) if space else None)


@retrying
def bucket_private(api: HfApi, bucket: str, token: str | None = None) -> bool | None:
    """Return whether a bucket is private; None when there is none for this token.

    Args:
        api: the client.
        bucket: OWNER/NAME.
        token: instead of the client's.

    Raises:
        StorageError: the Hub refused or could not be reached.
    """
    from huggingface_hub.errors import HfHubHTTPError

    with told(f"the bucket {bucket}"):
        try:
            return bool(api.bucket_info(bucket, token=token).private)
        except HfHubHTTPError as error:
            if status_of(error) == 404:
                return None
            raise


@retrying
def _space(api: HfApi, space: str) -> SpaceInfo | None:
    from huggingface_hub.errors import RepositoryNotFoundError

    with told(space):
        try:
            return api.space_info(space)
        except RepositoryNotFoundError:
            return None


@retrying
def space_host(api: HfApi, space: str) -> tuple[str, bool]:
    """Return the address of a Space's app, without a slash at its end, and whether the Space is private.

    Raises:
        StorageError: the Hub refused or could not be reached.
    """
    with told(space):
        info = api.space_info(space)
    return (info.host or f"https://{info.subdomain}.hf.space").rstrip("/"), bool(info.private)


@retrying
def space_files(api: HfApi, space: str) -> dict[str, Known]:
    """Return the files of a Space's repository.

    Raises:
        StorageError: the Hub refused or could not be reached.
    """
    from huggingface_hub import RepoFile

    with told(space):
        found = api.list_repo_tree(space, repo_type="space", recursive=True)
        files = [item for item in found if isinstance(item, RepoFile)]
    return {file.path: Known(file.blob_id, file.lfs.sha256 if file.lfs else None) for file in files}


@retrying
def _secrets(api: HfApi, space: str) -> dict[str, str | None]:
    with told(f"the secrets of {space}"):
        return {key: secret.description for key, secret in api.get_space_secrets(space).items()}


def _existing(api: HfApi, wanted: Wanted, space: SpaceInfo) -> Existing:
    runtime = space.runtime
    return Existing(
        sdk=space.sdk,
        private=bool(space.private),
        stage="RUNNING" if runtime is None else str(getattr(runtime.stage, "value", runtime.stage)),
        hardware=None if runtime is None else runtime.requested_hardware,
        secrets=_secrets(api, wanted.space) if wanted.mode == "docker" and space.sdk == "docker" else {},
        files=space_files(api, wanted.space),
    )
