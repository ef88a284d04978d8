"""Whether a source over the WAN is worth asking now: a circuit breaker without a clock."""

from __future__ import annotations

__all__ = ["SourceHealth"]

_FIRST = 1.0
_LONGEST = 30.0


class SourceHealth:
    """After a failure the source is left alone for 1, 2, 4 … 30 s, or as long as it asked for.

    Once that time is over the next request is the trial: its success closes the breaker, its
    failure doubles the time.
    """

    def __init__(self) -> None:
        self._failures = 0
        self._down_until: float | None = None

    def is_up(self, now: float) -> bool:
        return self._down_until is None or now >= self._down_until

    def succeeded(self) -> bool:
        """Note an answer; true when the source was thought to be down."""
        recovered = self._failures > 0
        self._failures, self._down_until = 0, None
        return recovered

    def failed(self, now: float, retry_after: float | None = None) -> bool:
        """Note a failure; true when this is the first one. Failures while down count once."""
        if not self.is_up(now):
            return False
        self._failures += 1
        pause = min(_FIRST * 2.0 ** min(self._failures - 1, 8), _LONGEST)
        if retry_after is not None:
            pause = max(pause, min(retry_after, _LONGEST))
        self._down_until = now + pause
        return self._failures == 1
