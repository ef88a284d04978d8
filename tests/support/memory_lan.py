"""A LAN of in-memory streams around one real PeerNetwork: the other side is spoken by hand."""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

import trio
import trio.testing

from p2pd.io.peer_server import Limits
from p2pd.io.peers import PeerNetwork
from p2pd.model.messages import (
    Hello,
    Message,
    Pong,
)
from p2pd.model.reference import Digest
from p2pd.wire.codec import Envelope, decode, encode
from p2pd.wire.frames import FRAME_LIMIT, FrameBuffer
from tests.support.peer_handlers import ScriptedHandler

__all__ = ["DIGEST", "HELLO_B", "A", "B", "Lan", "Wire", "accept", "answer_pings", "open_lan", "wait_live"]

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

    async def node(
        self,
        handler: ScriptedHandler | None = None,
        limits: Limits | None = None,
        on_twin: Callable[[str], None] | None = None,
    ) -> PeerNetwork:
        handler = handler or ScriptedHandler()
        network = PeerNetwork(A, "shop", 6881, handler, dial=self.dial, limits=limits, on_twin=on_twin)
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

    async def live(self, network: PeerNetwork, host: str = "10.0.0.2") -> Wire:
        """Have `network` dial a node that is up; the far end of that connection, once the node is live."""
        self.up.add((host, 7781))
        network.add_address(host, 7781)
        _, wire = await accept(self)
        await wait_live(network, host)
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
