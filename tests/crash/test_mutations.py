"""Every crash of what the store does, and proof that each sync and each order in it is needed and tested."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from crash_cases import store_cases
from hub_cases import hub_cases
from serve_cases import serve_cases

from eventlog.testing.judge import Case, Judge
from eventlog.testing.mutate import Mutations, Site

# The reason is put right after the bytes, into the same directory, and syncs it. Only when it is there already, from
# a process that was killed, the bytes need a sync of their own.
REDUNDANT = [("sync_dir", "compactor/quarantine.py", "set_aside")]
IN_FULL = re.compile(
    r"(?!collect after a killed fold)"
    r"(seal|run|first fold|fold|compact|rebuild|collect|spool|rename|index|upload|held|changes|hub)[^,]*"
)
AFTER_KILLS = re.compile(
    r"(seal, killed at mkdir|first fold, killed at (mkdir|link)|spool, killed at mkdir|index.*, killed at mkdir"
    r"|upload, killed at mkdir 21|held, killed at (mkdir 2|link.*)|intake, killed before sync 33"
    r"|hub [a-z]+, killed).*"
)
# What adds nothing to the others is left out; all of it takes two minutes of one core.
pytestmark = pytest.mark.timeout(1200)
SOURCE = Path(__file__).resolve().parent.parent.parent
SYNCS = re.compile(
    r"\bfs\.(sync|sync_dir)\(|\._fs\.(sync|sync_dir)\(|\bput_if_absent\(fs|\bstaged\(|\.make_dirs\((?!.*durable)"
)
# An export, or a page, goes to a directory outside of every store; when that is lost it is made again.
ELSEWHERE = (
    "eventlog/testing/",
    "eventlog/fs.py",
    "eventlog/demo/",
    "eventlog/exporting/",
    "compactor/page/target.py",
)


def joined(case: Case) -> Case:
    return case._replace(trace=case.trace.joined())


@pytest.fixture(scope="module")
def cases() -> list[Case]:
    return [joined(case) for case in (*store_cases(), *serve_cases(), *hub_cases())]


@pytest.fixture(scope="module")
def mutations(cases: list[Case]) -> Mutations:
    """Sweep every case that is quick, and mutate what it does."""
    found = Mutations()
    wanted = [case for case in cases if IN_FULL.fullmatch(case.name)]
    wanted += [case for case in cases if AFTER_KILLS.fullmatch(case.name)]
    for case in wanted:
        judge = Judge(case)
        if case.name.endswith("first fold") or "killed" not in case.name:
            assert list(judge.problems()) == [], case.name
        found.add(judge, tries=2)
    return found


def place(site: Site) -> tuple[str, str, str]:
    return site.name, site.lines[-1].file, site.lines[-1].function


@pytest.mark.invariant(9)
@pytest.mark.invariant(11)
def test_each_sync_that_is_left_out_and_each_order_that_is_changed_shows_after_a_crash(mutations: Mutations):
    assert [place(site) for site in mutations.missed] == REDUNDANT, [str(site) for site in mutations.missed]
    assert len(mutations.caught) > 40


def test_every_sync_in_the_code_is_among_those_that_were_recorded(mutations: Mutations):
    sites = (*mutations.caught, *mutations.missed)
    recorded = {(line.file, line.number) for site in sites for line in site.lines}
    written = {
        (str(path.relative_to(SOURCE)), number)
        for package in ("eventlog", "compactor")
        for path in (SOURCE / package).rglob("*.py")
        if not str(path.relative_to(SOURCE)).startswith(ELSEWHERE)
        for number, line in enumerate(path.read_text().split("\n"), 1)
        if SYNCS.search(line) and not line.lstrip().startswith(("def ", "#"))
    }
    assert written - recorded == set()
    assert len(written) > 20
