"""Runs are renamed and deleted in the dashboard by those who come with the token, and by nobody else."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import expect

from eventlog.store import open_store

ROWS = ".runs-table tbody tr"


@pytest.fixture
def project(digits, request):
    """Return a project of three runs that only this test uses."""
    name = request.node.name
    digits.finish(digits.log_natively("crowd", name, 3, 2))
    return name


def names(server, project):
    return open_store(server.store).runs(project)["name"].to_pylist()


def test_with_the_token_in_the_address_a_run_is_renamed(window, project, token):
    page = window.open("runs", project=project, write_token=token)
    page.locator(ROWS, has_text="run-01").get_by_title("Rename").click()
    page.locator(".rename-input").fill("better ☃ name")
    page.locator(".rename-input").press("Enter")
    expect(page.locator(ROWS, has_text="better ☃ name")).to_be_visible()
    expect(page.locator(ROWS)).to_have_count(3)
    window.keep("runs-renamed")
    assert sorted(names(window.server, project)) == ["better ☃ name", "run-00", "run-02"]
    page.goto(f"{window.server.url}/?project={project}")
    window.wait_for_drawing("loss")
    assert {*window.plotted("loss")} == {"better ☃ name", "run-00", "run-02"}


def test_with_the_token_in_the_address_runs_are_deleted(window, project, token):
    asked = []
    window.page.on("dialog", lambda dialog: (asked.append(dialog.message), dialog.accept()))
    page = window.open("runs", project=project, write_token=token)
    page.locator(ROWS, has_text="run-01").get_by_title("Delete").click()
    expect(page.locator(ROWS)).to_have_count(2)
    assert asked == ['Delete run "run-01"? This cannot be undone.']
    assert names(window.server, project) == ["run-00", "run-02"]
    page.get_by_label("Select all visible runs").check()
    page.get_by_text("Delete selected (2)").click()
    expect(page.get_by_text("No runs in this project")).to_be_visible()
    assert names(window.server, project) == []
    window.keep("runs-deleted")


def test_the_token_leaves_the_address_at_once_and_stays_where_scripts_cannot_read_it(window, project, token):
    page = window.open("runs", project=project, write_token=token)
    page.wait_for_url(re.compile(r"/runs\?project=[^&]*$"))
    expect(page.locator(ROWS).first.get_by_title("Rename")).to_be_enabled()
    page.reload()
    expect(page.locator(ROWS).first.get_by_title("Rename")).to_be_enabled()
    assert sum("write_token" in url for url in window.asked) == 1
    (cookie,) = window.context.cookies()
    assert (cookie["name"], cookie["httpOnly"], cookie["sameSite"]) == ("trackio_write_token", True, "Strict")
    assert page.evaluate("document.cookie") == ""


@pytest.mark.parametrize("parameters", [{}, {"write_token": "a guess"}])
def test_without_the_token_nothing_is_offered_and_the_server_refuses(window, project, parameters):
    page = window.open("runs", project=project, **parameters)
    expect(page.locator(ROWS)).to_have_count(3)
    for row in page.locator(ROWS).all():
        for button in row.locator(".action-btn").all():
            expect(button).to_be_disabled()
    expect(page.locator(".bulk-delete")).to_be_disabled()
    window.keep("runs-without-token")
    attempts = {
        "delete_run": {"project": project, "run": "run-01"},
        "rename_run": {"project": project, "old_name": "run-01", "new_name": "mine"},
    }
    for name, arguments in attempts.items():
        # As the page asks, with its cookies.
        status = page.evaluate(
            """([name, body]) => {
                const request = new XMLHttpRequest();
                request.open("POST", `/api/${name}`, false);
                request.send(JSON.stringify(body));
                return [request.status, JSON.parse(request.responseText).error];
            }""",
            [name, arguments],
        )
        assert status[0] == 403
        assert "needs the write token" in status[1]
        assert window.server.call(name, token="another guess", **arguments).status_code == 403
    window.forgive()
    assert names(window.server, project) == ["run-00", "run-01", "run-02"]
