"""Log with Trackio's own client, over HTTP: run by the tests as a process of its own.

everything PROJECT DIRECTORY: a run with one of everything, and one that reads its artifact. few PROJECT NAME: a run.
"""

from __future__ import annotations

import os
import sys
import time

import numpy as np
import pandas as pd
import trackio
from PIL import Image

STEPS = 40


def everything(project: str, directory: str) -> None:
    os.chdir(directory)
    run = trackio.init(
        project=project, name="over-http", config={"lr": 0.00025, "optimizer": {"name": "adamw"}}, auto_log_cpu=False
    )
    for step in range(STEPS):
        trackio.log({"loss": 2.0 / (step + 1), "train/accuracy": 1 - 0.9**step, "train/norm/grad": 3.0 + step % 5})
    for sample in range(5):
        gpus = {"gpu/0/utilization": 90.0 + sample, "gpu/1/utilization": 80.0 - sample}
        trackio.log_system({"cpu": 20.0 + sample, **gpus})
        time.sleep(0.05)
    red = Image.new("RGB", (96, 64), (220, 30, 40))
    frame = pd.DataFrame({"digit": ["four", "nine"], "errors": [17, 23]})
    pictures = pd.DataFrame({"prompt": ["a red field"], "picture": [trackio.Image(red, caption="in a cell")]})
    seconds = np.arange(8000) / 8000
    tone = (12000 * np.sin(2 * np.pi * 440 * seconds)).astype(np.int16)
    trackio.log({"sample": trackio.Image(red, caption="a red field")})
    trackio.log({"confusion": trackio.Table(dataframe=frame), "gallery": trackio.Table(dataframe=pictures)})
    trackio.log({"page": trackio.Html("<h1>Made over HTTP</h1>", caption="a page")})
    trackio.log({"tone": trackio.Audio(tone, sample_rate=8000)})
    with open("corner.obj", "w", encoding="utf-8") as file:
        file.write("v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n")
    trackio.log({"shape": trackio.Object3D("corner.obj", caption="a corner")})
    trackio.log({"weights": trackio.Histogram(np.linspace(-1, 1, 500))})
    trackio.log({"report": trackio.Markdown("# Report over HTTP\n\n- the loss **fell**\n- nothing else happened")})
    trackio.log({"chats": [trace(number, red) for number in range(2)]})
    trackio.alert("Over HTTP: info", text="the run began", level=trackio.AlertLevel.INFO)
    trackio.alert("Over HTTP: error", text="the loss is NaN", level=trackio.AlertLevel.ERROR)
    with open("notes.md", "w", encoding="utf-8") as file:
        file.write("# Notes\nThese lines were saved over HTTP.\n")
    trackio.save("notes.md")
    log_artifact("first weights")
    log_artifact("better weights")
    run.finish()

    reader = trackio.init(project=project, name="reads-artifact", auto_log_cpu=False)
    trackio.log({"loss": 0.5})
    trackio.log({"loss": 0.25})
    read = trackio.use_artifact("classifier:best").download()
    with open(os.path.join(read, "weights.bin"), "rb") as file:
        assert file.read() == b"better weights"
    reader.finish()


def log_artifact(content: str) -> None:
    with open("weights.bin", "wb") as file:
        file.write(content.encode())
    artifact = trackio.Artifact("classifier", type="model", description="it tells digits", metadata={"epochs": 3})
    artifact.add_file("weights.bin")
    trackio.log_artifact(artifact, aliases=["best"])


def trace(number: int, picture: Image.Image) -> trackio.Trace:
    return trackio.Trace(
        messages=[
            {"role": "user", "content": f"Question {number} over HTTP?"},
            {"role": "assistant", "content": [{"type": "text", "text": f"Answer {number}."}, trackio.Image(picture)]},
        ],
        metadata={"session": f"session-{number}"},
        spans=[
            {"id": "1", "name": "think", "kind": "generation", "duration_ms": 1500, "status": "ok", "cost_usd": 0.02},
            {"id": "2", "parent_id": "1", "name": "search", "kind": "tool", "input": "digits", "output": "ten"},
        ],
    )


def few(project: str, name: str) -> None:
    run = trackio.init(project=project, name=name, auto_log_cpu=False)
    for step in range(3):
        trackio.log({"loss": 9.0 - step})
    run.finish()


if __name__ == "__main__":
    {"everything": everything, "few": few}[sys.argv[1]](*sys.argv[2:])
