"""The other nodes of the site, as the control plane sees them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

from p2pd.model.messages import Notice, Reply, Request

__all__ = ["Peer", "PeerHandler", "Peers"]


@dataclass(frozen=True, slots=True)
class Peer:
    """A live node of this site, other than this one."""

    node_id: str
    host: str
    swarm_port: int


class PeerHandler(Protocol):
    """What this node answers. Called in the connection's own task; a P2pdError becomes `Refused`."""

    async def answer(self, peer: Peer, request: Request) -> Reply: ...

    def notice_nowait(self, peer: Peer, notice: Notice) -> None: ...


class Peers(Protocol):
    """Live peers. A peer is live from its Hello until its connection ends or it stops answering."""

    def live(self) -> list[Peer]:
        """Live peers, sorted by node id."""
        ...

    async def request(self, node_id: str, request: Request, within: float) -> Reply:
        """One reply, never `Refused`: that is raised (NotFound, Denied, Unavailable, PeerFault).

        Raises PeerUnavailable when the peer is not live, leaves, or does not answer in `within` seconds.
        """
        ...

    def notify_nowait(self, node_ids: Iterable[str], notice: Notice) -> None:
        """Send without waiting. A peer too slow to take its notices is dropped; unknown ids are ignored."""
        ...

    def on_change(self, callback: Callable[[], None]) -> None:
        """Call back, in the event loop, whenever `live()` changes."""
        ...

    def set_busy(self, busy: bool) -> None:
        """While busy, a vanished peer is noticed within about 3 s, else within about 15 s."""
        ...
