"""A site as a seeded discrete-event model: many FetchPlans, one WAN, one LAN, no real time.

The WAN is a fluid shared evenly among the stripes in flight (each node can have a cap), after a round
trip. The LAN hands pieces on as a swarm does: every holder of a piece gives to random nodes that lack
it, a few at a time. What nodes tell each other is in `benchmarks.simulator.control`. A node that leaves says
nothing; the others notice after 3 s. HTTP headers and metadata over the WAN are counted.
"""

from __future__ import annotations

import random
from functools import partial

from benchmarks.simulator.control import ControlPlane
from benchmarks.simulator.lan import Lan
from benchmarks.simulator.node import UPLOADS, Flow, Node
from benchmarks.simulator.wan import Wan
from p2pd.decide.bits import iter_bits, mask_of
from p2pd.decide.plan import FetchPlan, Way
from p2pd.decide.report import REPORT_EVERY
from p2pd.decide.turn import IN_FLIGHT
from p2pd.model.layout import Layout
from p2pd.model.reference import Digest

__all__ = ["MIB", "Site"]

MIB = 1024 * 1024
NOTICED_AFTER = 3.0
TICK = 1.0
STOOD_STILL = TICK + 2.0
HASHING = 0.01
LIMIT = 3600.0


class Site(ControlPlane):
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
        digest, layout = Digest(f"{seed:064x}"), Layout(size)
        names = [f"node-{i}" for i in range(nodes)]
        super().__init__(
            digest,
            layout,
            [Node(name, FetchPlan(digest, layout, name, way, 0.0), way) for name in names],
            random.Random(seed),
            latency=latency,
            loss=loss,
        )
        self.all = mask_of(range(layout.stripe_count))
        self.round_trip = round_trip
        self._wan = Wan(self._events, wan, self._flow_ends)
        self.requests = 0
        self._undone = 0
        self._to_start = nodes
        self.fetched: dict[int, list[str]] = {}
        """Who fetched each stripe, in order of the requests."""
        self.most_leads = 0
        self._lan = Lan(
            self._events,
            self.random,
            self.nodes,
            iter_bits(self.all),
            piece_time=layout.piece_length * UPLOADS / lan,
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
        self._enter(node)
        if node.have == self.all:
            self._done(node)
        self.after(self.latency * 2, self._lan.kick)

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
        self._report_done(node)

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
