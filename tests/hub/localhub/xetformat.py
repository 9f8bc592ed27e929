"""The two binary formats of the xet store: xorbs, which hold compressed chunks, and shards, which say what is where."""

from __future__ import annotations

import struct
import time
from typing import NamedTuple

import pyarrow as pa

SHARD_TAG = b"HFRepoMetaData\0" + bytes(
    [85, 105, 103, 69, 106, 123, 129, 87, 131, 165, 189, 217, 92, 205, 209, 74, 169]
)
ZERO_HASH = "0" * 64  # what the client calls the content of an empty file; no file of that name is ever uploaded
_BLOCK = 48
_BOOKEND = b"\xff" * 32
_HAS_VERIFICATION, _HAS_METADATA = 1 << 31, 1 << 30
_CHUNK_HEADER = 8
_KEY_SECONDS = 7 * 86_400


class FormatError(ValueError):
    """The bytes are no xorb or no shard."""


class Chunk(NamedTuple):
    """A chunk of a xorb: where its header starts, how many bytes follow it, and how many they are when unpacked."""

    start: int
    stored: int
    scheme: int
    size: int

    @property
    def end(self) -> int:
        return self.start + _CHUNK_HEADER + self.stored


class Term(NamedTuple):
    """A part of a file: the chunks `first` up to and without `last` of a xorb."""

    xorb: str
    size: int
    first: int
    last: int


class FileInfo(NamedTuple):
    """What a shard says of a file."""

    hash: str
    sha256: str | None
    terms: list[Term]


class XorbInfo(NamedTuple):
    """What a shard says of a xorb; `block` is that text in the shard's own bytes."""

    hash: str
    chunks: list[str]
    block: bytes


def hash_name(data: bytes) -> str:
    """Return a hash as the client writes it in text: four little-endian numbers."""
    return "".join(data[start : start + 8][::-1].hex() for start in range(0, 32, 8))


def chunks_of(xorb: bytes) -> list[Chunk]:
    """Find the chunks of a xorb; a footer may follow them."""
    chunks, at = [], 0
    while at + _CHUNK_HEADER <= len(xorb) and xorb[at : at + 7] != b"XETBLOB":
        if xorb[at] != 0:
            raise FormatError(f"chunk header of version {xorb[at]} at byte {at}")
        stored = int.from_bytes(xorb[at + 1 : at + 4], "little")
        chunk = Chunk(at, stored, xorb[at + 4], int.from_bytes(xorb[at + 5 : at + 8], "little"))
        if chunk.end > len(xorb):
            raise FormatError(f"the chunk at byte {at} ends beyond the xorb")
        chunks.append(chunk)
        at = chunk.end
    if not chunks:
        raise FormatError("a xorb without chunks")
    return chunks


def unpack(xorb: bytes, chunk: Chunk) -> bytes:
    """Return the content of a chunk."""
    data = xorb[chunk.start + _CHUNK_HEADER : chunk.end]
    if chunk.scheme == 0:
        return data
    data = pa.decompress(data, decompressed_size=chunk.size, codec="lz4", asbytes=True)
    if chunk.scheme == 1:
        return data
    if chunk.scheme != 2:
        raise FormatError(f"unknown compression {chunk.scheme}")
    # The bytes of four-byte numbers, grouped by their place in the number.
    whole, rest = divmod(len(data), 4)
    out, at = bytearray(len(data)), 0
    for place in range(4):
        length = whole + (place < rest)
        out[place::4] = data[at : at + length]
        at += length
    return bytes(out)


def _sections(shard: bytes) -> tuple[list[bytes], list[bytes]]:
    """Split a shard into the blocks on files and the blocks on xorbs."""
    if shard[:32] != SHARD_TAG:
        raise FormatError("not a shard")
    at, sections = _BLOCK, []
    for on_files in (True, False):
        blocks = []
        while True:
            if at + _BLOCK > len(shard):
                raise FormatError("the shard is cut off")
            if shard[at : at + 32] == _BOOKEND:
                at += _BLOCK
                break
            flags, entries = struct.unpack_from("<II", shard, at + 32)
            rows = 1 + entries
            if on_files:
                rows += (entries if flags & _HAS_VERIFICATION else 0) + (1 if flags & _HAS_METADATA else 0)
            blocks.append(shard[at : at + rows * _BLOCK])
            at += rows * _BLOCK
        sections.append(blocks)
    return sections[0], sections[1]


def parse_shard(shard: bytes) -> tuple[list[FileInfo], list[XorbInfo]]:
    """Read an uploaded shard, which may lack a footer."""
    on_files, on_xorbs = _sections(shard)
    files = []
    for block in on_files:
        flags, entries = struct.unpack_from("<II", block, 32)
        terms = []
        for at in range(_BLOCK, _BLOCK * (1 + entries), _BLOCK):
            _, size, first, last = struct.unpack_from("<IIII", block, at + 32)
            terms.append(Term(hash_name(block[at : at + 32]), size, first, last))
        sha256 = hash_name(block[-_BLOCK : -_BLOCK + 32]) if flags & _HAS_METADATA else None
        files.append(FileInfo(hash_name(block[:32]), sha256, terms))
    xorbs = []
    for block in on_xorbs:
        (entries,) = struct.unpack_from("<I", block, 36)
        chunks = [hash_name(block[at : at + 32]) for at in range(_BLOCK, _BLOCK * (1 + entries), _BLOCK)]
        xorbs.append(XorbInfo(hash_name(block[:32]), chunks, block))
    return files, xorbs


def dedup_shard(block: bytes) -> bytes:
    """Build the shard that tells a client of one xorb which is there already, so that it uploads none of its chunks."""
    bookend = _BOOKEND + bytes(16)
    head = SHARD_TAG + struct.pack("<QQ", 2, 200)
    xorbs_at = len(head) + len(bookend)
    body = head + bookend + block + bookend
    now, end = int(time.time()), len(body)
    # The three look-up tables are left out: no entries, and each begins at the end, by which the client reckons sizes.
    tables = struct.pack("<QQQQQQ", end, 0, end, 0, end, 0)
    footer = struct.pack("<QQQ", 1, len(head), xorbs_at) + tables + bytes(32)
    footer += struct.pack("<QQ", now, now + _KEY_SECONDS) + bytes(72) + struct.pack("<Q", end)
    return body + footer
