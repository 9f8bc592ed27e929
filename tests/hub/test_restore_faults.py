"""Whatever befalls a restore, a store shows what it had or all of a snapshot, and the next restore ends it."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import pytest
from bucketcases import ALL, KNOWN, client, fold, is_clean, log, publisher, rows
from dying import dies
from localhub.faults import Kind
from localhub.process import LocalHub
from localhub.sweep import ANYWHERE, sweep_faults

from compactor.hub.restore import restore
from eventlog import manifest as manifests
from eventlog.fs import LOCAL
from eventlog.hub.bucket import Bucket

KINDS: tuple[Kind, ...] = (*ANYWHERE, "expired-token", "slow", "short-body", "wrong-bytes", "stale-listing")


class Copying:
    """A store in a bucket, and a copy of it that is made while things go wrong."""

    def __init__(self, hub: LocalHub, bucket: str, directory: Path) -> None:
        self.hub, self.bucket = hub, bucket
        self.store, self.copy = directory / "store", directory / "copy"
        for name in "ab":
            log(self.store, name)
            fold(self.store)
        log(self.store, "c")
        self.version = publisher(hub, bucket, self.store).publish("p").version

    def reset(self) -> None:
        shutil.rmtree(self.copy, ignore_errors=True)
        log(self.copy, "mine", 5)

    def restore(self, bucket: Bucket | None = None) -> None:
        restore(LOCAL, str(self.copy), bucket or client(self.hub, self.bucket), "p")

    def check(self) -> int:
        """The copy shows no snapshot or a whole one, and nothing of its own is lost; return which."""
        is_clean(self.copy)
        version = manifests.load_newest(LOCAL, str(self.copy), "p")[0].version
        assert version in (0, self.version)
        return version

    def check_ended(self) -> None:
        self.restore()
        assert self.check() == self.version
        theirs = rows(self.store)
        mine = [row for row in rows(self.copy) if row not in theirs]
        assert len(mine) == len(rows(self.copy)) - len(theirs) > 5
        # What a killed process was about to write goes an hour later: another one might be writing it.
        assert all(path.name.startswith(".tmp-") for path in (self.copy / "restoring").rglob("*") if path.is_file())


@pytest.fixture
def copying(hub: LocalHub, bucket: str, tmp_path: Path) -> Copying:
    return Copying(hub, bucket, tmp_path)


@pytest.mark.timeout(3600)
def test_a_restore_that_meets_a_fault_at_any_request_shows_nothing_or_all_and_is_completed(copying: Copying) -> None:
    met: Counter[str] = Counter()
    for swept in sweep_faults(copying.hub, copying.restore, KINDS, reset=copying.reset, in_turn=not ALL):
        assert swept.error is None or isinstance(swept.error, KNOWN), swept
        copying.check()
        met[swept.fault.kind] += swept.befell
        copying.hub.clear_faults()
        copying.check_ended()
    assert set(met) == set(KINDS)


@pytest.mark.timeout(3600)
def test_a_restore_that_is_killed_at_any_of_its_steps_shows_nothing_or_all_and_is_continued(copying: Copying) -> None:
    copying.reset()
    seen: list[int] = []
    step = 0
    while dies(client(copying.hub, copying.bucket), copying.restore, step):
        seen.append(copying.check())
        if ALL or len(seen) % 3 == 0:
            copying.check_ended()
            copying.reset()
        step += 1
    assert {0, copying.version} == set(seen)


def test_what_came_whole_before_a_restore_was_cut_off_is_not_downloaded_again(
    copying: Copying, monkeypatch: pytest.MonkeyPatch
) -> None:
    from compactor.hub import download
    from compactor.hub.plan import Limits

    monkeypatch.setattr(download, "_WAVES", Limits(wave_files=1))
    copying.reset()
    copying.hub.fault("status-before", route="GET /xorb/{hash}", nth=6, times=0, status=404)
    with pytest.raises(KNOWN):
        copying.restore()
    copying.hub.clear_faults()
    here = sum(path.is_file() for part in ("snapshots", "blobs") for path in (copying.copy / part).rglob("*")) - 1
    mark = copying.hub.mark()
    copying.restore()
    fetched = [one for one in copying.hub.requests(mark) if one.route == "GET /xorb/{hash}"]
    assert here > 2, "beside the blob of its own"
    copying.reset()
    mark = copying.hub.mark()
    copying.restore()
    assert len(fetched) == len([one for one in copying.hub.requests(mark) if one.route == "GET /xorb/{hash}"]) - here
    copying.check_ended()
