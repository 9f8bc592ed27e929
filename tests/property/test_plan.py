"""Plans: carried out, nothing is left to plan; made, nothing is touched; and files stay few."""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import eventlog
from compactor.config import CompactorConfig
from compactor.fold import fold
from compactor.plan import plan
from compactor.survey import survey
from compactor.work import take_turn
from eventlog import manifest as manifests
from eventlog.fs import LOCAL

QUIET = eventlog.WriterConfig(sync_interval_s=None, segment_bytes=4096)
shapes = st.lists(st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=4, unique=True), min_size=1, max_size=12)


def newest(root: str) -> manifests.Manifest:
    return manifests.load_newest(LOCAL, root, "p")[0]


def listing(root: str) -> list[tuple[str, int, int]]:
    found = []
    for base, _, names in os.walk(root):
        for name in names:
            stat = os.stat(os.path.join(base, name))
            found.append((os.path.join(base, name), stat.st_size, stat.st_mtime_ns))
    return sorted(found)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(shapes, st.integers(4096, 20_000), st.integers(2, 4))
def test_a_plan_that_was_carried_out_leaves_nothing_to_plan(tmp_path_factory, names, batch_bytes, fanout):
    root = str(tmp_path_factory.mktemp("store"))
    config = CompactorConfig(batch_bytes=batch_bytes, fanout=fanout)
    with eventlog.init(project="p", name="a", dir=root, settings=QUIET) as run:
        for index in range(20):
            for keys in names:
                run.log({key: float(index) for key in keys} | ({"text": "x"} if index % 7 == 0 else {}))
    before = listing(root)
    planned = plan(survey(LOCAL, root, "p"), newest(root), config)
    assert planned.pending_bytes > 0
    assert listing(root) == before
    take_turn(LOCAL, root, "p", config)
    after = plan(survey(LOCAL, root, "p"), newest(root), config)
    assert (after.fold, after.merges) == ((), ())


@pytest.mark.parametrize(("folds", "at_most"), [(10, 9), (100, 15)])
def test_the_number_of_files_grows_with_the_logarithm_of_the_folds(tmp_path, folds, at_most):
    root = str(tmp_path)
    config = CompactorConfig(fanout=4)
    run = eventlog.init(project="p", name="a", dir=root, settings=QUIET)
    for index in range(folds):
        run.log({"x": float(index)})
        take_turn(LOCAL, root, "p", config)
    run.finish()
    for table in ("metrics", "runs"):
        assert len(newest(root).of_table(table)) <= at_most


def test_name_sets_that_cannot_share_a_file_are_not_merged_for_ever(tmp_path):
    root = str(tmp_path)
    with eventlog.init(project="p", name="a", dir=root, settings=QUIET) as run:
        for count, rows in ((4096, 50), (512, 400), (64, 3200), (8, 25_600)):
            values = {f"{count}/{index}": 1.0 for index in range(count)}
            for _ in range(rows):
                run.log(values)
    config = CompactorConfig()
    fold(LOCAL, root, "p", config)
    take_turn(LOCAL, root, "p", config)
    version = newest(root).version
    take_turn(LOCAL, root, "p", config)
    assert newest(root).version == version
    assert sum(file.rows for file in newest(root).of_table("metrics")) == 50 + 400 + 3200 + 25_600
