from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from p2pd.decide.ownership import Ranking, object_key, owner, ranked, stripe_key
from p2pd.model.reference import Digest

DIGEST = Digest("ab" * 32)
names = st.text("abcdef0123456789-", min_size=1, max_size=12)
sites = st.sets(names, min_size=1, max_size=12)


@given(sites, st.integers(0, 5000), st.randoms(use_true_random=False))
def test_all_members_agree_whatever_order_they_know_each_other_in(site, stripe, random) -> None:  # type: ignore[no-untyped-def]  # hypothesis' random
    key = stripe_key(DIGEST, stripe)
    shuffled = sorted(site)
    random.shuffle(shuffled)
    assert ranked(key, shuffled) == ranked(key, site)
    assert owner(key, shuffled) == ranked(key, site)[0]


@given(sites, st.data())
def test_a_member_that_leaves_moves_only_its_own_stripes(site: set[str], data: st.DataObject) -> None:
    gone = data.draw(st.sampled_from(sorted(site)))
    for stripe in range(20):
        key = stripe_key(DIGEST, stripe)
        before, after = ranked(key, site), ranked(key, site - {gone})
        assert after == [member for member in before if member != gone]


def test_nobody_owns_where_nobody_is() -> None:
    assert owner(object_key("tag"), []) is None


def test_stripes_are_spread_evenly() -> None:
    site = [f"node-{i}" for i in range(8)]
    owned = Counter(owner(stripe_key(DIGEST, stripe), site) for stripe in range(4000))
    assert len(owned) == 8
    assert max(owned.values()) < 1.25 * 500
    assert min(owned.values()) > 0.75 * 500


@given(st.lists(st.tuples(st.booleans(), st.sampled_from([f"n{i}" for i in range(12)]))), st.integers(1, 14))
def test_a_ranking_kept_is_the_ranking_made(steps: list[tuple[bool, str]], count: int) -> None:
    key, kept, members = object_key("x"), Ranking(object_key("x")), set[str]()
    for joins, member in steps:
        was_in = member in members
        rank = ranked(key, members | {member}).index(member)
        if joins:
            assert kept.add(member) == (None if was_in else rank)
            members.add(member)
        else:
            assert kept.discard(member) == (rank if was_in else None)
            members.discard(member)
        assert kept.top(count) == ranked(key, members)[:count]
    assert len(kept) == len(members)
