"""The control plane's manners towards addresses and peers of every sort, in virtual time.

Nodes are joined by in-memory streams; their listeners are real but nobody connects to them.
"""

from __future__ import annotations

import errno
import math
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field

import msgpack  # type: ignore[import-untyped]  # ships no types
import pytest
import structlog
import trio
import trio.testing

from p2pd.io.peer_link import QUEUE_MESSAGES, Timing
from p2pd.io.peer_server import Limits, LogLimit, PeerServer
from p2pd.io.peers import PeerNetwork
from p2pd.model.errors import OurFault, PeerFault, PeerProtocolError, PeerUnavailable
from p2pd.model.messages import (
    Hello,
    Message,
    Ping,
    Pong,
    Progress,
    Query,
    QueryReply,
    Refused,
    Reply,
    Request,
)
from p2pd.model.reference import Digest
from p2pd.wire.codec import FRAME_LIMIT, Envelope, FrameBuffer, decode, encode
from tests.support.peer_handlers import ScriptedHandler

A, B = "a" * 16, "b" * 16
DIGEST = Digest("5e" * 32)
HELLO_B = Hello(B, "shop", 6881, 7781)


@dataclass
class Wire:
    """The far end of a connection, spoken by hand."""

    stream: trio.abc.Stream
    buffer: FrameBuffer = field(default_factory=lambda: FrameBuffer(FRAME_LIMIT))

    async def send(self, message: Message, correlation: int = 0) -> None:
        await self.stream.send_all(encode(message, correlation))

    async def receive(self) -> Envelope | None:
        """The next message, None at the end of the stream."""
        while (frame := self.buffer.next_frame()) is None:
            data = await self.stream.receive_some()
            if not data:
                return None
            self.buffer.feed(data)
        return decode(frame)


@dataclass
class Lan:
    """What dials reach: the far ends come out of `dialled`, for addresses that are in `up`."""

    nursery: trio.Nursery
    up: set[tuple[str, int]] = field(default_factory=set)
    tried: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._send, self._receive = trio.open_memory_channel[tuple[str, Wire]](math.inf)

    async def dial(self, host: str, port: int) -> tuple[trio.abc.Stream, str]:
        self.tried.append(trio.current_time())
        if (host, port) not in self.up:
            raise OSError("refused")
        near, far = trio.testing.memory_stream_pair()
        await self._send.send((host, Wire(far)))
        return near, host

    async def dialled(self) -> tuple[str, Wire]:
        return await self._receive.receive()

    async def node(self, handler: ScriptedHandler | None = None, limits: Limits | None = None) -> PeerNetwork:
        network = PeerNetwork(A, "shop", 6881, handler or ScriptedHandler(), dial=self.dial, limits=limits)
        await self.nursery.start(network.run, "127.0.0.1", 0)
        return network

    def connect(self, network: PeerNetwork, host: str = "10.0.0.2") -> Wire:
        near, far = trio.testing.memory_stream_pair()
        self.nursery.start_soon(network.serve, far, host)
        return Wire(near)

    async def introduced(self, network: PeerNetwork, host: str = "10.0.0.2") -> Wire:
        """A connection to `network` past Hello."""
        wire = self.connect(network, host)
        await wire.send(HELLO_B)
        envelope = await wire.receive()
        assert envelope is not None
        assert isinstance(envelope.message, Hello)
        return wire


@asynccontextmanager
async def open_lan() -> AsyncGenerator[Lan, None]:
    async with trio.open_nursery() as nursery:
        yield Lan(nursery)
        nursery.cancel_scope.cancel()


async def accept(lan: Lan, hello: Hello = HELLO_B) -> tuple[str, Wire]:
    host, wire = await lan.dialled()
    await wire.send(hello)
    first = await wire.receive()
    assert first is not None
    assert isinstance(first.message, Hello)
    return host, wire


async def answer_pings(wire: Wire) -> None:
    with suppress(trio.ClosedResourceError):
        while (envelope := await wire.receive()) is not None:
            await wire.send(Pong(), envelope.correlation)


async def wait_live(network: PeerNetwork, *hosts: str) -> None:
    changed = [trio.Event()]
    network.on_change(lambda: changed[0].set())
    while [peer.host for peer in network.live()] != list(hosts):
        await changed[0].wait()
        changed[0] = trio.Event()


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


async def test_no_hello_in_time(autojump_clock: trio.testing.MockClock) -> None:
    async with open_lan() as lan:
        network = await lan.node()
        wire = lan.connect(network)
        started = trio.current_time()
        assert isinstance((await wire.receive() or Envelope(0, 0, None)).message, Hello)
        assert await wire.receive() is None
        assert trio.current_time() - started == pytest.approx(3)


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
        lan.up |= {("10.0.0.2", 7781), ("10.9.0.2", 7781)}
        network.add_address("10.0.0.2", 7781)
        _, first = await accept(lan)
        lan.nursery.start_soon(answer_pings, first)
        await wait_live(network, "10.0.0.2")
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
        lan.up |= {("10.0.0.2", 7781), ("10.0.0.9", 7781)}
        network.add_address("10.0.0.2", 7781)
        await accept(lan)
        await wait_live(network, "10.0.0.2")
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
        lan.up.add(("10.0.0.2", 7781))
        network.add_address("10.0.0.2", 7781)
        _, wire = await accept(lan)
        pings = 0
        with trio.move_on_after(101):
            while (envelope := await wire.receive()) is not None:
                pings += 1
                await wire.send(Pong(), envelope.correlation)
        assert pings == 21
        assert len(network.live()) == 1


