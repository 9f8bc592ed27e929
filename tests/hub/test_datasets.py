"""Datasets on the local Hub: an export is one commit, only what is new goes up, and an import brings all of it back."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from huggingface_hub import CommitOperationAdd
from huggingface_hub.utils import validate_repo_id
from localhub.faults import Kind
from localhub.fixtures import noise
from localhub.journal import Served
from localhub.process import LocalHub, client_environment
from localhub.sweep import ANYWHERE, record, sweep_faults

import eventlog
from eventlog.config import WriterConfig
from eventlog.errors import ConflictError, DataError, EventLogError, StorageError, UsageError
from eventlog.exporting.card import make_card
from eventlog.exporting.dataset import ExportedDataset, export_dataset
from eventlog.fs import LOCAL
from eventlog.hub.datasets import DatasetRepo, parse_dataset
from eventlog.importing.perform import import_runs
from eventlog.store import open_store
from eventlog.testing import contents

EVERYWHERE = os.environ.get("HUB_FAULTS") == "all"
"""Whether faults befall also what only reads."""
PROJECT, REPO = "p", "owner/runs"
ADDRESS = f"hf://datasets/{REPO}"
QUIET = WriterConfig(sync_interval_s=None)
FAULTS: tuple[Kind, ...] = ("status-after", "lost-reply", "expired-token")


def add_run(root: str, name: str, rows: int = 5) -> str:
    with eventlog.init(PROJECT, name, dir=root, settings=QUIET, config={"lr": 0.1}) as run:
        for step in range(rows):
            run.log({"loss": 1 / (step + 1), "note": "x", "file": f"{name}-{step}".encode()}, step=step)
        run.log_system({"cpu": 5.0})
    return run.id


@pytest.fixture
def root(tmp_path: Path) -> str:
    """Return a store of two runs, each with metrics, texts, files and system metrics."""
    store = str(tmp_path / "store")
    for name in ("first", "second"):
        add_run(store, name)
    return store


def repo(hub: LocalHub, address: str = ADDRESS) -> DatasetRepo:
    return DatasetRepo(parse_dataset(address), api=hub.api())


def export(hub: LocalHub, root: str, address: str = ADDRESS, *, most_cells: int = 80) -> ExportedDataset:
    target = repo(hub, address)
    target.open_or_create()
    return export_dataset(root, PROJECT, target, most_cells=most_cells)


def told(root: str) -> dict:
    """Return what a store tells of its runs."""
    found = contents.by_run(contents.of_store(LOCAL, root, PROJECT))
    found.pop("", None)
    return found


def imported(hub: LocalHub, root: str, address: str = ADDRESS) -> dict:
    place = repo(hub, address)
    place.open()
    import_runs(place, root)
    return told(root)


def commits(hub: LocalHub) -> int:
    return len(hub.api().list_repo_commits(REPO, repo_type="dataset"))


def test_what_was_exported_comes_back_from_the_hub(hub: LocalHub, root: str, tmp_path: Path) -> None:
    done = export(hub, root)
    assert (done.runs, done.rows, done.missing_blobs) == (2, 36, [])
    assert commits(hub) == 2  # with that which made the repository
    target = str(tmp_path / "target")
    assert imported(hub, target) == told(root)
    for row in open_store(root).events(PROJECT, kinds="file").to_pylist():
        digest = json.loads(row["payload"])["sha256"]
        assert open_store(target).blob(digest) == open_store(root).blob(digest)


def test_an_export_in_a_directory_and_the_card_of_people_stand_side_by_side(
    hub: LocalHub, root: str, tmp_path: Path
) -> None:
    theirs = b"---\nlicense: mit\nconfigs:\n- config_name: other\n  data_files: other/*.csv\n---\n# Ours\n\nText.\n"
    hub.api().create_repo(REPO, repo_type="dataset")
    add = [CommitOperationAdd("README.md", theirs), CommitOperationAdd("data/metrics/mine.txt", b"kept")]
    hub.api().create_commit(REPO, add, commit_message="m", repo_type="dataset")
    for address in (ADDRESS, f"{ADDRESS}/a/b"):
        export(hub, root, address)
        assert not export(hub, root, address).changed
    card = repo(hub)
    card.open()
    text = card.card().decode()
    assert "# Ours\n\nText." in text
    assert "license: mit" in text
    for name in ("config_name: metrics", "config_name: a-b-metrics", "config_name: other"):
        assert name in text
    assert card.listing()["data/metrics/mine.txt"] == 4
    assert imported(hub, str(tmp_path / "target"), f"{ADDRESS}/a/b") == told(root)


def test_only_what_is_new_goes_up_again(hub: LocalHub, root: str, tmp_path: Path) -> None:
    export(hub, root)
    again = record(hub, lambda: export(hub, root))
    assert {one.method for one in again} <= {"GET", "HEAD"}
    before = repo(hub)
    before.open()
    old = set(before.listing())
    add_run(root, "third")
    done = export(hub, root)
    before.open()
    new = set(before.listing())
    tables = Counter(path.split("/")[1] for path in new - old)
    assert tables == {"metrics": 1, "system": 1, "events": 1, "runs": 1, "sha256": 5}
    assert done.written_files == 9
    assert {path.split("/")[1] for path in old - new} == {"runs"}
    assert imported(hub, str(tmp_path / "target")) == told(root)


def test_the_dataset_is_read_by_pyarrow_through_the_hub_file_system(hub: LocalHub, root: str) -> None:
    export(hub, root)
    fs = hub.filesystem()
    files = fs.glob(f"datasets/{REPO}/data/metrics/*.parquet")
    assert len(files) == 2
    tables = [pq.read_table(path, filesystem=fs) for path in files]
    assert len({str(table.schema) for table in tables}) == 1
    assert sum(table.num_rows for table in tables) == 10


def at_the_hub(served: Served) -> bool:
    return "/api/" in served.path or "/resolve/" in served.path


def changes(served: Served) -> bool:
    return at_the_hub(served) and (EVERYWHERE or served.method == "POST")


def state(hub: LocalHub) -> dict[str, int]:
    now = repo(hub)
    now.open()
    return now.listing()


def test_every_fault_at_every_request_of_an_export_ends_in_the_old_commit_or_the_new(
    hub: LocalHub, root: str, tmp_path: Path
) -> None:
    export(hub, root)
    old = state(hub)
    add_run(root, "third", rows=2)
    hub.save("before")
    export(hub, root)
    new = state(hub)
    hub.load("before")
    outcomes: Counter[tuple[Kind, bool]] = Counter()
    for swept in sweep_faults(
        hub, lambda: export(hub, root), ANYWHERE + FAULTS if EVERYWHERE else FAULTS, where=changes
    ):
        assert swept.befell, swept
        assert state(hub) == (old if swept.error else new), swept
        assert commits(hub) == (2 if swept.error else 3), swept
        assert swept.error is None or isinstance(swept.error, StorageError), swept
        outcomes[swept.fault.kind, swept.error is None] += 1
    # What may pass is tried again; an expired token is told at once.
    assert {kind for kind, survived in outcomes if not survived} == {"expired-token"}
    export(hub, root)
    assert imported(hub, str(tmp_path / "target")) == told(root)


def test_each_request_of_an_import_that_is_refused_leaves_the_store_as_it_was(
    hub: LocalHub, root: str, tmp_path: Path
) -> None:
    export(hub, root)
    clean = record(hub, lambda: imported(hub, str(tmp_path / "clean")))
    routes = {served.route for served in clean if at_the_hub(served)}
    refused: set[str] = set()
    for number, route in enumerate(sorted(routes)):
        target = str(tmp_path / f"target-{number}")
        hub.fault("status-before", route=route, status=404, times=0)
        try:
            whole = imported(hub, target) == told(root)  # by another way: not all goes through the xet store
        except EventLogError:
            whole = False
            refused.add(route)
        hub.clear_faults()
        assert whole or not Path(target, "segments").exists()
    assert len(refused) >= 4, refused


def test_bytes_that_changed_on_the_way_are_fetched_again_and_never_imported(
    hub: LocalHub, root: str, tmp_path: Path
) -> None:
    export(hub, root)
    target = str(tmp_path / "target")
    with hub.faulty("wrong-bytes", method="GET", path="/xorb/", times=0), pytest.raises((DataError, StorageError)):
        imported(hub, target)
    assert imported(hub, target) == told(root)


def test_a_file_of_any_repository_is_compared_with_its_hash(hub: LocalHub) -> None:
    hub.api().create_repo(REPO, repo_type="dataset")
    contents_of = {"large.bin": noise(200_000), "small.txt": b"text"}
    add = [CommitOperationAdd(path, data) for path, data in contents_of.items()]
    hub.api().create_commit(REPO, add, commit_message="m", repo_type="dataset")
    place = repo(hub)
    place.open()
    for times in (1, 0):
        for path, data in contents_of.items():
            hub.fault("wrong-bytes", method="GET", path="/xorb/|/resolve/", times=times)
            if times:
                with place.fetch(path) as local:
                    assert Path(local).read_bytes() == data
            else:
                with pytest.raises((DataError, StorageError)), place.fetch(path):
                    pass
            hub.clear_faults()


def test_a_commit_of_somebody_else_is_never_written_over(hub: LocalHub, root: str) -> None:
    export(hub, root)
    add_run(root, "third")
    target = repo(hub)
    target.open_or_create()
    hub.api().create_commit(REPO, [CommitOperationAdd("x", b"1")], commit_message="m", repo_type="dataset")
    with pytest.raises(ConflictError, match="changed meanwhile"):
        export_dataset(root, PROJECT, target)
    assert "x" in state(hub)
    export(hub, root)


def test_what_was_to_be_private_is_never_sent_to_a_public_repository(hub: LocalHub, root: str) -> None:
    target = repo(hub)
    assert target.open_or_create(private=True)
    assert hub.api().repo_info(REPO, repo_type="dataset").private
    assert not repo(hub).open_or_create(private=True)
    hub.api().update_repo_settings(REPO, private=False, repo_type="dataset")
    with pytest.raises(UsageError, match="public"):
        repo(hub).open_or_create(private=True)
    with pytest.raises(StorageError, match="owner/absent"):
        repo(hub, "hf://datasets/owner/absent").open()
    export(hub, root)
    other = str(root) + "-other"
    with eventlog.init("q", dir=other, settings=QUIET):
        pass
    with pytest.raises(UsageError, match="holds the project 'p'"):
        export_dataset(other, "q", target := repo(hub)) if target.open_or_create() else export_dataset(
            other, "q", target
        )


@pytest.mark.parametrize(
    "address",
    [
        *("hf://datasets/owner", "hf://buckets/owner/name", "owner/name", "hf://datasets/o/n/../x"),
        *("hf://datasets/o w/n", "hf://datasets/o/a--b", "hf://datasets/o/a..b", "hf://datasets/o/a.git"),
        *("hf://datasets/-o/a", "hf://datasets/o/a.", "hf://datasets/o/" + "a" * 97),
    ],
)
def test_what_is_no_address_of_a_dataset_is_refused(address: str) -> None:
    with pytest.raises(UsageError):
        parse_dataset(address)


def test_what_is_taken_for_an_address_is_one_for_the_client_too() -> None:
    for name in ("a", "a-b.c_d", "A" * 96, "_a_", "0"):
        address = parse_dataset(f"hf://datasets/o/{name}/x y/z")
        validate_repo_id(address.repo)
        assert (address.path, str(address)) == ("x y/z", f"hf://datasets/o/{name}/x y/z")


def test_a_dataset_of_trackios_scheduler_is_imported_with_its_commit(hub: LocalHub, tmp_path: Path) -> None:
    hub.api().create_repo(REPO, repo_type="dataset")
    facts = {"run_id": ["r"], "run_name": ["n"], "timestamp": ["2026-01-02T03:04:05"], "step": [3], "x": [1.5]}
    pq.write_table(pa.table(facts), tmp_path / "mnist.parquet")
    add = [CommitOperationAdd("mnist.parquet", tmp_path / "mnist.parquet")]
    done = hub.api().create_commit(REPO, add, commit_message="m", repo_type="dataset")
    place = repo(hub)
    place.open()
    target = str(tmp_path / "target")
    (one,) = import_runs(place, target)
    assert (one.project, one.form, one.runs) == ("mnist", "trackio", 1)
    assert open_store(target).metrics("mnist")["x"].to_pylist() == [1.5]
    (origin,) = open_store(target).events("mnist", kinds="admin")["payload"].to_pylist()
    assert json.loads(origin)["values"]["source"] == f"{ADDRESS}@{done.oid}"


def test_a_card_that_cannot_be_kept_is_not_replaced() -> None:
    with pytest.raises(UsageError, match="no YAML"):
        make_card("p", ADDRESS, "", ["metrics"], "---\na: [\n---\n")
    with pytest.raises(UsageError, match="no list"):
        make_card("p", ADDRESS, "", ["metrics"], "---\nconfigs: {a: 1}\n---\n")
    assert "default" in make_card("p", ADDRESS, "", ["metrics"], "text")
    theirs = "---\nconfigs:\n- {config_name: x, default: true}\n---\n"
    assert make_card("p", ADDRESS, "", ["metrics"], theirs).count("default") == 1
    text = make_card("a *b*\n---", ADDRESS, "", ["metrics"], None)
    assert make_card("a *b*\n---", ADDRESS, "", ["metrics"], text) == text
    assert "# a \\*b\\* ---" in text


def test_the_command_exports_with_the_token_of_the_environment(hub: LocalHub, root: str, tmp_path: Path) -> None:
    environment = client_environment(hub.url, tmp_path / "home")
    command = [sys.executable, "-m", "eventlog", "export", root, "--project", PROJECT, "--to", ADDRESS]
    done = subprocess.run([*command, "--private", "--json"], env=environment, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert (facts["created"], facts["runs"], facts["changed"]) == (True, 2, True)
    assert imported(hub, str(tmp_path / "target")) == told(root)
