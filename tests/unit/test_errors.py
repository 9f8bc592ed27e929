"""The error tree: each error can be caught as what it is in Python, and the docstring shows the tree as it is."""

from __future__ import annotations

import pickle
import re

import pytest

from eventlog import errors
from eventlog.errors import (
    ConflictError,
    DataError,
    DurabilityUnknownError,
    EventLogError,
    NewerFormatError,
    StorageError,
    UsageError,
)


def test_the_docstring_shows_the_tree():
    parents: list[str] = []
    for indent, name in re.findall(r"(?m)^( *)\* (\w+)", errors.__doc__ or ""):
        depth = len(indent) // 2
        del parents[depth:]
        parents.append(name)
        kind = getattr(errors, name)
        assert parents[-2:-1] == [] or kind.__mro__[1].__name__ == parents[-2]
    listed = set(re.findall(r"(?m)^ *\* (\w+)", errors.__doc__ or ""))
    defined = {name for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, Exception)}
    assert defined - {"EventLogWarning"} == listed


@pytest.mark.parametrize("kind", [ConflictError, DurabilityUnknownError, StorageError, UsageError, DataError])
def test_every_error_is_one_of_ours(kind: type[Exception]):
    assert issubclass(kind, EventLogError)


def test_errors_are_what_python_code_expects():
    assert issubclass(UsageError, ValueError)
    assert issubclass(StorageError, OSError)
    assert issubclass(NewerFormatError, DataError)
    assert StorageError(28, "full").errno == 28


def test_a_data_error_keeps_its_facts():
    error = DataError("a/b", 12, "is wrong")
    assert (error.path, error.offset, error.reason) == ("a/b", 12, "is wrong")
    assert str(error) == "a/b at byte 12: is wrong"
    assert str(DataError("a/b", None, "is wrong")) == "a/b: is wrong"


@pytest.mark.parametrize("error", [UsageError("x"), StorageError(28, "full"), ConflictError("x")])
def test_errors_pass_from_process_to_process(error: EventLogError):
    back = pickle.loads(pickle.dumps(error))
    assert type(back) is type(error)
    assert str(back) == str(error)


def test_data_errors_pass_from_process_to_process():
    back = pickle.loads(pickle.dumps(NewerFormatError("a", 8, "reason")))
    assert type(back) is NewerFormatError
    assert (back.path, back.offset, back.reason) == ("a", 8, "reason")
