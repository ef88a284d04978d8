"""Keeping to a rate: whoever uses a link is told how long to wait before going on."""

from __future__ import annotations

from p2pd.model.rate import UNLIMITED

__all__ = ["BURST", "Budget"]

BURST = 0.25
"""Seconds whose bytes may pass at once after a rest."""


class Budget:
    """One link's bytes, for any number of users: a leaky bucket, told by the time when it is empty."""

    def __init__(self) -> None:
        self._free_at = float("-inf")

    def spend(self, count: int, bytes_s: float, now: float) -> float:
        """`count` bytes passed; seconds to wait before the next."""
        if bytes_s == UNLIMITED:
            self._free_at = float("-inf")
            return 0.0
        self._free_at = max(self._free_at, now - BURST) + count / bytes_s
        return max(0.0, self._free_at - now)
