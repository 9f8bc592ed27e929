"""What a deploy plans, from what is wanted and what is there: as data, without any Hub."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import re
import tomllib
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from deploycases import BUCKET, PAGE, SPACE, TOKEN, docker, kinds, static

from compactor.cli import cli
from compactor.hub.deploy.files import MARK, serve_command, space_files
from compactor.hub.deploy.health import headers_for
from compactor.hub.deploy.local import package, page_files
from compactor.hub.deploy.plan import (
    AskForToken,
    CheckToken,
    CreateBucket,
    CreateSpace,
    Existing,
    Found,
    HideSpace,
    Known,
    Restart,
    SetHardware,
    SetSecret,
    Upload,
    Wait,
    call_of,
    description,
    plan_deploy,
    sends_write_token,
)
from compactor.hub.deploy.run import dry_run
from compactor.hub.deploy.wanted import BUCKET_TOKEN, WRITE_TOKEN, File, Package, Secret, Wanted
from compactor.serve import ui
from eventlog.errors import UsageError

ROOT = Path(__file__).resolve().parents[2]
WRITE, OPENS = Secret(WRITE_TOKEN, "write-1"), Secret(BUCKET_TOKEN, TOKEN)
WAIT = Wait(SPACE, "/healthz")
WHEEL = File("eventlog-1.2.3-py3-none-any.whl", b"PK\0")


def known(data: bytes, *, large: bool = False) -> Known:
    oid = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
    return Known("pointer", hashlib.sha256(data).hexdigest()) if large else Known(oid)


def deployed(wanted: Wanted, **changed: Any) -> Found:
    """Return what is there after a deploy, but for what is changed."""
    secrets = {secret.key: description(secret) for secret in (WRITE, OPENS)} if wanted.mode == "docker" else {}
    files = {file.path: known(file.data, large=b"\0" in file.data) for file in space_files(wanted)}
    facts = {"sdk": wanted.mode, "secrets": secrets, "files": {".gitattributes": known(b""), **files}, **changed}
    return Found(wanted.mode == "docker", Existing(**facts))


def test_a_first_deploy_makes_the_bucket_and_the_space_with_its_secrets_and_uploads_all() -> None:
    wanted = docker(hardware="cpu-upgrade", private=True)
    assert plan_deploy(wanted, Found()) == (
        CreateBucket(BUCKET, private=True),
        CheckToken(BUCKET, OPENS),
        CreateSpace(SPACE, "docker", private=True, hardware="cpu-upgrade", secrets=(WRITE, OPENS)),
        Upload(SPACE, space_files(wanted), ()),
        WAIT,
    )


def test_without_a_token_for_the_bucket_it_stops_when_there_is_something_to_make_the_token_for() -> None:
    wanted = docker(bucket_token=None)
    steps = plan_deploy(wanted, Found())
    space = CreateSpace(SPACE, "docker", private=None, hardware=None, secrets=())
    assert steps == (space, CreateBucket(BUCKET, private=True), AskForToken(BUCKET))
    assert not sends_write_token(steps)
    assert plan_deploy(wanted, deployed(wanted, secrets={})) == (AskForToken(BUCKET),)


def test_a_deploy_that_changes_nothing_does_nothing() -> None:
    for wanted in (docker(), static(), docker(package=Package("1.2.3", "0.43.0", WHEEL))):
        assert kinds(plan_deploy(wanted, deployed(wanted))) == ["Wait"]


def test_a_space_keeps_its_write_token_unless_another_is_wanted() -> None:
    there = deployed(docker())
    assert plan_deploy(docker(write_token="write-2"), there) == (WAIT,)
    steps = plan_deploy(docker(write_token="write-2", new_token=True), there)
    assert steps == (SetSecret(SPACE, Secret(WRITE_TOKEN, "write-2")), WAIT)
    assert sends_write_token(steps)
    assert not sends_write_token((WAIT,))


def test_another_token_for_the_bucket_replaces_the_one_before_and_the_same_does_not() -> None:
    other = Secret(BUCKET_TOKEN, "hf_other")
    steps = plan_deploy(docker(bucket_token="hf_other"), deployed(docker()))
    assert steps == (CheckToken(BUCKET, other), SetSecret(SPACE, other), WAIT)
    assert plan_deploy(docker(bucket_token=None), deployed(docker())) == (WAIT,)


def test_a_space_that_gets_another_bucket_needs_a_token_for_that() -> None:
    moved = docker("owner/other")
    check, upload, _ = plan_deploy(moved, deployed(docker()))
    assert check == CheckToken("owner/other", OPENS)
    assert isinstance(upload, Upload)
    assert plan_deploy(docker("owner/other", bucket_token=None), deployed(docker())) == (AskForToken("owner/other"),)


def test_only_changed_files_go_up_and_those_of_an_earlier_deploy_go() -> None:
    before = docker(package=Package("1.2.2", "0.43.0", File("eventlog-1.2.2-py3-none-any.whl", b"PK\0\0")))
    wanted = docker(package=Package("1.2.3", "0.43.0", WHEEL))
    step = plan_deploy(wanted, deployed(before))[0]
    assert isinstance(step, Upload)
    assert ([file.path for file in step.files], step.deleted) == (
        ["Dockerfile", WHEEL.path],
        ("eventlog-1.2.2-py3-none-any.whl",),
    )
    page = tuple(file for file in PAGE if not file.path.startswith("assets/"))
    steps = plan_deploy(static(page=page), deployed(static()))
    assert steps[0] == Upload(SPACE, (), ("assets/a-1.js",))


def test_what_is_private_is_never_made_public_and_what_is_public_is_hidden_when_that_is_wanted() -> None:
    for wanted in (docker(), docker(private=True)):
        assert plan_deploy(wanted, deployed(docker(), private=True)) == (WAIT,)
    assert plan_deploy(docker(private=True), deployed(docker())) == (HideSpace(SPACE), WAIT)


def test_other_hardware_is_asked_for_and_the_same_is_not() -> None:
    there = deployed(docker(), hardware="cpu-upgrade")
    assert plan_deploy(docker(hardware="cpu-upgrade"), there) == (WAIT,)
    assert plan_deploy(docker(hardware="cpu-basic"), there) == (SetHardware(SPACE, "cpu-basic"), WAIT)
    assert plan_deploy(docker(), there) == (WAIT,)


@pytest.mark.parametrize("stage", ["PAUSED", "STOPPED", "RUNTIME_ERROR", "BUILD_ERROR"])
def test_a_space_that_stands_still_is_started(stage: str) -> None:
    assert plan_deploy(docker(), deployed(docker(), stage=stage)) == (Restart(SPACE), WAIT)
    # A commit starts it too, unless its owner has paused it.
    steps = plan_deploy(docker("owner/other"), deployed(docker(), stage=stage))
    assert kinds(steps) == ["CheckToken", "Upload", *["Restart"] * (stage == "PAUSED"), "Wait"]


def test_a_space_that_no_deploy_made_is_left_alone() -> None:
    foreign = {"README.md": known(b"mine"), "app.py": known(b"mine")}
    with pytest.raises(UsageError, match=r"app\.py.*another Space"):
        plan_deploy(docker(), deployed(docker(), files=foreign))
    for wanted, there in ((docker(), deployed(static())), (static(), deployed(docker()))):
        with pytest.raises(UsageError, match="of the kind"):
            plan_deploy(wanted, Found(bucket_private=None, space=there.space))
    fresh = {"README.md": known(b"by the Hub"), ".gitattributes": known(b"")}
    assert "Upload" in kinds(plan_deploy(docker(), deployed(docker(), files=fresh)))


def test_a_page_is_made_of_a_public_bucket_and_needs_no_secret() -> None:
    wanted = static()
    assert plan_deploy(wanted, Found()) == (
        CreateBucket("owner/page", private=False),
        CreateSpace(SPACE, "static", private=False, hardware=None, secrets=()),
        Upload(SPACE, space_files(wanted), ()),
        Wait(SPACE, "/config.json"),
    )
    with pytest.raises(UsageError, match="owner/page is private"):
        plan_deploy(wanted, Found(bucket_private=True))


@pytest.mark.parametrize(
    ("facts", "told"),
    [
        ({"project": None}, "--project"),
        ({"private": True}, "leave out --private"),
        ({"hardware": "cpu-basic"}, "--hardware goes with --mode docker"),
        ({"bucket_token": "hf_x"}, "--bucket-token goes with --mode docker"),
        ({"new_token": True}, "--new-token goes with --mode docker"),
        ({"package": Package("1", "0.43.0")}, "--wheel goes with --mode docker"),
    ],
)
def test_what_a_page_cannot_have_is_refused(facts: dict[str, Any], told: str) -> None:
    with pytest.raises(UsageError, match=told):
        static(**facts)


def test_names_that_could_not_be_meant_are_refused() -> None:
    for space in ("space", "a/b/c", "a b/c", "../x/y", ""):
        with pytest.raises(UsageError, match="OWNER/NAME"):
            Wanted(space=space, mode="docker", bucket=docker().bucket, package=Package("1", "1"), write_token="x")
    with pytest.raises(UsageError, match="flavour"):
        docker(hardware="CPU; rm")
    with pytest.raises(UsageError, match="--project"):
        docker(project="p")
    for name in ("other-1.whl", "eventlog-1-py3-none-any.whl\nRUN x", "eventlog-1.tar.gz"):
        with pytest.raises(UsageError, match="no wheel"):
            Package("1", "1", File(name, b""))
    for token in ("", "a b", "tökén", "a\nb"):
        with pytest.raises(UsageError, match="token"):
            docker(bucket_token=token)


def test_no_secret_shows_in_a_plan_in_its_calls_or_in_a_file() -> None:
    wanted = docker(new_token=True, package=Package("1.2.3", "0.43.0", WHEEL))
    there = deployed(docker(), secrets={})
    for steps in (plan_deploy(wanted, Found()), plan_deploy(wanted, there)):
        assert sends_write_token(steps)
        shown = repr(steps) + repr(wanted) + json.dumps([call_of(step) for step in steps]) + json.dumps(dry_run(wanted))
        assert WRITE_TOKEN in shown
        assert BUCKET_TOKEN in shown
        data = b"".join(file.data for step in steps if isinstance(step, Upload) for file in step.files)
        for secret in ("write-1", TOKEN):
            assert secret not in shown
            assert secret.encode() not in data


def test_a_dry_run_tells_what_is_asked_and_then_every_call() -> None:
    calls = dry_run(docker())
    assert [call["call"] for call in calls] == [
        "bucket_info",
        "space_info",
        "list_repo_tree",
        "get_space_secrets",
        "create_bucket",
        "whoami",
        "create_repo",
        "create_commit",
        "get",
    ]
    assert calls[6]["space_secrets"] == {WRITE_TOKEN: "***", BUCKET_TOKEN: "***"}
    calls = dry_run(docker(bucket_token=None))
    assert [call["call"] for call in calls[4:]] == [
        "create_repo",
        "create_bucket",
        "stop",
        "whoami",
        "add_space_secret",
        "add_space_secret",
        "create_commit",
        "get",
    ]


def dockerfile(wanted: Wanted) -> list[str]:
    text = next(file.data for file in space_files(wanted) if file.path == "Dockerfile").decode()
    return [line for line in text.splitlines() if line]


def test_the_dockerfile_installs_this_release_as_user_1000_and_serves_on_the_port_of_the_front_matter() -> None:
    lines = dockerfile(docker())
    assert lines[0] == "FROM python:3.11-slim"
    assert lines[1:3] == ["RUN useradd --create-home --uid 1000 user", "USER user"]
    assert 'RUN pip install --no-cache-dir --user "eventlog[trackio,hub]==1.2.3" "trackio==0.43.0"' in lines
    assert "EXPOSE 7860" in lines
    assert {"trackio", "hub"} <= set(importlib.metadata.metadata("eventlog").get_all("Provides-Extra") or ())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["requires-python"] == ">=3.11"


def test_a_wheel_is_uploaded_beside_the_dockerfile_and_installed_instead() -> None:
    wanted = docker(package=Package("1.2.3", "0.43.0", WHEEL))
    lines = dockerfile(wanted)
    install = lines.index(
        f'RUN pip install --no-cache-dir --user "/home/user/{WHEEL.path}[trackio,hub]" "trackio==0.43.0"'
    )
    assert lines[install - 1] == f"COPY --chown=user {WHEEL.path} /home/user/"
    assert WHEEL in space_files(wanted)


def test_what_the_container_runs_is_a_command_of_this_release() -> None:
    wanted = docker('owner/other/a "quoted" prefix')
    last = dockerfile(wanted)[-1]
    program, verb, *words = json.loads(last.removeprefix("CMD "))
    assert (program, verb, *words) == tuple(serve_command(wanted))
    assert program == "compactor"
    parsed = cli.commands[verb].make_context(verb, words, resilient_parsing=False).params
    assert (parsed["store"], parsed["host"], parsed["port"]) == ("/home/user/store", "0.0.0.0", 7860)
    assert parsed["bucket"] == str(wanted.bucket)


def test_a_space_that_is_to_lose_nothing_answers_when_its_bucket_has_it() -> None:
    assert "--ack" not in serve_command(docker())
    words = serve_command(docker(ack="bucket"))
    assert words[words.index("--ack") + 1] == "bucket"
    with pytest.raises(UsageError, match="--ack bucket goes with --mode docker"):
        static(ack="bucket")


def test_the_front_matter_says_what_the_hub_has_to_know() -> None:
    readme = next(file.data for file in space_files(docker()) if file.path == "README.md").decode()
    front = yaml.safe_load(readme.split("---")[1])
    assert (front["title"], front["sdk"], front["app_port"]) == ("space", "docker", 7860)
    grace = re.fullmatch(r"([1-9]|10)m", front["termination_grace_period"])
    words = serve_command(docker())
    # What is pushed last has nearly all of the time that the Hub gives, and ends before it is killed.
    assert 10 <= int(grace[1]) * 60 - int(words[words.index("--stop-within") + 1]) <= 30
    assert front["tags"] == ["eventlog", "trackio"]
    page = next(file.data for file in space_files(static()) if file.path == "README.md").decode()
    front = yaml.safe_load(page.split("---")[1])
    assert front["sdk"] == "static"
    assert "app_port" not in front


def test_the_page_is_the_one_of_the_installed_wheel_and_names_project_and_bucket() -> None:
    dashboard = ui.find_dashboard()
    page = page_files(dashboard.dist, dashboard.assets)
    files = {file.path: file.data for file in space_files(static(page=page))}
    assert json.loads(files["config.json"]) == {
        "mode": "static",
        "project": "a project",
        "bucket_id": "owner/page",
        "version": "0.43.0",
        "private": False,
    }
    assert json.loads(files[MARK])["mode"] == "static"
    text = files["index.html"].decode()
    named = re.findall(r'(?:src|href)="/([^"]+)"', text)
    assert len(named) >= 3
    assert set(named) <= set(files)
    script = next(data for path, data in files.items() if path.startswith("assets/index-") and path.endswith(".js"))
    assert b"huggingface.co/buckets/${" in script  # where the page looks for the bucket's root
    assert b"/resolve/${" in script


def test_an_installation_from_elsewhere_than_the_index_asks_for_a_wheel(tmp_path: Path) -> None:
    wheel = tmp_path / WHEEL.path
    wheel.write_bytes(WHEEL.data)
    assert package("1.2.3", "0.43.0", str(wheel)) == Package("1.2.3", "0.43.0", WHEEL)
    with pytest.raises(UsageError, match="pip wheel"):
        package("1.2.3", "0.43.0", None)


def test_a_token_goes_over_https_only() -> None:
    assert headers_for("https://owner-space.hf.space/healthz", "hf_x") == {"Authorization": "Bearer hf_x"}
    assert headers_for("http://owner-space.hf.space/healthz", "hf_x") == {}
    assert headers_for("https://owner-space.hf.space/healthz", None) == {}


def test_every_option_of_deploy_is_told_in_the_readme() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    options = [option for param in cli.commands["deploy"].params for option in param.opts if option.startswith("--")]
    assert isinstance(cli.commands["deploy"], click.Command)
    assert len(options) > 8
    section = readme.split("## On a Space")[1].split("\n## ")[0]
    assert [option for option in options if option not in section] == []
