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
    assert document["backlog"]["points"] == 20 * 2000 * 8
    stream = document["stream"]
    assert stream["points"] % (8 * 8 * 20) == 0
    assert stream["points_per_cpu_s"] > stream["points_per_s"] > 0
    assert stream["idle_writers"] == 1000
    kept = sorted(entry.name for entry in (tmp_path / "cache").iterdir())
    assert "segments-noisy-2000-1" in kept
    assert not [name for name in kept if "copy" in name or "making" in name]


def test_read_gets_the_same_rows_in_every_way_at_every_size(tmp_path):
    document = json.loads(
        bench(tmp_path, "read", "--json", "--records", "40000", "--repeat", "1", "--peers", "eventlog")
    )
    check_machine(document)
    assert list(document["sizes"]) == ["3200", "32000", "320000"]
    for size, figures in document["sizes"].items():
        rows = figures["rows"]
        ways = ("curve", "curve_duckdb", "curve_polars", "curve_pyarrow_dataset", "metrics_of_run")
        assert {rows[way] for way in ways} == {100}
        assert rows["curve_limit_row_groups"] >= 100
        assert figures["runs"] == rows["runs"] == int(size) // 800
        assert rows["poll"] == min(figures["runs"], 20)
        assert rows["open"] == 8
        assert set(figures["warm_ms"]) == set(rows)
        for subject in ("eventlog", "duckdb", "pyarrow_dataset"):
            assert figures["fresh_process_ms"][subject]["answer"] > 0
    assert document["run_list"]["runs"] == 32
    assert document["elsewhere"]["ms"] == {}


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


def test_sync_sends_what_is_new_and_restores_all_of_it(tmp_path):
    document = json.loads(bench(tmp_path, "sync", "--json", "--records", "20000", "--repeat", "1"))
    check_machine(document)
    assert list(document["sizes"]) == ["2000", "20000"]
    for figures in document["sizes"].values():
        steps = figures["steps"]
        assert all(facts["seconds"] > 0 for facts in steps.values())
        assert steps["first"]["received_bytes"] > 0.5 * figures["store_bytes"]
        assert steps["nothing_new"]["received_bytes"] < 10_000
        assert 0.5 * steps["segments"]["new_bytes"] < steps["segments"]["received_bytes"]
        assert steps["segments"]["received_bytes"] < 1.2 * steps["segments"]["new_bytes"]
        assert steps["restore"]["bytes"] > 0.9 * figures["store_bytes"]
        assert steps["restore"]["sent_bytes"] > 0.5 * steps["restore"]["bytes"]
    assert list(document["publish_growth"]) == ["nothing_new", "segments", "folded"]
    text = report_of(tmp_path, "sync", document)
    assert "that are new were published in" in text


def report_of(tmp_path, name, document):
    """Return the report of what a benchmark found; its chart is only described, as this environment cannot draw it."""
    kept = tmp_path / "cache" / "report-quick"
    kept.mkdir(parents=True)
    facts = {"options": ["--these"], "seconds": 1, "date": "some day", "commit": "some commit"}
    (kept / f"{name}.json").write_text(json.dumps({**document, "report": facts}), encoding="utf-8")
    code = (
        "import json, sys, charts, bench\n"
        "def draw(panels, path, footer):\n"
        "    with open(path, 'w') as file: json.dump([panel.series for panel in panels], file)\n"
        "charts.draw = draw\n"
        "bench.main(['report', '--quick', '--only', sys.argv[1], '--dir', sys.argv[2], '--output', sys.argv[3]])\n"
    )
    output = tmp_path / "BENCHMARKS.md"
    command = [sys.executable, "-c", code, name, str(tmp_path / "cache"), str(output)]
    subprocess.run(command, check=True, cwd=BENCH.parent, timeout=200)
    text = output.read_text(encoding="utf-8")
    assert f"`tools/bench {name} --these` at some commit, some day" in text
    assert f"![{name}](docs/benchmarks/{name}.png)" in text
    assert json.loads((tmp_path / "docs" / "benchmarks" / f"{name}.png").read_text(encoding="utf-8"))
    return text


