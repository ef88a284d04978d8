"""One connection between two nodes: framing, Hello, and the dialling side with its requests.

A node dials every other node and asks on that connection; on the one the other dialled it answers
(p2pd.io.peer_server). Two connections a pair need no rule for who keeps which.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from itertools import count
from typing import cast

import trio

from p2pd.model.errors import P2pdError, PeerFault, PeerProtocolError, PeerUnavailable
from p2pd.model.messages import Hello, Ping, Refused, Reply, Request
from p2pd.ports.peers import Peer
from p2pd.wire.codec import Envelope, decode, encode
from p2pd.wire.exchange import check_reply, error_of
from p2pd.wire.frames import FRAME_LIMIT, FrameBuffer

__all__ = ["Connection", "PeerLink", "Timing"]

QUEUE_MESSAGES = 1024
QUEUE_BYTES = 4 * 1024 * 1024
_BATCH = 64 * 1024
_RECEIVE = 64 * 1024

_IN_USE = 10.0
"""Seconds after the last message for which a link of a node with very many is watched like any other."""

_LATE = 0.25
"""A timer this late, seconds, says that this process was held up: a peer's silence then proves nothing."""


@dataclass(frozen=True, slots=True)
class Timing:
    """Deadlines and intervals of the control plane, in seconds."""

    dial: float = 3.0
    hello: float = 3.0
    write: float = 15.0
    probe: float = 2.0
    busy_ping: float = 1.0
    busy_dead: float = 3.0
    idle_ping: float = 5.0
    idle_dead: float = 15.0
    crowd_ping: float = 15.0
    crowd_dead: float = 45.0
    backoff_first: float = 0.5
    backoff_last: float = 15.0
    rare: float = 60.0


class Connection:
    """Frames over a byte stream. What the stream raises comes out as PeerUnavailable."""

    def __init__(self, stream: trio.abc.Stream, timing: Timing) -> None:
        self._stream = stream
        self._timing = timing
        self._buffer = FrameBuffer()
        self._writing = trio.Lock()
        self.heard_at = trio.current_time()

    async def exchange_hello(self, mine: Hello) -> Hello:
        """Introduce ourselves and learn who is there; raises PeerProtocolError, PeerUnavailable."""
        try:
            with trio.fail_after(self._timing.hello):
                await self.send(encode(mine))
                envelope = await self.receive()
        except trio.TooSlowError as error:
            raise PeerUnavailable(f"no Hello within {self._timing.hello:g} s") from error
        if not isinstance(envelope.message, Hello):
            raise PeerProtocolError("first message is not a Hello")
        self._buffer.limit = FRAME_LIMIT
        return envelope.message

    async def send(self, frames: bytes) -> None:
        """Write whole frames. After an error or a cancellation the connection must not be used."""
        try:
            self._writing.acquire_nowait()  # `acquire` would pause even where nobody writes
        except trio.WouldBlock:
            await self._writing.acquire()
        try:
            with trio.fail_after(self._timing.write):
                await self._stream.send_all(frames)
        except trio.TooSlowError as error:
            raise PeerUnavailable(f"took nothing for {self._timing.write:g} s") from error
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise PeerUnavailable("connection is broken") from error
        finally:
            self._writing.release()

    async def write(self, frames: bytes | bytearray) -> None:
        """`send` for the one task that writes here and is watched from outside: no turn, no deadline."""
        try:
            await self._stream.send_all(frames)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise PeerUnavailable("connection is broken") from error

    async def receive(self) -> Envelope:
        """The next message. Those that came together are given without a pause."""
        while (frame := self._buffer.next_frame()) is None:
            try:
                data = await self._stream.receive_some(_RECEIVE)
            except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
                raise PeerUnavailable("connection is broken") from error
            if not data:
                raise PeerUnavailable("connection was closed")
            self.heard_at = trio.current_time()
            self._buffer.feed(data)
        return decode(frame)


@dataclass(slots=True, eq=False)
class _Pending:
    done: trio.Event = field(default_factory=trio.Event)
    reply: Reply | None = None
    error: P2pdError | None = None


