"""Fixtures of the dashboard's tests: a real server, real clients, a real browser, and what all of them said."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.parse
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright

HERE = Path(__file__).parent
TOKEN = "let-me/write+here"
PATIENCE_S = 90
ARGUMENTS = ("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
             "--disable-component-update", "--disable-sync")  # fmt: skip
# What the owner of the machine has set would change what is tested.
_FOREIGN = re.compile(r"TRACKIO_|EVENTLOG_|HF_|HUGGING_FACE|GRADIO_|(http|https|all|no)_proxy$", re.IGNORECASE)
# Pixels of a canvas that have one of these colors, or nearly: bars let others shine through at their edges.
_INK = """(canvas, colors) => {
    if (!canvas.width || !canvas.height) { return colors.map(() => 0); }
    const copy = Object.assign(document.createElement("canvas"), { width: canvas.width, height: canvas.height });
    const context = copy.getContext("2d", { willReadFrequently: true });
    context.drawImage(canvas, 0, 0);
    const { data } = context.getImageData(0, 0, copy.width, copy.height);
    const near = (at, color) => color.every((part, index) => Math.abs(data[at + index] - part) < 8);
    const counts = colors.map(() => 0);
    for (let at = 0; at < data.length; at += 4) {
        if (data[at + 3] > 80) {
            colors.forEach((color, index) => { counts[index] += near(at, color); });
        }
    }
    return counts;
}"""

# What a chart's button would give as a download, which is taken here before it becomes one.
_CSV = """button => {
    const [make, follow] = [URL.createObjectURL, HTMLAnchorElement.prototype.click];
    let made = null;
    URL.createObjectURL = blob => make.call(URL, made = blob);
    HTMLAnchorElement.prototype.click = () => {};
    try {
        button.click();
    } finally {
        [URL.createObjectURL, HTMLAnchorElement.prototype.click] = [make, follow];
    }
    return made && made.text();
}"""


def wait_until(question: Callable[[], Any], what: str) -> Any:
    """Ask until the answer is true, and return it."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        answer = question()
        if answer:
            return answer
        assert time.monotonic() < deadline, f"still not so after {PATIENCE_S} s: {what}"
        time.sleep(0.05)


def environment(**more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not _FOREIGN.match(name)}
    return {**kept, "HF_HUB_OFFLINE": "1", "NO_PROXY": "127.0.0.1", **more}


class Server:
    """A process of `compactor serve`, and those that log to it."""

    def __init__(self, directory: Path, store: Path | None = None, program: tuple[str, ...] = ("-m", "compactor")):
        self.directory = directory
        self.store = store or directory / "store"
        self.program = program
        self.children: list[subprocess.Popen] = []
        self.port = 0
        self.start()

    def start(self) -> None:
        """Start the process, on the port that it had when it had one, and wait until it listens."""
        options = ["--port", str(self.port), "--write-token", TOKEN, "--json"]
        command = [sys.executable, *self.program, "serve", str(self.store), *options]
        with open(self.directory / "server.log", "ab") as log:
            self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, env=environment(), text=True)
        line = self.process.stdout.readline()
        assert line, self.said()
        address = json.loads(line)
        self.url, self.notes = address["url"], address["notes"]
        self.port = urllib.parse.urlsplit(self.url).port

    def stop(self) -> None:
        """End the process as a service manager does."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        self.process.wait(60)
        self.process.stdout.close()

    def said(self) -> str:
        """Return what the process wrote to its log."""
        return (self.directory / "server.log").read_text()

    def call(self, name: str, token: str = "", **arguments: Any) -> httpx.Response:
        """Call the API, without the token unless it is given."""
        headers = {"x-trackio-write-token": token} if token else {}
        return httpx.post(f"{self.url}/api/{name}", json=arguments, headers=headers, timeout=60, trust_env=False)

    def log_over_http(self, *arguments: str) -> subprocess.Popen:
        """Start a process that logs with Trackio's client."""
        home = self.directory / f"client-{len(self.children)}"
        home.mkdir()
        theirs = {"TRACKIO_DIR": str(home), "TRACKIO_SERVER_URL": self.url, "TRACKIO_WRITE_TOKEN": TOKEN}
        return self._start("with_trackio.py", *arguments, env=environment(**theirs))

    def log_natively(self, what: str, project: str, *arguments: object) -> subprocess.Popen:
        """Start a process that logs to the store itself."""
        return self._start("with_eventlog.py", what, project, self.store, *arguments, env=environment())

    def _start(self, script: str, *arguments: object, env: dict[str, str]) -> subprocess.Popen:
        command = [sys.executable, "-W", "error::UserWarning", str(HERE / script), *map(str, arguments)]
        pipe = subprocess.PIPE
        child = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, env=env, text=True)
        self.children.append(child)
        return child

    wait_until = staticmethod(wait_until)

    @staticmethod
    def finish(child: subprocess.Popen) -> None:
        """Let a child come to its end, which must be a good one."""
        out, err = child.communicate(timeout=PATIENCE_S)
        assert child.returncode == 0, f"{out}\n{err}"

    @staticmethod
    def tell(child: subprocess.Popen, loss: float) -> None:
        """Have a native run log a loss, and wait until it has."""
        child.stdin.write(f"{loss!r}\n")
        child.stdin.flush()
        assert child.stdout.readline() == "logged\n"

    def close(self) -> None:
        """End everything that was started."""
        for child in self.children:
            if child.poll() is None:
                child.kill()
            child.communicate()
        self.stop()


