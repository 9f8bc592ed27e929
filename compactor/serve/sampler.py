"""Sample rows of numbers as they come: few enough to draw, and every spike is among them.

Rows are cut into buckets of equal width by their number. Of each bucket the rows stay in which a metric is
lowest, highest, or NaN for the first time; and the first and the last row of all. When too many have stayed,
the width doubles and neighbours become one: the extremes of two buckets are among those of the one, so
nothing has to be read again. Memory and work follow what is shown, never the length of the run.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
import orjson
from numpy.typing import NDArray

COLUMNS: Final = 64
_Ints = NDArray[np.int64]
_Bools = NDArray[np.bool_]
_Floats = NDArray[np.float64]


class Rows(NamedTuple):
    """Rows of numbers.

    Attributes:
        number: int64[rows], counted from the first row of all.
        time_ns: int64[rows].
        step: int64[rows].
        has_step: bool[rows].
        values: float64[rows, columns].
        present: bool[rows, columns], where there is a value.
    """

    number: _Ints
    time_ns: _Ints
    step: _Ints
    has_step: _Bools
    values: _Floats
    present: _Bools

    def take(self, chosen: NDArray[np.bool_] | NDArray[np.int64] | slice) -> Rows:
        """Return some of the rows."""
        return Rows(
            self.number[chosen],
            self.time_ns[chosen],
            self.step[chosen],
            self.has_step[chosen],
            self.values[chosen],
            self.present[chosen],
        )


def concatenate(parts: list[Rows]) -> Rows:
    """Return rows one after the other; columns that a part lacks have no value in it."""
    width = max(part.values.shape[1] for part in parts)
    values, present = [part.values for part in parts], [part.present for part in parts]
    for index, part in enumerate(parts):
        missing = width - part.values.shape[1]
        if missing:
            values[index] = np.pad(part.values, ((0, 0), (0, missing)))
            present[index] = np.pad(part.present, ((0, 0), (0, missing)))
    return Rows(
        np.concatenate([part.number for part in parts]),
        np.concatenate([part.time_ns for part in parts]),
        np.concatenate([part.step for part in parts]),
        np.concatenate([part.has_step for part in parts]),
        np.concatenate(values),
        np.concatenate(present),
    )


class Sampler:
    """At most about `max_points` rows of up to 64 metrics, and their JSON. Not thread-safe.

    Attributes:
        names: the metrics, one a column.
    """

    def __init__(self, max_points: int, *, with_step: bool = True) -> None:
        """Start without rows; `with_step` says whether rows have a step at all."""
        self.names: list[str] = []
        self._index: dict[str, int] = {}
        self._max = max_points
        self._with_step = with_step
        self._width = 1
        self._count = 0
        self._kept: Rows | None = None
        self._texts: list[bytes | None] = []
        self._pending: list[Rows] = []
        self._last: Rows | None = None

    def has_room(self) -> bool:
        """Whether one more metric fits."""
        return len(self.names) < COLUMNS

    def column(self, name: str) -> int:
        """Return the column of a metric, a new one when it has none yet."""
        index = self._index.get(name)
        if index is None:
            index = self._index[name] = len(self.names)
            self.names.append(name)
        return index

    @property
    def size_bytes(self) -> int:
        """About how much memory it takes."""
        rows = [*([self._kept] if self._kept is not None else []), *self._pending]
        return sum(array.nbytes for part in rows for array in part) + len(self._texts) * (80 + 30 * len(self.names))

    def add(self, names: list[str], rows: Rows) -> None:
        """Add rows in the order of time.

        Args:
            names: of the columns of `rows`.
            rows: their `number` is not looked at.
        """
        count = len(rows.time_ns)
        columns = [self.column(name) for name in names]
        values = np.zeros((count, len(self.names)))
        present = np.zeros((count, len(self.names)), bool)
        values[:, columns] = rows.values
        present[:, columns] = rows.present
        number = np.arange(self._count, self._count + count)
        self._pending.append(rows._replace(number=number, values=values, present=present))
        self._count += count
        self._settle()

    def _settle(self) -> None:
        """Close the buckets that are full; double their width while too many rows have stayed."""
        pending = concatenate(self._pending)
        if self._kept is None:
            # A first look at a long run: start where it will end, for every doubling costs a look at all rows.
            while self._count // self._width * 2 > 2 * self._max:
                self._width *= 2
        full = self._count // self._width * self._width
        closed = int(np.searchsorted(pending.number, full))
        if len(pending.number):
            self._last = pending.take(slice(-1, None))
        if closed:
            chosen = pending.take(slice(0, closed))
            chosen = chosen.take(extremes(chosen, self._width))
            self._texts += [None] * len(chosen.number)
            self._kept = chosen if self._kept is None else concatenate([self._kept, chosen])
            pending = pending.take(slice(closed, None))
        self._pending = [pending]
        while self._kept is not None and len(self._kept.number) > self._max:
            self._double(self._kept)

    def _double(self, kept: Rows) -> None:
        self._width *= 2
        if len(self._pending[0].number) and int(self._pending[0].number[0]) % self._width:
            # The last closed bucket is now the first half of an open one.
            at = int(np.searchsorted(kept.number, self._pending[0].number[0] - self._width // 2))
            self._pending = [concatenate([kept.take(slice(at, None)), self._pending[0]])]
            kept = kept.take(slice(0, at))
            del self._texts[at:]
        if not len(kept.number):
            self._kept = None
            return
        chosen = extremes(kept, self._width)
        self._texts = [text for text, stays in zip(self._texts, chosen.tolist(), strict=True) if stays]
        self._kept = kept.take(chosen)

    def render(self) -> tuple[_Ints, list[bytes]]:
        """Return the times of the rows and each row as a JSON object; what was rendered before is not again."""
        times, texts = np.empty(0, np.int64), list[bytes]()
        if self._kept is not None:
            missing = np.array([index for index, text in enumerate(self._texts) if text is None], np.int64)
            for index, text in zip(missing.tolist(), self._encode(self._kept.take(missing)), strict=True):
                self._texts[index] = text
            times, texts = self._kept.time_ns, [text for text in self._texts if text is not None]
        chosen = self._open_rows()
        if chosen is not None:
            times, texts = np.concatenate([times, chosen.time_ns]), texts + self._encode(chosen)
        return times, texts

    def rows(self) -> Rows | None:
        """Return the rows that are shown, in the order of time; None when there are none."""
        parts = [part for part in (self._kept, self._open_rows()) if part is not None]
        return concatenate(parts) if parts else None

    def _open_rows(self) -> Rows | None:
        """Return what is shown of the open bucket, and the last row of all, which may be in none."""
        if self._pending and len(self._pending[0].number):
            mask = extremes(self._pending[0], self._width)
            mask[-1] = True
            return self._pending[0].take(mask)
        shown = self._kept is not None and self._last is not None and self._kept.number[-1] == self._last.number[0]
        return None if shown else self._last

    def _encode(self, rows: Rows) -> list[bytes]:
        names = self.names[: rows.values.shape[1]]
        whole = bool(rows.present.all())
        present = rows.present.tolist()
        steps = [step if has else None for step, has in zip(rows.step.tolist(), rows.has_step.tolist(), strict=True)]
        texts: list[bytes] = []
        for index, (row, stamp) in enumerate(zip(rows.values.tolist(), iso_times(rows.time_ns), strict=True)):
            pairs = dict(zip(names, row, strict=True))
            if not whole:
                pairs = {name: pairs[name] for name, there in zip(names, present[index], strict=True) if there}
            pairs["timestamp"] = stamp
            if self._with_step:
                pairs["step"] = steps[index]
            texts.append(orjson.dumps(pairs))
        return texts


def iso_times(time_ns: _Ints) -> list[str]:
    """Return ISO times in UTC with microseconds."""
    texts = np.datetime_as_string((time_ns // 1000).astype("datetime64[us]"))
    return [f"{text}+00:00" for text in texts.tolist()]


def extremes(rows: Rows, width: int) -> _Bools:
    """Return which rows stay: in each bucket the lowest and highest of each metric and its first NaN, and row 0."""
    bucket = rows.number // width
    starts = np.flatnonzero(np.r_[True, bucket[1:] != bucket[:-1]])
    group = np.repeat(np.arange(len(starts)), np.diff(np.r_[starts, len(bucket)]))
    chosen = np.zeros(len(bucket), bool)
    chosen[rows.number == 0] = True
    for column in range(rows.values.shape[1]):
        values, there = rows.values[:, column], rows.present[:, column]
        invalid = np.isnan(values)
        usable = there & ~invalid
        low = np.where(usable, values, np.inf)
        high = np.where(usable, values, -np.inf)
        _mark_first(chosen, group, usable & (low == np.minimum.reduceat(low, starts)[group]))
        _mark_first(chosen, group, usable & (high == np.maximum.reduceat(high, starts)[group]))
        if (there & invalid).any():
            _mark_first(chosen, group, there & invalid)
    return chosen


def _mark_first(chosen: _Bools, group: _Ints, candidates: _Bools) -> None:
    """Mark the first candidate of each group."""
    at = np.flatnonzero(candidates)
    if len(at):
        groups = group[at]
        chosen[at[np.r_[True, groups[1:] != groups[:-1]]]] = True
