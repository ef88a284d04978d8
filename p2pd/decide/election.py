"""Who pulls a blob from the origin for the whole site, where nobody reaches a seeder."""

from __future__ import annotations

from collections.abc import Iterable

from p2pd.decide.ownership import object_key, ranked
from p2pd.model.reference import Digest

__all__ = ["LEAD_PATIENCE", "Election"]

LEAD_PATIENCE = 12.0
"""Seconds without anything new on the site after which the next in rank leads too: less than a
client's stall limit, more than a stripe takes on any WAN worth using."""


class Election:
    """By rendezvous rank on the digest, so that all agree without a word.

    The next in rank steps in when the site stands still, not when one member does: members that
    only wait for the leader look idle too, and would all lead at once. It leads on until a better
    one is seen to bring something.
    """

    def __init__(self, digest: Digest, me: str) -> None:
        self.moved_at = float("-inf")
        self._key = object_key(f"lead {digest}")
        self._me = me
        self._brought_at: dict[str, float] = {}
        self._began: float | None = None
        self._leading_since: float | None = None

    def brought(self, node: str, now: float) -> None:
        """A member has what nobody on the site had."""
        self.moved_at = self._brought_at[node] = now

    def moved(self, now: float) -> None:
        """Somebody began to fetch what nobody did. A leader that hangs can say that too."""
        self.moved_at = now

    def stand_down(self) -> None:
        """This node does not lead now, for whatever reason."""
        self._leading_since = None

    def leads(self, others: Iterable[str], now: float) -> bool:
        """Whether this node leads, among `others` that can reach the origin too."""
        if self._began is None:
            self._began = now
        rank = ranked(self._key, [self._me, *others])
        better = rank[: rank.index(self._me)]
        since = self._leading_since
        if since is not None:
            leads = all(self._brought_at.get(node, since) <= since for node in better)
        else:
            leads = len(better) <= int((now - max(self.moved_at, self._began)) / LEAD_PATIENCE)
        if leads and since is None:
            self._leading_since = now
        elif not leads:
            self._leading_since = None
        return leads
