"""Whether this node leaves the WAN to the others of its site, of its own accord.

A node is a burden where what it claims has to be fetched by another (its way over the WAN is slow, or it
is starved of CPU), or where what it fetched reaches nobody (its uplink into the LAN is slow). Only the node
itself says so, by telling that it has no way over the WAN: judged by each of the others, views would
differ, and what one expects of the node another fetches too.
"""

from __future__ import annotations

from p2pd.decide.bits import iter_bits

__all__ = ["Spread", "Standing"]

_AT_FIRST = 20.0
_LONGEST = 320.0
_FORGIVEN = 600.0
_SLOW = 2.0
_SLOWER = 4.0
_WEIGHT = 0.2


class Standing:
    """One a node, shared by the plans of all its blobs. It steps back for 20, 40 … 320 s."""

    def __init__(self) -> None:
        self._until = float("-inf")
        self._next = _AT_FIRST

    def step_back(self, now: float) -> None:
        """It was a burden; while it stands back already, this changes nothing."""
        if now < self._until:
            return
        if now > self._until + _FORGIVEN:
            self._next = _AT_FIRST
        self._until = now + self._next
        self._next = min(2 * self._next, _LONGEST)

    def is_back(self, now: float) -> bool:
        """Whether it leaves the WAN to others now."""
        return now < self._until


class Spread:
    """How long what came to one node takes to reach a second: this node's own, and the others' in comparison.

    That tells a slow uplink from a site where everything is slow, and from a peer that takes
    nothing. Stripes are bits of an int.
    """

    def __init__(self) -> None:
        self._mine: dict[int, float] = {}
        self._theirs: dict[int, float] = {}
        self._at_one = 0
        self._usual: float | None = None

    def begin_anew(self) -> None:
        """A node joined: that it lacks what this node brought before says nothing."""
        for stripe in self._mine:
            self._at_one &= ~(1 << stripe)
        self._mine.clear()

    def brought(self, stripes: int, now: float, *, is_mine: bool) -> None:
        """Nobody else is known to have these."""
        first = self._mine if is_mine else self._theirs
        for stripe in iter_bits(stripes):
            first[stripe] = now
        self._at_one |= stripes

    def reached(self, stripes: int, now: float) -> None:
        """A second node has these; those of which nobody saw the first are passed over."""
        stripes &= self._at_one
        self._at_one &= ~stripes
        for stripe in iter_bits(stripes):
            if self._mine.pop(stripe, None) is None:
                took = now - self._theirs.pop(stripe)
                usual = took if self._usual is None else self._usual
                self._usual = usual + _WEIGHT * (took - usual)

    def is_slow(self, now: float) -> bool:
        """Whether something of this node waits for much longer than the others' usually does."""
        if self._usual is None or not self._mine:
            return False
        return now - next(iter(self._mine.values())) > max(_SLOW, _SLOWER * self._usual)
