"""Export a project as a dataset: read what is there, write what is new, and make it one dataset in one step."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterable
from typing import Final, NamedTuple

from eventlog import names
from eventlog.append import SOFTWARE
from eventlog.errors import UsageError
from eventlog.exporting import card as cards
from eventlog.exporting import layout, packs
from eventlog.exporting.layout import Index, Pack
from eventlog.exporting.plan import MOST_CELLS, Planned, plan_packs
from eventlog.exporting.reading import NO_RUN, Project, plain_runs, runs_now
from eventlog.exporting.target import Target

_BLOBS_AT_ONCE: Final = 100


class ExportedDataset(NamedTuple):
    """What an export did.

    Attributes:
        project: that was exported.
        runs: in the dataset.
        rows: of all tables but that of runs, in the dataset.
        files: of the dataset, blobs too.
        written_files: those that were not there before.
        written_bytes: their size.
        removed_files: that belonged to the dataset before and do not any more.
        missing_blobs: digests that records name and the store has not, or not intact: they are not in the dataset.
        changed: False when all was as it should be already, and nothing was written.
    """

    project: str
    runs: int
    rows: int
    files: int
    written_files: int
    written_bytes: int
    removed_files: int
    missing_blobs: list[str]
    changed: bool


class _Sent:
    """Hands files to the target that it has not, and counts them."""

    def __init__(self, target: Target, progress: Callable[[str], None]) -> None:
        self.target = target
        self.there = target.listing()
        self.files = 0
        self.size_bytes = 0
        self._progress = progress

    def add(self, files: Iterable[tuple[str, str]]) -> None:
        new = [(path, local, os.path.getsize(local)) for path, local in files]
        new = [(path, local, size) for path, local, size in new if self.there.get(path) != size]
        if new:
            self._progress(f"{len(new)} files, {sum(size for *_, size in new)} bytes")
            self.target.add([(path, local) for path, local, _ in new])
        self.files += len(new)
        self.size_bytes += sum(size for *_, size in new)


def export_dataset(
    root: str,
    project: str,
    target: Target,
    *,
    progress: Callable[[str], None] = lambda _: None,
    most_cells: int = MOST_CELLS,
    shard_bytes: int = packs.SHARD_BYTES,
) -> ExportedDataset:
    """Make a dataset what a project is now; what is in it already is neither written nor read again.

    The target shows the old dataset or the new one at every moment. Memory holds one run; deleted runs are left out,
    and so are runs that start meanwhile.

    Args:
        root: the store's directory.
        project: its name.
        target: where to.
        progress: called with what is being done.
        most_cells: how many cells a pack may have; a pack is what is written anew when one of its runs changes.
        shard_bytes: a file is ended when it has grown to this.

    Raises:
        UsageError: no such project, or the target holds another one, or a card that cannot be read.
        ConflictError: a metric of a new name was logged, or the target was changed meanwhile: try again.
        DataError: a file of the store is damaged, or the index of the target.
        StorageError: the target refused; it shows the old dataset or the new one.
        OSError: a file cannot be written.
    """
    source = Project(root, project)
    runs = source.runs()
    sent = _Sent(target, progress)
    before = _before(target, project)
    columns = {table: source.columns(table) for table in ("metrics", "system")}
    planned = _plan(
        before, columns, sent.there, plan_packs(before.packs if before else (), runs_now(runs), most_cells=most_cells)
    )
    with tempfile.TemporaryDirectory(prefix="eventlog-export-") as directory:
        made = [
            plan.unchanged or _write(source, plan, columns, directory, sent, shard_bytes=shard_bytes, progress=progress)
            for plan in planned
        ]
        made = [pack for pack in made if any(pack.files.values())]
        run_files, local = packs.write_runs(directory, plain_runs(runs), shard_bytes=shard_bytes)
        sent.add(local.items())
    missing = _send_blobs(root, made, sent)
    index = Index(layout.FORMAT, project, SOFTWARE, columns, made, run_files)
    return _finish(index, before, sent, missing)


def _before(target: Target, project: str) -> Index | None:
    data = target.index()
    before = None if data is None else layout.decode(data, f"{target.repo}/{layout.INDEX}")
    if before is not None and before.project != project:
        raise UsageError(f"{target.repo} holds the project {before.project!r}: name another place for {project!r}")
    return before


def _plan(
    before: Index | None, columns: dict[str, list[str]], there: dict[str, int], planned: Iterable[Planned]
) -> list[Planned]:
    """Let a pack stay as it is only where its files are there and have all columns."""
    same = before is not None and before.columns == columns
    return [
        plan
        if plan.unchanged is None
        or (same and all(there.get(file.path) == file.size_bytes for file in plan.unchanged.all_files()))
        else plan._replace(unchanged=None)
        for plan in planned
    ]


def _write(
    source: Project,
    plan: Planned,
    columns: dict[str, list[str]],
    directory: str,
    sent: _Sent,
    *,
    shard_bytes: int,
    progress: Callable[[str], None],
) -> Pack:
    rows = 0

    def count(more: int) -> None:
        nonlocal rows
        rows += more
        progress(f"pack {plan.number}: {rows} rows")

    tables = packs.schemas(columns)
    with tempfile.TemporaryDirectory(dir=directory) as place:
        made = packs.write_pack(
            place, plan.number, plan.run_ids, source.rows, tables, shard_bytes=shard_bytes, progress=count
        )
        sent.add(made.local.items())
    return made.pack


def _send_blobs(root: str, made: list[Pack], sent: _Sent) -> list[str]:
    missing: list[str] = []
    wanted = sorted({digest for pack in made for digest in pack.blobs})
    new = [digest for digest in wanted if layout.blob_path(digest) not in sent.there]
    for start in range(0, len(new), _BLOBS_AT_ONCE):
        intact: list[tuple[str, str]] = []
        for digest in new[start : start + _BLOBS_AT_ONCE]:
            local = names.blob_path(root, digest)
            if _is_intact(local, digest):
                intact.append((layout.blob_path(digest), local))
            else:
                missing.append(digest)
        sent.add(intact)
    return missing


def _is_intact(path: str, digest: str) -> bool:
    try:
        return layout.sha256_of(path) == digest
    except FileNotFoundError:
        return False


def _finish(index: Index, before: Index | None, sent: _Sent, missing: list[str]) -> ExportedDataset:
    target = sent.target
    blobs = {layout.blob_path(digest) for pack in index.packs for digest in pack.blobs}
    wanted = {file.path for file in index.all_files()} | blobs
    obsolete = sorted(path for path in sent.there if path not in wanted and layout.is_ours(path))
    tables = [table for table in layout.TABLES if any(pack.files[table] for pack in index.packs)]
    old_card = target.card()
    old_text = None if old_card is None else old_card.decode("utf-8", "replace")
    text = cards.make_card(
        index.project, target.repo, target.path, [*tables, *(["runs"] if index.runs else [])], old_text
    )
    encoded = layout.encode(index)
    changed = bool(sent.files or obsolete or before is None or text != old_text or layout.encode(before) != encoded)
    runs = [run for pack in index.packs for run in pack.runs]
    rows = sum(run.metrics + run.system + run.events for run in runs)
    count = sum(run.run_id != NO_RUN for run in runs)
    if changed:
        message = f"Export {' '.join(index.project.split())}: {count} runs, {rows} rows"
        target.finish(encoded, text.encode(), obsolete, message)
    present = wanted - {layout.blob_path(digest) for digest in missing}
    facts = (len(present), sent.files, sent.size_bytes, len(obsolete))
    return ExportedDataset(index.project, count, rows, *facts, missing, changed)
