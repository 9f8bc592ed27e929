"""The course of the demo: four trainings, a reader and a compactor at once; two of them are killed on the way."""

from __future__ import annotations

import time
from typing import Final

import msgspec

from eventlog import manifest as manifests
from eventlog import names
from eventlog.demo import poll, recorded
from eventlog.demo.checks import Expected
from eventlog.demo.crew import Crew, DemoError, Display
from eventlog.fs import LOCAL
from eventlog.live import LiveTail
from eventlog.store import open_store

VICTIM: Final = "lr1e-3"
_KILL_WRITER_AT: Final = 0.4
_KILL_COMPACTOR_AT: Final = 0.6
_WATCH_S: Final = 3.0
_SETTLE_S: Final = 6.0


class WriterKill(msgspec.Struct, frozen=True, kw_only=True):
    """What the kill of a training left.

    Attributes:
        run: its name.
        acknowledged: lines whose `log()` had returned, as the process said before it died.
        in_store: lines that are in the store: at least as many.
        differences: between those lines and the recorded ones.
    """

    run: str
    acknowledged: int
    in_store: int
    differences: list[str] = []


class CompactorKill(msgspec.Struct, frozen=True, kw_only=True):
    """What the kill of the compactor left.

    Attributes:
        version: the newest snapshot at that moment.
        unfinished: files it had begun, but not published.
    """

    version: int
    unfinished: list[str]


class Course(msgspec.Struct, frozen=True, kw_only=True):
    """What happened.

    Attributes:
        returned: calls of `log()` that returned, as far as the processes could say.
        writer_kill, compactor_kill: the accidents.
        seen: what the reader saw.
        problems: what should not have happened.
    """

    returned: int
    writer_kill: WriterKill
    compactor_kill: CompactorKill
    seen: poll.Seen
    problems: list[str]


def play(root: str, seconds: float, display: Display) -> Course:
    """Play it to the end; no process is left.

    Args:
        root: the store's directory, which exists.
        seconds: how long the trainings take.
        display: who is told what happens.

    Raises:
        DemoError: a process ended when it should not have; the message is what it said.
    """
    recordings = {recording.name: recording for recording in recorded.load_all()}
    with Crew(root, seconds, recordings, display) as crew:
        display.event("4 trainings, a compactor and a reader are running")
        _reach(crew, _KILL_WRITER_AT, VICTIM)
        writer_kill = _kill_writer(root, crew, recordings[VICTIM], display)
        _reach(crew, _KILL_COMPACTOR_AT, *recordings)
        compactor_kill = _kill_compactor(root, crew, display)
        crew.wait_until(lambda: all(writer.exit_code == 0 for writer in crew.writers.values()))
        display.event("all trainings have finished")
        crew.wait_until(lambda: not _has_tail(root), _SETTLE_S)
        problems = [*writer_kill.differences, *_problems_of_kill(crew, writer_kill), *_end(crew)]
        return Course(
            returned=crew.returned + sum(writer.returned for writer in crew.writers.values()),
            writer_kill=writer_kill,
            compactor_kill=compactor_kill,
            seen=crew.reader.seen,
            problems=problems,
        )


def _reach(crew: Crew, share: float, *names: str) -> None:
    if not crew.wait_until(lambda: min(map(crew.share, names)) >= share):
        raise DemoError(f"the trainings {', '.join(names)} do not get on")


def _kill_writer(root: str, crew: Crew, recording: recorded.Recording, display: Display) -> WriterKill:
    """Kill a training in the middle of its work, look at what is there, and let a new process go on."""
    acknowledged = crew.kill_writer(VICTIM)
    rows = open_store(root).metrics(recorded.PROJECT, runs=VICTIM)
    display.event(
        f"kill -9 {VICTIM}: it had acknowledged {acknowledged} lines, {rows.num_rows} are in the store; resuming it"
    )
    crew.resume_writer(VICTIM, rows.num_rows)
    differences = Expected(recording).differences_in_start(rows)
    return WriterKill(run=VICTIM, acknowledged=acknowledged, in_store=rows.num_rows, differences=differences)


def _problems_of_kill(crew: Crew, kill: WriterKill) -> list[str]:
    found: list[str] = []
    if kill.in_store < kill.acknowledged:
        found.append(f"{kill.run}: {kill.acknowledged} lines were acknowledged, {kill.in_store} are in the store")
    first = crew.writers[kill.run].first
    if first != kill.in_store:
        found.append(f"{kill.run}: went on at line {first}, but {kill.in_store} lines were in the store")
    return found


def _kill_compactor(root: str, crew: Crew, display: Display) -> CompactorKill:
    """Kill the compactor when it has begun a new file, which no manifest names yet, and start another."""
    before = _data_files(root)
    deadline = time.monotonic() + _WATCH_S
    while not _data_files(root) - before and time.monotonic() < deadline:
        time.sleep(0.0005)
    crew.compactor.kill()
    newest, _ = manifests.load_newest(LOCAL, root, recorded.PROJECT)
    unfinished = sorted(_data_files(root) - before - {file.path for file in newest.files})
    display.event(
        f"kill -9 the compactor in a fold: snapshot {newest.version} is whole, "
        f"{len(unfinished)} unpublished files are left; starting another"
    )
    crew.restart_compactor()
    return CompactorKill(version=newest.version, unfinished=unfinished)


def _data_files(root: str) -> set[str]:
    base = names.snapshot_dir(root, recorded.PROJECT)
    return {
        names.data_file_path(table, entry.name)
        for table in names.TABLES
        for entry in LOCAL.entries(f"{base}/data/{table}")
    }


def _has_tail(root: str) -> bool:
    newest, _ = manifests.load_newest(LOCAL, root, recorded.PROJECT)
    tail = LiveTail(LOCAL, root, newest)
    tail.refresh()
    return any(True for _ in tail.parts())


def _end(crew: Crew) -> list[str]:
    """Stop the compactor and the reader as an operator would; return what went wrong in them."""
    found: list[str] = []
    exit_code = crew.compactor.terminate(_SETTLE_S)
    if exit_code != 0:
        found.append(f"the compactor ended with {exit_code}: {crew.compactor.complaint()}")
    crew.reader.close_input()
    exit_code = crew.reader.wait(_SETTLE_S)
    if exit_code != 0:
        found.append(f"the reader ended with {exit_code}: {crew.reader.complaint()}")
    return found + crew.reader.listen().problems