async def test_a_peer_that_takes_nothing_is_dropped(autojump_clock: trio.testing.MockClock) -> None:
    async with open_lan() as lan:
        network = await lan.node()
        lan.up.add(("10.0.0.2", 7781))
        network.add_address("10.0.0.2", 7781)
        await accept(lan)
        await wait_live(network, "10.0.0.2")
        notice = Progress(DIGEST, 1, b"\x00", b"\x00", "none")
        for _ in range(QUEUE_MESSAGES + 1):
            network.notify_nowait(B, notice)
        assert network.live() == []
        with pytest.raises(PeerUnavailable):
            await network.request(B, Ping(), 1)


@pytest.mark.parametrize("reply", [Ping(), HELLO_B, Progress(DIGEST, 1, b"\x00", b"\x00", "none")])
async def test_only_replies_belong_on_the_connection_we_dialled(
    autojump_clock: trio.testing.MockClock, reply: Message
) -> None:
    async with open_lan() as lan:
        network = await lan.node()
        lan.up.add(("10.0.0.2", 7781))
        network.add_address("10.0.0.2", 7781)
        _, wire = await accept(lan)
        await wait_live(network, "10.0.0.2")
        await wire.send(reply, 1)
        await wait_live(network)


async def test_an_unknown_reply_fails_its_request_only(autojump_clock: trio.testing.MockClock) -> None:
    async with open_lan() as lan:
        network = await lan.node()
        lan.up.add(("10.0.0.2", 7781))
        network.add_address("10.0.0.2", 7781)
        _, wire = await accept(lan)
        await wait_live(network, "10.0.0.2")

        async def answer_strangely() -> None:
            while (envelope := await wire.receive()) is not None:
                body = msgpack.packb([1, 0x6E, envelope.correlation, "new"])
                await wire.stream.send_all(len(body).to_bytes(4, "big") + body)

        lan.nursery.start_soon(answer_strangely)
        with pytest.raises(PeerProtocolError, match="unknown type"):
            await network.request(B, Query(DIGEST), 5)
        assert len(network.live()) == 1


async def test_bytes_one_by_one_are_served_like_any_other(autojump_clock: trio.testing.MockClock) -> None:
    async with open_lan() as lan:
        network = await lan.node()
        wire = lan.connect(network)
        for byte in encode(HELLO_B) + encode(Query(DIGEST), 5):
            await wire.stream.send_all(bytes([byte]))
        assert isinstance((await wire.receive() or Envelope(0, 0, None)).message, Hello)
        answer = await wire.receive()
        assert answer is not None
        assert (answer.correlation, answer.message) == (5, QueryReply(7, None))


