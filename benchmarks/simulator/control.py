"""What the nodes of a simulated site know and tell of each other.

Progress is told as the daemon tells it (p2pd.decide.report, p2pd.decide.circle), late by the latency, and at
random only with the next report. Messages are counted as p2pd.wire.codec encodes them, without TCP/IP. Nodes
that wait for the WAN ask nothing.
"""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable
from functools import cached_property

from benchmarks.simulator.bytes import Bytes
from benchmarks.simulator.events import Events
from benchmarks.simulator.node import Node
from p2pd.decide.circle import ALIKE, FOLLOWED, MESH, Choice, Circle
from p2pd.decide.plan import Way
from p2pd.decide.report import HEARTBEAT, REPORT_EVERY, Report, tells_gains
from p2pd.model.layout import Layout
from p2pd.model.reference import Digest

__all__ = ["ControlPlane"]

NEWS = 0.05
ACQUAINTED_EVERY = 0.25
SWARM_PEERS = 24
PING = 5.0
PING_IN_CROWD = 15.0


class ControlPlane(ABC):
    """Of the nodes that want one blob. Times in seconds; `loss` is the share of notices that get lost."""

    def __init__(
        self,
        digest: Digest,
        layout: Layout,
        nodes: list[Node],
        rng: random.Random,
        *,
        latency: float,
        loss: float,
    ) -> None:
        self.digest, self.layout, self.nodes, self.random = digest, layout, nodes, rng
        self.latency, self.loss = latency, loss
        self.bytes = Bytes(digest, layout)
        self.notices = 0
        self._report_bytes = 0
        self._events = Events()
        self._is_large = len(nodes) > MESH + 1
        self._by_name = {node.name: node for node in nodes}

    @abstractmethod
    def poke(self, node: Node, within: float = 0.0) -> None:
        """Have the node decide again, `within` seconds: it knows more."""

    @property
    def now(self) -> float:
        return self._events.now

    def at(self, when: float, action: Callable[[], None]) -> None:
        self._events.at(when, action)

    def after(self, delay: float, action: Callable[[], None]) -> None:
        self._events.after(delay, action)

    def control_bytes(self, node: Node) -> float:
        """What a node sent and received over the control plane, at the end of `run`."""
        segments = self.layout.segment_count
        joins = segments * (self._joined(node) + self._joined_by(node)) * self.bytes.join_and_reply
        # Each asks those that it follows in turn. The first may have to ask itself: once in vain.
        turns = (len(node.choice.followed) + self._followers[node.name]) / FOLLOWED
        asks = self.bytes.join_and_reply + self.bytes.hashes_and_reply
        asks += (ALIKE - 1) * self.bytes.confirmed_and_reply
        hashes = segments * turns * asks
        silent = len(self.nodes) - 1 - len(node.known)
        pings = silent * self._pings() * self.bytes.ping_and_pong
        return node.sent + node.received + joins + hashes + pings

    def _joined(self, node: Node) -> int:
        return min(SWARM_PEERS, len(node.known))

    def _joined_by(self, node: Node) -> float:
        """How many of those that know the node join it for a segment, on average."""
        return sum(self._joined(peer) / len(peer.known) for peer in node.known)

    @cached_property
    def _followers(self) -> Counter[str]:
        """How many follow each fetcher, at the end of `run`: those ask it for piece hashes."""
        return Counter(name for node in self.nodes if node.alive for name in node.choice.followed)

    def _pings(self) -> int:
        """On the two connections of a pair that has nothing else to say, which began with an announcement."""
        return 2 * int(self.now / (PING_IN_CROWD if self._is_large else PING))

    @property
    def control_bytes_in_mesh(self) -> float:
        """What a node would have sent and received, had everybody told everybody."""
        others = len(self.nodes) - 1
        met = 2 * others * (self.bytes.want + self.bytes.want_reply)
        return met + 2 * others * self._report_bytes / len(self.nodes)

    # Who knows whom.

    def _enter(self, node: Node) -> None:
        """A node begins to want the blob, and knows nobody yet."""
        node.report = Report(self.digest, self.layout.size)
        node.report_to_mesh = Report(self.digest, self.layout.size)
        node.known = {}
        peers = [peer for peer in self.nodes if peer is not node and peer.alive]
        if self._is_large:
            self._announce(node, peers)
        else:
            for peer in peers:
                self._introduce(node, peer)
            self.poke(node)

    def _announce(self, node: Node, peers: list[Node]) -> None:
        """All hear at once that the node is interested; each chooses anew whom to know, by and by."""
        node.circle, node.choice = Circle(self.digest, node.name), Choice(frozenset())
        for peer in peers:
            node.circle.add(peer.name)
            if peer.circle is not None:
                peer.circle.add(node.name)
                self._meet_soon(peer, ACQUAINTED_EVERY)
            peer.received += self.bytes.wanted
        node.sent += self.bytes.wanted * len(peers)
        # Asked of two others, and by two others.
        node.sent += 2 * self.bytes.interest
        node.received += 2 * self.bytes.interest
        self._meet_soon(node, 4 * self.latency)

    def _meet_soon(self, node: Node, delay: float) -> None:
        if not node.will_meet:
            node.will_meet = True
            life = node.life
            self.after(delay, lambda: self._meet_circle(node, life))

    def _meet_circle(self, node: Node, life: int) -> None:
        node.will_meet = False
        if node.life != life or node.circle is None or node.done_at is not None:
            return
        node.choice = node.circle.choose()
        for name in sorted(node.choice.told):  # sets of strings have no order that a seed would fix
            peer = self._by_name[name]
            if peer not in node.known and peer.alive:
                self._introduce(node, peer)
        self.poke(node)

    def _introduce(self, node: Node, peer: Node) -> None:
        """A Want and its reply: each knows how the other stands."""
        want, reply = self.bytes.want, self.bytes.want_reply
        node.sent += want
        peer.received += want
        peer.sent += reply
        node.received += reply
        self._meet(node, peer)
        self._meet(peer, node)
        node.known[peer] = peer.known[node] = None

    def _notice_absence(self, node: Node, life: int) -> None:
        if node.life == life:
            for peer in self.nodes:
                if peer.circle is not None and peer.alive:
                    peer.circle.discard(node.name)
                    if node.name in peer.choice.told:
                        self._meet_soon(peer, 0.0)
                if node in peer.known:
                    peer.plan.member_left(node.name)
                    del peer.known[node]
                    self.poke(peer)

    # What is told.

    def _meet(self, node: Node, peer: Node) -> None:
        """`node` is told at once how `peer` stands."""
        if peer.done_at is not None:
            node.plan.holder_found(peer.name, self.now)
        else:
            self._tell(node, peer, peer.plan.have, peer.plan.claimed)

    def _tell(self, node: Node, peer: Node, have: int, claimed: int) -> None:
        node.plan.member_progress(peer.name, have, claimed, peer.plan.way, self.now)

    def _tell_done(self, node: Node, peer: Node) -> None:
        node.plan.holder_found(peer.name, self.now)
        self.poke(node)

    def _report_soon(self, node: Node) -> None:
        if node.alive and not node.will_report and node.done_at is None:
            node.will_report = True
            life = node.life
            turns = int((self.now - node.phase) / REPORT_EVERY + 1e-6) + 1  # never this very one again
            self.at(node.phase + turns * REPORT_EVERY, lambda: self._report(node, life))

    def _report(self, node: Node, life: int) -> None:
        if node.life != life or node.done_at is not None:
            return
        node.will_report = False
        have, claimed, way = node.plan.have, node.plan.claimed, node.plan.way.value
        assert node.report is not None
        assert node.report_to_mesh is not None
        in_mesh = node.report_to_mesh.due(have, claimed, way, self.now)
        self._report_bytes += 0 if in_mesh is None else self.bytes.of_delta(in_mesh.delta)
        turn = round((self.now - node.phase) / REPORT_EVERY)
        word = node.report.due(
            have,
            claimed,
            way,
            self.now,
            is_large=node.choice.is_large,
            tell_gains=tells_gains(turn, len(node.known)),
        )
        if word is None:
            self._report_soon(node)
            return
        node.told_at = told_at = self.now
        hearers = [
            peer
            for peer in node.known
            if (word.for_all or node.plan.way_of(peer.name) is not Way.NONE)
            and (not self.loss or self.random.random() >= self.loss)
        ]
        self.notices += len(hearers)
        size = self.bytes.of_delta(word.delta)
        node.sent += size * len(hearers)

        def arrive() -> None:
            for peer in hearers:
                if peer.alive and peer.done_at is None and node.life == life and node.done_at is None:
                    peer.received += size
                    self._tell(peer, node, have, claimed)
                    self.poke(peer, NEWS)

        def again() -> None:
            if node.life == life and node.told_at == told_at and not node.will_report:
                self._report(node, life)

        self.after(self.latency, arrive)
        self.after(HEARTBEAT, again)

    def _report_done(self, node: Node) -> None:
        """The last word of a node: it has the blob."""

        def told() -> None:
            for peer in node.known:
                peer.received += self.bytes.done
                node.sent += self.bytes.done
                if peer.alive and node.alive:
                    self._tell_done(peer, node)

        self.after(self.latency, told)
