"""The `eventlog` group: which command is in which module."""

from __future__ import annotations

import importlib
import importlib.util
import keyword
from typing import Final

import click

from eventlog import __version__
from eventlog.commands.output import ErrorGroup

_MODULES: Final = {
    "admin": "eventlog.commands.changing",
    "curve": "eventlog.commands.reading",
    "demo": "eventlog.demo",
    "export": "eventlog.commands.copying",
    "import": "eventlog.commands.datasets",
    "inspect": "eventlog.commands.checking",
    "projects": "eventlog.commands.reading",
    "runs": "eventlog.commands.reading",
    "ship": "eventlog.commands.copying",
    "tail": "eventlog.commands.following",
    "verify": "eventlog.commands.checking",
}


class _Group(ErrorGroup):
    """Imports a command's module when the command is needed: `--version` costs no pyarrow."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Name the commands whose modules are installed."""
        del ctx
        return [name for name, module in _MODULES.items() if importlib.util.find_spec(module) is not None]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import one command."""
        if cmd_name not in self.list_commands(ctx):
            return None
        attribute = f"{cmd_name}_" if keyword.iskeyword(cmd_name) else cmd_name
        command: click.Command = getattr(importlib.import_module(_MODULES[cmd_name]), attribute)
        return command


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="eventlog")
def cli() -> None:
    """Read, check and copy an eventlog store. STORE is its directory; what only reads also takes a bucket of the Hub.

    Exit codes: 0 all is well, 1 `verify` or `inspect` found something, 2 a wrong call or an environment that refused.
    """
