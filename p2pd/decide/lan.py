"""Whether peers give over the LAN what they say they have."""

from __future__ import annotations

from collections.abc import Container, Iterable

__all__ = ["LanTrust"]

LAN_PATIENCE = 5.0
_SHORTEST_PATIENCE = 0.6
_MUTE_AT_FIRST = 20.0
_MUTE_LONGEST = 160.0


class LanTrust:
    """Patience with a LAN that owes something: `LAN_PATIENCE`, halved with each stall in a row.

    At its end the peers that owe are muted: nothing is expected of them for 20, 40 … 160 s. A LAN that
    is blocked mutes everyone, a peer whose swarm port is blocked only itself.
    """

    def __init__(self, now: float) -> None:
        self._moved_at = self._owes_since = now
        self._stalls = 0
        self._owes = False
        self._muted: dict[str, float] = {}

    @property
    def muted(self) -> Container[str]:
        """Peers that are left out of account."""
        return self._muted

    @property
    def deadline(self) -> float:
        """Until when the LAN is trusted; infinity while it owes nothing."""
        if not self._owes:
            return float("inf")
        return self._moved_at + max(_SHORTEST_PATIENCE, LAN_PATIENCE * 0.5**self._stalls)

    @property
    def heard_at(self) -> float:
        """When the next muted peer is to be trusted again; infinity where there is none."""
        return min(self._muted.values(), default=float("inf"))

    def owes(self, owes: bool, now: float) -> None:
        """Whether peers that are not muted have what this node lacks; the wait begins with the first."""
        if owes and not self._owes:
            self._moved_at = self._owes_since = now
        self._owes = owes

    def brought(self, now: float) -> None:
        """A stripe came over the LAN (what comes over the WAN says nothing about it)."""
        self._moved_at = now
        self._stalls = 0

    def connected(self, now: float) -> None:
        """A way to some of what is owed is open only now. The first wait is up to twice as long by that."""
        if not self._stalls:
            self._moved_at = max(self._moved_at, min(now, self._owes_since + LAN_PATIENCE))

    def begin_anew(self, now: float) -> None:
        """The wait for what is owed begins now."""
        self._moved_at = now

    def stalled(self, owing: Iterable[str], now: float) -> None:
        """Patience is over: mute those that owe."""
        until = now + min(_MUTE_AT_FIRST * 2.0**self._stalls, _MUTE_LONGEST)
        for node in owing:
            self._muted[node] = until
        self._stalls = min(self._stalls + 1, 16)
        self._moved_at = now

    def unmute(self, now: float) -> list[str]:
        """Peers whose time is over, no longer muted."""
        over = [node for node, until in self._muted.items() if until <= now]
        for node in over:
            del self._muted[node]
        return over

    def forget(self, node: str) -> None:
        """The peer left."""
        self._muted.pop(node, None)
