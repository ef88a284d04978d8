"""Whole transfers on a site of several nodes: what crosses the WAN, in virtual time, and real swarms."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from p2pd.app.transfer import STALL
from p2pd.app.transfer_state import FRESH
from p2pd.app.transfers import SOURCE_DEADLINE
from p2pd.model.errors import NotFound, Unavailable
from p2pd.model.layout import MIB
from p2pd.model.reference import Digest
from tests.support.edge import Node, open_edge
from tests.support.memory_site import REPOSITORY, MemoryNode, MemorySite, open_site

DATA = random.Random(7).randbytes(20 * MIB + 4321)


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


# Real swarms, stores and time. What the WAN carries then depends on the machine: it is judged above.


async def test_real_swarms_bring_what_is_gone_upstream(tmp_path: Path) -> None:
    async with open_edge(tmp_path) as edge:
        nodes = [await edge.join(number) for number in range(1, 3)]
        digest = edge.seeder.put(DATA)
        await pull_everywhere(nodes, digest)
        edge.seeder.fault = edge.origin.fault = Unavailable("gone")
        await pull_everywhere([await edge.join(3)], digest)
