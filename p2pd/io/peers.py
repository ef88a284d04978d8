"""The control plane: links to every node of the site that an address is known of.

Each known address has a task that dials it for ever. Whoever dials us is dialled back, so that it
is enough when one of two nodes knows the other. A node is one link, whatever number of addresses
lead to it; a second way to it is tried when it stops answering on the first.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from enum import Enum, auto

import structlog
import trio

from p2pd.io.peer_link import Connection, PeerLink, Timing
from p2pd.io.peer_server import Limits, PeerServer, plain_host, tune_socket
from p2pd.model.errors import OurFault, PeerFault, PeerProtocolError, PeerUnavailable
from p2pd.model.messages import Hello, Notice, Reply, Request, Wanted
from p2pd.ports.peers import Peer, PeerHandler
from p2pd.wire.codec import IncompatibleVersion, encode

__all__ = ["Dial", "PeerNetwork", "dial_tcp"]

log = structlog.get_logger()

Dial = Callable[[str, int], Awaitable[tuple[trio.abc.Stream, str]]]
"""Connects to a host and port; gives the stream and the IP address it leads to. Raises OSError."""

_ADDRESSES = 1280
"""Most addresses kept; beyond, those that fail give way to new ones."""

_CROWD = 64
_FORGET_AFTER = 24 * 3600.0
_BACKLOG = 512


async def dial_tcp(host: str, port: int) -> tuple[trio.abc.Stream, str]:
    stream = await trio.open_tcp_stream(host, port)
    try:
        tune_socket(stream)
        return stream, plain_host(stream.socket.getpeername()[0])
    except BaseException:
        stream.socket.close()
        raise


class _Outcome(Enum):
    FAILED = auto()
    LEFT = auto()
    FOREIGN = auto()
    OURSELVES = auto()
    DUPLICATE = auto()


@dataclass(slots=True, eq=False)
class _Address:
    host: str
    port: int
    is_static: bool
    again: trio.Event = field(default_factory=trio.Event)
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    failing_since: float | None = None
    duplicate_of: str | None = None
    complained: str | None = None


class PeerNetwork:
    """Implements p2pd.ports.peers.Peers. All methods are for the event loop's thread."""

    def __init__(
        self,
        node_id: str,
        site: str,
        swarm_port: int,
        handler: PeerHandler,
        *,
        timing: Timing | None = None,
        limits: Limits | None = None,
        dial: Dial = dial_tcp,
        on_twin: Callable[[str], None] | None = None,
    ) -> None:
        """`on_twin(host)` is called when another node has this node's id, and this one is to take another."""
        self._node_id = node_id
        self._site = site
        self._swarm_port = swarm_port
        self._control_port = 0
        self._timing = timing or Timing()
        self._dial = dial
        self._shunned: dict[str, float] = {}
        self._instance = random.randrange(1, 2**53)  # noqa: S311  # tells two apart, no secret
        self._on_twin = on_twin
        self._server = PeerServer(
            self._hello, handler, self._met, self._heard, self._is_shunned, self._timing, limits or Limits()
        )
        self._links: dict[str, PeerLink] = {}
        self._addresses: dict[tuple[str, int], _Address] = {}
        self._callbacks: list[Callable[[], None]] = []
        self._busy = False
        self._nursery: trio.Nursery | None = None

    @property
    def control_port(self) -> int:
        """The port that others dial; 0 before `run` has started."""
        return self._control_port

    async def run(
        self,
        listen_host: str | None,
        listen_port: int,
        *,
        task_status: trio.TaskStatus[tuple[str, int]] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Listen, dial, and keep links until cancelled. Ready with (host, port); raises OurFault.

        `listen_host` None is every address, IPv4 and IPv6.
        """
        try:
            listeners = await trio.open_tcp_listeners(listen_port, host=listen_host, backlog=_BACKLOG)
        except OSError as error:
            where, why = f"{listen_host or '*'}:{listen_port}", error.strerror or error
            raise OurFault(
                f"cannot listen for peers on {where}: {why}; choose another address or port"
            ) from error
        self._control_port = listeners[0].socket.getsockname()[1]
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                for listener in listeners:
                    nursery.start_soon(self._server.listen, listener)
                for address in list(self._addresses.values()):
                    nursery.start_soon(self._keep_dialled, address)
                task_status.started((listen_host or "*", self._control_port))
        finally:
            self._nursery = None
            self._addresses.clear()
            for listener in listeners:
                listener.socket.close()

    async def serve(self, stream: trio.abc.Stream, host: str) -> None:
        """Answer on a connection accepted elsewhere, until it ends."""
        await self._server.serve(stream, host)

    def add_address(self, host: str, port: int, *, is_static: bool = False) -> None:
        """Dial this address, now and again; one that is known already is dialled at once.

        Static ones are never forgotten, others after a day of failures.
        """
        address = self._addresses.get((host, port))
        if address is not None:
            address.is_static |= is_static
            address.again.set()
            return
        if len(self._addresses) >= _ADDRESSES and not self._forget_one():
            log.warning("too many peer addresses, one is not dialled", host=host, port=port)
            return
        address = self._addresses[host, port] = _Address(host, port, is_static)
        if self._nursery is not None:
            self._nursery.start_soon(self._keep_dialled, address)

    def live(self) -> list[Peer]:
        return sorted((link.peer for link in self._links.values()), key=lambda peer: peer.node_id)

    def control_port_of(self, node_id: str) -> int:
        """The port that a live peer was dialled at; 0 where it is not live."""
        link = self._links.get(node_id)
        return link.control_port if link is not None else 0

    def unreached(self) -> list[tuple[str, int, str | None]]:
        """Addresses that are dialled in vain: host, port, and why where more is known than silence."""
        lost = [address for address in self._addresses.values() if address.failing_since is not None]
        return sorted((address.host, address.port, address.complained) for address in lost)

    async def request(self, node_id: str, request: Request, within: float) -> Reply:
        link = self._links.get(node_id)
        if link is None:
            await trio.lowlevel.checkpoint()
            raise PeerUnavailable(f"peer {node_id[:12]} is not live")
        return await link.request(request, within)

    def notify_nowait(self, node_ids: Iterable[str], notice: Notice) -> None:
        frame = encode(notice)
        # An announcement goes to a whole large site: few of those links will be used.
        is_use = not isinstance(notice, Wanted)
        for node_id in node_ids:
            link = self._links.get(node_id)
            if link is not None:
                link.post_nowait(frame, is_use=is_use)

    def on_change(self, callback: Callable[[], None]) -> None:
        self._callbacks.append(callback)

    def shun(self, host: str, why: str, seconds: float) -> None:
        """Leave a host out, as if it were not there; once it is out, a further call changes nothing."""
        now = trio.current_time()
        if self._is_shunned(host):
            return
        self._shunned = {other: until for other, until in self._shunned.items() if until > now}
        self._shunned[host] = now + seconds
        links = [link for link in self._links.values() if link.peer.host == host]
        log.warning(
            "peer shunned",
            host=host,
            peers=[link.peer.node_id for link in links],
            reason=why,
            seconds=seconds,
        )
        for link in links:
            link.close(PeerProtocolError(why))

    def _is_shunned(self, host: str) -> bool:
        return self._shunned.get(host, 0.0) > trio.current_time()

    def set_busy(self, busy: bool) -> None:
        self._busy = busy
        for link in self._links.values():
            link.set_busy(busy)

    def _is_crowd(self) -> bool:
        """Whether pinging all links at the usual rate would cost more than knowing at once who left."""
        return len(self._links) > _CROWD

    def _hello(self) -> Hello:
        return Hello(self._node_id, self._site, self._swarm_port, self._control_port, self._instance)

    def _met(self, hello: Hello, host: str) -> None:
        """A node dialled us: it is up now, and can be dialled there."""
        if hello.node_id == self._node_id:
            self._met_twin(hello, host)
            return
        link = self._links.get(hello.node_id)
        if link is not None and (link.peer.host, link.control_port) == (host, hello.control_port):
            link.ping_nowait()
        else:
            self.add_address(host, hello.control_port)

    def _heard(self, peer: Peer) -> None:
        """A peer spoke on the connection that it dialled: it lives, and need not be asked."""
        link = self._links.get(peer.node_id)
        if link is not None and link.peer.host == peer.host:
            link.heard_nowait()

    def _met_twin(self, hello: Hello, host: str) -> None:
        """This node itself, or another with its id: the one with the higher instance takes a new id."""
        if hello.instance == self._instance:
            return
        yields = hello.instance < self._instance
        log.warning("another node has this node's id: a cloned disk?", host=host, takes_new_id=yields)
        if yields and self._on_twin is not None:
            self._on_twin(host)

    def _forget_one(self) -> bool:
        failing = [a for a in self._addresses.values() if a.failing_since is not None and not a.is_static]
        if not failing:
            return False
        self._forget(min(failing, key=lambda a: a.failing_since or 0.0))
        return True

    def _forget(self, address: _Address) -> None:
        del self._addresses[address.host, address.port]
        address.scope.cancel()

    async def _keep_dialled(self, address: _Address) -> None:
        timing = self._timing
        pause = timing.backoff_first
        with address.scope:
            while True:
                address.again = trio.Event()
                address.duplicate_of = None
                started = trio.current_time()
                is_shunned = self._is_shunned(address.host)
                outcome = _Outcome.FOREIGN if is_shunned else await self._dial_once(address)
                now = trio.current_time()
                if outcome is _Outcome.LEFT and now - started > timing.idle_ping:
                    pause = timing.backoff_first
                if outcome in {_Outcome.LEFT, _Outcome.DUPLICATE}:
                    address.failing_since = None
                elif address.failing_since is None:
                    address.failing_since = started
                if outcome is _Outcome.OURSELVES or self._is_hopeless(address, now):
                    self._forget(address)
                wait = {_Outcome.FOREIGN: timing.rare, _Outcome.DUPLICATE: float("inf")}.get(outcome, pause)
                with trio.move_on_after(wait * random.uniform(0.8, 1.0)):  # noqa: S311  # spreads dials only
                    await address.again.wait()
                pause = (
                    timing.backoff_first if address.again.is_set() else min(2 * pause, timing.backoff_last)
                )

    @staticmethod
    def _is_hopeless(address: _Address, now: float) -> bool:
        since = address.failing_since
        return since is not None and not address.is_static and now - since > _FORGET_AFTER

    async def _dial_once(self, address: _Address) -> _Outcome:
        where = {"host": address.host, "port": address.port}
        try:
            with trio.fail_after(self._timing.dial):
                stream, host = await self._dial(address.host, address.port)
        except (OSError, ValueError, trio.TooSlowError) as error:
            log.debug("peer not reached", **where, error=str(error) or type(error).__name__)
            return _Outcome.FAILED
        try:
            connection = Connection(stream, self._timing)
            theirs = await connection.exchange_hello(self._hello())
            if self._is_shunned(host):
                return _Outcome.FOREIGN
            if theirs.node_id == self._node_id:
                log.debug("peer address is this node's own", **where)
                self._met_twin(theirs, host)
                return _Outcome.OURSELVES
            if theirs.site != self._site:
                self._complain(address, f"it belongs to site {theirs.site}, this node to {self._site}")
                return _Outcome.FOREIGN
            return await self._hold(address, connection, theirs, host)
        except IncompatibleVersion as error:
            self._complain(address, str(error))
            return _Outcome.FOREIGN
        except PeerProtocolError as error:
            self._complain(address, str(error))
            return _Outcome.FAILED
        except PeerFault as error:
            log.debug("peer not reached", **where, error=str(error))
            return _Outcome.FAILED
        finally:
            await trio.aclose_forcefully(stream)

    def _complain(self, address: _Address, why: str) -> None:
        """One line for each new reason, not one for each try."""
        if address.complained != why:
            address.complained = why
            log.warning("peer left out", host=address.host, port=address.port, error=why)

    async def _hold(self, address: _Address, connection: Connection, theirs: Hello, host: str) -> _Outcome:
        peer = Peer(theirs.node_id, host, theirs.swarm_port)
        while (other := self._links.get(peer.node_id)) is not None:
            # The same node at another of its addresses, or after it moved there, or a clone of it.
            if await other.is_alive():
                if address.complained != peer.node_id:
                    address.complained = peer.node_id
                    log.info(
                        "peer is live elsewhere: a second address of it, or a clone of its id",
                        peer=peer.node_id,
                        host=peer.host,
                        live_at=other.peer.host,
                    )
                address.duplicate_of = peer.node_id
                return _Outcome.DUPLICATE
            other.close(PeerUnavailable("it answers at another address only"))
        link = PeerLink(
            connection, peer, theirs.control_port, self._timing, self._busy, self._is_crowd, self._unlink
        )
        self._links[peer.node_id] = link
        started = trio.current_time()
        log.info("peer is live", peer=peer.node_id, host=peer.host, port=address.port)
        try:
            self._tell()
            await link.run()
        finally:
            link.close(PeerUnavailable("link was closed"))
            log.info(
                "peer left",
                peer=peer.node_id,
                host=peer.host,
                error=str(link.error),
                seconds=round(trio.current_time() - started, 1),
            )
        return _Outcome.LEFT

    def _unlink(self, link: PeerLink) -> None:
        if self._links.get(link.peer.node_id) is link:
            del self._links[link.peer.node_id]
            for address in self._addresses.values():
                if address.duplicate_of == link.peer.node_id:
                    address.again.set()
            self._tell()

    def _tell(self) -> None:
        for callback in self._callbacks:
            callback()
