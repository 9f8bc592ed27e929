"""Deploys to the local Hub through the unmodified client: what is there afterwards, and what must never happen."""

from __future__ import annotations

import errno
import json

import pytest
from deploycases import BUCKET, PAGE, SECRETS, SPACE, TOKEN, Story, docker, static
from huggingface_hub import HfApi
from localhub.faults import Kind
from localhub.journal import Served
from localhub.process import LocalHub
from localhub.sweep import sweep_faults

from compactor.hub.deploy.execute import Executor, PaymentRequiredError
from compactor.hub.deploy.files import space_files
from compactor.hub.deploy.health import Awaited, wait
from compactor.hub.deploy.plan import CreateSpace
from compactor.hub.deploy.run import deploy
from compactor.hub.deploy.wanted import BUCKET_TOKEN, WRITE_TOKEN, File, Package, Secret
from eventlog.errors import ConflictError, StorageError, UsageError

WHEEL = File("eventlog-1.2.3-py3-none-any.whl", b"PK\3\4\0" + bytes(range(256)) * 50)


@pytest.fixture
def story(hub: LocalHub) -> Story:
    return Story(hub)


def made(story: Story) -> Story:
    """Return a story whose bucket is there: a token can be limited only to one that is."""
    story.hub.api().create_bucket(BUCKET, private=True)
    return story


def test_a_first_deploy_makes_a_space_that_runs_with_its_secrets_and_tells_how_to_log(story: Story) -> None:
    wanted = docker(package=Package("1.2.3", "0.43.0", WHEEL))
    done = made(story).deploy(wanted)
    assert story.files() == {file.path: file.data for file in space_files(wanted)}
    assert story.secrets() == SECRETS
    assert story.space()["space"]["stage"] == "RUNNING"
    assert story.bucket().private
    assert done.write_token == "write-1"
    assert done.environment == {"TRACKIO_SERVER_URL": done.url, "TRACKIO_WRITE_TOKEN": "write-1"}
    assert done.url == f"{story.hub.url}/host/{SPACE}"
    assert [step["call"] for step in done.steps] == ["whoami", "create_repo", "create_commit"]
    assert "building" in " ".join(story.states)


def test_deploying_again_writes_nothing_and_keeps_the_write_token(story: Story) -> None:
    made(story).deploy(docker())
    mark = story.hub.mark()
    done = story.deploy(docker(write_token="write-2"))
    assert story.writes(mark) == []
    assert story.secrets() == SECRETS
    assert done.write_token is None
    assert done.environment == {"TRACKIO_SERVER_URL": done.url}
    assert "--new-token" in " ".join(done.notes)


def test_a_new_token_replaces_the_old_one_and_files_that_changed_go_up_alone(story: Story) -> None:
    made(story).deploy(docker())
    mark = story.hub.mark()
    done = story.deploy(docker("owner/other", write_token="write-2", new_token=True))
    assert story.secrets() == {**SECRETS, WRITE_TOKEN: "write-2"}
    assert done.environment["TRACKIO_WRITE_TOKEN"] == "write-2"
    assert [sorted(step["add"]) for step in done.steps if step["call"] == "create_commit"] == [
        ["Dockerfile", "README.md", "eventlog-deploy.json"]
    ]
    assert "POST /api/repos/create" not in story.writes(mark)
    assert b"hf://buckets/owner/other" in story.files()["Dockerfile"]


def test_a_wheel_of_an_earlier_deploy_goes_when_another_comes(story: Story) -> None:
    made(story).deploy(docker(package=Package("1.2.3", "0.43.0", WHEEL)))
    newer = File("eventlog-1.2.4-py3-none-any.whl", WHEEL.data + b"\0")
    story.deploy(docker(package=Package("1.2.4", "0.43.0", newer)))
    assert [path for path in story.files() if path.endswith(".whl")] == [newer.path]
    assert story.files()[newer.path] == newer.data


def test_the_users_own_token_is_refused_before_anything_is_asked(story: Story) -> None:
    for own in ("hf_owner_write", "hf_of_the_login"):
        mark = story.hub.mark()
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("HF_TOKEN", "hf_of_the_login")
            with pytest.raises(UsageError, match=r"your own login token.*fine-grained.*owner/space"):
                story.deploy(docker(bucket_token=own))
        assert story.hub.requests(mark) == []


