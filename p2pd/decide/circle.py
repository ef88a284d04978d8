"""Whom a node tells how it stands with a blob, and whether it leaves the WAN to others.

In a site of up to `MESH` interested nodes everybody tells everybody. In a larger one that would cost each
node more than it saves: there the fetchers (p2pd.decide.fetchers: the first in rank on the digest) tell
each other, and every other node follows a few of them and knows a few neighbours. Telling is mutual, so
that a fetcher also hears what its followers have, should another fetcher die with the only copy known.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from p2pd.decide.fetchers import FETCHERS, fetchers_key
from p2pd.decide.ownership import first, object_key
from p2pd.decide.plan import Way
from p2pd.model.reference import Digest

__all__ = ["ALIKE", "FOLLOWED", "MESH", "NEIGHBOURS", "Choice", "Circle", "worth_knowing"]

MESH = 48
FOLLOWED = 3
NEIGHBOURS = 12
ALIKE = 2

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Choice:
    """`told`: whom to introduce this node to. `followed`: the fetchers among them where it is none itself.
    `is_large`: many more are interested than this node tells."""

    told: frozenset[str]
    followed: frozenset[str] = frozenset()
    is_large: bool = False

    def way(self, own: Way, way_of: Callable[[str], Way]) -> Way:
        """The way that this node plans with and tells: none while a fetcher that it follows has one.

        Where those it follows are gone, or reach nothing, it fetches as in a small site.
        """
        if any(way_of(node) is not Way.NONE for node in self.followed):
            return Way.NONE
        return own

    def believed(self, words: Mapping[str, _T], *, could_ask: bool) -> _T | None:
        """Which of the peers' words on the hashes of a segment counts, if any.

        Any where no seeder can be asked. Where one could, but every node's asking would cost the WAN more
        than the site may spend (20 bytes a piece and node), what two followed fetchers say alike: no
        single node can lead others astray. `words`: of each node its first.
        """
        if not could_ask:
            return next(iter(words.values()), None)
        said = Counter(word for node, word in words.items() if node in self.followed)
        return next((word for word, count in said.items() if count >= ALIKE), None)


class Circle:
    """Chooses among the nodes that are known to be interested in a blob."""

    def __init__(self, digest: Digest, me: str) -> None:
        self._me = me
        self._interested: set[str] = set()
        self._fetchers_key = fetchers_key(digest)
        self._near_key = _near_key(digest, me)
        self._choice: Choice | None = None

    def update(self, interested: set[str]) -> None:
        """These are, and no others."""
        interested = interested - {self._me}
        if interested != self._interested:
            self._interested = interested
            self._choice = None

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
            return Choice(frozenset({*fetchers, *near} - {self._me}), is_large=True)
        followed = first(self._near_key, fetchers, FOLLOWED)
        return Choice(frozenset({*followed, *near}), frozenset(followed), is_large=True)


def worth_knowing(digest: Digest, asker: str, interested: set[str], limit: int) -> list[str]:
    """Whom to name to a node that asks who is interested: the fetchers first, then some near to it."""
    fetchers = first(fetchers_key(digest), interested, FETCHERS)
    near = first(_near_key(digest, asker), interested.difference(fetchers), limit)
    return [*fetchers, *near][:limit]


def _near_key(digest: Digest, node: str) -> bytes:
    return object_key(f"near {node} {digest}")
