"""The control plane's manners towards addresses and peers of every sort, in virtual time."""

from __future__ import annotations

import msgpack  # type: ignore[import-untyped]  # ships no types
import pytest
import structlog
import trio
import trio.testing

from p2pd.io import peers
from p2pd.io.peer_link import QUEUE_MESSAGES
from p2pd.io.peers import PeerNetwork
from p2pd.model.errors import OurFault, PeerProtocolError, PeerUnavailable
from p2pd.model.messages import (
    Hello,
    Message,
    Notice,
    Ping,
    Pong,
    Progress,
    ProgressBatch,
    Query,
    Wanted,
)
from p2pd.wire.codec import encode
from tests.support.memory_lan import (
    DIGEST,
    HELLO_B,
    A,
    B,
    accept,
    answer_pings,
    open_lan,
    wait_live,
)
from tests.support.peer_handlers import ScriptedHandler


async def test_a_dead_address_is_dialled_with_growing_pauses(autojump_clock: trio.testing.MockClock) -> None:
    async with open_lan() as lan:
        network = await lan.node()
        network.add_address("10.0.0.2", 7781)
        await trio.sleep(100)
        pauses = [after - before for before, after in zip(lan.tried, lan.tried[1:], strict=False)]
        for pause, nominal in zip(pauses, [0.5, 1, 2, 4, 8, 15, 15], strict=False):
            assert 0.8 * nominal <= pause <= nominal
        tries = len(lan.tried)
        network.add_address("10.0.0.2", 7781)
        await trio.sleep(0.1)
        assert len(lan.tried) == tries + 1


async def test_our_own_address_is_dropped(autojump_clock: trio.testing.MockClock) -> None:
    async with open_lan() as lan:
        network = await lan.node()
        lan.up.add(("10.0.0.1", 7781))
        network.add_address("10.0.0.1", 7781)
        _, wire = await accept(lan, Hello(A, "shop", 6881, 7781))
        assert await wire.receive() is None
        await trio.sleep(1000)
        assert len(lan.tried) == 1
        assert network.live() == []


@pytest.mark.parametrize("dials", [True, False])
@pytest.mark.parametrize(("instance", "yields"), [(0, True), (2**53 - 1, False)])
async def test_of_two_nodes_with_one_id_one_takes_another(
    autojump_clock: trio.testing.MockClock, dials: bool, instance: int, yields: bool
) -> None:
    twins: list[str] = []
    hello = Hello(A, "shop", 6881, 7781, instance)
    async with open_lan() as lan:
        network = await lan.node(on_twin=twins.append)
        if dials:
            lan.up.add(("10.0.0.2", 7781))
            network.add_address("10.0.0.2", 7781)
            _, wire = await accept(lan, hello)
        else:
            wire = lan.connect(network)
            await wire.send(hello)
            assert await wire.receive() is not None
        assert await wire.receive() is None
        assert network.live() == []
    assert twins == (["10.0.0.2"] if yields else [])


async def test_a_node_that_dials_itself_keeps_its_id(autojump_clock: trio.testing.MockClock) -> None:
    twins: list[str] = []
    async with open_lan() as lan:
        network = await lan.node(on_twin=twins.append)
        wire = lan.connect(network, "10.0.0.1")
        lan.up.add(("10.0.0.1", 7781))
        network.add_address("10.0.0.1", 7781)
        _, dialled = await lan.dialled()
        ours = await dialled.receive()
        assert ours is not None
        assert isinstance(ours.message, Hello)
        for one in (wire, dialled):
            await one.send(ours.message)
        assert await dialled.receive() is None
    assert twins == []


@pytest.mark.parametrize("hello", [encode(Hello(B, "office", 6881, 7781)), None])
async def test_another_site_or_version_is_left_out_with_one_line(
    autojump_clock: trio.testing.MockClock, hello: bytes | None
) -> None:
    if hello is None:
        body = msgpack.packb([2, 1, 0, {"what": "ever"}][:3])
        hello = len(body).to_bytes(4, "big") + body
    with structlog.testing.capture_logs() as logs:
        async with open_lan() as lan:
            network = await lan.node()
            lan.up.add(("10.0.0.2", 7781))
            network.add_address("10.0.0.2", 7781)
            for _ in range(5):
                _, wire = await lan.dialled()
                await wire.stream.send_all(hello)
                while await wire.receive() is not None:
                    pass
            assert network.live() == []
            assert lan.tried[-1] - lan.tried[0] >= 4 * 48
    assert [entry["event"] for entry in logs if entry["log_level"] == "warning"] == ["peer left out"]


