"""A training process of the demo: it logs one recording line by line, as its trainer did, and says how far it is.

Run as `python -m eventlog.demo.replay JOB`, with a `Job` as JSON. After each `log()` that returned, it writes the
number of lines logged so far to its standard output: what was acknowledged must survive kill -9.
"""

from __future__ import annotations

import os
import sys
import time
from typing import Final

import msgspec

import eventlog
from eventlog.demo import recorded

_TICK_S: Final = 0.1


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """What to replay.

    Attributes:
        root: the store.
        project: the project.
        name: of the recording and of the run.
        seconds: how long the whole recording takes.
        resume: continue the run after the last step that is in the store.
    """

    root: str
    project: str
    name: str
    seconds: float
    resume: bool = False


def replay(job: Job) -> None:
    """Log the recording, or what the store lacks of it, at the pace asked for."""
    recording = recorded.load(job.name)
    if not job.resume:
        run = eventlog.init(job.project, job.name, config=recording.config, dir=job.root)
        _log_from(run, recording, 0, job.seconds)
        return
    first = recording.line_after(_last_step(job))
    run = eventlog.init(job.project, job.name, dir=job.root, resume="must")
    _log_from(run, recording, first, job.seconds)


def _last_step(job: Job) -> int | None:
    """Ask the store, as a training that resumes without a checkpoint of its own would."""
    from eventlog.store import open_store

    found = open_store(job.root).find_run(job.project, name=job.name)
    return None if found is None else found.last_step


def _log_from(run: eventlog.Run, recording: recorded.Recording, first: int, seconds: float) -> None:
    """Log in small bursts, so that a kill in between finds log() at work."""
    total = len(recording.lines)
    done = first
    began = time.monotonic()
    while done < total:
        due = first + int((time.monotonic() - began) / seconds * total) + 1
        for line in recording.lines[done:due]:
            values = dict(line)
            step = values.pop("step")
            run.log(values, step=step)
            done += 1
            os.write(1, b"%d\n" % done)
        time.sleep(_TICK_S)
    run.finish()


if __name__ == "__main__":
    replay(msgspec.json.decode(sys.argv[1], type=Job))
