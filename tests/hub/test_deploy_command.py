"""`compactor deploy` as people and scripts call it: what it prints, and where secrets show."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from deploycases import BUCKET, SPACE, TOKEN, Story
from huggingface_hub import constants
from localhub.process import LocalHub

from compactor.cli import cli
from compactor.commands.deploying import _Progress
from compactor.hub.deploy.wanted import BUCKET_TOKEN, WRITE_TOKEN
from compactor.serve import ui

WHEEL = "eventlog-1.2.3-py3-none-any.whl"


@pytest.fixture
def story(hub: LocalHub, tmp_path: Path) -> Iterator[Story]:
    """Return a Hub that the command knows as the Hub, and the owner as who is logged in."""
    (tmp_path / WHEEL).write_bytes(b"PK\3\4\0")
    hub.set(space_stages=["RUNNING"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(constants, "ENDPOINT", hub.url)
        patch.setenv("HF_TOKEN", "hf_owner_write")
        patch.setenv("EVENTLOG_BUCKET_TOKEN", TOKEN)
        patch.chdir(tmp_path)
        yield Story(hub)


def call(text: str) -> Result:
    return CliRunner().invoke(cli, ["deploy", *shlex.split(text)], prog_name="compactor")


def test_a_deploy_prints_the_lines_that_training_scripts_need(story: Story) -> None:
    story.hub.api().create_bucket(BUCKET, private=True)
    done = call(f"{SPACE} --wheel {WHEEL}")
    assert done.exit_code == 0, done.output
    token = story.secrets()[WRITE_TOKEN]
    assert len(token) >= 32
    url = f"{story.hub.url}/host/{SPACE}"
    lines = [line.strip() for line in done.stdout.splitlines()]
    assert lines[-2:] == [f"export TRACKIO_SERVER_URL={url}", f"export TRACKIO_WRITE_TOKEN={token}"]
    assert f"https://huggingface.co/spaces/{SPACE}" in lines
    assert "create_repo" in done.stderr
    assert token not in done.stderr
    assert TOKEN not in done.output
    again = call(f"{SPACE} --wheel {WHEEL}")
    assert "TRACKIO_WRITE_TOKEN" not in again.stdout
    assert "--new-token makes another" in again.stderr


def test_a_script_gets_the_same_as_a_document(story: Story) -> None:
    story.hub.api().create_bucket("owner/other", private=True)
    done = call(f"{SPACE} --wheel {WHEEL} --bucket owner/other --json")
    told = json.loads(done.stdout)
    assert (told["space"], told["mode"], told["bucket"]) == (SPACE, "docker", "hf://buckets/owner/other")
    assert told["environment"] == {"TRACKIO_SERVER_URL": told["url"], "TRACKIO_WRITE_TOKEN": told["write_token"]}
    assert story.secrets() == {WRITE_TOKEN: told["write_token"], BUCKET_TOKEN: TOKEN}


@pytest.mark.parametrize("form", ["", " --json"])
def test_a_dry_run_prints_every_call_asks_nobody_and_shows_no_secret(story: Story, form: str) -> None:
    mark = story.hub.mark()
    done = call(f"{SPACE} --wheel {WHEEL} --private --hardware cpu-upgrade --dry-run{form}")
    assert done.exit_code == 0, done.output
    assert story.hub.requests(mark) == []
    for word in ("create_bucket", "create_repo", "cpu-upgrade", "Dockerfile", WHEEL, "healthz", "***", WRITE_TOKEN):
        assert word in done.stdout
    assert TOKEN not in done.output
    assert "hf_owner_write" not in done.output
    if form:
        assert json.loads(done.stdout)["calls"][-1]["call"] == "get"


def test_a_write_token_that_may_have_reached_the_space_is_told_when_the_rest_fails(story: Story) -> None:
    story.hub.api().create_bucket(BUCKET, private=True)
    story.hub.fault("status-before", route="POST /api/{kind}/{owner}/{name}/commit/{revision}", status=403, times=0)
    done = call(f"{SPACE} --wheel {WHEEL} --json")
    assert done.exit_code == 2
    assert done.stdout == ""
    assert f"export TRACKIO_WRITE_TOKEN={story.secrets()[WRITE_TOKEN]}" in done.stderr
    assert done.stderr.splitlines()[-1].startswith("compactor: ")
    story.hub.clear_faults()
    assert "--new-token" in call(f"{SPACE} --wheel {WHEEL}").stderr


def test_ones_own_token_is_refused_in_one_line(story: Story) -> None:
    for given in (f"{SPACE} --wheel {WHEEL} --bucket-token hf_owner_write", f"{SPACE} --wheel {WHEEL} --dry-run"):
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("EVENTLOG_BUCKET_TOKEN", "hf_owner_write")
            done = call(given)
        assert done.exit_code == 2
        assert len(done.stderr.splitlines()) == 1
        assert "your own login token" in done.stderr
        assert "hf_owner_write" not in done.output
    assert story.space() is None


def test_who_has_no_plan_can_copy_the_command_for_the_free_page_and_it_works(story: Story) -> None:
    story.hub.token("hf_free", user="owner", role="write")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_TOKEN", "hf_free")
        refused = call(f"{SPACE} --wheel {WHEEL}")
        assert refused.exit_code == 2
        assert "paid plan" in refused.stderr
        command = refused.stderr[refused.stderr.index("compactor deploy") :].split(" (")[0]
        done = call(command.removeprefix("compactor deploy ").replace("PROJECT", "mnist"))
    assert done.exit_code == 0, done.output
    assert f"https://huggingface.co/spaces/{SPACE}" in done.stdout
    assert "TRACKIO" not in done.stdout
    fill = "compactor static-export ./eventlog-store hf://buckets/owner/space-page --project mnist"
    assert done.stdout.splitlines()[-1].strip() == fill
    settings = json.loads(story.hub.control.get(f"/host/{SPACE}/config.json").content)
    assert (settings["project"], settings["bucket_id"]) == ("mnist", "owner/space-page")
    page = story.hub.control.get(f"/host/{SPACE}/index.html").text
    script = page.split('src="/')[1].split('"')[0]
    assert story.hub.control.get(f"/host/{SPACE}/{script}").status_code == 200
    assert story.bucket("owner/space-page").private is False


@pytest.mark.usefixtures("story")
def test_what_does_not_fit_together_is_one_line() -> None:
    for given, told in (
        (f"space --wheel {WHEEL}", "OWNER/NAME"),
        (SPACE, "pip wheel"),
        (f"{SPACE} --wheel {WHEEL} --project p", "--project"),
        (f"{SPACE} --mode static", "--project"),
        (f"{SPACE} --mode static --project p --wheel {WHEEL}", "--wheel"),
        (f"{SPACE} --mode static --project p --bucket owner/b/prefix", "without prefix"),
        (f"{SPACE} --wheel {WHEEL} --bucket nothing", "a bucket is"),
    ):
        done = call(given)
        assert (done.exit_code, len(done.stderr.splitlines())) == (2, 1), done.output
        assert told in done.stderr


@pytest.mark.usefixtures("story")
def test_a_dashboard_that_was_not_tested_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    for tested, told in ((frozenset({"0.43.0"}), False), (frozenset({"0.1"}), True)):
        monkeypatch.setattr(ui, "TESTED", tested)
        assert ("untested" in call(f"{SPACE} --mode static --project p --dry-run").stderr) == told


def test_on_a_terminal_a_spinner_says_what_is_waited_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    progress = _Progress()
    progress.state("building")
    progress.close()
    assert "waiting for the Space: building" in capsys.readouterr().err
