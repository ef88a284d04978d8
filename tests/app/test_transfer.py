"""Whole transfers on a site of several nodes: what crosses the WAN, in virtual time, and real swarms."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from p2pd.app.transfer import NEWS, STALL, TICK, WARM_WITHIN
from p2pd.app.transfer_state import FRESH
from p2pd.app.transfers import SOURCE_DEADLINE
from p2pd.model.content import Holding
from p2pd.model.errors import NotFound, Unavailable
from p2pd.model.layout import MIB, Layout
from p2pd.model.reference import Digest
from tests.support.edge import Node, open_edge
from tests.support.memory_site import REPOSITORY, MemoryNode, MemorySite, open_site

DATA = random.Random(7).randbytes(20 * MIB + 4321)
LAYOUT = Layout(len(DATA))


async def pull(node: Node | MemoryNode, digest: Digest) -> bytes:
    """The whole blob, as a client would read it."""
    blob = await node.content.blob(REPOSITORY, digest)
    return b"".join([chunk async for chunk in blob.chunks(0, blob.size)])


async def pull_everywhere(nodes: Sequence[Node | MemoryNode], digest: Digest) -> None:
    async def one(node: Node | MemoryNode) -> None:
        assert await pull(node, digest) == DATA

    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            for node in nodes:
                nursery.start_soon(one, node)


async def join(site: MemorySite, numbers: range, *, seeder: bool = True) -> list[MemoryNode]:
    nodes = [site.join(number, seeder=seeder) for number in numbers]
    await site.met()
    return nodes


async def test_one_node_pulls_through_the_seeder(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with open_site(tmp_path) as site:
        [node] = await join(site, range(1, 2))
        digest = site.seeder.put(DATA)
        site.origin.put(DATA)
        await pull_everywhere([node], digest)
        assert site.seeder.given[digest] == len(DATA)
        assert site.origin.given[digest] == 0
        assert await pull(node, digest) == DATA, "and again, from the store"
        assert site.seeder.given[digest] == len(DATA)


async def test_a_site_pulls_each_byte_once(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with open_site(tmp_path, swarm=True) as site:
        nodes = await join(site, range(1, 5))
        digest = site.seeder.put(DATA)
        site.origin.put(DATA)
        site.seeder.bytes_s = 20 * MIB
        await pull_everywhere(nodes, digest)
        assert site.seeder.given[digest] == len(DATA)
        assert site.origin.given[digest] == 0


async def test_a_late_node_takes_nothing_over_the_wan(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with open_site(tmp_path, swarm=True) as site:
        digest = site.seeder.put(DATA)
        await pull_everywhere(await join(site, range(1, 2)), digest)
        site.cut(Unavailable("gone"))
        await pull_everywhere(await join(site, range(2, 3)), digest)
        assert site.seeder.given[digest] == len(DATA)


async def test_without_a_seeder_one_node_pulls_from_the_origin(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with open_site(tmp_path, swarm=True) as site:
        nodes = await join(site, range(1, 4), seeder=False)
        digest = site.origin.put(DATA)
        site.origin.bytes_s = 20 * MIB
        await pull_everywhere(nodes, digest)
        assert site.origin.given[digest] == len(DATA)


async def test_a_seeder_that_dies_is_replaced_by_the_origin(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with open_site(tmp_path, swarm=True) as site:
        nodes = await join(site, range(1, 4))
        digest = site.seeder.put(DATA)
        site.origin.put(DATA)
        site.seeder.bytes_s = 10 * MIB
        site.seeder.fault_after = 8 * MIB
        await pull_everywhere(nodes, digest)
        assert site.seeder.given[digest] < len(DATA)


async def test_content_nobody_has_is_refused_quickly(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with open_site(tmp_path) as site:
        node = site.join(1)
        digest = site.seeder.put(DATA)
        del site.seeder.blobs[digest]
        with trio.fail_after(5), pytest.raises(NotFound):
            await pull(node, digest)


@pytest.mark.parametrize("seeder", [True, False])
async def test_where_the_wan_hangs_no_node_takes_another_s_request_for_a_source(
    tmp_path: Path, autojump_clock: MockClock, seeder: bool
) -> None:
    async with open_site(tmp_path, swarm=True) as site:
        nodes = await join(site, range(1, 5), seeder=seeder)
        for source in (site.seeder, site.origin):
            source.hangs_for = 5.0

        async def refused(node: MemoryNode, digest: Digest) -> None:
            began = trio.current_time()
            with pytest.raises(Unavailable, match="no source"):
                await node.transfers.obtain(REPOSITORY, digest, len(DATA))
            assert trio.current_time() < began + SOURCE_DEADLINE + 0.1

        for data in (DATA, DATA[::-1]):  # found hanging, and known to hang
            digest = site.seeder.put(data)
            site.origin.put(data)
            async with trio.open_nursery() as nursery:
                for node in nodes:
                    nursery.start_soon(refused, node, digest)
            await trio.sleep(STALL - SOURCE_DEADLINE + 1)
            assert not any(node.transfers.running(digest) for node in nodes), "nor do they keep it going"


@pytest.mark.parametrize("seeder", [True, False])
async def test_a_slow_wan_is_waited_for(tmp_path: Path, autojump_clock: MockClock, seeder: bool) -> None:
    """Long before anybody has a stripe every node knows that the blob comes."""
    async with open_site(tmp_path, swarm=True) as site:
        nodes = await join(site, range(1, 5), seeder=seeder)
        digest = site.seeder.put(DATA)
        site.origin.put(DATA)
        site.seeder.bytes_s = site.origin.bytes_s = MIB / 16

        async def begun(node: MemoryNode) -> None:
            await node.transfers.obtain(REPOSITORY, digest, len(DATA))
            assert trio.current_time() < 2

        with trio.fail_after(5):
            async with trio.open_nursery() as nursery:
                for node in nodes:
                    nursery.start_soon(begun, node)
        assert site.seeder.given[digest] + site.origin.given[digest] < MIB


async def test_a_wan_that_goes_for_good_ends_bodies_in_time_and_costs_what_was_in_flight(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    # Else the clock jumps to the deadline below while threads put away what all transfers left at one moment.
    autojump_clock.autojump_threshold = 0.003
    async with open_site(tmp_path, swarm=True) as site:
        nodes = await join(site, range(1, 5))
        digest = site.seeder.put(DATA)
        site.origin.put(DATA)
        for source in (site.seeder, site.origin):
            source.bytes_s = 3 * MIB

        async def cut_short(node: MemoryNode) -> None:
            with pytest.raises(Unavailable, match="no source brought a byte"):
                await pull(node, digest)

        async with trio.open_nursery() as nursery:
            for node in nodes:
                nursery.start_soon(cut_short, node)
            await trio.sleep(3)
            for source in (site.seeder, site.origin):
                source.hangs_for = 5.0
            nursery.cancel_scope.deadline = trio.current_time() + FRESH + STALL + 1
        assert not nursery.cancel_scope.cancelled_caught
        await trio.sleep(60)
        for source in (site.seeder, site.origin):
            source.hangs_for = None
        await trio.sleep(60)
        await pull_everywhere(nodes, digest)
        given = site.seeder.given[digest] + site.origin.given[digest]
        assert given <= len(DATA) + 4 * MIB


async def test_what_an_earlier_run_staged_is_not_fetched_again(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with open_site(tmp_path) as site:
        node = site.join(1)
        digest = site.seeder.put(DATA)
        node.store.staged_path(digest, 0).write_bytes(DATA[: 12 * MIB] + bytes(4 * MIB))
        await pull_everywhere([node], digest)
        assert site.seeder.given[digest] == len(DATA) - 12 * MIB


# Whether the seeder is itself still pulling the blob.


async def cold_after(node: MemoryNode, digest: Digest) -> float | None:
    """Seconds after which it takes the seeder for cold; None where it does not, in ten."""
    began, after = trio.current_time(), None
    async with trio.open_nursery() as nursery:
        nursery.start_soon(node.transfers.obtain, REPOSITORY, digest, len(DATA))
        while after is None and trio.current_time() < began + 10:
            await trio.sleep(NEWS / 5)
            transfer = node.transfers.running(digest)
            if transfer is not None and transfer.plan.is_cold:
                after = trio.current_time() - began
        nursery.cancel_scope.cancel()
    return after


async def test_a_seeder_that_says_that_it_is_pulling_is_cold_at_once(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with open_site(tmp_path) as site:
        [node] = await join(site, range(1, 2))
        digest = site.seeder.put(DATA)
        site.seeder.line[digest] = trio.Event()
        after = await cold_after(node, digest)
        assert after is not None
        assert after < 3 * NEWS
        assert site.seeder.asked["segment"] == LAYOUT.segment_count + 1, "in a hurry once"
        transfer = node.transfers.running(digest)
        assert transfer is not None
        site.seeder.line[digest].set()
        await transfer.ended.wait()
        assert transfer.failure is None


@pytest.mark.parametrize(("is_old", "since"), [(False, None), (True, WARM_WITHIN)])
async def test_a_seeder_whose_hashes_are_late_is_cold_where_it_does_not_say_that_it_has_the_blob(
    tmp_path: Path, autojump_clock: MockClock, is_old: bool, since: float | None
) -> None:
    async with open_site(tmp_path) as site:
        [node] = await join(site, range(1, 2))
        digest = site.seeder.put(DATA)
        site.seeder.is_old = is_old
        site.seeder.bytes_s = MIB
        site.seeder.hashes_after = 20.0
        after = await cold_after(node, digest)
        assert after == (None if since is None else pytest.approx(since, abs=TICK + NEWS))


async def test_what_is_wanted_next_is_not_uncertain_where_its_hashes_are_there(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with open_site(tmp_path) as site:
        [node] = await join(site, range(1, 2))
        digest = site.seeder.put(DATA)
        site.seeder.bytes_s = MIB
        transfer = await node.transfers.obtain(REPOSITORY, digest, len(DATA))
        await trio.sleep(1)
        assert 0 in transfer.metas
        transfer._state.seeder_said(Holding.PULLING)
        transfer._decide(trio.current_time())
        assert not transfer.plan.is_cold


async def test_the_later_word_counts(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with open_site(tmp_path) as site:
        [node] = await join(site, range(1, 2))
        digest = site.seeder.put(DATA)
        site.seeder.hashes_after = 60.0
        site.seeder.bytes_s = MIB / 4
        transfer = await node.transfers.obtain(REPOSITORY, digest, len(DATA))
        for said, is_cold in (
            (Holding.PULLING, True),
            (Holding.WHOLE, False),
            (Holding.PULLING, True),
            (None, False),  # so early nothing is guessed
        ):
            transfer._state.seeder_said(said)
            transfer._decide(trio.current_time())
            assert transfer.plan.is_cold == is_cold
        transfer._decide(transfer.started_at + WARM_WITHIN + 0.1)
        assert transfer.plan.is_cold


async def test_a_seeder_that_has_not_answered_yet_is_not_cold(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """Where the machine is short of CPU the first answer may take long."""
    async with open_site(tmp_path) as site, trio.open_nursery() as nursery:
        [node] = await join(site, range(1, 2))
        digest = site.seeder.put(DATA)
        site.seeder.is_silent = True
        nursery.start_soon(node.transfers.obtain, REPOSITORY, digest, len(DATA))
        await trio.sleep(WARM_WITHIN + 2)
        transfer = node.transfers.running(digest)
        assert transfer is not None
        assert not transfer.plan.is_cold
        nursery.cancel_scope.cancel()


async def test_who_asks_no_seeder_goes_by_time(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with open_site(tmp_path) as site:
        [node] = await join(site, range(1, 2), seeder=False)
        digest = site.origin.put(DATA)
        site.origin.bytes_s = MIB
        after = await cold_after(node, digest)
        assert after == pytest.approx(WARM_WITHIN, abs=TICK + NEWS)


# Real swarms, stores and time. What the WAN carries then depends on the machine: it is judged above.


async def test_real_swarms_bring_what_is_gone_upstream(tmp_path: Path) -> None:
    async with open_edge(tmp_path) as edge:
        nodes = [await edge.join(number) for number in range(1, 3)]
        digest = edge.seeder.put(DATA)
        await pull_everywhere(nodes, digest)
        edge.seeder.fault = edge.origin.fault = Unavailable("gone")
        await pull_everywhere([await edge.join(3)], digest)
