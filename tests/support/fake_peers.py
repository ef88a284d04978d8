"""An in-memory site: any number of nodes that satisfy `p2pd.ports.peers.Peers`, without sockets.

Made for virtual time (`autojump_clock`). Every message goes through the codec, so that what the
wire would not carry fails here too.

    async with open_fake_site() as site:
        a = site.join("a" * 16, handler_a)
        b = site.join("b" * 16, handler_b)
        await a.wait_live(1)
        site.vanish(b.node_id)          # power cut: noticed after 3 s (busy) or 15 s (idle)
        site.leave(b.node_id)           # orderly end or kill -9: noticed at once
        site.stall(b.node_id)           # stays live, hears and says nothing
        site.partition(a.node_id, b.node_id); site.heal(a.node_id, b.node_id)
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import cast

import trio

from p2pd.model.errors import P2pdError, PeerProtocolError, PeerUnavailable
from p2pd.model.messages import Message, Notice, Ping, Pong, Refused, Reply, Request
from p2pd.ports.peers import Peer, PeerHandler
from p2pd.wire.codec import decode, encode
from p2pd.wire.exchange import check_reply, error_of, refusal_of

__all__ = ["FakePeers", "FakeSite", "open_fake_site"]

BUSY_DEAD = 3.0
IDLE_DEAD = 15.0
QUEUE_LIMIT = 1024


@dataclass(slots=True)
class _Pending:
    done: trio.Event = field(default_factory=trio.Event)
    reply: Reply | None = None


_Parcel = tuple[float, Callable[[], None]]


@dataclass(slots=True)
class _Link:
    """One node's outgoing way to another: parcels arrive in order, each not before it is due."""

    source: FakePeers
    target: FakePeers
    send: trio.MemorySendChannel[_Parcel]
    receive: trio.MemoryReceiveChannel[_Parcel]
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    waiting: list[_Pending] = field(default_factory=list)


def _carried(message: Message, correlation: int) -> Message:
    """What comes out at the other end of the wire."""
    try:
        received = decode(encode(message, correlation)[4:]).message
    except PeerProtocolError as error:
        raise AssertionError(f"the wire would not carry {message}") from error
    assert received == message or isinstance(message, Refused)
    assert received is not None
    return received


class FakePeers:
    """One node of a `FakeSite`."""

    def __init__(self, site: FakeSite, peer: Peer, handler: PeerHandler) -> None:
        self._site = site
        self.peer = peer
        self._handler = handler
        self._links: dict[str, _Link] = {}
        self._callbacks: list[Callable[[], None]] = []
        self._changed = trio.Event()
        self.busy = False
        self.busy_changed = trio.Event()

    @property
    def node_id(self) -> str:
        return self.peer.node_id

    def live(self) -> list[Peer]:
        return sorted((link.target.peer for link in self._links.values()), key=lambda peer: peer.node_id)

    async def wait_live(self, number: int) -> None:
        """Until exactly `number` peers are live."""
        while len(self._links) != number:
            await self._changed.wait()

    async def request(self, node_id: str, request: Request, within: float) -> Reply:
        await trio.lowlevel.checkpoint()
        link = self._links.get(node_id)
        if link is None:
            raise PeerUnavailable(f"peer {node_id} is not live")
        carried = cast(Request, _carried(request, 1))
        pending = _Pending()
        link.waiting.append(pending)
        self._post(link, lambda: self._site.start_answer(link, carried, pending))
        try:
            with trio.move_on_after(within):
                await pending.done.wait()
        finally:
            link.waiting.remove(pending)
        if pending.reply is None:
            why = "left" if pending.done.is_set() else f"did not answer within {within:g} s"
            raise PeerUnavailable(f"peer {node_id} {why}")
        if isinstance(pending.reply, Refused):
            raise error_of(node_id, pending.reply)
        check_reply(request, pending.reply)
        return pending.reply

    def notify_nowait(self, node_ids: Iterable[str], notice: Notice) -> None:
        carried = cast(Notice, _carried(notice, 0))
        for node_id in node_ids:
            link = self._links.get(node_id)
            if link is not None:
                self._post(link, partial(link.target.take_notice, self.peer, carried))

    def on_change(self, callback: Callable[[], None]) -> None:
        self._callbacks.append(callback)

    def set_busy(self, busy: bool) -> None:
        self.busy = busy
        self.busy_changed.set()
        self.busy_changed = trio.Event()

    # For FakeSite

    def link_to(self, node_id: str) -> _Link | None:
        return self._links.get(node_id)

    def add_link(self, link: _Link) -> None:
        self._links[link.target.node_id] = link
        self._tell()

    def drop_link(self, node_id: str) -> None:
        link = self._links.pop(node_id, None)
        if link is None:
            return
        link.scope.cancel()
        for pending in link.waiting:
            pending.done.set()
        self._tell()

    # An error of the handler other than P2pdError ends the test: on a real node it is logged.
    async def answer(self, peer: Peer, request: Request) -> Reply:
        if isinstance(request, Ping):
            return Pong()
        try:
            return await self._handler.answer(peer, request)
        except P2pdError as error:
            return refusal_of(error)

    def take_notice(self, peer: Peer, notice: Notice) -> None:
        self._handler.notice_nowait(peer, notice)

    def _post(self, link: _Link, deliver: Callable[[], None]) -> None:
        try:
            link.send.send_nowait((trio.current_time() + self._site.latency, deliver))
        except trio.WouldBlock:
            self.drop_link(link.target.node_id)

    def _tell(self) -> None:
        self._changed.set()
        self._changed = trio.Event()
        for callback in self._callbacks:
            callback()


