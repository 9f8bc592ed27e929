"""Spaces on the local Hub, through the unmodified client: plans, stages, secrets, variables and volumes."""

from __future__ import annotations

import pytest
from huggingface_hub import SpaceHardware, Volume
from huggingface_hub.errors import BadRequestError, HfHubHTTPError
from localhub.process import LocalHub

SPACE = "owner/space"


def create(hub: LocalHub, sdk: str, **more: object) -> None:
    hub.api().create_repo(SPACE, repo_type="space", space_sdk=sdk, **more)


def upload(hub: LocalHub, path: str) -> None:
    hub.api().upload_file(path_or_fileobj=b"content\n", path_in_repo=path, repo_id=SPACE, repo_type="space")


def stages(hub: LocalHub) -> list[str]:
    """Ask for the stage until it is the same twice."""
    seen = [hub.api().get_space_runtime(SPACE).stage]
    while len(seen) < 2 or seen[-1] != seen[-2]:
        seen.append(hub.api().get_space_runtime(SPACE).stage)
    return seen[:-1]


def test_a_docker_space_builds_starts_and_runs_after_its_first_commit(hub: LocalHub) -> None:
    create(hub, "docker")
    assert stages(hub) == ["NO_APP_FILE"]
    upload(hub, "Dockerfile")
    assert stages(hub) == ["BUILDING", "APP_STARTING", "RUNNING"]
    runtime = hub.api().restart_space(SPACE)
    assert (runtime.stage, runtime.requested_hardware) == ("BUILDING", "cpu-basic")
    assert hub.api().wait_for_space(SPACE, poll_interval=0.01).stage == "RUNNING"
    assert hub.api().space_info(SPACE).host == "https://owner-space.hf.space"


def test_a_build_can_fail_and_the_host_can_be_a_server_of_the_test(hub: LocalHub) -> None:
    hub.set(space_stages=["BUILDING", "BUILD_ERROR"], space_hosts={SPACE: "http://127.0.0.1:1"})
    create(hub, "docker")
    upload(hub, "Dockerfile")
    assert hub.api().wait_for_space(SPACE, poll_interval=0.01).stage == "BUILD_ERROR"
    assert hub.api().space_info(SPACE).host == "http://127.0.0.1:1"


def test_a_paused_space_stays_so_until_it_is_restarted(hub: LocalHub) -> None:
    create(hub, "docker")
    upload(hub, "Dockerfile")
    assert hub.api().pause_space(SPACE).stage == "PAUSED"
    assert stages(hub) == ["PAUSED"]
    hub.api().restart_space(SPACE)
    assert stages(hub)[-1] == "RUNNING"


def test_a_free_plan_gets_static_spaces_only(hub: LocalHub) -> None:
    api = hub.api(hub.token("hf_free", user="free", role="write"))
    for sdk in ("docker", "gradio"):
        with pytest.raises(HfHubHTTPError) as caught:
            api.create_repo("free/app", repo_type="space", space_sdk=sdk)
        assert caught.value.response.status_code == 402
    api.create_repo("free/page", repo_type="space", space_sdk="static")
    assert api.get_space_runtime("free/page").stage == "RUNNING"


def test_an_existing_docker_space_is_found_although_its_owner_no_longer_pays(hub: LocalHub) -> None:
    create(hub, "docker")
    lapsed = hub.api(hub.token("hf_lapsed", user="owner", role="write"))
    with pytest.raises(HfHubHTTPError) as caught:
        lapsed.create_repo(SPACE, repo_type="space", space_sdk="docker")
    assert caught.value.response.status_code == 402
    assert lapsed.repo_exists(SPACE, repo_type="space")


