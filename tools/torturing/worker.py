"""A process of the torture that logs: plainly, with forks, as a rank, with small files, or on a flaky disk."""

from __future__ import annotations

import contextlib
import errno
import os
import random
import resource
import sys
import time
import warnings

import msgspec
from oracle import DROPPED, KEPT, PROJECT, TRIED, Job, Notes, names_at, value

from eventlog.config import WriterConfig
from eventlog.errors import DurabilityUnknownError
from eventlog.fs import LocalFs
from eventlog.run import Run, RunInfo


class FlakyFs(LocalFs):
    """A disk that fails now and then: writes, and syncs."""

    def __init__(self, seed: int) -> None:
        """Take the seed of the failures."""
        self._random = random.Random(seed)

    def write(self, fd: int, data: bytes) -> int:  # type: ignore[override]
        """Write all, some, or nothing."""
        chance = self._random.random()
        if chance < 0.004:
            raise OSError(errno.EIO, "the disk failed")
        if chance < 0.008:
            return os.write(fd, data[: len(data) // 2])
        return os.write(fd, data)

    def sync(self, fd: int) -> None:  # type: ignore[override]
        """Sync, or fail."""
        if self._random.random() < 0.05:
            raise OSError(errno.EIO, "the disk failed")
        os.fdatasync(fd)


def main(job: Job) -> None:
    """Log until the parent is gone or kills this process; now and then finish by itself."""
    warnings.simplefilter("ignore")
    choice = random.Random(job.seed)
    settings = WriterConfig(
        segment_bytes=choice.choice((4096, 16_384, 262_144)),
        sync_interval_s=choice.choice((None, 0.05, 1.0)),
        roll_interval_s=choice.choice((0.5, 3600.0)),
    )
    if job.kind == "small_files":
        limit = 128 * 1024
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        settings = msgspec.structs.replace(settings, segment_bytes=1 << 20)
    fs = FlakyFs(job.seed) if job.kind == "flaky" else LocalFs()
    info = RunInfo(project=PROJECT, run_id=job.run, name=job.run, rank=0 if job.kind == "rank" else None, mode="attach")
    run = Run(job.root, info, config=settings, fs=fs)
    parent = os.getppid()
    step = job.first_step
    until = time.monotonic() + choice.uniform(1.0, 8.0)
    notes = Notes(job.notes, job.run)
    children: list[int] = []
    while os.getppid() == parent and time.monotonic() < until:
        step = _log_some(run, notes, job.run, step, choice)
        if job.kind == "forks" and len(children) < 2 and choice.random() < 0.1:
            child = os.fork()
            if child == 0:
                own = Notes(job.notes, job.run)
                base = job.first_step + 1_000_000 * (1 + len(children))
                for part in range(choice.randrange(1, 10)):
                    _log_some(run, own, job.run, base + part * 1000, choice)
                if choice.random() < 0.5:
                    run.finish()
                os._exit(0)
            children.append(child)
        if choice.random() < 0.1:
            _flush(run)
        time.sleep(choice.choice((0.0, 0.001, 0.02)))
    for child in children:
        os.waitpid(child, 0)
    with contextlib.suppress(DurabilityUnknownError):  # its disk is flaky: what it logged can be read all the same
        run.finish()


def _flush(run: Run) -> None:
    with contextlib.suppress(DurabilityUnknownError):
        run.flush()


def _log_some(run: Run, notes: Notes, name: str, step: int, choice: random.Random) -> int:
    for at in range(step, step + choice.randrange(1, 60)):
        data: dict[str, object] = {key: value(name, at, key) for key in names_at(name, at)}
        if at % 50 == 0:
            data["note"] = f"step {at}"
        notes.write(at, TRIED)
        before = run.lost
        run.log(data, step=at)
        notes.write(at, KEPT if run.lost == before else DROPPED)
        step = at + 1
    return step


if __name__ == "__main__":
    main(msgspec.json.decode(sys.argv[1], type=Job))
