"""Which nodes of a site may fetch a blob over the WAN, and in which order each stripe."""

from __future__ import annotations

from p2pd.decide.ownership import Ranking, object_key, ranked, stripe_key
from p2pd.model.reference import Digest

__all__ = ["FETCHERS", "Fetchers", "fetchers_key"]

FETCHERS = 32
"""Nodes that fetch: enough to fill any WAN, few enough that all can watch each other in a large site."""


def fetchers_key(digest: Digest) -> bytes:
    """What nodes are ranked by to fetch this blob."""
    return object_key(f"fetchers {digest}")


class Fetchers:
    """The first `FETCHERS` in rendezvous rank on the digest."""

    def __init__(self, digest: Digest) -> None:
        self._digest = digest
        self._ranking = Ranking(fetchers_key(digest))
        self._first: list[str] = []
        self._ranks: dict[int, list[str]] = {}

    def add(self, node: str) -> None:
        """A node reaches a seeder."""
        self._changed(self._ranking.add(node))

    def discard(self, node: str) -> None:
        """A node reaches none, is not heard, or left."""
        self._changed(self._ranking.discard(node))

    def _changed(self, rank: int | None) -> None:
        if rank is not None and rank < FETCHERS:
            self._first = self._ranking.top(FETCHERS)
            self._ranks.clear()

    def rank(self, stripe: int) -> list[str]:
        """The fetchers, the owner of the stripe first."""
        rank = self._ranks.get(stripe)
        if rank is None:
            rank = self._ranks[stripe] = ranked(stripe_key(self._digest, stripe), self._first)
        return rank

    def admitted(self, order: list[str], count: int) -> list[str]:
        """The first `count` of `order`; past the fetchers anybody, else their failure would be the site's."""
        if count > len(order):
            known = {*order, *self._first}
            order = order + [node for node in self._ranking.top(FETCHERS + count) if node not in known]
        return order[:count]

    def __len__(self) -> int:
        return len(self._first)
