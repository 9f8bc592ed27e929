"""Media: each typed value is kept as FORMAT.md says, and wrong ones are refused when they are made."""

from __future__ import annotations

import importlib.util
import io
import math
import wave
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest

from eventlog import Audio, File, Histogram, Html, Image, Markdown, Table, Trace, UsageError, Video, values
from eventlog.blobs import BlobStore

HAS_PILLOW = importlib.util.find_spec("PIL") is not None


@pytest.fixture
def blobs(store: str) -> BlobStore:
    return BlobStore(store)


def kept(value: Any, blobs: BlobStore) -> Any:
    return values.to_plain(value, blobs)


def test_texts_are_kept_with_their_type(blobs: BlobStore):
    assert kept(Markdown("# ü"), blobs) == {"_type": "markdown", "value": "# ü"}
    assert kept(Html("<b>"), blobs) == {"_type": "html", "value": "<b>"}
    assert kept(Markdown(5), blobs)["value"] == "5"  # type: ignore[arg-type]


def test_a_histogram_counts_every_finite_value_once():
    histogram = Histogram([0.0, 0.1, 0.9, 1.0, math.nan, math.inf], bins=2)
    assert (histogram.counts, histogram.edges, histogram.not_finite) == ([2, 2], [0.0, 0.5, 1.0], 2)


def test_a_histogram_agrees_with_numpy():
    data = np.random.default_rng(0).normal(size=1000)
    counts, edges = np.histogram(data, bins=10)
    ours = Histogram(data, bins=10)
    assert ours.counts == counts.tolist()
    assert ours.edges == pytest.approx(edges.tolist())
    theirs = Histogram(np_histogram=(counts, edges))
    assert (theirs.counts, theirs.edges) == (counts.tolist(), edges.tolist())


@pytest.mark.parametrize(
    "data",
    [[], [1.0], [5, 5, 5], [[1, 2], [3]], [math.nan], [-1.7e308, 1.7e308], [0.0, 5e-324], range(10), np.zeros((2, 3))],
    ids=lambda data: repr(data)[:20],
)
def test_a_histogram_of_anything_counts_all_of_it(data: Any):
    histogram = Histogram(data, bins=4)
    size = np.size(data) if not isinstance(data, list) or not data or not isinstance(data[0], list) else 3
    assert sum(histogram.counts) + histogram.not_finite == size
    assert len(histogram.edges) == 5
    assert histogram.edges == sorted(histogram.edges)


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {"values": [1], "np_histogram": ([1], [0, 1])},
        {"np_histogram": ([1], [0])},
        {"values": [1], "bins": 0},
        {"values": [1], "bins": 10_001},
    ],
    ids=repr,
)
def test_a_wrong_histogram_is_refused(wrong: dict[str, Any]):
    with pytest.raises(UsageError):
        Histogram(**wrong)


def test_histograms_say_how_many_were_not_finite_only_when_some_were(blobs: BlobStore):
    assert kept(Histogram([1.0, 2.0], bins=1), blobs) == {"_type": "histogram", "counts": [2], "edges": [1.0, 2.0]}
    assert kept(Histogram([1.0, math.nan], bins=1), blobs)["not_finite"] == 1


def test_a_table_keeps_columns_and_rows(blobs: BlobStore):
    table = Table(["a", "b"], [[1, "x"]])
    table.add_data(np.float32(0.5), None)
    assert kept(table, blobs) == {"_type": "table", "columns": ["a", "b"], "data": [[1, "x"], [0.5, None]]}
    assert kept(Table(data=[[1, 2]]), blobs)["columns"] == ["0", "1"]
    assert kept(Table(), blobs) == {"_type": "table", "columns": [], "data": []}


@pytest.mark.parametrize(
    "frame", [pd.DataFrame({"a": [1, 2], "b": ["x", "y"]}), pl.DataFrame({"a": [1, 2], "b": ["x", "y"]})]
)
def test_a_table_takes_data_frames(blobs: BlobStore, frame: Any):
    expected = {"_type": "table", "columns": ["a", "b"], "data": [[1, "x"], [2, "y"]]}
    assert kept(Table(dataframe=frame), blobs) == expected


