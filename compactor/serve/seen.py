"""Which ids were received before: sorted runs of 12-byte keys on disk, a bounded set in memory.

The files are an index, made from the receipts in the store and good for nothing else: deleting them costs a
reading of the receipts, and a run whose checksum is wrong is treated as deleted. Keys are uniform, so a look
is a binary search in a mapped file; runs are merged four to one, so there are logarithmically many. At 100
million ids that is 1.2 GB on disk, six tiers, and nothing in memory but the newest ids.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Final, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from eventlog.fs import LOCAL, Fs, rename_staged, staged, write_all

KEY_BYTES: Final = 12
_STATE: Final = "state.json"
_FANOUT: Final = 4
MEMORY_KEYS: Final = 65_536
_CHUNK_KEYS: Final = 1 << 20
_KEY: Final = np.dtype([("high", ">u8"), ("low", ">u4")])


class Run(msgspec.Struct, frozen=True):
    """A file of sorted keys."""

    name: str
    keys: int
    crc32: int


class State(msgspec.Struct, frozen=True):
    """What the index holds.

    Attributes:
        runs: its files.
        cursor: by writer, the seq up to which its receipts are in the files.
    """

    runs: list[Run] = []
    cursor: dict[str, int] = {}


class _Checked(msgspec.Struct, frozen=True):
    """A state with its checksum: a cursor that is too far would skip receipts for ever."""

    crc32: int
    state: msgspec.Raw


class _Keys(NamedTuple):
    """Keys in two halves, side by side."""

    high: NDArray[np.uint64]
    low: NDArray[np.uint32]


class _Mapped(NamedTuple):
    """A run, mapped: its highs, and after them its lows."""

    run: Run
    high: NDArray[np.uint64]
    low: NDArray[np.uint32]


class Seen:
    """A set of 12-byte keys that outlives the process and its memory. Not thread-safe: its intake holds a lock."""

    def __init__(self, directory: str, *, fs: Fs = LOCAL, memory_keys: int = MEMORY_KEYS) -> None:
        """Open the index, or start an empty one when there is none that is whole; see `cursor`."""
        self._directory = directory
        self._fs = fs
        self._limit = memory_keys
        self._fresh: set[bytes] = set()
        self._runs: list[_Mapped] = []
        self.cursor: dict[str, int] = {}
        self._load()

    def _load(self) -> None:
        try:
            state = _parse_state(self._fs.read(os.path.join(self._directory, _STATE)))
            self._runs = [self._map(run) for run in state.runs]
        except (FileNotFoundError, msgspec.MsgspecError, UnicodeDecodeError, _DamagedError):
            self._runs = []
            return
        self.cursor = dict(state.cursor)

    def _map(self, run: Run) -> _Mapped:
        path = os.path.join(self._directory, run.name)
        if self._fs.size(path) != run.keys * KEY_BYTES:
            raise _DamagedError
        source = self._fs.source(path)
        data = np.memmap(source, np.uint8, "r") if isinstance(source, str) else np.frombuffer(source.read(), np.uint8)
        crc = 0
        for start in range(0, len(data), _CHUNK_KEYS):
            crc = zlib.crc32(data[start : start + _CHUNK_KEYS].data, crc)
        if crc != run.crc32:
            raise _DamagedError
        return _Mapped(run, data[: run.keys * 8].view("<u8"), data[run.keys * 8 :].view("<u4"))

    def __len__(self) -> int:
        """Return how many keys there are."""
        return len(self._fresh) + sum(mapped.run.keys for mapped in self._runs)

    def contains(self, keys: Sequence[bytes]) -> list[bool]:
        """Say of each key whether it was added before."""
        known = np.array([key in self._fresh for key in keys], bool)
        if not keys or not self._runs:
            return [bool(item) for item in known]
        high, low = _halves(keys)
        for mapped in self._runs:
            at = np.searchsorted(mapped.high, high)
            while True:
                inside = at < mapped.run.keys
                clipped = np.minimum(at, mapped.run.keys - 1)
                same = inside & (mapped.high[clipped] == high)
                known |= same & (mapped.low[clipped] == low)
                # Two keys that share their first eight bytes stand side by side.
                if not (same & ~known).any():
                    break
                at = np.where(same & ~known, at + 1, mapped.run.keys)
        return [bool(item) for item in known]

    def add(self, keys: Iterable[bytes]) -> None:
        """Add keys; they are on disk only after `save`, and until then in the store's receipts alone."""
        self._fresh.update(keys)

    @property
    def is_full(self) -> bool:
        """Whether so many keys are in memory that it is time to save."""
        return len(self._fresh) >= self._limit

    def save(self, cursor: dict[str, int]) -> None:
        """Write what is in memory as a run, merge runs, and publish both with the cursor that they reach.

        Durable when this returns; a power loss in between leaves the index as it was or as it is saved, whole.

        Raises:
            OSError: nothing has changed; what is in memory stays there.
        """
        self._fs.make_dirs(self._directory)
        runs = list(self._runs)
        if self._fresh:
            keys = _sorted(_halves(self._fresh))
            runs.append(self._write(lambda: iter((keys,))))
        while fan := _first_fan(runs):
            merged = self._write_merged(fan)
            runs = [run for run in runs if run not in fan] + [merged]
        # A state must not outlive the names of its runs.
        self._fs.sync_dir(self._directory)
        state = msgspec.json.encode(State([mapped.run for mapped in runs], cursor))
        with staged(self._fs, self._directory, _STATE) as (temporary, fd):
            write_all(self._fs, fd, msgspec.json.encode(_Checked(zlib.crc32(state), msgspec.Raw(state))))
        rename_staged(self._fs, temporary, os.path.join(self._directory, _STATE))
        self._fs.sync_dir(self._directory)
        self._runs, self.cursor = runs, dict(cursor)
        self._fresh.clear()
        named = {_STATE, *(mapped.run.name for mapped in runs)}
        for name in self._fs.names(self._directory):
            if name not in named:
                self._fs.unlink(os.path.join(self._directory, name))

    def _write_merged(self, runs: list[_Mapped]) -> _Mapped:
        """Merge in bounded memory: keys are uniform, so equal ranges of keys hold about equally many."""
        total = sum(mapped.run.keys for mapped in runs)
        parts = max(total // _CHUNK_KEYS, 1)
        edges = np.array([part * ((1 << 64) // parts) for part in range(1, parts)], np.uint64)
        bounds = [[0, *np.searchsorted(run.high, edges).tolist(), run.run.keys] for run in runs]

        def chunks() -> Iterator[_Keys]:
            for part in range(parts):
                spans = [slice(bounds[i][part], bounds[i][part + 1]) for i in range(len(runs))]
                high = np.concatenate([run.high[span] for run, span in zip(runs, spans, strict=True)])
                low = np.concatenate([run.low[span] for run, span in zip(runs, spans, strict=True)])
                yield _sorted(_Keys(high, low))

        return self._write(chunks)

    def _write(self, chunks: Callable[[], Iterator[_Keys]]) -> _Mapped:
        """Write sorted chunks as a run; they are asked for twice, for the highs come before the lows."""
        name = f"{os.urandom(8).hex()}.ids"
        crc = count = 0
        with staged(self._fs, self._directory, name) as (temporary, fd):
            for half in range(2):
                for chunk in chunks():
                    data = chunk[half].tobytes()
                    count += len(chunk.high) * (1 - half)
                    crc = zlib.crc32(data, crc)
                    write_all(self._fs, fd, data)
        rename_staged(self._fs, temporary, os.path.join(self._directory, name))
        return self._map(Run(name, count, crc))


def _halves(keys: Collection[bytes]) -> _Keys:
    packed = np.frombuffer(b"".join(keys), _KEY)
    return _Keys(packed["high"].astype(np.uint64), packed["low"].astype(np.uint32))


def _sorted(keys: _Keys) -> _Keys:
    order = np.lexsort((keys.low, keys.high))
    return _Keys(np.ascontiguousarray(keys.high[order]), np.ascontiguousarray(keys.low[order]))


class _DamagedError(Exception):
    """A run is not what the state says: the index is made anew."""


def _parse_state(data: bytes) -> State:
    checked = msgspec.json.decode(data, type=_Checked)
    if zlib.crc32(bytes(checked.state)) != checked.crc32:
        raise _DamagedError
    return msgspec.json.decode(checked.state, type=State)


def _first_fan(runs: list[_Mapped]) -> list[_Mapped]:
    """Return the runs of the first tier that has enough to become one of the next; [] when there is none."""
    tiers: dict[int, list[_Mapped]] = {}
    for mapped in runs:
        tiers.setdefault(max(mapped.run.keys, 1).bit_length() // 2, []).append(mapped)
    return next((tier for _, tier in sorted(tiers.items()) if len(tier) >= _FANOUT), [])