def test_without_a_token_for_the_bucket_it_says_which_to_make_and_goes_on_from_there(story: Story) -> None:
    with pytest.raises(UsageError, match=r"settings/tokens/new\?tokenType=fineGrained.*owner/space.*EVENTLOG_BUCKET"):
        story.deploy(docker(bucket_token=None))
    assert story.bucket().private
    assert story.secrets() == {}
    assert story.files() == {}
    done = story.deploy(docker(write_token="write-2"))
    assert story.secrets() == {**SECRETS, WRITE_TOKEN: "write-2"}
    assert done.write_token == "write-2"
    assert story.deploy(docker(bucket_token=None)).write_token is None


@pytest.mark.parametrize(
    ("facts", "told"),
    [
        (None, "does not know the bucket token"),
        ({"user": "owner", "role": "fineGrained", "only": [BUCKET], "expired": True}, "has expired"),
        ({"user": "owner", "role": "read"}, "may only read"),
        ({"user": "owner", "role": "fineGrained", "only": ["owner/else"]}, "may not see owner/space"),
    ],
)
def test_a_token_that_cannot_write_the_bucket_never_becomes_a_secret(
    story: Story, facts: dict[str, object] | None, told: str
) -> None:
    if facts is not None:
        story.hub.token("hf_bad", **facts)
    with pytest.raises(UsageError, match=rf"{told}.*fine-grained"):
        made(story).deploy(docker(bucket_token="hf_bad"))
    assert story.space() is None


def test_a_token_that_may_write_everything_is_taken_with_a_warning(story: Story) -> None:
    story.hub.token("hf_broad", user="owner", role="write")
    done = made(story).deploy(docker(bucket_token="hf_broad"))
    assert story.secrets()[BUCKET_TOKEN] == "hf_broad"
    assert "may write to everything" in done.notes[0]
    assert all("may write to everything" not in note for note in story.deploy(docker()).notes)


def test_who_has_no_plan_is_told_why_and_what_is_free_and_nothing_is_left_behind(story: Story) -> None:
    free = story.hub.token("hf_free", user="owner", role="write")
    command = "compactor deploy owner/space --mode static --project PROJECT"
    with pytest.raises(PaymentRequiredError, match=rf"paid plan.*{command}.*require a PRO subscription"):
        story.deploy(docker(bucket_token=None), token=free)
    assert (story.bucket(), story.space()) == (None, None)
    done = story.deploy(static(), token=free)
    assert done.environment == {}
    assert story.space()["space"]["sdk"] == "static"


def test_hardware_that_is_not_paid_for_is_named(story: Story) -> None:
    made(story)
    with pytest.raises(PaymentRequiredError, match=r"cpu-upgrade has to be paid for.*--hardware"):
        story.deploy(docker(hardware="cpu-upgrade"))
    story.deploy(docker())
    with pytest.raises(PaymentRequiredError, match=r"cpu-upgrade has to be paid for.*--hardware"):
        story.deploy(docker(hardware="cpu-upgrade"))


def test_an_existing_space_is_deployed_again_although_its_owner_no_longer_pays(story: Story) -> None:
    made(story).deploy(docker())
    lapsed = story.hub.token("hf_lapsed", user="owner", role="write")
    story.deploy(docker("owner/other"), token=lapsed)
    assert b"owner/other" in story.files()["Dockerfile"]


@pytest.mark.parametrize(
    ("facts", "told", "number"),
    [
        ({"user": "owner", "role": "write", "plan": "pro", "expired": True}, "hf auth login", errno.EACCES),
        ({"user": "owner", "role": "read", "plan": "pro"}, "may not do that", errno.EACCES),
        ({"user": "stranger", "role": "write", "plan": "pro"}, "may not do that", errno.EACCES),
    ],
)
def test_a_token_that_may_not_deploy_is_told_what_to_do(
    story: Story, facts: dict[str, object], told: str, number: int
) -> None:
    token = story.hub.token("hf_other", **facts)
    with pytest.raises(StorageError, match=told) as caught:
        story.deploy(docker(), token=token)
    assert caught.value.errno == number
    assert story.space() is None


