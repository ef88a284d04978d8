"""The rules of p2pd.decide.plan one by one, with literal times, then all of them on random histories."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from p2pd.decide.bits import iter_bits, mask_of
from p2pd.decide.election import LEAD_PATIENCE, LISTEN
from p2pd.decide.fetchers import FETCHERS
from p2pd.decide.ownership import object_key, ranked, stripe_key
from p2pd.decide.pace import Pace
from p2pd.decide.plan import LOOKAHEAD, SETTLE, FetchPlan, Way
from p2pd.decide.standing import Standing
from p2pd.decide.turn import IN_FLIGHT
from p2pd.model.layout import Layout
from p2pd.model.reference import Digest

MIB = 1024 * 1024
DIGEST = Digest("5a" * 32)
LAYOUT = Layout(32 * MIB)
COUNT = LAYOUT.stripe_count
ALL = mask_of(range(COUNT))
LONG = Layout(160 * MIB)
PATIENCE_AT_FIRST = 21.0


def plan_of(
    *members: str, me: str = "me", layout: Layout = LAYOUT, way: Way = Way.SEEDER, have: int = 0
) -> FetchPlan:
    plan = FetchPlan(DIGEST, layout, me, way, 0.0)
    plan.resumed(have)
    for member in members:
        plan.member_progress(member, 0, 0, Way.SEEDER, 0.0)
    return plan


def owned_by(node: str, *others: str, stripes: range = range(COUNT)) -> list[int]:
    return [s for s in stripes if ranked(stripe_key(DIGEST, s), [node, *others])[0] == node]


def fetch(plan: FetchPlan, now: float) -> tuple[int, ...]:
    stripes = plan.decide(now).fetch
    for stripe in stripes:
        plan.started(stripe, now)
    return stripes


def way_of(plan: FetchPlan) -> Way:
    return plan.way


def wan_brings(plan: FetchPlan, stripe: int, now: float) -> None:
    plan.received(stripe, now)
    plan.gained(stripe, now)


# Rule 1: the LAN first.


def test_what_a_member_has_is_not_fetched() -> None:
    plan = plan_of()
    plan.member_progress("a", 0b111, 0b111, Way.NONE, 0.0)
    assert fetch(plan, 0.0) == (3, 4)


def test_nothing_is_fetched_while_a_holder_gives() -> None:
    plan = plan_of("a")
    plan.holder_found("h", 0.0)
    decision = plan.decide(0.0)
    assert decision.fetch == ()
    assert decision.wake_at == 5.0
    plan.gained(0, 4.0)
    assert plan.decide(8.9).fetch == ()


def test_a_holder_that_gives_nothing_is_left_out_of_account() -> None:
    plan = plan_of()
    plan.holder_found("h", 0.0)
    assert plan.decide(4.9).fetch == ()
    assert fetch(plan, 5.0) == (0, 1)
    assert list(plan.holders) == ["h"]
    wan_brings(plan, 0, 6.0)
    assert fetch(plan, 6.0) == (2, 3)
    assert plan.decide(25.0).fetch == ()  # 20 s later it is trusted again


def test_a_holder_that_left_is_not_waited_for() -> None:
    plan = plan_of()
    plan.holder_found("h", 0.0)
    plan.member_left("h")
    assert fetch(plan, 0.1) == (0, 1)


def test_what_others_had_before_tells_nothing_of_how_fast_the_wan_is() -> None:
    plan = plan_of(layout=LONG)
    before = plan._pace.ahead
    plan.holder_found("h", 0.1)
    plan.member_progress("a", ALL >> 4, ALL >> 4, Way.SEEDER, 0.1)
    assert plan._pace.ahead == before


@pytest.mark.parametrize("how", ["left", "muted"])
def test_what_a_holder_takes_with_it_has_yet_to_come_to_the_site(how: str) -> None:
    plan = plan_of("a")
    plan.holder_found("h", 0.0)
    plan.decide(0.0)
    if how == "left":
        plan.member_left("h")
    else:
        plan.decide(60.0)
        assert plan.decide(61.0).fetch, "nothing is expected of it"
    assert plan.needs_wan(0.1)
    before = plan.site_moved_at
    plan.member_progress("a", 1, 1, Way.SEEDER, 62.0)
    assert plan.site_moved_at == 62.0 > before
    assert plan._pace.came_at == 62.0


def test_what_a_muted_member_had_is_no_news_when_it_speaks() -> None:
    plan = plan_of("a", "b", layout=LONG)
    for stripe in range(30):
        plan.member_progress("a", mask_of(range(stripe + 1)), 0, Way.SEEDER, 1.0 + stripe)
    plan.decide(31.0)
    assert not plan.is_at_site(0), "it owes what it has, and is muted"
    before, moved_at = plan._pace.ahead, plan.site_moved_at
    plan.member_progress("a", mask_of(range(30)), 0b111 << 30, Way.NONE, 32.0)
    assert plan._pace.ahead == before
    assert plan._pace.came_at == 30.0
    assert plan.site_moved_at == 32.0 > moved_at, "its claims are"


def test_who_is_heard_of_again_brings_nothing_new() -> None:
    plan = plan_of("a", "b")
    plan.member_progress("a", 0b11, 0b11, Way.SEEDER, 1.0)
    plan.member_left("a")
    plan.member_progress("a", 0b11, 0b11, Way.SEEDER, 3.0)
    assert plan._pace.came_at == 1.0


def test_a_holder_that_was_left_out_and_comes_back_is_trusted_like_any_other() -> None:
    plan = plan_of()
    plan.holder_found("h", 0.0)
    assert plan.decide(5.0).fetch == (0, 1)
    plan.member_left("h")
    plan.holder_found("h", 6.0)
    assert plan.decide(6.0).fetch == ()


def test_only_the_member_that_owes_is_left_out() -> None:
    plan = plan_of("good")
    plan.member_progress("mute", 0b1, 0b1, Way.SEEDER, 0.0)
    plan.decide(0.0)
    assert 0 not in plan.decide(4.9).fetch
    mine = owned_by("me", "good")
    assert fetch(plan, 5.1) == tuple(mine[:2])  # by rank without the mute one
    assert set(plan.members) == {"good", "mute"}


def test_what_a_muted_member_tells_changes_nothing_until_it_is_trusted_again() -> None:
    plan = plan_of(layout=LONG)
    plan.member_progress("mute", 0b1, 0b1, Way.SEEDER, 0.0)
    plan.decide(5.0)
    plan.member_progress("mute", 0b111, ALL, Way.SEEDER, 6.0)
    assert plan.missing_in(0)[:3] == [0, 1, 2]
    plan.decide(25.1)
    assert plan.missing_in(0)[:1] == [3]


def test_a_stripe_that_came_over_the_wan_says_nothing_about_the_lan() -> None:
    plan = plan_of()
    plan.member_progress("a", 1 << 20, 1 << 20, Way.NONE, 0.0)
    (first, _) = fetch(plan, 0.0)
    wan_brings(plan, first, 4.0)
    plan.decide(5.0)
    assert 20 in plan.missing_in(1)


def test_a_member_that_restarts_offers_less() -> None:
    plan = plan_of()
    plan.member_progress("a", 0b11, 0b11, Way.NONE, 0.0)
    plan.member_progress("a", 0b10, 0b10, Way.NONE, 0.1)
    assert fetch(plan, 0.2) == (0, 2)


def test_what_is_left_when_a_member_goes_is_what_all_the_others_have() -> None:
    plan = plan_of()
    for node, have in (("a", 0b001), ("b", 0b010), ("c", 0b100)):
        plan.member_progress(node, have, have, Way.NONE, 0.0)
    plan.member_left("c")
    assert [plan.is_at_site(stripe) for stripe in range(4)] == [True, True, False, False]
    assert plan.missing_in(0)[:2] == [2, 3]
    plan.gained(2, 0.1)
    assert plan.is_at_site(2)


# Rule 2: the owner, lowest first, a few at a time, within the window.


def test_each_stripe_has_one_owner_whoever_is_asked() -> None:
    site = ["a", "b", "c", "me"]
    first: dict[str, tuple[int, ...]] = {}
    for node in site:
        plan = plan_of(*(other for other in site if other != node), me=node)
        first[node] = plan.decide(0.0).fetch
    fetched = [stripe for stripes in first.values() for stripe in stripes]
    assert len(set(fetched)) == len(fetched)
    assert 0 in fetched
    for node, stripes in first.items():
        assert set(stripes) <= set(owned_by(node, *site))


def test_a_node_alone_has_a_few_in_flight_begun_two_at_a_time() -> None:
    plan = plan_of()
    begun = [fetch(plan, 0.0) for _ in range(5)]
    assert begun == [(0, 1), (2, 3), (4, 5), (), ()]


def test_many_have_two_each_at_most() -> None:
    plan = plan_of(*(f"n{i}" for i in range(7)), layout=LONG)
    for step in range(8):
        fetch(plan, step * 0.01)
    assert len(plan.in_flight) <= 2


def test_a_long_way_ahead_nothing_is_fetched() -> None:
    plan = plan_of("a", layout=LONG)
    window = LAYOUT.stripes_per_segment * (LOOKAHEAD + 1)
    assert plan.window() == range(LOOKAHEAD + 1)
    plan.member_progress("a", mask_of(range(1, window)), mask_of(range(window)), Way.SEEDER, 0.0)
    assert plan.decide(0.1).fetch == ()
    plan.gained(0, 0.2)
    assert plan.window() == range(LOOKAHEAD + 1)
    for stripe in range(1, 16):
        plan.gained(stripe, 0.3)
    assert plan.window() == range(1, LOOKAHEAD + 2)


def test_the_window_ends_with_the_blob() -> None:
    plan = plan_of(have=ALL & ~(1 << (COUNT - 1)))
    assert plan.window() == range(1, 2)
    assert fetch(plan, 0.0) == (COUNT - 1,)
    wan_brings(plan, COUNT - 1, 1.0)
    assert not plan.window()
    decision = plan.decide(1.0)
    assert (decision.fetch, decision.lead) == ((), False)


def test_in_a_large_site_some_fetch_and_the_rest_is_served_by_them() -> None:
    names = [f"n{i}" for i in range(100)]
    fetchers = ranked(object_key(f"fetchers {DIGEST}"), names)[:FETCHERS]
    for me in names[:20]:
        plan = plan_of(*(name for name in names if name != me), me=me, layout=LONG)
        if me not in fetchers:
            assert plan.decide(0.0).fetch == ()
        assert set(plan.decide(0.0).fetch) <= set(owned_by(me, *fetchers)) if me in fetchers else True


def test_what_would_be_theirs_is_left_to_those_that_have_yet_to_answer() -> None:
    plan = plan_of("a")
    plan.expect(["a", "b", "c"])
    mine = owned_by("me", "a", "b", "c")
    assert set(plan.decide(0.0).fetch) <= set(mine)
    plan.member_progress("b", 0, 0, Way.NONE, 0.1)
    plan.expect_no_longer("c")
    plan.expect_no_longer("a")  # it answered, and fetches
    begun: set[int] = set()
    for _ in range(3):
        for stripe in fetch(plan, 0.2):
            begun.add(stripe)
            wan_brings(plan, stripe, 0.2)
    assert begun <= set(owned_by("me", "a"))
    assert begun - set(mine)


def test_nothing_is_expected_of_a_holder() -> None:
    plan = plan_of()
    plan.holder_found("a", 0.0)
    plan.expect(["a"])
    plan.member_left("a")
    assert set(fetch(plan, 0.1)) == {0, 1}


def test_members_without_a_seeder_own_nothing() -> None:
    plan = plan_of()
    plan.member_progress("a", 0, 0, Way.ORIGIN, 0.0)
    plan.member_progress("b", 0, 0, Way.NONE, 0.0)
    assert fetch(plan, 0.0) == (0, 1)


def test_stripes_of_a_member_that_left_go_to_the_next() -> None:
    plan = plan_of("a")
    theirs = owned_by("a", "me")[0]
    plan.member_progress("a", 0, 1 << theirs, Way.SEEDER, 0.1)
    plan.member_left("a")
    begun = [*fetch(plan, 0.2), *fetch(plan, 0.2), *fetch(plan, 0.2)]
    assert theirs in begun


# Rule 3: nobody takes over early.


def busy(plan: FetchPlan, until: float, now: float = 0.0) -> float:
    """The site gets on: this node's own stripes come, one each half second."""
    while now < until:
        for stripe in list(plan.in_flight):
            wan_brings(plan, stripe, now)
        fetch(plan, now)
        now += 0.5
    return now


