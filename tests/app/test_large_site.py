"""A site in which not everybody tells everybody: the bounds made small, six nodes are a large one."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import trio

from p2pd.app import meeting
from p2pd.app.interests import Interests
from p2pd.app.peer_service import PeerService
from p2pd.decide import circle, fetchers
from p2pd.model.layout import MIB
from p2pd.model.messages import Interest, Interested, Join, Joined, Reply, Request, Wanted
from p2pd.model.reference import Digest
from p2pd.ports.peers import Peer
from tests.support.memory_site import REPOSITORY, MemoryNode, MemorySite, node_id, open_site

DATA = random.Random(8).randbytes(17 * MIB + 1)
FEW_PIECES = DATA[: 3 * MIB]
NODES = 6


@pytest.fixture(autouse=True)
def _small_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (circle, meeting):
        monkeypatch.setattr(module, "MESH", 3)
    for module in (circle, fetchers):
        monkeypatch.setattr(module, "FETCHERS", 2)
    monkeypatch.setattr(circle, "FOLLOWED", 2)
    monkeypatch.setattr(circle, "NEIGHBOURS", 2)


async def pull_everywhere(site: MemorySite, digest: Digest, numbers: range) -> None:
    nodes = [site.join(number) for number in numbers]
    await site.met()

    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            for node in nodes:
                nursery.start_soon(_pull, node, digest)


async def test_few_fetch_and_all_have_it(tmp_path: Path, autojump_clock: trio.testing.MockClock) -> None:
    async with open_site(tmp_path, swarm=True) as site:
        digest = site.seeder.put(DATA)
        site.seeder.bytes_s = 20 * MIB
        await pull_everywhere(site, digest, range(1, NODES + 1))
        # A node that came when it knew nobody yet may have begun a stripe or two.
        assert site.seeder.given[digest] <= len(DATA) + 4 * MIB
        assert site.seeder.asked["segment"] < 2 * NODES, "not everybody asks for hashes"


async def test_one_fetcher_tells_the_hashes_and_another_that_they_are_right(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    for module in (circle, fetchers):
        monkeypatch.setattr(module, "FETCHERS", 4)
    monkeypatch.setattr(circle, "FOLLOWED", 4)
    told: dict[tuple[str, int], list[Joined]] = {}
    async with open_site(tmp_path, swarm=True) as site:
        digest = site.seeder.put(FEW_PIECES)
        site.seeder.bytes_s = MIB / 2
        nodes = [site.join(number) for number in range(1, 9)]
        await site.met()

        def note_joins(node: MemoryNode) -> None:
            answer = node.service.answer

            async def noted(peer: Peer, request: Request) -> Reply:
                reply = await answer(peer, request)
                if isinstance(request, Join) and not request.knows_hashes and isinstance(reply, Joined):
                    told.setdefault((peer.node_id, request.index), []).append(reply)
                return reply

            node.service.answer = noted  # type: ignore[method-assign] # it listens

        for node in nodes:
            note_joins(node)
        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                for node in nodes:
                    nursery.start_soon(node.transfers.obtain, REPOSITORY, digest, len(FEW_PIECES))
            transfers = [node.transfers.running(digest) for node in nodes]
            followers = {
                node.node_id
                for node, transfer in zip(nodes, transfers, strict=True)
                if transfer is not None and transfer._state.choice.followed
            }
            await trio.sleep(20)
    to_followers = [replies for (asker, _), replies in told.items() if asker in followers]
    assert to_followers
    for replies in to_followers:
        assert [reply.is_same for reply in replies if reply.piece_hashes or reply.is_same] == [False, True]


async def _pull(node: MemoryNode, digest: Digest) -> None:
    blob = await node.content.blob(REPOSITORY, digest)
    assert b"".join([chunk async for chunk in blob.chunks(0, blob.size)]) == DATA


async def test_who_comes_late_hears_of_those_that_hold_it(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async with open_site(tmp_path, swarm=True) as site:
        digest = site.seeder.put(DATA)
        await pull_everywhere(site, digest, range(1, NODES + 1))
        given = site.seeder.given[digest]
        await pull_everywhere(site, digest, range(NODES + 1, NODES + 2))
        assert site.seeder.given[digest] == given


async def test_interest_is_remembered_and_told(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    digest, peers = Digest("1" * 64), [Peer(node_id(i), "10.0.0.9", 1) for i in range(40, 50)]
    async with open_site(tmp_path) as site:
        service: PeerService = site.join(1).service
        for peer in peers:
            service.notice_nowait(peer, Wanted(digest))
        told = await service.answer(peers[0], Interest(digest))
        assert isinstance(told, Interested)
        assert set(told.nodes) == {peer.node_id for peer in peers[1:]}
        assert await service.answer(peers[0], Interest(Digest("2" * 64))) == Interested(())


def test_interests_are_bounded() -> None:
    interests, digests = Interests(), [Digest(f"{i:064x}") for i in range(400)]
    for digest in digests:
        interests.note(digest, "a")
    assert interests.of(digests[0]) == set()
    assert interests.of(digests[-1]) == {"a"}
    for i in range(5000):
        interests.note(digests[-1], str(i))
    assert len(interests.of(digests[-1])) == 2048
    interests.forget(digests[-1], "a")
    interests.forget(digests[0], "a")
    assert "a" not in interests.of(digests[-1])
