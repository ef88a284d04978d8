"""Who is fetching which stripe since when, and who proved too slow at it."""

from __future__ import annotations

from collections.abc import Container

from p2pd.decide.pace import Since

__all__ = ["Claims"]

_WELL_BEFORE = 1.0
"""Seconds by which a claim must be the older one to count as overtaken: notices are late by less."""


class Claims:
    """Claims of the other members, and the node's own for comparison.

    A member is overtaken when a stripe that it had claimed comes from one that claimed it later.
    """

    def __init__(self, me: str) -> None:
        self._me = me
        self._of: dict[int, dict[str, Since]] = {}
        self._own: dict[int, float] = {}
        self._overtaken: dict[str, float] = {}

    @property
    def overtaken(self) -> Container[str]:
        """Nodes that rank last for now."""
        return self._overtaken

    def on(self, stripe: int, ignored: Container[str]) -> dict[str, Since]:
        """Claims of a stripe that count: not those of nodes that are `ignored` or were overtaken."""
        claims = self._of.get(stripe)
        if not claims:
            return {}
        return {
            node: since
            for node, since in claims.items()
            if node not in self._overtaken and node not in ignored
        }

    def begin(self, stripe: int, node: str, since: Since) -> None:
        self._of.setdefault(stripe, {})[node] = since

    def begin_own(self, stripe: int, now: float) -> None:
        self._own[stripe] = now

    def end_own(self, stripe: int) -> None:
        self._own.pop(stripe, None)

    def end(self, stripe: int, node: str) -> Since | None:
        """A claim ended, in the stripe or without it; since when it was, if it was known."""
        claims = self._of.get(stripe, {})
        since = claims.pop(node, None)
        if not claims:
            self._of.pop(stripe, None)
        return since

    def overtake(self, stripe: int, began: float, until: float) -> bool:
        """A claim made at `began` ended in the stripe. True where that overtook somebody, until then."""
        late = [n for n, since in self._of.get(stripe, {}).items() if since.at < began - _WELL_BEFORE]
        if self._own.get(stripe, began) < began - _WELL_BEFORE:
            late.append(self._me)
        for node in late:
            self._overtaken[node] = until
        return bool(late)

    def forgive(self, now: float) -> bool:
        """Forget those whose time is over; true where there were any."""
        over = [node for node, until in self._overtaken.items() if until <= now]
        for node in over:
            del self._overtaken[node]
        return bool(over)

    def forget(self, node: str) -> None:
        """The node left."""
        self._overtaken.pop(node, None)
