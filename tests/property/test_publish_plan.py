"""Publishing: cut off anywhere and planned again, a bucket shows whole snapshots only and ends complete."""

from __future__ import annotations

import os
import shutil

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import eventlog
from compactor.config import CompactorConfig
from compactor.hub.plan import Delete, File, Limits, Offer, Publish, Step, Upload, Verify, offer, plan_publish
from compactor.survey import SegmentFile, Survey, survey
from compactor.work import take_turn
from eventlog import manifest as manifests
from eventlog import names
from eventlog.errors import ConflictError, UsageError
from eventlog.fs import LOCAL
from eventlog.hub.bucket import Remote
from eventlog.manifest import DataFile, Manifest, Watermark
from eventlog.store import open_store

WRITER = "0" * 26
GRACE_NS = 100
LIMITS = Limits(wave_files=2, wave_bytes=250, grace_ns=GRACE_NS)
FOREIGN = {
    "notes.txt": 1,
    "snapshots/other/data/metrics/000000000001-0000000000000000.parquet": 1,
    f"segments/other/{WRITER}/00000001.seg": 1,
    "segments/p/00000001.seg": 1,
}


def data_file(number: int) -> DataFile:
    path = names.data_file_path("metrics", f"{number:012d}-{number:016x}.parquet")
    return DataFile(
        path=path,
        table="metrics",
        rows=1,
        size_bytes=100 + number,
        sha256="",
        checksum="",
        level=0,
        min_run="",
        max_run="",
    )


class Store:
    """A store in which folds add files, compactions replace them, and a writer seals segments."""

    def __init__(self) -> None:
        self.manifest = manifests.empty("p")
        self.sealed = 0
        self.made = 0

    def commit(self, fold: int, merge: int) -> None:
        """Fold some of the sealed segments into a file, and merge some files into one."""
        files = list(self.manifest.files)
        if merge > 1:
            self.made += 1
            files = [*files[merge:], data_file(self.made)]
        self.made += 1
        mark = self.manifest.writers.get(WRITER, Watermark())
        folded = Watermark(segno=min(mark.segno + fold, self.sealed + 1))
        self.manifest = Manifest(
            project="p",
            version=self.manifest.version + 1,
            parent=self.manifest.version,
            created_ns=0,
            committer="",
            action="fold",
            files=[*files, data_file(self.made)],
            writers={WRITER: folded},
        )

    def offered(self) -> Offer:
        segments = [
            SegmentFile(n, True, f"/s/{names.segment_name(n, sealed=True)}", 50 + n, 0)
            for n in range(1, self.sealed + 1)
        ]
        segments.append(SegmentFile(self.sealed + 1, False, f"/s/{self.sealed + 1:08d}.open", 9, 0))
        found = Survey({WRITER: segments}, {}, {})
        return offer(found, self.manifest, 10 + self.manifest.version, [File("blobs/sha256/aa/" + "a" * 64, 5)])


