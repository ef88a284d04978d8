"""The transfers of a node: joined by all who ask, failures remembered, liars left out next time."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from p2pd.app.transfer import STALL, TICK
from p2pd.app.transfers import FAILURE_REMEMBERED, SIBLINGS, SOURCE_DEADLINE
from p2pd.decide.plan import Way
from p2pd.decide.report import REPORT_EVERY
from p2pd.model.content import Place
from p2pd.model.errors import Denied, NotFound, P2pdError, RateLimited, Unavailable, WrongContent
from p2pd.model.layout import MIB
from p2pd.model.messages import Notice
from p2pd.model.reference import Digest, Repository
from tests.support.memory_site import REPOSITORY, MemoryNode, open_site
from tests.support.memory_store import meta_of

OTHER = Repository("other.test", "app")
BODY = random.Random(11).randbytes(3 * MIB + 77)


async def pull(node: MemoryNode, digest: Digest) -> bytes:
    transfer = await node.transfers.obtain(REPOSITORY, digest, len(BODY))
    return b"".join([chunk async for chunk in transfer.partial.chunks(0, len(BODY))])


async def settled(node: MemoryNode) -> None:
    while node.transfers.all_running():  # noqa: ASYNC110 - virtual time
        await trio.sleep(0.01)


async def test_all_who_ask_join_one(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with open_site(tmp_path) as site:
        node = site.join(1, seeder=False)
        digest = site.origin.put(BODY)

        async def one() -> None:
            assert await pull(node, digest) == BODY

        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(one)
        await settled(node)
        assert site.origin.given[digest] == len(BODY)
        assert site.origin.asked["open_blob"] == 1
        assert node.store.blobs[digest] == BODY
        assert node.counted("transfers", result="ok") == 1
        assert not node.peers.busy


async def test_no_client_owns_it(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with open_site(tmp_path) as site:
        node = site.join(1, seeder=False)
        site.origin.bytes_s = MIB
        digest = site.origin.put(BODY)
        with trio.move_on_after(1.5) as scope:
            await pull(node, digest)
        assert scope.cancelled_caught
        await settled(node)
        assert node.store.blobs[digest] == BODY


async def test_no_client_owns_what_is_hashed_again_either(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with open_site(tmp_path) as site:
        node = site.join(1, seeder=False)
        digest = site.origin.put(BODY)
        node.store.partial_bodies[digest, len(BODY)] = bytearray(BODY[: 2 * MIB])
        node.store.resume_s = 30.0
        with trio.move_on_after(5) as scope:
            await pull(node, digest)
        assert scope.cancelled_caught
        node.store.resume_s, other = 0.0, site.origin.put(BODY[::-1])
        assert await pull(node, other) == BODY[::-1]
        assert trio.current_time() < 10
        await settled(node)
        assert trio.current_time() < 32
        assert node.store.blobs[digest] == BODY
        assert site.origin.given[digest] == len(BODY) - 2 * MIB


@pytest.mark.parametrize("error", [NotFound("x"), Denied("x"), RateLimited("x", 60.0)])
async def test_a_refusal_is_told_at_once_and_remembered(
    tmp_path: Path, autojump_clock: MockClock, error: P2pdError
) -> None:
    async with open_site(tmp_path) as site:
        node = site.join(1, seeder=False)
        digest = site.origin.put(BODY)
        site.origin.fault = error
        with pytest.raises(type(error)):
            await pull(node, digest)
        assert trio.current_time() < 1.0
        await settled(node)
        asked = site.origin.asked.total()
        site.origin.fault = None
        for _ in range(3):
            with pytest.raises(type(error)):
                await pull(node, digest)
        assert site.origin.asked.total() == asked
        await trio.sleep(31)
        assert await pull(node, digest) == BODY
        assert node.counted("transfers", result="failed") == 1


async def test_the_failure_is_forgotten_in_time(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with open_site(tmp_path) as site:
        node = site.join(1, seeder=False)
        digest = site.origin.put(BODY)
        site.origin.fault = NotFound("not yet pushed")
        with pytest.raises(NotFound):
            await pull(node, digest)
        site.origin.fault = None
        await trio.sleep(FAILURE_REMEMBERED - 0.1)
        with pytest.raises(NotFound):
            await pull(node, digest)
        await trio.sleep(0.2)
        assert await pull(node, digest) == BODY


@pytest.mark.parametrize("error", [NotFound("x"), Unavailable("x")])
async def test_a_failure_for_one_repository_is_none_for_another(
    tmp_path: Path, autojump_clock: MockClock, error: P2pdError
) -> None:
    async with open_site(tmp_path) as site:
        node = site.join(1, seeder=False)
        digest = site.origin.put(BODY)
        site.origin.fault = error
        with pytest.raises(type(error)):
            await node.transfers.obtain(OTHER, digest, len(BODY))
        await settled(node)
        site.origin.fault = None
        with pytest.raises(type(error)):
            await node.transfers.obtain(OTHER, digest, len(BODY))
        assert await pull(node, digest) == BODY


async def test_a_refusal_of_the_only_seeder(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with open_site(tmp_path) as site:
        node = site.join(1, origin=False)
        with pytest.raises(NotFound):
            await node.transfers.obtain(REPOSITORY, Digest("0" * 64), len(BODY))
        assert trio.current_time() < 2.0


async def test_without_a_source_the_client_is_told_in_time(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with open_site(tmp_path) as site:
        node = site.join(1, seeder=False)
        digest = site.origin.put(BODY)
        site.origin.fault = Unavailable("the cable is cut")
        with pytest.raises(Unavailable, match="the cable is cut"):
            await pull(node, digest)
        assert trio.current_time() <= SOURCE_DEADLINE + 0.1
        site.origin.fault = None
        await trio.sleep(40)
        assert await pull(node, digest) == BODY


@pytest.mark.parametrize("vouched_by_a_peer", [True, False])
async def test_wrong_bytes_are_dropped_and_the_next_attempt_is_without_peers_that_may_be_to_blame(
    tmp_path: Path, autojump_clock: MockClock, vouched_by_a_peer: bool
) -> None:
    async with open_site(tmp_path) as site:
        node = site.join(1, seeder=False)
        digest = site.origin.put(BODY)
        site.origin.blobs[digest] = BODY[:-1] + bytes([BODY[-1] ^ 1])
        first = await node.transfers.obtain(REPOSITORY, digest, len(BODY))
        if vouched_by_a_peer:
            meta = meta_of(digest, BODY, len(BODY), 0)
            assert meta is not None
            first.hear_meta("b" * 32, meta)
        with pytest.raises(WrongContent):
            await pull(node, digest)
        await settled(node)
        assert node.store.blobs == {}
        assert node.store.partial_bodies == {}
        assert node.engine.loaded == []
        await trio.sleep(FAILURE_REMEMBERED + 0.1)
        site.origin.blobs[digest] = BODY
        site.origin.bytes_s = MIB
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pull, node, digest)
            await trio.sleep(1)
            running = node.transfers.running(digest)
            assert running is not None
            assert running.is_alone == vouched_by_a_peer
        await settled(node)
        assert node.store.blobs[digest] == BODY
        await node.store.drop(digest)
        transfer = await node.transfers.obtain(REPOSITORY, digest, len(BODY))
        assert not transfer.is_alone, "trusted again after a success"


async def test_it_goes_on_where_it_was_cut(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with open_site(tmp_path) as site:
        node = site.join(1, seeder=False)
        digest = site.origin.put(BODY)
        site.origin.fault_after = MIB
        with pytest.raises(Unavailable):
            await pull(node, digest)
        await settled(node)
        site.origin.fault_after = site.origin.fault = None
        await trio.sleep(40)
        assert await pull(node, digest) == BODY
        assert site.origin.given[digest] <= len(BODY) + 256 * 1024


async def test_lower_layers_of_an_image_go_first(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with open_site(tmp_path) as site:
        node = site.join(1)
        bodies = [bytes([number]) * (20 * MIB) for number in range(3)]
        site.seeder.bytes_s = MIB
        image, other = Digest("1" * 64), Digest("2" * 64)
        places = [Place(image, 2), Place(image, 1), Place(other, 5)]
        above, below, foreign = [
            await node.transfers.obtain(REPOSITORY, site.seeder.put(body), len(body), place)
            for body, place in zip(bodies, places, strict=True)
        ]
        assert above.is_behind()
        assert not below.is_behind()
        assert not foreign.is_behind()


async def test_a_layer_that_is_asked_for_first_leaves_the_wan_to_those_below_it(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with open_site(tmp_path) as site:
        node = site.join(1)
        site.seeder.bytes_s = MIB
        bodies = [bytes([number]) * (20 * MIB) for number in range(3)]
        held, lower, upper = blobs = tuple(site.seeder.put(body) for body in bodies)
        await node.store.write(held, bodies[0])
        image = Digest("1" * 64)
        above = await node.transfers.obtain(REPOSITORY, upper, len(bodies[2]), Place(image, 2, blobs))
        assert above.is_behind()
        assert len(above.plan.in_flight) == 1
        await trio.sleep(SIBLINGS + TICK + 0.1)
        assert not above.is_behind(), "its client has that one"
        assert len(above.plan.in_flight) > 1
        below = await node.transfers.obtain(REPOSITORY, lower, len(bodies[1]), Place(image, 1, blobs))
        assert not below.is_behind(), "what is held is not asked for"
        assert above.is_behind()


async def test_an_upper_layer_goes_on_as_soon_as_the_lower_one_is_asked_for(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with open_site(tmp_path) as site:
        node = site.join(1)
        bodies = [bytes([number]) * (20 * MIB) for number in range(2)]
        site.seeder.bytes_s = MIB
        lower, upper = [
            await node.transfers.obtain(
                REPOSITORY, site.seeder.put(body), len(body), Place(Digest("1" * 64), number)
            )
            for number, body in enumerate(bodies)
        ]
        while lower.plan.needs_wan(trio.current_time()):
            assert upper.plan.is_behind
            await trio.sleep(0.01)
        assert lower.plan.in_flight
        await trio.sleep(0.06)
        assert not upper.plan.is_behind
        assert len(upper.plan.in_flight) > 1


async def test_a_layer_waits_its_turn_at_a_cold_seeder_while_another_gets_on(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """Most nodes ask for nothing of a layer so small: they have no answer of their own that shows life."""
    async with open_site(tmp_path) as site:
        nodes = [site.join(number) for number in range(1, 7)]
        await site.met()
        first, last = random.Random(1).randbytes(12 * MIB), random.Random(2).randbytes(MIB + 1)
        site.seeder.bytes_s = MIB // 8
        begun, waits = site.seeder.put(first), site.seeder.put(last)
        site.seeder.line[waits] = trio.Event()
        for node in nodes:
            await node.transfers.obtain(REPOSITORY, begun, len(first))
        late = [await node.transfers.obtain(REPOSITORY, waits, len(last)) for node in nodes]
        await trio.sleep(2 * STALL)
        assert all(transfer.failure is None for transfer in late)
        assert all(node.site.wan.way(REPOSITORY) is Way.SEEDER for node in nodes)
        site.seeder.line[waits].set()
        for transfer in late:
            await transfer.ended.wait()
        assert [transfer.failure for transfer in late] == 6 * [None]


async def test_a_lower_layer_that_yields_holds_up_none(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with open_site(tmp_path) as site:
        node = site.join(1)
        node.site.links.own = node.transfers.use
        bodies = [bytes([number]) * (20 * MIB) for number in range(2)]
        site.seeder.bytes_s = MIB / 100
        image = Digest("1" * 64)
        lower, upper = [
            await node.transfers.obtain(
                REPOSITORY, site.seeder.put(body), len(body), Place(image, number), background=number == 0
            )
            for number, body in enumerate(bodies)
        ]
        await trio.sleep(2)
        assert lower.plan.way is Way.NONE, "to the client of the upper one"
        assert not upper.is_behind()


async def test_all_nodes_tell_at_the_same_moments(tmp_path: Path, autojump_clock: MockClock) -> None:
    """Whenever they began: who hears them wakes once."""
    told: list[float] = []
    async with open_site(tmp_path) as site:
        nodes = [site.join(number) for number in (1, 2, 3)]
        await site.met()
        digest = site.seeder.put(BODY)
        site.seeder.bytes_s = MIB / 10
        for node in nodes:
            notify = node.peers.notify_nowait

            def noted(
                nodes: Iterable[str],
                notice: Notice,
                notify: Callable[[Iterable[str], Notice], None] = notify,
            ) -> None:
                told.append(trio.current_time())
                notify(nodes, notice)

            node.peers.notify_nowait = noted  # type: ignore[assignment, method-assign] # it listens
            await node.transfers.obtain(REPOSITORY, digest, len(BODY))
            await trio.sleep(0.31)
        begun_at = trio.current_time()
        await trio.sleep(10 * REPORT_EVERY)
        moments = {round(at / REPORT_EVERY, 6) for at in told if at > begun_at + REPORT_EVERY}
        assert moments
        assert all(moment == round(moment) for moment in moments)
