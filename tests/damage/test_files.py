"""Manifests, blobs and data files, cut and with flipped bits: found, named, and never a wrong answer in silence."""

from __future__ import annotations

import os
import struct

import pytest
from damage_support import MONTH_S, NOW_NS, PROJECT, ROOT, THOROUGH, flipped

from compactor.config import CompactorConfig
from compactor.fold import fold
from compactor.rebuild import rebuild
from compactor.work import take_turn
from eventlog import manifest as manifests
from eventlog import names, schema
from eventlog.blobs import BlobStore
from eventlog.errors import DataError
from eventlog.manifest import Manifest
from eventlog.snapshot import ReaderCache, Snapshot
from eventlog.store import Store
from eventlog.testing import CrashFs, FakeClock, Script, contents, forge, play, scripts
from eventlog.verify import verify
from eventlog.view import View

CONFIG = CompactorConfig(fanout=9, grace_s=0.0, segment_retention_s=0.0)
TABLES = pytest.mark.parametrize("table", names.TABLES)


def store_of_folds(folds: int, clock: FakeClock) -> CrashFs:
    """Return a store with so many manifests and a row of each table in each; its segments are kept."""
    fs = CrashFs(time_ns=clock.time_ns)
    for turn in range(folds):
        calls = (scripts.Log({"x": float(turn), "note": f"n{turn}"}, turn), scripts.System({"cpu": 1.0}))
        play(Script("r", 0, calls, closes=turn < folds - 1), fs, ROOT, PROJECT, time_ns=clock.time_ns)
        fold(fs, ROOT, PROJECT, CONFIG, time_ns=clock.time_ns)
    return fs


def replace(fs: CrashFs, path: str, data: bytes) -> None:
    fs.unlink(path)
    fd = fs.create(path)
    fs.write(fd, data)
    fs.close(fd)


def codes(fs: CrashFs, *, blobs: bool = False) -> set[str]:
    return {finding.code for finding in verify(ROOT, fs=fs, blobs=blobs).findings}


def harmed(data: bytes, step: int) -> list[bytes]:
    """Return the bytes cut at every byte, and with every bit flipped, or every so many-th when time is short."""
    every = 1 if THOROUGH else step
    return [data[:size] for size in range(0, len(data), every)] + [
        flipped(data, bit) for bit in range(0, len(data) * 8, every)
    ]


@pytest.mark.invariant(5)
def test_no_cut_and_no_flipped_bit_makes_another_manifest():
    fs = store_of_folds(2, FakeClock())
    path = names.manifest_path(ROOT, PROJECT, 2)
    data = fs.read(path)
    whole = manifests.from_bytes(data, path)
    for bad in harmed(data, 1):
        if bad == data[:-1]:
            assert manifests.from_bytes(bad, path) == whole
            continue
        with pytest.raises(DataError) as caught:
            manifests.from_bytes(bad, path)
        assert caught.value.path == path


@pytest.mark.invariant(5)
def test_readers_go_on_with_the_manifest_before_a_damaged_one_and_verify_names_the_file():
    fs = store_of_folds(2, FakeClock())
    path = names.manifest_path(ROOT, PROJECT, 2)
    data = fs.read(path)
    expected = contents.of_store(fs, ROOT, PROJECT)
    table = Store(ROOT, fs=fs).metrics(PROJECT)
    for bad in harmed(data, 331)[1:]:
        replace(fs, path, bad)
        assert contents.of_store(fs, ROOT, PROJECT) == expected
        assert Store(ROOT, fs=fs).metrics(PROJECT).equals(table)
        if bad != data[:-1]:
            (finding,) = verify(ROOT, fs=fs).findings
            assert (finding.code, finding.where) == ("manifest_damaged", os.path.relpath(path, ROOT))


def test_an_older_damaged_manifest_is_found_too_and_keeps_everything():
    clock = FakeClock()
    fs = store_of_folds(3, clock)
    path = names.manifest_path(ROOT, PROJECT, 2)
    replace(fs, path, flipped(fs.read(path), 900))
    (finding,) = verify(ROOT, fs=fs).findings
    assert (finding.code, finding.where) == ("manifest_damaged", os.path.relpath(path, ROOT))
    clock.advance(MONTH_S)
    turn = take_turn(fs, ROOT, PROJECT, CONFIG, time_ns=clock.time_ns)
    assert (turn.removed, bool(turn.kept)) == (0, True)


