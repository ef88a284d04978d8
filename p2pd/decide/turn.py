"""Whose turn a stripe is: its owner's, or that of those who step in for it.

Rules 2 and 3 of p2pd.decide.plan, applied to the stripes that a site lacks.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Container
from dataclasses import dataclass

from p2pd.decide.bits import iter_bits
from p2pd.decide.claims import Claims
from p2pd.decide.company import Company
from p2pd.decide.fetchers import Fetchers
from p2pd.decide.pace import Pace, Since

__all__ = ["IN_FLIGHT", "Lack", "Turn"]

IN_FLIGHT = (2, 6)
"""Requests that a node has in flight, at least and at most: a few when alone, to hide round trips."""

_AT_WORK = 1.0


@dataclass(frozen=True, slots=True)
class Lack:
    """What a site lacks, as bits: nobody has or fetches `missing`, as far as this node knows but for others'
    claims; `pending` it fetches itself, or has unverified. `ahead`: stripes to be begun by the whole site."""

    missing: int
    pending: int
    ahead: float


class Turn:
    """Which of them this node begins. It shares its views of the others with the plan."""

    def __init__(
        self,
        me: str,
        fetchers: Fetchers,
        claims: Claims,
        company: Company,
        pace: Pace,
        ignored: Container[str],
    ) -> None:
        self.takeovers = 0
        """How many it began in place of another."""
        self._me = me
        self._fetchers = fetchers
        self._claims = claims
        self._company = company
        self._pace = pace
        self._ignored = ignored
        self._owed: dict[int, tuple[str, Since]] = {}

    def forget(self) -> None:
        """Nobody owes anything since earlier than the next choice."""
        self._owed.clear()

    def choose(
        self, lack: Lack, room: int, claimed_since: Since, now: float, wakes: list[float]
    ) -> tuple[int, ...]:
        """Own stripes and late ones, lowest first, among the next few that the site lacks: at most `room`.

        No claim counts as older than `claimed_since`. Appends to `wakes` when to choose again.
        """
        fetch: list[int] = []
        owed: dict[int, tuple[str, Since]] = {}
        next_up: Counter[str] = Counter()
        missing, pending = lack.missing, lack.pending
        due = lack.ahead - pending.bit_count()
        lowest = (missing & -missing) < (pending & -pending) or not pending
        for stripe in iter_bits(missing):
            claimants = self._claims.on(stripe, self._ignored)
            order = [node for node in self._fetchers.rank(stripe) if node not in claimants]
            if claimants:
                since, clocked = max(*claimants.values(), claimed_since), True
            else:
                owner = order.pop(0)
                next_up[owner] += 1
                owed[stripe] = known = self._owed_since(stripe, owner, now)
                since, clocked = known[1], not self._is_about_to(owner, next_up[owner], now)
            late_at, admitted = self._pace.lateness(stripe, since, now, lowest=lowest, clocked=clocked)
            is_own = not claimants and owner == self._me
            if len(fetch) < room and (is_own or self._me in self._fetchers.admitted(order, admitted)):
                fetch.append(stripe)
                self.takeovers += not is_own
            if not admitted:
                due -= 1
            wakes.append(late_at)
            lowest = False
            if due <= 0:
                break
        self._owed = owed
        return tuple(fetch)

    def _is_about_to(self, owner: str, place: int, now: float) -> bool:
        """Whether the owner is at work and comes to this stripe next: to take it over then is a race."""
        member = self._company.members.get(owner)
        if member is None or place > IN_FLIGHT[0]:
            return False
        return member.flying != 0 or now - member.active_at < _AT_WORK

    def _owed_since(self, stripe: int, owner: str, now: float) -> tuple[str, Since]:
        """Who owes an unclaimed stripe, and since when that node does."""
        known = self._owed.get(stripe)
        return known if known is not None and known[0] == owner else (owner, self._pace.since(now))