@pytest.mark.usefixtures("hub")
def test_a_hub_that_cannot_be_reached_is_told() -> None:
    api = HfApi(endpoint="http://127.0.0.1:9", token="hf_x")
    with pytest.raises(StorageError, match="could not be reached"):
        deploy(api, docker())


def test_a_page_has_the_files_of_the_wheel_and_what_it_is_to_read(story: Story) -> None:
    done = story.deploy(static())
    assert story.files() == {file.path: file.data for file in space_files(static())}
    assert not story.bucket("owner/page").private
    settings = json.loads(story.hub.control.get(f"/host/{SPACE}/config.json").content)
    assert (settings["mode"], settings["bucket_id"], settings["project"]) == ("static", "owner/page", "a project")
    assert done.url == f"{story.hub.url}/host/{SPACE}"
    newer = (*PAGE[:1], File("assets/b-2.js", b"2\n"), *PAGE[2:])
    story.deploy(static(page=newer))
    assert {path for path in story.files() if path.startswith("assets/")} == {"assets/b-2.js"}
    mark = story.hub.mark()
    story.deploy(static(page=newer))
    assert story.writes(mark) == []


def test_a_private_bucket_is_not_made_public_for_a_page(story: Story) -> None:
    story.hub.api().create_bucket("owner/page", private=True)
    with pytest.raises(UsageError, match="--bucket"):
        story.deploy(static())
    assert story.bucket("owner/page").private
    assert story.space() is None


def test_somebody_elses_app_is_left_as_it_is(story: Story) -> None:
    api = story.hub.api()
    api.create_repo(SPACE, repo_type="space", space_sdk="docker")
    api.upload_file(path_or_fileobj=b"FROM mine\n", path_in_repo="Dockerfile", repo_id=SPACE, repo_type="space")
    mark = story.hub.mark()
    with pytest.raises(UsageError, match="no deploy put there"):
        story.deploy(docker())
    assert story.writes(mark) == []


def test_a_private_space_stays_private_and_its_host_gets_no_token_without_https(story: Story) -> None:
    story.hub.set(space_stages=["RUNNING"])
    made(story)
    # Its host is reached by http here, so no token goes along, and to strangers a private Space does not exist.
    with pytest.raises(StorageError, match="answers: 401"):
        story.deploy(docker(private=True), timeout_s=1e-9)
    assert story.space()["private"]
    mark = story.hub.mark()
    with pytest.raises(StorageError, match="answers: 401"):
        story.deploy(docker(), timeout_s=1e-9)
    asked = [served for served in story.hub.requests(mark) if served.path.startswith("/host/")]
    assert [(served.authorized, served.status) for served in asked] == [(False, 401)]
    assert any(served.authorized for served in story.hub.requests(mark))
    done = story.deploy(docker(), timeout_s=0)
    assert done.environment == {"EVENTLOG_BUCKET": "hf://buckets/owner/space"}
    assert "private Space" in done.notes[0]


def test_it_waits_for_the_commit_it_made_and_not_for_what_ran_before(story: Story) -> None:
    made(story).deploy(docker())
    story.hub.set(space_stages=["RUNNING", "RUNNING", "RUNNING_BUILDING", "RUNNING"])
    story.states.clear()
    story.deploy(docker("owner/other"))
    assert story.states == ["still running what was there before"] * 2 + ["running building"]


def test_a_space_that_does_not_start_is_told_with_where_its_log_is(story: Story) -> None:
    story.hub.set(space_stages=["BUILDING", "BUILD_ERROR"])
    with pytest.raises(StorageError, match=r"BUILD_ERROR: its log is at https://huggingface\.co/spaces/owner/space"):
        made(story).deploy(docker())
    story.hub.set(space_stages=["BUILD_ERROR", "BUILDING", "RUNNING"])
    assert story.deploy(docker()).steps == [{"call": "restart_space", "repo_id": SPACE}]


