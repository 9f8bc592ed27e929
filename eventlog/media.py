"""The values with a type of their own: Histogram, Table, Image, Audio, Video, File, Markdown, Html, Trace."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import IO, TYPE_CHECKING, Any, ClassVar, Protocol

from eventlog.errors import FOREIGN_ERRORS, EventLogError, UsageError, describe

if TYPE_CHECKING:
    from eventlog.blobs import BlobRef, BlobStore


@contextlib.contextmanager
def _made_from_what_was_given(what: str) -> Iterator[None]:
    """Turn whatever an argument raises when it is read into a UsageError."""
    try:
        yield
    except EventLogError:
        raise
    except FOREIGN_ERRORS as error:
        raise UsageError(f"{what} cannot be made from what was given: {describe(error)}") from error


class Typed(Protocol):
    """A value that says itself how it is kept."""

    def to_plain(self, blobs: BlobStore) -> dict[str, Any]:
        """Return what the record holds: a dict with `_type`; bytes go to `blobs` first."""


class Markdown:
    """A text to be shown as Markdown."""

    @_made_from_what_was_given("Markdown")
    def __init__(self, text: str) -> None:
        """Take the text."""
        self.text = str(text)

    def to_plain(self, blobs: BlobStore) -> dict[str, Any]:
        """Return the typed text."""
        del blobs
        return {"_type": "markdown", "value": self.text}


class Html:
    """A piece of HTML; a viewer shows it isolated."""

    @_made_from_what_was_given("Html")
    def __init__(self, html: str) -> None:
        """Take the HTML."""
        self.html = str(html)

    def to_plain(self, blobs: BlobStore) -> dict[str, Any]:
        """Return the typed text."""
        del blobs
        return {"_type": "html", "value": self.html}


class Histogram:
    """Counts of values in bins."""

    @_made_from_what_was_given("Histogram")
    def __init__(
        self,
        values: Sequence[float] | Any | None = None,
        *,
        bins: int = 64,
        np_histogram: tuple[Any, Any] | None = None,
    ) -> None:
        """Count values into bins of equal width, or take (counts, edges) as numpy.histogram returns them.

        Args:
            values: numbers, or anything with `tolist()`; those that are not finite are left out and counted.
            bins: how many bins, 1 to 10 000.
            np_histogram: instead of `values`: n counts and n + 1 edges.

        Raises:
            UsageError: neither or both are given, or they do not fit.
        """
        if (values is None) == (np_histogram is None):
            raise UsageError("Histogram takes either values or np_histogram=(counts, edges)")
        self.not_finite = 0
        if np_histogram is not None:
            self.counts = [float(x) if isinstance(x, float) else int(x) for x in _listed(np_histogram[0])]
            self.edges = [float(x) for x in _listed(np_histogram[1])]
            if len(self.edges) != len(self.counts) + 1:
                raise UsageError("np_histogram needs one edge more than counts")
        else:
            if not 1 <= bins <= 10_000:
                raise UsageError("bins must be 1 to 10 000")
            self._count(_flat(_listed(values)), bins)

    def _count(self, values: list[float], bins: int) -> None:
        finite = [x for x in values if x - x == 0.0]
        self.not_finite = len(values) - len(finite)
        low, high = (min(finite), max(finite)) if finite else (0.0, 1.0)
        if low == high:
            low, high = low - 0.5, high + 0.5
        width = high / bins - low / bins  # high - low can be more than a float holds
        self.edges = [low * ((bins - i) / bins) + high * (i / bins) for i in range(bins)] + [high]
        self.counts = [0] * bins
        for x in finite:
            self.counts[min(int(x / width - low / width), bins - 1) if width else 0] += 1

    def to_plain(self, blobs: BlobStore) -> dict[str, Any]:
        """Return counts and edges."""
        del blobs
        plain: dict[str, Any] = {"_type": "histogram", "counts": self.counts, "edges": self.edges}
        if self.not_finite:
            plain["not_finite"] = self.not_finite
        return plain


class Table:
    """Rows with named columns."""

    @_made_from_what_was_given("Table")
    def __init__(
        self, columns: Sequence[str] | None = None, data: Sequence[Sequence[Any]] | None = None, dataframe: Any = None
    ) -> None:
        """Take columns and rows, or anything with pandas' or polars' `columns` and rows.

        Raises:
            UsageError: a row has another length than the columns.
        """
        if dataframe is not None:
            columns = [str(c) for c in dataframe.columns]
            rows = dataframe.rows() if hasattr(dataframe, "rows") else dataframe.itertuples(index=False, name=None)
            data = [list(row) for row in rows]
        self.data = [list(row) for row in data or ()]
        width = len(self.data[0]) if self.data else 0
        self.columns = [str(c) for c in columns] if columns is not None else [str(i) for i in range(width)]
        for index, row in enumerate(self.data):
            if len(row) != len(self.columns):
                raise UsageError(f"row {index} of the table has {len(row)} values for {len(self.columns)} columns")

    @_made_from_what_was_given("a row")
    def add_data(self, *row: Any) -> None:
        """Append a row.

        Raises:
            UsageError: it has another length than the columns.
        """
        if len(row) != len(self.columns):
            raise UsageError(f"the row has {len(row)} values for {len(self.columns)} columns")
        self.data.append(list(row))

    def to_plain(self, blobs: BlobStore) -> dict[str, Any]:
        """Return columns and rows; media in cells are kept as media."""
        rows = [[cell.to_plain(blobs) if hasattr(cell, "to_plain") else cell for cell in row] for row in self.data]
        return {"_type": "table", "columns": self.columns, "data": rows}


class Trace:
    """Messages of a conversation or spans of a call, with metadata."""

    @_made_from_what_was_given("Trace")
    def __init__(
        self,
        messages: Sequence[Mapping[str, Any]] = (),
        *,
        spans: Sequence[Mapping[str, Any]] = (),
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        """Take what is to be shown; everything in it is kept as it is."""
        self.messages = [dict(m) for m in messages]
        self.spans = [dict(s) for s in spans]
        self.metadata = dict(metadata or {})

    def to_plain(self, blobs: BlobStore) -> dict[str, Any]:
        """Return messages, spans and metadata."""
        del blobs
        return {"_type": "trace", "messages": self.messages, "spans": self.spans, "metadata": self.metadata}


class File:
    """Any file or bytes, kept as a blob."""

    kind: ClassVar[str] = "file"

    @_made_from_what_was_given("File")
    def __init__(self, data: str | os.PathLike[str] | bytes, *, name: str | None = None, caption: str = "") -> None:
        """Take a path or bytes.

        Args:
            data: a path, read when it is logged, or the bytes.
            name: the file's name for people; default the path's.
            caption: a text beside it.
        """
        self.data = data
        self.name = name or ("" if isinstance(data, bytes) else os.path.basename(os.fspath(data)))
        self.caption = caption

    def _store(self, blobs: BlobStore) -> BlobRef:
        if isinstance(self.data, bytes):
            return blobs.put(self.data)
        with open(self.data, "rb") as file:
            return blobs.put_file(file)

    def to_plain(self, blobs: BlobStore) -> dict[str, Any]:
        """Put the bytes among the blobs, durable, and return the reference."""
        ref = self._store(blobs)
        plain = {"_type": self.kind, "sha256": ref.digest, "size_bytes": ref.size_bytes, "name": self.name}
        if self.caption:
            plain["caption"] = self.caption
        return plain


class Video(File):
    """A video: a path or encoded bytes."""

    kind = "video"


class Image(File):
    """An image: a path, encoded bytes, a PIL image, or an array of height x width [x 1, 3 or 4]."""

    kind = "image"

    @_made_from_what_was_given("Image")
    def __init__(self, data: Any, *, name: str | None = None, caption: str = "") -> None:
        """Take the image; pictures in memory become PNG, which needs Pillow.

        Raises:
            UsageError: Pillow is needed and not installed, or the array is no image.
        """
        if not isinstance(data, str | os.PathLike | bytes):
            data, name = _png(data), name or "image.png"
        super().__init__(data, name=name, caption=caption)


class Audio(File):
    """Sound: a path, encoded bytes, or samples from -1 to 1 with their rate."""

    kind = "audio"

    @_made_from_what_was_given("Audio")
    def __init__(
        self, data: Any, *, sample_rate: int | None = None, name: str | None = None, caption: str = ""
    ) -> None:
        """Take the sound; samples become a 16-bit WAV file.

        Raises:
            UsageError: samples without `sample_rate`.
        """
        if not isinstance(data, str | os.PathLike | bytes):
            if not sample_rate or sample_rate < 1:
                raise UsageError("Audio from samples needs sample_rate, in Hz, at least 1")
            data, name = _wav(_listed(data), sample_rate), name or "audio.wav"
        super().__init__(data, name=name, caption=caption)


def _listed(values: Any) -> list[Any]:
    return list(values.tolist() if hasattr(values, "tolist") else values)


def _flat(values: list[Any]) -> list[float]:
    flat: list[float] = []
    for value in values:
        if isinstance(value, list | tuple):
            flat.extend(_flat(list(value)))
        else:
            flat.append(float(value))
    return flat


def _png(picture: Any) -> bytes:
    import importlib
    import io

    if not hasattr(picture, "save"):
        try:
            pil = importlib.import_module("PIL.Image")
        except ImportError:
            raise UsageError("Image from an array needs Pillow: pip install pillow, or pass a path or bytes") from None
        if hasattr(picture, "detach"):
            picture = picture.detach().cpu().numpy()
        if getattr(picture, "ndim", 0) == 3 and picture.shape[2] == 1:
            picture = picture[:, :, 0]
        if getattr(getattr(picture, "dtype", None), "kind", "") == "f":
            picture = (picture.clip(0.0, 1.0) * 255.0 + 0.5).astype("uint8")
        try:
            picture = pil.fromarray(picture)
        except (TypeError, ValueError, AttributeError, KeyError) as error:
            raise UsageError(f"Image cannot be made from this {type(picture).__name__}: {error}") from None
    out: IO[bytes] = io.BytesIO()
    picture.save(out, format="PNG")
    out.seek(0)
    return out.read()


def _wav(samples: list[Any], sample_rate: int) -> bytes:
    import io
    import wave

    frames = [row if isinstance(row, list | tuple) else [row] for row in samples]
    channels = len(frames[0]) if frames else 1
    data = bytearray()
    for row in frames:
        for sample in row:
            data += round(max(-1.0, min(1.0, float(sample))) * 32767).to_bytes(2, "little", signed=True)
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(2)
        file.setframerate(int(sample_rate))
        file.writeframes(bytes(data))
    return out.getvalue()
