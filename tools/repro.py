#!/usr/bin/env -S uv run --script
# /// script
# requires-python = ">=3.11"
# dependencies = [
#   "torch>=2.7",
#   "transformers>=5",
#   "trl>=1",
#   "datasets>=4",
#   "accelerate>=1.8",
#   "trackio==0.43.0",
# ]
# ///
"""Train with TRL and trackio in several processes at once, and compare what a server kept with what they logged.

    tools/repro.py --tiny --runs 8 --max-steps 40 --server http://127.0.0.1:7860 --write-token TOKEN

The trainers are plain `SFTTrainer`s with `report_to="trackio"` and `logging_steps=1`: nothing in them knows which
server it is. Each writes its own `log_history` to a file; when all have ended, every value in these files is asked for
from the server. Exits 0 when all values are there, equal, and there once; 1 when not; 2 when the call is wrong.

The client sends again while the server is away, until half a minute after the training (five seconds, when it was away
from the start). What it could not send by then stays in `<output-dir>/<run>/trackio`, and counts as missing.

Without uv: install what the head of this file names, and run it with that Python.
"""

from __future__ import annotations

import argparse
import http.client
import json
import math
import os
import shutil
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections import defaultdict
from typing import Any, Final, NamedTuple

PATIENCE_S: Final = 60.0
# The callback of transformers leaves these out.
NOT_SENT: Final = {"train_runtime", "train_samples_per_second", "train_steps_per_second", "train_loss", "total_flos"}
Values = dict[tuple[str, int], Any]


def arguments() -> argparse.Namespace:
    """Return the command line, checked; ends the process with 2 when it is wrong."""
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").split("\n\n", maxsplit=1)[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        epilog="The model cache is $HF_HOME, or made under the output directory; with --tiny nothing is fetched.",
    )
    add = parser.add_argument
    add("--run-name", default=time.strftime("repro-%Y%m%d-%H%M%S"), help="name of the run; several get -0, -1, ...")
    add("--model", default="Qwen/Qwen3-0.6B", help="model to train, on the Hub or a directory")
    add("--dataset", default="trl-lib/Capybara", help="dataset to train on, on the Hub or a directory")
    add("--project", default="repro", help="trackio project")
    add("--server", default=os.environ.get("TRACKIO_SERVER_URL"), help="URL of the server [$TRACKIO_SERVER_URL]")
    add("--write-token", default=None, help="its write token; default $TRACKIO_WRITE_TOKEN or that in the URL")
    add("--output-dir", default="repro-output", help="for histories, logs and checkpoints")
    add("--hub-model", help="push the model there; sets trackio_static_space_id=False, without which the callback "
        "would also publish the client's own empty database as a Space")  # fmt: skip
    add("--max-steps", type=int, default=100, help="training steps")
    add("--max-length", type=int, default=512, help="tokens in a sequence, at most")
    add("--workers", type=int, default=0, help="dataloader workers in each trainer")
    add("--learning-rate", type=float, default=2e-5, help="peak learning rate")
    add("--seed", type=int, default=0, help="of the first run; the next has the next")
    add("--runs", type=int, default=1, help="trainers to start at once")
    add("--tiny", action="store_true", help="a small random model, a local tokenizer and dataset, on the CPU, offline")
    add("--history", help=argparse.SUPPRESS)  # set in a child: train here, and write the log_history to this file
    args = parser.parse_args()
    if not (args.server or "").startswith(("http://", "https://")):
        parser.error("--server or $TRACKIO_SERVER_URL must be the http:// or https:// URL of the server")
    if args.runs < 1 or args.max_steps < 1:
        parser.error("--runs and --max-steps must be at least 1")
    url = urllib.parse.urlsplit(args.server)
    in_url = urllib.parse.parse_qs(url.query).get("write_token", [None])[0]
    args.server = urllib.parse.urlunsplit((url.scheme, url.netloc, url.path.rstrip("/"), "", ""))
    args.write_token = args.write_token or in_url or os.environ.get("TRACKIO_WRITE_TOKEN")
    if not args.write_token:
        parser.error("the trackio client wants a write token: give --write-token or $TRACKIO_WRITE_TOKEN")
    return args


