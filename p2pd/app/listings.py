"""Lists of tags and referrers: asked upstream each time, remembered for when nobody can be asked."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence

import structlog
import trio

from p2pd.app.everyone import ask_everyone
from p2pd.app.fallback import Fallback, Remembered, plausible
from p2pd.app.flights import Flights
from p2pd.app.site import Site
from p2pd.model.errors import P2pdError
from p2pd.model.listing import LISTING_LIMIT, Listing, ListingKey, StaleListing, is_listing
from p2pd.model.messages import Recall, Recalled, Reply
from p2pd.model.reference import Digest, Repository
from p2pd.ports.store import ListingRecord

__all__ = ["Listings"]

log = structlog.get_logger()

RECALL = 0.5
MEMORY_DEADLINE = 2.0
ASKED_AT_ONCE = 16
"""Peers: a list may be large, and one that answers is enough."""


class Listings:
    """Answers by the ladder: seeder or registry, own memory, the peers' memory."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._flights: Flights[ListingKey, bytes] = Flights()
        self._fallback: Fallback[ListingKey, bytes] = Fallback(
            "listing.stale", "listing", site.metrics.stale_listings
        )

    async def tags(self, repository: Repository, query: str) -> Listing:
        """Raises P2pdError."""
        wan = self._site.wan
        return await self._list(ListingKey.tags(repository, query), lambda: wan.tags(repository, query))

    async def referrers(self, repository: Repository, digest: Digest) -> Listing:
        """All of them, of every artifact type. Raises P2pdError."""
        wan = self._site.wan
        key = ListingKey.referrers(repository, digest)
        return await self._list(key, lambda: wan.referrers(repository, digest))

    async def _list(self, key: ListingKey, ask: Callable[[], Awaitable[bytes]]) -> Listing:
        async def confirm() -> bytes:
            body = await ask()
            await self._keep(key, body)
            return body

        async def recall(faults: Sequence[P2pdError]) -> Remembered[bytes] | None:
            return _told(faults) or await self._remembered(key)

        body, stale = await self._fallback.ask(
            key.repository.registry, key, str(key), lambda: self._flights.join(key, confirm), recall
        )
        return Listing(body, stale)

    async def _keep(self, key: ListingKey, body: bytes) -> None:
        if len(body) > LISTING_LIMIT:
            log.debug("listing.not_kept", listing=str(key), reason=f"{len(body)} bytes are too many")
            return
        try:
            await self._site.store.put_listing(key, ListingRecord(body, time.time()))
        except P2pdError as error:
            log.warning("listing.not_kept", listing=str(key), reason=str(error))

    async def _remembered(self, key: ListingKey) -> Remembered[bytes] | None:
        """What this node remembers, else the newest that the first peers who do remember."""
        try:
            own = await self._site.store.listing(key)
        except P2pdError as error:
            log.warning("listing.not_read", listing=str(key), reason=str(error))
        else:
            if own is not None:
                return Remembered(own.body, plausible(own.confirmed_at))
        found: list[Remembered[bytes]] = []

        def take(_node: str, reply: Reply) -> None:
            if isinstance(reply, Recalled) and reply.body is not None and is_listing(key.kind, reply.body):
                found.append(Remembered(reply.body, time.time() - reply.age))

        nodes = list(self._site.live())
        with trio.move_on_after(MEMORY_DEADLINE):
            for at in range(0, len(nodes), ASKED_AT_ONCE):
                some = nodes[at : at + ASKED_AT_ONCE]
                await ask_everyone(self._site.peers, Recall(key), RECALL, take, nodes=some)
                if found:
                    break
        return max(found, key=lambda record: record.confirmed_at, default=None)


def _told(faults: Sequence[P2pdError]) -> Remembered[bytes] | None:
    """What a seeder remembers that could not ask the origin."""
    for fault in faults:
        if isinstance(fault, StaleListing):
            return Remembered(fault.body, time.time())
    return None
