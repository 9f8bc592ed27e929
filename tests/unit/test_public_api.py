"""The public surface is a decision: what it is, what it says of itself, and what importing it costs."""

from __future__ import annotations

import inspect
import re
from typing import Any

import pytest

import eventlog

PUBLIC = [
    "Audio",
    "ConflictError",
    "DataError",
    "DurabilityUnknownError",
    "EventLogError",
    "EventLogWarning",
    "File",
    "Histogram",
    "Html",
    "Image",
    "Markdown",
    "NewerFormatError",
    "Run",
    "StorageError",
    "Table",
    "Trace",
    "UsageError",
    "Video",
    "WriterConfig",
    "alert",
    "current_run",
    "finish",
    "init",
    "log",
    "log_system",
]


def callables() -> list[tuple[str, Any]]:
    """Return every public function, class and method with its dotted name."""
    found: list[tuple[str, Any]] = []
    for name in PUBLIC:
        value = getattr(eventlog, name)
        found.append((name, value))
        if inspect.isclass(value):
            found += [
                (f"{name}.{attribute}", member)
                for attribute, member in vars(value).items()
                if not attribute.startswith("_") and (inspect.isfunction(member) or isinstance(member, property))
            ]
    return found


def functions() -> list[tuple[str, Any]]:
    return [(name, value) for name, value in callables() if inspect.isfunction(value)]


def section(text: str, title: str) -> str:
    match = re.search(rf"(?ms)^{title}:\n(.*?)(?=^\w+:\n|\Z)", inspect.cleandoc(text))
    return match[1] if match else ""


def test_the_public_names_are_these():
    assert eventlog.__all__ == PUBLIC
    assert sorted(PUBLIC) == PUBLIC


def test_the_package_defines_nothing_itself():
    source = inspect.getsource(eventlog)
    assert not re.search(r"(?m)^(def|class|if|for|try) ", source)


@pytest.mark.parametrize(("name", "value"), callables(), ids=[name for name, _ in callables()])
def test_everything_public_says_what_it_is(name: str, value: Any):
    text = inspect.getdoc(value)
    assert text, name
    first = text.split("\n\n")[0]
    assert first.endswith("."), name
    assert "\n" not in first or len(first) < 240


@pytest.mark.parametrize(("name", "value"), functions(), ids=[name for name, _ in functions()])
def test_a_function_that_lists_arguments_lists_all_of_them(name: str, value: Any):
    listed = section(value.__doc__ or "", "Args")
    if listed:
        for parameter in inspect.signature(value).parameters:
            if parameter not in ("self", "row"):
                assert re.search(rf"(?m)^ +{parameter}:", listed), f"{name} does not say what {parameter} is"


@pytest.mark.parametrize(("name", "value"), functions(), ids=[name for name, _ in functions()])
def test_a_function_that_raises_says_what(name: str, value: Any):
    raised = set(re.findall(r"raise (\w+)\(", inspect.getsource(value)))
    listed = section(value.__doc__ or "", "Raises")
    for error in raised:
        assert error in listed, f"{name} does not say that it raises {error}"


def test_the_run_says_whether_threads_may_share_it():
    assert "Thread-safe" in (eventlog.Run.__doc__ or "")


def test_every_error_can_be_caught_by_the_base():
    errors = [value for _, value in callables() if inspect.isclass(value) and issubclass(value, Exception)]
    assert len(errors) == 8
    for error in errors:
        assert issubclass(error, eventlog.EventLogError) or error is eventlog.EventLogWarning


IMPORTS = """
import sys
import {first}
{then}
roots = {{name.split(".")[0] for name in sys.modules}}
print(*sorted(roots - set(sys.stdlib_module_names) - {{"__main__", "eventlog", "msgspec"}}))
"""

USE = """
import math
run = eventlog.init("p", "n", dir=sys.argv[1], config={"lr": 0.1})
for i in range(100):
    run.log({"loss": i / 3, "text": "x", "big": 2**70, "nan": math.nan, "list": [1, 2], "b": b"bytes"})
run.log({"h": eventlog.Histogram([1, 2]), "t": eventlog.Table(["a"], [[1]]), "m": eventlog.Markdown("x")})
run.log({"f": eventlog.File(b"x"), "a": eventlog.Audio([0.0], sample_rate=8000), "r": eventlog.Trace([{"a": 1}])})
run.log_system({"cpu": 1.0})
run.config.update({"a": 1})
run.summary["x"] = 1
run.define_metric("loss")
run.alert("title")
run.flush()
eventlog.finish()
"""


def test_importing_costs_msgspec_and_the_standard_library(script: Any):
    foreign = script(IMPORTS.format(first="eventlog", then="")).split()
    assert [name for name in foreign if not _of_the_environment(name)] == []


def test_logging_everything_and_finishing_imports_nothing_more(script: Any):
    foreign = script(IMPORTS.format(first="eventlog", then=USE)).split()
    assert [name for name in foreign if not _of_the_environment(name)] == []


def test_the_check_on_imports_can_fail(script: Any):
    foreign = script(IMPORTS.format(first="eventlog", then="import numpy")).split()
    assert "numpy" in foreign


def _of_the_environment(name: str) -> bool:
    """Whether the way the interpreter was started, or msgspec itself where it is installed, has put a module there."""
    return name.startswith(
        ("__editable__", "_virtualenv", "_distutils_hack", "sitecustomize", "usercustomize", "typing_extensions")
    )
