"""The dashboard: found where pip put the wheel of Trackio, served as it is, and never copied."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
from typing import Final, NamedTuple

TESTED: Final = frozenset({"0.43.0"})
PAGES: Final = frozenset(
    {"", "metrics", "system", "traces", "media", "reports", "runs", "run", "files", "artifacts", "settings"}
)
NOTICE_SCRIPT: Final = """
(function () {
  var bar = null;
  function show(text) {
    if (!text) { if (bar) { bar.remove(); bar = null; } return; }
    if (!bar) {
      bar = document.createElement("div");
      bar.id = "eventlog-notice";
      bar.setAttribute("role", "status");
      bar.style.cssText = "position:fixed;left:0;right:0;bottom:0;z-index:2147483647;padding:12px 20px;" +
        "font:15px/1.5 system-ui,sans-serif;background:#fff7d6;color:#3d3000;border-top:1px solid #d9c36a;" +
        "white-space:pre-wrap";
      document.body.appendChild(bar);
    }
    if (bar.textContent !== text) { bar.textContent = text; }
  }
  function ask() {
    fetch("/eventlog/notice", { cache: "no-store" })
      .then(function (answer) { return answer.json(); })
      .then(function (answer) { show(answer.text); })
      .catch(function () { show("The server does not answer; trying again."); });
  }
  ask();
  setInterval(ask, 3000);
})();
"""


class Dashboard(NamedTuple):
    """The files of a wheel's dashboard.

    Attributes:
        version: of Trackio.
        dist: the directory of the page.
        assets: the directory of the logos.
    """

    version: str
    dist: str
    assets: str

    @property
    def is_tested(self) -> bool:
        """Whether this release was tested with this version."""
        return self.version in TESTED

    def page(self) -> str:
        """Return the page, with one script more, which says why there is nothing to see.

        Raises:
            OSError: it cannot be read.
        """
        with open(os.path.join(self.dist, "index.html"), encoding="utf-8") as file:
            return file.read().replace("</body>", '<script src="/eventlog/notice.js"></script></body>', 1)


def find_dashboard() -> Dashboard | None:
    """Return the dashboard of the installed wheel, or None; Trackio itself is not imported."""
    spec = importlib.util.find_spec("trackio")
    if spec is None or not spec.submodule_search_locations:
        return None
    base = spec.submodule_search_locations[0]
    dist = os.path.join(base, "frontend", "dist")
    if not os.path.isfile(os.path.join(dist, "index.html")):
        return None
    try:
        version = importlib.metadata.version("trackio")
    except importlib.metadata.PackageNotFoundError:
        version = "unknown"
    return Dashboard(version, dist, os.path.join(base, "assets"))


MISSING_PAGE: Final = """<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>eventlog</title>
<link rel="icon" href="data:,"></head>
<body style="font:16px/1.6 system-ui,sans-serif;max-width:44em;margin:4em auto;padding:0 1em">
<h1>The dashboard is not installed</h1>
<p>The server works: clients can log, and its API answers. To see the runs here, install the dashboard beside it
and start it again:</p><pre>pip install 'eventlog[trackio]'</pre></body></html>
"""
