"""A read that fails in its midst costs that answer and no row of the next one."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

import eventlog
from eventlog.feed import Feed
from eventlog.fs import LocalFs
from eventlog.snapshot import ReaderCache
from eventlog.store import Store


class FailsOnce(LocalFs):
    """Refuses one read of a number."""

    left = 1 << 30

    def read(self, path: str, offset: int = 0, size: int = -1) -> bytes:
        self.left -= 1
        if self.left == -1:
            raise OSError(errno.EIO, "cannot be read", path)
        return super().read(path, offset, size)


@pytest.fixture
def root(tmp_path: Path) -> str:
    for name in "abc":
        with eventlog.init(project="p", name=name, dir=tmp_path) as run:
            run.log({"x": 1.0})
    return str(tmp_path)


def test_an_answer_after_one_that_failed_at_any_read_has_all_rows_once(root: str) -> None:
    for at in range(100):
        fs = FailsOnce()
        store = Store(root, fs=fs)
        fs.left = at
        try:
            assert store.metrics("p").num_rows == 3
        except OSError as error:
            assert error.errno == errno.EIO  # noqa: PT017 - the last round has none
        if fs.left >= 0:
            break
        assert store.metrics("p").num_rows == 3, at
    assert at > 5


def test_a_feed_that_failed_at_any_read_loads_again(root: str) -> None:
    for at in range(100):
        fs = FailsOnce()
        feed = Feed(fs, root, "p", ReaderCache(fs))
        fs.left = at
        try:
            feed.advance()
        except OSError as error:
            assert error.errno == errno.EIO  # noqa: PT017 - the last round has none
        if fs.left >= 0:
            break
        assert feed.advance().reset
        assert feed.view.rows("metrics", None, None).num_rows == 3, at
    assert at > 5


def test_a_feed_that_failed_while_it_went_on_loses_nothing(root: str) -> None:
    for at in range(100):
        fs = FailsOnce()
        feed = Feed(fs, root, "p", ReaderCache(fs))
        feed.advance()
        before = feed.view.rows("metrics", None, None).num_rows
        for name in "de":
            with eventlog.init(project="p", name=name, dir=root) as run:
                run.log({"x": 1.0})
        fs.left = at
        try:
            feed.advance()
        except OSError as error:
            assert error.errno == errno.EIO  # noqa: PT017 - the last round has none
        if fs.left >= 0:
            break
        feed.advance()
        assert feed.view.rows("metrics", None, None).num_rows == before + 2, at
    assert at > 3