def test_without_any_intact_manifest_there_is_an_error_and_no_answer():
    fs = store_of_folds(1, FakeClock())
    path = names.manifest_path(ROOT, PROJECT, 1)
    data = fs.read(path)
    for bad in (b"", data[:100], flipped(data, 700)):
        replace(fs, path, bad)
        with pytest.raises(DataError):
            Store(ROOT, fs=fs).metrics(PROJECT)
        with pytest.raises(DataError):
            fold(fs, ROOT, PROJECT, CONFIG)
        assert codes(fs) == {"manifest_damaged"}


def test_every_cut_and_flipped_bit_of_a_blob_is_found_by_its_name():
    fs = CrashFs(time_ns=lambda: NOW_NS)
    ref = BlobStore(ROOT, fs).put(b"the bytes of a picture")
    head = forge.header()
    value = {"_type": "image", "sha256": ref.digest, "size_bytes": ref.size_bytes, "name": "a"}
    log = schema.Log(NOW_NS, 1, 0, struct.pack("<d", 1.0), {"picture": value})
    made = forge.forge([forge.start(head), *forge.shape(0, ["x"]), forge.record(log)], head)
    forge.put(fs, ROOT, PROJECT, head, made.data, sealed=False)
    path = names.blob_path(ROOT, ref.digest)
    data = fs.read(path)
    assert codes(fs, blobs=True) == set()
    for bad in [*harmed(data, 1), data + b"\0"]:
        replace(fs, path, bad)
        with pytest.raises(DataError, match="digest") as caught:
            Store(ROOT, fs=fs).blob(ref.digest)
        assert caught.value.path == path
        (finding,) = verify(ROOT, fs=fs, blobs=True).findings
        assert (finding.code, finding.where) == ("blob_changed", os.path.relpath(path, ROOT))


def victim(fs: CrashFs, table: str) -> tuple[Manifest, str, bytes]:
    newest, _ = manifests.load_newest(fs, ROOT, PROJECT)
    path = f"{names.snapshot_dir(ROOT, PROJECT)}/{newest.of_table(table)[0].path}"
    return newest, path, fs.read(path)


def answers(fs: CrashFs, manifest: Manifest, table: str) -> object:
    """Read a table's files as a reader that has just opened the store."""
    view = View(Snapshot(fs, ROOT, manifest, ReaderCache(fs)), None)
    if table == "runs":
        return view.parts()
    return contents.of_table(table, view.rows(table, None, None))


@TABLES
def test_no_damaged_byte_of_a_small_data_file_is_served_as_a_value(table):
    """Pages have checksums, but not their headers, nor the footer: a flip there can make a null of a value."""
    fs = store_of_folds(1, FakeClock())
    newest, path, data = victim(fs, table)
    assert answers(fs, newest, table)
    for bad in harmed(data, 37):
        replace(fs, path, bad)
        with pytest.raises(DataError, match="not what its manifest says"):
            answers(fs, newest, table)


@TABLES
def test_every_cut_and_flip_of_a_data_file_is_found_and_rebuilt_while_segments_are_kept(table):
    fs = store_of_folds(1, FakeClock())
    expected = contents.of_store(fs, ROOT, PROJECT)
    newest, path, data = victim(fs, table)
    for bad in harmed(data, 997):
        now = fs.after_crash("kept")
        replace(now, path, bad)
        (finding, *_) = [found for found in verify(ROOT, fs=now).findings if found.code == "file_changed"]
        assert finding.where == os.path.relpath(path, ROOT)
        assert rebuild(now, ROOT, PROJECT, CONFIG).files == [newest.of_table(table)[0].path]
        assert contents.of_store(now, ROOT, PROJECT) == expected
        assert codes(now) == set()


@TABLES
def test_once_the_segments_are_collected_the_damage_is_told_and_nothing_is_served(table):
    clock = FakeClock()
    fs = store_of_folds(1, clock).after_crash("kept")
    clock.advance(MONTH_S)
    assert take_turn(fs, ROOT, PROJECT, CONFIG, time_ns=clock.time_ns).removed >= 1
    newest, path, data = victim(fs, table)
    replace(fs, path, flipped(data, len(data) * 4))
    rebuilt = rebuild(fs, ROOT, PROJECT, CONFIG, time_ns=clock.time_ns)
    assert rebuilt.files == []
    assert "cannot be rebuilt: segments that are kept hold 0 of its" in rebuilt.damaged[newest.of_table(table)[0].path]
    assert "file_changed" in codes(fs)
    assert manifests.load_newest(fs, ROOT, PROJECT)[0] == newest
