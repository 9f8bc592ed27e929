"""Torture a store: writers, compactors, a server and a reader at once, killed and stopped at random, then judged."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from typing import IO, Final

import click
import msgspec
from disk import SmallDisk
from oracle import PROJECT, Job, Verdict, judge, read_notes

from compactor.config import CompactorConfig
from compactor.work import take_turn
from eventlog.fs import LOCAL
from eventlog.store import open_store
from eventlog.verify import verify

_HERE: Final = os.path.dirname(os.path.abspath(__file__))
_WRITERS: Final = 5
_COMPACTORS: Final = 2
_KINDS: Final = ("plain", "plain", "forks", "rank", "small_files", "flaky")
_TOKEN: Final = "torture"  # noqa: S105 - a server of its own, on loopback
_TICK_S: Final = 0.05


class Outcome(msgspec.Struct, kw_only=True):
    """What a torture took and what came of it.

    Attributes:
        seed, seconds: of it.
        processes: that were started, by kind.
        kills: by SIGKILL, by kind of process.
        stops: by SIGSTOP, each for a while.
        full_disks: how often the disk had no room for a while; None where no file system may be mounted.
        dropped: log() calls that the writer said it could not keep.
        promised: records that must be there.
        polls, followed: of the readers, and the rows that they followed.
        verdict: the store beside the notes.
        verify: what `eventlog verify` says: records, lost, doubled, and each finding.
        problems: what a process said or did that it must not.
    """

    seed: int
    seconds: float
    processes: dict[str, int] = {}
    kills: dict[str, int] = {}
    stops: int = 0
    full_disks: int | None = None
    dropped: int = 0
    promised: int = 0
    polls: int = 0
    followed: int = 0
    verdict: Verdict = msgspec.field(default_factory=Verdict)
    verify: dict[str, object] = {}
    problems: list[str] = []

    @property
    def clean(self) -> bool:
        """Whether nothing is amiss."""
        account = self.verify
        return self.verdict.clean and not (
            self.problems or account.get("lost") or account.get("doubled") or account.get("findings")
        )


class Process:
    """One process of the torture, with what it prints in a file."""

    def __init__(self, base: str, kind: str, command: list[str], environment: dict[str, str] | None = None) -> None:
        """Start it."""
        self.kind = kind
        self.resumes_at = 0.0
        self._out: IO[bytes] = open(os.path.join(base, "logs", f"{kind}-{time.monotonic_ns()}"), "w+b")  # noqa: SIM115
        env = {**os.environ, **(environment or {})}
        self.process = subprocess.Popen(command, stdout=self._out, stderr=subprocess.STDOUT, env=env)

    @property
    def exit_code(self) -> int | None:
        """Its exit code, or None while it runs."""
        return self.process.poll()

    def printed(self) -> str:
        """Return what it printed so far."""
        self._out.flush()
        with open(self._out.name, "rb") as file:
            return file.read().decode(errors="replace")

    def signal(self, number: int) -> None:
        """Send a signal, if it is still there."""
        if self.exit_code is None:
            self.process.send_signal(number)


class Torture:
    """The driver; its choices follow from the seed, what the machine makes of them does not."""

    def __init__(self, base: str, seed: int, seconds: float) -> None:
        """Prepare the directories."""
        self.outcome = Outcome(seed=seed, seconds=seconds)
        self._base = base
        self._notes = os.path.join(base, "notes")
        self._choice = random.Random(seed)
        self.disk = SmallDisk(os.path.join(base, "disk"), random.Random(seed))
        self.root = os.path.join(self.disk.path, "store")
        for directory in (self.root, self._notes, os.path.join(base, "logs")):
            os.makedirs(directory, exist_ok=True)
        self._live: list[Process] = []
        self._runs = 0
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self._port = probe.getsockname()[1]

    def run(self) -> Outcome:
        """Torture, stop, and judge."""
        until = time.monotonic() + self.outcome.seconds
        while time.monotonic() < until:
            self._fill()
            self._hurt()
            self.disk.turn()
            self._reap()
            time.sleep(_TICK_S)
        self.disk.make_room()
        self.outcome.full_disks = None if self.disk.why_not else self.disk.times_full
        self._stop()
        return self._judge()

    def abandon(self) -> None:
        """Kill every process and take the disk away: for an end that nobody planned."""
        for process in self._live:
            process.signal(signal.SIGKILL)
            process.process.wait()
        self.disk.unmount()

    def _count(self, kind: str) -> int:
        return sum(process.kind == kind for process in self._live)

    def _start(self, kind: str, command: list[str], environment: dict[str, str] | None = None) -> None:
        self._live.append(Process(self._base, kind, [sys.executable, *command], environment))
        self.outcome.processes[kind] = self.outcome.processes.get(kind, 0) + 1

    def _fill(self) -> None:
        """Start what is missing."""
        while self._count("compactor") < _COMPACTORS:
            options = ["--fold-interval", "0.2", "--sweep-interval", "0.2", "--grace", "4", "--keep-segments", "5"]
            self._start("compactor", ["-m", "compactor", "run", self.root, *options, "--fanout", "3"])
        if not self._count("server"):
            options = ["--port", str(self._port), "--write-token", _TOKEN, "--ui", "none", "--no-compact"]
            self._start("server", ["-m", "compactor", "serve", self.root, *options])
        if not self._count("reader"):
            self._start("reader", [os.path.join(_HERE, "reader.py"), self.root])
        if not self._count("client"):
            self._client()
        while self._count("writer") < _WRITERS:
            self._writers()

    def _job(self, kind: str, run: str, first_step: int) -> Job:
        return Job(self.root, self._notes, run, kind, first_step, self._choice.randrange(1 << 30))

    def _writers(self) -> None:
        self._runs += 1
        kind = self._choice.choice(_KINDS)
        for rank in range(3 if kind == "rank" else 1):
            job = self._job(kind, f"run{self._runs}", rank * 10_000_000)
            self._start("writer", [os.path.join(_HERE, "worker.py"), msgspec.json.encode(job).decode()])

    def _client(self) -> None:
        self._runs += 1
        job = self._job("trackio", f"run{self._runs}", 0)
        job = msgspec.structs.replace(job, server=f"http://127.0.0.1:{self._port}", token=_TOKEN)
        home = os.path.join(self._base, f"trackio-{self._runs}")
        environment = {"TRACKIO_DIR": home, "TRACKIO_WRITE_TOKEN": _TOKEN, "HF_HUB_OFFLINE": "1", "HF_HOME": home}
        self._start("client", [os.path.join(_HERE, "client.py"), msgspec.json.encode(job).decode()], environment)

    def _hurt(self) -> None:
        """Kill or stop processes, each kind at its own rate."""
        rates = {"writer": 0.015, "compactor": 0.02, "server": 0.008, "reader": 0.002, "client": 0.002}
        for process in self._live:
            if process.resumes_at:
                if time.monotonic() >= process.resumes_at:
                    process.signal(signal.SIGCONT)
                    process.resumes_at = 0.0
                continue
            chance = self._choice.random()
            if chance < rates[process.kind]:
                process.signal(signal.SIGKILL)
                self.outcome.kills[process.kind] = self.outcome.kills.get(process.kind, 0) + 1
            elif chance < 1.5 * rates[process.kind]:
                process.signal(signal.SIGSTOP)
                process.resumes_at = time.monotonic() + self._choice.uniform(0.05, 1.5)
                self.outcome.stops += 1

    def _reap(self) -> None:
        for process in [process for process in self._live if process.exit_code is not None]:
            self._live.remove(process)
            if process.exit_code not in (0, -signal.SIGKILL):
                said = process.printed()[-2000:]
                self.outcome.problems.append(f"a {process.kind} ended with {process.exit_code}: {said}")
            if process.kind == "reader":
                self._hear(process)

    def _hear(self, reader: Process) -> None:
        polls = followed = 0
        for line in reader.printed().splitlines():
            if line.startswith("polls "):
                polls, followed = (int(word) for word in line.split()[1:3])
            else:
                self.outcome.problems.append(f"a reader: {line}")
        self.outcome.polls += polls
        self.outcome.followed += followed

    def _stop(self) -> None:
        """Let writers and clients come to their end beside a server that lives, then end the rest politely."""
        for process in self._live:
            process.signal(signal.SIGCONT)
            process.resumes_at = 0.0
        if not self._count("server"):
            self._fill()
        self._await_server()
        deadline = time.monotonic() + 90
        while (self._count("writer") or self._count("client")) and time.monotonic() < deadline:
            self._reap()
            time.sleep(_TICK_S)
        for kind, number in (("reader", signal.SIGKILL), ("compactor", signal.SIGTERM), ("server", signal.SIGTERM)):
            for process in self._live:
                if process.kind == kind:
                    process.signal(number)
        for process in self._live:
            if process.kind in ("writer", "client"):
                self.outcome.problems.append(f"a {process.kind} did not come to its end: {process.printed()[-500:]}")
                process.signal(signal.SIGKILL)
            try:
                process.process.wait(30)
            except subprocess.TimeoutExpired:
                self.outcome.problems.append(f"a {process.kind} did not end within 30 s of SIGTERM")
                process.process.kill()
                process.process.wait()
        self._reap()

    def _await_server(self) -> None:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{self._port}/healthz", timeout=5):
                    return
            except (urllib.error.URLError, OSError):
                time.sleep(0.2)
                self._reap()
                if not self._count("server"):
                    self._fill()

    def _judge(self) -> Outcome:
        expected = read_notes(self._notes)
        self.outcome.promised = sum(len(notes.kept) for notes in expected.values())
        self.outcome.dropped = sum(len(notes.dropped) for notes in expected.values())
        before = judge(open_store(self.root), expected)
        take_turn(LOCAL, self.root, PROJECT, CompactorConfig(fanout=2))
        self.outcome.verdict = judge(open_store(self.root), expected)
        if before.records != self.outcome.verdict.records:
            self.outcome.problems.append(
                f"{before.records} records before the last fold, {self.outcome.verdict.records} after it"
            )
        report = verify(self.root)
        # What a flaky disk would not take was dropped, and a writer that says so is right.
        findings = [f"{item.where}: {item.message}" for item in report.findings if item.code != "dropped"]
        self.outcome.verify = {
            "records": report.records,
            "lost": report.lost,
            "doubled": report.doubled,
            "dropped": report.dropped,
            "gaps": report.gaps,
            "findings": findings,
        }
        return self.outcome


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--seconds", type=click.FloatRange(min=1), default=60.0, show_default=True, help="How long it hurts.")
@click.option("--seed", type=int, help="Of its choices. [a random one, printed]")
@click.option("--dir", "directory", type=click.Path(file_okay=False), help="Where to work. [temporary]")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def main(seconds: float, seed: int | None, directory: str | None, as_json: bool) -> None:  # noqa: FBT001 - click's
    """Torture a store and say what came of it; exit 0 only if nothing was lost, doubled, invented or changed.

    A failing seed makes the same choices again; what the machine makes of them may differ.
    """
    seed = random.SystemRandom().randrange(1 << 30) if seed is None else seed
    base = directory or tempfile.mkdtemp(prefix="eventlog-torture-")
    if not as_json:
        click.echo(f"torture: seed {seed}, {seconds:g} s, in {base}", err=True)
    torture = Torture(base, seed, seconds)
    if torture.disk.why_not:
        click.echo(
            f"torture: SKIPPED: full disks, for a file system could not be mounted: {torture.disk.why_not}", err=True
        )
    try:
        outcome = torture.run()
    except BaseException:
        torture.abandon()
        raise
    if as_json:
        click.echo(json.dumps({**msgspec.to_builtins(outcome), "clean": outcome.clean}))
    else:
        _show(outcome)
    if outcome.clean:
        torture.disk.unmount()
    if outcome.clean and directory is None:
        shutil.rmtree(base)
    elif not outcome.clean:
        click.echo(f"torture: NOT CLEAN, everything is kept in {base}; again with --seed {seed}", err=True)
    sys.exit(0 if outcome.clean else 1)


def _show(outcome: Outcome) -> None:
    verdict = outcome.verdict
    for label, text in {
        "processes": ", ".join(f"{count} {kind}" for kind, count in sorted(outcome.processes.items())),
        "kill -9": ", ".join(f"{count} {kind}" for kind, count in sorted(outcome.kills.items())),
        "stopped and resumed": str(outcome.stops),
        "full disks": "none, mounting is not allowed" if outcome.full_disks is None else str(outcome.full_disks),
        "promised records": f"{outcome.promised:,}, {outcome.dropped:,} dropped and said so",
        "reader": f"{outcome.polls:,} polls, {outcome.followed:,} rows followed",
        "compared": f"{verdict.records:,} records, {verdict.values:,} values",
        "lost, doubled, invented, wrong": f"{verdict.lost}, {verdict.doubled}, {verdict.invented}, {verdict.wrong}",
        "verify": ", ".join(f"{key} {value}" for key, value in outcome.verify.items() if key != "findings"),
    }.items():
        click.echo(f"{label:32}{text}")
    for text in (*verdict.examples, *map(str, outcome.verify.get("findings", ())), *outcome.problems):  # type: ignore[call-overload]
        click.echo(f"! {text}")


if __name__ == "__main__":
    main()
