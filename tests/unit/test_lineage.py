"""Which snapshot holds more, and who may publish: decided from manifests alone."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compactor.hub.errors import FencedError
from compactor.hub.lineage import Next, decide, lacking
from eventlog import names
from eventlog.manifest import Gap, Manifest, Publisher, Watermark

ME, OTHER = names.new_id(), names.new_id()
WRITERS = ("a" * 26, "b" * 26, "c" * 26)


def snapshot(
    seqs: dict[str, int],
    *,
    version: int = 1,
    gaps: tuple[tuple[str, int, int], ...] = (),
    by: tuple[str, int] | None = None,
) -> Manifest:
    facts = {} if by is None else {"publisher": Publisher(owner=by[0], epoch=by[1])}
    return Manifest(
        project="p",
        version=version,
        parent=0,
        created_ns=0,
        committer="",
        action="fold",
        writers={writer: Watermark(seq=seq) for writer, seq in seqs.items()},
        gaps=[Gap(writer_id=writer, first_seq=first, last_seq=last, reason="") for writer, first, last in gaps],
        **facts,
    )


folded = st.dictionaries(st.sampled_from(WRITERS), st.sets(st.integers(1, 12), min_size=1))


def of_sets(records: dict[str, set[int]]) -> Manifest:
    """Return a snapshot that holds just these records."""
    gaps = [(writer, seq, seq) for writer, seqs in records.items() for seq in range(1, max(seqs)) if seq not in seqs]
    return snapshot({writer: max(seqs) for writer, seqs in records.items()}, gaps=tuple(gaps))


@given(folded, folded)
def test_a_snapshot_lacks_just_the_writers_of_whom_another_has_a_record_that_it_has_not(mine, theirs):
    wanted = [writer for writer in theirs if theirs[writer] - mine.get(writer, set())]
    assert sorted(lacking(of_sets(mine), of_sets(theirs))) == sorted(wanted)


A, B = WRITERS[:2]


@pytest.mark.parametrize(
    ("held", "mine", "theirs", "wanted"),
    [
        (0, snapshot({A: 5}), None, (Next.CLAIM, 1)),
        (1, snapshot({A: 5}, by=(ME, 1)), None, (Next.PUBLISH, 1)),
        (1, snapshot({A: 5}, by=(ME, 1)), snapshot({A: 3}, by=(ME, 1)), (Next.PUBLISH, 1)),
        (0, snapshot({A: 5}), snapshot({A: 5}, by=(OTHER, 4)), (Next.CLAIM, 5)),
        (0, snapshot({A: 5}), snapshot({A: 6}, by=(OTHER, 4)), (Next.MERGE, 0)),
        (0, snapshot({}), snapshot({B: 1}), (Next.MERGE, 0)),
        # An older publisher wrote over a claim: claim again, above its version.
        (3, snapshot({A: 5}, by=(ME, 3)), snapshot({A: 5}, by=(OTHER, 2)), (Next.CLAIM, 4)),
        # The store was set back to an older state.
        (3, snapshot({A: 5}, version=4, by=(ME, 3)), snapshot({A: 9}, version=7, by=(ME, 3)), (Next.MERGE, 0)),
        (3, snapshot({A: 9}, version=4, by=(ME, 3)), snapshot({A: 9}, version=7, by=(ME, 3)), (Next.CLAIM, 4)),
        # Both claimed the same epoch, and the other was first to publish: this one has not published in it yet.
        (0, snapshot({A: 5}, by=(ME, 2)), snapshot({A: 5}, by=(OTHER, 2)), (Next.CLAIM, 3)),
    ],
)
def test_a_store_publishes_claims_or_merges_first(held, mine, theirs, wanted):
    assert decide(ME, held, mine, theirs) == wanted


@pytest.mark.parametrize("epoch", [3, 4])
def test_a_publisher_stops_when_another_has_its_epoch_or_a_later_one(epoch):
    mine = snapshot({A: 5}, by=(ME, 3))
    with pytest.raises(FencedError, match=f"epoch {epoch}; this one had epoch 3"):
        decide(ME, 3, mine, snapshot({A: 5}, by=(OTHER, epoch)))
