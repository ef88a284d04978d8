"""A store kept within its limits, alone and among peers that do the same."""

from __future__ import annotations

import hashlib
import json
import random
from pathlib import Path

import pytest
import trio
from structlog.testing import capture_logs
from trio.testing import MockClock

from p2pd.app.copies import HAND_OVER, Copies
from p2pd.app.keeper import COLLECT_EVERY, GATHER, ROOM_PATIENCE, Keeper
from p2pd.model.admin import Collected
from p2pd.model.errors import StoreFull
from p2pd.model.reference import Digest
from p2pd.model.stock import Limits, Portion
from tests.support.memory_site import MemoryNode, MemorySite
from tests.support.memory_store import MemoryStore

MIB = 1024 * 1024
SIZE = MIB + 1024
BODIES = [number.to_bytes(2, "big") + random.Random(1).randbytes(SIZE - 2) for number in range(12)]
DAY = 24 * 3600.0


def digest_of(body: bytes) -> Digest:
    return Digest(hashlib.sha256(body).hexdigest())


DIGESTS = [digest_of(body) for body in BODIES]


@pytest.fixture
def store(tmp_path: Path) -> MemoryStore:
    return MemoryStore(tmp_path)


def held(store: MemoryStore) -> set[int]:
    return {DIGESTS.index(digest) for digest, _ in store.held() if digest in DIGESTS}


async def fill(store: MemoryStore, *numbers: int) -> None:
    """Hold these bodies, the first the longest unused."""
    for number in numbers:
        await store.write(DIGESTS[number], BODIES[number])
        await trio.sleep(100)


def reasons(collected: Collected) -> dict[str, int]:
    return {
        reason: sum(gone.reason == reason for gone in collected.gone)
        for reason in {gone.reason for gone in collected.gone}
    }


async def test_without_a_limit_nothing_goes(autojump_clock: MockClock, store: MemoryStore) -> None:
    await fill(store, 0, 1, 2)
    await trio.sleep(1000 * DAY)
    collected = await Keeper(store, Limits()).collect()
    assert (collected.gone, collected.freed, collected.missing) == ([], 0, 0)
    assert held(store) == {0, 1, 2}


async def test_what_the_runtime_holds_too_goes_first(autojump_clock: MockClock, store: MemoryStore) -> None:
    await fill(store, 0, 1, 2, 3)
    store.twins = {DIGESTS[2], DIGESTS[3]}
    keeper = Keeper(store, Limits(max_bytes=3 * SIZE))
    assert reasons(await keeper.collect()) == {"twin": 1}
    assert held(store) == {0, 1, 3}
    assert reasons(await keeper.collect(incoming=2 * SIZE)) == {"twin": 1, "last": 1}
    assert held(store) == {1}


async def test_nothing_goes_for_what_fits_no_empty_disk_either(
    autojump_clock: MockClock, store: MemoryStore
) -> None:
    await fill(store, 0, 1, 2)
    store.capacity = 4 * SIZE
    keeper = Keeper(store, Limits(min_free=Portion(percent=5)))
    with pytest.raises(StoreFull, match="more must be freed"):
        await keeper.make_room(DIGESTS[5], 5 * SIZE)
    assert held(store) == {0, 1, 2}
    await keeper.make_room(DIGESTS[5], 3 * SIZE)
    assert len(held(store)) < 2


async def test_want_of_room_is_told_once_until_there_is_as_much(
    autojump_clock: MockClock, store: MemoryStore
) -> None:
    await fill(store, 0)
    reader = await store.open(DIGESTS[0])
    keeper = Keeper(store, Limits(max_bytes=2 * SIZE))
    with capture_logs() as logs:
        for _ in range(3):
            await keeper.collect(incoming=2 * SIZE)
            await keeper.collect()  # by the clock: nothing is to come, so nothing is missing
        assert [each["event"] for each in logs].count("store.no_room") == 1
        del reader
        assert (await keeper.collect(incoming=2 * SIZE)).missing == 0
        await fill(store, 1)
        reader = await store.open(DIGESTS[1])
        await keeper.collect(incoming=2 * SIZE)
        del reader
        assert [each["event"] for each in logs].count("store.no_room") == 2


async def test_the_longest_unused_goes_until_the_budget_holds(
    autojump_clock: MockClock, store: MemoryStore
) -> None:
    await fill(store, 0, 1, 2, 3)
    assert await store.read(DIGESTS[0]) is not None  # used again
    keeper = Keeper(store, Limits(max_bytes=3 * SIZE))
    dry = await keeper.collect(dry_run=True, incoming=SIZE)
    assert held(store) == {0, 1, 2, 3}
    collected = await keeper.collect(incoming=SIZE)
    assert held(store) == {0, 3}
    assert collected.gone == dry.gone
    assert (collected.freed, collected.missing, collected.held_bytes) == (2 * SIZE, 0, 2 * SIZE)
    assert [gone.name for gone in collected.gone] == [str(DIGESTS[1]), str(DIGESTS[2])]


