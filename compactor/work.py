"""One turn of work on one project: fold what is new, merge what has piled up, rebuild, collect what has expired."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection

import msgspec

from compactor import compact, stage
from compactor.collect import NOTHING, collect
from compactor.commit import Change, commit
from compactor.config import CompactorConfig
from compactor.errors import LostRaceError
from compactor.fold import fold
from compactor.plan import Merge, plan_merges
from compactor.rebuild import Rebuilt, rebuild
from eventlog import manifest as manifests
from eventlog.errors import DataError
from eventlog.fs import Fs


class Turn(msgspec.Struct, frozen=True, kw_only=True):
    """What one turn did in a project.

    Attributes:
        project: its name.
        version: of the snapshot now.
        records: folded.
        folds: commits of folds.
        merges: commits of merges.
        lost_races: how often another compactor was first.
        removed: files that were collected.
        removed_bytes: their size.
        kept: files that were listed but had to stay, with the reason.
        refused: writers that could not be read, with the reason.
        rebuilt: damaged data files that were replaced from segments.
        damaged: those that could not be, with the reason.
        seconds: how long it took.
    """

    project: str
    version: int
    records: int
    folds: int
    merges: int
    lost_races: int
    removed: int
    removed_bytes: int
    kept: dict[str, str]
    refused: dict[str, str]
    rebuilt: list[str]
    damaged: dict[str, str]
    seconds: float


def take_turn(
    fs: Fs,
    root: str,
    project: str,
    config: CompactorConfig,
    *,
    time_ns: Callable[[], int] = time.time_ns,
    stopped: Callable[[], bool] = lambda: False,
    writers: Collection[str] | None = None,
    merging: bool = True,
    collecting: bool = True,
) -> Turn:
    """Do everything that there is to do in a project; every step is a commit of its own.

    Args:
        fs: the file system.
        root: the store.
        project: its name.
        config: settings.
        time_ns: the clock.
        stopped: asked between steps; True ends the turn early.
        writers: fold these only; None is all.
        merging: also merge; damage that is met is rebuilt from segments.
        collecting: also collect, likewise.

    Raises:
        OSError: as the file system raises it.
        DataError: a merge or a commit would break a rule.
    """
    began = time.monotonic()
    folded = fold(fs, root, project, config, time_ns=time_ns, stopped=stopped, writers=writers)
    merges, lost, mended = _merge_or_rebuild(fs, root, project, config, time_ns, stopped if merging else _at_once)
    collected = collect(fs, root, project, config, time_ns=time_ns) if collecting and not stopped() else NOTHING
    if collected.broken:
        mended = rebuild(fs, root, project, config, time_ns=time_ns)
    return Turn(
        project=project,
        version=manifests.load_newest(fs, root, project)[0].version,
        records=folded.records,
        folds=folded.commits,
        merges=merges,
        lost_races=folded.lost_races + lost,
        removed=len(collected.removed),
        removed_bytes=collected.size_bytes,
        kept=collected.kept,
        refused=folded.refused,
        rebuilt=mended.files,
        damaged=mended.damaged,
        seconds=time.monotonic() - began,
    )


def _at_once() -> bool:
    return True


def _merge_or_rebuild(
    fs: Fs,
    root: str,
    project: str,
    config: CompactorConfig,
    time_ns: Callable[[], int],
    stopped: Callable[[], bool],
) -> tuple[int, int, Rebuilt]:
    try:
        return *merge_all(fs, root, project, config, time_ns=time_ns, stopped=stopped), Rebuilt([], {})
    except (DataError, FileNotFoundError):
        mended = rebuild(fs, root, project, config, time_ns=time_ns)
        if not (mended.files or mended.damaged):
            raise
        # What cannot be rebuilt must not keep the rest from being collected; the next turn merges again.
        return 0, 0, mended


def merge_all(
    fs: Fs,
    root: str,
    project: str,
    config: CompactorConfig,
    *,
    time_ns: Callable[[], int] = time.time_ns,
    stopped: Callable[[], bool] = lambda: False,
) -> tuple[int, int]:
    """Merge until the plan is empty; return (commits, lost races).

    Raises:
        OSError: as the file system raises it.
        DataError: a file is damaged, or a commit would break a rule.
    """
    commits = lost = 0
    while not stopped():
        manifest, _ = manifests.load_newest(fs, root, project)
        planned = plan_merges(manifest, config)
        if not planned:
            break
        try:
            _merge_one(fs, root, manifest, planned[0], time_ns)
            commits += 1
        except LostRaceError:
            lost += 1
    return commits, lost


def _merge_one(fs: Fs, root: str, manifest: manifests.Manifest, planned: Merge, time_ns: Callable[[], int]) -> None:
    staged = compact.merge(fs, root, manifest, planned)
    change = Change(action="compact", added=staged, removed=[file.path for file in planned.files])
    try:
        commit(fs, root, manifest.project, change, time_ns=time_ns)
    except (LostRaceError, DataError):
        stage.discard(fs, root, manifest.project, staged)
        raise
