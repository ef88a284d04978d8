"""How fast a site gets a blob over its WAN, as one node sees it: what patience and look-ahead follow from."""

from __future__ import annotations

from bisect import bisect_right
from typing import NamedTuple

__all__ = ["Pace", "Since"]

_AT_FIRST = (1.0, 5.0)
_TOOK_AT_FIRST = 7.0
_PATIENCE_BOUNDS = (3.5, 60.0)
_AHEAD_SECONDS = 1.5
_AHEAD_BOUNDS = (3, 64)
_KEPT = 0.97
_FEW = 3
_TOOK_WEIGHT = 0.2
_DEVIATION_WEIGHT = 0.25
_PATIENCE = 3
_DEVIATIONS = 4
_OVERDUE = 2
_LONGEST_GAP = 2.0


class Since(NamedTuple):
    """A moment: monotonic seconds, and the site's own clock (see `Pace.clock`) then."""

    at: float
    clock: float


class Pace:
    """Smoothed over the stripes that came to the site, whoever fetched them."""

    def __init__(self, now: float) -> None:
        self.came_at = now
        self._time, self._stripes = _AT_FIRST
        self._took = _TOOK_AT_FIRST
        self._deviation = 0.0
        self._took_few = _FEW
        self._clock = 0.0
        # Each new highest stripe that the site had, with the site's clock then; both ascend.
        self._heights: list[int] = []
        self._height_clocks: list[float] = []

    def came(self, fresh: int, now: float) -> None:
        """Stripes (as bits) came that nobody was known to have."""
        stripes = fresh.bit_count()
        clock = self.clock(now)
        # Sums, for stripes that share a link end together: their gaps are none, none, none and a long one.
        kept = _KEPT**stripes
        gap = min(now - self.came_at, _LONGEST_GAP + 8 * self.seconds)
        self._time = self._time * kept + gap
        self._stripes = self._stripes * kept + stripes
        self._clock, self.came_at = clock, now
        height = fresh.bit_length() - 1
        if not self._heights or height > self._heights[-1]:
            self._heights.append(height)
            self._height_clocks.append(clock)

    def took(self, seconds: float) -> None:
        """A stripe took so long from claim to have, at any member."""
        error = seconds - self._took
        if self._took_few:
            # Those that end first were the quickest of all that began together.
            self._took_few -= 1
            self._took += error / 2
        else:
            self._took += _TOOK_WEIGHT * error
            self._deviation += _DEVIATION_WEIGHT * (abs(error) - self._deviation)

    def clock(self, now: float) -> float:
        """Seconds for which the site was getting on: stands still while nothing comes to anyone.

        A WAN that is cut makes every claim old at once; by this clock none of them ages.
        """
        return self._clock + min(max(0.0, now - self.came_at), 0.5 + 4 * self.seconds)

    @property
    def seconds(self) -> float:
        """Seconds a stripe of the site: what 1 / rate is to a stream."""
        return self._time / self._stripes

    def since(self, now: float) -> Since:
        return Since(now, self.clock(now))

    @property
    def patience(self) -> float:
        """Seconds before a stripe counts as late: three times what one takes, or what four mean deviations
        allow for where they differ much (RFC 6298, section 2: streams share a slow link unevenly). Never so
        little that a node which is only short of CPU would pay. Nodes that are gone are noticed otherwise."""
        low, high = _PATIENCE_BOUNDS
        usual = max(_PATIENCE * self._took, self._took + _DEVIATIONS * self._deviation)
        return min(max(usual, low), high)

    @property
    def overdue(self) -> float:
        """Seconds after which an own request is late by the site's pace: who gets none has no other."""
        return max(_OVERDUE * self.ahead * self.seconds, _PATIENCE_BOUNDS[0])

    @property
    def ahead(self) -> int:
        """Stripes that the whole site fetches at a time: what comes in about a second and a half.

        Fewer leave the WAN idle between a stripe's end and the news of it; more only make each
        one slower, so that on a slow WAN nothing would come whole for minutes.
        """
        low, high = _AHEAD_BOUNDS
        return min(max(low, round(_AHEAD_SECONDS / max(self.seconds, 1e-3))), high)

    def lateness(
        self, stripe: int, since: Since, now: float, *, lowest: bool, clocked: bool
    ) -> tuple[float, int]:
        """When to look again at a stripe awaited `since`, and by how many times `patience` it is late now.

        Where it is `clocked`, by the site's clock and from the time that a higher one passed it: a
        seeder that is still pulling the blob gives it in order, and whoever asked for a stripe
        further on has to wait its turn. Where it is the `lowest` that the site lacks, also by the
        time for which nothing came at all.
        """
        patience, late = self.patience, 0
        passed = bisect_right(self._heights, stripe)
        if clocked and passed < len(self._heights):
            late = int((self.clock(now) - max(since.clock, self._height_clocks[passed])) / patience)
        if lowest:
            late = max(late, int((now - max(since.at, self.came_at)) / patience))
        waited = max(0.0, now - since.at)
        return now + patience - waited % patience, late