def test_media_in_a_table_are_media(blobs: BlobStore):
    cell = kept(Table(["a"], [[File(b"bytes", name="n")]]), blobs)["data"][0][0]
    assert (cell["_type"], cell["name"]) == ("file", "n")
    assert blobs.get(cell["sha256"]) == b"bytes"


def test_a_row_of_another_length_is_refused():
    with pytest.raises(UsageError, match="row 1"):
        Table(["a"], [[1], [1, 2]])
    with pytest.raises(UsageError, match="2 values for 1 columns"):
        Table(["a"]).add_data(1, 2)


def test_a_trace_is_kept_as_it_is(blobs: BlobStore):
    messages = [{"role": "user", "content": "hi", "calls": [{"x": math.nan}]}]
    plain = kept(Trace(messages, spans=[{"name": "s"}], metadata={"k": 1}), blobs)
    assert plain["_type"] == "trace"
    assert plain["messages"][0]["content"] == "hi"
    assert math.isnan(plain["messages"][0]["calls"][0]["x"])
    assert (plain["spans"], plain["metadata"]) == ([{"name": "s"}], {"k": 1})


@pytest.mark.parametrize(("kind", "name"), [(File, "file"), (Video, "video"), (Image, "image"), (Audio, "audio")])
def test_paths_and_bytes_are_kept_as_blobs(blobs: BlobStore, tmp_path: Any, kind: Any, name: str):
    path = tmp_path / "data.bin"
    path.write_bytes(b"content")
    from_path = kept(kind(path, caption="c"), blobs)
    assert {k: from_path[k] for k in ("_type", "size_bytes", "name", "caption")} == {
        "_type": name,
        "size_bytes": 7,
        "name": "data.bin",
        "caption": "c",
    }
    from_bytes = kept(kind(b"content", name="n"), blobs)
    assert from_bytes["sha256"] == from_path["sha256"]
    assert "caption" not in from_bytes
    assert blobs.get(from_bytes["sha256"]) == b"content"


def test_a_file_that_is_not_there_is_said_when_it_is_logged(blobs: BlobStore):
    with pytest.raises(FileNotFoundError):
        kept(File("/does/not/exist"), blobs)


def test_samples_become_a_wav_file(blobs: BlobStore):
    plain = kept(Audio(np.array([0.0, 1.0, -1.0, 5.0]), sample_rate=8000), blobs)
    with wave.open(io.BytesIO(blobs.get(plain["sha256"]))) as file:
        assert (file.getnchannels(), file.getframerate(), file.getsampwidth()) == (1, 8000, 2)
        assert np.frombuffer(file.readframes(4), "<i2").tolist() == [0, 32767, -32767, 32767]
    stereo = kept(Audio([[0.0, 1.0]], sample_rate=8000), blobs)
    with wave.open(io.BytesIO(blobs.get(stereo["sha256"]))) as file:
        assert file.getnchannels() == 2


@pytest.mark.parametrize("options", [{}, {"sample_rate": 0}, {"sample_rate": -5}], ids=repr)
def test_samples_without_a_rate_are_refused(options: dict[str, int]):
    with pytest.raises(UsageError):
        Audio([0.0], **options)


@pytest.mark.skipif(HAS_PILLOW, reason="Pillow is installed")
def test_an_array_without_pillow_is_refused_with_the_way_out():
    with pytest.raises(UsageError, match="pip install pillow"):
        Image(np.zeros((2, 2)))


@pytest.mark.skipif(not HAS_PILLOW, reason="Pillow is not installed")
@pytest.mark.parametrize("shape", [(4, 5), (4, 5, 1), (4, 5, 3), (4, 5, 4)])
def test_an_array_becomes_a_png(blobs: BlobStore, shape: tuple[int, ...]):
    plain = kept(Image(np.zeros(shape)), blobs)
    assert blobs.get(plain["sha256"]).startswith(b"\x89PNG")


def test_anything_with_save_is_a_picture(blobs: BlobStore):
    class Picture:
        def save(self, out: Any, format: str) -> None:  # noqa: A002 - Pillow's name
            out.write(b"as " + format.encode())

    plain = kept(Image(Picture()), blobs)
    assert plain["name"] == "image.png"
    assert blobs.get(plain["sha256"]) == b"as PNG"
