from p2pd.decide.fetchers import FETCHERS, Fetchers
from p2pd.decide.ownership import object_key, ranked, stripe_key
from p2pd.model.reference import Digest

DIGEST = Digest("77" * 32)
SITE = [f"n{i}" for i in range(FETCHERS + 8)]
BY_DIGEST = ranked(object_key(f"fetchers {DIGEST}"), SITE)


def fetchers_of(site: list[str]) -> Fetchers:
    fetchers = Fetchers(DIGEST)
    for node in site:
        fetchers.add(node)
    return fetchers


def test_the_first_by_digest_fetch_and_rank_by_stripe() -> None:
    fetchers = fetchers_of(SITE)
    assert len(fetchers) == FETCHERS
    assert fetchers.rank(3) == ranked(stripe_key(DIGEST, 3), BY_DIGEST[:FETCHERS])


def test_the_next_by_digest_moves_up_when_one_goes() -> None:
    fetchers = fetchers_of(SITE)
    before = fetchers.rank(3)
    fetchers.discard(BY_DIGEST[5])
    assert set(fetchers.rank(3)) == {*before, BY_DIGEST[FETCHERS]} - {BY_DIGEST[5]}
    fetchers.discard(BY_DIGEST[-1])
    fetchers.discard("never seen")
    assert len(fetchers) == FETCHERS


def test_past_the_fetchers_anybody_is_admitted() -> None:
    fetchers = fetchers_of(SITE)
    order = fetchers.rank(0)[1:]
    assert fetchers.admitted(order, 2) == order[:2]
    assert fetchers.admitted(order, FETCHERS + 1) == [*order, *BY_DIGEST[FETCHERS : FETCHERS + 2]]
