"""Many processes on one store at once: writers, a polling reader, compactors; counts and values are exact."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections import Counter

import pytest
from process_support import finish, values_by_step

import eventlog
from compactor.commit import totals
from compactor.config import CompactorConfig
from compactor.work import take_turn
from eventlog.fs import LOCAL
from eventlog.store import open_store
from eventlog.verify import verify

CROWD_WRITER = """
    import sys, eventlog
    with eventlog.init(project="crowd", name=f"run-{sys.argv[2]}", dir=sys.argv[1]) as run:
        for step in range(int(sys.argv[3])):
            run.log({"x": step + int(sys.argv[2]) / 100, "y": float(step % 7)}, step=step)
"""

POLLER = """
    import json, sys, time
    from eventlog.store import open_store
    from eventlog.errors import UsageError
    seen, polls, shrunk, cursor, followed = {}, 0, 0, None, 0
    while True:
        try:
            store = open_store(sys.argv[1])
            rows = store.metrics("crowd", names=["x"])
            since = open_store(sys.argv[1]).follow("crowd", cursor)
        except UsageError:
            time.sleep(0.05)
            continue
        counts = {}
        for run in rows["_run_id"].to_pylist():
            counts[run] = counts.get(run, 0) + 1
        shrunk += sum(counts.get(run, 0) < known for run, known in seen.items())
        seen = counts
        cursor = since.cursor
        followed += since.metrics.num_rows
        polls += 1
        if rows.num_rows >= int(sys.argv[2]) and followed >= int(sys.argv[2]):
            break
    print(json.dumps({"polls": polls, "shrunk": shrunk, "rows": rows.num_rows, "followed": followed}))
"""


def expected(run: int, records: int) -> Counter:
    return Counter((step, step + run / 100) for step in range(records))


@pytest.mark.invariant(1)
@pytest.mark.invariant(6)
def test_32_writers_beside_a_poller_and_a_compactor_are_exact(tmp_path, start, compactor):
    store = tmp_path / "store"
    store.mkdir()
    service = compactor(store, "--fold-interval", "0.2", "--sweep-interval", "0.1")
    assert "watching" in service.stderr.readline()
    poller = start(POLLER, store, 32_000)
    paced = CROWD_WRITER.replace("run.log(", "import time; time.sleep(0.002); run.log(")
    writers = [start(paced, store, index, 1000) for index in range(32)]
    for writer in writers:
        finish(writer)
    report = json.loads(finish(poller))
    service.send_signal(signal.SIGTERM)
    finish(service)
    assert report["shrunk"] == 0
    assert (report["rows"], report["followed"]) == (32_000, 32_000)
    found = values_by_step(store, "crowd", "x")
    assert found == {f"run-{index}": expected(index, 1000) for index in range(32)}
    manifest = open_store(store).manifest("crowd")
    assert manifest.version > 1
    finish(compactor(store, "--once"))
    folded = {row.table: 0 for row in manifest.files}
    manifest = open_store(store).manifest("crowd")
    for file in manifest.of_table("metrics"):
        folded["metrics"] += file.rows
    assert folded["metrics"] == 32_000
    assert values_by_step(store, "crowd", "x") == found


@pytest.mark.invariant(13)
def test_two_compactors_in_two_processes_neither_lose_nor_double(tmp_path, start, compactor):
    store = tmp_path / "store"
    store.mkdir()
    services = [
        compactor(store, "--fold-interval", "0.05", "--sweep-interval", "0.02", "--fanout", "2") for _ in range(2)
    ]
    writers = [
        start(CROWD_WRITER.replace("run.log(", "import time; time.sleep(0.001); run.log("), store, index, 1500)
        for index in range(4)
    ]
    for writer in writers:
        finish(writer)
    time.sleep(0.5)
    for service in services:
        service.send_signal(signal.SIGTERM)
        finish(service)
    finish(compactor(store, "--once"))
    assert values_by_step(store, "crowd", "x") == {f"run-{index}": expected(index, 1500) for index in range(4)}
    assert open_store(store).manifest("crowd").version > 5


ROUNDS = int(os.environ.get("RACE_ROUNDS", "100"))
COMPETITOR = """
    import sys
    from compactor.config import CompactorConfig
    from compactor.work import take_turn
    from eventlog.fs import LOCAL
    for line in sys.stdin:
        turn = take_turn(LOCAL, sys.argv[1], "p", CompactorConfig(fanout=2))
        print(turn.lost_races, flush=True)
"""


@pytest.mark.invariant(13)
def test_two_compactors_at_once_for_100_rounds_commit_each_record_once(tmp_path, start):
    store = tmp_path / "store"
    run = eventlog.init(project="p", name="a", dir=store)
    pair = [start(COMPETITOR, store) for _ in range(2)]
    lost = 0
    for index in range(ROUNDS):
        for step in range(index * 20, index * 20 + 20):
            run.log({"x": float(step)}, step=step)
        for competitor in pair:
            competitor.stdin.write("go\n")
            competitor.stdin.flush()
        lost += sum(int(competitor.stdout.readline()) for competitor in pair)
    for competitor in pair:
        finish(competitor)
    run.finish()
    take_turn(LOCAL, str(store), "p", CompactorConfig())
    assert lost > 0, "the two never met, so nothing was tested"
    manifest = open_store(store).manifest("p")
    sys.stdout.write(f"{ROUNDS} rounds, {manifest.version} versions, {lost} races lost\n")
    assert totals(manifest, "metrics")[0] == ROUNDS * 20
    assert open_store(store).metrics("p")["x"].to_pylist() == [float(x) for x in range(ROUNDS * 20)]
    report = verify(str(store))
    assert (report.findings, report.lost, report.doubled, report.gaps) == ([], 0, 0, 0)
