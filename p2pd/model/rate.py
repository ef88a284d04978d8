"""How fast a link may be used, by the time of day."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["UNLIMITED", "LinkUse", "RatePlan", "RateWindow"]

UNLIMITED = float("inf")
"""Bytes a second."""

_DAY = 24 * 60


@dataclass(frozen=True, slots=True)
class RateWindow:
    """From `start` up to `stop`, minutes of the day; over midnight where `stop` is not after `start`."""

    start: int
    stop: int
    bytes_s: float

    def covers(self, minute: int) -> bool:
        return (minute - self.start) % _DAY < ((self.stop - self.start) % _DAY or _DAY)


@dataclass(frozen=True, slots=True)
class RatePlan:
    """`bytes_s`, except within the windows; of several that cover a minute the first counts."""

    bytes_s: float = UNLIMITED
    windows: tuple[RateWindow, ...] = ()

    def at(self, minute: int) -> float:
        """Bytes a second allowed at a minute of the day."""
        return next((window.bytes_s for window in self.windows if window.covers(minute)), self.bytes_s)

    @property
    def is_unlimited(self) -> bool:
        """Whether it never limits anything."""
        return all(rate == UNLIMITED for rate in (self.bytes_s, *(w.bytes_s for w in self.windows)))


@dataclass(frozen=True, slots=True)
class LinkUse:
    """What a node uses: the WAN, for a client that waits (`urgent`), and the LAN's swarm."""

    wan: bool = False
    urgent: bool = False
    swarm: bool = False
