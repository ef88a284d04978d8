"""What a transfer asks by `Join`."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from p2pd.app.joins import META_PATIENCE, REJOIN, SEEDER_FIRST, Joins
from p2pd.app.metadata import Metadata
from p2pd.app.transfer_state import TransferState
from p2pd.decide.circle import Choice
from p2pd.decide.ownership import object_key, ranked
from p2pd.decide.plan import FetchPlan, Way
from p2pd.model.layout import MIB, Layout
from p2pd.model.messages import Join, Joined, Reply, Request
from p2pd.ports.peers import Peer
from tests.support.memory_site import REPOSITORY, MemoryNode, open_site
from tests.support.memory_store import meta_of

BODY = bytes(3 * MIB)


async def test_patience_with_what_is_owed_begins_anew_with_a_peers_first_torrent_only(
    tmp_path: Path, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    connected: list[float] = []
    monkeypatch.setattr(FetchPlan, "connected", lambda _, now: connected.append(now))
    async with open_site(tmp_path, swarm=True) as site:
        node, holder = site.join(1, seeder=False), site.join(2)
        await site.met()
        digest = site.origin.put(BODY)
        site.origin.bytes_s = 1.0
        await holder.store.write(digest, BODY)
        assert node.engine.lan is not None
        node.engine.lan.bytes_s = MIB / 100  # so slow that the holder is dialled again
        joined: list[float] = []
        answer = holder.service.answer

        async def noted(peer: Peer, request: Request) -> Reply:
            if isinstance(request, Join) and request.knows_hashes:
                joined.append(trio.current_time())
            return await answer(peer, request)

        holder.service.answer = noted  # type: ignore[method-assign] # it listens
        await node.transfers.obtain(REPOSITORY, digest, len(BODY))
        await trio.sleep(3 * REJOIN)
        assert len(joined) > 1
        assert connected == pytest.approx(joined[:1], abs=0.1)


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


@pytest.mark.parametrize("fault", ["none", "knows none yet", "lies", "hangs"])
async def test_followed_fetchers_are_asked_in_turn_until_two_say_the_same(
    tmp_path: Path, autojump_clock: MockClock, fault: str
) -> None:
    told: list[tuple[bool, bool]] = []
    async with open_site(tmp_path, swarm=True) as site:
        node, *fetchers = map(site.join, range(1, 5))
        by_id = {each.node_id: each for each in fetchers}
        await site.met()
        digest = site.seeder.put(BODY)
        for each in fetchers:
            await each.store.write(digest, BODY)
            _listen(each, told)
        first_asked = by_id[ranked(object_key(f"hashes {node.node_id} 0 {digest}"), by_id)[0]]

        pieces = Layout(len(BODY)).segment(0).piece_count

        async def faulty(*_: object) -> Reply:
            if fault == "hangs":
                await trio.sleep_forever()
            return Joined(False, bytes(20 * pieces) if fault == "lies" else None)

        if fault != "none":
            first_asked.service.answer = faulty  # type: ignore[assignment, method-assign] # the fault
        partial = await node.store.begin(digest, len(BODY))
        state = TransferState(node.site, REPOSITORY, partial, alone=False, background=False)
        state.choice = Choice(frozenset(by_id), frozenset(by_id), is_large=True)
        state.plan.way_changed(Way.NONE, trio.current_time())
        with trio.fail_after(META_PATIENCE - 1):
            meta = await Joins(state, Metadata(state)).obtain_meta(0)
        await partial.aclose()
    assert meta == meta_of(digest, BODY, len(BODY), 0)
    assert told == [(True, False), (True, False) if fault == "lies" else (False, True)]
    assert site.seeder.asked["segment"] == 0


async def test_who_asks_no_seeder_asks_its_peers_again_though_much_goes_on(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """A fetcher of a large site that reaches none: nobody tells it unasked."""
    async with open_site(tmp_path, swarm=True) as site:
        node, other = site.join(1, seeder=False, origin=False), site.join(2)
        await site.met()
        digest = site.seeder.put(BODY)
        partial = await node.store.begin(digest, len(BODY))
        state = TransferState(node.site, REPOSITORY, partial, alone=False, background=False)
        state.choice = Choice(frozenset({other.node_id}), is_large=True)
        state.plan.member_progress(other.node_id, 0, 0, Way.SEEDER, trio.current_time())

        async def news_comes() -> None:
            while True:
                await trio.sleep(REJOIN / 4)
                state.poke()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(news_comes)
            with trio.fail_after(3 * REJOIN):
                async with trio.open_nursery() as asking:
                    asking.start_soon(Joins(state, Metadata(state)).obtain_meta, 0)
                    await trio.sleep(REJOIN / 2)
                    await other.store.write(digest, BODY)
            nursery.cancel_scope.cancel()
        await partial.aclose()


def _listen(node: MemoryNode, told: list[tuple[bool, bool]]) -> None:
    """Note of each answer to a `Join` whether it is the hashes, and whether that they are the same."""
    answer = node.service.answer

    async def noted(peer: Peer, request: Request) -> Reply:
        reply = await answer(peer, request)
        if isinstance(request, Join) and isinstance(reply, Joined):
            told.append((reply.piece_hashes is not None, reply.is_same))
        return reply

    node.service.answer = noted  # type: ignore[method-assign] # it listens
