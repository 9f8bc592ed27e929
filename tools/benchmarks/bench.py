"""The `tools/bench` command: a table for people, one JSON document, a chart; and a report of all benchmarks."""

from __future__ import annotations

import json
import os
from types import ModuleType
from typing import Any, Final

import click
import crowd
import environments
import flat
import fold
import machine
import peers
import read
import report
import serve
import sync
import write

_ROOT: Final = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
_BENCHMARKS: Final = {
    "peers": peers,
    "crowd": crowd,
    "write": write,
    "fold": fold,
    "read": read,
    "serve": serve,
    "sync": sync,
    "flat": flat,
}


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Measure, beside the raw limit or the peers and in turns with them.

    Figures of one document can be compared with each other, and with nothing else: machines differ and drift.
    """


def _cache(path: str | None) -> str:
    path = os.path.abspath(path or os.path.join(_ROOT, ".bench"))
    os.makedirs(path, exist_ok=True)
    return path


def _run(
    name: str, *, as_json: bool, plot: str | None, repeat: int, records: int | None, cache: str | None, **more: Any
) -> None:
    module, cache = _BENCHMARKS[name], _cache(cache)
    facts = machine.facts(cache)
    found = module.measure(cache, records or module.DEFAULT_RECORDS, repeat, **more)
    document: dict[str, Any] = {"benchmark": name, "machine": facts, **found}
    if plot is not None:
        try:
            drawn = report.draw(module, document, plot)
        except environments.UnavailableError as error:
            raise click.ClickException(f"no chart is drawn: matplotlib is {error}") from error
        if not drawn:
            raise click.ClickException(f"{name} has no chart")
    if as_json:
        print(json.dumps(document, indent=1))
        return
    for grid in report.grids_of(module, document):
        grid.show()


def _command(name: str, module: ModuleType) -> click.Command:
    """Return the command of one benchmark; its options are those of all, and `--peers` where it has peers."""
    repeat = getattr(module, "DEFAULT_REPEAT", 5)
    parameters: list[click.Parameter] = [
        click.Option(["--json", "as_json"], is_flag=True, help="Print one JSON document instead of tables."),
        click.Option(["--plot"], type=click.Path(dir_okay=False), metavar="PNG", help="Draw a chart into this file."),
        click.Option(["--repeat"], type=click.IntRange(min=1), default=repeat, help=f"Medians of so many. [{repeat}]"),
        click.Option(
            ["--records"], type=click.IntRange(min=1), help=f"Records of each subject. [{module.DEFAULT_RECORDS:,}]"
        ),
        click.Option(["--dir", "cache"], type=click.Path(file_okay=False), help="Where data are kept. [.bench]"),
    ]
    if hasattr(module, "NAMES"):
        choice, text = click.Choice(module.NAMES), "Only this one, beside the limit; may be given again. [all]"
        parameters.append(click.Option(["--peers", "only"], multiple=True, type=choice, help=text))
    summary = (module.__doc__ or "").split("\n")[0]
    return click.Command(name, callback=lambda **options: _run(name, **options), params=parameters, help=summary)


@main.command("report")
@click.option("--quick", is_flag=True, help="Sizes so small that it only shows that everything works.")
@click.option("--only", multiple=True, type=click.Choice(list(_BENCHMARKS)), help="Only this one; may be given again.")
@click.option("--again", multiple=True, type=click.Choice(list(_BENCHMARKS)), help="Measure this one again.")
@click.option("--output", type=click.Path(dir_okay=False), help="What to write. [BENCHMARKS.md in the root]")
@click.option("--dir", "cache", type=click.Path(file_okay=False), help="Where data are kept. [.bench]")
def write_report(
    *, quick: bool, only: tuple[str, ...], again: tuple[str, ...], output: str | None, cache: str | None
) -> None:
    """Run all benchmarks and write BENCHMARKS.md, with charts in docs/benchmarks.

    What was measured is kept in the cache: run it again after an interruption, and it goes on where it was. Then
    --again NAME measures one benchmark anew, and everything is new in another --dir.
    """
    names = [name for name in _BENCHMARKS if not only or name in only]
    found = report.collect(_cache(cache), names, quick=quick, again=again)
    if not found:
        raise click.ClickException("every benchmark failed, and nothing is written")
    path = os.path.abspath(output or os.path.join(_ROOT, "BENCHMARKS.md"))
    try:
        report.write(path, found, _BENCHMARKS, quick=quick)
    except environments.UnavailableError as error:
        raise click.ClickException(f"no chart is drawn: matplotlib is {error}") from error
    print(path)
    if len(found) < len(names):
        raise click.ClickException(f"failed, and not in the report: {', '.join(sorted(set(names) - set(found)))}")


for _name, _module in _BENCHMARKS.items():
    main.add_command(_command(_name, _module))


if __name__ == "__main__":
    main()
