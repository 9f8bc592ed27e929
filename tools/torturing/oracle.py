"""What must be in the store, known outside of it: what each process tried, what it was promised, and every value."""

from __future__ import annotations

import hashlib
import os
import struct
from collections import Counter
from collections.abc import Iterator
from typing import Final, NamedTuple

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from eventlog.store import Store

PROJECT: Final = "torture"
_PAIR: Final = struct.Struct("<qB")
_LONGEST_NOTES: Final = 64 * 1024
TRIED: Final = 0
KEPT: Final = 1
DROPPED: Final = 2
_AT_ONCE: Final = 256


class Job(msgspec.Struct, frozen=True):
    """What one process of a run does.

    Attributes:
        root: the store.
        notes: the directory of the oracle's files.
        run: id and name of the run.
        kind: plain, forks, rank, small_files, flaky, or trackio.
        first_step: of this process; no two share a step of a run.
        seed: of its choices.
        server: address and token, for trackio.
    """

    root: str
    notes: str
    run: str
    kind: str
    first_step: int
    seed: int
    server: str = ""
    token: str = ""


class Notes:
    """Writes down, outside the store, what a process tries and what it was promised. One a process."""

    def __init__(self, directory: str, run: str) -> None:
        """Open a file of this process."""
        self._directory = directory
        self._run = run
        self._open()

    def _open(self) -> None:
        path = os.path.join(self._directory, f"{self._run}-{os.getpid()}-{os.urandom(4).hex()}.notes")
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o644)
        self._bytes = 0

    def write(self, step: int, what: int) -> None:
        """Note a step; it survives kill -9, as the store's records have to."""
        if self._bytes >= _LONGEST_NOTES:
            # A process with a limit on the size of its files has it on this one, too.
            os.close(self._fd)
            self._open()
        self._bytes += os.write(self._fd, _PAIR.pack(step, what))


def value(run: str, step: int, name: str) -> float:
    """Return what is logged under a name at a step: any process can tell it."""
    digest = hashlib.blake2b(f"{run}/{step}/{name}".encode(), digest_size=8).digest()
    number = int.from_bytes(digest, "little")
    return (float("nan"), float("inf"), -0.0, 5e-324)[number % 4] if number % 97 == 0 else number / 2**63 - 1.0


def names_at(run: str, step: int) -> list[str]:
    """Return the names that are logged at a step: shapes change every now and then."""
    shape = int.from_bytes(hashlib.blake2b(f"{run}/{step // 37}".encode(), digest_size=2).digest(), "little") % 6
    return [f"m{index}" for index in range(1 + shape * 3)]


class Expected(NamedTuple):
    """What the notes of all processes of a run say."""

    tried: set[int]
    kept: set[int]
    dropped: set[int]


def read_notes(directory: str) -> dict[str, Expected]:
    """Return what the notes say, by run."""
    found: dict[str, Expected] = {}
    for name in sorted(os.listdir(directory)):
        run = name.rsplit("-", 2)[0]
        expected = found.setdefault(run, Expected(set(), set(), set()))
        with open(os.path.join(directory, name), "rb") as file:
            data = file.read()
        # A process that was killed in mid-note leaves a part of one.
        for step, what in _PAIR.iter_unpack(data[: len(data) // _PAIR.size * _PAIR.size]):
            (expected.tried, expected.kept, expected.dropped)[what].add(step)
    return found


class Verdict(msgspec.Struct):
    """How the store compares with the notes.

    Attributes:
        records: that were compared.
        values: likewise.
        lost: promised, and not there.
        doubled: there more than once.
        invented: there, and never tried.
        wrong: there with another value, or other names.
        examples: a few, for people.
    """

    records: int = 0
    values: int = 0
    lost: int = 0
    doubled: int = 0
    invented: int = 0
    wrong: int = 0
    examples: list[str] = []

    @property
    def clean(self) -> bool:
        """Whether nothing is amiss."""
        return not (self.lost or self.doubled or self.invented or self.wrong)

    def say(self, what: str) -> None:
        """Keep an example."""
        if len(self.examples) < 20:
            self.examples.append(what)


def judge(store: Store, expected: dict[str, Expected]) -> Verdict:
    """Compare every record of the store with the notes, to the last bit."""
    verdict = Verdict()
    known = {row["run_id"]: row["name"] for row in store.runs(PROJECT).select(["run_id", "name"]).to_pylist()}
    runs = {name: run_id for run_id, name in known.items()}
    for name, rows in _by_run(store, runs, sorted({*runs, *expected})):
        notes = expected.get(name, Expected(set(), set(), set()))
        present = Counter[int]()
        for step, row in rows:
            present[step] += 1
            verdict.records += 1
            verdict.values += len(row)
            if not _is_right(name, step, row):
                verdict.wrong += 1
                verdict.say(f"{name} step {step}: {row}")
        for step, count in present.items():
            if count > 1:
                verdict.doubled += count - 1
                verdict.say(f"{name} step {step} is there {count} times")
            if step not in notes.tried:
                verdict.invented += 1
                verdict.say(f"{name} step {step} was never logged")
        missing = notes.kept - present.keys()
        verdict.lost += len(missing)
        if missing:
            verdict.say(f"{name}: steps {sorted(missing)[:5]} of {len(missing)} are lost")
    return verdict


def judge_rows(run: str, table: pa.Table) -> Iterator[str]:
    """Yield what is wrong with rows of a run."""
    for step, row in _listed(table):
        if not _is_right(run, step, row):
            yield f"{run} step {step} holds {row}"


def _by_run(
    store: Store, runs: dict[str, str], wanted: list[str]
) -> Iterator[tuple[str, Iterator[tuple[int, dict[str, float]]]]]:
    """Yield each run's rows. Many are read at once: of a tail that is too long to be kept, each answer reads all."""
    for start in range(0, len(wanted), _AT_ONCE):
        part = wanted[start : start + _AT_ONCE]
        ids = [runs[name] for name in part if name in runs]
        table = store.metrics(PROJECT, runs=ids)
        for name in part:
            mine = table.filter(pc.equal(table["_run_id"].cast(pa.string()), runs.get(name, "")))
            used = [column for column in mine.schema.names if mine[column].null_count < mine.num_rows]
            yield name, _listed(mine.select(used)) if mine.num_rows else iter(())


def _listed(table: pa.Table) -> Iterator[tuple[int, dict[str, float]]]:
    names = [name for name in table.schema.names if not name.startswith("_")]
    columns = [table[name].to_pylist() for name in names]
    for index, step in enumerate(table["_step"].to_pylist()):
        pairs = zip(names, columns, strict=True)
        yield step, {name: column[index] for name, column in pairs if column[index] is not None}


def _is_right(run: str, step: int, row: dict[str, float]) -> bool:
    wanted = names_at(run, step)
    if sorted(row) != sorted(wanted):
        return False
    mine = np.array([value(run, step, name) for name in wanted])
    theirs = np.array([row[name] for name in wanted])
    same = mine.view(np.uint64) == theirs.view(np.uint64)
    return bool((same | (np.isnan(mine) & np.isnan(theirs))).all())
