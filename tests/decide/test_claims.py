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


def test_what_was_never_claimed_ends_too() -> None:
    claims = claims_of((3, "a", 1.0))
    assert claims.end(9, "a") is None
    assert claims.end(3, "b") is None
    assert claims.on(3, ()) == {"a": Since(1.0, 1.0)}
    claims.begin(3, "a", Since(4.0, 2.0))
    assert claims.on(3, ()) == {"a": Since(4.0, 2.0)}, "a new claim counts from its own beginning"
