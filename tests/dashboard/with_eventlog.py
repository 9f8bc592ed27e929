"""Log natively: run by the tests as a process of its own, beside those that log over HTTP.

everything PROJECT STORE: one run with one of everything. crowd PROJECT STORE RUNS STEPS: runs of two metrics.
points PROJECT STORE NAME: a run that logs each loss it reads from its input, and says so.
"""

from __future__ import annotations

import math
import sys
import time

from PIL import Image

import eventlog

STEPS = 60


def everything(project: str, store: str) -> None:
    blue = Image.new("RGB", (96, 64), (30, 60, 220))
    settings = {"lr": 0.004, "layers": [64, 32]}
    talk = [{"role": "user", "content": "A native question?"}, {"role": "assistant", "content": "A native answer."}]
    with eventlog.init(project=project, name="native", dir=store, config=settings, group="natives") as run:
        for step in range(STEPS):
            run.log({"loss": 3.0 / (step + 1), "train/accuracy": 1 - 0.8**step, "train/norm/grad": 2.0 + step % 7})
        run.log({"loss": math.nan, "never finite": math.inf})
        for sample in range(6):
            run.log_system({"cpu": 40.0 + sample, "gpu/0/utilization": 60.0 + sample})
            time.sleep(0.05)
        run.log({"sample": eventlog.Image(blue, caption="a blue field")})
        run.log({"confusion": eventlog.Table(["digit", "errors"], [["seven", 31], ["one", 2]])})
        run.log({"gallery": eventlog.Table(["prompt", "picture"], [["a blue field", eventlog.Image(blue)]])})
        run.log({"page": eventlog.Html("<h1>Made natively</h1>")})
        run.log({"tone": eventlog.Audio([math.sin(i / 3) / 2 for i in range(8000)], sample_rate=8000)})
        run.log({"weights": eventlog.Histogram([i / 250 for i in range(500)])})
        run.log({"report": eventlog.Markdown("# Native report\n\n- the loss **rose** at the end")})
        run.log({"chat": eventlog.Trace(talk, metadata={"session": "native-session"})})
        run.alert("Native: warn", "the loss is not a number", level="warn")


def crowd(project: str, store: str, runs: str, steps: str) -> None:
    for number in range(int(runs)):
        with eventlog.init(project=project, name=f"run-{number:02}", dir=store) as run:
            for step in range(int(steps)):
                run.log({"loss": math.exp(-step / 500) + number / 100, "accuracy": step / int(steps)})


def points(project: str, store: str, name: str) -> None:
    with eventlog.init(project=project, name=name, dir=store) as run:
        say("started")
        for line in sys.stdin:
            run.log({"loss": float(line)})
            say("logged")


def say(word: str) -> None:
    sys.stdout.write(f"{word}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    {"everything": everything, "crowd": crowd, "points": points}[sys.argv[1]](*sys.argv[2:])
