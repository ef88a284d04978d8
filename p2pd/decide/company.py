"""Who else has a part in a blob on this site, and what each gives over the LAN."""

from __future__ import annotations

from collections.abc import Callable, Collection, Container
from dataclasses import dataclass
from enum import StrEnum

__all__ = ["Company", "Member", "Way"]


class Way(StrEnum):
    """By which way a node can fetch over the WAN."""

    SEEDER = "seeder"
    ORIGIN = "origin"
    NONE = "none"


@dataclass(slots=True)
class Member:
    """Another node that is fetching the blob: stripes as bits, and when it last had or began a new one."""

    have: int
    claimed: int
    way: Way
    active_at: float

    @property
    def flying(self) -> int:
        return self.claimed & ~self.have


class Company:
    """Members, which are fetching, and holders, which have the whole blob (`all`, as bits).

    Nothing is expected of those in `muted`, a view of p2pd.decide.lan.LanTrust that changes meanwhile.
    """

    def __init__(self, all_stripes: int, muted: Container[str]) -> None:
        self._all = all_stripes
        self._muted = muted
        self.members: dict[str, Member] = {}
        self.holders: set[str] = set()
        self._offered = 0
        self._is_offer_stale = False

    def join(self, node: str, now: float) -> Member:
        """It begins to fetch."""
        self.holders.discard(node)
        member = self.members[node] = Member(0, 0, Way.NONE, now)
        return member

    def leave(self, node: str) -> Member | None:
        """It fetches no longer; as what it was known, if it did."""
        member = self.members.pop(node, None)
        if member is not None:
            self._is_offer_stale = True
        return member

    def given_by(self, node: str) -> int:
        """What a member has and gives."""
        return 0 if node in self._muted or node not in self.members else self.members[node].have

    @property
    def offer(self) -> int:
        """What all of them together give."""
        if any(node not in self._muted for node in self.holders):
            return self._all
        if self._is_offer_stale:
            self._offered, self._is_offer_stale = self._offer_of_members(), False
        return self._offered

    @property
    def begun(self) -> int:
        """What members have or fetch."""
        return self._of_all(lambda member: member.claimed | member.have)

    def offers_more(self, node: str) -> bool:
        """A member gives more than before, or is muted no longer; whether the offer grew by that."""
        return self._offer_is(self._offered | self.given_by(node))

    def offers_anew(self) -> bool:
        """A member has less than before, or some were muted; whether the offer changed by that."""
        return self._offer_is(self._offer_of_members())

    def _offer_is(self, offered: int) -> bool:
        changed, self._offered = offered != self._offered, offered
        return changed

    def _offer_of_members(self) -> int:
        return self._of_all(lambda member: member.have)

    def _of_all(self, part: Callable[[Member], int]) -> int:
        bits = 0
        for node, member in self.members.items():
            if node not in self._muted:
                bits |= part(member)
        return bits

    def way_of(self, node: str) -> Way:
        """By which way it fetches; none where it is no member."""
        member = self.members.get(node)
        return Way.NONE if member is None else member.way

    def members_by(self, way: Way) -> list[str]:
        """Members that can fetch by this way."""
        return [node for node, member in self.members.items() if member.way is way]

    def heard(self, way: Way) -> list[str]:
        """Of these, those that are not muted."""
        return [node for node in self.members_by(way) if node not in self._muted]

    def flying(self, way: Way) -> list[str]:
        """Of these, those that have something in flight."""
        return [node for node in self.heard(way) if self.members[node].flying]

    def has_active(self, way: Way, since: float) -> bool:
        """Whether one of these got or began a new stripe after `since`."""
        return any(self.members[node].active_at > since for node in self.heard(way))

    def owing(self, wanted: int) -> Collection[str]:
        """Who could give some of the stripes `wanted`."""
        owing = [node for node in self.holders if node not in self._muted]
        return owing + [node for node in self.members if self.given_by(node) & wanted]
