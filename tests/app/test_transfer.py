"""Whole transfers on a site of several nodes: real swarms and stores, in-memory WAN."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import trio

from p2pd.model.errors import NotFound, Unavailable
from p2pd.model.layout import MIB
from tests.support.edge import Edge, Node, open_edge

DATA = random.Random(7).randbytes(20 * MIB + 4321)


async def pull_everywhere(nodes: list[Node], edge: Edge, data: bytes) -> None:
    digest = edge.origin.put(data)

    async def pull(node: Node) -> None:
        assert await node.pull(digest) == data

    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            for node in nodes:
                nursery.start_soon(pull, node)


async def test_one_node_pulls_through_the_seeder(tmp_path: Path) -> None:
    async with open_edge(tmp_path) as edge:
        node = await edge.join(1)
        digest = edge.seeder.put(DATA)
        await pull_everywhere([node], edge, DATA)
        assert edge.seeder.given[digest] == len(DATA)
        assert edge.origin.given[digest] == 0
        assert await node.pull(digest) == DATA, "and again, from the store"
        assert edge.seeder.given[digest] == len(DATA)


async def test_a_site_pulls_each_byte_once(tmp_path: Path) -> None:
    async with open_edge(tmp_path) as edge:
        nodes = [await edge.join(number) for number in range(1, 5)]
        digest = edge.seeder.put(DATA)
        edge.seeder.bytes_s = 20 * MIB
        await pull_everywhere(nodes, edge, DATA)
        assert edge.seeder.given[digest] <= 1.02 * len(DATA)
        assert edge.origin.given[digest] == 0


async def test_a_late_node_takes_nothing_over_the_wan(tmp_path: Path) -> None:
    async with open_edge(tmp_path) as edge:
        first = await edge.join(1)
        digest = edge.seeder.put(DATA)
        await pull_everywhere([first], edge, DATA)
        edge.seeder.fault = edge.origin.fault = Unavailable("gone")
        late = await edge.join(2)
        with trio.fail_after(20):
            assert await late.pull(digest) == DATA
        assert edge.seeder.given[digest] == len(DATA)


async def test_without_a_seeder_one_node_pulls_from_the_origin(tmp_path: Path) -> None:
    async with open_edge(tmp_path) as edge:
        nodes = [await edge.join(number, seeder=False) for number in range(1, 4)]
        edge.origin.bytes_s = 20 * MIB
        await pull_everywhere(nodes, edge, DATA)
        assert sum(edge.origin.given.values()) <= 1.02 * len(DATA)


async def test_a_seeder_that_dies_is_replaced_by_the_origin(tmp_path: Path) -> None:
    async with open_edge(tmp_path) as edge:
        nodes = [await edge.join(number) for number in range(1, 4)]
        digest = edge.seeder.put(DATA)
        edge.seeder.bytes_s = 10 * MIB

        edge.seeder.fault_after = 8 * MIB
        await pull_everywhere(nodes, edge, DATA)
        assert edge.seeder.given[digest] < len(DATA)


async def test_content_nobody_has_is_refused_quickly(tmp_path: Path) -> None:
    async with open_edge(tmp_path) as edge:
        node = await edge.join(1)
        digest = edge.seeder.put(DATA)
        del edge.seeder.blobs[digest]
        with trio.fail_after(5), pytest.raises(NotFound):
            await node.pull(digest)


async def test_what_an_earlier_run_staged_is_not_fetched_again(tmp_path: Path) -> None:
    async with open_edge(tmp_path) as edge:
        node = await edge.join(1)
        digest = edge.seeder.put(DATA)
        staged = node.site.store.staged_path(digest, 0)
        await trio.Path(staged).write_bytes(DATA[: 12 * MIB] + bytes(4 * MIB))
        await pull_everywhere([node], edge, DATA)
        assert edge.seeder.given[digest] == len(DATA) - 12 * MIB
