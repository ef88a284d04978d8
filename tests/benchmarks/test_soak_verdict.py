"""What a soak promises, judged on facts that are written down here."""

from __future__ import annotations

import pytest

from benchmarks.soak.verdict import (
    REJOINED_S,
    Outage,
    Pull,
    Series,
    is_excused,
    judge_pulls,
    judge_rest,
    judge_series,
)

HELD = (frozenset({2}), frozenset({1, 2}))
NOBODYS = (frozenset({2}), frozenset[int]())
CUT = Outage("wan", 10.0, 20.0)


def failed(begin: float, end: float, holders: tuple[frozenset[int], ...] = NOBODYS, node: int = 0) -> Pull:
    return Pull(node, 4, begin, end, 1, "ctr: no such host", holders=holders)


def series(*samples: tuple[int, int], every: float = 20.0) -> Series:
    return Series("n1", [(at * every, rss << 20, fds) for at, (rss, fds) in enumerate(samples)])


def test_without_an_outage_nothing_is_excused() -> None:
    assert not is_excused(failed(1.0, 5.0), [])
    assert not is_excused(failed(1.0, 1.0), [])


@pytest.mark.parametrize(
    ("begin", "end"), [(5.0, 10.5), (12.0, 15.0), (12.0, 12.0), (19.5, 30.0), (5.0, 30.0)]
)
def test_a_cut_wan_excuses_who_pulled_what_nobody_holds(begin: float, end: float) -> None:
    assert is_excused(failed(begin, end), [CUT])


@pytest.mark.parametrize(("begin", "end"), [(1.0, 10.0), (20.0, 25.0)])
def test_a_cut_excuses_nothing_before_and_after_it(begin: float, end: float) -> None:
    assert not is_excused(failed(begin, end), [CUT])


def test_what_living_nodes_hold_is_promised_while_the_wan_is_cut() -> None:
    assert not is_excused(failed(12.0, 15.0, HELD), [CUT])


@pytest.mark.parametrize(
    "place",
    [
        pytest.param("n0 daemon", id="no mirror"),
        pytest.param("n0 port", id="cut off itself"),
        pytest.param("n2 daemon", id="the holder is dead"),
        pytest.param("n2 port", id="the holder is cut off"),
    ],
)
def test_dead_nodes_are_no_source(place: str) -> None:
    assert is_excused(failed(12.0, 15.0, HELD), [CUT, Outage(place, 13.0)])
    assert not is_excused(failed(12.0, 15.0, HELD), [Outage("wan", 0.0, 1.0), Outage("n2 daemon", 13.0)])


def test_nodes_that_came_back_have_time_to_find_each_other() -> None:
    cut = Outage("wan", 0.0, 100.0)
    back = Outage("n2 daemon", 10.0, 30.0)
    assert is_excused(failed(31.0, 32.0, HELD), [cut, back])
    assert not is_excused(failed(30.0 + REJOINED_S, 90.0, HELD), [cut, back])


def test_its_own_store_is_a_source_without_any_network() -> None:
    own = (frozenset({0}), frozenset({0, 3}))
    assert not is_excused(failed(12.0, 15.0, own), [CUT, Outage("n0 port", 11.0)])
    assert is_excused(failed(12.0, 15.0, own), [CUT, Outage("n0 daemon", 11.0, 13.0)])


def test_the_origin_is_a_source_of_a_node_without_its_daemon() -> None:
    assert not is_excused(failed(1.0, 5.0), [Outage("n0 daemon", 0.0)])
    assert not is_excused(failed(1.0, 5.0), [Outage("seeder", 0.0)])


def test_pulls_are_judged() -> None:
    right, wrong = Pull(1, 2, 0.0, 1.0, 0), Pull(1, 2, 11.0, 12.0, 0, wrong=2)
    assert judge_pulls([right, failed(12.0, 13.0)], [CUT]) == []
    assert judge_pulls([right, wrong, failed(1.0, 2.0)], [CUT]) == [
        "n1, image 2, 11.0 to 12.0 s: 2 blobs are absent or wrong",
        "n0, image 4, 1.0 to 2.0 s: failed beside a living source (1): ctr: no such host",
    ]


def test_a_daemon_that_stays_as_it_is() -> None:
    assert judge_series([series(*[(20, 9), (60, 40)] + [(60, 40)] * 14)]) == []
    assert judge_series([series(*[(60, 40)] * 15 + [(500, 900)])]) == []  # one peak is no growth


def test_a_daemon_that_grows() -> None:
    assert judge_series([series(*[(60 + 5 * at, 40 + 5 * at) for at in range(16)])]) == [
        "n1: memory grew from 87.5 to 127.5 MiB",
    ]


def test_what_is_open_at_rest_is_judged_by_what_was() -> None:
    before = {"n0": 40, "n1": 44, "seeder": 20}
    assert judge_rest(before, {"n0": 68, "n1": 41, "seeder": 24}) == []
    assert judge_rest(before, {"n0": 69, "n1": 44}) == [
        "n0: 69 open descriptors at rest, 44 before the first pull"
    ]


def test_a_short_life_is_not_judged() -> None:
    assert judge_series([series(*[(60 + 5 * at, 40 + 5 * at) for at in range(16)], every=1.0)]) == []
    assert judge_series([Series("n1")]) == []