def train(args: argparse.Namespace) -> None:
    """Train one model as a user would, and write its log_history; runs in each trainer's process."""
    import torch
    from trl import SFTConfig, SFTTrainer

    config = SFTConfig(
        output_dir=args.output_dir,
        run_name=args.run_name,
        project=args.project,
        report_to="trackio",
        trackio_static_space_id=False,
        logging_steps=1,
        max_steps=args.max_steps,
        max_length=args.max_length,
        learning_rate=args.learning_rate,
        seed=args.seed,
        dataloader_num_workers=args.workers,
        per_device_train_batch_size=4,
        eval_strategy="steps" if args.tiny else "no",
        eval_steps=max(1, args.max_steps // 2),
        save_strategy="no",
        use_cpu=args.tiny,
        bf16=not args.tiny and torch.cuda.is_available() and torch.cuda.is_bf16_supported(),
        push_to_hub=bool(args.hub_model),
        hub_model_id=args.hub_model,
    )
    trainer = SFTTrainer(args=config, **(tiny_parts(args) if args.tiny else hub_parts(args)))
    trainer.train()
    with open(args.history, "w", encoding="utf-8") as file:
        json.dump(trainer.state.log_history, file, default=float)
    if args.hub_model:
        trainer.push_to_hub()


def hub_parts(args: argparse.Namespace) -> dict[str, Any]:
    """Return the model's name, for the trainer to load, and the dataset."""
    from datasets import load_dataset

    return {"model": args.model, "train_dataset": load_dataset(args.dataset, split="train")}


def tiny_parts(args: argparse.Namespace) -> dict[str, Any]:
    """Return a random Qwen3 model of two layers, a tokenizer of single bytes, and sums to learn."""
    import torch
    from datasets import Dataset
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

    marks = {"pad_token": "<pad>", "eos_token": "<eos>"}
    words = [*marks.values(), *sorted(pre_tokenizers.ByteLevel.alphabet())]
    bytewise = Tokenizer(models.BPE(vocab={word: number for number, word in enumerate(words)}, merges=[]))
    bytewise.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    torch.manual_seed(args.seed)
    config = Qwen3Config(
        vocab_size=len(words),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        pad_token_id=0,
        eos_token_id=1,
        bos_token_id=None,
    )
    sums = [(i % 37, i % 23) for i in range(256)]
    rows = Dataset.from_list([{"text": f"{a} and {b} make {a + b}."} for a, b in sums])
    return {
        "model": Qwen3ForCausalLM(config),
        "processing_class": PreTrainedTokenizerFast(tokenizer_object=bytewise, **marks),
        "train_dataset": rows,
        "eval_dataset": rows.select(range(16)),
    }


class Trainer(NamedTuple):
    """One trainer process and the files it leaves, as the parent sees them; the parent never imports torch."""

    name: str
    process: subprocess.Popen[bytes]
    private: tuple[str, ...]
    history: str
    log: str


def start(args: argparse.Namespace, number: int) -> Trainer:
    """Start one trainer. What the trackio client spools, and with --tiny all else, goes to its own directory."""
    name = args.run_name if args.runs == 1 else f"{args.run_name}-{number}"
    home = os.path.abspath(os.path.join(args.output_dir, name))
    history, log, spool = (os.path.join(home, part) for part in ("history.json", "train.log", "trackio"))
    env = {key: value for key, value in os.environ.items() if key not in ("TRACKIO_SPACE_ID", "TRACKIO_BUCKET_ID")}
    env |= {"TRACKIO_DIR": spool, "TRACKIO_SERVER_URL": args.server, "TRACKIO_WRITE_TOKEN": args.write_token}
    env.setdefault("HF_HOME", os.path.abspath(os.path.join(args.output_dir, "huggingface")))
    private: tuple[str, ...] = (spool,)
    if args.tiny:
        private = (spool, os.path.join(home, "huggingface"))
        threads = max(1, (os.cpu_count() or 1) // args.runs)
        env |= {"HF_HOME": private[1], "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": str(threads)}
    own = {"--run-name": name, "--seed": args.seed + number, "--output-dir": home, "--history": history}
    given = [f"{option}={value}" for option, value in own.items()]
    command = [sys.executable, os.path.abspath(__file__), *sys.argv[1:], *given]
    for directory in private:
        os.makedirs(directory, exist_ok=True)
    with open(log, "wb") as file:
        process = subprocess.Popen(command, env=env, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT)
    return Trainer(name, process, private, history, log)


def ask(args: argparse.Namespace, name: str, **request: Any) -> Any:
    """Return what the server answers.

    Raises:
        OSError: it cannot be reached, or answers with an error.
        ValueError: it does not answer with JSON.
    """
    url, headers = f"{args.server}/api/{name}", {"Content-Type": "application/json"}
    call = urllib.request.Request(url, json.dumps(request).encode(), headers)  # noqa: S310 - http(s), it was checked
    try:
        with urllib.request.urlopen(call, timeout=60) as answer:  # noqa: S310 - likewise
            return json.load(answer)["data"]
    except http.client.HTTPException as error:
        raise OSError(f"{url}: {error!r}") from error


def run_ids(args: argparse.Namespace, name: str) -> list[str]:
    """Return the ids of all runs of that name; errors as `ask`."""
    return [run["id"] for run in ask(args, "get_runs_for_project", project=args.project) if run["name"] == name]


def logged(history: list[dict[str, Any]]) -> Values:
    """Return what the callback sent, by metric and trackio's step, which counts the calls; as in rewrite_logs."""
    found: Values = {}
    for call, entry in enumerate(history):
        for key, value in entry.items():
            if key == "step":
                found["train/global_step", call] = value
            elif key not in NOT_SENT:
                part = key.partition("_")
                name = f"{part[0]}/{part[2]}" if part[0] in ("eval", "test") and part[1] else f"train/{key}"
                found[name, call] = value
    return found


class Comparison(NamedTuple):
    """One run's values: how many the trainer logged, and how many of them the server has not, or has otherwise."""

    steps: int
    compared: int
    missing: int
    different: int
    doubled: int

    @property
    def equal(self) -> bool:
        """Whether every value is there, equal and once."""
        return self.compared > 0 and not (self.missing or self.different or self.doubled)


def compare(args: argparse.Namespace, name: str, history: list[dict[str, Any]]) -> Comparison:
    """Ask for every metric of a run, and compare; values that were never logged count as doubled. Errors as `ask`."""
    expected = logged(history)
    kept: defaultdict[tuple[str, int], list[Any]] = defaultdict(list)
    for run_id in run_ids(args, name):
        for metric in {metric for metric, _ in expected}:
            request = {"project": args.project, "run": name, "run_id": run_id, "metric_name": metric}
            for point in ask(args, "get_metric_values", **request):
                kept[metric, point["step"]].append(point["value"])
    present = [key for key in expected if key in kept]
    return Comparison(
        steps=len({entry["step"] for entry in history}),
        compared=len(expected),
        missing=len(expected) - len(present),
        different=sum(not same(expected[key], kept[key][0]) for key in present),
        doubled=sum(map(len, kept.values())) - len(present),
    )


def same(logged_value: Any, kept: Any) -> bool:
    """Say whether a value is the one that was logged, to the last bit; JSON has null or a word for NaN and infinity."""
    if isinstance(logged_value, float) and not math.isfinite(logged_value):
        return kept is None or str(float(kept)) == str(logged_value)
    return bool(logged_value == kept)


def watch(args: argparse.Namespace, histories: dict[str, list[dict[str, Any]]]) -> dict[str, Comparison]:
    """Compare until all is there, or nothing new has come for a minute; print how far it is."""
    nothing = {name: (len({e["step"] for e in h}), len(logged(h))) for name, h in histories.items()}
    found = {name: Comparison(steps, count, count, 0, 0) for name, (steps, count) in nothing.items()}
    fewest, since, error, last = math.inf, time.monotonic(), "", False
    while True:
        for name in [name for name, one in found.items() if one.missing or last]:
            try:
                found[name] = compare(args, name, histories[name])
            except (OSError, ValueError) as problem:
                error = f"; last error: {problem}"
        missing = sum(one.missing for one in found.values())
        if missing < fewest:
            fewest, since = missing, time.monotonic()
            print(f"{sum(one.compared for one in found.values()) - missing} values have arrived, {missing} have not")
        if time.monotonic() - since > PATIENCE_S:
            print(f"nothing more came for {PATIENCE_S:.0f} s; the client keeps what it could not send{error}")
            return found
        if last:
            return found
        last = not missing  # once more for all of them: doubled values come late
        time.sleep(1)


def free(args: argparse.Namespace, names: list[str]) -> bool:
    """Say whether the server has no run of these names yet: the client would go on in it, and nothing be comparable."""
    try:
        taken = [name for name in names if run_ids(args, name)]
    except (OSError, ValueError) as error:
        print(f"the server does not answer yet, the trainers will try again: {error}")
        return True
    if taken:
        print(f"project {args.project} has a run named {', '.join(taken)} already: choose another --run-name")
    return not taken


def main() -> int:
    """Train, here or in several processes, and compare; returns the exit status."""
    args = arguments()
    if args.history:
        train(args)
        return 0
    if not free(args, [args.run_name] if args.runs == 1 else [f"{args.run_name}-{i}" for i in range(args.runs)]):
        return 2
    began = time.monotonic()
    trainers: list[Trainer] = []
    try:
        trainers += (start(args, number) for number in range(args.runs))
        print(f"{args.runs} trainers started; their output is in {args.output_dir}/{args.run_name}*/train.log")
        codes = {trainer.name: trainer.process.wait() for trainer in trainers}
    finally:
        for trainer in trainers:
            trainer.process.terminate()
    print(f"all ended after {time.monotonic() - began:.0f} s")
    histories = {}
    for trainer in trainers:
        if codes[trainer.name]:
            print(f"{trainer.name} failed with {codes[trainer.name]}: see {trainer.log}")
        elif os.path.exists(trainer.history):
            with open(trainer.history, encoding="utf-8") as file:
                histories[trainer.name] = json.load(file)
    found = watch(args, histories)
    width = max(map(len, codes))
    print(f"\n{'run':{width}}  {'steps logged':>12}  {'values compared':>15}  missing  different  doubled")
    for name, one in found.items():
        counts = f"{one.missing:>7}  {one.different:>9}  {one.doubled:>7}"
        print(f"{name:{width}}  {one.steps:>12}  {one.compared:>15}  {counts}")
    if len(found) < args.runs or not all(one.equal for one in found.values()):
        print("\nNOT EQUAL")
        return 1
    for directory in (directory for trainer in trainers for directory in trainer.private):
        shutil.rmtree(directory)
    print("\nevery value is there, equal, and once")
    return 0


if __name__ == "__main__":
    sys.exit(main())