async def test_what_is_being_read_stays(autojump_clock: MockClock, store: MemoryStore) -> None:
    await fill(store, 0, 1)
    reader = await store.open(DIGESTS[0])
    collected = await Keeper(store, Limits(max_bytes=1)).collect()
    assert held(store) == {0}
    assert collected.missing == SIZE - 1
    del reader


async def test_free_space_counts_what_is_still_to_be_written(
    autojump_clock: MockClock, store: MemoryStore
) -> None:
    await fill(store, 0, 1, 2, 3)
    store.capacity = 7 * SIZE
    keeper = Keeper(store, Limits(min_free=Portion(SIZE)))
    partial = await store.begin(DIGESTS[5], SIZE)
    await keeper.make_room(DIGESTS[7], SIZE)
    assert held(store) == {0, 1, 2, 3}
    await keeper.make_room(DIGESTS[7], 2 * SIZE)
    assert held(store) == {1, 2, 3}
    await partial.aclose()


async def test_the_unused_expire_by_the_timer_and_the_used_do_not(
    autojump_clock: MockClock, store: MemoryStore
) -> None:
    await fill(store, 0, 1)
    keeper = Keeper(store, Limits(max_age=5 * 3600))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(keeper.run)
        await trio.sleep(4 * 3600)
        await store.read(DIGESTS[1])
        await trio.sleep(3 * 3600)
        assert held(store) == {1}
        nursery.cancel_scope.cancel()


async def test_the_timer_sees_others_fill_the_disk_within_minutes(
    autojump_clock: MockClock, store: MemoryStore
) -> None:
    await fill(store, 0, 1)
    store.capacity = 4 * SIZE
    async with trio.open_nursery() as nursery:
        nursery.start_soon(Keeper(store, Limits(min_free=Portion(SIZE))).run)
        await trio.sleep(130)
        assert held(store) == {0, 1}
        store.capacity = 2 * SIZE
        await trio.sleep(130)
        assert held(store) == {1}
        assert COLLECT_EVERY > 260
        nursery.cancel_scope.cancel()


async def test_manifests_go_after_their_layers(autojump_clock: MockClock, store: MemoryStore) -> None:
    names = [{"digest": str(digest), "size": SIZE, "mediaType": "x"} for digest in DIGESTS[:2]]
    manifest = json.dumps({"schemaVersion": 2, "layers": names}).encode()
    await store.write(digest_of(manifest), manifest)
    await fill(store, 0, 1, 2)
    await trio.sleep(50)
    await store.read(digest_of(manifest))  # an image in use: its layers are younger than 2 now
    keeper = Keeper(store, Limits(max_bytes=2 * SIZE + len(manifest)))
    assert [gone.name for gone in (await keeper.collect()).gone] == [str(DIGESTS[2])]
    collected = await Keeper(store, Limits(max_bytes=1)).collect()
    assert [gone.reason for gone in collected.gone] == ["last", "last", "tiny"]


async def test_a_full_disk_is_relieved_when_a_write_meets_it(
    autojump_clock: MockClock, store: MemoryStore
) -> None:
    await fill(store, 0, 1, 2)
    store.capacity = 3 * SIZE
    Keeper(store, Limits())
    await store.write(DIGESTS[3], BODIES[3])
    assert 3 in held(store)


async def test_where_nothing_can_go_a_full_disk_is_full_at_once(
    autojump_clock: MockClock, store: MemoryStore
) -> None:
    await fill(store, 0)
    reader = await store.open(DIGESTS[0])
    store.capacity = SIZE
    Keeper(store, Limits())
    began = trio.current_time()
    for _ in range(3):
        with pytest.raises(StoreFull):
            await store.write(DIGESTS[3], BODIES[3])
    assert trio.current_time() - began < 1
    assert held(store) == {0}
    del reader


