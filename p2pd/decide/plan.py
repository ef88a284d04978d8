"""Which stripes of one blob this node fetches over the WAN, and when.

Pure: every method takes `now` (monotonic seconds); nothing here waits or sends. The rules, which
every node applies to its own view of the swarm:

1. A stripe that a live member or holder can give over the LAN is not fetched over the WAN. A peer
   that owes something while the LAN brings nothing is muted, as if it had left (p2pd.decide.lan).
2. A stripe is fetched by its owner: the first in rendezvous rank among the fetchers, which are at
   most `FETCHERS` of the members that can reach a seeder. Lowest first, within `LOOKAHEAD` segments
   of the first incomplete one, and among the next few that the site lacks (`Pace.ahead`). While the blob
   `is_cold`, what came cannot be told from what is in flight, and each fetches what it owns.
3. Nobody takes over early: a second download of the same bytes costs everyone. The next in rank may
   take over a stripe that was due or claimed, and passed by a higher one, for `patience` while the
   site was getting on; the lowest missing one also when nothing came to the site for that long (so
   that a WAN that is cut costs one stripe, not one a node). Each further `patience` admits one more.
   While the blob is cold nothing is late: its source is what all wait for.
4. A node whose claim was overtaken, or whose fetched stripes reach nobody, leaves the WAN to the others
   for a while, and says so (p2pd.decide.standing): a slow node costs a delay now and then, not one a stripe.
5. A blob that `is_behind` another, a lower layer of the same image, is fetched one stripe at a time.
6. Where no member reaches a seeder, one leads: it pulls the blob from the origin in order
   (p2pd.decide.election).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from math import inf

from p2pd.decide.bits import iter_bits, mask_of
from p2pd.decide.claims import Claims
from p2pd.decide.company import Company, Member, Way
from p2pd.decide.election import LEAD_PATIENCE, LISTEN, Election
from p2pd.decide.fetchers import Fetchers
from p2pd.decide.lan import LanTrust
from p2pd.decide.pace import Pace
from p2pd.decide.report import REPORT_EVERY
from p2pd.decide.standing import Spread, Standing
from p2pd.decide.turn import IN_FLIGHT, Lack, Turn
from p2pd.model.layout import Layout
from p2pd.model.reference import Digest

__all__ = ["Decision", "FetchPlan", "Way"]

LOOKAHEAD = 3
SETTLE = 0.5
_SOONEST = 0.01
_NEEDED = 10.0


@dataclass(frozen=True, slots=True)
class Decision:
    """Stripes to begin now, and requests to end; whether to lead; when to decide again if nothing happens."""

    fetch: tuple[int, ...] = ()
    drop: tuple[int, ...] = ()
    lead: bool = False
    wake_at: float | None = None


class FetchPlan:
    """One blob's plan on one node. Stripes are bits of an int (p2pd.decide.bits)."""

    def __init__(
        self,
        digest: Digest,
        layout: Layout,
        me: str,
        way: Way,
        now: float,
        standing: Standing | None = None,
    ) -> None:
        self.layout = layout
        self.have = 0
        self.in_flight: dict[int, float] = {}
        self._half_at: dict[int, float] = {}
        self._received = 0
        self._me = me
        self._way = self._open_way = way
        self._standing = standing or Standing()
        self._needed_until = self._moved_at = now
        self._spread = Spread()
        self._all = mask_of(range(layout.stripe_count))
        self._known = self._seen = 0
        self._has_lost = False
        self._claims = Claims()
        self._fetchers = Fetchers(digest)
        self._hold_until = now
        self.is_behind = False
        self.is_cold = False
        self._pace = Pace(now)
        self._cold_until = self._pace.since(now)
        self._lan = LanTrust(now)
        self._company = Company(self._all, self._lan.muted)
        self._turn = Turn(me, self._fetchers, self._claims, self._company, self._pace, self._lan.muted)
        self._window_of = (-1, 0)
        self._election = Election(digest, me)
        if way is Way.SEEDER:
            self._fetchers.add(me)

    # What happened.

    def resumed(self, have: int) -> None:
        """What an earlier run left was verified anew: it tells nothing of how fast anything comes now."""
        self.have |= have
        self._known |= have
        self._seen |= have

    def member_progress(self, node: str, have: int, claimed: int, way: Way, now: float) -> None:
        """A node that is fetching the blob says how it stands (also its first word)."""
        self._forget_lost()
        member = self._company.members.get(node)
        is_new = member is None
        if member is None:
            member = self._company.join(node, now)
            self._spread.begin_anew()
        if is_new or member.way is not way:
            member.way = way
            self._fetchers.discard(node)
            self._trust(node)
        if (have | claimed) & ~(member.have | member.claimed):
            member.active_at = now
        # What it had before is no news, though it was forgotten when nothing was expected of it any more.
        news = have & ~member.have & ~self._known
        if news:
            self._spread.brought(news, now, is_mine=False)
            self._moved_at = now
            if way is Way.ORIGIN:
                self._election.brought(node, now)
        elif claimed & ~self._seen:
            self._moved_at = now
            if way is Way.ORIGIN:
                self._election.moved(now)
        self._seen |= have | claimed
        self._spread.reached(have & ~member.have & self._known, now)
        shrank, flew = bool(member.have & ~have), member.flying
        member.have, member.claimed = have, claimed
        is_news = self._company.offers_anew() if shrank else self._company.offers_more(node)
        self._came(news, now, is_paced=not is_new)
        if flew != member.flying:
            self._note_claims(node, flew, member, news, now)
        if is_news:
            self._see_lan(now)

    def member_advanced(self, node: str, gained: int, flying: int, way: Way, now: float) -> bool:
        """A member tells what it has got since its last word; false where this node never had its first."""
        member = self._company.members.get(node)
        if member is None:
            return False
        have = (member.have | gained) & self._all
        self.member_progress(node, have, have | (flying & self._all), way, now)
        return True

    def _note_claims(self, node: str, flew: int, member: Member, brought: int, now: float) -> None:
        flying, since = member.flying, self._pace.since(now)
        for stripe in iter_bits(flew & ~flying):
            claim = self._claims.end(stripe, node)
            # What it got from another tells of the LAN.
            if claim is not None and brought >> stripe & 1:
                self._pace.took(now - claim.at)
                if member.way is Way.ORIGIN:
                    self._election.fetched(now, is_mine=False)
        for stripe in iter_bits(flying & ~flew):
            self._claims.begin(stripe, node, since)

    def expect(self, nodes: Iterable[str]) -> None:
        """These were asked whether they are fetching, too. Until they answer, what would be theirs is.

        Where nodes are short of CPU some answers take seconds, and who takes the others' for its own
        meanwhile fetches the same as they do.
        """
        for node in nodes:
            if node not in self._company.members and node not in self._company.holders:
                self._fetchers.add(node)

    def expect_no_longer(self, node: str) -> None:
        """It gave no answer, or is not fetching."""
        if node not in self._company.members:
            self._fetchers.discard(node)

    def member_left(self, node: str) -> None:
        """A member or holder is gone, or gave up."""
        self._lan.forget(node)
        self._company.holders.discard(node)
        self._end_membership(node)
        self._has_lost = True

    def holder_found(self, node: str, now: float) -> None:
        """A node holds the whole blob and can give it."""
        member = self._end_membership(node)
        had = 0 if member is None else member.have
        self._company.holders.add(node)
        self._spread.reached(self._all & ~had, now)
        self._came(self._all, now, is_paced=False)
        self._see_lan(now)

    def _end_membership(self, node: str) -> Member | None:
        member = self._company.leave(node)
        self._fetchers.discard(node)
        if member is not None:
            for stripe in iter_bits(member.flying):
                self._claims.end(stripe, node)
        return member

    def _forget_lost(self) -> None:
        """What only those had that are gone, or give nothing, has yet to come to the site.

        Reckoned where it is next looked at, once for all that left by then: a large site may go at once.
        """
        if not self._has_lost:
            return
        self._has_lost = False
        self._known = self.have | self._company.offer
        self._seen = self._known | self.claimed | self._company.begun

    def way_changed(self, way: Way, now: float) -> None:
        """Another way over the WAN is open to this node."""
        self._open_way = way
        self._choose_way(now)

    def _choose_way(self, now: float) -> None:
        """Use the way that is open, or leave it to others."""
        way = self._open_way
        if way is Way.SEEDER and self._standing.is_back(now) and now >= self._needed_until:
            if self._others_with_seeder(now):
                way = Way.NONE
            else:
                # All may stand back at the same moment: whoever returns stays, or they would do so in turns.
                self._needed_until = now + _NEEDED
        if way is not self._way:
            self._way = way
            # The others' ways change at the same moment: hear them first, or each would be the only owner.
            self._hold_until = now + (SETTLE if self._company.members else 0.0)
            self._fetchers.discard(self._me)
            if way is Way.SEEDER:
                self._fetchers.add(self._me)

    def seeder_is(self, now: float, *, is_cold: bool) -> None:
        """Whether it is itself still pulling what this node wants next; to be told before each decision."""
        self.is_cold = is_cold
        if is_cold:
            self._cold_until = self._pace.since(now)

    def started(self, stripe: int, now: float) -> None:
        """This node began to fetch a stripe."""
        self.in_flight[stripe] = now
        self._half_at.pop(stripe, None)

    def half_came(self, stripe: int, now: float) -> None:
        """Half of the bytes of a stripe in flight are there."""
        self._half_at[stripe] = now

    def received(self, stripe: int, now: float) -> None:
        """All bytes of a stripe came over the WAN; they are not verified yet."""
        started = self.in_flight.pop(stripe, None)
        if started is not None:
            self._pace.took(now - started)
        if not self.have >> stripe & 1:
            self._received |= 1 << stripe

    def gained(self, stripe: int, now: float) -> None:
        """This node has a stripe, verified, by either plane. A request for it, if any, is moot."""
        if self.have >> stripe & 1:
            return
        self._forget_lost()
        began = self.in_flight.pop(stripe, None)
        if began is not None and self._is_overdue(began, now):
            self._standing.step_back(now)
        if self._received >> stripe & 1:
            if self._way is Way.ORIGIN and not self._known >> stripe & 1:
                self._election.fetched(now, is_mine=True)
            if self._company.members:
                self._spread.brought(1 << stripe & ~self._known, now, is_mine=True)
        else:
            self._lan.brought(now)
            self._spread.reached(1 << stripe, now)
        self._received &= ~(1 << stripe)
        self.have |= 1 << stripe
        self._came(1 << stripe, now)
        self._see_lan(now)

    def connected(self, now: float) -> None:
        """A torrent met its first peer, or one more: the LAN can bring what is owed only from now on."""
        self._lan.connected(now)

    def stood_still(self, now: float) -> None:
        """This node did nothing for a while: that the LAN brought nothing proves nothing."""
        self._lan.begin_anew(now)
        self._turn.forget()

    def failed(self, stripe: int, now: float, retry_after: float) -> None:
        """A fetch of this node failed; it begins no other for `retry_after` seconds."""
        self.in_flight.pop(stripe, None)
        self._hold_until = max(self._hold_until, now + retry_after)

    def is_at_site(self, stripe: int) -> bool:
        """Whether this node has it, or a member or holder that gives it."""
        return bool((self.have | self._company.offer) >> stripe & 1)

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
        """By which way it fetches, as it tells others."""
        return self._way

    @property
    def open_way(self) -> Way:
        """By which way it could: what it leaves to others is open to it all the same."""
        return self._open_way

    @property
    def members(self) -> Iterable[str]:
        """Other nodes that are fetching."""
        return self._company.members.keys()

    def way_of(self, node: str) -> Way:
        """By which way another node fetches; none where it is no member."""
        return self._company.way_of(node)

    def members_by(self, way: Way) -> list[str]:
        """Other nodes that are fetching and can do so by this way."""
        return self._company.members_by(way)

    @property
    def holders(self) -> Collection[str]:
        """Other nodes that hold the blob."""
        return self._company.holders

    @property
    def takeovers(self) -> int:
        """How many stripes it fetched in place of another node."""
        return self._turn.takeovers

    @property
    def patience(self) -> float:
        """Seconds before a takeover."""
        return self._pace.patience

    @property
    def came_at(self) -> float:
        """When anybody on the site last got a stripe that nobody had; at first, when it began."""
        return self._pace.came_at

    @property
    def site_moved_at(self) -> float:
        """When anybody on the site last got, or began to get, a stripe that nobody had."""
        return max(self._pace.came_at, self._moved_at)

    def needs_wan(self, now: float) -> bool:
        """Whether it is coming over the WAN, and nodes have stripes yet to ask for.

        The last few were asked for before one hears of it: to wait for the news would leave the WAN idle.
        One at which nothing moves (it yields, was refused, or its source hangs) would not use what is
        left to it.
        """
        self._forget_lost()
        has_all = self._company.offer == self._all
        if has_all or self._way is Way.NONE or now - self.site_moved_at >= self.patience:
            return False
        begun = self._seen | self.claimed
        # Others' claims are heard of with their next reports.
        unheard = round(REPORT_EVERY / self._pace.seconds) if begun else 0
        return (self._all & ~begun).bit_count() > unheard

    def window(self) -> range:
        """Segments to work on now: the first incomplete one and the `LOOKAHEAD` behind it."""
        missing = self._all & ~self.have
        if not missing:
            return range(self.layout.segment_count, self.layout.segment_count)
        first = ((missing & -missing).bit_length() - 1) // self.layout.stripes_per_segment
        return range(first, min(first + LOOKAHEAD + 1, self.layout.segment_count))

    def missing_in(self, segment: int) -> list[int]:
        """Stripes of a segment that neither this node nor any peer has that gives what it has."""
        mask = mask_of(self.layout.stripes_of(segment))
        return list(iter_bits(mask & ~self.claimed & ~self._company.offer))

    # What to do.

    def decide(self, now: float) -> Decision:
        """Apply the rules of this module to what is known."""
        self._forget_lost()
        if self._company.members and self._spread.is_slow(now):
            self._standing.step_back(now)
        self._choose_way(now)
        for node in self._lan.unmute(now):
            self._trust(node)
        self._see_lan(now)
        if now >= self._lan.deadline:
            self._mute(now)
        lan_deadline = self._lan.deadline
        wakes = [lan_deadline, self._lan.heard_at]
        fetch: tuple[int, ...] = ()
        drop = self._drop_late(now)
        lead = ranks = False
        if self.have == self._all or self._way is Way.NONE or self._company.offer == self._all:
            pass
        elif not self._anyone_with_seeder(now):
            is_new = not self.claimed
            self._election.fetching(self._company.flying(Way.ORIGIN), now)
            lead = self._way is Way.ORIGIN and self._election.leads(
                self._company.heard(Way.ORIGIN), now, is_new=is_new
            )
            wakes.append(now + (LISTEN if is_new else LEAD_PATIENCE))
        elif self._way is not Way.SEEDER:
            wakes.append(now + LEAD_PATIENCE)
        elif now < self._hold_until:
            wakes.append(self._hold_until)
        else:
            ranks = True
            fetch = self._begin(now, wakes)
        if not ranks:
            self._turn.forget()
        if not lead:
            self._election.stand_down()
        wake_at = min(wakes)
        return Decision(fetch, drop, lead, None if wake_at == float("inf") else max(wake_at, now + _SOONEST))

    def _drop_late(self, now: float) -> tuple[int, ...]:
        """Requests that are late at a node that stands back: while they are told of, nobody else begins.

        Not one of which half came, unless the rest takes longer than that did: else it is here before
        another has fetched it from its start.
        """
        if self._way is self._open_way:
            return ()
        late = tuple(
            stripe
            for stripe, began in self.in_flight.items()
            if self._is_overdue(began, now) and now - began > 2 * (self._half_at.get(stripe, began) - began)
        )
        for stripe in late:
            del self.in_flight[stripe]
        return late

    def _is_overdue(self, began: float, now: float) -> bool:
        """Whether this node, or its way, is slow: not while all wait for the source."""
        return now - max(began, self._cold_until.at) > self._pace.overdue

    def _begin(self, now: float, wakes: list[float]) -> tuple[int, ...]:
        """Stripes to fetch now (p2pd.decide.turn)."""
        room = self._room()
        if not room:
            return ()
        lacking = ~self.claimed & ~self._company.offer
        pending = self.claimed & ~self.have & ~self._company.offer
        lack = Lack(self._window_mask() & lacking, pending, inf if self.is_cold else self._ahead)
        return self._turn.choose(lack, room, self._cold_until, now, wakes)

    # What the rules look at.

    @property
    def _ahead(self) -> int:
        """Stripes that the site fetches at a time; behind another blob just enough to be seen alive."""
        return 1 if self.is_behind else self._pace.ahead

    def _room(self) -> int:
        """Requests that may begin: a few when alone, to hide round trips; two when there are many.

        At most two at a time, for what begins together ends together and leaves the WAN idle then.
        """
        low, high = IN_FLIGHT
        if self.is_behind:
            return 0 if self.in_flight else 1
        allowed = min(max(low, self._pace.ahead // max(1, len(self._fetchers))), high)
        return max(0, min(allowed - len(self.in_flight), low))

    def _came(self, have: int, now: float, *, is_paced: bool = True) -> None:
        """The site has these. Not `is_paced`: since when is not known, so it tells nothing of how fast."""
        fresh = have & ~self._known
        self._known |= fresh
        self._seen |= fresh
        if fresh and is_paced:
            self._pace.came(fresh, now)

    def _mute(self, now: float) -> None:
        owing = self._company.owing(self._window_mask() & ~self.have)
        self._lan.stalled(owing, now)
        for node in owing:
            self._fetchers.discard(node)
        self._company.offers_anew()
        self._has_lost = True
        self._see_lan(now)

    def _trust(self, node: str) -> None:
        self._company.offers_more(node)
        self._known |= self._company.offer
        if self._company.way_of(node) is Way.SEEDER and node not in self._lan.muted:
            self._fetchers.add(node)

    def _window_mask(self) -> int:
        if self.have != self._window_of[0]:
            window = self.window()
            mask = 0
            if window:
                first, last = self.layout.stripes_of(window[0]), self.layout.stripes_of(window[-1])
                mask = mask_of(range(first.start, last.stop))
            self._window_of = (self.have, mask)
        return self._window_of[1]

    def _see_lan(self, now: float) -> None:
        self._lan.owes(bool(self._company.offer & self._window_mask() & ~self.have), now)

    def _anyone_with_seeder(self, now: float) -> bool:
        return self._way is Way.SEEDER or self._others_with_seeder(now)

    def _others_with_seeder(self, now: float) -> bool:
        return self._company.has_active(Way.SEEDER, now - LEAD_PATIENCE)
