"""The free page: what `compactor static-export` wrote, shown by Trackio's own page as `compactor deploy` uploads it.

The page asks huggingface.co by name. Here the browser's requests to it, and to the Space's host, are answered by the
local Hub; nothing of the page is changed.
"""

from __future__ import annotations

import hashlib
import json
import math
import mimetypes
import re
import shlex
import subprocess
import sys
import urllib.parse
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from localhub.fixtures import hub_process
from localhub.process import LocalHub, client_environment
from playwright.sync_api import Route, expect

import eventlog
from eventlog.store import open_store

__all__ = ["hub_process"]
SPACE = "owner/digits"
HOST = "https://owner-digits.static.hf.space"
HUB = "https://huggingface.co/"


def run_it(hub: LocalHub, home: Path, command: str) -> str:
    """Run a command as somebody who is logged in, and return what it printed."""
    home.mkdir(exist_ok=True)
    words = [sys.executable, "-m", *shlex.split(command)]
    env = client_environment(hub.url, home)
    done = subprocess.run(words, env=env, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def page(hub_process: LocalHub, digits: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalHub]:
    """Return a Hub with a page that the two commands of the README made and filled."""
    home = tmp_path_factory.mktemp("static") / "home"
    hub_process.load("new")
    hub_process.set(space_stages=["RUNNING"])
    said = run_it(hub_process, home, f"compactor deploy {SPACE} --mode static --project digits --timeout 0")
    fill = said.splitlines()[-1].strip()
    assert fill.startswith("compactor static-export ./eventlog-store hf://buckets/owner/digits-page")
    run_it(hub_process, home, f"{fill.replace('./eventlog-store', shlex.quote(str(digits.store)))} --once")
    yield hub_process
    hub_process.load("new")


class Answers:
    """Answers the browser as the Hub and the Space's host would, out of the local Hub.

    Attributes:
        settings: what `config.json` says otherwise than what was deployed.
    """

    def __init__(self, hub: LocalHub) -> None:
        self.hub = hub
        self.settings: dict[str, str] = {}

    def __call__(self, route: Route) -> None:
        url = urllib.parse.urlsplit(route.request.url)
        path = f"/host/{SPACE}{url.path if url.path != '/' else '/index.html'}"
        if route.request.url.startswith(HUB):
            path = url.path
        if path.endswith("/tree"):
            # What is below a prefix has another address at the local Hub than the one that the page uses.
            path += f"/{urllib.parse.parse_qs(url.query)['prefix'][0]}?recursive=true"
        found = httpx.get(self.hub.url + path, trust_env=False, timeout=60)
        body = found.content
        if path.endswith("/config.json"):
            body = json.dumps({**found.json(), **self.settings})
        kind = mimetypes.guess_type(path.split("?")[0])[0] or "application/octet-stream"
        headers = {"content-type": kind, "access-control-allow-origin": "*"}
        route.fulfill(status=found.status_code, body=body, headers=headers)


@pytest.fixture
def window(windows: Callable[..., Any], page: LocalHub) -> Any:
    """Return a window on the page."""
    opened = windows(SimpleNamespace(url=HOST), (HUB,))
    opened.answers = Answers(page)
    opened.context.route(re.compile("^https:"), opened.answers)
    return opened


def show(window: Any, tab: str) -> Any:
    """Open the page and go to a tab, which must have something in it."""
    opened = window.open()
    link = opened.locator(".nav-link", has_text=re.compile(rf"^\s*{tab}\s*$"))
    link.click()
    expect(link).to_have_class(re.compile(r"\bactive\b"))
    return opened


def logged(store: Path, project: str, metric: str) -> dict[str, list[tuple[float, float]]]:
    """Return the finite values of a metric, as (step, value) by the name of the run."""
    opened = open_store(store)
    found = {}
    for run_id, name in zip(*(opened.runs(project)[key].to_pylist() for key in ("run_id", "name")), strict=True):
        curve = opened.curve(project, run_id, metric)
        pairs = zip(curve["_step"].to_pylist(), curve["value"].to_pylist(), strict=True)
        found[name] = sorted((step, value) for step, value in pairs if math.isfinite(value))
    return {name: pairs for name, pairs in found.items() if pairs}


def are_loaded(images: Any) -> bool:
    widths = images.evaluate_all("images => images.map(image => image.complete ? image.naturalWidth : 0)")
    return bool(widths) and all(widths)


def test_the_page_draws_the_values_that_are_in_the_store(window: Any, digits: Any, wait_until: Any) -> None:
    page = window.open()
    for title, metric in {"loss": "loss", "accuracy": "train/accuracy", "grad": "train/norm/grad"}.items():
        window.wait_for_drawing(title)
        assert window.plotted(title) == logged(digits.store, "digits", metric)
    assert {*window.plotted("loss")} == {"over-http", "native", "reads-artifact"}
    expect(window.plot("never finite")).to_have_count(0)
    window.keep("static-metrics")
    window.wait_for_drawing("weights")
    assert {*window.plot("weights").locator(".legend-label").all_inner_texts()} == {"over-http", "native"}
    expect(page.locator(".nav-link.empty")).to_have_count(0)
    wait_until(lambda: are_loaded(page.locator("img.logo")), "the logo is there")
    page.get_by_label("Show run comparer").check()
    rates = page.locator(".comparer-table tr", has=page.locator("td", has_text=re.compile(r"^lr$")))
    expect(rates).to_contain_text("0.00025")
    expect(rates).to_contain_text("0.004")
    expect(page.locator(".comparer-table")).to_contain_text("adamw")
    window.keep("static-comparer")


def test_the_page_shows_system_metrics_and_runs(window: Any) -> None:
    page = show(window, "System Metrics")
    window.wait_for_drawing("cpu")
    values = {run: [value for _, value in points] for run, points in window.plotted("cpu").items()}
    assert values == {"over-http": [20, 21, 22, 23, 24], "native": [40, 41, 42, 43, 44, 45]}
    window.keep("static-system")
    page = show(window, "Runs")
    rows = page.locator(".runs-table tbody tr")
    expect(rows).to_have_count(3)
    expect(rows.filter(has_text="native").locator("td").nth(4)).to_have_text("68")
    expect(rows.filter(has_text="over-http").locator(".art-count")).to_have_text("↑ 2")
    window.keep("static-runs")
    page.locator(".runs-table .link-btn", has_text="native").click()
    for text in ('"lr": 0.004', '"layers": [', "train/norm/grad"):
        expect(page.locator(".detail-card")).to_contain_text(text)
    window.keep("static-run")


def test_the_page_shows_media_tables_and_reports(window: Any, wait_until: Any) -> None:
    page = show(window, "Media & Tables")
    pictures = page.locator(".gallery .image-frame img")
    expect(pictures).to_have_count(2)
    wait_until(lambda: are_loaded(pictures), "the images are there")
    expect(page.locator(".gallery .caption")).to_contain_text(["a blue field", "a red field"])
    cells = page.locator(".table-section", has_text="confusion").locator("tbody td")
    expect(cells).to_have_text(["seven", "31", "one", "2", "four", "17", "nine", "23"])
    in_cells = page.locator("td img.table-image")
    expect(in_cells).to_have_count(2)
    for picture in (in_cells.first, in_cells.last):
        picture.scroll_into_view_if_needed()
    wait_until(lambda: are_loaded(in_cells), "the images in the tables are there")
    expect(page.locator(".audio-gallery-item")).to_contain_text(["/ 0:01", "/ 0:01"])
    expect(page.locator(".object-card")).to_contain_text("a corner")
    for number, text in enumerate(["Made natively", "Made over HTTP"]):
        frame = page.locator("iframe.html-frame").nth(number)
        frame.scroll_into_view_if_needed()
        expect(frame.content_frame.locator("h1")).to_have_text(text)
    window.keep("static-media")
    page = show(window, "Alerts & Reports")
    expect(page.locator(".report-card")).to_contain_text(["Report over HTTP", "Native report"])
    window.keep("static-reports")


def test_the_page_shows_traces_files_and_artifacts(window: Any, wait_until: Any) -> None:
    page = show(window, "Traces")
    rows = page.locator("tr.trace-row")
    expect(rows).to_have_count(3)
    rows.filter(has_text="Question 1 over HTTP?").click()
    detail = page.locator(".trace-detail")
    expect(detail.locator(".detail-meta")).to_contain_text("session: session-1")
    expect(detail.locator(".span-name")).to_have_text(["think", "search"])
    detail.locator("summary", has_text="Conversation").click()
    wait_until(lambda: are_loaded(detail.locator(".conversation img")), "the image is there")
    window.keep("static-traces")
    page = show(window, "Files")
    page.locator(".file-name", has_text="notes.md").click()
    expect(page.locator(".preview-code")).to_contain_text("These lines were saved over HTTP.")
    window.keep("static-files")
    page = show(window, "Artifacts")
    panel = page.locator(".panel")
    expect(panel.locator(".ver-badge")).to_have_text("v1")
    expect(panel.locator(".run-link")).to_have_text(["over-http", "reads-artifact"])
    with page.expect_popup() if panel.locator("a.file-entry[target]").count() else page.expect_download() as got:
        panel.locator(".file-entry").click()
    with open(got.value.path(), "rb") as file:
        assert hashlib.sha256(file.read()).digest() == hashlib.sha256(b"better weights").digest()
    window.keep("static-artifacts")


HOSTILE = {"": 1.0, "a.b/c": 2.0, "step": 3.0, "timestamp": 4.0, "run_id": 5.0, "__proto__": 6.0, "µ {_type}": 7.0}


def test_the_page_reads_long_runs_hostile_names_and_values_that_change_their_type(
    window: Any, page: LocalHub, tmp_path: Path
) -> None:
    project, store = "bl\u00f6b #1/%20", tmp_path / "store"
    with eventlog.init(project=project, name="long", dir=store, config={"deep": {"list": [1, 2]}, "x": 1}) as run:
        for step in range(8_000):
            run.log({"loss": math.sin(step / 500) if step != 4_321 else 77.0}, step=step)
        run.log({"loss": "x", **HOSTILE}, step=2**60)
        run.log({"huge": 2**70, "text": '{"_type": 5', "no": None, "yes": True})
    with eventlog.init(project=project, name="short", dir=store, config={"deep": "none", "x": "auto"}) as run:
        run.log({"loss": 5.0, "text": 1.0}, step=0)
        run.log({"loss": 40.0}, step=7_000)
    run_command = f"compactor static-export {store} hf://buckets/owner/hostile --project {shlex.quote(project)} --once"
    run_it(page, tmp_path / "home", run_command)
    window.answers.settings = {"project": project, "bucket_id": "owner/hostile"}
    window.open()
    window.wait_for_drawing("loss")
    drawn, stored = window.plotted("loss"), logged(store, project, "loss")
    assert drawn["short"] == [(0, 5.0), (7_000, 40.0)]
    assert {*drawn["long"]} < {*stored["long"]}
    # The page thins out once more.
    assert (4_321, 77.0) in drawn["long"]
    assert len(drawn["long"]) > 100
    titles = {title.strip() for title in window.page.locator(".plot-title").all_inner_texts()}
    assert {"huge", "__step", "__run_id", "µ {_type}"} <= titles, titles
    window.keep("static-hostile")
