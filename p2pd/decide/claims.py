"""Who is fetching which stripe since when."""

from __future__ import annotations

from collections.abc import Container

from p2pd.decide.pace import Since

__all__ = ["Claims"]


class Claims:
    """Claims of the other members."""

    def __init__(self) -> None:
        self._of: dict[int, dict[str, Since]] = {}

    def on(self, stripe: int, ignored: Container[str]) -> dict[str, Since]:
        """Claims of a stripe that count: not those of nodes that are `ignored`."""
        claims = self._of.get(stripe)
        if not claims:
            return {}
        return {node: since for node, since in claims.items() if node not in ignored}

    def begin(self, stripe: int, node: str, since: Since) -> None:
        self._of.setdefault(stripe, {})[node] = since

    def end(self, stripe: int, node: str) -> Since | None:
        """A claim ended, in the stripe or without it; since when it was, if it was known."""
        claims = self._of.get(stripe, {})
        since = claims.pop(node, None)
        if not claims:
            self._of.pop(stripe, None)
        return since
