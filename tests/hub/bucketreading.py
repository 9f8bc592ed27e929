"""Stores in buckets as their readers open them, and what must be the same in both."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
from localhub.process import LocalHub

from eventlog import names
from eventlog.hub.address import BucketAddress
from eventlog.hub.bucket import Bucket
from eventlog.hub.filesystem import BucketFs
from eventlog.store import Store
from eventlog.testing import contents


def remote(hub: LocalHub, bucket: str, prefix: str = "", **options: Any) -> Store:
    """Open the store in a bucket; each answer looks anew, unless told otherwise."""
    return over(Bucket(BucketAddress(bucket, prefix), api=hub.api()), **options)


def over(bucket: Bucket, **options: Any) -> Store:
    fs = BucketFs(bucket, **{"look_s": 0, **options})
    return Store(fs.root, fs=fs)


def cells(table: pa.Table) -> list[Any]:
    """Return a table so that two with the same values are equal, NaNs and types included."""
    times = [field.name for field in table.schema if pa.types.is_timestamp(field.type)]
    for name in times:
        table = table.set_column(table.schema.get_field_index(name), name, table[name].cast(pa.int64()))
    return [str(table.schema), repr(table.to_pylist())]


def rows(store: Store, project: str = "p") -> list[contents.Row]:
    """Return all rows of all tables, in order."""
    parts = {"metrics": store.metrics(project), "system": store.system(project), "events": store.events(project)}
    return sorted(row for name, table in parts.items() for row in contents.of_table(name, table))


def answers(store: Store, project: str) -> dict[str, Any]:
    """Ask everything that a store answers of a project."""
    runs = store.runs(project, deleted=True)
    first = runs["run_id"][0].as_py()
    metrics = store.metric_names(project)
    cursor = {writer: seq // 2 for writer, seq in store.follow(project).cursor.items()}
    found: dict[str, Any] = {
        "runs": cells(store.runs(project)),
        "deleted": cells(runs),
        "metric names": (metrics, store.metric_names(project, table="system")),
        "metrics": cells(store.metrics(project)),
        "one run": cells(store.metrics(project, runs=first, names=metrics[:1])),
        "narrow": cells(store.metrics(project, names=metrics[:2], steps=range(2, 9), narrow=True)),
        "system": cells(store.system(project)),
        "events": cells(store.events(project)),
        "alerts": cells(store.events(project, kinds="alert", runs=first)),
        "find": (store.find_run(project, name="a"), store.find_run(project, run_id=first), store.find_run("never")),
        "manifest": store.manifest(project),
        "cursor": store.follow(project).cursor,
        "cut off": [store.curve(project, first, metric, max_points=7).num_rows for metric in metrics],
    }
    for name in metrics:
        found[f"curve {name}"] = cells(store.curve(project, first, name))
    for table in ("metrics", "system", "events"):
        found[f"all {table}"] = cells(getattr(store.follow(project), table))
        found[f"new {table}"] = cells(getattr(store.follow(project, cursor), table))
    for table in names.TABLES:
        found[f"dataset {table}"] = cells(store.dataset(project, table).to_table())
        found[f"files {table}"] = [path.removeprefix(store.root) for path in store.files(project, table)]
    return found


def old_answers(store: Store, project: str) -> dict[int, Any]:
    """Ask what a store held at each of its versions."""
    return {version: cells(store.at(version).metrics(project)) for version in store.versions(project)}
