"""When a peer's word on piece hashes counts."""

from __future__ import annotations

from p2pd.decide.circle import Choice, Circle
from p2pd.decide.hearsay import SEEDER_SILENCE, Belief, Hearsay
from p2pd.model.layout import MIB, SHA1_BYTES, SegmentMeta
from p2pd.model.reference import Digest

DIGEST = Digest("a" * 64)
SIZE = 3 * MIB


def word(number: int, index: int = 0) -> SegmentMeta:
    return SegmentMeta(DIGEST, SIZE, index, bytes([number]) * SHA1_BYTES * 3)


def small_site() -> Choice:
    return Circle(DIGEST, "me").choose()


def told(hearsay: Hearsay, now: float, *, asking: bool, could_ask: bool, holders: set[str]) -> list[Belief]:
    return hearsay.believed(small_site(), holders, now, is_asking=asking, could_ask=could_ask)


def test_any_counts_where_no_seeder_can_be_asked_and_only_once() -> None:
    hearsay = Hearsay()
    hearsay.heard("member", word(1), 0.0)
    hearsay.heard("member", word(2), 0.0)
    hearsay.heard("other", word(3), 0.0)
    assert told(hearsay, 0.0, asking=False, could_ask=False, holders=set()) == [Belief(word(1), True)]
    assert told(hearsay, 9.0, asking=False, could_ask=False, holders=set()) == []


def test_a_holder_counts_when_the_seeder_had_its_time() -> None:
    hearsay = Hearsay()
    hearsay.heard("member", word(1), 10.0)
    hearsay.heard("holder", word(2), 11.0)
    early, late = 10.0 + SEEDER_SILENCE - 0.1, 10.0 + SEEDER_SILENCE
    assert told(hearsay, early, asking=True, could_ask=True, holders={"holder"}) == []
    assert told(hearsay, late, asking=True, could_ask=True, holders={"holder"}) == [Belief(word(2), True)]


def test_a_member_never_counts_beside_a_seeder_that_is_asked() -> None:
    hearsay = Hearsay()
    hearsay.heard("member", word(1), 0.0)
    assert told(hearsay, 999.0, asking=True, could_ask=True, holders={"holder"}) == []


def test_each_segment_has_its_own_time() -> None:
    hearsay = Hearsay()
    hearsay.heard("holder", word(1, 0), 0.0)
    hearsay.heard("holder", word(1, 1), 2.0)
    found = told(hearsay, SEEDER_SILENCE, asking=True, could_ask=True, holders={"holder"})
    assert [belief.meta.index for belief in found] == [0]


def test_nothing_is_kept_of_what_is_known() -> None:
    hearsay = Hearsay()
    hearsay.heard("holder", word(1, 0), 0.0)
    hearsay.heard("holder", word(1, 1), 0.0)
    hearsay.forget(0)
    hearsay.forget(7)
    found = told(hearsay, SEEDER_SILENCE, asking=True, could_ask=True, holders={"holder"})
    assert [belief.meta.index for belief in found] == [1]


def test_who_was_heard_is_known_until_one_is_believed() -> None:
    hearsay = Hearsay()
    index = word(1).index
    assert hearsay.words(index) == {}
    hearsay.heard("member", word(1), 0.0)
    assert hearsay.words(index) == {"member": word(1)}
    told(hearsay, 0.0, asking=False, could_ask=False, holders=set())
    assert hearsay.words(index) == {}
