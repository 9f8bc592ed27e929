"""The entry point of the `eventlog` command: the one line that says what to install when something is missing."""

from __future__ import annotations

import sys
from typing import Final

_NEEDED: Final = frozenset({"click", "rich", "pyarrow", "numpy"})


def main() -> None:
    """Run the command line; see `eventlog --help`. Exits with 0, 1 for findings, 2 for errors."""
    try:
        from eventlog.commands import cli

        cli(prog_name="eventlog")
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in _NEEDED:
            raise
        sys.exit(_explain(package))


def _explain(package: str) -> int:
    sys.stderr.write(f"eventlog: the command line needs {package}: pip install 'eventlog[cli]'\n")
    return 2
