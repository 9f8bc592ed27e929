"""What the server relies on in Trackio's wheel, looked up in the wheel itself: a release that changes it turns red.

Nothing here needs a browser. Where a test fails after an update of Trackio, the server has to learn something new.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import httpx
import msgspec
import pytest

from compactor.serve import access, typed, ui
from compactor.serve.api import ENDPOINTS
from compactor.serve.wire import API_VERSION

# Names of the wheel's API that the server does not answer.
LEFT_OUT = {
    "get_registry_details": "registries live in buckets of the Hub; their page, /registry, is not served",
    "upload_db_to_space": "there is no database of the client's to move: what it sends is kept here",
}
# Answered beside the table of endpoints, for it looks at the request itself.
BY_THE_APP = {"get_run_mutation_status"}
# Arguments that the server does not look at.
IGNORED = {"hf_token": "writers are known by the write token alone", "bucket_id": "there are no registries"}
WHEEL = Path(importlib.util.find_spec("trackio").submodule_search_locations[0])
DESCRIBE = """
import inspect, json
from trackio import remote_client, server, utils

def parameters(call):
    return [
        (name, parameter.default is inspect.Parameter.empty)
        for name, parameter in inspect.signature(call).parameters.items()
        if name != "request"
    ]

print(json.dumps({
    "calls": {name: parameters(call) for name, call in server._api_registry().items()},
    "writes": sorted(server.WRITE_APIS),
    "api_version": remote_client.HTTP_API_VERSION,
    "header": remote_client.WRITE_TOKEN_HEADER,
    "address": utils.parse_trackio_server_url("http://host:1/?write_token=secret"),
    "settings": sorted(server.get_settings()),
    "tabs": sorted(server.get_tab_availability("nobody")),
    "run": server.get_run_summary("nobody", "none"),
    "project": server.get_project_summary("nobody"),
}))
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Return what the installed wheel says of itself, in a process of its own: its import is not free of effects."""
    env = {key: value for key, value in os.environ.items() if not key.startswith(("TRACKIO_", "HF_"))}
    env |= {"TRACKIO_DIR": str(tmp_path_factory.mktemp("trackio")), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([sys.executable, "-c", DESCRIBE], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def bundle():
    """Return the scripts of the dashboard, as one text."""
    return "\n".join(path.read_text(encoding="utf-8") for path in sorted((WHEEL / "frontend/dist/assets").glob("*.js")))


def test_the_release_that_is_installed_is_pinned_and_said_to_be_tested():
    installed = importlib.metadata.version("trackio")
    pyproject = Path(__file__).resolve().parents[2] / "pyproject.toml"
    extras = tomllib.loads(pyproject.read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    assert frozenset({installed}) == ui.TESTED
    assert f"trackio=={installed}" in extras["test"]


def test_every_call_of_the_api_is_answered_or_left_out_on_purpose(wheel):
    assert {*wheel["calls"]} == {*ENDPOINTS} | BY_THE_APP | {*LEFT_OUT}


@pytest.mark.parametrize("name", sorted(ENDPOINTS))
def test_a_call_takes_the_arguments_that_trackio_takes_in_their_order(wheel, name):
    expected = [(argument, needed) for argument, needed in wheel["calls"][name] if argument not in IGNORED]
    fields = msgspec.structs.fields(ENDPOINTS[name].form)
    taken = [(field.encode_name, field.required) for field in fields if field.encode_name not in IGNORED]
    assert [argument for argument, _ in taken[: len(expected)]] == [argument for argument, _ in expected]
    # What may be left out there may be left out here.
    assert {argument for argument, needed in taken if needed} <= {argument for argument, needed in expected if needed}


def test_every_call_that_writes_there_needs_the_token_here(wheel):
    writing = {name for name, endpoint in ENDPOINTS.items() if endpoint.writes}
    # A look at which blobs are there already comes with the token, and says what is stored.
    assert writing == ({*wheel["writes"]} - {*LEFT_OUT}) | {"check_artifact_blobs"}


def test_the_client_and_the_server_mean_the_same_by_version_header_and_address(wheel, idle, bundle):
    assert wheel["api_version"] == API_VERSION
    assert httpx.get(f"{idle.url}/version", trust_env=False).json()["api_version"] == wheel["api_version"]
    assert wheel["header"] == access.HEADER
    assert wheel["address"][1] == "secret"
    assert f"{access.COOKIE}=${{encodeURIComponent" in bundle
    assert f'.get("{access.PARAMETER}")' in bundle


def test_every_call_that_the_dashboard_or_the_client_makes_is_answered(wheel, idle, bundle):
    asked = {*re.findall(r'\(["`]/((?:get|list|delete|rename)_[a-z_]+)["`]', bundle)}
    assert len(asked) > 20
    for path in WHEEL.glob("*.py"):
        asked |= {*re.findall(r'api_name="/?([a-z_]+)"', path.read_text(encoding="utf-8"))}
    assert {"get_logs_batch", "bulk_log", "bulk_upload_media", "artifact_log"} <= asked
    assert asked <= {*wheel["calls"]}
    unknown = {name for name in asked if idle.call(name).status_code == 404}
    assert unknown <= {*LEFT_OUT}
    assert {idle.call(name).json()["error"] for name in unknown} <= {f"Unknown API: {name}" for name in LEFT_OUT}


def test_answers_have_the_fields_that_trackio_gives(wheel, idle):
    def answer(name, **arguments):
        return idle.call(name, **arguments).json()["data"]

    assert sorted(answer("get_settings")) == wheel["settings"]
    assert sorted(answer("get_tab_availability", project="nobody")) == wheel["tabs"]
    assert answer("get_run_summary", project="nobody", run="none") == wheel["run"]
    assert answer("get_project_summary", project="nobody") == wheel["project"]


def test_every_address_of_the_dashboard_is_served_and_so_is_what_its_page_loads(idle, bundle):
    (routes,) = re.findall(r'\{(metrics:"/"(?:,"?[a-z-]+"?:"/[a-z]+")+)\}', bundle)
    assert {*re.findall(r':"/([a-z]*)"', routes)} | {"metrics"} == ui.PAGES
    # At /metrics Prometheus reads; the dashboard itself goes to / for that tab.
    (page,) = {httpx.get(f"{idle.url}/{name}", trust_env=False).text for name in ui.PAGES - {"metrics"}}
    added = '<script src="/eventlog/notice.js"></script>'
    assert page.count(f"{added}</body>") == 1
    assert page.replace(added, "") == (WHEEL / "frontend/dist/index.html").read_text(encoding="utf-8")
    loaded = re.findall(r'(?:src|href)="(/[^"]+)"', page)
    assert len(loaded) >= 4
    logos = re.findall(r'"(/static/trackio/[a-z_]+\.png)"', bundle)
    for path in {*loaded, *logos, "/config.json"}:
        assert httpx.get(f"{idle.url}{path}", trust_env=False).status_code == 200, path


def test_the_dashboard_shows_the_types_of_values_that_are_made_for_it_and_no_others(bundle):
    known = {*re.findall(r'"(trackio\.[a-z0-9]+)"', bundle)}
    shown_as = {name for name in typed.SHOWN_AS_MEDIA | typed.HISTOGRAMS | typed.REPORTS if name.startswith("trackio.")}
    assert known == shown_as
    # A file is downloaded by other clients; the dashboard has no place for it.
    assert {*typed.MEDIA.values()} - known == {"trackio.file"}
