"""Every tab of the dashboard shows what was logged over HTTP and natively, and keeps a screenshot of it."""

from __future__ import annotations

import hashlib
import math
import re

import pyarrow.compute as pc
import pytest
from playwright.sync_api import expect

from eventlog.store import open_store

RUNS = {"over-http", "native", "reads-artifact"}


def stored(store, metric):
    """Return the finite values that a store has of a metric, as (step, value) by the name of the run."""
    opened = open_store(store)
    found = {}
    for run_id, name in zip(*(opened.runs("digits")[key].to_pylist() for key in ("run_id", "name")), strict=True):
        rows = opened.metrics("digits", names=[metric])
        rows = rows.filter(pc.equal(rows["_run_id"].cast("string"), run_id))
        pairs = zip(rows["_step"].to_pylist(), rows[metric].to_pylist(), strict=True)
        finite = sorted((step, value) for step, value in pairs if value is not None and math.isfinite(value))
        if finite:
            found[name] = finite
    return found


def are_loaded(images):
    """Say whether images are there and every one of them has pixels."""
    widths = images.evaluate_all("images => images.map(image => image.complete ? image.naturalWidth : 0)")
    return bool(widths) and all(widths)


def test_every_tab_is_offered_as_one_with_something_in_it_and_reached_by_a_click(window):
    page = window.open(project="digits")
    for name, path in {
        "System Metrics": "/system",
        "Traces": "/traces",
        "Media & Tables": "/media",
        "Alerts & Reports": "/reports",
        "Runs": "/runs",
        "Files": "/files",
        "Artifacts": "/artifacts",
        "Settings": "/settings",
        "Metrics": "/",
    }.items():
        link = page.locator(".nav-link", has_text=re.compile(rf"^\s*{name}\s*$"))
        link.click()
        page.wait_for_url(f"{window.server.url}{path}?*")
        expect(link).to_have_class(re.compile(r"\bactive\b"))
    expect(page.locator(".nav-link.empty")).to_have_count(0)
    window.server.wait_until(lambda: are_loaded(page.locator("img.logo")), "the logo is there")
    expect(page.locator(".logo-section .version")).to_have_text("v 0.43.0")


def test_metrics_are_drawn_and_the_values_drawn_are_those_in_the_store_and_its_parquet(window):
    page = window.open(project="digits")
    expect(page.locator(".checkbox-item .run-name")).to_have_count(3)
    assert {*page.locator(".checkbox-item .run-name").all_inner_texts()} == RUNS
    window.wait_for_drawing("loss")
    window.keep("metrics")
    for title, metric in {"loss": "loss", "accuracy": "train/accuracy", "grad": "train/norm/grad"}.items():
        window.wait_for_drawing(title)
        assert window.plotted(title) == stored(window.server.store, metric)
    ends = {run: points[-1] for run, points in window.plotted("loss").items()}
    assert ends == {"over-http": (39, 2.0 / 40), "native": (59, 3.0 / 60), "reads-artifact": (1, 0.25)}
    expect(window.plot("never finite")).to_have_count(0)

    def last_values():
        opened = open_store(window.server.store)
        if not opened.files("digits", "metrics"):
            return False
        rows = opened.dataset("digits", "metrics").to_table(columns=["_step", "loss"])
        return {*zip(rows["_step"].to_pylist(), rows["loss"].to_pylist(), strict=True)} >= {*ends.values()}

    window.server.wait_until(last_values, "the parquet has the last values")


def test_histograms_of_both_are_drawn(window):
    page = window.open(project="digits")
    expect(page.get_by_text("histograms (1)")).to_be_visible()
    window.wait_for_drawing("weights")
    assert {*window.plot("weights").locator(".legend-label").all_inner_texts()} == {"over-http", "native"}
    window.keep("metrics-histograms")


def test_the_run_comparer_shows_the_configs_of_both_side_by_side(window):
    page = window.open(project="digits")
    page.get_by_label("Show run comparer").check()
    table = page.locator(".comparer-table")
    expect(table.locator("th.run-col")).to_have_count(3)
    rates = table.locator("tr", has=page.locator("td", has_text=re.compile(r"^lr$"))).locator("td.value-cell")
    names = [name.strip() for name in table.locator("th.run-col").all_inner_texts()]
    shown = dict(zip(names, (rate.strip() for rate in rates.all_inner_texts()), strict=True))
    assert {*shown} == RUNS
    assert (shown["over-http"], shown["native"]) == ("0.00025", "0.004")
    window.keep("metrics-comparer")


def test_system_metrics_are_drawn_with_their_values_and_devices(window):
    page = window.open("system", project="digits")
    window.wait_for_drawing("cpu")
    window.keep("system")
    values = {run: [value for _, value in points] for run, points in window.plotted("cpu").items()}
    assert values == {"over-http": [20, 21, 22, 23, 24], "native": [40, 41, 42, 43, 44, 45]}
    seconds = [second for points in window.plotted("cpu").values() for second, _ in points]
    assert min(seconds) == 0
    assert max(seconds) > 0
    window.wait_for_drawing("utilization (%)")
    assert len(window.plotted("utilization (%)")["over-http"]) == 2 * 5
    expect(page.locator(".device-group .run-name")).to_have_text(["GPU 0", "GPU 1"])