def test_a_claim_is_not_taken_over_while_the_wan_is_only_slow() -> None:
    plan = plan_of("a", have=ALL & ~1)
    plan.member_progress("a", 0, 1, Way.SEEDER, 0.0)
    decision = plan.decide(PATIENCE_AT_FIRST - 0.1)
    assert decision.fetch == ()
    assert fetch(plan, PATIENCE_AT_FIRST) == (0,)


def test_each_patience_admits_one_more_in_rank() -> None:
    site = ["a", "b", "c", "me"]
    stripe = next(s for s in range(COUNT) if ranked(stripe_key(DIGEST, s), site)[2] == "me")
    owner, second, _, _ = ranked(stripe_key(DIGEST, stripe), site)
    plan = plan_of("a", "b", "c", have=ALL & ~(1 << stripe))
    plan.member_progress(owner, 0, 1 << stripe, Way.SEEDER, 0.0)
    assert plan.decide(PATIENCE_AT_FIRST).fetch == ()
    assert plan.decide(2 * PATIENCE_AT_FIRST).fetch == (stripe,)
    plan.member_progress(second, 0, 1 << stripe, Way.SEEDER, PATIENCE_AT_FIRST + 1)
    assert plan.decide(2 * PATIENCE_AT_FIRST).fetch == ()  # the newer claim is waited for
    assert plan.decide(2 * PATIENCE_AT_FIRST + 1).fetch == (stripe,)


