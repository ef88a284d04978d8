"""A site as a seeded discrete-event model: many FetchPlans, one WAN, one LAN, no real time.

The WAN is a fluid shared evenly among the stripes in flight (each node can have a cap), after a round
trip. The LAN hands pieces on as a swarm does: every holder of a piece gives to random nodes that lack
it, a few at a time. Progress is told as the daemon tells it (p2pd.decide.report, p2pd.decide.circle), late by
the latency, and at random only with the next report. A node that leaves says nothing; the others notice
after 3 s.

Control messages are counted as p2pd.wire.codec encodes them, without TCP/IP. Nodes that wait for the WAN ask
nothing; HTTP headers and metadata over the WAN are counted too.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial

from benchmarks.simulator.bytes import Bytes
from benchmarks.simulator.events import Events
from benchmarks.simulator.lan import Lan
from benchmarks.simulator.node import UPLOADS, Flow, Node
from benchmarks.simulator.wan import Wan
from p2pd.decide.bits import iter_bits, mask_of
from p2pd.decide.circle import MESH, Choice, Circle
from p2pd.decide.plan import IN_FLIGHT, FetchPlan, Way
from p2pd.decide.report import HEARTBEAT, REPORT_EVERY, Report
from p2pd.model.layout import Layout
from p2pd.model.reference import Digest

__all__ = ["MIB", "Site"]

MIB = 1024 * 1024
NOTICED_AFTER = 3.0
NEWS = 0.05
ACQUAINTED_EVERY = 0.25
SWARM_PEERS = 24
PING = 5.0
PING_IN_CROWD = 15.0
TICK = 1.0
STOOD_STILL = TICK + 2.0
HASHING = 0.01
LIMIT = 3600.0


class Site:
    """`run` ends when every node that is alive has the blob. Sizes in bytes, times in seconds."""

    def __init__(
        self,
        nodes: int,
        size: int,
        *,
        seed: int = 0,
        wan: float = 12.5e6,
        round_trip: float = 0.03,
        lan: float = 110e6,
        latency: float = 0.002,
        loss: float = 0.0,
        way: Way = Way.SEEDER,
        late: dict[int, float] | None = None,
    ) -> None:
        self.random = random.Random(seed)
        self.layout = Layout(size)
        self.all = mask_of(range(self.layout.stripe_count))
        self.digest = Digest(f"{seed:064x}")
        self.round_trip, self.latency, self.loss = round_trip, latency, loss
        self._events = Events()
        self._wan = Wan(self._events, wan, self._flow_ends)
        self.requests = 0
        self._report_bytes = 0
        self._undone = 0
        self._to_start = nodes
        self.notices = 0
        self.fetched: dict[int, list[str]] = {}
        """Who fetched each stripe, in order of the requests."""
        self.most_leads = 0
        self.bytes = Bytes(self.digest, self.layout)
        self._is_large = nodes > MESH + 1
        self.nodes = [
            Node(f"node-{i}", FetchPlan(self.digest, self.layout, f"node-{i}", way, 0.0), way)
            for i in range(nodes)
        ]
        self._by_name = {node.name: node for node in self.nodes}
        self._lan = Lan(
            self._events,
            self.random,
            self.nodes,
            iter_bits(self.all),
            piece_time=self.layout.piece_length * UPLOADS / lan,
            latency=latency,
            reaches=self._reaches,
            gained=self._gain,
        )
        for i, node in enumerate(self.nodes):
            node.phase = self.random.random() * REPORT_EVERY
            start = (late or {}).get(i, 0.0)
            node.alive = False
            self.at(start, partial(self._start_first, node))

    # Running.

    @property
    def now(self) -> float:
        return self._events.now

    def at(self, when: float, action: Callable[[], None]) -> None:
        self._events.at(when, action)

    def after(self, delay: float, action: Callable[[], None]) -> None:
        self._events.after(delay, action)

    def run(self, limit: float = LIMIT) -> float:
        """Seconds until the last node is done. AssertionError where that is never."""
        while (when := self._events.next_at) is not None:
            assert when <= limit, f"not done after {limit} s: {self.standing()}"
            self._events.step()
            if self.is_done:
                return self.now
        raise AssertionError(f"nothing happens any more: {self.standing()}")

    @property
    def is_done(self) -> bool:
        return self._undone == 0 and not self._to_start

    def standing(self) -> str:
        return ", ".join(
            f"{n.name}: {n.plan.way} {n.have.bit_count()} have, {n.plan.claimed.bit_count()} claimed"
            for n in self.nodes
            if n.alive and n.done_at is None
        )[:600]

    @property
    def wan(self) -> float:
        """The rate of the WAN."""
        return self._wan.rate

    @property
    def wan_bytes(self) -> float:
        return self._wan.bytes

    @property
    def wan_ratio(self) -> float:
        return self.wan_bytes / self.layout.size

    def control_bytes(self, node: Node) -> int:
        """What a node sent and received over the control plane, at the end of `run`."""
        segments = self.layout.segment_count
        joins = 2 * segments * min(SWARM_PEERS, len(node.known)) * self.bytes.join_and_reply
        silent = len(self.nodes) - 1 - len(node.known)
        every = PING_IN_CROWD if self._is_large else PING
        pings = 2 * silent * int(self.now / every + 1) * self.bytes.ping_and_pong
        return node.sent + node.received + joins + pings

    @property
    def control_bytes_in_mesh(self) -> float:
        """What a node would have sent and received, had everybody told everybody."""
        others = len(self.nodes) - 1
        met = 2 * others * (self.bytes.want + self.bytes.want_reply)
        return met + 2 * others * self._report_bytes / len(self.nodes)

    def add_metadata(self) -> None:
        """Count what the nodes that ask the seeder for piece hashes cost the WAN."""
        askers = sum(not node.choice.followed for node in self.nodes)
        self.requests += askers * self.layout.segment_count
        self._wan.bytes += askers * self.layout.segment_count * self.bytes.metadata

    # Scenario.

    def _start_first(self, node: Node) -> None:
        self._to_start -= 1
        self.start(node)

    def start(self, node: Node, way: Way | None = None) -> None:
        """A node begins (or begins again, with the prefix that it had assembled)."""
        prefix = (~node.have & (node.have + 1)).bit_length() - 1
        node.life += 1
        node.way = way or node.way
        node.have = mask_of(range(prefix))
        node.receiving = node.uploads = 0
        node.alive, node.leads, node.done_at = True, False, None
        node.plan = FetchPlan(self.digest, self.layout, node.name, node.way, self.now)
        node.plan.resumed(node.have)
        node.will_report = node.will_meet = False
        node.decides_at = node.decided_at = float("inf")
        self._undone += 1
        for stripe in iter_bits(self.all & ~node.have):
            self._lan.lacks(node, stripe)
        node.report = Report(self.digest, self.layout.size)
        node.known = {}
        peers = [peer for peer in self.nodes if peer is not node and peer.alive]
        if self._is_large:
            self._announce(node, peers)
        else:
            for peer in peers:
                self._introduce(node, peer)
            self.poke(node)
        self.after(self.latency * 2, self._lan.kick)

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

    def restart(self, node: Node) -> None:
        """Start it again if it is down."""
        if not node.alive:
            self.start(node)

    def become_holder(self, node: Node) -> None:
        """The node has the whole blob from elsewhere."""
        for stripe in iter_bits(self.all & ~node.have):
            if self._lan.is_lacking(node, stripe):
                self._lan.lacks_no_more(node, stripe)
        node.have = self.all
        self._done(node)
        self._lan.kick()

    def leave(self, node: Node) -> None:
        """The node's power is cut."""
        if not node.alive:
            return
        node.alive = False
        node.life += 1
        if node.done_at is None:
            self._undone -= 1
        for stripe in iter_bits(self.all & ~node.have & ~node.receiving):
            self._lan.lacks_no_more(node, stripe)
        self._wan.drop_all_of(node)
        node.flows.clear()
        life = node.life
        self.after(NOTICED_AFTER, lambda: self._notice_absence(node, life))

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

    def set_way(self, way: Way, nodes: list[Node] | None = None, *, cut: bool = True) -> None:
        """The seeder is seen to be gone (or back); requests in flight fail where `cut`."""
        for node in self.nodes if nodes is None else nodes:
            node.way = way
            if cut:
                flows = list(node.flows.values())
                self._wan.drop(flows)
                for flow in flows:
                    node.flows.pop(flow.stripe, None)
                    node.plan.failed(flow.stripe, self.now, 1.0)
            self.poke(node)

    def set_wan(self, rate: float) -> None:
        """Another rate for the whole site; 0 hangs what is in flight."""
        self._wan.set_rate(rate)

    def set_cap(self, node: Node, rate: float) -> None:
        self._wan.set_cap(node, rate)

    # A node's life.

    def poke(self, node: Node, within: float = 0.0) -> None:
        """Decide again, soon; news of others is gathered for a moment, as the daemon does."""
        when = self.now + within
        if node.alive and node.done_at is None and when < node.decides_at:
            node.decides_at = when
            self.at(when, lambda: self._decide(node, when))

    def _decide(self, node: Node, when: float) -> None:
        if node.decides_at != when:
            return
        node.decides_at = float("inf")
        if not node.alive or node.done_at is not None:
            return
        plan = node.plan
        if self.now > node.decided_at + STOOD_STILL:
            plan.stood_still(self.now)
        node.decided_at = self.now
        plan.way_changed(node.choice.way(node.way, plan.way_of), self.now)
        decision = plan.decide(self.now)
        for stripe in decision.drop:
            self._wan.drop([node.flows.pop(stripe)])
        for stripe in decision.fetch:
            self._check_fetch(node, stripe)
            plan.started(stripe, self.now)
            self._fetch(node, stripe)
        node.leads = decision.lead
        if node.leads and not node.flows:
            self._lead(node)
        if node.leads:
            self.most_leads = max(self.most_leads, sum(n.leads for n in self.nodes if n.alive))
        self._report_soon(node)
        node.timer += 1
        turn, life = node.timer, node.life
        wake = self.now + TICK if decision.wake_at is None else min(decision.wake_at, self.now + TICK)
        assert wake > self.now or decision.fetch, "a decision that asks to be made again at once"
        self.at(max(wake, self.now), lambda: self._timer(node, turn, life))

    def _timer(self, node: Node, turn: int, life: int) -> None:
        if node.timer == turn and node.life == life:
            self.poke(node)

    def _check_fetch(self, node: Node, stripe: int) -> None:
        plan = node.plan
        assert not plan.claimed >> stripe & 1, f"{node.name} fetches {stripe} again"
        assert len(plan.in_flight) < IN_FLIGHT[1]
        assert stripe // self.layout.stripes_per_segment in plan.window()

    def _lead(self, node: Node) -> None:
        """As the daemon's leader does: the first stripe that the site does not have."""
        for segment in range(self.layout.segment_count):
            missing = [s for s in node.plan.missing_in(segment) if not node.plan.claimed >> s & 1]
            if missing:
                node.plan.started(missing[0], self.now)
                self._fetch(node, missing[0])
                return

    def _gain(self, node: Node, stripe: int) -> None:
        if node.have >> stripe & 1:
            return
        node.have |= 1 << stripe
        node.plan.gained(stripe, self.now)
        flow = node.flows.get(stripe)
        if flow is not None and stripe not in node.plan.in_flight:
            # The plan gave the request up: the daemon cancels it.
            del node.flows[stripe]
            self._wan.drop([flow])
        self._lan.give(node)
        self._report_soon(node)
        if node.have == self.all:
            self._done(node)
        else:
            self.poke(node)

    def _done(self, node: Node) -> None:
        node.done_at = self.now
        node.leads = False
        self._undone -= 1
        self._wan.drop(list(node.flows.values()))
        node.flows.clear()

        def told() -> None:
            for peer in node.known:
                peer.received += self.bytes.done
                node.sent += self.bytes.done
                if peer.alive and node.alive:
                    self._tell_done(peer, node)

        self.after(self.latency, told)

    # Notices.

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
            turns = (self.now - node.phase) // REPORT_EVERY + 1
            self.at(node.phase + turns * REPORT_EVERY, lambda: self._report(node, life))

    def _report(self, node: Node, life: int) -> None:
        if node.life != life or node.done_at is not None:
            return
        node.will_report = False
        node.told_at = told_at = self.now
        have, claimed = node.plan.have, node.plan.claimed
        hearers = [peer for peer in node.known if not self.loss or self.random.random() >= self.loss]
        self.notices += len(hearers)
        assert node.report is not None
        delta = node.report.due(have, claimed, node.plan.way.value, self.now)
        size = 0 if delta is None else self.bytes.of_delta(delta)
        node.sent += size * len(hearers)
        self._report_bytes += size

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

    # The WAN.

    def _fetch(self, node: Node, stripe: int) -> None:
        cut = self.layout.stripe(stripe)
        self.requests += 1
        self._wan.bytes += self.bytes.range_headers
        flow = node.flows[stripe] = Flow(node, stripe, cut.stop - cut.start)
        self.fetched.setdefault(stripe, []).append(node.name)

        def begin() -> None:
            if node.flows.get(stripe) is flow:
                self._wan.begin(flow)

        self.after(self.round_trip, begin)

    def _flow_ends(self, flow: Flow) -> None:
        node = flow.node
        del node.flows[flow.stripe]
        node.plan.received(flow.stripe, self.now)
        self._report_soon(node)
        self.poke(node)
        self.after(HASHING, partial(self._hashed, node, flow.stripe, node.life))

    def _hashed(self, node: Node, stripe: int, life: int) -> None:
        if node.life == life:
            taken = node.have >> stripe & 1 or node.receiving >> stripe & 1
            if not taken:
                self._lan.lacks_no_more(node, stripe)
            self._gain(node, stripe)

    # The LAN.

    def _reaches(self, giver: Node, taker: Node) -> bool:
        return giver.on_lan and taker.on_lan