def test_media_of_both_are_loaded_and_their_tables_and_pages_are_readable(window):
    page = window.open("media", project="digits")
    pictures = page.locator(".gallery .image-frame img")
    expect(pictures).to_have_count(2)
    window.server.wait_until(lambda: are_loaded(pictures), "the images are there")
    expect(page.locator(".gallery .caption")).to_contain_text(["a blue field", "a red field"])
    colors = pictures.evaluate_all(
        """images => images.map(image => {
            const canvas = Object.assign(document.createElement("canvas"), { width: 1, height: 1 });
            canvas.getContext("2d").drawImage(image, 0, 0);
            return Array.from(canvas.getContext("2d").getImageData(0, 0, 1, 1).data);
        })"""
    )
    assert colors == [[30, 60, 220, 255], [220, 30, 40, 255]]
    window.keep("media")

    cells = page.locator(".table-section", has_text="confusion").locator("tbody td")
    expect(cells).to_have_text(["seven", "31", "one", "2", "four", "17", "nine", "23"])
    in_cells = page.locator("td img.table-image")
    expect(in_cells).to_have_count(2)
    in_cells.first.scroll_into_view_if_needed()
    in_cells.last.scroll_into_view_if_needed()
    window.server.wait_until(lambda: are_loaded(in_cells), "the images in the tables are there")

    expect(page.locator(".audio-gallery-item")).to_have_count(2)
    expect(page.locator(".audio-gallery-item")).to_contain_text(["/ 0:01", "/ 0:01"])
    expect(page.locator(".object-card")).to_contain_text("a corner")
    for number, text in enumerate(["Made natively", "Made over HTTP"]):
        frame = page.locator("iframe.html-frame").nth(number)
        frame.scroll_into_view_if_needed()
        expect(frame.content_frame.locator("h1")).to_have_text(text)
    window.keep("media-below")


def test_an_image_opens_in_full_and_its_page_of_html_reaches_nothing_of_the_dashboard(window):
    page = window.open("media", project="digits")
    page.get_by_label("Open a red field").click()
    shown = page.locator(".image-modal img")
    window.server.wait_until(lambda: are_loaded(shown), "the image is there")
    expect(page.locator(".image-modal-meta")).to_contain_text("over-http, Step: 40")
    window.keep("media-image")
    page.keyboard.press("Escape")
    frame = page.locator("iframe.html-frame").first
    frame.scroll_into_view_if_needed()
    expect(frame.content_frame.locator("h1")).to_be_visible()
    assert page.frames[-1].evaluate("self.origin") == "null"


def test_alerts_and_reports_of_both_are_readable_and_filtered_by_level(window):
    page = window.open("reports", project="digits")
    reports = page.locator(".report-card")
    expect(reports).to_contain_text(["Report over HTTP", "Native report"])
    expect(reports.locator("strong")).to_have_text(["fell", "rose"])
    rows = page.locator(".alerts-table tbody tr")
    expect(rows).to_have_count(3)
    expect(rows.filter(has_text="Over HTTP: error")).to_contain_text("the loss is NaN")
    expect(rows.filter(has_text="Native: warn")).to_contain_text("the loss is not a number")
    # Newest first, and the client sent the error after the info.
    titles = [title for title in rows.locator("td:nth-child(3)").all_inner_texts() if title.startswith("Over")]
    assert titles == ["Over HTTP: error", "Over HTTP: info"]
    expect(page.locator(".alert-panel .alert-title")).to_have_text("Alerts (3)")
    window.keep("reports")
    page.locator(".alerts-section .pill", has_text="Warn").click()
    expect(rows).to_have_count(1)
    expect(rows).to_contain_text("Native: warn")


def test_runs_of_both_are_listed_with_their_steps_and_artifacts(window):
    page = window.open("runs", project="digits")
    rows = page.locator(".runs-table tbody tr")
    expect(rows).to_have_count(3)
    expect(rows.filter(has_text="native").locator("td").nth(4)).to_have_text("68")
    expect(rows.filter(has_text="over-http").locator("td").nth(4)).to_have_text("47")
    expect(rows.filter(has_text="over-http").locator(".art-count")).to_have_text("↑ 2")
    expect(rows.filter(has_text="reads-artifact").locator(".art-count")).to_have_text("↓ 1")
    window.keep("runs")
    page.get_by_placeholder("e.g., baseline|exp-.*|v2").fill("^over")
    expect(rows).to_have_count(1)


