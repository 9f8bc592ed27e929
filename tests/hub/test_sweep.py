"""The sweep: every request of an operation meets every fault, each time from the same beginning."""

from __future__ import annotations

from collections import Counter

import pytest
from huggingface_hub.errors import BucketBatchError
from localhub.faults import Kind
from localhub.fixtures import noise
from localhub.journal import Served
from localhub.process import LocalHub
from localhub.sweep import ANYWHERE, KILLS, applies, record, sweep_faults

DATA = noise(100_000)


def publish(hub: LocalHub, bucket: str) -> None:
    """Upload a file, then what names it, then delete what was named before."""
    api = hub.api()
    api.batch_bucket_files(bucket, add=[(DATA, "data-2")])
    api.batch_bucket_files(bucket, add=[(b"data-2", "manifest")])
    api.batch_bucket_files(bucket, delete=["data-1"])


def at_the_hub(served: Served) -> bool:
    """Leave out the xet store, whose faults hf_xet hides from huggingface_hub."""
    return "/api/" in served.path


def in_batches(served: Served) -> bool:
    return applies("kill-amid", served)


def named(hub: LocalHub, bucket: str) -> tuple[str, set[str]]:
    fs = hub.filesystem()
    paths = {path.rsplit("/", 1)[1] for path in fs.ls(f"buckets/{bucket}", detail=False)}
    return fs.cat_file(f"buckets/{bucket}/manifest").decode(), paths


@pytest.fixture
def published(hub: LocalHub, bucket: str) -> str:
    hub.api().batch_bucket_files(bucket, add=[(DATA[:1000], "data-1"), (b"data-1", "manifest")])
    return bucket


def test_every_request_of_a_publish_meets_every_fault_and_no_reader_sees_a_name_without_its_file(
    hub: LocalHub, published: str
) -> None:
    met: Counter[tuple[Kind, str, int]] = Counter()
    for swept in sweep_faults(hub, lambda: publish(hub, published), ANYWHERE, where=at_the_hub):
        assert swept.befell, swept
        met[swept.fault.kind, swept.fault.route, swept.fault.nth] += 1
        # A delete that is tried again finds nothing left: the only error that this client cannot spare its caller.
        assert swept.error is None or isinstance(swept.error, BucketBatchError), swept
        assert named(hub, published) == ("data-2", {"data-2", "manifest"}), swept
    hub.load("sweep")
    requests = [one for one in record(hub, lambda: publish(hub, published)) if at_the_hub(one)]
    assert set(met.values()) == {1}
    assert len(met) == len(requests) * len(ANYWHERE)


def test_a_hub_that_dies_at_any_batch_is_met_again(hub: LocalHub, published: str) -> None:
    met: Counter[Kind] = Counter()
    kinds: tuple[Kind, ...] = (*KILLS, "kill-amid")
    for swept in sweep_faults(hub, lambda: publish(hub, published), kinds, where=in_batches):
        manifest, paths = named(hub, published)
        assert manifest in paths, swept
        assert swept.befell, swept
        met[swept.fault.kind] += 1
    assert met == dict.fromkeys(kinds, 3)


def test_an_order_that_is_wrong_is_found_out(hub: LocalHub, published: str) -> None:
    def manifest_first() -> None:
        api = hub.api()
        api.batch_bucket_files(published, add=[(b"data-2", "manifest")])
        api.batch_bucket_files(published, add=[(DATA, "data-2")])

    broken = []
    for swept in sweep_faults(hub, manifest_first, ["expired-token"], where=in_batches):
        manifest, paths = named(hub, published)
        if manifest not in paths:
            broken.append(swept.at.route)
    assert broken


def test_each_run_begins_as_the_first_did(hub: LocalHub, published: str) -> None:
    seen, resets = [], []

    def operation() -> None:
        seen.append(named(hub, published))
        publish(hub, published)

    runs = list(sweep_faults(hub, operation, ["slow"], where=in_batches, reset=lambda: resets.append(1)))
    assert [(repr(swept.error), swept.log) for swept in runs if swept.error] == []
    assert seen == [("data-1", {"data-1", "manifest"})] * (len(runs) + 1)
    assert len(resets) == len(runs) + 1
    assert all(swept.error is None for swept in runs)
