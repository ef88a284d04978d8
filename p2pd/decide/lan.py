"""Whether the LAN can be trusted to bring what peers have."""

from __future__ import annotations

__all__ = ["LanTrust"]

LAN_PATIENCE = 5.0
STALLS_UNTIL_GIVEN_UP = 4


class LanTrust:
    """Patience with a LAN that owes something: `LAN_PATIENCE`, halved with each stall in a row.

    After `STALLS_UNTIL_GIVEN_UP` of them there is none left, until the LAN brings something.
    """

    def __init__(self, now: float) -> None:
        self._moved_at = now
        self._stalls = 0
        self._owes = False

    def owes(self, owes: bool, now: float) -> None:
        """Whether peers have what this node lacks; the wait begins with the first such thing."""
        if owes and not self._owes:
            self._moved_at = now
        self._owes = owes

    def brought(self, now: float) -> None:
        """A stripe came over the LAN (what comes over the WAN says nothing about it)."""
        self._moved_at = now
        self._stalls = 0

    def stalled(self, now: float) -> None:
        """Its patience over, this node helps itself once; then the LAN has another, shorter chance."""
        self._stalls += 1
        self._moved_at = now

    def give_up(self) -> None:
        """Trust no more until the LAN brings something."""
        self._stalls = STALLS_UNTIL_GIVEN_UP

    @property
    def deadline(self) -> float:
        """Until when it is trusted; infinity while it owes nothing."""
        if not self._owes:
            return float("inf")
        if self._stalls >= STALLS_UNTIL_GIVEN_UP:
            return self._moved_at
        return self._moved_at + LAN_PATIENCE * 0.5**self._stalls
