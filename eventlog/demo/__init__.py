"""`eventlog demo`: four real trainings into one store, two kills on the way, and the proof that nothing is lost."""

from __future__ import annotations

import signal
import sys
from types import FrameType

import click


@click.command("demo")
@click.option("--dir", "directory", type=click.Path(file_okay=False), help="The store. [a new temporary directory]")
@click.option(
    "--seconds",
    type=click.FloatRange(1.0, 600.0),
    default=8.0,
    show_default=True,
    help="How long the trainings take; the checks take a few seconds more.",
)
@click.option("--no-serve", is_flag=True, help="End after the checks, without the dashboard; for scripts.")
@click.option("--port", type=click.IntRange(0, 65535), help="Of the dashboard. [7860, or a free one when it is taken]")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document, and nothing else; implies --no-serve.")
def demo(directory: str | None, seconds: float, no_serve: bool, port: int | None, as_json: bool) -> None:  # noqa: FBT001
    """Replay four real trainings as processes; kill one, and the compactor; show that nothing is lost.

    Each training logs to one project while a reader polls it and a compactor folds it. One training is killed
    with SIGKILL and resumed, the compactor is killed and started again. Afterwards every value is read back and
    compared with what was recorded. Then the store is served with a dashboard until Ctrl-C; it is kept. Exit
    code 0: nothing lost, nothing doubled, every value equal; 1: not so; 2: the call was wrong.
    """
    from eventlog.demo import present, serving

    previous = {number: signal.signal(number, _end) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        exit_code, root = present.run(directory, seconds, as_json=as_json)
        if exit_code == 0 and not no_serve and not as_json:
            exit_code = serving.serve(root, port)
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
    sys.exit(exit_code)


def _end(number: int, frame: FrameType | None) -> None:
    """End as an exception does, so that no process is left behind."""
    del frame
    sys.exit(128 + number)


__all__ = ["demo"]