async def test_who_dials_us_is_dialled_back(autojump_clock: trio.testing.MockClock) -> None:
    async with open_lan() as lan:
        network = await lan.node()
        lan.up.add(("10.0.0.2", 7781))
        await lan.introduced(network)
        host, _ = await accept(lan)
        assert host == "10.0.0.2"
        await wait_live(network, "10.0.0.2")


async def test_a_second_address_is_kept_for_when_the_first_dies(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_lan() as lan:
        network = await lan.node()
        lan.up.add(("10.9.0.2", 7781))
        first = await lan.live(network)
        lan.nursery.start_soon(answer_pings, first)
        network.add_address("10.9.0.2", 7781)
        _, second = await accept(lan)
        assert await second.receive() is None
        await trio.sleep(100)
        assert [peer.host for peer in network.live()] == ["10.0.0.2"]
        assert len(lan.tried) == 2
        lan.up.discard(("10.0.0.2", 7781))
        died_at = trio.current_time()
        await first.stream.aclose()
        await accept(lan)
        await wait_live(network, "10.9.0.2")
        assert trio.current_time() - died_at < 0.1


async def test_a_node_that_moved_is_live_again_before_its_old_link_times_out(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_lan() as lan:
        network = await lan.node()
        lan.up.add(("10.0.0.9", 7781))
        await lan.live(network)
        moved_at = trio.current_time()
        network.add_address("10.0.0.9", 7781)
        await accept(lan)
        await wait_live(network, "10.0.0.9")
        assert trio.current_time() - moved_at == pytest.approx(2)


async def test_silence_ends_a_link_after_3_seconds_busy_and_15_idle(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_lan() as lan:
        network = await lan.node()
        lan.up.add(("10.0.0.2", 7781))
        network.add_address("10.0.0.2", 7781)
        for busy, seconds in ((False, 15.0), (True, 3.0)):
            network.set_busy(busy)
            await accept(lan)
            await wait_live(network, "10.0.0.2")
            since = trio.current_time()
            await wait_live(network)
            assert trio.current_time() - since == pytest.approx(seconds)


async def test_an_idle_link_that_answers_lives_and_is_asked_every_5_seconds(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_lan() as lan:
        network = await lan.node()
        wire = await lan.live(network)
        pings = 0
        with trio.move_on_after(101):
            while (envelope := await wire.receive()) is not None:
                pings += 1
                await wire.send(Pong(), envelope.correlation)
        assert pings == 20
        assert len(network.live()) == 1


async def test_a_peer_that_speaks_is_not_asked_whether_it_lives(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Not often, that is: its own server ends connections on which nothing is said."""
    async with open_lan() as lan:
        network = await lan.node()
        network.set_busy(True)
        wire = await lan.live(network)
        theirs = await lan.introduced(network)
        first = await wire.receive()
        assert first is not None
        assert isinstance(first.message, Ping), "who dials may have been restarted"
        asked = []

        async def note_pings() -> None:
            while (envelope := await wire.receive()) is not None:
                asked.append(trio.current_time())
                await wire.send(Pong(), envelope.correlation)

        lan.nursery.start_soon(note_pings)
        for _ in range(60):
            await theirs.send(ProgressBatch(()))
            await trio.sleep(0.7)
        assert 8 <= len(asked) <= 9
        assert len(network.live()) == 1


@pytest.mark.parametrize(("notice", "most"), [(Wanted(DIGEST), 2), (ProgressBatch(()), 12)])
async def test_an_announcement_to_a_crowd_is_no_use_of_its_links(
    notice: Notice, most: int, monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    monkeypatch.setattr(peers, "_CROWD", 0)
    async with open_lan() as lan:
        network = await lan.node()
        network.set_busy(True)
        wire = await lan.live(network)
        asked = 0

        async def count_pings() -> None:
            nonlocal asked
            while (envelope := await wire.receive()) is not None:
                if isinstance(envelope.message, Ping):
                    asked += 1
                    await wire.send(Pong(), envelope.correlation)

        lan.nursery.start_soon(count_pings)
        await trio.sleep(30)
        asked = 0
        network.notify_nowait([peer.node_id for peer in network.live()], notice)
        await trio.sleep(20)
        assert most - 2 <= asked <= most
        assert len(network.live()) == 1


async def test_a_peer_that_takes_nothing_is_dropped(autojump_clock: trio.testing.MockClock) -> None:
    async with open_lan() as lan:
        network = await lan.node()
        await lan.live(network)
        notice = Progress(DIGEST, 1, b"\x00", b"\x00", "none")
        for _ in range(QUEUE_MESSAGES + 1):
            network.notify_nowait([B], notice)
        assert network.live() == []
        with pytest.raises(PeerUnavailable):
            await network.request(B, Ping(), 1)


@pytest.mark.parametrize("reply", [Ping(), HELLO_B, Progress(DIGEST, 1, b"\x00", b"\x00", "none")])
async def test_only_replies_belong_on_the_connection_we_dialled(
    autojump_clock: trio.testing.MockClock, reply: Message
) -> None:
    async with open_lan() as lan:
        network = await lan.node()
        wire = await lan.live(network)
        await wire.send(reply, 1)
        await wait_live(network)


async def test_an_unknown_reply_fails_its_request_only(autojump_clock: trio.testing.MockClock) -> None:
    async with open_lan() as lan:
        network = await lan.node()
        wire = await lan.live(network)

        async def answer_strangely() -> None:
            while (envelope := await wire.receive()) is not None:
                body = msgpack.packb([1, 0x6E, envelope.correlation, "new"])
                await wire.stream.send_all(len(body).to_bytes(4, "big") + body)

        lan.nursery.start_soon(answer_strangely)
        with pytest.raises(PeerProtocolError, match="unknown type"):
            await network.request(B, Query(DIGEST), 5)
        assert len(network.live()) == 1


async def test_a_request_cancelled_at_any_point_leaves_nothing_behind(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_lan() as lan:
        network = await lan.node()
        wire = await lan.live(network)
        for after in (0.0, 0.001, 1.0):
            with trio.move_on_after(after) as scope:
                await network.request(B, Query(DIGEST), 60)
            assert scope.cancelled_caught
        assert network._links[B]._pending == {}
        lan.nursery.start_soon(answer_pings, wire)
        assert await network.request(B, Ping(), 5) == Pong()


async def test_addresses_are_bounded_and_static_ones_stay(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peers, "_ADDRESSES", 50)
    async with open_lan() as lan:
        network = await lan.node()
        network.add_address("10.0.0.2", 7781, is_static=True)
        for number in range(200):
            network.add_address("10.1.0.1", 1 + number)
            if number % 10 == 0:
                await trio.sleep(1)
        assert len(network._addresses) == 50
        assert ("10.0.0.2", 7781) in network._addresses


async def test_a_port_in_use_is_one_clear_error() -> None:
    listener, *_ = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listener.socket.getsockname()[1]
    async with listener:
        with pytest.raises(OurFault, match=f"cannot listen for peers on 127.0.0.1:{port}"):
            await PeerNetwork(A, "shop", 1, ScriptedHandler()).run("127.0.0.1", port)


async def test_a_shunned_host_is_left_out_both_ways_until_its_time_is_over(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_lan() as lan:
        network = await lan.node()
        wire = await lan.live(network)
        lan.nursery.start_soon(answer_pings, wire)
        theirs = await lan.introduced(network)
        network.shun("10.0.0.2", "it lied", 600)
        assert network.live() == []
        await theirs.send(Ping(), 1)
        assert await theirs.receive() is None
        await trio.sleep(500)
        assert network.live() == []
        assert len(lan.tried) == 1
        _, wire = await accept(lan)
        lan.nursery.start_soon(answer_pings, wire)
        await wait_live(network, "10.0.0.2")
        assert trio.current_time() > 600
