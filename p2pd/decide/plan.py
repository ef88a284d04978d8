"""Which stripes of one blob this node fetches over the WAN, and when.

Pure: every method takes `now` (monotonic seconds); nothing here waits or sends. The rules, which
every node applies to its own view of the swarm:

1. A stripe that a live member or holder can give over the LAN is not fetched over the WAN, unless
   the LAN has brought nothing for `LAN_PATIENCE` (halved each time in a row that it did not).
2. A stripe is fetched by its owner: the first in rendezvous rank among the members that can reach
   a seeder. At most `IN_FLIGHT` at a time, lowest first, within `LOOKAHEAD` segments of the first
   incomplete one.
3. Nobody takes over early: a second download of the same bytes costs everyone. The next in rank
   may take a stripe over when its claim has been in flight for `patience`, or when its owner has
   shown no progress for that long, or when this node has had nothing of its own to do for that
   long. Each further `patience` admits one more in rank.
4. Where no member reaches a seeder, one leads: it pulls the blob from the origin in order.

`patience` is four times the smoothed time that a stripe takes from claim to have, as seen over
all members, so it follows the rate of the WAN.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import islice

from p2pd.decide.bits import iter_bits, mask_of
from p2pd.decide.ownership import object_key, ranked, stripe_key
from p2pd.model.layout import Layout
from p2pd.model.reference import Digest

__all__ = ["Decision", "FetchPlan", "Way"]

IN_FLIGHT = 2
LOOKAHEAD = 3
LAN_PATIENCE = 5.0
LAN_STALLS_UNTIL_GIVEN_UP = 4
LEAD_PATIENCE = 30.0
_TYPICAL_AT_FIRST = 2.0
_PATIENCE_BOUNDS = (2.0, 60.0)
_SMOOTHING = 0.2
_SLOW_STRIPE = 5.0


class Way(StrEnum):
    """By which way a node can fetch over the WAN."""

    SEEDER = "seeder"
    ORIGIN = "origin"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Decision:
    """Stripes to begin now; whether this node leads; when to decide again if nothing happens."""

    fetch: tuple[int, ...] = ()
    lead: bool = False
    wake_at: float | None = None


@dataclass(slots=True)
class _Member:
    have: int
    claimed: int
    way: Way
    active_at: float
    claimed_at: dict[int, float] = field(default_factory=dict)


class FetchPlan:
    """One blob's plan on one node. Stripes are bits of an int (p2pd.decide.bits)."""

    def __init__(self, digest: Digest, layout: Layout, me: str, way: Way, now: float, have: int = 0) -> None:
        self.layout = layout
        self.have = have
        self.in_flight: dict[int, float] = {}
        self._received = 0
        self._digest = digest
        self._me = me
        self._way = way
        self._members: dict[str, _Member] = {}
        self._holders: set[str] = set()
        self._ranks: dict[int, list[str]] = {}
        self._typical = _TYPICAL_AT_FIRST
        self._hold_until = now
        self._window_at = now
        self._window_segment = 0
        self._idle_since: float | None = None
        self._lan_at = now
        self._lan_stalls = 0

    # What happened.

    def member_progress(self, node: str, have: int, claimed: int, way: Way, now: float) -> None:
        """A node that is fetching the blob says how it stands (also its first word)."""
        member = self._members.get(node)
        if member is None or member.way is not way:
            self._ranks.clear()
        if member is None:
            member = self._members[node] = _Member(0, 0, way, now)
        if (have | claimed) & ~(member.have | member.claimed):
            member.active_at = now
        waited = self._lan_waits()
        member.have, member.claimed, member.way = have, claimed, way
        if not waited:
            self._lan_at = now
        flying = claimed & ~have
        for stripe in [stripe for stripe in member.claimed_at if not flying >> stripe & 1]:
            started = member.claimed_at.pop(stripe)
            if have >> stripe & 1:
                self._learn(now - started)
        for stripe in iter_bits(flying):
            member.claimed_at.setdefault(stripe, now)

    def member_left(self, node: str) -> None:
        """A member or holder is gone, or gave up."""
        if self._members.pop(node, None) is not None:
            self._ranks.clear()
        self._holders.discard(node)

    def holder_found(self, node: str, now: float) -> None:
        """A node holds the whole blob and can give it."""
        if self._members.pop(node, None) is not None:
            self._ranks.clear()
        waited = self._lan_waits()
        self._holders.add(node)
        if not waited:
            self._lan_at = now

    def way_changed(self, way: Way, now: float) -> None:
        """This node's own way over the WAN became another."""
        if way is not self._way:
            self._way = way
            self._hold_until = now
            self._ranks.clear()

    def started(self, stripe: int, now: float) -> None:
        """This node began to fetch a stripe."""
        self.in_flight[stripe] = now
        self._idle_since = None

    def received(self, stripe: int, now: float) -> None:
        """All bytes of a stripe came over the WAN; they are not verified yet."""
        started = self.in_flight.pop(stripe, None)
        if started is not None:
            self._learn(now - started)
        self._received |= 1 << stripe

    def gained(self, stripe: int, now: float) -> None:
        """This node has a stripe, verified, by either plane."""
        if not self._received >> stripe & 1:
            self._lan_stalls = 0
        self._received &= ~(1 << stripe)
        self._lan_at = now
        self.have |= 1 << stripe

    def failed(self, stripe: int, now: float, retry_after: float) -> None:
        """A fetch of this node failed; it begins no other for `retry_after` seconds."""
        self.in_flight.pop(stripe, None)
        self._hold_until = max(self._hold_until, now + retry_after)

    def refused(self, stripe: int) -> bool:
        """A piece failed its hash; true where this node had it over the WAN."""
        was_received = bool(self._received >> stripe & 1)
        self._received &= ~(1 << stripe)
        return was_received

    # How this node stands.

    @property
    def claimed(self) -> int:
        """Stripes had, received or in flight."""
        bits = self.have | self._received
        for stripe in self.in_flight:
            bits |= 1 << stripe
        return bits

    @property
    def way(self) -> Way:
        return self._way

    @property
    def members(self) -> Iterable[str]:
        """Other nodes that are fetching."""
        return self._members.keys()

    def members_by(self, way: Way) -> list[str]:
        """Other nodes that are fetching and can do so by this way."""
        return [node for node, member in self._members.items() if member.way is way]

    @property
    def holders(self) -> Iterable[str]:
        """Other nodes that hold the blob."""
        return self._holders

    @property
    def patience(self) -> float:
        """Seconds before a takeover."""
        low, high = _PATIENCE_BOUNDS
        return min(max(4 * self._typical, low), high)

    def is_lacking(self, segment: int) -> bool:
        """Whether some member still lacks a piece of this segment, so that it should stay loaded."""
        mask = mask_of(self.layout.stripes_of(segment))
        return any(mask & ~member.have for member in self._members.values())

    def window(self) -> range:
        """Segments to work on now: the first incomplete one and the `LOOKAHEAD` behind it."""
        first = self._first_incomplete()
        return range(first, min(first + LOOKAHEAD + 1, self.layout.segment_count))

    def missing_in(self, segment: int) -> list[int]:
        """Stripes of a segment that neither this node nor any peer has."""
        mask = mask_of(self.layout.stripes_of(segment))
        return list(iter_bits(mask & ~self.claimed & ~self._lan_offer()))

    # What to do.

    def decide(self, now: float) -> Decision:
        """Apply the rules of this module to what is known."""
        window = self.window()
        if not window or self._way is Way.NONE:
            return Decision()
        if window.start != self._window_segment:
            self._window_segment, self._window_at = window.start, now
        wait_lan_until = self._lan_deadline()
        lan_works = now < wait_lan_until
        if self._holders and lan_works:
            return Decision(wake_at=wait_lan_until)
        if not self._anyone_with(Way.SEEDER, now):
            return Decision(lead=self._is_lead(now), wake_at=now + LEAD_PATIENCE)
        if self._way is not Way.SEEDER or now < self._hold_until:
            return Decision(wake_at=self._hold_until if now < self._hold_until else now + LEAD_PATIENCE)
        mask = mask_of(self.layout.stripes_of(window.start))
        for segment in window[1:]:
            mask |= mask_of(self.layout.stripes_of(segment))
        missing = mask & ~self.claimed
        if not lan_works:
            return self._without_lan(missing, now)
        offered = self._lan_offer()
        return self._by_rank(missing & ~offered, now, wait_lan_until if missing & offered else None)

    def _by_rank(self, missing: int, now: float, wake_at: float | None) -> Decision:
        room = self._room()
        if room <= 0:
            return Decision(wake_at=wake_at)
        claims = self._claims()
        fetch = [
            stripe
            for stripe in iter_bits(missing)
            if stripe not in claims and self._rank(stripe)[:1] == [self._me]
        ][:room]
        if fetch or self.in_flight:
            self._idle_since = None
        elif self._idle_since is None:
            self._idle_since = now
        wakes = [] if wake_at is None else [wake_at]
        if not fetch and not self.in_flight:
            for stripe in iter_bits(missing):
                since = claims[stripe] if stripe in claims else self._waited_since(stripe, now)
                admitted = int((now - since) / self.patience)
                if self._may_take_over(stripe, admitted):
                    fetch = [stripe]
                    break
                wakes.append(since + (admitted + 1) * self.patience)
        return Decision(tuple(fetch), wake_at=min(wakes, default=None))

    def _may_take_over(self, stripe: int, admitted: int) -> bool:
        others = [
            node
            for node in self._rank(stripe)
            if node == self._me or not self._members[node].claimed >> stripe & 1
        ]
        is_claimed = len(others) < len(self._rank(stripe))
        first = 0 if is_claimed else 1  # unclaimed: rank 0 is the owner, who does not take over
        return self._me in others[first : first + admitted]

    def _waited_since(self, stripe: int, now: float) -> float:
        owner = self._members.get(self._rank(stripe)[0])
        since = max(self._window_at, owner.active_at if owner is not None else now)
        return since if self._idle_since is None else min(since, max(self._idle_since, self._window_at))

    def _without_lan(self, missing: int, now: float) -> Decision:
        """Peers have what is missing and do not give it: fetch it, whoever owns it."""
        fetch = tuple(islice(iter_bits(missing), self._room()))
        if fetch and self._lan_waits():
            self._lan_stalls += 1
            self._lan_at = now
        return Decision(fetch)

    # What the rules look at.

    def _room(self) -> int:
        """Two stripes in flight hide the round trip; on a slow WAN one does, and delivers earlier."""
        allowed = IN_FLIGHT if self._typical < _SLOW_STRIPE else 1
        return max(0, allowed - len(self.in_flight))

    def _learn(self, seconds: float) -> None:
        self._typical += _SMOOTHING * (seconds - self._typical)

    def _first_incomplete(self) -> int:
        missing = ~self.have & mask_of(range(self.layout.stripe_count))
        if not missing:
            return self.layout.segment_count
        return next(iter_bits(missing)) // self.layout.stripes_per_segment

    def _rank(self, stripe: int) -> list[str]:
        rank = self._ranks.get(stripe)
        if rank is None:
            nodes = [self._me, *(n for n, m in self._members.items() if m.way is Way.SEEDER)]
            rank = self._ranks[stripe] = ranked(stripe_key(self._digest, stripe), nodes)
        return rank

    def _claims(self) -> dict[int, float]:
        """Stripes in flight at other members, with the time of the newest claim."""
        claims: dict[int, float] = {}
        for member in self._members.values():
            for stripe, at in member.claimed_at.items():
                claims[stripe] = max(at, claims.get(stripe, at))
        return claims

    def _lan_offer(self) -> int:
        if self._holders:
            return mask_of(range(self.layout.stripe_count))
        offer = 0
        for member in self._members.values():
            offer |= member.have
        return offer

    def _lan_waits(self) -> bool:
        """Whether peers have something that this node lacks."""
        return bool(self._lan_offer() & ~self.have)

    def _lan_deadline(self) -> float:
        """Until when the LAN is trusted to bring what peers have."""
        if not self._lan_waits():
            return float("inf")
        if self._lan_stalls >= LAN_STALLS_UNTIL_GIVEN_UP:
            return self._lan_at
        return self._lan_at + LAN_PATIENCE * 0.5**self._lan_stalls

    def _anyone_with(self, way: Way, now: float) -> bool:
        return self._way is way or any(
            member.way is way and now - member.active_at < LEAD_PATIENCE for member in self._members.values()
        )

    def _is_lead(self, now: float) -> bool:
        if self._way is not Way.ORIGIN:
            return False
        nodes = [
            node
            for node, member in self._members.items()
            if member.way is Way.ORIGIN and now - member.active_at < LEAD_PATIENCE
        ]
        return ranked(object_key(f"lead {self._digest}"), [self._me, *nodes])[0] == self._me
