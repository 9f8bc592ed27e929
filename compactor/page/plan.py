"""What an export has to bring to a page: pure. What is there and the same stays; what nothing shows goes later."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Final, NamedTuple

import msgspec

from compactor.page.layout import ARTIFACTS, LAST, MARK, MEDIA, is_media
from compactor.page.target import There
from eventlog.errors import UsageError, shown

_FORMAT: Final = 1
_MOST_WRITERS: Final = 16
_MADE_BY: Final = "compactor static-export"
_NAMED_BY_BYTES: Final = (f"{MEDIA}blob/", ARTIFACTS)


class Mark(msgspec.Struct, frozen=True, kw_only=True):
    """What an export leaves in a page for the next one.

    Attributes:
        project: which the page shows.
        writers: some that wrote to it: their ids, which no other store has, tell whose page it is.
        obsolete: since when, in seconds of Unix time, no run has shown a medium that is still there.
        made_by, format: what this is.
    """

    project: str
    writers: tuple[str, ...] = ()
    obsolete: dict[str, int] = {}
    made_by: str = _MADE_BY
    format: int = _FORMAT

    def encode(self) -> bytes:
        """Return the file; the same for the same facts, byte by byte."""
        return msgspec.json.format(msgspec.json.encode(self, order="sorted"), indent=2) + b"\n"


class Local(NamedTuple):
    """A file of this machine that the page is to have."""

    local: str
    size_bytes: int
    hash: str


class Plan(NamedTuple):
    """What is to be done, in this order.

    Attributes:
        mark: goes first, unless it is the one that is there: by it this page is known as ours, whatever comes after.
        in_the_way: paths that nothing shows and of which a new file needs the name, for a directory or the reverse.
        waves: (local path, path) pairs: media before the tables that name them, and the list of runs last.
        deleted: paths that no run has shown for the grace period.
        waiting: how many others will be.
    """

    mark: bytes | None
    in_the_way: tuple[str, ...]
    waves: tuple[tuple[tuple[str, str], ...], ...]
    deleted: tuple[str, ...]
    waiting: int


def read_mark(data: bytes | None, project: str, where: str, *, is_empty: bool) -> Mark:
    """Return what the last export left; a new mark for a place that holds nothing.

    Args:
        data: of the file, or None.
        project: to be shown.
        where: the place, for people.
        is_empty: whether nothing at all is there.

    Raises:
        UsageError: the place holds something else, or another project's page, or that of a newer version.
    """
    own = "give the page a place of its own"
    if data is None:
        if not is_empty:
            raise UsageError(f"{where} holds other things than a page that `compactor static-export` made: {own}")
        return Mark(project=project)
    try:
        mark = msgspec.json.decode(data, type=Mark)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        raise UsageError(f"{where}/{MARK} is damaged: delete it if nothing else but a page is there") from None
    if mark.made_by != _MADE_BY or mark.format > _FORMAT:
        raise UsageError(f"{where} holds a page of a newer version of this program: upgrade, or {own}")
    if mark.project != project:
        raise UsageError(f"{where} shows the project {shown(mark.project)}, and a page shows one: {own}")
    return mark


def own_mark(mark: Mark, writers: Collection[str], where: str, *, take_over: bool) -> Mark:
    """Return the mark of a page that shows what these writers wrote.

    A store keeps its writers for ever, and a copy of it has the same ones; so nothing has to be kept beside it.

    Args:
        mark: what the last export left.
        writers: all of the project, in the store that is exported.
        where: the place, for people.
        take_over: whether the page may have been another store's.

    Raises:
        UsageError: none of them wrote what the page shows.
    """
    shared = [writer_id for writer_id in mark.writers if writer_id in writers]
    if mark.writers and not shared and not take_over:
        raise UsageError(
            f"{where} shows the project {shown(mark.project)} of another store: give the page a place of its own, or "
            "let `compactor static-export --take-over` show this store there from now on"
        )
    others = sorted(set(writers) - set(shared))
    return msgspec.structs.replace(mark, writers=(*shared, *others)[:_MOST_WRITERS])


def needs_hash(path: str) -> bool:
    """Say whether a file may have other bytes of the same size; the others are named by what they hold."""
    return not path.startswith(_NAMED_BY_BYTES)


def plan_put(
    files: Mapping[str, Local],
    there: Mapping[str, There],
    media: Collection[str],
    mark: Mark,
    *,
    known: bytes | None,
    now_s: int,
    grace_s: float,
) -> Plan:
    """Return what makes a page of these files. Cut off after any step, and planned again, the rest follows.

    Args:
        files: all that the page is to have, by path.
        there: what it has of them.
        media: the paths of all media that are there.
        mark: what the last export left.
        known: the bytes of that file, None when there is none.
        now_s: Unix time.
        grace_s: how long a medium stays that nothing shows.
    """
    changed = [path for path, file in sorted(files.items()) if not _is_same(path, file, there.get(path))]
    idle = sorted(set(media) - files.keys())
    in_the_way = _in_the_way(idle, changed)
    since = {path: min(mark.obsolete.get(path, now_s), now_s) for path in idle if path not in in_the_way}
    deleted = tuple(path for path, first in since.items() if first + grace_s <= now_s)
    waiting = {path: first for path, first in since.items() if path not in deleted}
    fresh = msgspec.structs.replace(mark, obsolete=waiting).encode()
    waves = (
        [path for path in changed if is_media(path)],
        [path for path in changed if not is_media(path) and path not in LAST],
        [path for path in changed if path in LAST],
    )
    pairs = tuple(tuple((files[path].local, path) for path in wave) for wave in waves)
    return Plan(None if fresh == known else fresh, tuple(sorted(in_the_way)), pairs, deleted, len(waiting))


def _in_the_way(idle: Collection[str], changed: Collection[str]) -> set[str]:
    new, above_new = set(changed), {above for path in changed for above in _above(path)}
    return {path for path in idle if path in above_new or not new.isdisjoint(_above(path))}


def _above(path: str) -> Iterator[str]:
    while "/" in path:
        path = path.rpartition("/")[0]
        yield path


def _is_same(path: str, file: Local, there: There | None) -> bool:
    if there is None or there.size_bytes != file.size_bytes:
        return False
    return not needs_hash(path) or there.hash == file.hash
