"""Whom a node tells how it stands."""

from p2pd.decide.circle import FOLLOWED, MESH, NEIGHBOURS, Choice, Circle, worth_knowing
from p2pd.decide.fetchers import FETCHERS
from p2pd.decide.plan import Way
from p2pd.model.reference import Digest

DIGEST = Digest("0" * 64)


def choices(count: int) -> dict[str, Choice]:
    nodes = [f"{i:032x}" for i in range(count)]
    chosen = {}
    for me in nodes:
        circle = Circle(DIGEST, me)
        for node in nodes:
            circle.add(node)
        chosen[me] = circle.choose()
    return chosen


def test_in_a_small_site_everybody_tells_everybody() -> None:
    for me, choice in choices(MESH + 1).items():
        assert len(choice.told) == MESH
        assert me not in choice.told
        assert choice.followed == frozenset()


def test_in_a_large_one_fetchers_know_each_other_and_the_others_follow_a_few() -> None:
    chosen = choices(400)
    fetchers = {node for node, choice in chosen.items() if not choice.followed}
    assert len(fetchers) == FETCHERS
    told_by: dict[str, int] = dict.fromkeys(chosen, 0)
    for node, choice in chosen.items():
        for other in choice.told:
            told_by[other] += 1
        if node in fetchers:
            assert fetchers - {node} <= choice.told
        else:
            assert choice.followed <= fetchers & choice.told
            assert len(choice.followed) == FOLLOWED
            assert len(choice.told) <= FOLLOWED + NEIGHBOURS
    assert max(told_by[node] for node in fetchers) < FETCHERS + NEIGHBOURS + 3 * 400 * FOLLOWED / FETCHERS


def test_who_leaves_is_replaced() -> None:
    circle = Circle(DIGEST, "me")
    for i in range(200):
        circle.add(f"{i:032x}")
    before = circle.choose()
    assert circle.choose() is before
    gone = next(iter(before.told))
    circle.discard(gone)
    assert gone not in circle.choose().told
    circle.discard(gone)
    circle.add("me")
    assert "me" not in circle.choose().told


def test_who_follows_leaves_the_wan_to_those_while_they_reach_it() -> None:
    choice = Choice(frozenset("abc"), frozenset("ab"))
    ways = {"a": Way.NONE, "b": Way.SEEDER, "c": Way.SEEDER}
    assert choice.way(Way.SEEDER, lambda node: ways[node]) is Way.NONE
    ways["b"] = Way.NONE
    assert choice.way(Way.SEEDER, lambda node: ways[node]) is Way.SEEDER
    ways["a"] = Way.ORIGIN
    assert choice.way(Way.ORIGIN, lambda node: ways[node]) is Way.NONE
    assert Choice(frozenset("abc")).way(Way.SEEDER, lambda _: Way.SEEDER) is Way.SEEDER


def test_where_a_seeder_could_be_asked_two_followed_fetchers_have_to_say_the_same() -> None:
    choice = Choice(frozenset("abcx"), frozenset("abc"))
    assert choice.believed({"x": 1}, could_ask=False) == 1
    assert choice.believed({}, could_ask=False) is None
    for words in ({}, {"a": 1}, {"a": 1, "b": 2, "c": 3}, {"a": 1, "x": 1, "y": 1}):
        assert choice.believed(words, could_ask=True) is None
    assert choice.believed({"a": 2, "x": 2, "b": 1, "c": 1}, could_ask=True) == 1


def test_who_asks_is_told_of_the_fetchers_and_of_others() -> None:
    nodes = {f"{i:032x}" for i in range(400)}
    told = worth_knowing(DIGEST, "me", nodes, 60)
    assert len(set(told)) == 60
    fetchers = {node for node, choice in choices(400).items() if not choice.followed}
    assert fetchers == set(told[:FETCHERS])
    assert worth_knowing(DIGEST, "other", nodes, 60) != told
    assert worth_knowing(DIGEST, "me", {"a"}, 60) == ["a"]


def test_one_more_than_a_small_site_follows() -> None:
    chosen = choices(MESH + 2)
    assert sum(not choice.followed for choice in chosen.values()) == FETCHERS
    assert all(len(choice.told) < MESH + 1 for choice in chosen.values())


def test_a_node_knows_other_neighbours_than_its_neighbours_do() -> None:
    nodes = {f"{i:032x}" for i in range(400)}
    told = [worth_knowing(DIGEST, asker, nodes, 60) for asker in ("x", "y")]
    assert told[0][:FETCHERS] == told[1][:FETCHERS]
    assert set(told[0][FETCHERS:]) != set(told[1][FETCHERS:])
    other = Digest("1" * 64)
    assert set(worth_knowing(other, "x", nodes, FETCHERS)) != set(told[0][:FETCHERS])
    assert worth_knowing(DIGEST, "x", nodes, 5) == told[0][:5]


def test_who_is_interested_is_told_anew_as_a_whole() -> None:
    circle = Circle(DIGEST, "me")
    circle.add("gone")
    circle.update({"a", "b", "me"})
    choice = circle.choose()
    assert choice.told == {"a", "b"}
    circle.update({"b", "a"})
    assert circle.choose() is choice, "nothing is worked out again without news"
    circle.add("a")
    circle.discard("stranger")
    assert circle.choose() is choice
    circle.add("c")
    assert circle.choose().told == {"a", "b", "c"}
    circle.update({"c"})
    assert circle.choose().told == {"c"}
