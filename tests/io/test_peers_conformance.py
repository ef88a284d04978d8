"""What Peers promises, in virtual time: on the fake, and on real networks over loopback."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import trio
import trio.testing

from p2pd.model.errors import (
    Denied,
    NotFound,
    P2pdError,
    PeerFault,
    PeerProtocolError,
    PeerUnavailable,
    RateLimited,
    StoreFull,
    Unavailable,
)
from p2pd.model.messages import (
    Fetched,
    Ping,
    Pong,
    Progress,
    Query,
    QueryReply,
    Read,
    ReadReply,
    Reply,
    Request,
)
from p2pd.model.reference import Digest
from p2pd.ports.peers import Peers
from tests.support import virtual_time
from tests.support.peer_handlers import ScriptedHandler
from tests.support.peer_sites import Scenario, SiteUnderTest, open_memory_site, open_real_site

A, B, C = "a" * 16, "b" * 16, "c" * 16
DIGEST = Digest("5e" * 32)

Play = Callable[[Scenario], None]


@pytest.fixture(params=["fake", "real"])
def play(request: pytest.FixtureRequest) -> Play:
    """Runs a scenario on a site, within a minute of the clock that the site lives by."""
    is_real = request.param == "real"

    def run(scenario: Scenario) -> None:
        async def main() -> None:
            with trio.fail_after(60):
                async with open_real_site() if is_real else open_memory_site() as site:
                    await scenario(site)

        if is_real:
            virtual_time.run(main)
        else:
            trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))

    return run


async def wait_live(peers: Peers, *node_ids: str) -> None:
    """Until exactly these are live."""
    changed = [trio.Event()]
    peers.on_change(lambda: changed[0].set())
    while [peer.node_id for peer in peers.live()] != list(node_ids):
        await changed[0].wait()
        changed[0] = trio.Event()


def test_nodes_get_to_know_each_other(play: Play) -> None:
    async def scenario(site: SiteUnderTest) -> None:
        c = await site.join(C, ScriptedHandler())
        a = await site.join(A, ScriptedHandler())
        b = await site.join(B, ScriptedHandler())
        await wait_live(a, B, C)
        await wait_live(b, A, C)
        await wait_live(c, A, B)
        assert a.live()[0].swarm_port == 6881
        assert a.live()[0].host

    play(scenario)


def test_a_request_is_answered_and_the_asker_is_known(play: Play) -> None:
    async def scenario(site: SiteUnderTest) -> None:
        handler = ScriptedHandler()
        a = await site.join(A, ScriptedHandler())
        await site.join(B, handler)
        await wait_live(a, B)
        assert await a.request(B, Query(DIGEST), 5) == QueryReply(7, None)
        assert await a.request(B, Read(DIGEST, 3, 100_000), 5) == ReadReply(b"\x03" * 100_000)
        assert await a.request(B, Ping(), 5) == Pong()
        assert [(peer.node_id, asked) for peer, asked in handler.asked] == [
            (A, Query(DIGEST)),
            (A, Read(DIGEST, 3, 100_000)),
        ]

    play(scenario)


@pytest.mark.parametrize(
    ("raised", "expected"),
    [
        (NotFound("gone"), NotFound),
        (Denied("no"), Denied),
        (Unavailable("later"), Unavailable),
        (RateLimited("slower"), Unavailable),
        (StoreFull("disk"), PeerFault),
    ],
)
def test_an_error_of_the_handler_reaches_the_asker(
    play: Play, raised: P2pdError, expected: type[P2pdError]
) -> None:
    async def refuse(request: Request) -> Reply:
        raise raised

    async def scenario(site: SiteUnderTest) -> None:
        a = await site.join(A, ScriptedHandler())
        await site.join(B, ScriptedHandler(refuse))
        await wait_live(a, B)
        with pytest.raises(expected, match=str(raised)):
            await a.request(B, Query(DIGEST), 5)

    play(scenario)


def test_an_answer_of_another_kind_is_refused(play: Play) -> None:
    async def answer(request: Request) -> Reply:
        return Fetched(1) if isinstance(request, Query) else ReadReply(b"too long")

    async def scenario(site: SiteUnderTest) -> None:
        a = await site.join(A, ScriptedHandler())
        await site.join(B, ScriptedHandler(answer))
        for request in (Query(DIGEST), Read(DIGEST, 0, 1)):
            await wait_live(a, B)
            with pytest.raises(PeerProtocolError):
                await a.request(B, request, 5)

    play(scenario)


def test_who_is_not_there(play: Play) -> None:
    async def scenario(site: SiteUnderTest) -> None:
        a = await site.join(A, ScriptedHandler())
        with pytest.raises(PeerUnavailable, match="not live"):
            await a.request(B, Ping(), 5)
        a.notify_nowait([B], Progress(DIGEST, 1, b"\x00", b"\x00", "none"))

    play(scenario)


def test_no_answer_in_time_and_a_cancelled_asker_harm_nothing(play: Play) -> None:
    release = trio.Event()

    async def wait_first(request: Request) -> Reply:
        if isinstance(request, Read):
            await release.wait()
            return ReadReply(b"x")
        return QueryReply(None, None)

    async def scenario(site: SiteUnderTest) -> None:
        a = await site.join(A, ScriptedHandler())
        await site.join(B, ScriptedHandler(wait_first))
        await wait_live(a, B)
        with pytest.raises(PeerUnavailable, match="did not answer"):
            await a.request(B, Read(DIGEST, 0, 1), 0.05)
        with trio.move_on_after(0.05) as scope:
            await a.request(B, Read(DIGEST, 0, 1), math.inf)
        assert scope.cancelled_caught
        release.set()
        assert await a.request(B, Query(DIGEST), 5) == QueryReply(None, None)
        assert [peer.node_id for peer in a.live()] == [B]

    play(scenario)


def test_many_requests_in_flight_are_answered_in_any_order(play: Play) -> None:
    gates = [trio.Event() for _ in range(40)]

    async def wait_for_gate(request: Request) -> Reply:
        assert isinstance(request, Read)
        await gates[request.offset].wait()
        if request.offset:
            gates[request.offset - 1].set()
        return ReadReply(bytes([request.offset]))

    async def scenario(site: SiteUnderTest) -> None:
        a = await site.join(A, ScriptedHandler())
        handler = ScriptedHandler(wait_for_gate)
        await site.join(B, handler)
        await wait_live(a, B)
        answers: list[Reply] = []

        async def ask(number: int) -> None:
            answers.append(await a.request(B, Read(DIGEST, number, 1), 20))

        async with trio.open_nursery() as nursery:
            for number in range(40):
                nursery.start_soon(ask, number)
            await handler.wait_until(lambda h: len(h.asked) == 40)
            gates[39].set()
        # Each gate opens the one below it: all forty were being answered at once.
        assert {reply.data[0] for reply in answers if isinstance(reply, ReadReply)} == set(range(40))

    play(scenario)


def test_notices_arrive_in_order(play: Play) -> None:
    sent = [Progress(DIGEST, size, b"\x00", b"\x00", "none") for size in range(1, 301)]

    async def scenario(site: SiteUnderTest) -> None:
        handler = ScriptedHandler()
        a = await site.join(A, ScriptedHandler())
        await site.join(B, handler)
        await wait_live(a, B)
        for notice in sent:
            a.notify_nowait([B], notice)
        await handler.wait_until(lambda h: len(h.told) == len(sent))
        assert [notice for _, notice in handler.told] == sent
        assert handler.told[0][0].node_id == A

    play(scenario)


def test_who_leaves_is_noticed_at_once(play: Play) -> None:
    async def never(request: Request) -> Reply:
        await trio.sleep_forever()
        raise AssertionError

    async def scenario(site: SiteUnderTest) -> None:
        a = await site.join(A, ScriptedHandler())
        handler = ScriptedHandler(never)
        b = await site.join(B, handler)
        await wait_live(a, B)
        await wait_live(b, A)
        raised: list[P2pdError] = []

        async def ask() -> None:
            try:
                await a.request(B, Query(DIGEST), math.inf)
            except P2pdError as error:
                raised.append(error)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            await handler.wait_until(lambda h: len(h.asked) == 1)
            left_at = trio.current_time()
            site.leave(B)
            await wait_live(a)
        assert trio.current_time() - left_at < 1
        assert isinstance(raised[0], PeerUnavailable)
        assert "left" in str(raised[0])
        assert b.live() == []

    play(scenario)


@pytest.mark.parametrize(("busy", "not_before", "at_most"), [(True, 1.5, 4), (False, 9, 16)])
def test_who_vanishes_is_noticed_by_its_silence(
    play: Play, busy: bool, not_before: float, at_most: float
) -> None:
    async def scenario(site: SiteUnderTest) -> None:
        a = await site.join(A, ScriptedHandler())
        await site.join(B, ScriptedHandler())
        c = await site.join(C, ScriptedHandler())
        await wait_live(a, B, C)
        await wait_live(c, A, B)
        a.set_busy(busy)
        gone_at = trio.current_time()
        site.vanish(B)
        await wait_live(a, C)
        took = trio.current_time() - gone_at
        # Real clocks on a loaded machine may be late by some; the bound that counts is virtual.
        assert not_before <= took <= at_most

    play(scenario)


def test_becoming_busy_shortens_the_wait_but_does_not_kill_the_living(play: Play) -> None:
    async def scenario(site: SiteUnderTest) -> None:
        a = await site.join(A, ScriptedHandler())
        await site.join(B, ScriptedHandler())
        await site.join(C, ScriptedHandler())
        await wait_live(a, B, C)
        changes: list[int] = []
        a.on_change(lambda: changes.append(len(a.live())))
        await trio.sleep(4.5)
        site.vanish(B)
        a.set_busy(True)
        gone_at = trio.current_time()
        await wait_live(a, C)
        assert trio.current_time() - gone_at <= 4
        await trio.sleep(5)
        assert changes == [1]

    play(scenario)


def test_who_comes_back_is_live_again(play: Play) -> None:
    async def scenario(site: SiteUnderTest) -> None:
        a = await site.join(A, ScriptedHandler())
        await site.join(B, ScriptedHandler())
        await wait_live(a, B)
        for depart in (site.leave, site.vanish):
            depart(B)
            again = ScriptedHandler()
            b = await site.join(B, again)
            await wait_live(b, A)
            # After a power cut the old link may still look live: until it is asked, or silent too long.
            while not again.asked:
                await wait_live(a, B)
                try:
                    await a.request(B, Query(DIGEST), 1)
                except PeerUnavailable:
                    await trio.sleep(1)

    play(scenario)


def test_a_partition_and_its_end(play: Play) -> None:
    async def scenario(site: SiteUnderTest) -> None:
        a = await site.join(A, ScriptedHandler())
        b = await site.join(B, ScriptedHandler())
        c = await site.join(C, ScriptedHandler())
        for peers in (a, b, c):
            peers.set_busy(True)
        await wait_live(a, B, C)
        await wait_live(b, A, C)
        site.partition(A, B)
        await wait_live(a, C)
        await wait_live(b, C)
        assert [peer.node_id for peer in c.live()] == [A, B]
        site.heal(A, B)
        await wait_live(a, B, C)
        await wait_live(b, A, C)

    play(scenario)
