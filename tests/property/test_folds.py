"""Folding gives the same rows, checksums and runs however the records are cut into batches."""

import math
import warnings

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from compactor.commit import totals
from compactor.config import CompactorConfig
from compactor.fold import fold
from eventlog import manifest as manifests
from eventlog import parquet, proof
from eventlog.manifest import Manifest
from eventlog.testing import CrashFs, FakeClock, Script, contents, play, scripts, strategies

ROOT, PROJECT = "/store", "p"
TABLES = ("metrics", "system", "events")
TINY, HUGE = CompactorConfig(batch_bytes=4096), CompactorConfig()
FACTS = ("start", "status", "deleted", "tags", "records", "dropped", "first_time_ns", "last_time_ns", "last_step")
FEW = settings(max_examples=15, suppress_health_check=list(HealthCheck))


def played(store: list[Script]) -> CrashFs:
    fs, clock = CrashFs(), FakeClock(tick_ns=1000)
    for script in store:
        play(script, fs, ROOT, PROJECT, time_ns=clock.time_ns)
    return fs


def folded(fs: CrashFs, config: CompactorConfig, *, commits_at_least: int = 0) -> tuple[CrashFs, Manifest]:
    copy = fs.after_crash("kept")
    result = fold(copy, ROOT, PROJECT, config, time_ns=FakeClock().time_ns)
    assert result.commits >= commits_at_least
    assert result.refused == {}
    return copy, result.manifest


def plain_runs(fs: CrashFs, manifest: Manifest) -> dict:
    """Return what was counted of each run and metric; sums of floats depend on their order and are left out."""
    plain = {}
    for run_id, part in contents.runs_of_snapshot(fs, ROOT, manifest).parts.items():
        fields = {field: getattr(part, field) for field in FACTS}
        fields["stats"] = {
            name: repr([s.count, s.nans, s.min or 0.0, s.max or 0.0, s.first, s.first_at, s.last, s.last_at])
            for name, s in part.stats.items()
        }
        plain[run_id] = repr(fields["start"]) + repr(sorted(fields["stats"].items())), {**fields, "start": 0}
    return plain


def recomputed(fs: CrashFs, manifest: Manifest, table: str) -> int:
    base = manifests.names.snapshot_dir(ROOT, PROJECT)
    readers = [parquet.DataFileReader(fs, f"{base}/{file.path}") for file in manifest.of_table(table)]
    return sum(proof.rows_checksum(table, reader.read(None)) for reader in readers) & proof.MASK


@pytest.mark.invariant(8)
@FEW
@given(strategies.stores())
def test_folding_in_small_batches_gives_the_rows_and_checksums_of_folding_at_once(store):
    fs = played(store)
    once, manifest = folded(fs, HUGE)
    often, other = folded(fs, TINY)
    assert contents.of_snapshot(often, ROOT, other) == contents.of_snapshot(once, ROOT, manifest)
    assert {t: totals(other, t) for t in TABLES} == {t: totals(manifest, t) for t in TABLES}
    assert {k: (m.seq, m.records) for k, m in other.writers.items()} == {
        k: (m.seq, m.records) for k, m in manifest.writers.items()
    }


@pytest.mark.invariant(8)
@FEW
@given(strategies.stores())
def test_a_snapshot_holds_the_rows_of_its_segments_and_its_checksums_prove_it(store):
    fs = played(store)
    copy, manifest = folded(fs, TINY)
    assert contents.of_snapshot(copy, ROOT, manifest) == contents.of_segments(fs, ROOT, PROJECT)
    for table in TABLES:
        assert recomputed(copy, manifest, table) == totals(manifest, table)[1]


@FEW
@given(strategies.stores())
def test_folding_in_small_batches_tells_the_same_about_runs(store):
    fs = played(store)
    once, manifest = folded(fs, HUGE)
    often, other = folded(fs, TINY)
    assert plain_runs(often, other) == plain_runs(once, manifest)


@pytest.mark.invariant(6)
@FEW
@given(strategies.stores(), st.integers(0, 4))
def test_a_record_is_in_the_snapshot_or_in_the_tail_whenever_the_fold_pauses(store, pause_after):
    fs = played(store)
    pauses = iter(range(pause_after))
    fold(fs, ROOT, PROJECT, TINY, time_ns=FakeClock().time_ns, stopped=lambda: next(pauses, None) is None)
    assert contents.of_store(fs, ROOT, PROJECT) == contents.of_segments(fs, ROOT, PROJECT)


@pytest.mark.invariant(8)
def test_a_long_store_folds_to_the_same_in_many_batches():
    def loop(run_id: str) -> Script:
        calls = [scripts.Log({"loss": i / 7, "acc": float(i)}, i) for i in range(400)]
        odd = [scripts.Log({"loss": -1.0, "note": f"n{i}"}, i) for i in range(60)]
        return Script(run_id, None, (*calls, *odd, *calls[:100]))

    fs = played([loop("run-a"), loop("run-b"), loop("run-a")])
    once, manifest = folded(fs, HUGE)
    often, other = folded(fs, TINY, commits_at_least=5)
    assert contents.of_snapshot(often, ROOT, other) == contents.of_snapshot(once, ROOT, manifest)
    assert {t: totals(other, t) for t in TABLES} == {t: totals(manifest, t) for t in TABLES}
    assert plain_runs(often, other) == plain_runs(once, manifest)


@pytest.mark.invariant(8)
@FEW
@given(strategies.stores())
def test_folding_again_changes_nothing(store):
    fs = played(store)
    copy, manifest = folded(fs, HUGE)
    again = fold(copy, ROOT, PROJECT, HUGE, time_ns=FakeClock().time_ns)
    assert again.commits == 0
    assert again.manifest == manifest


def runs_in_batches(*batches: list[scripts.Action]) -> CrashFs:
    """Fold after each batch of one run, each from a writer of its own."""
    fs, clock = CrashFs(), FakeClock(tick_ns=10**9)
    for actions in batches:
        play(Script("run-a", None, tuple(actions)), fs, ROOT, PROJECT, time_ns=clock.time_ns)
    return fs


def test_the_step_of_an_extreme_does_not_depend_on_the_batches():
    low_first = [scripts.Log({"x": 1.0}, 5), scripts.Log({"x": 1.0}, 3)]
    padding = [scripts.Log({f"pad{i}": 0.0}, 4) for i in range(80)]
    fs = runs_in_batches([low_first[0], *padding, low_first[1]])
    stats = []
    for config in (HUGE, TINY):
        copy, manifest = folded(fs, config)
        stats.append(contents.runs_of_snapshot(copy, ROOT, manifest).parts["run-a"].stats["x"])
    assert (stats[0].min_step, stats[0].max_step) == (stats[1].min_step, stats[1].max_step)


@pytest.mark.parametrize("numbers", [(math.inf, -math.inf), (1.7e308, 1.7e308)])
def test_numbers_without_a_finite_sum_are_folded_without_a_warning(numbers):
    fs = played([Script("run-a", None, tuple(scripts.Log({"x": number}, 0) for number in numbers))])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        folded(fs, HUGE)
