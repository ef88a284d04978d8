"""Who lets go of what, and first."""

from __future__ import annotations

import hashlib
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pd.decide.eviction import (
    ABANDONED_AFTER,
    RESUMED_WITHIN,
    Standing,
    abandoned,
    expired,
    idle_times,
    in_order,
    shortfall,
    standing,
)
from p2pd.model.layout import SMALL_BLOB
from p2pd.model.reference import Digest
from p2pd.model.stock import DiskSpace, Leftover, Limits, Portion, Stock, Stored

LARGE = 5 * SMALL_BLOB


def digest(number: int) -> Digest:
    return Digest(hashlib.sha256(str(number).encode()).hexdigest())


def stored(number: int, idle: float, size: int = LARGE, *, in_use: bool = False) -> Stored:
    return Stored(digest(number), size, idle, in_use)


@given(st.integers(), st.sets(st.text("abcdef", min_size=4), min_size=1, max_size=6))
def test_of_the_holders_of_a_blob_exactly_one_holds_on(number: int, holders: set[str]) -> None:
    stands = [standing(node, digest(number), holders - {node}) for node in holders]
    assert stands.count(Standing.SPARE) == len(holders) - 1
    assert (Standing.SOLE in stands) == (len(holders) == 1)


@given(st.integers(), st.sets(st.text("abcdef", min_size=4), min_size=2, max_size=6), st.data())
def test_who_holds_on_does_so_whoever_lets_go(number: int, holders: set[str], data: st.DataObject) -> None:
    (first,) = (n for n in holders if standing(n, digest(number), holders - {n}) is Standing.SHARED)
    left = holders - data.draw(st.sets(st.sampled_from(sorted(holders)))) - {first}
    assert standing(first, digest(number), left) is (Standing.SHARED if left else Standing.SOLE)


def test_holding_on_is_shared_out_among_the_nodes() -> None:
    nodes = [f"node{number}" for number in range(5)]
    first = [
        node
        for number in range(500)
        for node in nodes
        if standing(node, digest(number), nodes) is Standing.SHARED
    ]
    assert len(first) == 500
    assert all(60 < first.count(node) < 140 for node in nodes)


@pytest.mark.parametrize(
    ("limits", "lacking"),
    [
        (Limits(), 0),
        (Limits(max_bytes=110), 0),
        (Limits(max_bytes=100), 10),
        (Limits(min_free=Portion(50)), 0),
        (Limits(min_free=Portion(percent=10)), 5),
        (Limits(max_bytes=100, min_free=Portion(percent=10)), 10),
    ],
)
def test_what_lacks_is_told_by_the_stricter_limit(limits: Limits, lacking: int) -> None:
    stock = Stock((stored(1, 0, 50), stored(2, 0, 10)), assembling=30, pending=15)
    assert shortfall(limits, stock, DiskSpace(free=120, total=1000), 10, 10) == lacking


def test_use_of_an_image_is_use_of_its_parts_and_its_manifest_goes_last() -> None:
    index, manifest, config, layer, base, other = range(6)
    held = [
        stored(index, 5, 400),
        stored(manifest, 90, 500),
        stored(config, 95, 600),
        stored(layer, 80),
        stored(base, 70),
        stored(other, 60),
    ]
    parts = {
        digest(index): frozenset({digest(manifest), digest(99)}),
        digest(manifest): frozenset({digest(config), digest(layer), digest(base)}),
    }
    idle = idle_times(held, parts)
    assert [idle[digest(number)] for number in range(6)] == [5, 5, 5, 5, 5, 60]
    del parts[digest(index)]
    idle = idle_times(held, parts)
    assert [idle[digest(number)] for number in range(6)] == [5, 70, 70, 80, 70, 60]
    order = [blob.digest for blob in in_order(held, idle)]
    assert order[:3] == [digest(layer), digest(base), digest(other)]