class FakeSite:
    """The LAN between the nodes. Use `open_fake_site`."""

    def __init__(self, nursery: trio.Nursery, latency: float) -> None:
        self._nursery = nursery
        self.latency = latency
        self.nodes: dict[str, FakePeers] = {}
        self._stalled: set[str] = set()
        self._cut: set[frozenset[str]] = set()

    def join(
        self, node_id: str, handler: PeerHandler, host: str | None = None, swarm_port: int = 6881
    ) -> FakePeers:
        """A new node; the others know it, and it knows them, `latency` later."""
        host = host if host is not None else f"10.0.0.{len(self.nodes) + 1}"
        node = FakePeers(self, Peer(node_id, host, swarm_port), handler)
        self._stalled.discard(node_id)
        others = [other for other in self.nodes.values() if other.node_id != node_id]
        self.nodes[node_id] = node
        for other in others:
            self._nursery.start_soon(self._meet, node, other)
        return node

    def leave(self, node_id: str) -> None:
        """The node's process ends and its kernel says so: noticed at once."""
        gone = self.nodes.pop(node_id)
        for other in list(self.nodes.values()):
            other.drop_link(node_id)
            gone.drop_link(other.node_id)

    def vanish(self, node_id: str) -> None:
        """The machine loses power or its cable: others notice by its silence. It may `join` again."""
        gone = self.nodes.pop(node_id)
        for other in self.nodes.values():
            self._nursery.start_soon(self._notice_silence, other, gone)
            self._nursery.start_soon(self._notice_silence, gone, other)

    def stall(self, node_id: str) -> None:
        """The node stays live for others, but from now on no message to or from it arrives."""
        self._stalled.add(node_id)

    def partition(self, one: str, two: str) -> None:
        """No message passes between these two; each notices by silence."""
        self._cut.add(frozenset((one, two)))
        a, b = self.nodes[one], self.nodes[two]
        self._nursery.start_soon(self._notice_silence, a, b)
        self._nursery.start_soon(self._notice_silence, b, a)

    def heal(self, one: str, two: str) -> None:
        """End a partition; the two are live for each other `latency` later."""
        self._cut.discard(frozenset((one, two)))
        self._nursery.start_soon(self._meet, self.nodes[one], self.nodes[two])

    def start_answer(self, link: _Link, request: Request, pending: _Pending) -> None:
        self._nursery.start_soon(self._answer, link, request, pending)

    def _is_open(self, source: FakePeers, target: FakePeers) -> bool:
        return (
            self.nodes.get(source.node_id) is source
            and self.nodes.get(target.node_id) is target
            and not self._stalled & {source.node_id, target.node_id}
            and frozenset((source.node_id, target.node_id)) not in self._cut
        )

    async def _meet(self, one: FakePeers, two: FakePeers) -> None:
        await trio.sleep(self.latency)
        if self._is_open(one, two):
            for source, target in ((one, two), (two, one)):
                # A node that came back before its silence was noticed replaces its former self.
                source.drop_link(target.node_id)
                link = _Link(source, target, *trio.open_memory_channel[_Parcel](QUEUE_LIMIT))
                self._nursery.start_soon(self._carry, link)
                source.add_link(link)

    async def _carry(self, link: _Link) -> None:
        with link.scope:
            async for due, deliver in link.receive:
                await trio.sleep_until(due)
                if self._is_open(link.source, link.target):
                    deliver()

    async def _answer(self, link: _Link, request: Request, pending: _Pending) -> None:
        reply = cast(Reply, _carried(await link.target.answer(link.source.peer, request), 1))
        await trio.sleep(self.latency)
        if self._is_open(link.target, link.source) and not pending.done.is_set():
            pending.reply = reply
            pending.done.set()

    async def _notice_silence(self, observer: FakePeers, silent: FakePeers) -> None:
        link = observer.link_to(silent.node_id)
        since = trio.current_time()
        while True:
            changed = observer.busy_changed
            deadline = since + (BUSY_DEAD if observer.busy else IDLE_DEAD)
            if trio.current_time() >= deadline:
                break
            with trio.move_on_at(deadline):
                await changed.wait()
        if observer.link_to(silent.node_id) is link and not self._is_open(observer, silent):
            observer.drop_link(silent.node_id)


@asynccontextmanager
async def open_fake_site(latency: float = 0.001) -> AsyncGenerator[FakeSite, None]:
    """A site without nodes; everything in it ends with the context."""
    async with trio.open_nursery() as nursery:
        yield FakeSite(nursery, latency)
        nursery.cancel_scope.cancel()
