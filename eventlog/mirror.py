"""A mapping whose changes are logged: what `run.config` and `run.summary` are."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, MutableMapping
from typing import Any

from eventlog.errors import FOREIGN_ERRORS, UsageError, describe


class Mirror(MutableMapping[str, Any]):
    """A dict that logs what is set. Keys stay: what was logged cannot be unlogged."""

    def __init__(self, initial: Mapping[str, Any], publish: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
        """Take what is there already, and what logs changes and returns those that it kept."""
        self._values = dict(initial)
        self._publish = publish

    def __getitem__(self, key: str) -> Any:
        """Return a value."""
        return self._values[key]

    def __setitem__(self, key: str, value: Any) -> None:
        """Set and log one key."""
        self.update([(key, value)])

    def __delitem__(self, key: str) -> None:
        """Refuse.

        Raises:
            UsageError: always.
        """
        raise UsageError("keys that were logged cannot be removed; set them to None instead")

    def __iter__(self) -> Iterator[str]:
        """Iterate over the keys."""
        return iter(self._values)

    def __len__(self) -> int:
        """Return the number of keys."""
        return len(self._values)

    def update(self, *args: Any, allow_val_change: bool = True, **kwargs: Any) -> None:
        """Set several keys in one record. `allow_val_change` is accepted for wandb's sake, and changes nothing.

        Raises:
            UsageError: what dict.update would not take.
        """
        del allow_val_change
        try:
            changes = dict(*args, **kwargs)
        except FOREIGN_ERRORS as error:
            raise UsageError(f"update() takes what dict.update takes: {describe(error)}") from error
        self._values.update(self._publish(changes))
