"""The time of a simulation: what happens next."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from itertools import count

__all__ = ["Events"]


class Events:
    """Actions in the order of their times, in seconds; of one time in the order they were asked for."""

    def __init__(self) -> None:
        self.now = 0.0
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._order = count()

    def at(self, when: float, action: Callable[[], None]) -> None:
        heapq.heappush(self._heap, (when, next(self._order), action))

    def after(self, delay: float, action: Callable[[], None]) -> None:
        self.at(self.now + delay, action)

    @property
    def next_at(self) -> float | None:
        """When something happens next; None for never."""
        return self._heap[0][0] if self._heap else None

    def step(self) -> None:
        """Let it happen."""
        self.now, _, action = heapq.heappop(self._heap)
        action()