class Window:
    """A page of the dashboard, and everything that went wrong in it.

    Attributes:
        page: of playwright.
        problems: errors of the console and of scripts, and requests to other hosts.
    """

    def __init__(self, browser: Browser, server: Server, screenshots: Path, also: tuple[str, ...] = ()) -> None:
        self.server = server
        self.expected = (f"{server.url}/", "blob:", "data:", *also)
        self.screenshots = screenshots
        self.problems: list[str] = []
        self.asked: list[str] = []
        self.context = browser.new_context(viewport={"width": 1400, "height": 1000})
        self.context.set_default_timeout(PATIENCE_S * 1000)
        self.context.on("request", self._note_request)
        self.page: Page = self.context.new_page()
        self.page.on("console", self._note_message)
        self.page.on("pageerror", lambda error: self.problems.append(f"uncaught: {error}"))

    def _note_request(self, request: Any) -> None:
        self.asked.append(request.url)
        if not request.url.startswith(self.expected):
            self.problems.append(f"request to another host: {request.url}")

    def _note_message(self, message: Any) -> None:
        if message.type in ("error", "warning"):
            self.problems.append(f"console {message.type}: {message.text} ({message.location})")

    def open(self, path: str = "", **parameters: str) -> Page:
        """Go to a page of the dashboard."""
        self.page.goto(f"{self.server.url}/{path}?{urllib.parse.urlencode(parameters)}")
        return self.page

    def keep(self, name: str) -> None:
        """Keep a screenshot for people."""
        self.page.screenshot(path=self.screenshots / f"{name}.png")

    def plot(self, title: str) -> Locator:
        """Return the chart with a title."""
        exactly = re.compile(f"^{re.escape(title)}$")
        return self.page.locator(".plot-container").filter(has=self.page.locator(".plot-title", has_text=exactly))

    def wait_for_drawing(self, title: str) -> None:
        """Wait until a chart shows ink in the color of each run of its legend."""
        chart = self.plot(title)
        chart.scroll_into_view_if_needed()
        expect(chart.locator("canvas")).to_be_visible()

        def inked() -> bool:
            styles = chart.locator(".legend-dot").evaluate_all("dots => dots.map(d => getComputedStyle(d).background)")
            colors = [[int(part) for part in re.search(r"rgb\(([^)]*)\)", style)[1].split(",")] for style in styles]
            return bool(colors) and min(chart.locator("canvas").evaluate(_INK, colors)) > 3

        wait_until(inked, f"{title!r} is drawn in the colors of its runs")

    def plotted(self, title: str) -> dict[str, list[tuple[float, float]]]:
        """Return what a chart holds, as (x, y) by run: what its own button gives as a file."""
        text = self.plot(title).locator("button[title*=CSV]").evaluate(_CSV)
        points: dict[str, list[tuple[float, float]]] = defaultdict(list)
        names, *rows = csv.reader(io.StringIO(text or "run", newline=""))
        for row in rows:
            # The chart's x and y are its first two columns.
            points[row[names.index("run")]].append((float(row[0]), float(row[1])))
        return {run: sorted(pairs) for run, pairs in points.items()}

    def forgive(self) -> None:
        """Forget what the console was told of calls that failed because of the server."""
        self.problems[:] = [problem for problem in self.problems if not problem.startswith("console error")]

    def notice(self) -> Locator:
        """Return the bar that says why there is nothing to see."""
        return self.page.locator("#eventlog-notice")


