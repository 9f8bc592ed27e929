"""The order-free checksum: the sum, modulo 2**64, of one hash a row over its writer, seq and every cell.

Addition makes it independent of order and batching; a lost, doubled or changed row changes it. Null cells
count nothing, so it does not depend on which columns share a file. The mixing function is the finaliser of
SplitMix64 (Steele, Lea and Flood, 2014).
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

Hashes = NDArray[np.uint64]

MASK: Final = (1 << 64) - 1
_M1: Final = np.uint64(0xBF58476D1CE4E5B9)
_M2: Final = np.uint64(0x94D049BB133111EB)
_NAN: Final = np.array([np.nan]).view(np.uint64)[0]


@functools.lru_cache(maxsize=65_536)
def text_key(text: str) -> int:
    """Return a 64-bit number for a name."""
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")


def mix(numbers: Hashes) -> Hashes:
    """Scramble 64-bit numbers in place, and return them."""
    shifted = numbers >> np.uint64(30)
    numbers ^= shifted
    numbers *= _M1
    np.right_shift(numbers, np.uint64(27), out=shifted)
    numbers ^= shifted
    numbers *= _M2
    np.right_shift(numbers, np.uint64(31), out=shifted)
    numbers ^= shifted
    return numbers


def identity(table: str, run_id: str, writer_id: str, rank: int | None) -> int:
    """Return the number for what rows of one run, writer and rank have in common."""
    return text_key(f"{table}\0{run_id}\0{writer_id}\0{'' if rank is None else rank}")


class RowHashes:
    """Hashes of the rows of one table, built up column by column. Not thread-safe."""

    def __init__(self, identities: Hashes | np.uint64, seq: NDArray[np.int64]) -> None:
        """Start with what `identity` says of each row, or of all, and the rows' seqs."""
        self._base = mix(seq.view(np.uint64) + identities)
        self._cells: Hashes = np.zeros(len(seq), np.uint64)

    def add_ints(self, name: str, numbers: NDArray[np.int64], valid: NDArray[np.bool_] | None = None) -> None:
        """Add an integer column; `valid` says where it is not null."""
        hashes = mix(numbers.view(np.uint64) + np.uint64(text_key(name)))
        self._cells += hashes if valid is None else np.where(valid, hashes, np.uint64(0))

    def add_floats(self, name: str, numbers: NDArray[np.float64], valid: NDArray[np.bool_] | None = None) -> None:
        """Add a float64 column; every NaN counts as the same one."""
        bits = np.ascontiguousarray(numbers).view(np.uint64)
        nan = np.isnan(numbers)
        if nan.any():
            bits = np.where(nan, _NAN, bits)
        hashes = mix(bits + np.uint64(text_key("m:" + name)))
        self._cells += hashes if valid is None else np.where(valid, hashes, np.uint64(0))

    def total(self) -> int:
        """Return the sum over the rows."""
        return int(mix(self._cells ^ self._base).sum(dtype=np.uint64))


def event_hash(row: Sequence[object]) -> int:
    """Return the hash of one row of `events`."""
    texts = (None if cell is None else str(cell) for cell in row)
    text = "".join("-" if cell is None else f"{len(cell)}:{cell}" for cell in texts)
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")
