"""Who is fetching which stripe since when, and who proved too slow at it."""

from __future__ import annotations

from collections.abc import Container

from p2pd.decide.pace import Since

__all__ = ["Claims"]


class Claims:
    """Claims of the other members.

    One is overtaken when a stripe that it had claimed comes from a node that claimed it much later.
    A node never thinks that of itself: views differ, and where it stood back and the others did not
    know, nobody would fetch.
    """

    def __init__(self) -> None:
        self._of: dict[int, dict[str, Since]] = {}
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

    def end(self, stripe: int, node: str) -> Since | None:
        """A claim ended, in the stripe or without it; since when it was, if it was known."""
        claims = self._of.get(stripe, {})
        since = claims.pop(node, None)
        if not claims:
            self._of.pop(stripe, None)
        return since

    def overtake(self, stripe: int, before: float, until: float) -> bool:
        """A stripe came: claims of it made `before` are overtaken, until then. True where there are any."""
        late = [node for node, since in self._of.get(stripe, {}).items() if since.at < before]
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