async def test_an_unknown_request_is_refused_and_an_unknown_notice_ignored(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_lan() as lan:
        network = await lan.node()
        wire = await lan.introduced(network)
        for number, correlation in ((0x7E, 0), (0x3E, 8)):
            body = msgpack.packb([1, number, correlation, "new"])
            await wire.stream.send_all(len(body).to_bytes(4, "big") + body)
        answer = await wire.receive()
        assert answer is not None
        assert answer.correlation == 8
        assert isinstance(answer.message, Refused)
        assert answer.message.kind == "unsupported"


@pytest.mark.parametrize(
    "garbage", [b"GET / HTTP/1.1\r\n\r\n", b"\x00" * 64, b"\xff" * 5000, b"\x00\x00\x00\x01\x90"]
)
@pytest.mark.parametrize("after_hello", [False, True])
async def test_garbage_ends_its_connection_with_one_line_a_minute(
    autojump_clock: trio.testing.MockClock, garbage: bytes, after_hello: bool
) -> None:
    with structlog.testing.capture_logs() as logs:
        async with open_lan() as lan:
            network = await lan.node()
            for _ in range(20):
                wire = await lan.introduced(network) if after_hello else lan.connect(network)
                await wire.stream.send_all(garbage)
                while await wire.receive() is not None:
                    pass
    assert sum(entry["log_level"] == "warning" for entry in logs) == 1


async def test_a_handler_that_fails_is_refused_and_logged(autojump_clock: trio.testing.MockClock) -> None:
    async def fail(request: Request) -> Reply:
        raise ZeroDivisionError

    with structlog.testing.capture_logs() as logs:
        async with open_lan() as lan:
            network = await lan.node(ScriptedHandler(fail))
            wire = await lan.introduced(network)
            await wire.send(Query(DIGEST), 1)
            answer = await wire.receive()
            assert answer is not None
            assert isinstance(answer.message, Refused)
            assert answer.message.kind == "fault"
    assert [entry["event"] for entry in logs if entry["log_level"] == "error"] == ["request failed"]


async def test_requests_over_the_limit_are_refused_while_pings_are_answered(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async def never(request: Request) -> Reply:
        await trio.sleep_forever()
        raise AssertionError

    async with open_lan() as lan:
        network = await lan.node(ScriptedHandler(never), Limits(requests_per_connection=3))
        wire = await lan.introduced(network)
        for number in range(1, 5):
            await wire.send(Query(DIGEST), number)
        await wire.send(Ping(), 9)
        answers = [await wire.receive(), await wire.receive()]
        assert [(a.correlation, type(a.message)) for a in answers if a] == [(4, Refused), (9, Pong)]


async def test_an_answer_that_never_comes_has_a_ceiling(autojump_clock: trio.testing.MockClock) -> None:
    async def never(request: Request) -> Reply:
        await trio.sleep_forever()
        raise AssertionError

    async with open_lan() as lan:
        network = await lan.node(ScriptedHandler(never), Limits(answer=10))
        wire = await lan.introduced(network)
        await wire.send(Query(DIGEST), 1)
        answer = await wire.receive()
        assert answer is not None
        assert isinstance(answer.message, Refused)
        assert answer.message.kind == "unavailable"


async def test_a_silent_dialler_is_closed(autojump_clock: trio.testing.MockClock) -> None:
    async with open_lan() as lan:
        network = await lan.node()
        wire = await lan.introduced(network)
        since = trio.current_time()
        assert await wire.receive() is None
        assert trio.current_time() - since == pytest.approx(20)


async def test_a_request_cancelled_at_any_point_leaves_nothing_behind(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_lan() as lan:
        network = await lan.node()
        lan.up.add(("10.0.0.2", 7781))
        network.add_address("10.0.0.2", 7781)
        _, wire = await accept(lan)
        await wait_live(network, "10.0.0.2")
        for after in (0.0, 0.001, 1.0):
            with trio.move_on_after(after) as scope:
                await network.request(B, Query(DIGEST), 60)
            assert scope.cancelled_caught
        assert network._links[B]._pending == {}
        lan.nursery.start_soon(answer_pings, wire)
        assert await network.request(B, Ping(), 5) == Pong()


async def test_addresses_are_bounded_and_static_ones_stay(autojump_clock: trio.testing.MockClock) -> None:
    async with open_lan() as lan:
        network = await lan.node()
        network.add_address("10.0.0.2", 7781, is_static=True)
        for number in range(2000):
            network.add_address("10.1.0.1", 1 + number)
            if number % 100 == 0:
                await trio.sleep(1)
        assert len(network._addresses) == 512
        assert ("10.0.0.2", 7781) in network._addresses


async def test_a_port_in_use_is_one_clear_error() -> None:
    listener, *_ = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listener.socket.getsockname()[1]
    async with listener:
        with pytest.raises(OurFault, match=f"cannot listen for peers on 127.0.0.1:{port}"):
            await PeerNetwork(A, "shop", 1, ScriptedHandler()).run("127.0.0.1", port)


class _TiredListener(trio.abc.Listener[trio.SocketStream]):
    """Fails as the kernel does when descriptors run out, then goes on."""

    def __init__(self, inner: trio.SocketListener) -> None:
        self._inner = inner
        self.failures = [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ECONNABORTED]

    async def accept(self) -> trio.SocketStream:
        if self.failures:
            raise OSError(self.failures.pop(), "no more")
        return await self._inner.accept()

    async def aclose(self) -> None:
        await self._inner.aclose()


async def test_no_descriptors_left_is_survived_and_one_host_gets_few_connections() -> None:
    inner, *_ = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = inner.socket.getsockname()[1]
    listener = _TiredListener(inner)
    limits = Limits(connections_per_host=4)
    me = Hello(A, "shop", 6881, 7781)
    server = PeerServer(lambda: me, ScriptedHandler(), lambda hello, host: None, Timing(), limits)
    async with AsyncExitStack() as stack, inner, trio.open_nursery() as nursery:
        nursery.start_soon(server.listen, listener)
        streams = [
            await stack.enter_async_context(await trio.open_tcp_stream("127.0.0.1", port)) for _ in range(20)
        ]
        heads = []
        for stream in streams:
            try:
                heads.append(bool(await stream.receive_some(1)))
            except trio.BrokenResourceError:
                heads.append(False)
        assert listener.failures == []
        assert heads.count(True) == 4
        # Room is given back when connections end.
        for stream in streams:
            await stream.aclose()
        while server._open:
            await trio.testing.wait_all_tasks_blocked()
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
            assert await stream.receive_some(1)
        nursery.cancel_scope.cancel()


async def test_log_limit(autojump_clock: trio.testing.MockClock) -> None:
    limit = LogLimit(60)
    assert [limit.take() for _ in range(4)] == [0, None, None, None]
    await trio.sleep(60)
    assert limit.take() == 3
    assert issubclass(PeerProtocolError, PeerFault)
