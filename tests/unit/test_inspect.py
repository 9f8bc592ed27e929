"""Every file of a store can be looked into, and damage is shown where it is."""

from __future__ import annotations

import os
from typing import Any

import pytest

import eventlog
from compactor.config import CompactorConfig
from compactor.fold import fold
from eventlog import names, segment
from eventlog.config import WriterConfig
from eventlog.errors import DataError, NewerFormatError
from eventlog.fs import LOCAL
from eventlog.inspect import inspect

PROJECT = "p"


@pytest.fixture
def root(tmp_path: Any) -> str:
    store = str(tmp_path / "store")
    with eventlog.init(PROJECT, "run", dir=store, settings=WriterConfig(sync_interval_s=None)) as run:
        for step in range(10):
            run.log({"x": float(step), "nan": float("nan")})
        run.log({"text": "t" * 1000})
    fold(LOCAL, store, PROJECT, CompactorConfig())
    return store


def only(root: str, ending: str) -> str:
    (path,) = [
        os.path.join(b, n) for b, _, found in os.walk(root) for n in found if os.path.join(b, n).endswith(ending)
    ]
    return path


def flip(path: str, offset: int) -> None:
    with open(path, "r+b") as file:
        file.seek(offset)
        (byte,) = file.read(1)
        file.seek(offset)
        file.write(bytes([byte ^ 0x10]))


def test_a_segment_is_shown_frame_by_frame(root: str):
    found = inspect(only(root, ".seg"))
    assert (found.form, found.problems, found.left_out) == ("segment", [], 0)
    assert found.facts["segno"] == 1
    assert found.facts["seqs"] == [1, 13]
    assert found.facts["sealed"]
    assert found.facts["kinds"] == {"log": 11, "shape": 4, "segment_start": 1, "run_start": 1, "run_end": 1, "seal": 1}
    logs = [entry for entry in found.entries if entry["kind"] == "log"]
    assert [entry["seq"] for entry in logs] == list(range(2, 13))
    assert '"values":[0.0,{"_type":"float","value":"nan"}]' in logs[0]["text"]
    assert len(logs[-1]["text"]) == 200
    ends = [entry["offset"] + entry["size_bytes"] for entry in found.entries]
    assert ends[:-1] == [entry["offset"] for entry in found.entries[1:]]
    assert ends[-1] == found.facts["size_bytes"]


@pytest.mark.invariant(2)
def test_what_follows_damage_is_shown_and_damage_even_beyond_the_limit(root: str):
    path = only(root, ".seg")
    whole = inspect(path)
    place = next(entry for entry in whole.entries if entry["seq"] == 5)
    flip(path, place["offset"] + 20)
    found = inspect(path)
    assert [entry["kind"] for entry in found.entries].count("log") == 10
    (damage,) = [entry for entry in found.entries if entry["kind"] == "damage"]
    assert (damage["offset"], damage["size_bytes"]) == (place["offset"], place["size_bytes"])
    assert found.problems == ["1 stretches of damage"]
    short = inspect(path, limit=2)
    assert [entry["kind"] for entry in short.entries] == ["segment_start", "run_start", "damage"]
    assert short.left_out == len(whole.entries) - 3


def test_a_damaged_header_is_told_and_its_copy_is_used(root: str):
    path = only(root, ".seg")
    flip(path, 3)
    found = inspect(path)
    assert "its copy is intact" in found.problems[0]
    assert found.facts["seqs"] == [1, 13]


def test_a_torn_tail_of_an_open_segment_is_a_fact_and_no_problem(root: str):
    path = only(root, ".seg")
    other = path.replace(".seg", ".open")
    with open(other, "wb") as file:
        file.write(LOCAL.read(path)[:-5])
    found = inspect(other)
    assert found.problems == []
    assert found.facts["torn_bytes"] > 0
    os.replace(other, path)
    assert "of a sealed segment are no frame" in inspect(path).problems[0]


def test_a_manifest_shows_its_files_and_watermarks(root: str):
    found = inspect(names.manifest_path(root, PROJECT, 1))
    assert found.form == "manifest"
    assert found.facts["version"] == 1
    assert found.facts["rows"] == {"events": 3, "metrics": 10, "runs": 1}
    assert found.facts["records"] == 13
    assert found.facts["metric_names"] == ["nan", "x"]
    assert [entry["table"] for entry in found.entries] == ["metrics", "events", "runs"]
    assert inspect(names.manifest_path(root, PROJECT, 1), limit=1).left_out == 2


def test_a_parquet_file_shows_its_columns_and_pieces(root: str):
    (path,) = [p for p in data_files(root) if "/metrics/" in p]
    found = inspect(path)
    assert found.form == "parquet"
    assert (found.facts["rows"], found.facts["row_groups"]) == (10, [10])
    assert found.facts["columns"]["x"] == "double"
    (piece,) = found.entries
    assert (piece["rows"], piece["first_seq"], piece["last_seq"]) == (10, 2, 11)


def data_files(root: str) -> list[str]:
    return [os.path.join(base, name) for base, _, found in os.walk(os.path.join(root, "snapshots")) for name in found]


def test_other_files_are_refused(root: str, tmp_path: Any):
    path = tmp_path / "other"
    path.write_bytes(b"something else that is long enough to be looked at, but is nothing of ours at all")
    with pytest.raises(DataError, match="neither a segment nor a manifest nor a parquet file"):
        inspect(str(path))
    with pytest.raises(FileNotFoundError):
        inspect(os.path.join(root, "nothing"))


@pytest.mark.invariant(10)
def test_a_newer_segment_is_refused_by_name(root: str):
    path = only(root, ".seg")
    header = bytearray(LOCAL.read(path, 0, 64))
    header[8] = 2
    header[60:] = segment.struct.pack("<I", segment.zlib.crc32(bytes(header[:60])))
    with open(path, "r+b") as file:
        file.write(header)
    with pytest.raises(NewerFormatError, match="version 2"):
        inspect(path)
