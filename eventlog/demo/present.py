"""What the demo shows: progress while it runs, and at the end the account, the curves and the way to read them."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from typing import Any, Final

import click
import msgspec
import numpy as np
from rich.box import SIMPLE
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn
from rich.table import Table
from rich.text import Text

from eventlog.demo import recorded, story
from eventlog.demo.checks import Expected, compare_all
from eventlog.demo.crew import DemoError
from eventlog.store import Store, open_store
from eventlog.verify import verify

_BLOCKS: Final = "▁▂▃▄▅▆▇█"
_SPARK_WIDTH: Final = 28


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """One run at the end: identity, how many of its recorded values came back equal, and its loss."""

    name: str
    run_id: str
    rows: int
    values: int
    differences: list[str]
    first_loss: float
    last_loss: float
    sparkline: str


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What the demo found; with `--json` it is printed.

    Attributes:
        ok: nothing lost, nothing doubled, every value equal, no process misbehaved.
        dir: the store.
        project: the project.
        seconds: how long it all took.
        returned: calls of `log()` that returned, as far as the processes could say.
        records, folded, tail, gaps, dropped, duplicates, lost, doubled: the account of `eventlog.verify`.
        findings: of `eventlog.verify`.
        runs: each run.
        course: what happened.
        problems: everything that is wrong, for people.
        read: the lines of Python that read the store.
    """

    ok: bool
    dir: str
    project: str
    seconds: float
    returned: int
    records: int
    folded: int
    tail: int
    gaps: int
    dropped: int
    duplicates: int
    lost: int
    doubled: int
    findings: list[str]
    runs: list[Run]
    course: story.Course
    problems: list[str]
    read: list[str]


class Quiet:
    """Shows nothing."""

    def event(self, text: str) -> None:
        """Do nothing."""

    def progress(self, done: dict[str, int], rows: dict[str, int], polls: int) -> None:
        """Do nothing."""


class Live:
    """A bar a training, and a line for the reader."""

    def __init__(self, console: Console) -> None:
        """Prepare the bars; use `bars` as a context manager."""
        self.bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[seen]}"),
            console=console,
        )
        self._tasks: dict[str, TaskID] = {}
        self._began = time.monotonic()

    def event(self, text: str) -> None:
        """Print a line above the bars."""
        self.bars.console.print(f"[dim]{time.monotonic() - self._began:5.1f} s[/]  {text}", highlight=False)

    def progress(self, done: dict[str, int], rows: dict[str, int], polls: int) -> None:
        """Move the bars."""
        for name, lines in done.items():
            if name not in self._tasks:
                total = len(recorded.load(name).lines)
                self._tasks[name] = self.bars.add_task(name, total=total, seen="")
            seen = f"the reader sees {rows.get(name, 0)}, look {polls}"
            self.bars.update(self._tasks[name], completed=lines, seen=seen)


def run(directory: str | None, seconds: float, *, as_json: bool) -> tuple[int, str]:
    """Run the demo and show it; return the exit code and the store."""
    root = _new_store(directory)
    console = Console(highlight=False, soft_wrap=True)
    began = time.monotonic()
    try:
        if as_json:
            course = story.play(root, seconds, Quiet())
        else:
            console.print(f"eventlog demo: four real trainings into {root}")
            live = Live(console)
            with live.bars:
                course = story.play(root, seconds, live)
        outcome = _judge(root, course, began)
    except DemoError as error:
        click.echo(f"eventlog demo: {error}", err=True)
        return 1, root
    if as_json:
        sys.stdout.buffer.write(msgspec.json.encode(outcome) + b"\n")
        sys.stdout.buffer.flush()
    else:
        _print(console, outcome)
    return (0 if outcome.ok else 1), root


def _new_store(directory: str | None) -> str:
    if directory is None:
        return tempfile.mkdtemp(prefix="eventlog-demo-")
    root = os.path.abspath(directory)
    os.makedirs(root, exist_ok=True)
    if recorded.PROJECT in open_store(root).projects():
        raise click.UsageError(f"{root} holds a project {recorded.PROJECT!r} already: choose another --dir")
    return root


