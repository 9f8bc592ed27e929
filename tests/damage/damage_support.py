"""One segment with every kind of record, its frames' places, and what every reader must say of it once it is hurt."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable
from functools import cache
from typing import NamedTuple

from compactor.config import CompactorConfig
from compactor.status import project_status
from compactor.work import take_turn
from eventlog import manifest as manifests
from eventlog import names, schema, segment, tail
from eventlog.columns import Batch
from eventlog.feed import Feed
from eventlog.manifest import Manifest, Watermark
from eventlog.snapshot import ReaderCache
from eventlog.store import Store
from eventlog.testing import CrashFs, FakeClock, contents, forge
from eventlog.testing.contents import Row
from eventlog.testing.forge import NOW_NS, WRITER_ID, Forged, Part, Placed
from eventlog.testing.strategies import Future
from eventlog.verify import verify

ROOT, PROJECT = "/store", "p"
OTHER_ID = "01j1" + "0" * 22
THOROUGH = os.environ.get("HYPOTHESIS_PROFILE") == "explore"
HOUR_S, MONTH_S = 3600.0, 30 * 86_400.0
CONFIG = CompactorConfig(missing_grace_s=0.0)

RECORDS: tuple[schema.Record, ...] = (
    schema.RunStart(NOW_NS, "r", PROJECT, "n", config={"lr": 0.1}, pid=7),
    schema.Log(NOW_NS + 1, 1, 0, struct.pack("<d", 0.5)),
    schema.Log(NOW_NS + 2, None, 0, struct.pack("<d", float("nan")), {"t": "x", "k": [1, None]}),
    schema.System(NOW_NS + 3, 1, struct.pack("<d", 9.0)),
    schema.ConfigPatch(NOW_NS + 4, "r", {"a": 1}),
    schema.SummarySet(NOW_NS + 5, "r", {"b": 2}),
    schema.MetricDef(NOW_NS + 6, "r", "x", None, "minimize", "min"),
    schema.Alert(NOW_NS + 7, "r", "t", "u", "info", 3, "i"),
    schema.Console(NOW_NS + 8, "r", "stdout", "hi"),
    schema.Heartbeat(NOW_NS + 9, "r"),
    schema.ArtifactVersion(NOW_NS + 10, "r", "m", "model", "v0"),
    schema.ArtifactUse(NOW_NS + 11, "r", "m", "v0"),
    schema.Admin(NOW_NS + 12, "r", "rename", {"name": "z"}),
    schema.Dropped(NOW_NS + 13, "", 3, "ENOSPC", NOW_NS),
    schema.Receipt(NOW_NS + 14, "", b"123456789012"),
    schema.Upload(NOW_NS + 15, "r", "f", "no blob", 5),
    Future(NOW_NS + 16, "r", "n"),
    schema.RunEnd(NOW_NS + 17, "r", "finished", 0),
    schema.Log(NOW_NS + 18, 300, 0, struct.pack("<d", -1.0)),
)
"""A record of every kind that takes a seq, and one of a kind to come."""


@cache
def every_kind(*, sealed: bool) -> Forged:
    """Return the segment of all of these; without its seal when it is open."""
    head = forge.header()
    parts = [forge.start(head), *forge.shape(0, ["x"])]
    parts += map(forge.record, RECORDS[:3])
    parts += [*forge.shape(1, ["cpu"]), *map(forge.record, RECORDS[3:])]
    return forge.forge([*parts, forge.seal(head, len(RECORDS))] if sealed else parts, head)


@cache
def neighbour() -> Forged:
    """Return a sound segment of another writer, which nothing may keep from being folded."""
    head = forge.header(writer_id=OTHER_ID)
    log = schema.Log(NOW_NS, 1, 0, struct.pack("<d", 2.0))
    return forge.forge([forge.start(head), *forge.shape(0, ["x"]), *map(forge.record, [log] * 3)], head)


def rows_of(made: Forged) -> list[Row]:
    """Return the rows of a sound segment, made the plain way."""
    batch = Batch()
    contents.read_plainly(made.header.writer_id, [made.data], batch)
    return contents.of_batch(batch)


@cache
def clean_rows() -> tuple[Row, ...]:
    """Return the rows of the segment with every kind."""
    return tuple(rows_of(every_kind(sealed=False)))


def flipped(data: bytes, bit: int) -> bytes:
    """Return bytes with one bit flipped."""
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def overwritten(data: bytes, offset: int, junk: bytes) -> bytes:
    """Return bytes of the same length, some of them overwritten."""
    return (data[:offset] + junk + data[offset + len(junk) :])[: len(data)]


def store_with(data: bytes, *, sealed: bool, fs: CrashFs | None = None) -> CrashFs:
    """Return a disk with these bytes as the segment, at a time when it was written."""
    fs = fs or CrashFs(time_ns=lambda: NOW_NS)
    forge.put(fs, ROOT, PROJECT, forge.header(), data, sealed=sealed)
    return fs


class Read(NamedTuple):
    """What the tail's reader found."""

    rows: list[Row]
    gaps: list[tuple[int, int]]
    damages: list[tuple[int, int]]
    mark: Watermark


