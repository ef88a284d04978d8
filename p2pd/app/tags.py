"""What tags point at: asked from upstream by one node for the site, remembered by all that saw it."""

from __future__ import annotations

import time
from collections.abc import Sequence

import structlog
import trio

from p2pd.app.everyone import ask_everyone
from p2pd.app.fallback import Fallback, Remembered, plausible
from p2pd.app.flights import Flights
from p2pd.app.site import Site
from p2pd.decide.ownership import object_key, ranked
from p2pd.decide.plan import Way
from p2pd.model.content import Descriptor, StaleTag
from p2pd.model.errors import P2pdError
from p2pd.model.messages import Reply, Resolve, Resolved
from p2pd.model.reference import Repository, Tag
from p2pd.ports.peers import Peer
from p2pd.ports.store import TagRecord

__all__ = ["Tags"]

log = structlog.get_logger()

FRESH_FOR = 2.0
"""Seconds an answer serves without being asked again: a client's HEAD and GET, a site's burst."""

OWNER_DEADLINE = 4.0
MEMORY_DEADLINE = 1.0

Key = tuple[Repository, Tag]


class Tags:
    """Resolves tags by the ladder: own seeder, owner of the tag, own WAN, own memory, the peers' memory."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._fresh: dict[Key, tuple[Descriptor, float]] = {}
        self._flights: Flights[Key, Descriptor] = Flights()
        self._fallback: Fallback[Key, Descriptor] = Fallback("tag.stale", "tag", site.metrics.stale_tags)

    async def resolve(self, repository: Repository, tag: Tag) -> tuple[Descriptor, bool]:
        """The descriptor and whether it is stale (nobody upstream could be asked). Raises P2pdError."""

        async def recall(faults: Sequence[P2pdError]) -> Remembered[Descriptor] | None:
            return _told(faults) or await self._remembered(repository, tag)

        return await self._fallback.ask(
            repository.registry,
            (repository, tag),
            f"{repository}:{tag}",
            lambda: self._confirm(repository, tag),
            recall,
        )

    async def answer_peer(self, message: Resolve) -> Resolved:
        """What a peer is told: the upstream's word (as the tag's owner), or what is remembered."""
        if message.upstream:
            descriptor = await self._ask_wan(message.repository, message.tag)
            return Resolved(descriptor)
        record = await self._site.store.tag(message.repository, message.tag)
        if record is None:
            return Resolved(None)
        return Resolved(record.descriptor, max(0.0, time.time() - plausible(record.confirmed_at)))

    async def ask_upstream(self, repository: Repository, tag: Tag) -> Descriptor:
        """Leave out peers and memory: what they said of this tag leads nowhere. Raises P2pdError."""
        self._fresh.pop((repository, tag), None)
        return await self._ask_wan(repository, tag)

    async def _confirm(self, repository: Repository, tag: Tag) -> Descriptor:
        known = self._fresh.get((repository, tag))
        if known is not None and trio.current_time() - known[1] < FRESH_FOR:
            return known[0]
        if self._site.wan.way(repository) is Way.SEEDER:
            # A few hundred bytes, and a word that can be trusted: a peer could name any other image.
            return await self._ask_wan(repository, tag)
        peers = self._site.live()
        key = object_key(f"tag {repository}:{tag}")
        first = ranked(key, [self._site.me, *peers])[0]
        if first != self._site.me:
            descriptor = await self._ask_owner(peers[first], Resolve(repository, tag, upstream=True))
            if descriptor is not None:
                await self._keep(repository, tag, descriptor)
                return descriptor
        return await self._ask_wan(repository, tag)

    async def _ask_owner(self, peer: Peer, message: Resolve) -> Descriptor | None:
        try:
            reply = await self._site.peers.request(peer.node_id, message, OWNER_DEADLINE)
        except P2pdError as error:
            log.debug("tag.owner_failed", peer=peer.node_id, reason=str(error))
            return None
        return reply.descriptor if isinstance(reply, Resolved) else None

    async def _ask_wan(self, repository: Repository, tag: Tag) -> Descriptor:
        async def ask() -> Descriptor:
            descriptor = await self._site.wan.resolve(repository, tag)
            await self._keep(repository, tag, descriptor)
            return descriptor

        known = self._fresh.get((repository, tag))
        if known is not None and trio.current_time() - known[1] < FRESH_FOR:
            return known[0]
        return await self._flights.join((repository, tag), ask)

    async def _keep(self, repository: Repository, tag: Tag, descriptor: Descriptor) -> None:
        now = trio.current_time()
        self._fresh = {key: value for key, value in self._fresh.items() if now - value[1] < FRESH_FOR}
        self._fresh[repository, tag] = (descriptor, now)
        try:
            await self._site.store.put_tag(repository, tag, TagRecord(descriptor, time.time()))
        except P2pdError as error:
            log.warning("tag.not_kept", tag=f"{repository}:{tag}", reason=str(error))

    async def _remembered(self, repository: Repository, tag: Tag) -> Remembered[Descriptor] | None:
        """The newest answer that this node or any live peer remembers."""
        records: list[Remembered[Descriptor]] = []
        try:
            own = await self._site.store.tag(repository, tag)
        except P2pdError as error:
            log.warning("tag.not_read", tag=f"{repository}:{tag}", reason=str(error))
        else:
            records = [] if own is None else [Remembered(own.descriptor, plausible(own.confirmed_at))]

        def take(_node: str, reply: Reply) -> None:
            if isinstance(reply, Resolved) and reply.descriptor is not None:
                records.append(Remembered(reply.descriptor, time.time() - reply.age))

        question = Resolve(repository, tag, upstream=False)
        await ask_everyone(self._site.peers, question, MEMORY_DEADLINE, take)
        return max(records, key=lambda record: record.confirmed_at, default=None)


def _told(faults: Sequence[P2pdError]) -> Remembered[Descriptor] | None:
    """What a seeder remembers that could not ask the origin: it has seen more than this site."""
    for fault in faults:
        if isinstance(fault, StaleTag) and fault.descriptor is not None:
            return Remembered(fault.descriptor, time.time())
    return None
