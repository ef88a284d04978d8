"""The shared links: what this node may use of them, and what its neighbours use.

A limit of the site is shared out evenly among the nodes that use the link at the moment. Nobody keeps
a list: who is under a site's limit, or fetches in the background, asks the others every two seconds.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import trio

from p2pd.app.everyone import ask_everyone
from p2pd.decide.budget import Budget
from p2pd.model.messages import Reply, UseQuery, UseReply
from p2pd.model.rate import UNLIMITED, LinkUse, RatePlan
from p2pd.ports.peers import Peers

__all__ = ["ASK_EVERY", "Links", "WanMeter", "minute_of_day"]

ASK_EVERY = 2.0
_PATIENCE = 1.5
_LOOK_AGAIN = 5.0


def minute_of_day() -> int:
    """By the local wall clock, which an operator's windows mean."""
    now = time.localtime()
    return now.tm_hour * 60 + now.tm_min


class WanMeter:
    """Holds everything that this node reads over the WAN to a rate."""

    def __init__(self, rate: Callable[[], float] = lambda: UNLIMITED) -> None:
        self._rate = rate
        self._budget = Budget()

    async def passed(self, count: int, on_wait: Callable[[], None] = lambda: None) -> None:
        """`count` bytes came; returns when the next may. A limit that is lifted meanwhile ends the wait.

        `on_wait` is called every few seconds of the wait: a source that is not read is not silent.
        """
        wait = self._budget.spend(count, self._rate(), trio.current_time())
        while wait > 0 and self._rate() != UNLIMITED:
            on_wait()
            step = min(wait, _LOOK_AGAIN)
            await trio.sleep(step)
            wait -= step

    def charge(self, count: int) -> None:
        """`count` bytes came that a client waits for: what is read next waits the longer instead."""
        self._budget.spend(count, self._rate(), trio.current_time())


class Links:
    """This node's share of WAN and LAN. `own` tells what this node uses at the moment."""

    def __init__(
        self,
        *,
        wan: RatePlan = RatePlan(),  # noqa: B008 - frozen
        site_wan: RatePlan = RatePlan(),  # noqa: B008
        lan: RatePlan = RatePlan(),  # noqa: B008
        site_lan: RatePlan = RatePlan(),  # noqa: B008
        minute: Callable[[], int] = minute_of_day,
    ) -> None:
        self._wan, self._site_wan, self._lan, self._site_lan = wan, site_wan, lan, site_lan
        self._minute = minute
        self._others: dict[str, LinkUse] = {}
        self.own: Callable[[], LinkUse] = LinkUse
        self.has_background: Callable[[], bool] = bool

    @property
    def wan_bytes_s(self) -> float:
        """What this node may take of the WAN now."""
        users = 1 + sum(use.wan for use in self._others.values())
        minute = self._minute()
        return min(self._wan.at(minute), self._site_wan.at(minute) / users)

    @property
    def lan_bytes_s(self) -> float:
        """What this node may send to its peers now, and take from them."""
        users = 1 + sum(use.swarm for use in self._others.values())
        minute = self._minute()
        return min(self._lan.at(minute), self._site_lan.at(minute) / users)

    @property
    def must_yield(self) -> bool:
        """Whether what no client waits for has to leave the WAN to what one does."""
        return self.own().urgent or any(use.urgent for use in self._others.values())

    async def run(self, peers: Peers, limit_swarm: Callable[[float], None]) -> None:
        """Ask the others while it matters, and keep the swarm's limit."""
        shares = not (self._site_wan.is_unlimited and self._site_lan.is_unlimited)
        limited: float = UNLIMITED
        while True:
            own = self.own()
            if (shares and (own.wan or own.swarm)) or self.has_background():
                await self._ask(peers)
            else:
                self._others.clear()
            if self.lan_bytes_s != limited:
                limited = self.lan_bytes_s
                limit_swarm(limited)
            await trio.sleep(ASK_EVERY)

    async def _ask(self, peers: Peers) -> None:
        live = {peer.node_id for peer in peers.live()}
        self._others = {node: use for node, use in self._others.items() if node in live}

        def take(node: str, reply: Reply) -> None:
            if isinstance(reply, UseReply):
                self._others[node] = reply.use

        answered = await ask_everyone(peers, UseQuery(), _PATIENCE, take)
        # The others are gone, or of a version that does not know the question.
        self._others = {node: use for node, use in self._others.items() if node in answered}