def _judge(root: str, course: story.Course, began: float) -> Outcome:
    report = verify(root, recorded.PROJECT)
    store = open_store(root)
    expected = [Expected(recording) for recording in recorded.load_all()]
    differences = compare_all(store, recorded.PROJECT, expected)
    runs = [_run(store, run, differences[run.name]) for run in expected]
    findings = [f"{finding.where}: {finding.message}" for finding in report.findings]
    problems = [*course.problems, *findings, *(text for found in differences.values() for text in found)]
    counts = {name: getattr(report, name) for name in ("gaps", "dropped", "lost", "doubled")}
    problems += [f"{number} records {name}" for name, number in counts.items() if number]
    return Outcome(
        **counts,
        ok=not problems,
        dir=root,
        project=recorded.PROJECT,
        seconds=time.monotonic() - began,
        returned=course.returned,
        records=report.records,
        folded=report.folded,
        tail=report.tail,
        duplicates=report.duplicates,
        findings=findings,
        runs=runs,
        course=course,
        problems=problems,
        read=reading_lines(root),
    )


def _run(store: Store, expected: Expected, differences: list[str]) -> Run:
    table = store.runs(recorded.PROJECT).select(["name", "run_id", "logs"])
    named = [row for row in table.to_pylist() if row["name"] == expected.name]
    loss = store.curve(recorded.PROJECT, expected.name, "loss")["value"].to_numpy() if named else np.empty(0)
    return Run(
        name=expected.name,
        run_id=named[0]["run_id"] if named else "",
        rows=named[0]["logs"] if named else 0,
        values=expected.points,
        differences=differences,
        first_loss=float(loss[0]) if len(loss) else float("nan"),
        last_loss=float(loss[-1]) if len(loss) else float("nan"),
        sparkline=sparkline(loss),
    )


def sparkline(values: np.ndarray[Any, np.dtype[np.float64]], width: int = _SPARK_WIDTH) -> str:
    """Return a curve as a line of blocks, each the mean of its share of the points."""
    if not len(values):
        return ""
    means = np.array([part.mean() for part in np.array_split(values, min(width, len(values)))])
    span = float(means.max() - means.min()) or 1.0
    levels = ((means - means.min()) / span * (len(_BLOCKS) - 1)).round().astype(int)
    return "".join(_BLOCKS[level] for level in levels)


def reading_lines(root: str) -> list[str]:
    """Return three lines of Python that read the store with pyarrow, as they can be pasted."""
    return [
        "from eventlog.store import open_store",
        f"table = open_store({root!r}).metrics({recorded.PROJECT!r})  # a pyarrow.Table",
        "print(table.group_by('_run_id').aggregate([('loss', 'count'), ('loss', 'min')]).to_pylist())",
    ]


def _print(console: Console, outcome: Outcome) -> None:
    account = Table(title="eventlog.verify says", title_justify="left", show_header=False, box=SIMPLE)
    account.add_row("records logged", f"{outcome.records:,}")
    account.add_row("in the snapshot", f"{outcome.folded:,}")
    account.add_row("in the tail", f"{outcome.tail:,}")
    for name in ("lost", "doubled", "gaps", "dropped"):
        number = getattr(outcome, name)
        if number or name in ("lost", "doubled"):
            account.add_row(name, Text(f"{number:,}", style="bold red" if number else "bold green"))
    console.print(account)
    runs = Table(title="read back and compared, bit for bit", title_justify="left", box=SIMPLE)
    for column in ("run", "calls", "values", "equal", "loss"):
        runs.add_column(column, no_wrap=True)
    for item in outcome.runs:
        equal = Text("all", style="bold green") if not item.differences else Text("NO", style="bold red")
        loss = f"{item.first_loss:.3f} {item.sparkline} {item.last_loss:.3f}"
        runs.add_row(item.name, f"{item.rows:,}", f"{item.values:,}", equal, loss)
    console.print(runs)
    for problem in outcome.problems:
        console.print(Text(problem, style="red"))
    seen = outcome.course.seen
    if not seen.problems:
        console.print(
            f"The reader looked {seen.polls} times meanwhile: no row ever went, and each look showed an exact start of "
            f"every recording. The slowest look took {seen.slowest_ms:.0f} ms.\n"
        )
    console.print("Read it yourself:\n")
    for line in outcome.read:
        console.print(Text(f"    {line}"))
    verdict = "[bold green]nothing lost, nothing doubled, every value equal[/]" if outcome.ok else "[bold red]NOT OK[/]"
    console.print(f"\n{verdict} ({outcome.seconds:.1f} s). The store is kept in {outcome.dir}")
