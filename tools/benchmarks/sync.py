"""What a bucket costs: a publish of what is new into a store of two sizes, and a restore; beside the client alone."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import stores
from charts import Panel
from grids import Grid, number

from compactor.hub.publish import BucketPublisher
from compactor.hub.restore import restore
from compactor.hub.sync import SyncConfig
from eventlog import manifest as manifests
from eventlog import names
from eventlog.fs import LOCAL
from eventlog.hub.address import BucketAddress
from eventlog.hub.bucket import Bucket

DEFAULT_RECORDS: Final = 33_000_000
DEFAULT_REPEAT: Final = 3
_ROWS: Final = 31_250
_NEW: Final = 100_000
_TESTS: Final = Path(__file__).resolve().parents[2] / "tests" / "hub"
_STEPS: Final = ("first", "nothing_new", "segments", "folded")
_TITLES: Final = {
    "first": "first publish of all",
    "nothing_new": "nothing new",
    "segments": "new segments",
    "folded": "the same, folded",
    "client_upload": "client alone, as many new bytes",
    "restore": "restore of all",
    "client_download": "client alone, as many bytes",
}


def measure(cache: str, records: int, repeat: int) -> dict[str, Any]:
    """Return the figures of a store of so many records, and of one a tenth as large; medians."""
    new = min(_NEW, records)
    sizes: dict[str, dict[str, Any]] = {}
    for count in (records // 10, records):
        rows = min(_ROWS, count)
        source = stores.bulk(cache, count // rows, rows)
        turns = [_turn(cache, source, new, seed) for seed in range(repeat)]
        sizes[str(count)] = {
            "store_bytes": turns[0]["store_bytes"],
            "steps": {step: {key: stores.median_of([turn["steps"][step] for turn in turns], key)
                             for key in turns[0]["steps"][step]} for step in _TITLES},
        }  # fmt: skip
    steps = {size: figures["steps"] for size, figures in sizes.items()}
    small, large = (steps[size] for size in sizes)
    return {
        "parameters": {"records": records, "new_records": new, "repeat": repeat},
        "sizes": sizes,
        "publish_growth": {step: large[step]["seconds"] / small[step]["seconds"] for step in _STEPS[1:]},
        "to_client": {
            "upload": {
                size: found["segments"]["seconds"] / found["client_upload"]["seconds"] for size, found in steps.items()
            },
            "download": {
                size: found["restore"]["seconds"] / found["client_download"]["seconds"] for size, found in steps.items()
            },
        },
    }


@contextlib.contextmanager
def _hub(directory: str) -> Iterator[Any]:
    """Yield the local Hub of the tests: a process on loopback, to which the unmodified client talks."""
    if str(_TESTS) not in sys.path:
        sys.path.insert(0, str(_TESTS))
    # Read when the client is imported.
    client = {"HF_HOME": f"{directory}/client", "HF_XET_CACHE": f"{directory}/client", "HF_HUB_DISABLE_TELEMETRY": "1"}
    os.environ |= {**client, "HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_XET_TELEMETRY_ENABLED": "0"}
    from localhub.process import LocalHub

    hub = LocalHub(Path(directory) / "hub")
    try:
        yield hub
    finally:
        hub.close()


def _turn(cache: str, source: str, new: int, seed: int) -> dict[str, Any]:
    with (
        tempfile.TemporaryDirectory(dir=cache, prefix="copy-") as work,
        stores.linked_copy(cache, source) as root,
        _hub(work) as hub,
    ):
        return _measured(hub, work, root, new, seed)


def _measured(hub: Any, work: str, root: str, new: int, seed: int) -> dict[str, Any]:
    api = hub.api()
    for name in ("me/store", "me/raw"):
        api.create_bucket(name)
    bucket = Bucket(BucketAddress("me/store"), api=api)
    publisher = BucketPublisher(LOCAL, root, bucket, SyncConfig().limits())
    steps: dict[str, dict[str, float]] = {}

    def publish() -> object:
        return publisher.publish(stores.PROJECT)

    steps["first"] = _timed(hub, publish)
    store_bytes = _snapshot_bytes(root)
    steps["nothing_new"] = _timed(hub, publish)
    stores.write_runs(root, "noisy", new, 1000 + seed)
    steps["segments"] = {**_timed(hub, publish), "new_bytes": float(stores.segment_bytes(root))}
    stores.fold(root)
    steps["folded"] = _timed(hub, publish)
    # Other bytes, or the client would know that the Hub has them.
    other = os.path.join(work, "other")
    stores.write_runs(other, "noisy", new, 5000 + seed)
    files = [str(path) for path in Path(names.segments_dir(other)).rglob("*.seg")]
    add = [(path, os.path.relpath(path, other)) for path in files]
    steps["client_upload"] = _timed(hub, lambda: api.batch_bucket_files("me/raw", add=add))
    _restore(hub, bucket, work, root, steps)
    return {"store_bytes": store_bytes, "steps": steps}


def _restore(hub: Any, bucket: Bucket, work: str, root: str, steps: dict[str, dict[str, float]]) -> None:
    copy = os.path.join(work, "restored")
    found: list[Any] = []
    steps["restore"] = _timed(hub, lambda: found.append(restore(LOCAL, copy, bucket, stores.PROJECT)))
    steps["restore"]["bytes"] = float(found[0].size_bytes)
    if manifests.load_newest(LOCAL, copy, stores.PROJECT) != manifests.load_newest(LOCAL, root, stores.PROJECT):
        raise RuntimeError("what was restored is not what was published")
    wanted = [
        (file.path, os.path.join(work, "raw", file.path))
        for part in (names.SNAPSHOTS, names.SEGMENTS)
        for file in bucket.files(part)
        if os.path.exists(os.path.join(copy, file.path))
    ]
    for _, path in wanted:
        os.makedirs(os.path.dirname(path), exist_ok=True)
    api = hub.api()
    steps["client_download"] = _timed(hub, lambda: api.download_bucket_files("me/store", wanted))
    for name in ("restored", "raw"):
        shutil.rmtree(os.path.join(work, name))


def _snapshot_bytes(root: str) -> int:
    manifest, _ = manifests.load_newest(LOCAL, root, stores.PROJECT)
    return sum(file.size_bytes for file in manifest.files)


def _timed(hub: Any, work: Callable[[], object]) -> dict[str, float]:
    """Return how long it takes, and what the Hub saw of it."""
    mark = hub.mark()
    began = time.perf_counter()
    work()
    seconds = time.perf_counter() - began
    seen = hub.requests(mark)
    received, sent = (sum(getattr(served, key) for served in seen) for key in ("received", "sent"))
    return {"seconds": seconds, "requests": float(len(seen)), "received_bytes": received, "sent_bytes": sent}


def tables(found: dict[str, Any]) -> Iterator[Grid]:
    """Yield the tables for people."""
    for figures in found["sizes"].values():
        rows = []
        for step, title in _TITLES.items():
            facts = figures["steps"][step]
            moved = facts["received_bytes"] + facts["sent_bytes"]
            rows.append(
                [
                    title,
                    f"{facts['seconds']:.2f}",
                    number(facts["received_bytes"] / 1e6),
                    number(facts["sent_bytes"] / 1e6),
                    number(moved / 1e6 / facts["seconds"]),
                    f"{facts['requests']:,.0f}",
                ]
            )
        new = figures["steps"]["segments"]["new_bytes"] / 1e6
        title = f"a bucket for a store of {figures['store_bytes'] / 1e6:,.0f} MB, {new:.1f} MB new"
        yield Grid(title, ["", "seconds", "MB up", "MB down", "MB/s", "requests"], rows)
    ratios = [
        ["publish of what is new, in the large store to the small", f"{found['publish_growth']['segments']:.2f}"],
        ["publish of it, to the client alone", f"{list(found['to_client']['upload'].values())[-1]:.2f}"],
        ["restore, to the client alone", f"{list(found['to_client']['download'].values())[-1]:.2f}"],
    ]
    yield Grid("ratios", ["of the times", "ratio"], ratios)


def panels(found: dict[str, Any]) -> list[Panel]:
    """Return what `--plot` draws."""
    sizes = found["sizes"]
    return [
        Panel(
            title="Publish and restore by what there is to do",
            unit="seconds, shorter is better",
            labels=[*_TITLES.values()],
            series={
                f"store of {figures['store_bytes'] / 1e6:,.0f} MB": [
                    figures["steps"][step]["seconds"] for step in _TITLES
                ]
                for figures in sizes.values()
            },
        )
    ]


def reading(found: dict[str, Any]) -> list[str]:
    """Return what these figures say."""
    small, large = found["sizes"].values()
    new, back = large["steps"]["segments"], large["steps"]["restore"]
    published = (
        f"Into a store of {large['store_bytes'] / 1e6:,.0f} MB, {new['new_bytes'] / 1e6:.1f} MB that are new were "
        f"published in {new['seconds']:.2f} s with {new['received_bytes'] / 1e6:.1f} MB sent; into one of "
        f"{small['store_bytes'] / 1e6:,.0f} MB in {small['steps']['segments']['seconds']:.2f} s."
    )
    return [
        published,
        f"All of it was restored at {back['bytes'] / 1e6 / back['seconds']:,.0f} MB/s.",
        "The Hub is the local one of the tests, in Python on the same two cores: it is the limit of all of these.",
    ]
