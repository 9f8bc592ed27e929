"""The dashboard follows runs as they go on, natively and over HTTP, and stays usable with many of them."""

from __future__ import annotations

from playwright.sync_api import expect

from eventlog.store import open_store


def test_a_point_logged_natively_appears_without_a_reload(window):
    server, page = window.server, window.page
    run = server.log_natively("points", "live", "goes-on")
    assert run.stdout.readline() == "started\n"
    for loss in (5.0, 4.0, 3.0):
        server.tell(run, loss)
    window.open(project="live")
    page.evaluate("window.loadedOnce = true")
    window.wait_for_drawing("loss")
    assert window.plotted("loss") == {"goes-on": [(0, 5.0), (1, 4.0), (2, 3.0)]}
    server.tell(run, 0.1 + 0.2)
    window.server.wait_until(lambda: window.plotted("loss")["goes-on"][-1] == (3, 0.1 + 0.2), "the new point is there")
    window.wait_for_drawing("loss")
    window.keep("live")
    assert page.evaluate("window.loadedOnce")
    server.finish(run)


def test_a_run_that_a_client_starts_over_http_appears_without_a_reload(window):
    server, page = window.server, window.page
    run = server.log_natively("points", "joined", "first")
    assert run.stdout.readline() == "started\n"
    server.tell(run, 2.0)
    server.tell(run, 1.0)
    window.open(project="joined")
    window.wait_for_drawing("loss")
    page.evaluate("window.loadedOnce = true")
    server.finish(server.log_over_http("few", "joined", "second"))
    expect(page.locator(".checkbox-item .run-name")).to_have_text(["second", "first"], use_inner_text=True)
    expected = {"first": [(0, 2.0), (1, 1.0)], "second": [(0, 9.0), (1, 8.0), (2, 7.0)]}
    window.server.wait_until(lambda: window.plotted("loss") == expected, "the new run is there")
    window.wait_for_drawing("loss")
    assert page.evaluate("window.loadedOnce")
    server.finish(run)


def test_fifty_runs_of_two_thousand_points_are_drawn_and_can_be_toggled(window):
    server, page = window.server, window.page
    server.finish(server.log_natively("crowd", "thousands", 50, 2000))
    window.open(project="thousands")
    expect(page.locator(".checkbox-item")).to_have_count(50)
    window.wait_for_drawing("loss")
    drawn = window.plotted("loss")
    assert len(drawn) == 50
    ends = open_store(server.store).metrics("thousands", names=["accuracy"])["accuracy"].to_pylist()
    assert len(ends) == 50 * 2000
    assert {points[-1] for points in window.plotted("accuracy").values()} == {(1999, max(ends))}
    # Seconds go by until the page has counted anew: nothing is expected of it before.
    page.locator(".checkbox-item", has_text="run-07").locator("input").uncheck()
    server.wait_until(lambda: {*drawn} - {*window.plotted("loss")} == {"run-07"}, "the run is gone")
    page.get_by_placeholder("Type to filter...").fill("run-4[0-3]")
    expect(page.locator(".checkbox-item")).to_have_count(4)
    window.keep("crowd")
