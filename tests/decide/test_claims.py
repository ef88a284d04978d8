from p2pd.decide.claims import Claims
from p2pd.decide.pace import Since


def claims_of(*made: tuple[int, str, float]) -> Claims:
    claims = Claims()
    for stripe, node, at in made:
        claims.begin(stripe, node, Since(at, at))
    return claims


def test_a_claim_counts_until_it_ends() -> None:
    claims = claims_of((3, "a", 1.0), (3, "b", 2.0))
    assert claims.on(3, ()) == {"a": Since(1.0, 1.0), "b": Since(2.0, 2.0)}
    assert claims.on(3, {"a"}) == {"b": Since(2.0, 2.0)}
    assert claims.on(4, ()) == {}
    assert claims.end(3, "a") == Since(1.0, 1.0)
    assert claims.end(3, "a") is None
    assert claims.end(3, "b") == Since(2.0, 2.0)
    assert claims.on(3, ()) == {}


def test_who_claimed_well_before_is_overtaken_for_a_time() -> None:
    claims = claims_of((3, "slow", 1.0), (3, "about as late", 5.5), (4, "slow", 6.0))
    assert claims.overtake(3, before=5.0, until=20.0)
    assert "slow" in claims.overtaken
    assert "about as late" not in claims.overtaken
    assert claims.on(4, ()) == {}
    assert not claims.forgive(19.9)
    assert claims.forgive(20.0)
    assert claims.on(4, ()) == {"slow": Since(6.0, 6.0)}


def test_who_leaves_is_forgotten() -> None:
    claims = claims_of((3, "slow", 1.0))
    claims.overtake(3, before=5.0, until=20.0)
    claims.forget("slow")
    assert "slow" not in claims.overtaken
