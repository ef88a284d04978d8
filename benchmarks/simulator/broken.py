"""A simulated site that breaks: nodes freeze, the LAN falls apart, holders lie.

What is cut off is noticed after `NOTICED_AFTER`, as a lost connection is; a node that is frozen handles
what it was told, in order, when it goes on. Bytes of the WAN that come meanwhile count as received at
once: a kernel has room for a stripe.
"""

from __future__ import annotations

from collections.abc import Collection
from functools import partial

from benchmarks.simulator.node import Node
from benchmarks.simulator.site import NOTICED_AFTER, Site
from p2pd.decide.plan import Way

__all__ = ["BrokenSite"]


class BrokenSite(Site):
    """`longest_held`: for how many seconds, at most, a peer that a node knew, alive and in reach, had had a
    stripe when the node fetched it over the WAN all the same."""

    def __init__(
        self, nodes: int, size: int, *, seed: int, wan: float, latency: float, loss: float, way: Way
    ) -> None:
        self.longest_held = 0.0
        self._goes_on: dict[Node, float] = {}
        self._hung: set[Node] = set()
        self._side: dict[Node, int] = {}
        self._gained_at: dict[tuple[Node, int], float] = {}
        super().__init__(nodes, size, seed=seed, wan=wan, latency=latency, loss=loss, way=way)

    # Faults.

    def freeze(self, node: Node, seconds: float) -> None:
        """It is short of CPU: its connections stay, and it acts later."""
        self._goes_on[node] = max(self._goes_on.get(node, 0.0), self.now + seconds)

    def hang(self, node: Node, seconds: float) -> None:
        """It is stopped: it is given up by the others, and meets them again afterwards."""
        self.freeze(node, seconds)
        self._hung.add(node)
        node.on_lan = False
        self.set_cap(node, 0.0)
        life = node.life
        self.after(NOTICED_AFTER, lambda: self._part_where_cut([node]))

        def go_on() -> None:
            if node.life != life:
                return
            self._hung.discard(node)
            node.on_lan = True
            self.set_cap(node, float("inf"))
            self._meet_again([node])

        self.after(seconds, go_on)

    def cut_off(self, nodes: Collection[Node], side: int) -> None:
        """Move nodes to another LAN: 0 is the site's, equal numbers reach each other."""
        for node in nodes:
            self._side[node] = side
        self.after(NOTICED_AFTER, lambda: self._part_where_cut(nodes))

    def heal(self, nodes: Collection[Node], within: float) -> None:
        """Bring nodes back to the site's LAN; they are found again at a random moment."""
        for node in nodes:
            self._side[node] = 0
            self.after(self.random.uniform(0.0, within), partial(self._meet_again, [node]))

    def blame(self, liar: Node, judge: Node) -> None:
        """`judge` found that the liar gave wrong bytes, and has no more to do with it."""
        if liar in judge.known:
            judge.plan.member_left(liar.name)
            del judge.known[liar]
            self.poke(judge)

    def cut_requests(self, node: Node) -> None:
        """What it fetches over the WAN breaks off."""
        flows = list(node.flows.values())
        self._wan.drop(flows)
        for flow in flows:
            del node.flows[flow.stripe]
            node.plan.failed(flow.stripe, self.now, 1.0)
        self.poke(node)

    # Who reaches whom.

    def _connected(self, one: Node, other: Node) -> bool:
        if one in self._hung or other in self._hung:
            return False
        return self._side.get(one, 0) == self._side.get(other, 0)

    def _part_where_cut(self, nodes: Collection[Node]) -> None:
        for node in nodes:
            for peer in [peer for peer in node.known if not self._connected(node, peer)]:
                for one, other in ((node, peer), (peer, node)):
                    one.known.pop(other, None)
                    one.plan.member_left(other.name)
                    self.poke(one)

    def _meet_again(self, nodes: Collection[Node]) -> None:
        for node in nodes:
            for peer in self.nodes:
                if peer is not node and peer.alive and node.alive and peer not in node.known:
                    self._introduce(node, peer)
                    self.poke(peer)
            self.poke(node)
        self._lan.kick()

    def _introduce(self, node: Node, peer: Node) -> None:
        if self._connected(node, peer):
            super()._introduce(node, peer)

    def _reaches(self, giver: Node, taker: Node) -> bool:
        return super()._reaches(giver, taker) and self._connected(giver, taker)

    # What a frozen node does later.

    def _asleep_for(self, node: Node) -> float:
        return self._goes_on.get(node, 0.0) - self.now

    def _decide(self, node: Node, when: float) -> None:
        seconds = self._asleep_for(node)
        if seconds <= 0:
            super()._decide(node, when)
        elif node.decides_at == when:
            node.decides_at = float("inf")
            self.poke(node, seconds)

    def _report(self, node: Node, life: int) -> None:
        seconds = self._asleep_for(node)
        if seconds <= 0:
            super()._report(node, life)
        else:
            self.after(seconds, partial(self._report, node, life))

    def _hashed(self, node: Node, stripe: int, life: int) -> None:
        seconds = self._asleep_for(node)
        if seconds <= 0:
            super()._hashed(node, stripe, life)
        else:
            self.after(seconds, partial(self._hashed, node, stripe, life))

    def _tell(self, node: Node, peer: Node, have: int, claimed: int) -> None:
        way, life = peer.plan.way, peer.life

        def hear() -> None:
            knows = peer in node.known and peer.life == life and peer.done_at is None
            if knows and node.alive and node.done_at is None:
                node.plan.member_progress(peer.name, have, claimed, way, self.now)
                self.poke(node)

        seconds = self._asleep_for(node)
        if not self._connected(node, peer):
            return
        if seconds <= 0:
            super()._tell(node, peer, have, claimed)
        else:
            self.after(seconds, hear)

    def _tell_done(self, node: Node, peer: Node) -> None:
        if not self._connected(node, peer) or peer not in node.known:
            return
        seconds = self._asleep_for(node)
        if seconds <= 0:
            super()._tell_done(node, peer)
        else:
            self.after(seconds, partial(self._tell_done, node, peer))

    # What is watched.

    def start(self, node: Node, way: Way | None = None) -> None:
        self._goes_on.pop(node, None)
        self._hung.discard(node)
        super().start(node, way)

    def _gain(self, node: Node, stripe: int) -> None:
        self._gained_at.setdefault((node, stripe), self.now)
        super()._gain(node, stripe)

    def _check_fetch(self, node: Node, stripe: int) -> None:
        super()._check_fetch(node, stripe)
        for peer in node.known:
            if peer.have >> stripe & 1 and peer.alive and peer.uplink >= 1 and self._reaches(peer, node):
                since = self._gained_at.get((peer, stripe), self.now)
                self.longest_held = max(self.longest_held, self.now - since)

    def share_of(self, node: Node) -> float:
        return node.have.bit_count() / self.layout.stripe_count
