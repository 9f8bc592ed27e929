"""SQL over a project: the tables are the store's, only one SELECT is asked, and it reaches nothing else."""

from __future__ import annotations

import contextlib
import json
import math
import os
import signal
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

import eventlog
from compactor.serve.config import ServeConfig
from compactor.serve.errors import NotFoundError, RequestError
from compactor.serve.hub import Hub
from compactor.serve.sql import Query, query_project
from eventlog.names import TABLES
from eventlog.store import open_store


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a store with two runs of one project, half of it folded, and a project of another name."""
    from compactor.config import CompactorConfig
    from compactor.work import take_turn
    from eventlog.fs import LOCAL

    root = tmp_path_factory.mktemp("sql") / "store"
    for name in ("a", "b"):
        with eventlog.init("p", name=name, dir=root, config={"lr": 0.5, "name": name}, group="g") as run:
            for step in range(50):
                run.log({"x": step / 3, "train/loss": math.nan if step == 7 else -step}, step=step)
            run.log({"inf": math.inf, "text": "it's", "_step": 1.0, "table": eventlog.Table(["a"], [[1], [2]])})
            run.log_system({"cpu": 0.25})
            run.alert("title", "text", level="error")
        if name == "a":
            take_turn(LOCAL, str(root), "p", CompactorConfig())
    with eventlog.init("o'; drop table metrics; --", name="x", dir=root) as run:
        run.log({"x": 1.0})
    return root


@pytest.fixture
def ask(store: Path) -> Callable[..., Any]:
    """Return a function that asks a query in this process."""

    def query(text: str, project: str = "p", **config: Any) -> dict[str, Any]:
        return query_project(Hub(str(store), ServeConfig(write_token="t", **config)), Query(project, text))

    return query


def stamp(time_ns: int) -> str:
    second = datetime.fromtimestamp(time_ns // 1_000_000_000, UTC)
    return f"{second:%Y-%m-%dT%H:%M:%S}.{time_ns // 1000 % 1_000_000:06d}+00:00"


def plain(value: Any) -> Any:
    return "nan" if isinstance(value, float) and math.isnan(value) else value


@pytest.mark.parametrize("table", TABLES)
def test_the_tables_are_those_of_the_store(ask, store, table):
    answer = ask(f"select * from {table}")
    wanted = getattr(open_store(store), table)("p")
    assert answer["columns"] == wanted.column_names
    assert answer["row_count"] == wanted.num_rows > 0
    for name in wanted.column_names:
        if str(wanted.schema.field(name).type).startswith("timestamp"):
            expected = [stamp(moment) for moment in wanted[name].cast("int64").to_pylist()]
            assert [row[name] for row in answer["rows"]] == expected
        elif name != "metrics":
            assert [plain(row[name]) for row in answer["rows"]] == [plain(value) for value in wanted[name].to_pylist()]


def test_an_answer_says_what_was_asked_and_is_complete_to_the_last_record(server, entry):
    assert server.logs([entry(f"{step}", step, config={"lr": 0.5}) for step in range(10)]).status_code == 200
    for rows in (10, 11):
        answer = server.call("query_project", project="p", query=" select count(*) as n, max(x) as top from metrics ; ")
        assert answer["rows"] == [{"n": rows, "top": (rows - 1) * 0.5}]
        assert (answer["project"], answer["columns"], answer["row_count"]) == ("p", ["n", "top"], 1)
        assert answer["query"] == "select count(*) as n, max(x) as top from metrics"
        assert server.logs([entry(f"{rows}", rows)]).status_code == 200
    joined = "select r.name, json_extract(r.config, '$.lr') as lr, min(m.x) as low from metrics m join runs r on"
    answer = server.call("query_project", project="p", query=f"{joined} m._run_id = r.run_id group by all")
    assert answer["rows"] == [{"name": "a", "lr": "0.5", "low": 0.0}]


def test_order_limit_and_common_table_expressions_work(ask):
    answer = ask(
        "with t as (select _step, x from metrics) select _step from t where x > 3 order by x desc, _step limit 3"
    )
    assert [row["_step"] for row in answer["rows"]] == [49, 49, 48]
    assert [
        row["_step"] for row in ask("select _step from metrics where x is not null order by _step desc")["rows"]
    ] == [step for step in range(49, -1, -1) for _ in range(2)]
    assert ask('select "train/loss" as l from metrics where isnan("train/loss")')["row_count"] == 2


REFUSED = [
    *("", " ; ", "-- nothing", "select 1; select 2", "select 1; drop table metrics", "insert into metrics values (1)"),
    *("copy metrics to '{dir}/x.csv'", "copy (select 1) to '{dir}/x'", "attach '{dir}/x.db'", "attach ':memory:' as y"),
    *("install httpfs", "load httpfs", "pragma database_list", "pragma table_info('metrics')", "set threads = 8"),
    *("set enable_external_access = true", "reset enable_external_access", "call pragma_version()", "explain select 1"),
    *("create table t as select 1", "create view v as select 1", "drop table metrics", "delete from metrics", "vacuum"),
    *("update metrics set x = 1", "alter table metrics add column y int", "export database '{dir}'", "checkpoint"),
    *("import database '{dir}'", "prepare q as select 1", "execute q", "use memory", "begin", "detach memory"),
    *("create secret (type s3)", "create macro m() as 1", "pragma import_database('{dir}')", "\ud800", "select \ud800"),
]
UNREACHABLE = [
    *(
        "select * from read_text('{secret}')",
        "select * from read_blob('{secret}')",
        "from '{secret}'",
        "from '{dir}/*'",
    ),
    *("select * from read_csv('{secret}')", "select * from read_csv_auto('{secret}')", "select * from glob('{dir}/*')"),
    *("select * from read_parquet('{parquet}')", "select * from parquet_metadata('{parquet}')", "from '{parquet}'"),
    *("select * from read_json('{secret}')", "select * from sniff_csv('{secret}')", "select getenv('HOME')"),
    *(
        "select * from read_csv('http://127.0.0.1:9/x')",
        "from 'https://127.0.0.1:9/x.parquet'",
        "from 's3://b/x.parquet'",
    ),
    *(
        "select * from sqlite_scan('{secret}', 't')",
        "select * from query('from ''{secret}''')",
        "from duckdb_secrets()",
    ),
    *("select (select content from read_text('{secret}'))", "with t as (from read_text('{secret}')) from t"),
    *(
        "select * from query_table('{secret}')",
        "select * from read_duckdb('{dir}/x.db')",
        "select * from no_such_table",
    ),
]


@pytest.fixture
def places(tmp_path: Path, store: Path) -> dict[str, str]:
    """Return paths that a query must not reach: a file with a secret, a parquet file of the store, a directory."""
    (tmp_path / "secret").write_text("the secret")
    for name in ("schema.sql", "load.sql"):
        (tmp_path / name).write_text("the secret")
    return {
        "dir": str(tmp_path),
        "secret": str(tmp_path / "secret"),
        "parquet": str(next(store.glob("snapshots/p/data/metrics/*.parquet"))),
    }


def test_only_one_select_is_asked(ask, places):
    before = sorted(os.listdir(places["dir"]))
    for text in REFUSED:
        with pytest.raises(RequestError) as caught:
            ask(text.format(**places))
        assert caught.value.status == 400
        assert "the secret" not in str(caught.value)
    assert sorted(os.listdir(places["dir"])) == before
    assert ask("select count(*) as n from metrics")["rows"] == [{"n": 102}]


def test_a_query_reaches_no_file_no_network_and_no_environment(ask, places):
    for text in UNREACHABLE:
        with pytest.raises(RequestError) as caught:
            ask(text.format(**places))
        assert caught.value.status == 400, text
        assert "the secret" not in str(caught.value)


def test_a_query_sees_no_variable_of_the_server(ask):
    metrics_of_the_server = {"x": 1}  # a name that duckdb could look up in the frames of Python
    for name in ("hub", "call", "rows", "names", "metrics_of_the_server", "eventlog"):
        with pytest.raises(RequestError, match="does not exist"):
            ask(f"select * from {name}")
    assert metrics_of_the_server == {"x": 1}


def test_too_many_rows_are_refused_before_they_are_made(ask):
    assert ask("select * from range(10)", query_rows=10)["row_count"] == 10
    for text in ("select * from range(11)", "select * from range(1000000000000)", "from metrics, metrics b, metrics c"):
        with pytest.raises(RequestError, match="more than 10 rows: add a LIMIT"):
            ask(text, query_rows=10)


def test_a_runaway_query_is_interrupted_and_the_next_one_answered(ask):
    for text in (
        "select count(*) from range(100000000000)",
        "select sum(a.x * b.x) from metrics a, range(1000000000) b(x)",
    ):
        with pytest.raises(RequestError, match=r"took longer than 0\.2 s"):
            ask(text, query_s=0.2)
        assert ask("select 1 as one")["rows"] == [{"one": 1}]


def test_a_query_that_needs_much_memory_is_refused(ask):
    with pytest.raises(RequestError, match=r"(?i)memory"):
        ask("select list(repeat('x', 100000)) from range(100000)")


def test_the_connections_of_queries_and_their_threads_end_with_them(ask):
    before = threading.active_count()
    for _ in range(20):
        ask("select 1")
        with pytest.raises(RequestError):
            ask("select nothing")
    deadline = time.monotonic() + 10
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() <= before


def test_a_project_that_is_none_is_not_found_and_a_hostile_name_is_a_name(ask):
    for project in ("", "q", "p'; drop table metrics; --", "../p", "p\0", "\ud800"):
        with pytest.raises(NotFoundError):
            ask("select 1", project=project)
    answer = ask(
        "select x, _run_id = (select run_id from runs) as mine from metrics", project="o'; drop table metrics; --"
    )
    assert answer["rows"] == [{"x": 1.0, "mine": True}]


def test_values_that_json_lacks_are_null_or_text(server, entry):
    assert server.logs([entry("1", metrics={"x": "NaN", "y": "Infinity"})]).status_code == 200
    text = """select x, y, 2::hugeint ** 100 as big, date '2020-01-02' as day, interval 1 day as span, 'é' as text,
        [1, 2] as list, {'a': 1} as struct, null as nothing, 1.5::decimal(4, 2) as number, 'ab'::blob as bytes,
        170141183460469231731687303715884105727::hugeint as huge, uuid() is not null as made from metrics"""
    (row,) = server.call("query_project", project="p", query=text)["rows"]
    assert (row["x"], row["y"], row["nothing"], row["text"], row["list"]) == (None, None, None, "é", [1, 2])
    assert (row["day"], row["number"], row["struct"], row["made"]) == ("2020-01-02", "1.50", {"a": 1}, True)
    assert row["huge"] == "170141183460469231731687303715884105727"
    assert json.dumps(row)


def cpu_ticks(pid: int) -> int:
    """Return how long a process has worked."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return int(fields[11]) + int(fields[12])


def test_sigterm_does_not_wait_for_a_query_that_nobody_waits_for(serving, entry):
    server = serving(port=0)
    assert server.logs([entry("l", 0)]).status_code == 200
    query = "select count(*) from range(1000000) a, range(1000000) b where hash(a.range) + b.range = -1"

    def ask() -> None:
        with contextlib.suppress(httpx.TransportError):
            server.post("query_project", project="p", query=query)

    asked = threading.Thread(target=ask)
    idle = cpu_ticks(server.process.pid)
    asked.start()
    while cpu_ticks(server.process.pid) < idle + 100:
        time.sleep(0.01)
    server.process.send_signal(signal.SIGTERM)
    # The query would go on until its limit of 30 s.
    assert server.process.wait(20) == 0
    asked.join()
    assert "timeout graceful shutdown exceeded" in server.log.read_text()
    server.log.write_text("")  # uvicorn says with a traceback what it has cancelled
