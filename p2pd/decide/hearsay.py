"""What peers say about the hashes of a segment's pieces, and when that counts. Pure.

A node asks a seeder itself: pieces that fit wrong hashes would be delivered before the whole sha256 can be
judged. Peers' words count

- where no seeder can be asked, or others should ask it (`Choice.believed`);
- where one is asked and says nothing: those of holders, who have checked the whole blob. A WAN that is cut
  takes longer than clients wait to be noticed, where connections from before are used on. Those of members
  do not count then: the seeder may be waiting for the same bytes as they, and what peers vouch for is held
  back from clients, which would cost them more than the wait.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

from p2pd.decide.circle import Choice
from p2pd.model.layout import SegmentMeta

__all__ = ["SEEDER_SILENCE", "Belief", "Hearsay"]

SEEDER_SILENCE = 3.0
"""Seconds that a seeder has to answer, once a peer did, before a holder's word counts."""


@dataclass(frozen=True, slots=True)
class Belief:
    """`is_doubtful`: nobody but one peer vouches for it."""

    meta: SegmentMeta
    is_doubtful: bool


@dataclass(slots=True)
class _Words:
    since: float
    by_node: dict[str, SegmentMeta] = field(default_factory=dict)


class Hearsay:
    """The words on the segments of one blob; of each node its first."""

    def __init__(self) -> None:
        self._words: dict[int, _Words] = {}

    def heard(self, node: str, meta: SegmentMeta, now: float) -> None:
        self._words.setdefault(meta.index, _Words(now)).by_node.setdefault(node, meta)

    def words(self, index: int) -> dict[str, SegmentMeta]:
        """Those on a segment that are not believed yet, by node."""
        words = self._words.get(index)
        return {} if words is None else dict(words.by_node)

    def forget(self, index: int) -> None:
        """The segment's hashes are known."""
        self._words.pop(index, None)

    def believed(
        self, choice: Choice, holders: Collection[str], now: float, *, is_asking: bool, could_ask: bool
    ) -> list[Belief]:
        """What counts now; it is told once. `is_asking`: this node asks a seeder; `could_ask`: one is up."""
        found = []
        for index, words in list(self._words.items()):
            if not is_asking:
                meta = choice.believed(words.by_node, could_ask=could_ask)
            elif now - words.since >= SEEDER_SILENCE:
                meta = next((word for node, word in words.by_node.items() if node in holders), None)
            else:
                meta = None
            if meta is not None:
                del self._words[index]
                found.append(Belief(meta, is_doubtful=is_asking or not could_ask))
        return found