def test_waiting_ends_in_time(story: Story) -> None:
    story.hub.set(space_stages=["BUILDING"])
    made(story).deploy(docker(), timeout_s=0)
    seconds = iter(range(100))
    awaited = Awaited(space=SPACE, url=f"{story.hub.url}/host/{SPACE}/healthz")
    waits: list[float] = []
    with pytest.raises(StorageError, match=r"did not answer within 5 seconds \(building\)") as caught:
        wait(story.hub.api(), awaited, timeout_s=5, clock=lambda: next(seconds), sleep=waits.append)
    assert caught.value.errno == errno.ETIMEDOUT
    assert len(waits) == 4


def test_a_hub_that_is_busy_while_the_space_starts_ends_no_deploy(story: Story) -> None:
    story.hub.fault("status-before", route="GET /api/spaces/{owner}/{name}/runtime", times=20)
    made(story).deploy(docker())
    assert "trying again later may help" in story.states[0]
    assert "building" in story.states


def test_a_redirect_of_the_host_is_not_followed(story: Story) -> None:
    made(story).deploy(docker())
    story.hub.set(space_hosts={SPACE: f"{story.hub.url}/host/moved"})
    mark = story.hub.mark()
    with pytest.raises(StorageError, match="answers: 307"):
        story.deploy(docker(), timeout_s=1e-9)
    assert [served.path for served in story.hub.requests(mark) if "/host/" in served.path] == ["/host/moved/healthz"]


def changes(served: Served) -> bool:
    return served.method in {"POST", "PUT", "DELETE"} and served.path.startswith("/api/")


def test_a_space_that_comes_to_be_meanwhile_is_somebody_elses(story: Story) -> None:
    secrets = tuple(Secret(key, value) for key, value in SECRETS.items())
    story.hub.api().create_repo(SPACE, repo_type="space", space_sdk="docker")
    step = CreateSpace(SPACE, "docker", private=None, hardware=None, secrets=secrets)
    with pytest.raises(ConflictError, match="name another"):
        Executor(story.hub.api(), docker()).run([step])
    assert story.secrets() == {}


def test_a_space_that_was_made_without_its_secrets_gets_them(story: Story) -> None:
    secrets = tuple(Secret(key, value) for key, value in SECRETS.items())
    step = CreateSpace(SPACE, "docker", private=None, hardware=None, secrets=secrets)
    # Between the reply that is lost and the second try, the Hub has a Space and none of its secrets.
    story.hub.fault("status-before", route="POST /api/repos/create")
    api = story.hub.api()
    ask = api.repo_exists

    def repo_exists(*args: str, **kwargs: str) -> bool:
        story.hub.api().create_repo(SPACE, repo_type="space", space_sdk="docker")
        return ask(*args, **kwargs)

    api.repo_exists = repo_exists
    Executor(api, docker()).run([step])
    assert story.secrets() == SECRETS


@pytest.mark.parametrize("again", [False, True])
def test_a_lost_reply_ends_no_deploy_and_after_a_refusal_the_next_one_does_the_rest_with_a_known_write_token(
    story: Story, *, again: bool
) -> None:
    made(story)
    if again:
        story.deploy(docker(package=Package("1.2.2", "0.43.0", File("eventlog-1.2.2-py3-none-any.whl", b"text\n"))))
    package = Package("1.2.3", "0.43.0", File("eventlog-1.2.3-py3-none-any.whl", b"text 2\n"))
    number = 0

    def operation() -> None:
        nonlocal number
        number += 1
        story.deploy(docker(package=package, write_token=f"sweep-{number}", new_token=again))

    expected = {file.path: file.data for file in space_files(docker(package=package))}
    kinds: tuple[Kind, ...] = ("status-after", "lost-reply", "expired-token")
    met = 0
    for swept in sweep_faults(story.hub, operation, kinds, where=changes):
        met += swept.befell
        refused = swept.fault.kind == "expired-token"
        assert isinstance(swept.error, StorageError) if refused else swept.error is None, swept
        story.deploy(docker(package=package, write_token=f"late-{number}"))
        assert story.files() == expected, swept
        assert story.secrets()[BUCKET_TOKEN] == TOKEN, swept
        assert story.secrets()[WRITE_TOKEN] in story.told, swept
    assert met >= 6
