"""What every part of the node's orchestration works with."""

from __future__ import annotations

from dataclasses import dataclass, field

from p2pd.app.interests import Interests
from p2pd.app.links import Links
from p2pd.app.metrics import Metrics
from p2pd.app.shelf import Shelf
from p2pd.app.wan import Wan
from p2pd.decide.standing import Standing
from p2pd.ports.peers import Peer, Peers
from p2pd.ports.store import Store

__all__ = ["Site"]


@dataclass(frozen=True, slots=True)
class Site:
    """This node (`me` is its id) and its means of reaching content."""

    me: str
    peers: Peers
    store: Store
    shelf: Shelf
    wan: Wan
    metrics: Metrics
    links: Links = field(default_factory=Links)
    interests: Interests = field(default_factory=Interests)
    standing: Standing = field(default_factory=Standing)

    def live(self) -> dict[str, Peer]:
        """The peers that answer, by their ids."""
        return {peer.node_id: peer for peer in self.peers.live()}
