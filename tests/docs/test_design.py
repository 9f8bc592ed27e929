"""DESIGN.md's invariants have tests, its words are used, and the modules that it names exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DESIGN = (ROOT / "eventlog" / "DESIGN.md").read_text(encoding="utf-8")
NUMBERS = [
    int(number)
    for number in re.findall(r"^(\d+)\. \S", DESIGN.split("## Invariants")[1].split("\n## ")[0], re.MULTILINE)
]


def marked_tests() -> dict[int, list[str]]:
    found: dict[int, list[str]] = {}
    for path in (ROOT / "tests").rglob("test_*.py"):
        for number in re.findall(r"pytest\.mark\.invariant\((\d+)\)", path.read_text(encoding="utf-8")):
            found.setdefault(int(number), []).append(path.name)
    return found


def test_the_invariants_are_numbered_from_1_to_13():
    assert list(range(1, 14)) == NUMBERS


@pytest.mark.parametrize("number", NUMBERS)
def test_each_invariant_has_a_test_marked_with_its_number(number):
    assert marked_tests().get(number)


def test_no_test_is_marked_with_a_number_that_is_no_invariant():
    assert set(marked_tests()) <= set(NUMBERS)


def test_modules_that_design_names_exist():
    for name in re.findall(r"\b([a-z]+\.py)\b", DESIGN):
        assert any(list((ROOT / package).rglob(name)) for package in ("eventlog", "compactor")), name


@pytest.mark.parametrize("package", ["eventlog", "compactor"])
def test_no_module_is_called_after_nothing(package):
    names = {path.stem for path in (ROOT / package).rglob("*.py")}
    assert not names & {"utils", "util", "common", "helpers", "base", "misc"}
