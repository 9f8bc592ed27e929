"""The `tools/bench` command: write, fold, read, serve; a table for people, or one JSON document."""

from __future__ import annotations

import json
import os
from typing import Any

import click
import fold
import machine
import read
import serve
import write
from rich.console import Console
from rich.table import Table

_ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
_BENCHMARKS = {"write": write, "fold": fold, "read": read, "serve": serve}


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("benchmark", type=click.Choice(list(_BENCHMARKS)))
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of a table.")
@click.option("--repeat", type=click.IntRange(min=1), default=5, show_default=True, help="Medians of so many turns.")
@click.option("--records", type=click.IntRange(min=200), help="Records of 8 metrics. [write 1 000 000, else 625 000]")
@click.option("--dir", "cache", type=click.Path(file_okay=False), help="Where data are made and kept. [.bench]")
def main(benchmark: str, as_json: bool, repeat: int, records: int | None, cache: str | None) -> None:  # noqa: FBT001
    """Measure, beside the raw limit and in turns with it.

    Figures of one document can be compared with each other, and with nothing else: machines differ and drift.
    """
    module = _BENCHMARKS[benchmark]
    cache = os.path.abspath(cache or os.path.join(_ROOT, ".bench"))
    os.makedirs(cache, exist_ok=True)
    facts = machine.facts(cache)
    found = module.measure(cache, records or module.DEFAULT_RECORDS, repeat)
    document: dict[str, Any] = {"benchmark": benchmark, "machine": facts, **found}
    if as_json:
        print(json.dumps(document, indent=1))
        return
    shown = Table(title=f"{benchmark}: {facts['cpu']}, {facts['cores']} cores, load {facts['load_1min']}, medians")
    for column in ("", "eventlog", "limit or peer"):
        shown.add_column(column, justify="right" if column else "left")
    for row in module.table(found):
        shown.add_row(*row)
    Console().print(shown)


if __name__ == "__main__":
    main()
