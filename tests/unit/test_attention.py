"""The service looks closely at writers that have something new, and at no other."""

from __future__ import annotations

import os
from collections import Counter

import pytest

import eventlog
from compactor.attention import Attention
from compactor.config import CompactorConfig
from compactor.work import take_turn
from eventlog import names
from eventlog.config import WriterConfig
from eventlog.fs import LOCAL, LocalFs
from eventlog.store import open_store

PROJECT = "p"
QUIET = WriterConfig(sync_interval_s=None)
LONG_AGO_NS = 1_700_000_000_000_000_000


class CountingFs(LocalFs):
    def __init__(self):
        self.calls = Counter()

    def entries(self, path):
        self.calls["entries"] += 1
        return super().entries(path)

    def subdirs(self, path):
        self.calls["subdirs"] += 1
        return super().subdirs(path)

    def read(self, path, offset=0, size=-1):
        self.calls["read"] += 1
        return super().read(path, offset, size)


@pytest.fixture
def root(tmp_path):
    return str(tmp_path / "store")


@pytest.fixture
def runs(root):
    started = [eventlog.init(PROJECT, f"run{index}", dir=root, settings=QUIET) for index in range(20)]
    yield started
    for run in started:
        run.finish()


def settle(root):
    """Make the directories look as if nothing was created in them for long."""
    directory = names.project_segments_dir(root, PROJECT)
    for path in (*(os.path.join(directory, name) for name in os.listdir(directory)), directory):
        os.utime(path, ns=(LONG_AGO_NS, LONG_AGO_NS))


def turn(root, attention):
    return take_turn(LOCAL, root, PROJECT, CompactorConfig(), writers=attention.pending())


def test_idle_writers_are_not_listed_again_and_the_manifest_is_not_read_again(root, runs):
    fs = CountingFs()
    attention = Attention(fs, root, PROJECT)
    assert len(attention.pending()) == len(runs)
    turn(root, attention)
    settle(root)
    assert attention.pending() == {}
    fs.calls.clear()
    for _ in range(10):
        assert attention.pending() == {}
    assert not fs.calls


def test_what_an_idle_writer_appends_or_rolls_is_seen_at_once_and_only_that_is_folded(root, runs):
    attention = Attention(LOCAL, root, PROJECT)
    turn(root, attention)
    settle(root)
    assert attention.pending() == {}
    runs[3].log({"x": 1.0})
    (writer_id,) = attention.pending()
    assert turn(root, attention).records == 1
    settle(root)
    assert attention.pending() == {}
    runs[4].finish()
    (other,) = attention.pending()
    assert other != writer_id
    turn(root, attention)
    assert attention.pending() == {}
    assert open_store(root).manifest(PROJECT).writers[other].done


@pytest.mark.usefixtures("runs")
def test_a_writer_that_is_new_is_seen_at_once(root):
    attention = Attention(LOCAL, root, PROJECT)
    turn(root, attention)
    settle(root)
    assert attention.pending() == {}
    with eventlog.init(PROJECT, "late", dir=root, settings=QUIET) as run:
        assert len(attention.pending()) == 1
        run.log({"x": 1.0})
    assert turn(root, attention).records == 3


def test_only_the_writers_that_are_given_are_folded_and_the_rest_later(root, runs):
    first = min(Attention(LOCAL, root, PROJECT).pending())
    assert take_turn(LOCAL, root, PROJECT, CompactorConfig(), writers=[first]).records == 1
    assert take_turn(LOCAL, root, PROJECT, CompactorConfig()).records == len(runs) - 1
