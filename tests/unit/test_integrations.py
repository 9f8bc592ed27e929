"""The integrations: what a Trainer or an Accelerator logs is in the store, exactly; both drive the real packages."""

from __future__ import annotations

import json
import math
import os
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest

import eventlog
from eventlog import DurabilityUnknownError, EventLogWarning, UsageError
from eventlog.run import Run
from eventlog.store import open_store

PROJECT = "p"
HINT = "is not installed in this environment: pip install 'eventlog[{}]' runs these tests"
FINAL = {"train_runtime": 1.5, "train_samples_per_second": 8.25, "train_steps_per_second": 2.0, "train_loss": 0.75}


def needs(package: str, extra: str) -> Any:
    return pytest.importorskip(package, reason=f"{package} {HINT.format(extra)}")


class Model:
    """Stands in for a model, which would need torch."""

    config: ClassVar[dict[str, Any]] = {"model_type": "tiny", "hidden_size": 8, "learning_rate": "the model's"}

    def num_parameters(self) -> int:
        return 12_345


class Training:
    """Calls callbacks through transformers' own handler, with real arguments and state, as a Trainer does."""

    def __init__(self, callback: Any, output_dir: Any, *, first: bool = True, model: Any = None, **arguments: Any):
        transformers = needs("transformers", "transformers")
        from transformers.trainer_callback import CallbackHandler, DefaultFlowCallback

        class Arguments(transformers.TrainingArguments):
            n_gpu = 1  # the property asks torch

        self.args = Arguments(str(output_dir), **arguments)
        self.state = transformers.TrainerState(is_world_process_zero=first)
        self.control = transformers.TrainerControl()
        self.callback = callback
        self.handler = CallbackHandler([DefaultFlowCallback, callback], model or Model(), None, None, None)

    def begin(self) -> None:
        self.handler.on_train_begin(self.args, self.state, self.control)

    def log(self, step: int, values: dict[str, Any]) -> None:
        self.state.global_step = step
        self.handler.on_log(self.args, self.state, self.control, values)

    def predict(self, values: dict[str, Any]) -> None:
        self.handler.on_predict(self.args, self.state, self.control, values)

    def end(self) -> None:
        self.handler.on_train_end(self.args, self.state, self.control)