def test_upgraded_hardware_wants_billing(hub: LocalHub) -> None:
    create(hub, "docker")
    with pytest.raises(HfHubHTTPError) as caught:
        hub.api().request_space_hardware(SPACE, SpaceHardware.CPU_UPGRADE)
    assert caught.value.response.status_code == 402
    paying = hub.api(hub.token("hf_paying", user="owner", role="write", plan="pro", billing=True))
    assert paying.request_space_hardware(SPACE, SpaceHardware.CPU_UPGRADE).requested_hardware == "cpu-upgrade"
    assert paying.set_space_sleep_time(SPACE, 3600).sleep_time == 3600


def test_secrets_are_written_and_never_read_back(hub: LocalHub) -> None:
    create(hub, "docker", space_secrets=[{"key": "FIRST", "value": "s3cret", "description": "d"}])
    api = hub.api()
    api.add_space_secret(SPACE, "SECOND", "s3cret")
    assert {key: secret.description for key, secret in api.get_space_secrets(SPACE).items()} == {
        "FIRST": "d",
        "SECOND": None,
    }
    api.delete_space_secret(SPACE, "FIRST")
    assert list(api.get_space_secrets(SPACE)) == ["SECOND"]
    answer = hub.control.get(f"/api/spaces/{SPACE}/secrets", headers={"Authorization": "Bearer hf_owner_write"})
    assert "s3cret" not in answer.text


def test_variables_are_read_back_and_a_running_space_starts_anew_with_them(hub: LocalHub) -> None:
    create(hub, "docker", space_variables=[{"key": "A", "value": "1"}])
    upload(hub, "Dockerfile")
    assert stages(hub)[-1] == "RUNNING"
    changed = hub.api().add_space_variable(SPACE, "B", "2")
    assert {key: variable.value for key, variable in changed.items()} == {"A": "1", "B": "2"}
    assert stages(hub) == ["BUILDING", "APP_STARTING", "RUNNING"]
    hub.api().delete_space_variable(SPACE, "A")
    assert list(hub.api().get_space_variables(SPACE)) == ["B"]


def test_a_bucket_is_mounted_into_a_space_that_has_an_app(hub: LocalHub, bucket: str) -> None:
    volume = Volume(type="bucket", source=bucket, mount_path="/data", read_only=True)
    create(hub, "docker", space_volumes=[volume])
    assert hub.api().get_space_runtime(SPACE).volumes == [volume]
    hub.api().delete_space_volumes(SPACE)
    assert hub.api().get_space_runtime(SPACE).volumes is None
    with pytest.raises(BadRequestError):
        hub.api().delete_space_volumes(SPACE)
    hub.api().set_space_volumes(SPACE, [volume])
    assert hub.api().get_space_runtime(SPACE).volumes == [volume]
    with pytest.raises(HfHubHTTPError) as caught:
        hub.api().set_space_volumes(SPACE, [Volume(type="bucket", source="owner/absent", mount_path="/data")])
    assert caught.value.response.status_code == 404


def test_a_static_space_cannot_be_paused_restarted_or_given_volumes(hub: LocalHub, bucket: str) -> None:
    create(hub, "static")
    volume = Volume(type="bucket", source=bucket, mount_path="/data")
    api = hub.api()
    for call in (
        lambda: api.pause_space(SPACE),
        lambda: api.restart_space(SPACE),
        lambda: api.set_space_volumes(SPACE, [volume]),
    ):
        with pytest.raises(BadRequestError):
            call()


def test_only_the_owner_changes_a_space(hub: LocalHub) -> None:
    create(hub, "docker")
    stranger = hub.api(hub.token("hf_stranger", user="stranger", role="write"))
    assert stranger.get_space_runtime(SPACE).stage == "NO_APP_FILE"
    for call in (
        lambda: stranger.add_space_secret(SPACE, "A", "b"),
        lambda: stranger.get_space_secrets(SPACE),
        lambda: stranger.restart_space(SPACE),
    ):
        with pytest.raises(HfHubHTTPError) as caught:
            call()
        assert caught.value.response.status_code == 403


def test_logs_of_build_and_run_are_read(hub: LocalHub) -> None:
    create(hub, "docker")
    assert list(hub.api().fetch_space_logs(SPACE, build=True)) == ["log of build\n"]
