"""A process of the torture that logs over HTTP with the unmodified Trackio client, through every fault."""

from __future__ import annotations

import os
import random
import sys
import time
import warnings

import msgspec
from oracle import KEPT, PROJECT, TRIED, Job, Notes, names_at, value


def main(job: Job) -> None:
    """Log some hundred steps; they are promised only once the client has finished without spooling anything."""
    warnings.simplefilter("ignore")
    import trackio
    from trackio.sqlite_storage import SQLiteStorage

    choice = random.Random(job.seed)
    notes = Notes(job.notes, job.run)
    trackio.init(project=PROJECT, name=job.run, server_url=job.server, resume="never", embed=False)
    steps = range(job.first_step, job.first_step + choice.randrange(50, 400))
    for step in steps:
        notes.write(step, TRIED)
        trackio.log({name: value(job.run, step, name) for name in names_at(job.run, step)}, step=step)
        time.sleep(choice.choice((0.0, 0.0, 0.02)))
    trackio.finish()
    # What the client could not send by then is in its own spool: it promised nothing for that.
    if SQLiteStorage.has_pending_data(PROJECT):
        return
    for step in steps:
        notes.write(step, KEPT)


if __name__ == "__main__":
    main(msgspec.json.decode(sys.argv[1], type=Job))
    sys.stdout.flush()
    os._exit(0)