def test_manifests_that_name_each_other_end() -> None:
    held = [stored(1, 10, 100), stored(2, 20, 100)]
    parts = {digest(1): frozenset({digest(2)}), digest(2): frozenset({digest(1), digest(2)})}
    assert idle_times(held, parts) == {digest(1): 10, digest(2): 10}


sizes = st.sampled_from([100, SMALL_BLOB, LARGE])
blobs = st.lists(st.tuples(st.floats(0, 1e7), sizes, st.booleans()), max_size=12)
names = st.dictionaries(st.integers(0, 11), st.sets(st.integers(0, 14), max_size=5), max_size=6)


@given(blobs, names, st.floats(0, 1e7))
def test_nothing_in_use_goes_and_no_image_grows_older_by_its_parts(
    drawn: list[tuple[float, int, bool]], named: dict[int, set[int]], max_age: float
) -> None:
    held = [stored(n, idle, size, in_use=used) for n, (idle, size, used) in enumerate(drawn)]
    parts = {digest(key): frozenset(map(digest, value)) for key, value in named.items()}
    idle = idle_times(held, parts)
    assert all(0 <= idle[blob.digest] <= blob.idle for blob in held)
    order = in_order(held, idle)
    assert {blob.digest for blob in order} == {blob.digest for blob in held if not blob.in_use}
    large = [blob for blob in order if blob.size > SMALL_BLOB]
    assert order[: len(large)] == large
    assert [idle[b.digest] for b in large] == sorted((idle[b.digest] for b in large), reverse=True)
    for blob in expired(held, idle, max_age):
        assert not blob.in_use
        assert max_age < idle[blob.digest] <= blob.idle


def test_rests_of_transfers_go_in_time_and_sooner_for_want_of_room() -> None:
    def rest(number: int, idle: float) -> Leftover:
        return Leftover(f"partial/{number}", digest(number), None, 100, idle)

    young, middle, older, old = rests = [
        rest(0, RESUMED_WITHIN / 2),
        rest(1, RESUMED_WITHIN * 2),
        rest(2, RESUMED_WITHIN * 3),
        rest(3, ABANDONED_AFTER * 2),
    ]
    random.Random(1).shuffle(rests)
    assert abandoned(rests, 0) == [old]
    assert abandoned(rests, 100) == [old]
    assert abandoned(rests, 101) == [old, older]
    assert abandoned(rests, 150) == [old, older]
    assert abandoned(rests, 1000) == [old, older, middle]
    assert young not in abandoned(rests, 1000)


def test_nothing_expires_without_a_limit() -> None:
    held = [stored(1, 1e9)]
    assert expired(held, idle_times(held, {}), 0) == []


def test_the_longest_unused_expires_first_and_large_ones_before_tiny_ones() -> None:
    held = [
        stored(0, 100),
        stored(1, 300),
        stored(2, 200),
        stored(3, 400, SMALL_BLOB),
        stored(4, 500, 10),
        stored(5, 900, in_use=True),
    ]
    found = expired(held, {blob.digest: blob.idle for blob in held}, 100)
    assert [blob.digest for blob in found] == [digest(number) for number in (1, 2, 4, 3)]


def test_of_blobs_unused_for_as_long_all_nodes_choose_the_same() -> None:
    held = [stored(number, 7) for number in range(8)]
    idle = idle_times(held, {})
    order = [blob.digest.hex for blob in in_order(held, idle)]
    assert order == sorted(order) == [blob.digest.hex for blob in in_order(held[::-1], idle)]


def test_what_is_unused_for_just_so_long_stays() -> None:
    rest = Leftover("partial/0", digest(0), None, 100, RESUMED_WITHIN)
    assert abandoned([rest], 1) == []
    day_old = Leftover("partial/1", digest(1), None, 100, ABANDONED_AFTER)
    assert abandoned([day_old], 0) == []
    assert abandoned([day_old], 1) == [day_old]