def test_an_owner_that_does_not_even_claim_is_replaced_too() -> None:
    stripe = owned_by("a", "me")[0]
    plan = plan_of("a", have=ALL & ~(1 << stripe))
    assert plan.decide(1.0).fetch == ()
    assert plan.decide(PATIENCE_AT_FIRST + 0.9).fetch == ()
    assert plan.decide(PATIENCE_AT_FIRST + 1.0).fetch == (stripe,)


def test_a_claim_of_one_that_cannot_reach_a_seeder_is_waited_for_and_taken_over() -> None:
    plan = plan_of(have=ALL & ~1)
    plan.member_progress("a", 0, 1, Way.ORIGIN, 0.0)
    assert plan.decide(1.0).fetch == ()
    assert plan.decide(PATIENCE_AT_FIRST).fetch == (0,)


def test_claims_above_the_lowest_age_only_while_the_site_gets_on() -> None:
    low, high = owned_by("a", "me")[:2]
    plan = plan_of("a", have=ALL & ~(1 << low | 1 << high))
    plan.member_progress("a", 0, 1 << low | 1 << high, Way.SEEDER, 0.0)
    assert fetch(plan, 5 * PATIENCE_AT_FIRST) == (low,)
    assert fetch(plan, 5 * PATIENCE_AT_FIRST) == ()


def test_a_claim_that_others_pass_is_taken_over() -> None:
    plan = plan_of("a", layout=LONG)
    stuck = owned_by("a", "me")[0]
    plan.member_progress("a", 0, 1 << stuck, Way.SEEDER, 0.0)
    had = 1 << stuck
    now = 0.0
    while stuck not in plan.in_flight and now < 20:
        now += 0.25
        theirs = next(s for s in owned_by("a", "me", stripes=range(LONG.stripe_count)) if not had >> s & 1)
        had |= 1 << theirs
        theirs_and_mine = had | plan.have
        plan.member_progress("a", theirs_and_mine & ~(1 << stuck), theirs_and_mine, Way.SEEDER, now)
        plan.gained(theirs, now)
        for stripe in [s for s in plan.in_flight if s != stuck]:
            wan_brings(plan, stripe, now)
        fetch(plan, now)
    assert plan.patience <= now < 8


@pytest.mark.parametrize("is_at_work", [True, False])
def test_an_owner_at_work_is_not_raced_for_what_it_fetches_next(is_at_work: bool) -> None:
    plan = plan_of("a", layout=LONG)
    stripes = range(LONG.stripe_count)
    theirs, mine = owned_by("a", "me", stripes=stripes), owned_by("me", "a", stripes=stripes)
    plan.member_progress("a", 0, 1 << theirs[-1] if is_at_work else 0, Way.SEEDER, 0.0)
    plan.started(mine[0], 0.0)
    wan_brings(plan, mine[0], 1.0)
    now, above = 1.0, iter(stripe for stripe in mine if stripe > theirs[1])
    while now < 1.0 + 2 * plan.patience:
        plan.gained(next(above), now)
        fetch(plan, now)
        now += plan.patience / 16
    assert [bool(plan.claimed >> stripe & 1) for stripe in theirs[:2]] == 2 * [not is_at_work]


