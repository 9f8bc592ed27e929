"""Each benchmark runs, and its figures agree with each other. Times are never judged here."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

BENCH = Path(__file__).parents[2] / "tools" / "benchmarks" / "bench.py"


def bench(tmp_path, *arguments):
    command = [sys.executable, str(BENCH), *arguments, "--dir", str(tmp_path / "cache")]
    done = subprocess.run(command, check=False, capture_output=True, timeout=200)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


def check_machine(document):
    assert set(document["machine"]) >= {"cpu", "cores", "memory_bytes", "load_1min", "file_system", "python"}
    assert set(document["machine"]["versions"]) == {"eventlog", "msgspec", "pyarrow", "numpy", "duckdb"}


def test_write_counts_what_it_logs(tmp_path):
    document = json.loads(bench(tmp_path, "write", "--json", "--records", "2000", "--repeat", "1"))
    check_machine(document)
    assert document["parameters"]["records"] == 2000
    for subject in ("eventlog", "limit"):
        log = document["log_us"][subject]
        assert 0 < log["p50"] <= log["p99"] <= log["p99_9"] <= log["max"]
        whole = document["through_finish"][subject]
        assert whole["records"] == 2000
        assert whole["events_per_s"] == 2000 / whole["seconds"]
        # 64 bytes of values a record, and what it takes to frame them.
        assert 8 < whole["bytes_per_point"] < 16
    assert document["log_p50_ratio"] == document["log_us"]["eventlog"]["p50"] / document["log_us"]["limit"]["p50"]
    assert set(document["import"]) == {"eventlog", "msgspec"}
    assert list((tmp_path / "cache").iterdir()) == []


def test_fold_counts_what_it_folds_and_keeps_what_it_made(tmp_path):
    document = json.loads(bench(tmp_path, "fold", "--json", "--records", "2000", "--repeat", "1"))
    check_machine(document)
    assert set(document["fold"]) == {"noisy", "half_constant"}
    for figures in document["fold"].values():
        # Each of the 20 runs has a start and an end beside its calls.
        assert figures["eventlog"]["records"] == 2000 + 2 * 20
        assert figures["eventlog"]["points"] == 2000 * 8
        assert figures["limit_rows"]["points"] == figures["limit_columns"]["points"] == 2000 * 8
        assert figures["compact"]["rows"] == 2000
        assert figures["eventlog"]["peak_rss_mib"] >= figures["eventlog"]["rss_before_mib"]
        assert set(figures["bytes_per_point"]) == {"hot", "after_fold", "after_compaction", "limit"}
    growth = document["growth"]
    assert growth["new_records"] == 200 + 2 * 20
    assert growth["snapshot_rows"] == {"1": 2000, "10": 20_000}
    assert growth["wall_ratio"] == growth["wall_s"]["10"] / growth["wall_s"]["1"]
    assert growth["cpu_ratio"] == growth["cpu_s"]["10"] / growth["cpu_s"]["1"]
    kept = sorted(entry.name for entry in (tmp_path / "cache").iterdir())
    assert "segments-noisy-2000-1" in kept
    assert not [name for name in kept if "copy" in name or "making" in name]


def test_read_gets_the_same_rows_in_every_way(tmp_path):
    document = json.loads(bench(tmp_path, "read", "--json", "--records", "2000", "--repeat", "1"))
    check_machine(document)
    rows = document["rows"]
    assert rows["curve"] == rows["curve_duckdb"] == rows["curve_pyarrow_dataset"] == rows["metrics_of_run"] == 100
    assert rows["curve_limit_row_groups"] >= 100
    assert rows["runs"] == 20
    assert rows["open"] == 8
    assert set(document["warm_ms"]) == set(rows)
    for subject in ("eventlog", "duckdb", "pyarrow_dataset"):
        times = document["fresh_process_ms"][subject]
        assert times["process"] >= times["import"] + times["answer"] > 0


def test_people_get_a_table(tmp_path):
    assert b"log() p50" in bench(tmp_path, "write", "--records", "200", "--repeat", "1")


def test_serve_polls_both_servers_on_the_same_data(tmp_path):
    document = json.loads(bench(tmp_path, "serve", "--json", "--records", "4000", "--repeat", "1"))
    check_machine(document)
    for subject in ("eventlog", "eventlog_short_runs", "trackio"):
        figures = document[subject]
        assert figures["body_bytes"] > 0
        assert 0 < figures["unchanged_ms"] <= figures["unchanged_max_ms"]
        assert 0 < figures["changed_ms"] <= figures["changed_max_ms"]
    # Runs of 200 rows are sent whole by both.
    assert document["eventlog"]["rows_a_run"] == document["trackio"]["rows_a_run"] == 200
    for key in ("unchanged_ms", "changed_ms"):
        assert document["trackio_to_eventlog"][key] == document["trackio"][key] / document["eventlog"][key]
