from p2pd.decide.election import LEAD_PATIENCE, Election
from p2pd.decide.ownership import object_key, ranked
from p2pd.model.reference import Digest

DIGEST = Digest("cd" * 32)
SITE = [f"node-{i}" for i in range(6)]
RANK = ranked(object_key(f"lead {DIGEST}"), SITE)


def leads(elections: dict[str, Election], now: float) -> list[str]:
    """Who leads, in rank."""
    return [n for n in RANK if n in elections and elections[n].leads(set(elections) - {n}, now)]


def elections(nodes: list[str]) -> dict[str, Election]:
    return {node: Election(DIGEST, node) for node in nodes}


def test_one_leads_and_all_agree() -> None:
    site = elections(SITE)
    assert leads(site, 0.0) == RANK[:1]
    assert leads(site, LEAD_PATIENCE - 0.1) == RANK[:1]


def test_the_next_leads_when_the_first_is_gone() -> None:
    site = elections(SITE)
    leads(site, 0.0)
    del site[RANK[0]]
    assert leads(site, 1.0) == RANK[1:2]


def test_a_site_that_stands_still_gets_one_more_leader_a_patience() -> None:
    site = elections(SITE)
    assert [len(leads(site, step * LEAD_PATIENCE + 0.1)) for step in range(4)] == [1, 2, 3, 4]


def test_a_site_that_gets_on_has_one_leader_for_ever() -> None:
    site = elections(SITE)
    for second in range(300):
        for node, election in site.items():
            if node != RANK[0] and second % 10 == 0:
                election.brought(RANK[0], float(second))
        assert leads(site, float(second)) == RANK[:1]


def test_who_stepped_in_leads_on_until_a_better_one_brings_something() -> None:
    stepped_in = Election(DIGEST, RANK[1])
    others = set(SITE) - {RANK[1]}
    assert not stepped_in.leads(others, 0.0)
    assert stepped_in.leads(others, LEAD_PATIENCE)
    stepped_in.brought(RANK[2], LEAD_PATIENCE + 1)
    assert stepped_in.leads(others, LEAD_PATIENCE + 2)
    stepped_in.brought(RANK[0], LEAD_PATIENCE + 3)
    assert not stepped_in.leads(others, LEAD_PATIENCE + 4)


def test_a_leader_that_stood_down_waits_its_turn_again() -> None:
    stepped_in = Election(DIGEST, RANK[1])
    others = set(SITE) - {RANK[1]}
    stepped_in.leads(others, 0.0)
    assert stepped_in.leads(others, LEAD_PATIENCE)
    stepped_in.stand_down()
    stepped_in.brought(RANK[0], LEAD_PATIENCE + 1)
    assert not stepped_in.leads(others, LEAD_PATIENCE + 2)


def test_a_leader_that_only_begins_keeps_others_away_but_does_not_take_over_again() -> None:
    stepped_in = Election(DIGEST, RANK[1])
    others = set(SITE) - {RANK[1]}
    assert not stepped_in.leads(others, 0.0)
    stepped_in.moved(5.0)
    assert not stepped_in.leads(others, 5.0 + LEAD_PATIENCE - 0.1)
    assert stepped_in.leads(others, 5.0 + LEAD_PATIENCE)
    stepped_in.moved(20.0)
    assert stepped_in.leads(others, 20.1)
