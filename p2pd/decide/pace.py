"""How fast a site gets a blob over its WAN, as one node sees it: what patience and look-ahead follow from."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["Pace", "Since"]

_AT_FIRST = (1.0, 5.0)
_TOOK_AT_FIRST = 7.0
_PATIENCE_BOUNDS = (2.0, 60.0)
_AHEAD_SECONDS = 1.5
_AHEAD_BOUNDS = (3, 64)
_KEPT = 0.97
_TOOK_WEIGHT = 0.2
_PATIENCE = 3
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
        self._took_any = False
        self._clock = 0.0

    def came(self, stripes: int, now: float) -> None:
        """That many stripes came that nobody was known to have."""
        clock = self.clock(now)
        # Sums, for stripes that share a link end together: their gaps are none, none, none and a long one.
        kept = _KEPT**stripes
        gap = min(now - self.came_at, _LONGEST_GAP + 8 * self.seconds)
        self._time = self._time * kept + gap
        self._stripes = self._stripes * kept + stripes
        self._clock, self.came_at = clock, now

    def took(self, seconds: float) -> None:
        """A stripe took so long from claim to have, at any member."""
        weight = _TOOK_WEIGHT if self._took_any else 1.0
        self._took += weight * (seconds - self._took)
        self._took_any = True

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
        """Seconds before a stripe counts as late: three times what one takes."""
        low, high = _PATIENCE_BOUNDS
        return min(max(_PATIENCE * self._took, low), high)

    @property
    def ahead(self) -> int:
        """Stripes that the whole site fetches at a time: what comes in about a second and a half.

        Fewer leave the WAN idle between a stripe's end and the news of it; more only make each
        one slower, so that on a slow WAN nothing would come whole for minutes.
        """
        low, high = _AHEAD_BOUNDS
        return min(max(low, round(_AHEAD_SECONDS / max(self.seconds, 1e-3))), high)