class Bucket:
    """A bucket that does what the steps say, and knows which snapshots a reader may hold."""

    def __init__(self) -> None:
        self.files = {path: Remote(path, size, "", 0) for path, size in FOREIGN.items()}
        self.offers: dict[int, Offer] = {}
        self.published_ns: dict[int, int] = {}
        self.listings = [list(self.files.values())]
        self.now_ns = 1_000

    def published(self) -> list[int]:
        """Return the versions whose manifests are there, ascending."""
        return sorted(version for version, one in self.offers.items() if one.manifest_file.path in self.files)

    def plan(self, offered: Offer, behind: int = 0) -> tuple[Step, ...]:
        self.offers[offered.manifest.version] = offered
        listing = self.listings[-1 - min(behind, len(self.listings) - 1)]
        shown = {remote.path for remote in listing}
        known = [
            one.manifest
            for version, one in self.offers.items()
            if version in self.published() or one.manifest_file.path in shown
        ]
        return plan_publish(offered, listing, known, LIMITS, self.now_ns)

    def apply(self, step: Step, half: bool = False) -> None:  # noqa: FBT001, FBT002
        if isinstance(step, Upload):
            for file in step.files[: len(step.files) // 2 if half else None]:
                self.files[file.path] = Remote(file.path, file.size_bytes, "", self.now_ns)
        elif isinstance(step, Publish) and not half:
            self.files[step.file.path] = Remote(step.file.path, step.file.size_bytes, "", self.now_ns)
            (version,) = (number for number, one in self.offers.items() if one.manifest_file == step.file)
            self.published_ns[version] = self.now_ns
        elif isinstance(step, Delete):
            for path in step.paths[: len(step.paths) // 2 if half else None]:
                self.files.pop(path, None)
        elif isinstance(step, Verify):
            assert all(self.files[file.path].size_bytes == file.size_bytes for file in step.files)
        self.listings.append(list(self.files.values()))

    def check(self) -> None:
        """What is there is whole; and there is what a reader may hold: the newest, and what it superseded lately."""
        for version in self.published():
            missing = [file.path for file in self.offers[version].files if file.path not in self.files]
            assert missing == [], f"version {version} at {self.now_ns}"
        for version in self.published_ns:
            later = [at for other, at in self.published_ns.items() if other > version]
            assert version in self.published() or min(later) <= self.now_ns - GRACE_NS
        assert all(path in self.files for path in FOREIGN)


turns = st.lists(
    st.tuples(
        st.integers(0, 3),  # segments that are sealed
        st.integers(0, 3),  # segments that are folded; a commit comes with it
        st.integers(0, 3),  # files that are merged
        st.integers(0, GRACE_NS),  # time that passes
        st.none() | st.integers(0, 9),  # the step at which the publish is cut off
        st.booleans(),  # that step is done in half
        st.integers(0, 5),  # steps by which the listing is behind
    ),
    min_size=1,
    max_size=14,
)


@settings(max_examples=300)
@given(turns)
def test_a_publish_cut_off_anywhere_or_planned_on_an_old_listing_leaves_whole_snapshots_and_goes_on(history):
    store, bucket = Store(), Bucket()
    for sealed, folded, merged, passed, cut, half, behind in history:
        store.sealed += sealed
        store.commit(folded, merged)
        bucket.now_ns += passed
        steps = bucket.plan(store.offered(), behind)
        kinds = [type(step) for step in steps]
        assert Delete not in kinds or set(kinds[kinds.index(Delete) :]) == {Delete}
        for number, step in enumerate(steps):
            if number == cut:
                if half:
                    bucket.apply(step, half=True)
                break
            bucket.apply(step)
            bucket.check()
        bucket.check()
    for step in bucket.plan(store.offered()):
        bucket.apply(step)
    assert bucket.published()[-1] == store.manifest.version
    assert bucket.plan(store.offered()) == ()


@given(turns)
def test_a_bucket_left_alone_for_the_grace_period_holds_what_is_needed_and_no_more(history):
    store, bucket = Store(), Bucket()
    for sealed, folded, merged, passed, *_ in history:
        store.sealed += sealed
        store.commit(folded, merged)
        bucket.now_ns += passed
        for step in bucket.plan(store.offered()):
            bucket.apply(step)
    bucket.now_ns += GRACE_NS
    offered = store.offered()
    for step in bucket.plan(offered):
        bucket.apply(step)
    needed = {file.path for file in offered.files} | {offered.manifest_file.path} | set(FOREIGN)
    assert set(bucket.files) == needed


@given(turns)
def test_the_manifest_goes_up_alone_after_a_look_at_all_that_it_needs_and_waves_keep_their_limits(history):
    store, bucket = Store(), Bucket()
    for sealed, folded, merged, *_ in history:
        store.sealed += sealed
        store.commit(folded, merged)
    offered = store.offered()
    steps = bucket.plan(offered)
    kinds = [type(step) for step in steps]
    at = kinds.index(Publish)
    assert Delete not in kinds[:at]
    assert {Upload, Verify}.isdisjoint(kinds[at:])
    assert max((index for index, kind in enumerate(kinds) if kind is Upload), default=-1) < kinds.index(Verify)
    assert [file for step in steps if isinstance(step, Verify) for file in step.files] == list(offered.files)
    for wave in (step.files for step in steps if isinstance(step, Upload)):
        assert len(wave) <= 2
        assert len(wave) == 1 or sum(file.size_bytes for file in wave) <= 250


def test_a_sealed_segment_goes_up_without_a_new_snapshot():
    store, bucket = Store(), Bucket()
    store.commit(0, 0)
    for step in bucket.plan(store.offered()):
        bucket.apply(step)
    store.sealed = 1
    segment = File(f"segments/p/{WRITER}/00000001.seg", 51)
    assert bucket.plan(store.offered()) == (Upload((segment,)), Verify((segment,)))


def test_a_manifest_that_cannot_be_read_keeps_everything_in_the_bucket():
    store, bucket = Store(), Bucket()
    for _ in range(3):
        store.commit(0, 3)
        bucket.now_ns += GRACE_NS
        for step in bucket.plan(store.offered()):
            bucket.apply(step)
    bucket.now_ns += GRACE_NS
    offered, listing = store.offered(), list(bucket.files.values())
    known = [bucket.offers[version].manifest for version in bucket.published()]
    assert plan_publish(offered, listing, known, LIMITS, bucket.now_ns) != ()
    assert plan_publish(offered, listing, known[1:], LIMITS, bucket.now_ns) == ()


def test_a_bucket_with_a_newer_or_another_snapshot_has_another_publisher():
    store, bucket = Store(), Bucket()
    store.commit(0, 0)
    older = store.offered()
    store.commit(0, 0)
    for step in bucket.plan(store.offered()):
        bucket.apply(step)
    with pytest.raises(ConflictError, match="has version 2"):
        bucket.plan(older)
    other = Store()
    other.commit(0, 0)
    other.commit(1, 2)
    with pytest.raises(ConflictError, match="another snapshot as version 2"):
        plan_publish(other.offered(), list(bucket.files.values()), [store.manifest], LIMITS, bucket.now_ns)


def test_a_file_of_the_wrong_size_is_uploaded_again():
    store, bucket = Store(), Bucket()
    store.commit(0, 0)
    for step in bucket.plan(store.offered()):
        bucket.apply(step)
    file = store.offered().files[-1]
    bucket.files[file.path] = Remote(file.path, file.size_bytes - 1, "", 0)
    bucket.listings.append(list(bucket.files.values()))
    assert bucket.plan(store.offered()) == (Upload((file,)), Verify((file,)))


def test_what_another_publish_has_just_uploaded_stays_for_the_grace_period():
    store, bucket = Store(), Bucket()
    store.commit(0, 0)
    for step in bucket.plan(store.offered()):
        bucket.apply(step)
    path = "snapshots/p/" + data_file(77).path
    bucket.files[path] = Remote(path, 177, "", bucket.now_ns)
    bucket.listings.append(list(bucket.files.values()))
    bucket.now_ns += GRACE_NS - 1
    assert bucket.plan(store.offered()) == ()
    bucket.now_ns += 1
    assert bucket.plan(store.offered()) == (Delete((path,)),)


def test_nothing_is_offered_before_the_first_fold_and_limits_have_ranges():
    with pytest.raises(UsageError):
        offer(Survey({}, {}, {}), manifests.empty("p"), 0)
    for wrong in ({"wave_files": 0}, {"wave_files": 1001}, {"wave_bytes": 0}, {"grace_ns": -1}):
        with pytest.raises(UsageError):
            Limits(**wrong)


def test_what_a_real_store_offers_is_enough_to_read_all_that_was_sealed(tmp_path):
    root, copy = str(tmp_path / "store"), str(tmp_path / "copy")
    config = CompactorConfig()
    quiet = eventlog.WriterConfig(sync_interval_s=None, segment_bytes=4096)
    with eventlog.init(project="p/ü", name="a", dir=root, settings=quiet) as run:
        for step in range(500):
            run.log({"x": step * 0.5})
        take_turn(LOCAL, root, "p/ü", config)
        for step in range(500, 1000):
            run.log({"x": step * 0.5})
    manifest, _ = manifests.load_newest(LOCAL, root, "p/ü")
    path = names.manifest_path(root, "p/ü", manifest.version)
    offered = offer(survey(LOCAL, root, "p/ü"), manifest, os.path.getsize(path))
    assert any(file.path.startswith("segments/") for file in offered.files), "the tail is not folded yet"
    for file in (*offered.files, offered.manifest_file):
        os.makedirs(os.path.dirname(os.path.join(copy, file.path)), exist_ok=True)
        shutil.copyfile(os.path.join(root, file.path), os.path.join(copy, file.path))
        assert os.path.getsize(os.path.join(copy, file.path)) == file.size_bytes
    there, here = (open_store(one).metrics("p/ü").to_pydict() for one in (copy, root))
    assert len(there["_seq"]) == 1000
    assert there == here
