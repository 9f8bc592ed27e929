"""Keep a page up to date with one project of a store: made here, then brought to its place, data first."""

from __future__ import annotations

import logging
import os
import tempfile
import threading
import time
from collections.abc import Callable
from typing import Final

import msgspec

from compactor.page.config import PageConfig
from compactor.page.layout import MARK
from compactor.page.make import Made, PageMaker
from compactor.page.plan import Local, Plan, needs_hash, own_mark, plan_put, read_mark
from compactor.page.target import Target
from eventlog.errors import EventLogError, UsageError

log = logging.getLogger("compactor")
_LOOK_S: Final = 3600.0


class Exported(msgspec.Struct, frozen=True, kw_only=True):
    """What an export did.

    Attributes:
        project: its name.
        target: where the page is.
        runs: how many it shows.
        rows: of their metrics.
        uploaded, uploaded_bytes: files that were new or changed.
        deleted: files that nothing had shown for a while.
        waiting: files that nothing shows, and that go later.
        missing: media that values name and the store has not got; the page shows a gap.
        seconds: how long it took.
    """

    project: str
    target: str
    runs: int
    rows: int
    uploaded: int
    uploaded_bytes: int
    deleted: int
    waiting: int
    missing: list[str]
    seconds: float


class PageExport:
    """Exports one project to a page, once or until it is stopped. One thread; `stop` is thread-safe.

    Every file of the page appears whole. Their names are Trackio's, the same each time, so whoever loads the page in
    the middle of an export may see some files old and some new; the list of runs comes last.
    """

    def __init__(
        self,
        root: str,
        project: str,
        target: Target,
        config: PageConfig | None = None,
        *,
        take_over: bool = False,
        on_exported: Callable[[Exported], None] | None = None,
    ) -> None:
        """Take the store and the place of the page, which is made when it is not there.

        Args:
            root: the store; it is only read.
            project: which the page shows.
            target: a `PageBucket` or a `Directory`.
            config: settings; None for the defaults.
            take_over: show it where a page of the same project of another store is.
            on_exported: told of each export.
        """
        self._root = root
        self._project = project
        self._target = target
        self._take_over = take_over
        self._config = config or PageConfig()
        self._on_exported = on_exported or (lambda _: None)
        self._stop = threading.Event()
        self._failing = ""
        self._shown: dict[str, int] | None = None
        self._again_at = 0.0

    def stop(self) -> None:
        """End `run` after one more look, for what was logged last."""
        self._stop.set()

    @property
    def stopped(self) -> bool:
        """Whether `stop` was called."""
        return self._stop.is_set()

    def check(self) -> None:
        """See that the place is a page of this project, or can become one; nothing but an empty place is made.

        Raises:
            UsageError: it holds something else.
            StorageError: the Hub refused or could not be reached.
            OSError: the directory cannot be made or read.
        """
        self._target.prepare()
        known = self._target.read(MARK)
        read_mark(known, self._project, str(self._target), is_empty=known is None and self._target.is_empty())

    def once(self) -> Exported:
        """Bring the page up to date, and return what that took.

        Raises:
            UsageError: there is no such project, or the place holds something else than its page, or another store's.
            EventLogError: a file of the store is damaged, or the Hub refused or could not be reached.
            OSError: a file cannot be read or written.
        """
        with tempfile.TemporaryDirectory(prefix="eventlog-page-") as directory:
            return self._export(PageMaker(self._root, self._project, self._config, directory))

    def run(self) -> None:
        """Bring the page up to date at each interval until stopped, and once more then; what fails is tried again.

        Raises:
            UsageError: the place holds something else than a page of this project and store.
        """
        with tempfile.TemporaryDirectory(prefix="eventlog-page-") as directory:
            maker = PageMaker(self._root, self._project, self._config, directory)
            while True:
                last = self.stopped
                self._sweep(maker)
                if last:
                    return
                self._stop.wait(self._config.interval_s)

    def _sweep(self, maker: PageMaker) -> None:
        try:
            reached = maker.reached()
            if reached == self._shown and time.monotonic() < self._again_at:
                return
        except (EventLogError, OSError) as error:
            self._complain(error)  # also a project that is still to come
            return
        try:
            done = self._export(maker)
        except UsageError:
            raise
        except (EventLogError, OSError) as error:
            self._complain(error)
            return
        self._failing = ""
        # What was missing may come without a record of the project, what waits is to go, and the place may be changed.
        again_s = 0 if done.missing else min(self._config.grace_s, _LOOK_S) if done.waiting else _LOOK_S
        self._shown, self._again_at = reached, time.monotonic() + again_s

    def _export(self, maker: PageMaker) -> Exported:
        started = time.monotonic()
        self._target.prepare()
        known = self._target.read(MARK)
        empty = known is None and self._target.is_empty()
        mark = read_mark(known, self._project, str(self._target), is_empty=empty)
        mark = own_mark(mark, maker.reached(), str(self._target), take_over=self._take_over)
        made = maker.make()
        files = self._files(made)
        plan = plan_put(
            files,
            self._target.there(files),
            self._target.media(),
            mark,
            known=known,
            now_s=int(time.time()),
            grace_s=self._config.grace_s,
        )
        self._do(plan)
        self._take_over = False  # whoever takes it over from now on keeps it
        uploaded = [path for wave in plan.waves for _, path in wave]
        done = Exported(
            project=self._project,
            target=str(self._target),
            runs=made.runs,
            rows=made.rows,
            uploaded=len(uploaded),
            uploaded_bytes=sum(files[path].size_bytes for path in uploaded),
            deleted=len(plan.in_the_way) + len(plan.deleted),
            waiting=plan.waiting,
            missing=made.missing,
            seconds=time.monotonic() - started,
        )
        self._on_exported(done)
        return done

    def _files(self, made: Made) -> dict[str, Local]:
        changing = [path for path in made.files if needs_hash(path)]
        hashes = dict(
            zip(changing, self._target.hashes([made.files[path] for path in changing]), strict=True),
        )
        return {path: Local(local, os.path.getsize(local), hashes.get(path, "")) for path, local in made.files.items()}

    def _do(self, plan: Plan) -> None:
        if plan.mark is not None:
            with tempfile.TemporaryDirectory(prefix="eventlog-page-") as directory:
                local = os.path.join(directory, MARK)
                with open(local, "wb") as file:
                    file.write(plan.mark)
                self._target.add([(local, MARK)])
        if plan.in_the_way:
            self._target.delete(plan.in_the_way)
        for wave in plan.waves:
            if wave:
                self._target.add(wave)
        if plan.deleted:
            self._target.delete(plan.deleted)

    def _complain(self, error: Exception) -> None:
        """Log a failure once, not at each look."""
        text = str(error)
        if text != self._failing:
            self._failing = text
            log.error("the page of %s on %s: %s (trying again)", self._project, self._target, text)