@pytest.fixture
def callback(store: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return the class of the callback, which writes to the store that the environment names."""
    needs("transformers", "transformers")
    from eventlog.integrations.transformers import EventLogCallback

    monkeypatch.setenv("EVENTLOG_DIR", store)
    return EventLogCallback


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVENTLOG_SYNC_INTERVAL_S", "off")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def rows(store: str, project: str = PROJECT) -> list[tuple[str, int, dict[str, float]]]:
    """Return (run id, step, numbers sorted by name) of each log call, in order."""
    found = []
    table = open_store(store).metrics(project)
    kept = sorted(name for name in table.column_names if not name.startswith("_"))
    for row in table.select(["_run_id", "_step", *kept]).to_pylist():
        numbers = {name: row[name] for name in kept if row[name] is not None}
        found.append((row["_run_id"], row["_step"], numbers))
    return found


def runs(store: str, project: str = PROJECT) -> list[dict[str, Any]]:
    columns = ["run_id", "name", "group", "tags", "status", "config", "summary", "logs"]
    found = open_store(store).runs(project).select(columns).to_pylist()
    return [{**run, "config": json.loads(run["config"]), "summary": json.loads(run["summary"])} for run in found]


def refuse(_: Any) -> None:
    raise DurabilityUnknownError("no")


def test_a_training_is_kept_exactly(callback: Any, store: str, tmp_path: Any):
    made = callback(PROJECT, group="g", tags=["a", "b"])
    training = Training(made, tmp_path, run_name="named", learning_rate=0.1 + 0.2, seed=7)
    assert not os.path.exists(store)
    training.begin()
    training.log(1, {"loss": 1 / 3, "grad_norm": math.nan, "learning_rate": 1e-320, "epoch": 0.1})
    training.log(2, {"loss": -math.inf, "grad_norm": 2.0**60, "learning_rate": 0.0, "epoch": 0.2})
    training.log(2, {"eval_loss": 0.1, "eval_runtime": 3.0, "epoch": 0.2})
    training.log(3, {**FINAL, "total_flos": 123456789.0, "epoch": 0.3})
    training.state.best_metric = 0.1
    training.end()

    (run,) = runs(store)
    assert (run["name"], run["group"], run["tags"], run["status"]) == ("named", "g", ["a", "b"], "finished")
    assert run["summary"] == {**FINAL, "total_flos": 123456789.0, "best_metric": 0.1}
    assert {key: run["config"][key] for key in ("model_type", "hidden_size", "learning_rate", "seed")} == {
        "model_type": "tiny",
        "hidden_size": 8,
        "learning_rate": 0.1 + 0.2,
        "seed": 7,
    }
    assert run["config"]["model/num_parameters"] == 12_345
    assert run["config"].items() >= training.args.to_sanitized_dict().items()

    final = {f"train/{name}": value for name, value in FINAL.items()}
    expected = [
        (1, {"train/loss": 1 / 3, "train/grad_norm": math.nan, "train/learning_rate": 1e-320, "train/epoch": 0.1}),
        (2, {"train/loss": -math.inf, "train/grad_norm": 2.0**60, "train/learning_rate": 0.0, "train/epoch": 0.2}),
        (2, {"eval/loss": 0.1, "eval/runtime": 3.0, "train/epoch": 0.2}),
        (3, {**final, "train/total_flos": 123456789.0, "train/epoch": 0.3}),
    ]
    found = [(step, row) for _, step, row in rows(store)]
    assert repr(found) == repr(
        [(step, dict(sorted({**row, "train/global_step": float(step)}.items()))) for step, row in expected]
    )


def test_what_was_logged_is_in_the_store_while_training_goes_on(callback: Any, store: str, tmp_path: Any):
    training = Training(callback(PROJECT), tmp_path)
    training.begin()
    assert [run["status"] for run in runs(store)] == ["running"]
    training.log(5, {"loss": 0.5})
    assert [row[1:] for row in rows(store)] == [(5, {"train/loss": 0.5, "train/global_step": 5.0})]


def test_only_world_process_zero_logs(callback: Any, store: str, tmp_path: Any):
    training = Training(callback(PROJECT), tmp_path, first=False)
    training.begin()
    training.log(1, {"loss": 1.0})
    training.predict({"test_loss": 1.0})
    training.end()
    assert not os.path.exists(store)


@pytest.mark.parametrize(
    ("given", "environment", "arguments", "expected"),
    [("a", "b", "c", "a"), (None, "b", "c", "b"), (None, "", "c", "c")],
)
def test_the_project_is_the_argument_or_the_environment_or_the_training_arguments(
    callback: Any, store: str, tmp_path: Any, monkeypatch: pytest.MonkeyPatch, given, environment, arguments, expected
):
    monkeypatch.setenv("EVENTLOG_PROJECT", environment)
    Training(callback(given), tmp_path, project=arguments).begin()
    assert open_store(store).projects() == [expected]


def test_a_name_and_a_directory_can_be_given(callback: Any, store: str, tmp_path: Any):
    Training(callback(PROJECT, "mine", dir=tmp_path / "other"), tmp_path, run_name="theirs").begin()
    assert [run["name"] for run in runs(str(tmp_path / "other"))] == ["mine"]
    assert not os.path.exists(store)


def test_what_comes_after_the_training_goes_on_in_the_same_run(callback: Any, store: str, tmp_path: Any):
    training = Training(callback(PROJECT), tmp_path)
    training.begin()
    training.log(1, {"loss": 1.0})
    training.end()
    assert [run["status"] for run in runs(store)] == ["finished"]
    training.log(1, {"eval_loss": 2.0})
    training.predict({"test_loss": 3.0})
    training.begin()
    training.log(2, {"loss": 4.0})
    training.end()
    (run,) = runs(store)
    assert run["status"] == "finished"
    assert sorted((step, sorted(row.items())) for _, step, row in rows(store)) == [
        (1, [("eval/loss", 2.0), ("train/global_step", 1.0)]),
        (1, [("test/loss", 3.0), ("train/global_step", 1.0)]),
        (1, [("train/global_step", 1.0), ("train/loss", 1.0)]),
        (2, [("train/global_step", 2.0), ("train/loss", 4.0)]),
    ]


def test_an_evaluation_without_a_training_has_a_run(callback: Any, store: str, tmp_path: Any):
    Training(callback, tmp_path, project=PROJECT).log(0, {"eval_loss": 2.0})
    assert [row[1:] for row in rows(store)] == [(0, {"eval/loss": 2.0, "train/global_step": 0.0})]


def test_by_default_each_training_is_a_run_and_allow_goes_on_in_the_one_of_that_name(
    callback: Any, store: str, tmp_path: Any
):
    for seed, resume in enumerate(["never", "never", "allow"]):
        training = Training(callback(PROJECT, resume=resume), tmp_path, run_name="same", seed=seed)
        training.begin()
        training.log(seed, {"loss": float(seed)})
        training.end()
    first, second = runs(store)
    assert [run["config"]["seed"] for run in (first, second)] == [0, 2]
    assert {(run_id, step) for run_id, step, _ in rows(store)} == {
        (first["run_id"], 0),
        (second["run_id"], 1),
        (second["run_id"], 2),
    }


def test_each_trial_of_a_search_is_a_run_of_its_group(callback: Any, store: str, tmp_path: Any):
    training = Training(callback(PROJECT), tmp_path, run_name="search")
    training.state.is_hyper_param_search = True
    for trial in ("first", "second"):
        training.state.trial_name = trial
        training.begin()
        training.log(1, {"loss": 1.0})
    training.end()
    assert [(run["name"], run["group"], run["status"], run["logs"]) for run in runs(store)] == [
        ("first", "search", "finished", 1),
        ("second", "search", "finished", 1),
    ]


def test_a_run_that_the_script_has_open_is_used_and_left_open(callback: Any, store: str, tmp_path: Any):
    run = eventlog.init(PROJECT, "script", config={"mine": 1})
    training = Training(callback(), tmp_path, project="other", run_name="other")
    training.begin()
    training.log(1, {"loss": 1.0})
    training.end()
    run.log({"after": 2.0}, step=9)
    (found,) = runs(store)
    assert (found["name"], found["status"], found["config"]["mine"]) == ("script", "running", 1)
    assert found["config"]["model/num_parameters"] == 12_345
    assert [step for _, step, _ in rows(store)] == [1, 9]


@pytest.mark.parametrize("leave", ["finished", "interrupted"])
def test_a_run_that_is_over_is_not_used(callback: Any, store: str, tmp_path: Any, leave: str):
    if leave == "finished":
        with eventlog.init(PROJECT):
            pass
    else:
        Training(callback(), tmp_path, project=PROJECT).begin()
    training = Training(callback(), tmp_path, project=PROJECT)
    training.begin()
    training.log(1, {"loss": 1.0})
    assert [run["logs"] for run in runs(store)] == [0, 1]


def test_a_callback_with_options_starts_its_own_run(callback: Any, store: str, tmp_path: Any):
    run = eventlog.init(PROJECT)
    training = Training(callback(PROJECT), tmp_path)
    training.begin()
    training.log(1, {"loss": 1.0})
    assert {run_id for run_id, _, _ in rows(store)} == {training.callback.setup(training.args, training.state).id}
    assert {run["run_id"] for run in runs(store)} > {run.id}


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (SimpleNamespace(), {}),
        (SimpleNamespace(config=None), {}),
        (SimpleNamespace(config=SimpleNamespace(to_dict=lambda: {"layers": 2})), {"layers": 2}),
        (
            SimpleNamespace(peft_config={"default": SimpleNamespace(to_dict=lambda: {"r": 16})}),
            {"peft_config": {"default": {"r": 16}}},
        ),
    ],
    ids=["no config", "config is None", "config with to_dict", "adapters"],
)
def test_models_of_any_kind_are_described(callback: Any, store: str, tmp_path: Any, model: Any, expected: Any):
    training = Training(callback(PROJECT), tmp_path, model=model)
    training.begin()
    (run,) = runs(store)
    assert run["config"] == {**training.args.to_sanitized_dict(), **expected}


@pytest.mark.parametrize("method", ["finish", "flush"])
def test_a_disk_that_refuses_to_sync_does_not_end_the_script(
    callback: Any, tmp_path: Any, monkeypatch: pytest.MonkeyPatch, method: str
):
    if method == "flush":
        eventlog.init(PROJECT)
    training = Training(callback(), tmp_path, project=PROJECT)
    training.begin()

    monkeypatch.setattr(Run, method, refuse)
    with pytest.warns(EventLogWarning, match="durable: no"):
        training.end()
    monkeypatch.undo()


@pytest.mark.filterwarnings("ignore")  # those of torch are not ours
def test_a_real_trainer_logs_what_its_history_says(callback: Any, store: str, tmp_path: Any):
    needs("accelerate", "accelerate")
    torch = needs("torch", "accelerate")
    import transformers

    class Line(torch.nn.Module):  # type: ignore[name-defined, misc]
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(1, 1)

        def forward(self, x: Any, labels: Any) -> Any:
            found = self.layer(x)
            return {"loss": torch.nn.functional.mse_loss(found, labels), "logits": found}

    data = [{"x": torch.tensor([i / 8]), "labels": torch.tensor([i / 4])} for i in range(32)]
    args = transformers.TrainingArguments(
        str(tmp_path),
        max_steps=12,
        logging_steps=1,
        eval_strategy="steps",
        eval_steps=4,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        use_cpu=True,
        run_name="real",
        project=PROJECT,
    )
    trainer = transformers.Trainer(Line(), args, train_dataset=data, eval_dataset=data, callbacks=[callback])
    trainer.train()
    trainer.evaluate()
    expected = []
    for entry in trainer.state.log_history:
        step = entry["step"]
        row = transformers.integrations.rewrite_logs({name: value for name, value in entry.items() if name != "step"})
        expected.append((step, dict(sorted({**row, "train/global_step": step}.items()))))
    assert len(expected) == 12 + 3 + 1 + 1
    found = [(step, row) for _, step, row in rows(store)]
    assert sorted(found, key=str) == sorted(expected, key=str)
    (run,) = runs(store)
    assert run["summary"]["train_loss"] == trainer.state.log_history[-2]["train_loss"]


@pytest.fixture
def tracker(store: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return the class of the tracker, which writes to the store that the environment names."""
    needs("accelerate", "accelerate")
    from eventlog.integrations.accelerate import EventLogTracker

    monkeypatch.setenv("EVENTLOG_DIR", store)
    return EventLogTracker


@pytest.mark.usefixtures("tracker")
def test_an_accelerator_finds_the_tracker_by_its_name(store: str):
    import accelerate

    if not hasattr(accelerate.tracking, "register_tracker_class"):
        pytest.skip("this accelerate has no register_tracker_class: 1.15 is the first with it")
    accelerator = accelerate.Accelerator(log_with="eventlog", cpu=True)
    options = {"eventlog": {"name": "named", "group": "g", "tags": ["t"]}}
    accelerator.init_trackers(PROJECT, config={"lr": 3e-4, "layers": 2}, init_kwargs=options)
    for step in range(3):
        accelerator.log({"loss": 1 / (step + 3), "count": step}, step=step)
    accelerator.log({"loss": math.nan})
    assert accelerator.get_tracker("eventlog", unwrap=True).name == "named"
    accelerator.end_training()
    (run,) = runs(store)
    assert (run["name"], run["group"], run["tags"], run["status"]) == ("named", "g", ["t"], "finished")
    assert run["config"] == {"lr": 3e-4, "layers": 2}
    expected = [(step, {"count": float(step), "loss": 1 / (step + 3)}) for step in range(3)]
    assert repr([row[1:] for row in rows(store)]) == repr([*expected, (3, {"loss": math.nan})])


def test_an_accelerator_takes_a_tracker(tracker: Any, store: str):
    import accelerate

    made = tracker(PROJECT, name="made")
    assert not os.path.exists(store)
    accelerator = accelerate.Accelerator(log_with=made, cpu=True)
    accelerator.init_trackers("not used", config={"lr": 1.0})
    accelerator.log({"loss": 0.1}, step=7)
    accelerator.end_training()
    made.finish()
    assert [(run["name"], run["status"], run["config"]) for run in runs(store)] == [("made", "finished", {"lr": 1.0})]
    assert [row[1:] for row in rows(store)] == [(7, {"loss": 0.1})]


def test_images_and_tables_are_kept(tracker: Any, store: str):
    np = pytest.importorskip("numpy")
    made = tracker(PROJECT)
    made.start()
    made.log_images({"samples": np.zeros((2, 4, 4, 3), dtype="uint8")}, step=1, caption="black")
    made.log_table("errors", columns=["digit", "count"], data=[[4, 12]], step=2)
    made.finish()
    events = open_store(store).events(PROJECT, kinds=["image", "table"]).select(["name", "_step", "payload"])
    images, table = sorted(events.to_pylist(), key=lambda event: event["_step"])
    pictures = [(picture["_type"], picture["caption"]) for picture in json.loads(images["payload"])]
    assert (images["name"], images["_step"], pictures) == ("samples", 1, [("image", "black")] * 2)
    kept = {"_type": "table", "columns": ["digit", "count"], "data": [[4, 12]]}
    assert (table["name"], table["_step"], json.loads(table["payload"])) == ("errors", 2, kept)


def test_a_tracker_without_a_run_says_so(tracker: Any):
    made = tracker(PROJECT)
    for call in (lambda: made.tracker, lambda: made.log({"loss": 1.0}), lambda: made.store_init_configuration({})):
        with pytest.raises(UsageError, match="init_trackers"):
            call()
    made.finish()


def test_only_the_main_process_tracks(tracker: Any, store: str, monkeypatch: pytest.MonkeyPatch):
    from eventlog.integrations import accelerate

    monkeypatch.setattr(accelerate, "PartialState", lambda: SimpleNamespace(is_main_process=False))
    made = tracker(PROJECT)
    made.start()
    made.store_init_configuration({"lr": 1.0})
    made.log({"loss": 1.0}, step=1)
    made.log_images({"samples": []})
    made.finish()
    assert not os.path.exists(store)


def test_a_tracker_whose_disk_refuses_lets_the_others_finish(tracker: Any, monkeypatch: pytest.MonkeyPatch):
    made = tracker(PROJECT)
    made.start()

    monkeypatch.setattr(Run, "finish", refuse)
    with pytest.warns(EventLogWarning, match="finish .*: no"):
        made.finish()
    monkeypatch.undo()


@pytest.mark.parametrize("package", ["transformers", "accelerate"])
def test_without_the_package_the_error_says_what_to_install(script: Any, package: str):
    code = f"""
import sys
sys.modules[{package!r}] = None
try:
    import eventlog.integrations.{package}
except ImportError as error:
    print(error)
"""
    assert f"needs {package}: pip install 'eventlog[{package}]'" in script(code)


def test_the_library_imports_neither(script: Any):
    code = (
        "import sys, eventlog, eventlog.integrations; print({'transformers', 'accelerate', 'torch'} & {*sys.modules})"
    )
    assert script(code) == "set()\n"
