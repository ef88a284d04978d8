"""The answering side of the control plane: connections that other nodes dialled.

The port is open to the whole LAN. Connections are limited in all and per host, each has a short
deadline for its Hello and a small first frame, and one that is not the protocol is closed with a
log line that no flood can multiply.
"""

from __future__ import annotations

import socket
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import structlog
import trio

from p2pd.io.peer_link import Connection, Timing
from p2pd.model.errors import P2pdError, PeerFault, PeerProtocolError, PeerUnavailable
from p2pd.model.messages import Hello, Notice, Ping, Pong, Refused, Reply, Request
from p2pd.ports.peers import Peer, PeerHandler
from p2pd.wire.codec import Envelope, encode
from p2pd.wire.exchange import one_line, refusal_of

__all__ = ["Limits", "LogLimit", "PeerServer", "tune_socket"]

log = structlog.get_logger()

_ACCEPT_PAUSE = 0.1
_USER_TIMEOUT_MS = 15_000


@dataclass(frozen=True, slots=True)
class Limits:
    """What one node takes from others. `answer` is the ceiling of one answer, in seconds."""

    connections: int = 1280
    connections_per_host: int = 32
    requests_per_connection: int = 64
    answer: float = 300.0


class LogLimit:
    """Lets one line pass each `every` seconds, and counts those held back."""

    def __init__(self, every: float = 60.0) -> None:
        self._every = every
        self._next = -float("inf")
        self._held_back = 0

    def take(self) -> int | None:
        """None: keep quiet. Else the number of lines held back since the last one."""
        now = trio.current_time()
        if now < self._next:
            self._held_back += 1
            return None
        held_back, self._held_back = self._held_back, 0
        self._next = now + self._every
        return held_back


def tune_socket(stream: trio.SocketStream) -> None:
    """Small messages leave at once; unacknowledged ones break the connection in bounded time."""
    stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _USER_TIMEOUT_MS)


def plain_host(host: str) -> str:
    """An IPv4 address that came through an IPv6 socket, as IPv4."""
    return host.removeprefix("::ffff:") if "." in host else host


