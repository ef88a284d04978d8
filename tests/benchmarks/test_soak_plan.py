"""The plan of a soak is the seed's, and keeps its own rules."""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict

import pytest

from benchmarks.soak.plan import Event, Kind, make_plan

SECONDS = 1200.0


def plan(seed: int, nodes: int = 6) -> list[Event]:
    return make_plan(seed, SECONDS, nodes, 7)


def test_the_same_seed_gives_the_same_plan() -> None:
    assert plan(1) == plan(1)
    assert plan(1) != plan(2)


def test_a_longer_soak_begins_like_a_shorter_one() -> None:
    short, long = make_plan(3, 100.0, 6, 7), make_plan(3, 300.0, 6, 7)
    sure = 100.0 - 25.0  # a fault that would outlast the soak is left out of it
    assert [event for event in short if event.at < sure] == [event for event in long if event.at < sure]


@pytest.mark.parametrize("seed", range(20))
def test_every_plan_keeps_the_rules(seed: int) -> None:
    events = plan(seed)
    assert [event.at for event in events] == sorted(event.at for event in events)
    by_place: dict[str, list[Event]] = defaultdict(list)
    for event in events:
        assert 0.0 <= event.at < SECONDS
        if event.kind is Kind.PULL:
            assert list(event.nodes) == sorted(set(event.nodes))
            assert 1 <= len(event.nodes) <= 6
            assert 0 <= event.image < 7
        else:
            assert event.at + event.seconds < SECONDS
            by_place[event.place].append(event)
        if event.kind in (Kind.KILL, Kind.RESTART):
            assert event.nodes[0] >= 3
    for faults in by_place.values():
        for one, other in itertools.pairwise(faults):
            assert one.at + one.seconds < other.at


def test_everything_happens_in_twenty_minutes() -> None:
    counts = Counter(event.kind for event in plan(1))
    assert set(counts) == set(Kind)
    assert min(counts.values()) >= 5
    assert any(len(event.nodes) == 6 for event in plan(1))


def test_one_node_is_enough() -> None:
    assert {node for event in plan(1, nodes=1) for node in event.nodes} == {0}


def test_an_event_tells_what_it_is() -> None:
    assert str(Event(5.0, Kind.PULL, (0, 2), 3)) == "    5.0 s  pull n0 n2 image 3"
    assert str(Event(12.3, Kind.CUT_WAN, seconds=4.0)) == "   12.3 s  cut-wan for 4.0 s"
    assert str(Event(1.0, Kind.COLLECT, (1,))) == "    1.0 s  collect n1"
