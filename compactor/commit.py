"""Commit a change to a snapshot: the rules it must obey, and the publication of the next manifest."""

from __future__ import annotations

import time
from collections.abc import Callable

import msgspec

from compactor.errors import LostRaceError
from eventlog import manifest as manifests
from eventlog import names, parquet
from eventlog.checksum import MASK
from eventlog.errors import DataError
from eventlog.fs import Fs
from eventlog.manifest import DataFile, Gap, Manifest, Quarantined, Watermark


class StagedFile(msgspec.Struct, frozen=True):
    """A parquet file that was written and synced, and the set of metric names in it."""

    file: DataFile
    metric_names: tuple[str, ...]


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """What a commit does to a snapshot.

    Attributes:
        action: fold, compact or rebuild.
        added: new files.
        removed: paths of files that the new ones replace.
        before: the watermarks that a fold started from.
        after: the watermarks that it reached.
        gaps: that it met.
        filled: gaps of the parent that do not hold any more, for their records arrived late.
        quarantined: what it set aside.
    """

    action: str
    added: list[StagedFile] = []
    removed: list[str] = []
    before: dict[str, Watermark] = {}
    after: dict[str, Watermark] = {}
    gaps: list[Gap] = []
    filled: list[Gap] = []
    quarantined: list[Quarantined] = []


def apply(parent: Manifest, change: Change, created_ns: int, committer: str) -> Manifest:
    """Return the manifest that follows `parent`. Pure.

    Raises:
        LostRaceError: the change was made from something that is no longer so.
    """
    present = {file.path for file in parent.files}
    for path in change.removed:
        # A file that is gone was compacted by somebody else: adding our copy of its rows would double them.
        if path not in present:
            raise LostRaceError(f"{path} was replaced meanwhile")
    for writer_id, mark in change.before.items():
        # A watermark that moved means that somebody else folded these records: ours would be doubled.
        if parent.writers.get(writer_id, Watermark()) != mark:
            raise LostRaceError(f"the watermark of {writer_id} moved meanwhile")
    if any(gap not in parent.gaps for gap in change.filled):
        raise LostRaceError("a gap was filled meanwhile")
    removed = set(change.removed)
    kept = [(file, tuple(parent.name_sets[file.names]) if file.names >= 0 else ()) for file in parent.files]
    files = [(file, metric_names) for file, metric_names in kept if file.path not in removed]
    files += [(staged.file, staged.metric_names) for staged in change.added]
    name_sets: dict[tuple[str, ...], int] = {}
    numbered: list[DataFile] = []
    for file, metric_names in files:
        number = name_sets.setdefault(metric_names, len(name_sets)) if metric_names else -1
        numbered.append(msgspec.structs.replace(file, names=number))
    known = {item.name for item in parent.quarantined}
    return Manifest(
        project=parent.project,
        version=parent.version + 1,
        parent=parent.version,
        created_ns=max(created_ns, parent.created_ns),
        committer=committer,
        action=change.action,
        files=numbered,
        name_sets=[list(names) for names in name_sets],
        writers={**parent.writers, **change.after},
        gaps=[*(gap for gap in parent.gaps if gap not in change.filled), *change.gaps],
        quarantined=[*parent.quarantined, *(q for q in change.quarantined if q.name not in known)],
        publisher=parent.publisher,
    )


def check(parent: Manifest, child: Manifest, change: Change) -> None:
    """Refuse a commit that could lose or double a record. Pure; called just before the swap.

    Raises:
        DataError: naming the rule that would be broken.
    """
    for rule, holds in (
        ("a version follows its parent", child.version == parent.version + 1 == child.parent + 1),
        ("watermarks only go forward", _only_forward(parent, child)),
        ("a path is named once", len({file.path for file in child.files}) == len(child.files)),
        ("every row is kept", change.action == "fold" or _same_rows(parent, child)),
        ("a fold adds what its watermarks say", change.action != "fold" or _folded_rows(parent, child, change)),
    ):
        if not holds:
            raise DataError(f"{child.project} version {child.version}", None, f"commit refused: {rule}")


def _only_forward(parent: Manifest, child: Manifest) -> bool:
    return all(
        writer_id in child.writers
        and child.writers[writer_id].seq >= mark.seq
        and child.writers[writer_id].records >= mark.records
        for writer_id, mark in parent.writers.items()
    )


def _same_rows(parent: Manifest, child: Manifest) -> bool:
    tables = ("metrics", "system", "events")
    return all(totals(parent, table) == totals(child, table) for table in tables) and parent.writers == child.writers


def _folded_rows(parent: Manifest, child: Manifest, change: Change) -> bool:
    """Every folded record is at least one row, and every seq passed is a record or a gap."""
    added = sum(staged.file.rows for staged in change.added if staged.file.table != "runs")
    records = missing = passed = 0
    for writer_id, mark in change.after.items():
        before = parent.writers.get(writer_id, Watermark())
        records += mark.records - before.records
        passed += mark.seq - before.seq
    missing += sum(gap.last_seq - gap.first_seq + 1 for gap in change.gaps)
    missing -= sum(gap.last_seq - gap.first_seq + 1 for gap in change.filled)
    gaps = len(parent.gaps) + len(change.gaps) - len(change.filled)
    return added >= records and records + missing == passed and len(child.gaps) == gaps


def totals(manifest: Manifest, table: str) -> tuple[int, int]:
    """Return (rows, order-free checksum) of a table."""
    files = manifest.of_table(table)
    return sum(file.rows for file in files), sum(int(file.checksum or "0", 16) for file in files) & MASK


def commit(fs: Fs, root: str, project: str, change: Change, *, time_ns: Callable[[], int] = time.time_ns) -> Manifest:
    """Publish a change whose files are staged and synced; durable when this returns.

    When somebody else commits in between, the change is applied to their version, if it still fits.

    Raises:
        LostRaceError: it does not fit any more; nothing was published. The caller discards its files.
        DataError: a rule would be broken; nothing was published.
        OSError: as the file system raises it.
    """
    if change.added:
        parquet.sync_directories(fs, root, project, {staged.file.table for staged in change.added})
    while True:
        parent, problems = manifests.load_newest(fs, root, project)
        if problems:
            parent = _skip_damaged(fs, root, parent)
        child = apply(parent, change, time_ns(), manifests.committer())
        check(parent, child, change)
        fs.make_dirs(names.manifests_dir(root, project))
        if manifests.publish(fs, root, child):
            return child


def _skip_damaged(fs: Fs, root: str, parent: Manifest) -> Manifest:
    """Go on after damaged manifests: the next version must be above theirs, for theirs is taken."""
    highest = manifests.versions(fs, root, parent.project)[-1]
    return msgspec.structs.replace(parent, version=highest)
