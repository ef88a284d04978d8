"""Who else has a part in a blob, and what they give."""

from __future__ import annotations

import pytest

from p2pd.decide.company import Company, Way

ALL = 0b1111


@pytest.fixture
def muted() -> set[str]:
    return set()


@pytest.fixture
def company(muted: set[str]) -> Company:
    return Company(ALL, muted)


def has(company: Company, node: str, have: int, way: Way = Way.SEEDER) -> bool:
    member = company.members.get(node) or company.join(node, 0.0)
    member.have, member.way = have, way
    return company.offers_more(node)


def test_members_give_what_they_have(company: Company) -> None:
    assert company.offer == 0
    assert has(company, "a", 0b0001)
    assert has(company, "b", 0b0010)
    assert not has(company, "b", 0b0011), "the site had it"
    assert company.offer == 0b0011
    assert company.owing(0b0010) == ["b"]


def test_who_has_less_gives_less(company: Company) -> None:
    has(company, "a", 0b0111)
    has(company, "b", 0b0001)
    company.members["a"].have = 0b0100
    assert company.offers_anew()
    assert company.offer == 0b0101
    assert not company.offers_anew()


def test_who_leaves_gives_nothing(company: Company) -> None:
    has(company, "a", 0b0111)
    left = company.leave("a")
    assert left is not None
    assert left.have == 0b0111
    assert company.offer == 0
    assert company.leave("a") is None


def test_a_holder_gives_all(company: Company) -> None:
    company.holders.add("h")
    assert company.offer == ALL
    assert company.owing(0b0001) == ["h"]
    company.join("h", 1.0)
    assert not company.holders, "it let the blob go and fetches it anew"
    assert company.offer == 0


def test_of_the_muted_nothing_is_expected(company: Company, muted: set[str]) -> None:
    has(company, "a", 0b0001)
    company.holders.add("h")
    muted |= {"a", "h"}
    assert company.offers_anew()
    assert company.offer == company.given_by("a") == 0
    assert company.owing(ALL) == []
    assert company.heard(Way.SEEDER) == []
    muted.clear()
    assert company.offers_more("a")
    assert company.offer == ALL


def test_by_which_way_they_fetch(company: Company) -> None:
    has(company, "a", 0, Way.SEEDER)
    has(company, "b", 0, Way.ORIGIN)
    assert company.members_by(Way.ORIGIN) == ["b"]
    assert company.flying(Way.ORIGIN) == []
    company.members["b"].claimed = 0b0100
    assert company.flying(Way.ORIGIN) == ["b"]
    assert company.way_of("a") is Way.SEEDER
    assert company.way_of("nobody") is Way.NONE
    company.members["a"].active_at = 5.0
    assert company.has_active(Way.SEEDER, 4.9)
    assert not company.has_active(Way.SEEDER, 5.0)
    assert not company.has_active(Way.ORIGIN, 0.0)