def read(data: bytes, *, sealed: bool, dead: bool = False) -> Read:
    """Read a segment as readers and the fold do."""
    batch = Batch()
    reader = tail.WriterReader(store_with(data, sealed=sealed), ROOT, PROJECT, WRITER_ID, Watermark(), batch)
    found = reader.read(is_dead=lambda _: dead)
    gaps = [(gap.first_seq, gap.last_seq) for gap in found.gaps]
    damages = [(item.offset, item.offset + item.size_bytes) for item in found.damages]
    return Read(contents.of_batch(batch), gaps, damages, found.watermark)


def read_strictly(data: bytes, *, final: bool) -> list[tuple[int, bytes]]:
    """Return (seq, payload) of each record, by the plain way."""
    header = forge.header()
    found = segment.items(data, header, final=final)
    return [
        (item.seq, data[item.offset + 14 : item.end])
        for item in found
        if isinstance(item, segment.Item) and not item.structural
    ]


def without(rows: Iterable[Row], seqs: set[int]) -> list[Row]:
    """Return the rows of the other records."""
    return [row for row in rows if row.seq not in seqs]


def seqs_of(placed: Iterable[Placed]) -> set[int]:
    """Return the seqs of the records among some frames."""
    return {one.seq for one in placed if one.seq is not None}


def ranges(seqs: set[int]) -> list[tuple[int, int]]:
    """Return seqs as ranges."""
    found: list[tuple[int, int]] = []
    for seq in sorted(seqs):
        if found and found[-1][1] == seq - 1:
            found[-1] = (found[-1][0], seq)
        else:
            found.append((seq, seq))
    return found


class Folded(NamedTuple):
    """A store after a fold, when its writers were long gone."""

    fs: CrashFs
    manifest: Manifest
    clock: FakeClock


def fold_dead(fs: CrashFs, *, config: CompactorConfig = CONFIG) -> Folded:
    """Take a turn of the compactor two hours later."""
    clock = FakeClock()
    clock.advance((NOW_NS - clock.time_ns()) / 1e9 + 2 * HOUR_S)
    turn = take_turn(fs, ROOT, PROJECT, config, time_ns=clock.time_ns)
    assert turn.damaged == {}
    return Folded(fs, manifests.load_newest(fs, ROOT, PROJECT)[0], clock)


def gaps_of(manifest: Manifest) -> list[tuple[int, int]]:
    """Return the gaps of a snapshot as ranges."""
    return sorted((gap.first_seq, gap.last_seq) for gap in manifest.gaps)


def quarantine(fs: CrashFs) -> dict[str, bytes]:
    """Return the copies of damaged bytes by name."""
    directory = names.quarantine_dir(ROOT, PROJECT)
    return {name: fs.read(f"{directory}/{name}") for name in fs.names(directory) if name.endswith(".bin")}


def look(fs: CrashFs) -> None:
    """Read everything through every front door; none may raise."""
    store = Store(ROOT, fs=fs)
    for answer in (store.metrics, store.system, store.events, store.runs, store.follow, store.metric_names):
        answer(PROJECT)
    store.metrics(PROJECT, narrow=True)
    Feed(fs, ROOT, PROJECT, ReaderCache(fs)).advance()
    project_status(fs, ROOT, PROJECT)


def codes(fs: CrashFs) -> set[str]:
    """Return what `verify` finds, but for what writers say that they dropped."""
    return {finding.code for finding in verify(ROOT, fs=fs).findings} - {"dropped"}


def parts_of(made: Forged) -> list[Part]:
    """Return the frames of a segment, to be put together in another way."""
    return [Part(made.data[placed.offset + 14 : placed.end], placed.seq is None) for placed in made.frames]