@pytest.mark.parametrize(
    ("name", "texts"),
    [
        ("over-http", ['"lr": 0.00025', '"name": "adamw"', "train/accuracy", "Output artifacts", "classifier:v1"]),
        ("native", ['"lr": 0.004', '"layers": [', "train/norm/grad"]),
        ("reads-artifact", ["Input artifacts", "classifier:v1"]),
    ],
)
def test_a_run_is_shown_with_its_config_and_artifacts(window, name, texts):
    page = window.open("runs", project="digits")
    page.locator(".runs-table .link-btn", has_text=name).click()
    expect(page.locator(".detail-card h2")).to_have_text(name)
    for text in texts:
        expect(page.locator(".detail-card")).to_contain_text(text)
    window.keep(f"run-{name}")
    page.reload()
    expect(page.locator(".detail-card h2")).to_have_text(name)


def test_traces_of_both_are_listed_searched_and_opened_with_spans_and_images(window):
    page = window.open("traces", project="digits")
    rows = page.locator("tr.trace-row")
    expect(rows).to_have_count(3)
    asked = {*rows.locator(".request").all_inner_texts()}
    assert asked == {"A native question?", "Question 0 over HTTP?", "Question 1 over HTTP?"}
    chips, steps = (rows.locator(path).all_inner_texts() for path in (".trace-id-chip", "td:nth-child(4)"))
    assert len({*chips}) == 3
    # An id says more than the step, at which another run has its own traces.
    assert all(chip.split(":")[0] != step for chip, step in zip(chips, steps, strict=True))
    row = rows.filter(has_text="Question 1 over HTTP?")
    expect(row).to_contain_text("1.50s")
    row.click()
    detail = page.locator(".trace-detail")
    expect(detail.locator(".detail-meta")).to_contain_text("session: session-1")
    expect(detail.locator(".span-name")).to_have_text(["think", "search"])
    detail.locator("summary", has_text="Conversation").click()
    expect(detail.locator(".conversation")).to_contain_text("Answer 1.")
    window.server.wait_until(lambda: are_loaded(detail.locator(".conversation img")), "the image is there")
    window.keep("traces")
    page.get_by_placeholder("Search traces by request").fill("native question")
    expect(rows).to_have_count(1)
    rows.click()
    expect(detail.locator(".conversation")).to_contain_text("A native answer.")


def test_files_are_listed_shown_and_downloaded(window):
    page = window.open("files", project="digits")
    page.locator(".file-name", has_text="notes.md").click()
    expect(page.locator(".preview-code")).to_contain_text("These lines were saved over HTTP.")
    window.keep("files")
    with page.expect_download() as download:
        page.locator(".download-btn").click()
    with open(download.value.path(), encoding="utf-8") as file:
        assert file.read() == "# Notes\nThese lines were saved over HTTP.\n"


def test_artifacts_are_listed_with_versions_metadata_files_and_lineage(window):
    page = window.open("artifacts", project="digits")
    expect(page.locator(".version-row")).to_contain_text(["v1", "v0"])
    panel = page.locator(".panel")
    expect(panel.locator(".ver-badge")).to_have_text("v1")
    expect(panel).to_contain_text("it tells digits")
    expect(panel).to_contain_text("epochs")
    expect(panel.locator(".run-link")).to_have_text(["over-http", "reads-artifact"])
    digest = hashlib.sha256(b"better weights").hexdigest()
    expect(panel.locator(".file-entry")).to_contain_text(["weights.bin"])
    expect(panel.locator(".file-digest")).to_have_attribute("title", digest)
    window.keep("artifacts")
    with page.expect_download() as download:
        panel.locator(".file-entry").click()
    with open(download.value.path(), "rb") as file:
        assert file.read() == b"better weights"
    panel.get_by_role("tab", name="Lineage").click()
    nodes = page.locator(".graph .node-label")
    expect(nodes).to_have_count(4)
    # Each label has the whole text once more, as its tooltip.
    labels = {text.split()[0] for text in nodes.all_text_contents()}
    assert labels == {"classifier:v0", "classifier:v1", "over-http", "reads-artifact"}
    window.keep("artifacts-lineage")
    page.locator(".version-row", has_text="v0").click()
    expect(panel.locator(".ver-badge")).to_have_text("v0")


def test_settings_are_shown_and_the_dark_theme_is_kept(window):
    page = window.open("settings", project="digits")
    expect(page.locator("h2.page-title")).to_have_text("Settings")
    expect(page.locator(".commands-table")).to_contain_text('trackio list runs --project "digits"')
    page.locator(".theme-option", has_text="Dark").click()
    window.keep("settings")
    window.open(project="digits")
    window.wait_for_drawing("loss")
    window.server.wait_until(lambda: are_loaded(page.locator("img.logo")), "the logo for the dark is there")
    assert "dark" in page.locator("img.logo").get_attribute("src")
    window.keep("metrics-dark")


def test_the_dashboard_opens_on_the_first_project_when_the_address_names_none(window):
    page = window.open()
    window.wait_for_drawing("loss")
    expect(page.get_by_label("Project")).to_have_value("digits")
    expect(window.notice()).to_have_count(0)