def test_a_decision_never_asks_to_be_made_again_at_once() -> None:
    plan = plan_of("a", have=ALL & ~1)
    plan.member_progress("a", 0, 1, Way.SEEDER, 0.0)
    now = 0.0
    for _ in range(30):
        decision = plan.decide(now)
        assert decision.wake_at is not None
        assert decision.wake_at > now
        now = decision.wake_at


def test_of_a_cold_blob_each_fetches_what_it_owns() -> None:
    """What came to others cannot be verified there, and looks as if it were still in flight."""
    plan = plan_of("a", layout=LONG)
    theirs = owned_by("a", "me", stripes=range(LONG.stripe_count))
    waiting = mask_of(range(theirs[12]))
    plan.member_progress("a", 0, waiting, Way.SEEDER, 0.0)
    mine = [s for s in owned_by("me", "a", stripes=range(LONG.stripe_count)) if not waiting >> s & 1]
    assert fetch(plan, 1.0) == ()
    plan.seeder_is(1.0, is_cold=True)
    assert fetch(plan, 1.0) == tuple(mine[:2])


def test_while_a_blob_is_cold_no_claim_ages() -> None:
    """All wait for its source: who takes over gets the same bytes no sooner, and pays for them twice."""
    stripe = owned_by("a", "me")[0]
    plan = plan_of("a", have=ALL & ~(1 << stripe))
    plan.member_progress("a", 0, 1 << stripe, Way.SEEDER, 0.0)
    plan.seeder_is(3 * PATIENCE_AT_FIRST, is_cold=True)
    assert plan.decide(3 * PATIENCE_AT_FIRST).fetch == ()
    plan.seeder_is(3 * PATIENCE_AT_FIRST, is_cold=False)
    assert plan.decide(4 * PATIENCE_AT_FIRST - 0.1).fetch == ()
    assert plan.decide(4 * PATIENCE_AT_FIRST).fetch == (stripe,)


def test_while_a_blob_is_cold_no_request_is_a_burden() -> None:
    plan = plan_of("a", layout=LONG)
    mine = owned_by("me", "a")[0]
    fetch(plan, 0.0)
    late = 3 * PATIENCE_AT_FIRST
    plan.member_progress("a", 1 << mine, 1 << mine, Way.SEEDER, late)
    plan.seeder_is(late, is_cold=True)
    plan.gained(mine, late + 0.1)
    assert plan.decide(late + 0.1).fetch
    assert plan.way is Way.SEEDER


# Rule 4: who is a burden leaves the WAN to others.


def test_a_node_that_was_overtaken_leaves_the_wan_to_others_and_says_so() -> None:
    plan = plan_of("a", layout=LONG)
    mine = owned_by("me", "a")[0]
    assert mine in fetch(plan, 0.0)
    late = plan.patience + 0.1
    plan.member_progress("a", 1 << mine, 1 << mine, Way.SEEDER, late)
    plan.gained(mine, late)
    assert plan.decide(late).fetch == ()
    assert (plan.way, plan.open_way) == (Way.NONE, Way.SEEDER)


def test_one_that_was_about_as_quick_goes_on() -> None:
    plan = plan_of("a", layout=LONG)
    mine = owned_by("me", "a")[0]
    assert mine in fetch(plan, 0.0)
    soon = 3.0
    plan.member_progress("a", 1 << mine, 1 << mine, Way.SEEDER, soon)
    plan.gained(mine, soon)
    fetch(plan, soon)
    assert plan.way is Way.SEEDER


def test_one_that_stands_back_drops_what_is_late_and_ends_what_is_not() -> None:
    standing = Standing()
    plan = FetchPlan(DIGEST, LONG, "me", Way.SEEDER, 0.0, standing)
    plan.member_progress("a", 0, 0, Way.SEEDER, 0.0)
    first, second, *_ = owned_by("me", "a")
    plan.started(first, 0.0)
    plan.started(second, 14.0)
    standing.step_back(16.0)
    plan.member_progress("a", 1, 1, Way.SEEDER, 16.0)
    assert plan.decide(16.0).drop == (first,)
    assert list(plan.in_flight) == [second]
    assert not plan.claimed >> first & 1, "another may begin at once"


def test_one_that_stands_back_keeps_what_half_is_here_of() -> None:
    standing = Standing()
    plan = FetchPlan(DIGEST, LONG, "me", Way.SEEDER, 0.0, standing)
    plan.member_progress("a", 0, 0, Way.SEEDER, 0.0)
    first, second, *_ = owned_by("me", "a")
    plan.started(first, 0.0)
    plan.half_came(first, 9.0)
    plan.started(second, 0.0)
    standing.step_back(16.0)
    plan.member_progress("a", 1, 1, Way.SEEDER, 16.0)
    assert plan.decide(16.0).drop == (second,)
    plan.failed(first, 16.0, 1.0)
    plan.started(first, 17.0)
    plan.member_progress("a", 0b11, 0b11, Way.SEEDER, 30.0)
    assert plan.decide(30.0).drop == (first,), "of this request nothing came"


def test_one_that_stands_back_drops_what_stops_half_way() -> None:
    standing = Standing()
    plan = FetchPlan(DIGEST, LONG, "me", Way.SEEDER, 0.0, standing)
    plan.member_progress("a", 0, 0, Way.SEEDER, 0.0)
    first, *_ = owned_by("me", "a")
    plan.started(first, 0.0)
    plan.half_came(first, 9.0)
    standing.step_back(16.0)
    plan.member_progress("a", 1, 1, Way.SEEDER, 17.0)
    assert not plan.decide(17.9).drop
    assert plan.decide(18.1).drop == (first,)