class PeerLink:
    """Our connection to one peer after Hello: requests, notices, and watching that it lives."""

    def __init__(
        self,
        connection: Connection,
        peer: Peer,
        control_port: int,
        timing: Timing,
        busy: bool,
        in_crowd: Callable[[], bool],
        on_close: Callable[[PeerLink], None],
    ) -> None:
        self.peer = peer
        self.control_port = control_port
        self.error: PeerFault | None = None
        self._connection = connection
        self._timing = timing
        self._busy = busy
        self._in_crowd = in_crowd
        self._on_close = on_close
        self._watch_again = trio.Event()
        self._excused_at = self._heard_at = self._sent_at = self._used_at = trio.current_time()
        self._numbers = count(1)
        self._pending: dict[int, _Pending] = {}
        self._queue: deque[bytes] = deque()
        self._queued_bytes = 0
        self._queue_filled = trio.Event()
        self._scope = trio.CancelScope()

    async def run(self) -> None:
        """Work until the link ends; `error` then says why."""
        try:
            with self._scope:
                async with trio.open_nursery() as nursery:
                    for job in (self._read, self._write, self._watch):
                        nursery.start_soon(self._end_link_on_fault, job)
        finally:
            self.close(PeerUnavailable("link was closed"))

    def close(self, error: PeerFault) -> None:
        """End the link: every waiting request gets PeerUnavailable. Only the first error counts."""
        if self.error is None:
            self.error = error
            for pending in self._pending.values():
                pending.done.set()
            self._scope.cancel()
            self._on_close(self)

    def set_busy(self, busy: bool) -> None:
        if busy and not self._busy:
            # Up to `idle_ping` of silence was in order until now.
            self._excused_at = trio.current_time()
        self._busy = busy
        self._watch_again.set()

    async def request(self, request: Request, within: float) -> Reply:
        """See p2pd.ports.peers.Peers.request."""
        self._use()
        number, pending = next(self._numbers), _Pending()
        self._pending[number] = pending
        try:
            self._post(encode(request, number))
            if self.error is not None:
                await trio.lowlevel.checkpoint()
            else:
                with trio.move_on_after(within):
                    await pending.done.wait()
        finally:
            del self._pending[number]
        return self._settle(request, pending, within)

    def post_nowait(self, frame: bytes, *, is_use: bool = True) -> None:
        """Send an encoded notice; where it is no use, the link is not watched the closer for it."""
        if is_use:
            self._use()
        self._post(frame)

    def heard_nowait(self) -> None:
        """The peer spoke on its own connection."""
        self._heard_at = trio.current_time()

    def ping_nowait(self) -> None:
        """Make a peer that was restarted without a word reset this connection."""
        self._post(encode(Ping(), next(self._numbers)))

    async def is_alive(self) -> bool:
        """Ask now, instead of waiting for the next ping to stay unanswered."""
        try:
            await self.request(Ping(), self._timing.probe)
        except PeerFault:
            return False
        return True

    def _settle(self, request: Request, pending: _Pending, within: float) -> Reply:
        name = f"peer {self.peer.node_id[:12]}"
        if pending.reply is None:
            if pending.error is not None:
                raise pending.error
            if self.error is not None:
                raise PeerUnavailable(f"{name} left: {self.error}") from self.error
            raise PeerUnavailable(f"{name} did not answer {type(request).__name__} within {within:g} s")
        if isinstance(pending.reply, Refused):
            raise error_of(self.peer.node_id, pending.reply)
        try:
            check_reply(request, pending.reply)
        except PeerProtocolError as error:
            self.close(error)
            raise
        return pending.reply

    def _post(self, frame: bytes) -> None:
        if self.error is not None:
            return
        if len(self._queue) >= QUEUE_MESSAGES or self._queued_bytes + len(frame) > QUEUE_BYTES:
            self.close(PeerUnavailable(f"it does not take its messages ({len(self._queue)} are waiting)"))
            return
        self._queue.append(frame)
        self._queued_bytes += len(frame)
        self._queue_filled.set()

    async def _end_link_on_fault(self, job: Callable[[], Awaitable[None]]) -> None:
        try:
            await job()
        except PeerFault as error:
            self.close(error)

    async def _write(self) -> None:
        while True:
            await self._queue_filled.wait()
            batch = bytearray()
            while self._queue and len(batch) < _BATCH:
                batch += self._queue.popleft()
            self._queued_bytes -= len(batch)
            if not self._queue:
                self._queue_filled = trio.Event()
            self._sent_at = trio.current_time()
            await self._connection.write(batch)

    async def _read(self) -> None:
        while True:
            envelope = await self._connection.receive()
            if not envelope.is_reply:
                raise PeerProtocolError("something else than a reply came where only replies belong")
            pending = self._pending.get(envelope.correlation)
            # None: the asker was cancelled or gave up, or it answers one of our pings.
            if pending is None or pending.done.is_set():
                continue
            if envelope.message is None:
                pending.error = PeerProtocolError(f"reply of unknown type {envelope.type}")
            else:
                pending.reply = cast(Reply, envelope.message)
            pending.done.set()

    def _patience(self, now: float) -> tuple[float, float]:
        """Seconds of silence before a ping, and before the end."""
        timing = self._timing
        if self._in_crowd() and now - self._used_at > _IN_USE:
            return timing.crowd_ping, timing.crowd_dead
        return (timing.busy_ping, timing.busy_dead) if self._busy else (timing.idle_ping, timing.idle_dead)

    def _use(self) -> None:
        now = trio.current_time()
        if self._in_crowd() and now - self._used_at > _IN_USE:
            self._excused_at = now
            self._watch_again.set()
        self._used_at = now

    async def _watch(self) -> None:
        """End the link when the peer is silent, and ask it before: not one that speaks anyway.

        A peer that does not take what is written to it hears no ping either, and is silent.
        """
        pinged_at = -float("inf")
        while True:
            self._watch_again = trio.Event()
            timing = self._timing
            now = trio.current_time()
            every, dead = self._patience(now)
            heard_at = max(self._connection.heard_at, self._heard_at)
            dead_at = max(heard_at, self._excused_at) + dead
            if now >= dead_at:
                raise PeerUnavailable(f"it was silent for {dead:g} s")
            # Its server ends a connection on which nothing is said.
            ping_at = max(
                pinged_at + every, min(heard_at + every, self._sent_at + max(every, timing.idle_ping))
            )
            if now >= ping_at:
                self.ping_nowait()
                pinged_at, ping_at = now, now + every
            due = min(dead_at, ping_at)
            with trio.move_on_at(due):
                await self._watch_again.wait()
            if trio.current_time() > due + _LATE:
                self._excused_at = trio.current_time()
