"""How a transfer comes to know who else wants or holds its blob."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from p2pd.app.meeting import REJOIN, REPLY, SEEDER_FIRST
from p2pd.decide.ownership import owner, stripe_key
from p2pd.model.layout import MIB
from p2pd.model.messages import Join, Reply, Request, Want
from p2pd.ports.peers import Peer
from tests.support.memory_site import REPOSITORY, open_site

BODY = bytes(3 * MIB)


async def test_a_holder_that_was_too_busy_to_answer_is_asked_again(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with open_site(tmp_path) as site:
        node, holder = site.join(1, seeder=False), site.join(2)
        await site.met()
        digest = site.origin.put(BODY)
        await holder.store.write(digest, BODY)
        site.origin.bytes_s = MIB / 100
        busy_until, answer = trio.current_time() + REPLY + 1, holder.service.answer

        async def slow(*args: object) -> object:
            await trio.sleep_until(busy_until)
            return await answer(*args)  # type: ignore[arg-type]

        holder.service.answer = slow  # type: ignore[assignment, method-assign] # a disk that takes long
        transfer = await node.transfers.obtain(REPOSITORY, digest, len(BODY))
        assert not list(transfer.plan.holders)
        await trio.sleep(2 * (REPLY + REJOIN))
        assert list(transfer.plan.holders) == [holder.node_id]


async def test_an_answer_that_is_late_is_waited_for_and_not_asked_for_again(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """Meanwhile what may be the other's is left to it, and what is not is fetched."""
    asked: list[float] = []
    async with open_site(tmp_path) as site:
        node, other = site.join(1), site.join(2)
        await site.met()
        digest = site.seeder.put(bytes(64 * MIB))
        site.seeder.bytes_s = MIB / 10
        began, answer = trio.current_time(), other.service.answer

        async def late(peer: Peer, request: Request) -> Reply:
            if isinstance(request, Want):
                asked.append(trio.current_time())
                await trio.sleep(REPLY - 0.5)
            return await answer(peer, request)

        other.service.answer = late  # type: ignore[method-assign] # short of CPU
        transfer = await node.transfers.obtain(REPOSITORY, digest, 64 * MIB)
        mine = {
            s
            for s in range(64)
            if owner(stripe_key(digest, s), [node.node_id, other.node_id]) == node.node_id
        }
        begun: set[int] = set()
        while trio.current_time() < began + REPLY - 0.6:
            begun |= set(transfer.plan.in_flight)
            await trio.sleep(0.1)
        assert begun
        assert begun <= mine
        while trio.current_time() < began + REPLY + 1:
            begun |= set(transfer.plan.in_flight)
            await trio.sleep(0.1)
        assert len(asked) == 1


async def test_who_may_have_begun_what_is_this_nodes_is_waited_for(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """It asked while this node was not fetching yet: since then all was its own."""
    async with open_site(tmp_path) as site:
        node, other = site.join(1), site.join(2)
        await site.met()
        digest = site.seeder.put(bytes(64 * MIB))
        site.seeder.bytes_s = MIB / 10
        theirs = await other.transfers.obtain(REPOSITORY, digest, 64 * MIB)
        answer = other.service.answer

        async def late(peer: Peer, request: Request) -> Reply:
            if isinstance(request, Want):
                await trio.sleep(REPLY - 0.5)
            return await answer(peer, request)

        other.service.answer = late  # type: ignore[method-assign] # short of CPU
        await trio.sleep(0.1)
        transfer = await node.transfers.obtain(REPOSITORY, digest, 64 * MIB)
        await trio.sleep(REPLY + 1)
        assert transfer.plan.in_flight
        assert not set(transfer.plan.in_flight) & set(theirs.plan.in_flight)


async def test_peers_are_not_joined_again_for_what_nobody_has(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    joined: list[float] = []
    body = bytes(17 * MIB)
    async with open_site(tmp_path, swarm=True) as site:
        node, other = site.join(1), site.join(2)
        await site.met()
        digest = site.seeder.put(body)
        site.seeder.bytes_s = MIB / 2
        answer = other.service.answer

        async def noted(peer: Peer, request: Request) -> Reply:
            if isinstance(request, Join) and request.knows_hashes and request.index == 1:
                joined.append(trio.current_time())
            return await answer(peer, request)

        other.service.answer = noted  # type: ignore[method-assign] # it listens
        for one in (node, other):
            await one.transfers.obtain(REPOSITORY, digest, len(body))
        await trio.sleep(4 * REJOIN)
        assert 1 <= len(joined) <= 2, "once, and again where the other had not loaded it yet"


@pytest.mark.parametrize("is_silent", [False, True])
async def test_peers_are_asked_for_hashes_where_the_seeder_does_not_tell_them_at_once(
    tmp_path: Path, autojump_clock: MockClock, is_silent: bool
) -> None:
    asked: list[float] = []
    async with open_site(tmp_path, swarm=True) as site:
        node, holder = site.join(1), site.join(2)
        await site.met()
        digest = site.seeder.put(BODY)
        await holder.store.write(digest, BODY)
        site.seeder.is_silent = is_silent
        answer = holder.service.answer

        async def noted(peer: Peer, request: Request) -> Reply:
            if isinstance(request, Join) and not request.knows_hashes:
                asked.append(trio.current_time())
            return await answer(peer, request)

        holder.service.answer = noted  # type: ignore[method-assign] # it listens
        began = trio.current_time()
        transfer = await node.transfers.obtain(REPOSITORY, digest, len(BODY))
        await transfer.ended.wait()
        assert transfer.failure is None
        assert bool(asked) == is_silent
        assert all(at - began >= SEEDER_FIRST for at in asked)
