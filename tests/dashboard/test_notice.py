"""The page says why it has nothing to show, and stops saying so once it has."""

from __future__ import annotations

import httpx
from playwright.sync_api import expect

HIDDEN = ("-c", "import sys; sys.modules['trackio'] = None; from compactor.cli import main; main()")


def test_an_empty_store_a_silent_writer_and_the_first_values_are_told_apart(serve, windows):
    server = serve()
    window = windows(server)
    page = window.open()
    expect(window.notice()).to_contain_text(f"No project yet in {server.store}.")
    expect(window.notice()).to_contain_text("TRACKIO_SERVER_URL")
    expect(page.get_by_role("heading", name="No projects")).to_be_visible()
    window.keep("notice-no-project")

    run = server.log_natively("points", "early", "silent")
    assert run.stdout.readline() == "started\n"
    expect(window.notice()).to_have_text("Writers seen (1 in 'early'), but nothing logged yet.")
    page.locator(".nav-link", has_text="Runs").click()
    expect(page.locator(".runs-table .link-btn")).to_have_text("silent")
    window.keep("notice-nothing-logged")

    server.tell(run, 2.0)
    server.tell(run, 1.0)
    expect(window.notice()).to_have_count(0)
    page.locator(".nav-link", has_text="Metrics").first.click()
    window.wait_for_drawing("loss")
    assert window.plotted("loss") == {"silent": [(0, 2.0), (1, 1.0)]}
    server.finish(run)


def test_a_store_that_cannot_be_read_is_named_until_it_can(serve, windows):
    server = serve()
    run = server.log_natively("points", "kept", "run")
    assert run.stdout.readline() == "started\n"
    server.tell(run, 2.0)
    server.tell(run, 1.0)
    server.finish(run)
    window = windows(server)
    page = window.open()
    window.wait_for_drawing("loss")
    expect(window.notice()).to_have_count(0)
    segments, aside = server.store / "segments", server.store / "aside"

    segments.rename(aside)
    segments.write_text("no directory")
    expect(window.notice()).to_contain_text(f"The server cannot read {server.store}: ")
    expect(window.notice()).to_contain_text("Not a directory")
    window.keep("notice-unreadable")
    segments.unlink()
    aside.rename(segments)
    expect(window.notice()).to_have_count(0)

    gone = server.store.rename(server.directory / "gone")
    expect(window.notice()).to_contain_text(f"The server cannot read {server.store}: its directory is gone")
    gone.rename(server.store)
    expect(window.notice()).to_have_count(0)
    page.reload()
    window.wait_for_drawing("loss")
    window.forgive()


def test_a_server_that_is_away_is_waited_for(serve, windows):
    server = serve()
    server.finish(server.log_natively("crowd", "kept", 1, 5))
    window = windows(server)
    window.open()
    window.wait_for_drawing("loss")
    server.stop()
    expect(window.notice()).to_have_text("The server does not answer; trying again.")
    window.keep("notice-away")
    server.start()
    expect(window.notice()).to_have_count(0)
    server.finish(server.log_natively("crowd", "kept", 1, 5))
    server.wait_until(lambda: len(window.plotted("loss")["run-00"]) == 10, "the second run is there")
    window.forgive()


def test_without_the_wheel_the_page_says_how_to_install_it_and_the_api_works(serve, windows):
    server = serve(program=HIDDEN)
    assert server.notes == ["no dashboard: pip install 'eventlog[trackio]'"]
    window = windows(server)
    page = window.open("runs")
    expect(page.get_by_role("heading")).to_have_text("The dashboard is not installed")
    expect(page.locator("pre")).to_have_text("pip install 'eventlog[trackio]'")
    window.keep("notice-no-wheel")
    server.finish(server.log_over_http("few", "without", "a-run"))
    (run,) = server.call("get_runs_for_project", project="without").json()["data"]
    assert run["name"] == "a-run"
    assert httpx.get(f"{server.url}/assets/x.js", trust_env=False).status_code == 404
