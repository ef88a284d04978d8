"""Who pulls a blob from the origin for the whole site, where nobody reaches a seeder."""

from __future__ import annotations

from collections.abc import Iterable

from p2pd.decide.ownership import object_key, ranked
from p2pd.model.reference import Digest

__all__ = ["LEAD_PATIENCE", "Election"]

LEAD_PATIENCE = 12.0
"""Seconds without anything new on the site after which the next in rank leads too: less than a
client's stall limit, more than a stripe takes on any WAN worth using."""

PASSED = 6.0
"""Seconds for which a leader may bring nothing while another does. One that stalled and goes on would else
fetch beside who stepped in, to the end."""

BESIDE = 4.0
"""Seconds for which a leader that brings something goes on beside a better one. That stands down by `PASSED`
where it gets nothing; of two side by side neither brings what the other has not, to the end."""

_GAP = 2.0
"""Seconds without a word of fetching after which a node counts as having stopped."""

LISTEN = 0.8
"""Seconds that a node with nothing of its own listens who else begins, or is at work: members report
about as often, and two that both lead are never told apart again."""


class Election:
    """By rendezvous rank on the digest, so that all agree without a word.

    The next in rank steps in when the site stands still, not when one member does: members that
    only wait for the leader look idle too, and would all lead at once. It leads on until a better
    one is seen to bring something. Who comes later, with nothing, yields to whoever is at work by then,
    however well it ranks: it would begin anew what the site has half.
    """

    def __init__(self, digest: Digest, me: str) -> None:
        self.moved_at = float("-inf")
        self._key = object_key(f"lead {digest}")
        self._me = me
        self._brought_at: dict[str, float] = {}
        self._mine_at = self._theirs_at = float("-inf")
        self._beside: dict[str, tuple[float, float]] = {}
        self._began: float | None = None
        self._leading_since: float | None = None
        self._is_late = False

    def brought(self, node: str, now: float) -> None:
        """A member has what nobody on the site had."""
        self.moved_at = self._brought_at[node] = now

    def fetched(self, now: float, *, is_mine: bool) -> None:
        """What nobody had came from the origin, to this node or to a member that had claimed it."""
        if is_mine:
            self._mine_at = now
        else:
            self._theirs_at = now

    def moved(self, now: float) -> None:
        """Somebody began to fetch what nobody did. A leader that hangs can say that too."""
        self.moved_at = now

    def fetching(self, nodes: Iterable[str], now: float) -> None:
        """Members that are fetching from the origin now, as they told last."""
        known = {node: span for node, span in self._beside.items() if now - span[1] < _GAP}
        known |= {node: (known.get(node, (now, now))[0], now) for node in nodes}
        self._beside = known

    def stand_down(self) -> None:
        """This node does not lead now, for whatever reason."""
        self._leading_since = None

    def leads(self, others: Iterable[str], now: float, *, is_new: bool = False) -> bool:
        """Whether this node leads, among `others` that can reach the origin too.

        `is_new`: it has nothing of the blob, and is fetching none.
        """
        if self._began is None:
            self._began = now
        site_moves = now - self.moved_at < LEAD_PATIENCE
        others = list(others)
        # Who finds nobody begins at once, and those that come find it at work.
        listens = is_new and bool(others) and now - self._began < LISTEN
        if listens:
            self._is_late = site_moves
        rank = ranked(self._key, [self._me, *others])
        better = rank[: rank.index(self._me)]
        since = self._leading_since
        if since is not None:
            leads = all(self._brought_at.get(node, since) <= since for node in better)
            if self._theirs_at - max(self._mine_at, since) > PASSED or self._is_second(better, since):
                leads, self._is_late = False, True
        else:
            leads = len(better) <= int((now - max(self.moved_at, self._began)) / LEAD_PATIENCE)
            leads = leads and not listens and not (others and self._is_late and site_moves)
        if leads and since is None:
            self._leading_since = now
        elif not leads:
            self._leading_since = None
        return leads

    def _is_second(self, better: Iterable[str], since: float) -> bool:
        """Whether it has brought something beside a better leader for long, since it began itself."""
        return any(
            self._mine_at - max(self._beside[n][0], since) > BESIDE for n in better if n in self._beside
        )