@pytest.fixture(scope="session")
def chromium() -> str | None:
    """Return the path of a Chromium, or None for playwright's own."""
    named = os.environ.get("CHROMIUM")
    names = (named,) if named else ("chromium", "chromium-browser", "google-chrome")
    return next(filter(None, map(shutil.which, names)), None)


@pytest.fixture(scope="module")
def browser(chromium: str | None) -> Iterator[Browser]:
    """Return a browser; it ends with its module, for while it lives, this thread counts as one that runs a loop."""
    with sync_playwright() as driver:
        path = chromium or driver.chromium.executable_path
        if not os.path.exists(path):
            reason = "NO BROWSER: there is no chromium, so nothing of the dashboard was tested; see tools/chromium"
            (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(reason)
        running = driver.chromium.launch(executable_path=path, args=ARGUMENTS)
        expect.set_options(timeout=PATIENCE_S * 1000)
        yield running
        running.close()


@pytest.fixture(scope="session")
def screenshots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the directory where people find how it looked: $EVENTLOG_SCREENSHOTS, else among pytest's."""
    named = os.environ.get("EVENTLOG_SCREENSHOTS")
    if named is None:
        return tmp_path_factory.mktemp("screenshots")
    os.makedirs(named, exist_ok=True)
    return Path(named)


@pytest.fixture
def windows(browser: Browser, screenshots: Path) -> Iterator[Callable[[Server], Window]]:
    """Return a function that opens a window on a server, with no cookies; none may have seen a problem.

    It may ask no other addresses than those of the server and those that begin as `also` says.
    """
    opened: list[Window] = []

    def look_at(server: Server, also: tuple[str, ...] = ()) -> Window:
        opened.append(Window(browser, server, screenshots, also))
        return opened[-1]

    yield look_at
    for window in opened:
        window.context.close()
    assert [problem for window in opened for problem in window.problems] == []


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """Return a function that starts a server of its own, by default on an empty store."""
    servers: list[Server] = []

    def begin(**options: Any) -> Server:
        servers.append(Server(tmp_path, **options))
        return servers[-1]

    yield begin
    for server in servers:
        server.close()


@pytest.fixture(scope="module")
def idle(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Return a server on an empty store, for a module that only asks."""
    server = Server(tmp_path_factory.mktemp("idle"))
    yield server
    server.close()


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Return the server that most tests share; its project `digits` was logged natively and over HTTP at once."""
    server = Server(tmp_path_factory.mktemp("digits"))
    try:
        work = server.directory / "work"
        work.mkdir()
        writers = [
            server.log_over_http("everything", "digits", str(work)),
            server.log_natively("everything", "digits"),
        ]
        for writer in writers:
            server.finish(writer)
        yield server
    finally:
        server.close()
    assert "ERROR" not in server.said()
    assert "Traceback" not in server.said()


@pytest.fixture
def window(windows: Callable[[Server], Window], digits: Server) -> Window:
    """Return a window on the server that most tests share."""
    return windows(digits)


@pytest.fixture(name="wait_until", scope="session")
def waiting() -> Callable[..., Any]:
    """Return what asks until the answer is true."""
    return wait_until


@pytest.fixture(scope="session")
def token() -> str:
    """Return the token that servers ask of those who write."""
    return TOKEN