class PeerServer:
    """Serves what `handler` answers. `on_hello` learns who dialled us, `on_heard` who spoke.

    A host that `is_shunned` is refused, and thrown out with its next message.
    """

    def __init__(
        self,
        hello: Callable[[], Hello],
        handler: PeerHandler,
        on_hello: Callable[[Hello, str], None],
        on_heard: Callable[[Peer], None],
        is_shunned: Callable[[str], bool],
        timing: Timing,
        limits: Limits,
    ) -> None:
        self._hello = hello
        self._handler = handler
        self._on_hello = on_hello
        self._on_heard = on_heard
        self._is_shunned = is_shunned
        self._timing = timing
        self._limits = limits
        self._open: Counter[str] = Counter()
        self._limit_log = LogLimit()
        self._fault_log = LogLimit()
        self._accept_log = LogLimit()

    async def listen(self, listener: trio.abc.Listener[trio.SocketStream]) -> None:
        """Accept for ever: no error of one connection, and no shortage of descriptors, ends it."""
        async with trio.open_nursery() as nursery:
            while True:
                try:
                    stream = await listener.accept()
                except OSError as error:
                    if (held_back := self._accept_log.take()) is not None:
                        log.warning("cannot accept peers", error=str(error), held_back=held_back)
                    await trio.sleep(_ACCEPT_PAUSE)
                    continue
                try:
                    host = plain_host(stream.socket.getpeername()[0])
                    tune_socket(stream)
                except OSError:
                    stream.socket.close()
                    continue
                if not self._is_shunned(host) and self._has_room(host):
                    # Counted here: the task may start only after the next connection was accepted.
                    self._open[host] += 1
                    nursery.start_soon(self._serve_counted, stream, host)
                else:
                    stream.socket.close()

    async def serve(self, stream: trio.abc.Stream, host: str) -> None:
        """One connection, from Hello to its end."""
        self._open[host] += 1
        await self._serve_counted(stream, host)

    async def _serve_counted(self, stream: trio.abc.Stream, host: str) -> None:
        try:
            await self._serve(Connection(stream, self._timing), host)
        except PeerProtocolError as error:
            if (held_back := self._fault_log.take()) is not None:
                log.warning(
                    "closed a connection that is not the protocol",
                    host=host,
                    error=str(error),
                    held_back=held_back,
                )
        except PeerFault as error:
            log.debug("peer closed its connection", host=host, error=str(error))
        finally:
            self._open[host] -= 1
            if not self._open[host]:
                del self._open[host]
            await trio.aclose_forcefully(stream)

    def _has_room(self, host: str) -> bool:
        if (
            self._open[host] < self._limits.connections_per_host
            and self._open.total() < self._limits.connections
        ):
            return True
        if (held_back := self._limit_log.take()) is not None:
            log.warning(
                "too many connections, closed one", host=host, open=self._open.total(), held_back=held_back
            )
        return False

    async def _serve(self, connection: Connection, host: str) -> None:
        mine = self._hello()
        theirs = await connection.exchange_hello(mine)
        if theirs.site != mine.site:
            return  # The dialler has our Hello, and sees and logs the same.
        self._on_hello(theirs, host)
        if theirs.node_id == mine.node_id:
            return
        peer = Peer(theirs.node_id, host, theirs.swarm_port)
        # The dialler pings while idle: silence for longer than it would bear itself is its end.
        silence = self._timing.idle_dead + self._timing.idle_ping
        fault: PeerFault | None = None
        async with trio.open_nursery() as nursery:
            # One scope whose deadline moves: a new one for each message would cost more than the message.
            with trio.CancelScope(deadline=connection.heard_at + silence) as scope:
                try:
                    while True:
                        envelope = await connection.receive()
                        scope.deadline = connection.heard_at + silence
                        if self._is_shunned(host):
                            raise PeerUnavailable("it is shunned")
                        self._on_heard(peer)
                        await self._take(nursery, connection, peer, envelope)
                except PeerFault as error:
                    fault = error
            if scope.cancelled_caught:
                fault = PeerUnavailable(f"silent for {silence:g} s")
            nursery.cancel_scope.cancel()
        if fault is not None:
            raise fault

    async def _take(
        self, nursery: trio.Nursery, connection: Connection, peer: Peer, envelope: Envelope
    ) -> None:
        message = envelope.message
        if envelope.is_notice:
            if message is not None:
                self._notice(peer, cast(Notice, message))
        elif not envelope.is_request:
            raise PeerProtocolError("something else than a request or notice came")
        elif message is None:
            refused = Refused("unsupported", f"unknown request type {envelope.type}")
            await connection.send(encode(refused, envelope.correlation))
        elif isinstance(message, Ping):
            await connection.send(encode(Pong(), envelope.correlation))
        elif len(nursery.child_tasks) >= self._limits.requests_per_connection:
            # Sent from here, so that a peer which asks without reading is not read either.
            refused = Refused("busy", "too many requests at once")
            await connection.send(encode(refused, envelope.correlation))
        else:
            request = cast(Request, message)
            nursery.start_soon(self._answer, nursery, connection, peer, request, envelope.correlation)

    def _notice(self, peer: Peer, notice: Notice) -> None:
        try:
            self._handler.notice_nowait(peer, notice)
        except P2pdError as error:
            log.debug("notice not taken", peer=peer.node_id, error=one_line(str(error)))
        except Exception:
            log.exception("notice failed", peer=peer.node_id, notice=type(notice).__name__)

    async def _answer(
        self,
        nursery: trio.Nursery,
        connection: Connection,
        peer: Peer,
        request: Request,
        correlation: int,
    ) -> None:
        frame = encode(await self._reply(peer, request), correlation)
        try:
            await connection.send(frame)
        except PeerFault:
            nursery.cancel_scope.cancel()

    async def _reply(self, peer: Peer, request: Request) -> Reply:
        try:
            with trio.fail_after(self._limits.answer):
                return await self._handler.answer(peer, request)
        except P2pdError as error:
            return refusal_of(error)
        except trio.TooSlowError:
            return Refused("unavailable", f"no answer within {self._limits.answer:g} s")
        except Exception:
            log.exception("request failed", peer=peer.node_id, request=type(request).__name__)
            return Refused("fault", f"{type(request).__name__} failed; the log of that node says why")
