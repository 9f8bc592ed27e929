"""What a user passes to a run, asked for and checked: objects may raise anything when they are asked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from eventlog import values
from eventlog.errors import FOREIGN_ERRORS, UsageError, describe, shown

MAX_STEP: Final = (1 << 63) - 1
MIN_STEP: Final = -(1 << 63)


def text(value: Any, what: str) -> str:
    """Return the text of an argument, as UTF-8 can hold it.

    Raises:
        UsageError: naming `what`: it has no text.
    """
    return values.printable(exact_text(value, what))


def exact_text(value: Any, what: str) -> str:
    """Return the text of an argument, lone surrogates included; errors are those of `text`."""
    try:
        return str(value)
    except FOREIGN_ERRORS as error:
        raise UsageError(f"{what} cannot be read: {describe(error)}") from error


def optional_text(value: Any, what: str) -> str | None:
    """Return the text of an argument that may be None; errors are those of `text`."""
    return None if value is None else text(value, what)


def word(value: Any, what: str) -> str | None:
    """Return the text of an argument that is one of a few words, or a member of an enum of them; errors as `text`."""
    try:
        return optional_text(getattr(value, "value", value), what)
    except FOREIGN_ERRORS as error:
        raise UsageError(f"{what} cannot be read: {describe(error)}") from error


def mapping(data: Any, method: str) -> dict[Any, Any]:
    """Return what a call was given as a dict.

    Raises:
        UsageError: it is no mapping, or cannot be read.
    """
    try:
        if isinstance(data, Mapping):
            return dict(data)
    except FOREIGN_ERRORS as error:
        raise UsageError(f"{method}() cannot read this {type(data).__name__}: {describe(error)}") from error
    raise UsageError(f"{method}() takes a dict of names and values, not {type(data).__name__}")


def step_of(step: Any) -> tuple[int | None, str]:
    """Return a step as a record can hold it, or None and what is wrong with it."""
    try:
        number = values.unwrap_scalar(step)
        if isinstance(number, float) and number.is_integer():
            number = int(number)
        if isinstance(number, int) and not isinstance(number, bool):
            number = int(number)
            if MIN_STEP <= number <= MAX_STEP:
                return number, ""
    except FOREIGN_ERRORS as error:
        return None, f"the step cannot be read ({describe(error)}); the record is kept without a step"
    told = "an integer" if isinstance(number, int) and not isinstance(number, bool) else shown(step)
    return None, f"step={told} is not a 64-bit integer; the record is kept without a step"