def test_nobody_stands_back_where_nobody_else_can_fetch() -> None:
    standing = Standing()
    plan = FetchPlan(DIGEST, LONG, "me", Way.SEEDER, 0.0, standing)
    plan.member_progress("a", 0, 0, Way.SEEDER, 0.0)
    standing.step_back(0.0)
    plan.decide(0.0)
    assert way_of(plan) is Way.NONE
    plan.member_progress("a", 0, 0, Way.NONE, 1.0)
    plan.decide(1.0)
    assert way_of(plan) is Way.SEEDER
    plan.member_progress("a", 0, 0, Way.SEEDER, 2.0)
    plan.decide(2.0)
    assert way_of(plan) is Way.SEEDER, "or two that stood back at once would return in turns"


def test_a_node_whose_uplink_is_slow_stands_back() -> None:
    plan = plan_of("a", "b", layout=LONG)
    theirs, mine = owned_by("a", "me", "b")[0], owned_by("me", "a", "b")[0]
    fetch(plan, 0.0)
    wan_brings(plan, mine, 1.0)
    plan.member_progress("a", 1 << theirs, 1 << theirs, Way.SEEDER, 1.0)
    plan.member_progress("b", 1 << theirs, 1 << theirs, Way.SEEDER, 1.5)
    fetch(plan, 2.9)
    assert way_of(plan) is Way.SEEDER
    fetch(plan, 3.1)
    assert way_of(plan) is Way.NONE


# Rule 5: one leads.


def test_without_a_seeder_the_first_in_rank_leads_and_only_that_one() -> None:
    site = ["a", "b", "c", "d"]
    leads = {}
    for node in site:
        plan = FetchPlan(DIGEST, LAYOUT, node, Way.ORIGIN, 0.0)
        for other in site:
            if other != node:
                plan.member_progress(other, 0, 0, Way.ORIGIN, 0.0)
        assert not plan.decide(0.0).lead, "it listens first who is at work"
        leads[node] = plan.decide(LISTEN).lead
    assert [node for node in site if leads[node]] == ranked(object_key(f"lead {DIGEST}"), site)[:1]


def test_who_reaches_nothing_neither_fetches_nor_leads() -> None:
    plan = plan_of("a", way=Way.NONE)
    decision = plan.decide(100.0)
    assert (decision.fetch, decision.lead, decision.wake_at) == ((), False, None)


def test_nobody_leads_while_a_member_reaches_a_seeder() -> None:
    plan = plan_of("a", way=Way.ORIGIN)
    assert not plan.decide(0.0).lead
    plan.member_progress("a", 1, 1, Way.SEEDER, 10.0)
    plan.gained(0, 10.1)
    assert not plan.decide(21.9).lead
    assert plan.decide(22.1).lead  # it reached the seeder, and brought nothing for long


def test_who_gets_nothing_from_the_leader_leads_for_itself() -> None:
    site = ["a", "me"]
    layout = next(
        d for d in (Digest(f"{i:064x}") for i in range(99)) if ranked(object_key(f"lead {d}"), site)[0] == "a"
    )
    plan = FetchPlan(layout, LAYOUT, "me", Way.ORIGIN, 0.0)
    plan.member_progress("a", 0b11, 0b11, Way.ORIGIN, 0.0)
    assert not plan.decide(4.9).lead
    assert plan.missing_in(0)[:1] == [2]
    assert plan.decide(5.0).lead
    assert plan.missing_in(0)[:1] == [0]


# What happens to fetches.


def test_a_failed_fetch_is_retried_after_the_time_told() -> None:
    plan = plan_of(have=ALL & ~1)
    assert fetch(plan, 0.0) == (0,)
    plan.failed(0, 1.0, 3.0)
    decision = plan.decide(1.0)
    assert (decision.fetch, decision.wake_at) == ((), 4.0)
    assert fetch(plan, 4.0) == (0,)


def test_another_way_is_tried_once_the_others_had_time_to_tell_theirs() -> None:
    alone, among = plan_of(way=Way.NONE), plan_of("a", way=Way.NONE)
    for plan in (alone, among):
        plan.decide(0.0)
        plan.way_changed(Way.SEEDER, 10.0)
        plan.way_changed(Way.SEEDER, 10.1)
        assert way_of(plan) is Way.SEEDER
    assert alone.decide(10.0).fetch == (0, 1)
    assert among.decide(10.0).fetch == ()
    assert among.decide(10.0 + SETTLE).fetch != ()


def test_no_old_patience_survives_a_time_without_a_way() -> None:
    stripe = owned_by("a", "me")[0]
    plan = plan_of("a", have=ALL & ~(1 << stripe))
    plan.decide(0.0)
    plan.way_changed(Way.NONE, 1.0)
    plan.decide(1.0)
    plan.way_changed(Way.SEEDER, 90.0)
    assert plan.decide(91.0).fetch == ()
    assert plan.decide(91.0 + PATIENCE_AT_FIRST).fetch == (stripe,)


def test_a_stripe_that_came_over_the_lan_frees_the_place_of_its_request() -> None:
    plan = plan_of()
    fetch(plan, 0.0)
    plan.gained(0, 0.5)
    assert list(plan.in_flight) == [1]
    plan.received(0, 0.6)
    assert plan.claimed == 0b11


def test_a_refused_piece_is_fetched_again_and_its_sender_known() -> None:
    plan = plan_of()
    fetch(plan, 0.0)
    plan.received(0, 1.0)
    assert plan.claimed & 1
    assert plan.refused(0)
    assert not plan.refused(0)
    assert not plan.claimed & 1
    assert 0 in fetch(plan, 1.0)