def test_peers_reads_back_every_point_that_each_subject_logged(tmp_path):
    options = ["--peers", "eventlog", "--records", "300", "--repeat", "1"]
    document = json.loads(bench(tmp_path, "peers", "--json", *options))
    check_machine(document)
    assert list(document["found"]) == ["30", "300"]
    for records, results in document["found"].items():
        assert set(results) == {"limit", "eventlog"}
        for figures in results.values():
            assert figures["points"] == figures["present"] == int(records) * 10
            assert figures["lost"] == figures["wrong"] == figures["doubled"] == figures["strange"] == 0
            log = figures["log_us"]
            assert 0 < log["p50"] <= log["p99"] <= log["p99_9"] <= log["max"]
            assert figures["bytes_per_point"] > 8
            assert figures["rss_mib"] >= figures["rss_before_mib"] > 0
            assert figures["process_s"] * 1e3 > figures["start_ms"] > 0
    assert list((tmp_path / "cache").iterdir()) == []
    text = report_of(tmp_path, "peers", document)
    assert "| eventlog | 300 |" in text
    assert "Every subject's points were all read back by another process." in text


def test_what_a_subject_did_not_keep_is_counted(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(BENCH.parent))
    import workload

    workload.prepare(tmp_path / "workload.json")
    work = workload.Workload(tmp_path / "workload.json", 1500)
    assert len(set(work.rows)) == 1500
    points = [
        (run, step, name, value)
        for run in "ab"
        for step, row in enumerate(work.rows)
        for name, value in zip(work.names, row, strict=True)
    ]
    none = {"points": 30_000, "present": 30_000, "lost": 0, "wrong": 0, "doubled": 0, "strange": 0}
    assert work.judge(points, ["a", "b"]) == none
    run, step, name, value = points[40]
    changed = [*points[1:40], (run, step, name, value * 1.01), *points[41:], points[-1], ("c", 0, name, 1.0)]
    expected = {**none, "present": 29_999, "lost": 1, "wrong": 1, "doubled": 1, "strange": 1}
    assert work.judge(changed, ["a", "b"]) == expected


def test_a_crowd_loses_nothing_and_is_polled_meanwhile(tmp_path):
    options = ["--peers", "eventlog", "--records", "20", "--repeat", "1"]
    document = json.loads(bench(tmp_path, "crowd", "--json", *options))
    check_machine(document)
    assert [(case["processes"], case["records"]) for case in document["found"]] == [(8, 20), (32, 20), (8, 200)]
    for case in document["found"]:
        figures = case["ways"]["eventlog"]
        assert figures["points"] == case["processes"] * case["records"] * 10
        assert figures["lost"] == figures["wrong"] == figures["doubled"] == figures["strange"] == 0
        assert figures["finished"] == case["processes"]
        assert figures["errors"] == figures["poll_errors"] == 0
        assert not figures["cut"]
    assert document["found"][-1]["ways"]["eventlog"]["polls"] > 0
    assert list((tmp_path / "cache").iterdir()) == []
    assert "| 0 of 16,000 |" in report_of(tmp_path, "crowd", document)


def test_flat_samples_every_process_and_none_gathers_descriptors(tmp_path):
    document = json.loads(bench(tmp_path, "flat", "--json", "--records", "10000", "--repeat", "1"))
    check_machine(document)
    asked = document["parameters"]
    assert (asked["records"], asked["polls"]) == (10_000, 30)
    assert asked["segments"] >= 8
    assert set(document["subjects"]) == {
        "writer",
        "reader of all segments",
        "Store, polled",
        "compactor run",
        "compactor serve, polled",
    }
    for name, figures in document["subjects"].items():
        assert figures["done"] == asked["records" if name == "writer" else "polls"]
        assert list(figures["rss_bytes"]) == list(figures["descriptors"]) == [f"{tenth}0%" for tenth in range(1, 11)]
        assert min(figures["rss_bytes"].values()) > 2**20
        assert min(figures["descriptors"].values()) >= 3
        assert max(figures["descriptors"].values()) < 150
    assert list((tmp_path / "cache").iterdir()) == []
    text = report_of(tmp_path, "flat", document)
    assert "flat: 10,000 records, " in text
    assert "- writer: from a tenth to the end of 10,000 records, " in text
