"""How fast a link may be used, by the time of day."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["UNLIMITED", "LinkUse", "Rate", "RatePlan", "RateWindow"]


class Rate(float):
    """Bytes a second, shown as networks are: bits."""

    def __str__(self) -> str:
        if self == float("inf"):
            return "unlimited"
        bits = self * 8
        unit, scale = next((u, s) for u, s in (("Gbit/s", 1e9), ("Mbit/s", 1e6), ("kbit/s", 0)) if bits >= s)
        return f"{bits / (scale or 1e3):g} {unit}"


UNLIMITED = Rate("inf")

_DAY = 24 * 60


@dataclass(frozen=True, slots=True)
class RateWindow:
    """From `start` up to `stop`, minutes of the day; over midnight where `stop` is not after `start`."""

    start: int
    stop: int
    bytes_s: Rate

    def __str__(self) -> str:
        times = (f"{minute // 60:02}:{minute % 60:02}" for minute in (self.start, self.stop))
        return f"{'-'.join(times)} = {self.bytes_s}"

    def covers(self, minute: int) -> bool:
        return (minute - self.start) % _DAY < ((self.stop - self.start) % _DAY or _DAY)


@dataclass(frozen=True, slots=True)
class RatePlan:
    """`bytes_s`, except within the windows; of several that cover a minute the first counts."""

    bytes_s: Rate = UNLIMITED
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