def test_members_by_way() -> None:
    plan = plan_of("a")
    plan.member_progress("b", mask_of(range(16)), mask_of(range(16)), Way.ORIGIN, 0.0)
    assert plan.members_by(Way.SEEDER) == ["a"]
    assert plan.members_by(Way.ORIGIN) == ["b"]
    plan.member_left("a")
    plan.holder_found("b", 0.0)
    assert list(plan.holders) == ["b"]
    assert list(plan.members) == []
    plan.member_progress("b", 0, 0, Way.SEEDER, 0.0)
    assert list(plan.holders) == []


def test_the_site_moves_when_anybody_gets_or_begins_something_new() -> None:
    plan = plan_of("a")
    plan.member_progress("a", 0, 1, Way.SEEDER, 3.0)
    assert plan.site_moved_at == 3.0
    plan.member_progress("a", 0, 1, Way.SEEDER, 4.0)
    assert plan.site_moved_at == 3.0
    plan.gained(5, 6.0)
    assert plan.site_moved_at == 6.0


# All rules, any history.

NODES = st.sampled_from("abcd")
EVENTS = st.one_of(
    st.tuples(st.just("tells"), NODES, st.integers(0, ALL), st.integers(0, ALL), st.sampled_from(Way)),
    st.tuples(st.just("leaves"), NODES),
    st.tuples(st.just("holds"), NODES),
    st.tuples(st.just("way"), st.sampled_from(Way)),
    st.tuples(st.just("lan"), st.integers(0, COUNT - 1)),
    st.tuples(st.just("comes")),
    st.tuples(st.just("fails")),
    st.tuples(st.just("refused")),
    st.tuples(st.just("passes"), st.floats(0.001, 30)),
)


def happen(plan: FetchPlan, event: tuple[object, ...], now: float) -> None:
    match event:
        case ("tells", str(node), int(have), int(claimed), Way() as way):
            plan.member_progress(node, have & claimed, claimed, way, now)
        case ("leaves", str(node)):
            plan.member_left(node)
        case ("holds", str(node)):
            plan.holder_found(node, now)
        case ("way", Way() as way):
            plan.way_changed(way, now)
        case ("lan", int(stripe)):
            plan.gained(stripe, now)
        case ("comes",) if plan.in_flight:
            wan_brings(plan, next(iter(plan.in_flight)), now)
        case ("fails",) if plan.in_flight:
            plan.failed(next(iter(plan.in_flight)), now, 1.0)
        case ("refused",) if plan.in_flight:
            stripe = next(iter(plan.in_flight))
            plan.received(stripe, now)
            assert plan.refused(stripe)


@settings(max_examples=60, deadline=None)
@given(st.lists(EVENTS, max_size=40))
def test_whatever_happens_the_rules_hold_and_the_blob_comes(events: list[tuple[object, ...]]) -> None:
    plan, now = plan_of(), 0.0
    for event in events:
        if event[0] == "passes":
            assert isinstance(event[1], float)
            now += event[1]
        happen(plan, event, now)
        before = plan.claimed
        decision = plan.decide(now)
        assert not any(before >> stripe & 1 for stripe in decision.fetch)
        assert len(set(decision.fetch)) == len(decision.fetch)
        assert decision.wake_at is None or decision.wake_at > now
        assert not (decision.lead and plan.way is not Way.ORIGIN)
        window = {s for segment in plan.window() for s in LAYOUT.stripes_of(segment)}
        assert window.issuperset(decision.fetch)
        if decision.fetch:
            assert way_of(plan) is Way.SEEDER
            missing = {s for segment in plan.window() for s in plan.missing_in(segment)}
            assert missing.issuperset(decision.fetch)  # nothing that a peer gives
        for stripe in decision.fetch:
            plan.started(stripe, now)
        assert len(plan.in_flight) <= IN_FLIGHT[1]
    # From here the seeder is there, and no peer does anything any more.
    plan.way_changed(Way.SEEDER, now)
    deadline = now + 120 * COUNT
    while plan.have != ALL:
        assert now < deadline
        for stripe in list(plan.in_flight):
            wan_brings(plan, stripe, now)
        fetch(plan, now)
        now += 1.0


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 6), st.integers(0, 10_000))
def test_plans_that_know_each_other_never_ask_for_the_same(nodes: int, seed: int) -> None:
    digest, names = Digest(f"{seed:064x}"), [f"n{i}" for i in range(nodes)]
    plans = {name: FetchPlan(digest, LAYOUT, name, Way.SEEDER, 0.0) for name in names}
    asked: list[int] = []

    def exchange(now: float) -> None:
        for name, plan in plans.items():
            for other, theirs in plans.items():
                if other != name:
                    plan.member_progress(other, theirs.have, theirs.claimed, Way.SEEDER, now)

    for now in range(COUNT + 5):
        exchange(now)
        for plan in plans.values():
            asked += fetch(plan, now)
        exchange(now + 0.1)
        for plan in plans.values():
            for stripe in list(plan.in_flight):
                plan.received(stripe, now + 0.5)
                for other_plan in plans.values():
                    other_plan.gained(stripe, now + 0.5)
    assert sorted(asked) == list(iter_bits(ALL))


@pytest.mark.parametrize("size", [1 * MIB + 1, 8 * MIB, 8 * MIB + 1, 100 * MIB + 7])
def test_every_cut_is_fetched_to_its_end(size: int) -> None:
    plan = plan_of(layout=Layout(size))
    for now in range(Layout(size).stripe_count + 1):
        for stripe in list(plan.in_flight):
            wan_brings(plan, stripe, float(now))
        fetch(plan, float(now))
    assert plan.have == mask_of(range(Layout(size).stripe_count))


# Rule 5: the layers of an image.


