"""Whom a node tells how it stands with a blob, and whether it leaves the WAN to others.

In a site of up to `MESH` interested nodes everybody tells everybody. In a larger one that would cost each
node more than it saves: there the fetchers (p2pd.decide.fetchers: the first in rank on the digest) tell
each other, and every other node follows a few of them and knows a few neighbours. Telling is mutual, so
that a fetcher also hears what its followers have, should another fetcher die with the only copy known.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from p2pd.decide.fetchers import FETCHERS, fetchers_key
from p2pd.decide.ownership import first, object_key
from p2pd.decide.plan import Way
from p2pd.model.reference import Digest

__all__ = ["FOLLOWED", "MESH", "NEIGHBOURS", "Choice", "Circle"]

MESH = 64
FOLLOWED = 3
NEIGHBOURS = 12


@dataclass(frozen=True, slots=True)
class Choice:
    """`told`: whom to introduce this node to. `followed`: the fetchers among them where it is none itself."""

    told: frozenset[str]
    followed: frozenset[str] = frozenset()

    def way(self, own: Way, way_of: Callable[[str], Way]) -> Way:
        """The way that this node plans with and tells: none while a fetcher that it follows has one.

        Where those it follows are gone, or reach nothing, it fetches as in a small site.
        """
        if any(way_of(node) is not Way.NONE for node in self.followed):
            return Way.NONE
        return own


class Circle:
    """Chooses among the nodes that are known to be interested in a blob."""

    def __init__(self, digest: Digest, me: str) -> None:
        self._me = me
        self._interested: set[str] = set()
        self._fetchers_key = fetchers_key(digest)
        self._near_key = object_key(f"near {me} {digest}")
        self._choice: Choice | None = None

    def add(self, node: str) -> None:
        """A node is interested: it wants the blob, or holds it."""
        if node != self._me and node not in self._interested:
            self._interested.add(node)
            self._choice = None

    def discard(self, node: str) -> None:
        """It left."""
        if node in self._interested:
            self._interested.discard(node)
            self._choice = None

    def choose(self) -> Choice:
        """By what is known now. Some work where it changed, so better not at each change."""
        if self._choice is None:
            self._choice = self._chosen()
        return self._choice

    def _chosen(self) -> Choice:
        if len(self._interested) <= MESH:
            return Choice(frozenset(self._interested))
        fetchers = first(self._fetchers_key, [self._me, *self._interested], FETCHERS)
        near = first(self._near_key, self._interested, NEIGHBOURS)
        if self._me in fetchers:
            return Choice(frozenset({*fetchers, *near} - {self._me}))
        followed = first(self._near_key, fetchers, FOLLOWED)
        return Choice(frozenset({*followed, *near}), frozenset(followed))
