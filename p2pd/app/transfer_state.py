"""What all parts of one transfer work with: the plan, the news that it is told, how it ended."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from typing import TypeVarTuple

import structlog
import trio

from p2pd.app.site import Site
from p2pd.decide.bits import bits_to_bytes
from p2pd.decide.circle import Choice
from p2pd.decide.plan import FetchPlan, Way
from p2pd.model.content import Holding
from p2pd.model.errors import Denied, NotFound, P2pdError, RateLimited, WrongContent
from p2pd.model.layout import Layout
from p2pd.model.messages import Progress
from p2pd.model.reference import Repository
from p2pd.ports.store import Partial

__all__ = ["REFUSALS", "TransferState"]

log = structlog.get_logger()

Args = TypeVarTuple("Args")

REFUSALS = (NotFound, Denied, RateLimited, WrongContent)
"""Faults that asking again in a moment does not mend: the last source's refusal is the client's answer."""

FRESH = 8.0
"""Seconds for which what came shows that more is coming: for so long a client waits for a source."""


class TransferState:
    """The parts know this, and of each other only whom they are given; nothing in here acts by itself."""

    def __init__(
        self, site: Site, repository: Repository, partial: Partial, *, alone: bool, background: bool
    ) -> None:
        now = trio.current_time()
        self.site = site
        self.repository = repository
        self.partial = partial
        self.digest = partial.digest
        self.layout = Layout(partial.size)
        self.is_alone = alone
        """Whether peers are left out, because an earlier attempt with them ended in wrong bytes."""
        self.is_background = background
        self.plan = FetchPlan(self.digest, self.layout, site.me, site.wan.way(repository), now, site.standing)
        self.choice = Choice(frozenset())
        """Whom this node tells; whom it leaves the WAN to."""
        self.live = trio.Event()
        self.ended = trio.Event()
        self.failure: P2pdError | None = None
        self.last_fault: P2pdError | None = None
        self.elsewhere = 0
        """Stripes that some member was ever heard to have."""
        self.is_refused_by_seeder = False
        self.seeder_has: Holding | None = None
        """What a seeder last said of the blob; None where none did, or the last answer did not."""
        self.seeder_answered = False
        self.wan_bytes = 0
        self.alive_at = now
        """When the last byte came to anybody, as far as is known; at first, when it began."""
        self.others_came_at: Callable[[], float] = lambda: -math.inf
        """When bytes last came of what the same source gives beside it."""
        self._came_at = self._bytes_at = -math.inf
        self._told_fault = ""
        self._changed = trio.Event()
        self._grown = trio.Event()
        self._nursery: trio.Nursery | None = None

    # News.

    @property
    def changed(self) -> trio.Event:
        """Set and replaced at the next change."""
        return self._changed

    def poke(self) -> None:
        """Something changed: decide again."""
        self._changed.set()
        self._changed = trio.Event()

    @property
    def grown(self) -> trio.Event:
        """Set and replaced when there may be more to deliver."""
        return self._grown

    def grew(self) -> None:
        """More can be read from the disk: only delivery depends on it."""
        self._grown.set()
        self._grown = trio.Event()

    def bytes_came(self, count: int) -> None:
        """Bytes (or at least headers) arrived over either plane."""
        self.alive_at = self._came_at = trio.current_time()
        if count:
            self._bytes_at = self.alive_at
        self.live.set()

    def seeder_said(self, holding: Holding | None) -> None:
        """An answer came of a seeder. Of two seeders, or one begun anew, the later word counts."""
        self.seeder_answered = True
        if holding is not self.seeder_has:
            self.seeder_has = holding
            self.poke()

    def bytes_came_elsewhere(self) -> None:
        """A member says that bytes come to it: on a slow WAN it is long before it has a stripe to tell of."""
        self.alive_at = self._bytes_at = trio.current_time()

    @property
    def bytes_at(self) -> float:
        """When bytes of it last came, to anybody as far as is known."""
        return max(self._bytes_at, self.plan.came_at)

    @property
    def waits(self) -> bool:
        """Whether nothing came of late: what this node claims is then no source for others."""
        return trio.current_time() - self._came_at > FRESH

    def note_fault(self, error: P2pdError) -> None:
        """A source failed; others, or another attempt, may still do."""
        if not isinstance(self.last_fault, REFUSALS) or isinstance(error, REFUSALS):
            self.last_fault = error
        # Each stripe fails by the same reason, again every second: it is told once.
        level = log.debug if str(error) == self._told_fault else log.info
        level("transfer.fault", digest=str(self.digest), reason=str(error))
        self._told_fault = str(error)
        self.poke()

    @property
    def progress(self) -> Progress:
        """How this node stands, for its peers."""
        plan, count = self.plan, self.layout.stripe_count
        return Progress(
            self.digest,
            self.layout.size,
            bits_to_bytes(plan.have, count),
            bits_to_bytes(plan.claimed, count),
            plan.way.value,
            done=self.ended.is_set(),
            waits=self.waits,
        )

    # This node's way over the WAN.

    @property
    def is_yielding(self) -> bool:
        """Whether it leaves the WAN to what clients wait for; others take over what it would have fetched."""
        return self.is_background and self.site.links.must_yield

    def own_way(self) -> Way:
        """By which way this node could fetch, were it its turn."""
        if self.is_yielding:
            return Way.NONE
        if self.is_refused_by_seeder:
            return self.site.wan.way_without_seeder(self.repository)
        return self.site.wan.way(self.repository)

    # Tasks, and their end.

    def run_in(self, nursery: trio.Nursery) -> None:
        """Tasks are started there, and a failure cancels it."""
        self._nursery = nursery

    def start_soon(self, function: Callable[[*Args], Awaitable[object]], *args: *Args) -> None:
        """Start a task that lives no longer than the transfer."""
        if self._nursery is None:
            raise RuntimeError("the transfer is not running")
        self._nursery.start_soon(function, *args)

    def fail(self, error: P2pdError) -> None:
        """End the transfer; the first reason counts."""
        if self.failure is None and not self.ended.is_set():
            self.failure = error
        if self._nursery is not None:
            self._nursery.cancel_scope.cancel()