def test_behind_another_blob_one_stripe_is_fetched_at_a_time() -> None:
    plan = plan_of()
    plan.is_behind = True
    assert fetch(plan, 0.0) == (0,)
    assert fetch(plan, 0.1) == ()
    wan_brings(plan, 0, 1.0)
    assert fetch(plan, 1.0) == (1,)
    plan.is_behind = False
    assert len(fetch(plan, 1.1)) > 1


def test_behind_another_blob_the_whole_site_fetches_one_stripe() -> None:
    plan = plan_of("a")
    plan.is_behind = True
    mine = owned_by("me", "a")[0]
    plan.member_progress("a", 0, 1 << COUNT - 1, Way.SEEDER, 0.0)
    assert fetch(plan, 0.0) == ((0,) if mine == 0 else ())


def test_what_is_claimed_or_held_is_not_waited_for() -> None:
    plan = plan_of("a")
    unheard = round(0.7 / 0.2)
    assert plan.needs_wan(0.0)
    plan.member_progress("a", 0, ALL & ~mask_of(range(unheard + 2)), Way.SEEDER, 0.0)
    assert plan.needs_wan(0.0)
    plan.started(0, 0.0)
    assert plan.needs_wan(0.0)
    plan.started(1, 0.0)
    assert not plan.needs_wan(0.0), "what is left was asked for meanwhile"
    other = plan_of("a")
    other.holder_found("a", 0.0)
    assert not other.needs_wan(0.0)


def test_few_stripes_are_waited_for_until_some_are_asked_for() -> None:
    plan = plan_of("a", layout=Layout(MIB + 1))
    assert plan.needs_wan(0.0)
    plan.started(0, 0.0)
    plan.started(1, 0.0)
    assert not plan.needs_wan(0.0)


def test_what_makes_no_use_of_the_wan_is_not_waited_for() -> None:
    plan = plan_of("a")
    patience = plan.patience
    assert plan.needs_wan(patience - 0.1)
    assert not plan.needs_wan(patience + 0.1), "nothing came for so long"
    wan_brings(plan, 0, patience + 0.2)
    assert plan.needs_wan(patience + 0.2)
    plan.way_changed(Way.NONE, patience + 0.2)
    assert not plan.needs_wan(patience + 0.2)


# What is new, told instead of the whole.


def test_of_a_stranger_news_is_not_enough() -> None:
    plan = plan_of()
    assert not plan.member_advanced("a", 0b111, 0, Way.NONE, 0.0)
    assert not list(plan.members)
    assert fetch(plan, 0.0) == (0, 1)


def test_what_a_member_gained_is_not_fetched() -> None:
    plan = plan_of()
    plan.member_progress("a", 0b1, 0, Way.NONE, 0.0)
    assert plan.member_advanced("a", 0b110, 0, Way.NONE, 0.0)
    assert plan.is_at_site(0)
    assert plan.is_at_site(2)
    assert not plan.is_at_site(3)
    assert fetch(plan, 0.0) == (3, 4)


@given(st.lists(st.tuples(st.integers(0, ALL), st.integers(0, ALL), st.sampled_from(Way)), max_size=5))
@settings(max_examples=30)
def test_news_and_the_whole_lead_to_the_same(told: list[tuple[int, int, Way]]) -> None:
    by_news, by_whole = plan_of("a", "b"), plan_of("a", "b")
    have = 0
    for number, (gained, flying, way) in enumerate(told):
        now = float(number)
        have |= gained
        assert by_news.member_advanced("a", gained, flying, way, now)
        by_whole.member_progress("a", have, have | flying, way, now)
        assert by_news.decide(now) == by_whole.decide(now)
        assert [by_news.is_at_site(s) for s in range(COUNT)] == [by_whole.is_at_site(s) for s in range(COUNT)]


# What patience follows from.


def patience_after(*seconds: float) -> float:
    pace = Pace(0.0)
    for each in seconds:
        pace.took(each)
    return pace.patience


def test_patience_follows_what_this_node_and_others_need_for_a_stripe() -> None:
    plan = plan_of("a")
    plan.member_progress("a", 0, 0b10, Way.SEEDER, 2.0)
    plan.started(0, 3.0)
    plan.received(0, 8.0)
    assert plan.patience == patience_after(5.0)
    plan.member_progress("a", 0b10, 0b10, Way.SEEDER, 10.0)
    assert plan.patience == patience_after(5.0, 8.0)
    plan.received(9, 10.0)
    assert plan.patience == patience_after(5.0, 8.0), "it had not begun to fetch it"


def test_what_a_member_gives_up_or_gets_from_another_tells_nothing() -> None:
    plan = plan_of("a")
    plan.member_progress("a", 0, 0b110, Way.SEEDER, 2.0)
    plan.gained(1, 3.0)
    plan.member_progress("a", 0b010, 0b110, Way.SEEDER, 20.0)
    plan.member_progress("a", 0b010, 0b010, Way.SEEDER, 30.0)
    assert plan.patience == PATIENCE_AT_FIRST


def test_a_claim_that_was_given_up_and_made_anew_is_waited_for_from_then_on() -> None:
    plan = plan_of("a", have=ALL & ~1)
    plan.member_progress("a", 0, 1, Way.SEEDER, 0.0)
    plan.member_progress("a", 0, 0, Way.SEEDER, 9.0)
    plan.member_progress("a", 0, 1, Way.SEEDER, 10.0)
    assert plan.decide(PATIENCE_AT_FIRST + 9.9).fetch == ()
    assert plan.takeovers == 0
    assert plan.decide(PATIENCE_AT_FIRST + 10.0).fetch == (0,)
    assert plan.takeovers == 1


