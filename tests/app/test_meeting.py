"""How a transfer comes to know who else wants or holds its blob."""

from __future__ import annotations

from pathlib import Path

import trio
from trio.testing import MockClock

from p2pd.app.meeting import ASK_AGAIN, INTRODUCTIONS, REPLY
from p2pd.decide.ownership import owner, stripe_key
from p2pd.model.errors import PeerUnavailable
from p2pd.model.layout import MIB, SMALL_BLOB, Layout
from p2pd.model.messages import Reply, Request, Want
from p2pd.model.reference import Digest
from p2pd.ports.peers import Peer
from tests.support.memory_site import REPOSITORY, MemoryNode, open_site

BODY = bytes(3 * MIB)
_FEW_STRIPES = SMALL_BLOB + 1


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
        await trio.sleep(2 * (REPLY + ASK_AGAIN))
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


async def test_who_asked_before_and_is_gone_is_not_waited_for(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """Nor is one that hangs, longer than any that did not ask."""
    async with open_site(tmp_path) as site, trio.open_nursery() as nursery:
        node, other, hung = site.join(1), site.join(2), site.join(3)
        await site.met()
        digest = site.seeder.put(bytes(64 * MIB))
        site.seeder.bytes_s = MIB / 10
        node.site.interests.note(digest, other.node_id)

        async def refuse(*_: object) -> Reply:
            raise PeerUnavailable("its connection broke")

        other.service.answer = refuse  # type: ignore[assignment, method-assign]
        hung.service.answer = _never  # type: ignore[assignment, method-assign]
        began = trio.current_time()
        nursery.start_soon(node.transfers.obtain, REPOSITORY, digest, 64 * MIB)
        await trio.sleep_until(began + INTRODUCTIONS + 0.2)
        transfer = node.transfers.running(digest)
        assert transfer is not None
        assert transfer.plan.in_flight


async def test_what_a_hung_peer_would_fetch_is_begun_as_soon_as_it_gave_no_answer(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with open_site(tmp_path) as site, trio.open_nursery() as nursery:
        node, hung = site.join(1), site.join(2)
        await site.met()
        bodies = (bytes([number]) * _FEW_STRIPES for number in range(256))
        digest = next(digest for digest in map(site.seeder.put, bodies) if _owns_all(hung, node, digest))
        site.seeder.bytes_s = MIB / 10
        hung.service.answer = _never  # type: ignore[assignment, method-assign]
        began = trio.current_time()
        nursery.start_soon(node.transfers.obtain, REPOSITORY, digest, _FEW_STRIPES)
        await trio.sleep_until(began + REPLY - 0.1)
        transfer = node.transfers.running(digest)
        assert transfer is not None
        assert not transfer.plan.in_flight
        await trio.sleep_until(began + REPLY + 0.2)
        assert transfer.plan.in_flight


def _owns_all(one: MemoryNode, other: MemoryNode, digest: Digest) -> bool:
    nodes = [one.node_id, other.node_id]
    stripes = range(Layout(_FEW_STRIPES).stripe_count)
    return all(owner(stripe_key(digest, stripe), nodes) == one.node_id for stripe in stripes)


async def _never(*_: object) -> Reply:
    await trio.sleep_forever()
    raise AssertionError
