from p2pd.decide.election import BESIDE, LEAD_PATIENCE, LISTEN, PASSED, Election
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


def others_than(node: str) -> set[str]:
    return set(SITE) - {node}


def test_who_has_nothing_listens_first_unless_it_is_alone() -> None:
    first = Election(DIGEST, RANK[0])
    assert not first.leads(others_than(RANK[0]), 50.0, is_new=True)
    assert not first.leads(others_than(RANK[0]), 50.0 + LISTEN - 0.1, is_new=True)
    assert first.leads(others_than(RANK[0]), 50.01 + LISTEN, is_new=True)
    assert Election(DIGEST, RANK[0]).leads((), 50.0, is_new=True)
    assert Election(DIGEST, RANK[0]).leads(others_than(RANK[0]), 50.0), "who has something goes on with it"


def test_who_comes_late_yields_to_whoever_is_at_work() -> None:
    late, others = Election(DIGEST, RANK[0]), others_than(RANK[0])
    late.brought(RANK[3], 50.0)
    assert not late.leads(others, 50.0, is_new=True)
    assert not late.leads(others, 50.01 + LISTEN, is_new=True)
    late.brought(RANK[3], 60.0)
    assert not late.leads(others, 60.0)
    assert not late.leads(others, 60.0 + LEAD_PATIENCE - 0.1)
    assert late.leads(others, 60.0 + LEAD_PATIENCE), "the one at work hangs"


def test_who_comes_late_leads_when_it_is_the_only_one_left() -> None:
    late = Election(DIGEST, RANK[0])
    late.brought(RANK[3], 50.0)
    assert not late.leads(others_than(RANK[0]), 50.0, is_new=True)
    assert late.leads((), 51.0)


def test_what_moved_long_before_a_node_came_is_nobody_at_work() -> None:
    node, others = Election(DIGEST, RANK[0]), others_than(RANK[0])
    node.moved(50.0)
    node.leads(others, 50.0 + LEAD_PATIENCE, is_new=True)
    assert node.leads(others, 50.01 + LEAD_PATIENCE + LISTEN, is_new=True)


def test_who_does_not_lead_does_not_lead_on() -> None:
    stepped_in, others = Election(DIGEST, RANK[1]), others_than(RANK[1])
    stepped_in.leads(others, 0.0)
    assert stepped_in.leads(others, LEAD_PATIENCE)
    stepped_in.brought(RANK[0], LEAD_PATIENCE + 1)
    assert not stepped_in.leads(others, LEAD_PATIENCE + 1)
    assert not stepped_in.leads(others, 2 * LEAD_PATIENCE), "its turn is over, and the better one's is not"
    assert stepped_in.leads(others, 2 * LEAD_PATIENCE + 1)


def test_the_patience_of_who_begins_late_begins_then() -> None:
    second, others = Election(DIGEST, RANK[1]), others_than(RANK[1])
    assert not second.leads(others, 500.0)
    assert not second.leads(others, 500.0 + LEAD_PATIENCE - 0.1)
    assert second.leads(others, 500.0 + LEAD_PATIENCE)


def test_what_a_better_one_brought_before_a_node_stepped_in_does_not_end_its_lead() -> None:
    stepped_in, others = Election(DIGEST, RANK[1]), others_than(RANK[1])
    stepped_in.brought(RANK[0], 1.0)
    assert not stepped_in.leads(others, 1.0)
    assert stepped_in.leads(others, 1.0 + LEAD_PATIENCE)
    assert stepped_in.leads(others, 2.0 + LEAD_PATIENCE)


def test_a_leader_that_was_passed_leaves_it_to_who_stepped_in() -> None:
    first = Election(DIGEST, RANK[0])
    others = set(SITE) - {RANK[0]}
    assert first.leads(others, 0.0)
    first.fetched(1.0, is_mine=True)
    first.brought(RANK[1], 14.0)
    first.fetched(1.0 + PASSED, is_mine=False)
    assert first.leads(others, 1.0 + PASSED), "both may be as quick"
    first.fetched(14.0, is_mine=False)
    assert not first.leads(others, 14.0)
    assert not first.leads(others, 14.0 + LEAD_PATIENCE - 0.1), "it does not come back at once"
    assert first.leads(others, 14.0 + LEAD_PATIENCE), "but where the site stands still"


def test_a_leader_that_gets_on_is_not_passed() -> None:
    first = Election(DIGEST, RANK[0])
    others = set(SITE) - {RANK[0]}
    assert first.leads(others, 0.0)
    for second in range(1, 60, 5):
        first.fetched(float(second), is_mine=True)
        first.fetched(second + 2.5, is_mine=False)
        assert first.leads(others, second + 2.5)


def beside(stepped_in: Election, better: str, until: float) -> list[bool]:
    """Whether it leads, each half second, while it brings a stripe a second and `better` fetches too."""
    others = set(SITE) - {RANK[1]}
    led = []
    for half in range(int(2 * until)):
        now = LEAD_PATIENCE + half / 2
        stepped_in.fetching([better] if half % 2 else [], now)
        if half % 2:
            stepped_in.fetched(now, is_mine=True)
            stepped_in.moved(now)
        led.append(stepped_in.leads(others, now))
    return led


def test_of_two_side_by_side_the_better_one_goes_on() -> None:
    stepped_in = Election(DIGEST, RANK[1])
    assert not stepped_in.leads(set(SITE) - {RANK[1]}, 0.0)
    led = beside(stepped_in, RANK[0], 3 * BESIDE)
    assert all(led[: int(2 * BESIDE)])
    assert not any(led[int(2 * BESIDE) + 4 :])


def test_beside_a_lesser_one_the_better_one_leads_on() -> None:
    stepped_in = Election(DIGEST, RANK[1])
    assert not stepped_in.leads(set(SITE) - {RANK[1]}, 0.0)
    assert all(beside(stepped_in, RANK[2], 3 * BESIDE))


def test_who_fetched_before_and_does_no_longer_is_not_beside() -> None:
    stepped_in = Election(DIGEST, RANK[1])
    others = set(SITE) - {RANK[1]}
    assert not stepped_in.leads(others, 0.0)
    assert stepped_in.leads(others, LEAD_PATIENCE)
    stepped_in.fetching([RANK[0]], LEAD_PATIENCE)
    for second in range(1, 30):
        now = LEAD_PATIENCE + second
        stepped_in.fetching([], now)
        stepped_in.fetched(now, is_mine=True)
        stepped_in.moved(now)
        assert stepped_in.leads(others, now)


def test_who_brings_nothing_itself_waits_for_no_better_one() -> None:
    stepped_in = Election(DIGEST, RANK[1])
    others = set(SITE) - {RANK[1]}
    assert not stepped_in.leads(others, 0.0)
    for second in range(30):
        now = LEAD_PATIENCE + second
        stepped_in.fetching([RANK[0]], now)
        assert stepped_in.leads(others, now)