async def test_no_transfer_begins_that_the_disk_cannot_take(
    autojump_clock: MockClock, store: MemoryStore
) -> None:
    await fill(store, 0, 1)
    store.capacity = 3 * SIZE
    keeper = Keeper(store, Limits())
    await keeper.make_room(DIGESTS[5], SIZE)
    assert held(store) == {0, 1}
    await keeper.make_room(DIGESTS[5], 2 * SIZE)
    assert held(store) == {1}
    with pytest.raises(StoreFull):
        await keeper.make_room(DIGESTS[5], 4 * SIZE)
    partial = await store.begin(DIGESTS[5], SIZE)
    await partial.append(BODIES[5][: SIZE // 2])
    await partial.aclose()
    store.capacity = SIZE
    await keeper.make_room(DIGESTS[5], SIZE)  # half of it is there


async def test_an_abandoned_assembly_goes_for_want_of_room_but_no_fresh_one(
    autojump_clock: MockClock, store: MemoryStore
) -> None:
    partial = await store.begin(DIGESTS[0], SIZE)
    await partial.append(BODIES[0][: MIB // 2])
    await partial.aclose()
    await Keeper(store, Limits(max_bytes=1)).collect()
    assert store.partial_bodies


async def pair(site: MemorySite, *numbers: int) -> tuple[MemoryNode, MemoryNode]:
    """Two nodes that hold the same bodies."""
    one, two = site.join(1), site.join(2)
    await site.met()
    for node in (one, two):
        await fill(node.store, *numbers)
    return one, two


def keeper_of(site: MemorySite, node: MemoryNode, limits: Limits) -> Keeper:
    copies = Copies(node.node_id, node.peers)
    node.service.attach(node.site, node.transfers, node.small, node.tags, copies)
    return Keeper(node.store, limits, copies=copies, shelf=node.site.shelf)


async def test_a_last_copy_outlives_what_others_hold_on_to(
    autojump_clock: MockClock, site: MemorySite
) -> None:
    one, two = site.join(1), site.join(2)
    await site.met()
    await fill(one.store, 0)  # the longest unused, and nobody else has it
    await fill(one.store, *range(1, 8))
    await fill(two.store, *range(1, 8))
    keeper = keeper_of(site, one, Limits(max_bytes=5 * SIZE))
    keeper_of(site, two, Limits())
    collected = await keeper.collect()
    assert 0 in held(one.store)
    assert collected.missing == 0
    assert set(reasons(collected)) <= {"spare", "shared"}
    assert held(one.store) | held(two.store) == set(range(8))


@pytest.mark.parametrize("seed", range(4))
async def test_a_site_under_pressure_everywhere_keeps_what_fits_it(
    autojump_clock: MockClock, site: MemorySite, seed: int
) -> None:
    """Five nodes hold everything, each has room for four of twelve: what goes at once is never all."""
    rng = random.Random(seed)
    nodes = [site.join(number) for number in range(5)]
    await site.met()
    for node in nodes:
        await fill(node.store, *rng.sample(range(12), 12))
    keepers = [keeper_of(site, node, Limits(max_bytes=4 * SIZE)) for node in nodes]

    async def collect(keeper: Keeper, delay: float) -> None:
        await trio.sleep(delay)
        await keeper.collect()

    async with trio.open_nursery() as nursery:
        for keeper in keepers:
            nursery.start_soon(collect, keeper, rng.choice([0, 0, 0.3, rng.random() * 3]))
    assert all(len(held(node.store)) == 4 for node in nodes)
    left = set().union(*(held(node.store) for node in nodes))
    assert left == set(range(12))


async def test_two_that_let_go_of_one_blob_at_once_do_not_both(
    autojump_clock: MockClock, site: MemorySite
) -> None:
    one, two = await pair(site, *range(4))
    keepers = [keeper_of(site, node, Limits(max_bytes=2 * SIZE)) for node in (one, two)]
    async with trio.open_nursery() as nursery:
        for keeper in keepers:
            nursery.start_soon(keeper.collect)
    assert held(one.store) | held(two.store) == {0, 1, 2, 3}


async def test_a_node_that_lets_go_does_not_promise_its_copy(
    autojump_clock: MockClock, site: MemorySite
) -> None:
    one, two = await pair(site, 0)
    first, other = one, two
    for node, peer in ((one, two), (two, one)):
        keeper_of(site, node, Limits())
        if not await Copies(node.node_id, node.peers).is_spare(DIGESTS[0]):
            first, other = node, peer
    copies = Copies(first.node_id, first.peers)
    first.service.attach(first.site, first.transfers, first.small, first.tags, copies)
    async with copies.handing_over([DIGESTS[0]]) as taken_over:
        assert taken_over == {DIGESTS[0]}
        assert not await Copies(other.node_id, other.peers).is_spare(DIGESTS[0])
    assert await Copies(other.node_id, other.peers).is_spare(DIGESTS[0])


async def test_what_somebody_begins_to_read_while_it_is_handed_over_stays(
    autojump_clock: MockClock, site: MemorySite
) -> None:
    one, _ = await pair(site, *range(4))
    readers = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(keeper_of(site, one, Limits(max_bytes=1)).collect)
        await trio.sleep(HAND_OVER / 2)
        before = held(one.store)
        assert before
        readers = [await one.store.open(DIGESTS[number]) for number in before]
    assert held(one.store) == before
    del readers


async def test_a_transfer_does_not_wait_until_all_is_handed_over(
    autojump_clock: MockClock, site: MemorySite
) -> None:
    one, two = await pair(site, *range(4))
    keeper = keeper_of(site, one, Limits(max_bytes=1))
    keeper_of(site, two, Limits())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(keeper.run)
        begun = trio.current_time()
        await keeper.make_room(DIGESTS[7], SIZE)
        assert trio.current_time() - begun == pytest.approx(ROOM_PATIENCE, abs=0.1)
        assert held(one.store), "there would be nothing to wait for"
        await trio.sleep(GATHER + HAND_OVER + 3)
        assert held(one.store) == set(), "it goes on without the transfer, and long before the next look"
        assert held(two.store) == {0, 1, 2, 3}
        nursery.cancel_scope.cancel()