def test_claims_end_with_the_member_whether_it_left_or_holds_the_blob() -> None:
    for leave_or_hold in (False, True):
        plan = plan_of("a", "b", have=ALL & ~1)
        plan.member_progress("a", 0, 1, Way.SEEDER, 0.0)
        if leave_or_hold:
            plan.member_left("a")
        else:
            plan.holder_found("a", 1.0)
            plan.member_left("a")
        plan.member_progress("a", 0, 0, Way.NONE, 5.0)
        # What it claimed counts no more: only the owner is waited for, from the next decision on.
        mine = owned_by("me", "b")[:1] == [0]
        assert plan.decide(6.0).fetch == ((0,) if mine else ())
        assert plan.decide(6.0 + PATIENCE_AT_FIRST - 0.1).fetch == ((0,) if mine else ())
        assert plan.decide(6.0 + PATIENCE_AT_FIRST).fetch == (0,)


def test_own_stripes_are_no_takeovers() -> None:
    plan = plan_of()
    fetch(plan, 0.0)
    assert plan.takeovers == 0


def test_the_way_of_a_node_is_what_it_told_last() -> None:
    plan = plan_of("a")
    assert plan.way_of("a") is Way.SEEDER
    assert plan.way_of("stranger") is Way.NONE
    plan.member_progress("a", 0, 0, Way.ORIGIN, 1.0)
    assert plan.way_of("a") is Way.ORIGIN
    assert plan.members_by(Way.SEEDER) == []


def test_a_fetch_may_fail_after_its_stripe_came_over_the_lan() -> None:
    plan = plan_of()
    fetch(plan, 0.0)
    plan.gained(0, 1.0)
    plan.failed(0, 2.0, 3.0)
    assert list(plan.in_flight) == [1]
    assert plan.decide(4.9).fetch == ()
    assert plan.decide(5.0).fetch != ()


def test_what_is_verified_anew_bit_by_bit_adds_up() -> None:
    plan = plan_of(have=0b1)
    plan.resumed(0b100)
    assert plan.have == 0b101
    assert fetch(plan, 0.0) == (1, 3)


def test_a_holder_may_be_found_while_a_member_brings_something() -> None:
    plan = plan_of("a")
    plan.member_progress("a", 1, 1, Way.SEEDER, 1.0)
    plan.holder_found("h", 2.0)
    assert plan.is_at_site(COUNT - 1)
    assert plan.decide(2.0).fetch == ()


def test_the_longer_of_two_failures_is_waited_for() -> None:
    plan = plan_of()
    fetch(plan, 0.0)
    plan.failed(0, 1.0, 9.0)
    plan.failed(1, 2.0, 1.0)
    assert plan.decide(9.9).fetch == ()
    assert fetch(plan, 10.0) == (0, 1)


# When to decide again.


def test_who_waits_to_lead_decides_again_when_it_may() -> None:
    plan = plan_of(way=Way.ORIGIN)
    plan.member_progress("a", 0, 0, Way.ORIGIN, 0.0)
    assert plan.decide(0.0).wake_at == LISTEN
    plan.gained(0, 1.0)
    assert plan.decide(1.0).wake_at == 1.0 + LEAD_PATIENCE
    plan.member_progress("a", 1, 1, Way.SEEDER, 2.0)
    assert plan.decide(2.0).wake_at == 2.0 + LEAD_PATIENCE, "the one that reaches a seeder may fail"


def test_a_muted_peer_is_heard_again_in_time() -> None:
    plan = plan_of(way=Way.NONE)
    plan.holder_found("h", 0.0)
    assert plan.decide(5.0).wake_at == 25.0
    assert plan.missing_in(0)[:1] == [0]
    assert plan.decide(25.0).wake_at != 25.0
    assert plan.missing_in(0) == []


# What is learned from whom.


def test_what_came_by_the_seeder_makes_nobody_wait_for_a_leader() -> None:
    first = ranked(object_key(f"lead {DIGEST}"), ["a", "me"])[0]
    other = {"a": "me", "me": "a"}[first]
    plan = FetchPlan(DIGEST, LAYOUT, first, Way.SEEDER, 0.0)
    plan.member_progress(other, 0, 0b1, Way.SEEDER, 0.0)
    plan.way_changed(Way.ORIGIN, 1.0)
    plan.member_progress(other, 0, 0, Way.ORIGIN, 1.0)
    assert not plan.decide(1.0).lead
    assert plan.decide(1.0 + LISTEN).lead


def test_the_lan_is_not_blamed_for_what_it_could_not_bring_yet() -> None:
    plan = plan_of("a")
    plan.member_progress("a", 1, 1, Way.SEEDER, 0.0)
    plan.connected(3.0)
    assert plan.decide(5.1).wake_at is not None
    assert plan.is_at_site(0)
    plan.decide(8.1)
    assert not plan.is_at_site(0)


def test_a_node_that_stood_still_does_not_blame_the_lan() -> None:
    for slept in (False, True):
        plan = plan_of("a")
        plan.member_progress("a", ALL, ALL, Way.NONE, 0.0)
        assert fetch(plan, 0.0) == ()
        if slept:
            plan.stood_still(30.0)
        assert bool(fetch(plan, 30.0)) is not slept


def test_the_first_that_has_a_stripe_is_not_the_second() -> None:
    plan = plan_of("a", "b", layout=LONG)
    mine = owned_by("me", "a", "b")[0]
    first, second = owned_by("a", "me", "b")[:2]
    plan.member_progress("a", 1 << first, 1 << first, Way.SEEDER, 0.0)
    plan.member_progress("b", 1 << first, 1 << first, Way.SEEDER, 3.0)
    plan.gained(first, 3.0)
    fetch(plan, 3.0)
    wan_brings(plan, mine, 4.0)
    plan.member_progress("a", 1 << first, 1 << first | 1 << second, Way.SEEDER, 10.0)
    fetch(plan, 15.0)
    assert plan.way is Way.SEEDER, "the others' take 3 s, too"
    fetch(plan, 16.1)
    assert way_of(plan) is Way.NONE
