"""Two sites with the same controls, for the conformance suite: the fake, and real ones on loopback."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Protocol

import trio

from p2pd.io.peer_link import Timing
from p2pd.io.peers import Dial, PeerNetwork, dial_tcp
from p2pd.ports.peers import PeerHandler, Peers
from tests.support.fake_peers import open_fake_site

__all__ = ["CuttableStream", "SiteUnderTest", "open_memory_site", "open_real_site"]


class SiteUnderTest(Protocol):
    async def join(self, node_id: str, handler: PeerHandler) -> Peers: ...

    def leave(self, node_id: str) -> None: ...

    def vanish(self, node_id: str) -> None: ...

    def partition(self, one: str, two: str) -> None: ...

    def heal(self, one: str, two: str) -> None: ...


class CuttableStream(trio.abc.Stream):
    """A stream whose cable can be pulled: what is sent is lost, nothing comes, nobody is told."""

    def __init__(self, inner: trio.abc.Stream) -> None:
        self.inner = inner
        self._is_cut = False

    def cut(self) -> None:
        self._is_cut = True

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        if self._is_cut:
            await trio.lowlevel.checkpoint()
        else:
            await self.inner.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self.inner.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        data: bytes | bytearray = b""
        broken: trio.BrokenResourceError | None = None
        try:
            data = await self.inner.receive_some(max_bytes)
        except trio.BrokenResourceError as error:
            broken = error
        if self._is_cut:
            await trio.sleep_forever()
        if broken is not None:
            raise broken
        return data

    async def aclose(self) -> None:
        # The kernel of a machine without cable sends no FIN that arrives; the socket is freed at the end.
        if not self._is_cut:
            await self.inner.aclose()


@dataclass
class _RealNode:
    network: PeerNetwork
    scope: trio.CancelScope
    port: int


@dataclass
class RealSite:
    """PeerNetworks on loopback; each is told the address of every other that came before it."""

    nursery: trio.Nursery
    nodes: dict[str, _RealNode] = field(default_factory=dict)
    cables: list[tuple[frozenset[str], CuttableStream]] = field(default_factory=list)
    cut: set[frozenset[str]] = field(default_factory=set)

    async def join(self, node_id: str, handler: PeerHandler) -> PeerNetwork:
        timing = Timing(backoff_last=2.0)
        network = PeerNetwork(node_id, "shop", 6881, handler, timing=timing, dial=self._dial_from(node_id))
        scope = trio.CancelScope()

        async def run(task_status: trio.TaskStatus[tuple[str, int]]) -> None:
            with scope:
                await network.run("127.0.0.1", 0, task_status=task_status)

        _, port = await self.nursery.start(run)
        for other in self.nodes.values():
            network.add_address("127.0.0.1", other.port)
        self.nodes[node_id] = _RealNode(network, scope, port)
        return network

    def leave(self, node_id: str) -> None:
        self.nodes.pop(node_id).scope.cancel()

    def vanish(self, node_id: str) -> None:
        self._pull(lambda pair: node_id in pair)
        # It runs on, like a machine without its cable: no dial reaches it, nor does it reach anyone.
        del self.nodes[node_id]

    def partition(self, one: str, two: str) -> None:
        pair = frozenset((one, two))
        self.cut.add(pair)
        self._pull(lambda cable: cable == pair)

    def heal(self, one: str, two: str) -> None:
        self.cut.discard(frozenset((one, two)))

    def _pull(self, which: Callable[[frozenset[str]], bool]) -> None:
        for pair, stream in self.cables:
            if which(pair):
                stream.cut()

    def _dial_from(self, source: str) -> Dial:
        async def dial(host: str, port: int) -> tuple[trio.abc.Stream, str]:
            target = next((name for name, node in self.nodes.items() if node.port == port), None)
            pair = frozenset((source, target or "?"))
            if target is None or source not in self.nodes or pair in self.cut:
                raise OSError("no route to host")
            inner, address = await dial_tcp(host, port)
            stream = CuttableStream(inner)
            self.cables.append((pair, stream))
            return stream, address

        return dial


@asynccontextmanager
async def open_real_site() -> AsyncGenerator[SiteUnderTest, None]:
    cables: list[tuple[frozenset[str], CuttableStream]] = []
    try:
        async with trio.open_nursery() as nursery:
            yield RealSite(nursery, cables=cables)
            nursery.cancel_scope.cancel()
    finally:
        for _, stream in cables:
            assert isinstance(stream.inner, trio.SocketStream)
            stream.inner.socket.close()


@asynccontextmanager
async def open_memory_site() -> AsyncGenerator[SiteUnderTest, None]:
    async with open_fake_site() as site:

        class Adapter:
            leave = staticmethod(site.leave)
            vanish = staticmethod(site.vanish)
            partition = staticmethod(site.partition)
            heal = staticmethod(site.heal)

            async def join(self, node_id: str, handler: PeerHandler) -> Peers:
                return site.join(node_id, handler)

        yield Adapter()


Scenario = Callable[[SiteUnderTest], Awaitable[None]]
