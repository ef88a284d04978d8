"""Whether a source over the WAN is worth asking now: circuit breakers without a clock."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Reach", "SourceHealth", "Turn"]

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

    @property
    def is_well(self) -> bool:
        """Whether its last answer was one; `is_up` is true also when it is to be tried again."""
        return self._failures == 0

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


@dataclass(frozen=True, slots=True)
class Turn:
    """A source, or one upstream of it, stopped or began to answer."""

    upstream: str | None
    is_up: bool


class Reach:
    """One source and the upstreams (registries) behind it, each with a breaker of its own.

    A registry that is down costs its own images their source, and no others.
    """

    def __init__(self) -> None:
        self._own = SourceHealth()
        self._upstreams: dict[str, SourceHealth] = {}

    def is_up(self, upstream: str, now: float) -> bool:
        """Whether the source is worth asking for content of this upstream."""
        behind = self._upstreams.get(upstream)
        return self._own.is_up(now) and (behind is None or behind.is_up(now))

    @property
    def is_well(self) -> bool:
        """Whether the source itself answers, for all that is known."""
        return self._own.is_well

    def upstreams_down(self) -> list[str]:
        """Upstreams that the source could not reach when it last tried."""
        return sorted(name for name, health in self._upstreams.items() if not health.is_well)

    def succeeded(self, upstream: str) -> list[Turn]:
        """The upstream's content came."""
        turns = self.answered()
        if self._of(upstream).succeeded():
            turns.append(Turn(upstream, True))
        return turns

    def answered(self) -> list[Turn]:
        """The source spoke; what it said tells nothing of the upstream."""
        return [Turn(None, True)] if self._own.succeeded() else []

    def failed(
        self, upstream: str, now: float, retry_after: float | None = None, *, beyond: bool
    ) -> list[Turn]:
        """Nothing came. `beyond`: the source itself is well, what failed lies behind it."""
        if beyond:
            turns = self.answered()
            return [*turns, Turn(upstream, False)] if self._of(upstream).failed(now, retry_after) else turns
        return [Turn(None, False)] if self._own.failed(now, retry_after) else []

    def _of(self, upstream: str) -> SourceHealth:
        return self._upstreams.setdefault(upstream, SourceHealth())
