"""What the node's mirror serves: its store, filled by the ladder."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace

import structlog
import trio
from prometheus_client import Counter

from p2pd.app.bounded import Bounded
from p2pd.app.everyone import ask_everyone
from p2pd.app.listings import Listings
from p2pd.app.passing import Passing
from p2pd.app.site import Site
from p2pd.app.small import SmallObjects
from p2pd.app.tags import Tags
from p2pd.app.transfer import Transfer
from p2pd.app.transfers import Transfers
from p2pd.model.content import Manifest, Place, filter_referrers, parts, referenced
from p2pd.model.errors import NotFound, RateLimited, StoreError, Unavailable, WrongContent
from p2pd.model.layout import SMALL_BLOB
from p2pd.model.listing import Listing
from p2pd.model.messages import Query, QueryReply, Reply
from p2pd.model.reference import Digest, Repository, Tag
from p2pd.ports.content import Blob

__all__ = ["NodeContent"]

log = structlog.get_logger()

REMEMBERED = 20_000
QUERY = 0.5
LOOK = 1.0


class NodeContent:
    """`p2pd.ports.content.Content` of a node."""

    def __init__(self, site: Site, transfers: Transfers, small: SmallObjects, tags: Tags) -> None:
        self._site = site
        self._transfers = transfers
        self._small = small
        self._tags = tags
        self._listings = Listings(site)
        self._passing = Passing(site)
        self._sizes: Bounded[Digest, int] = Bounded(REMEMBERED)
        self._places: Bounded[Digest, Place] = Bounded(REMEMBERED)
        self._misled: Bounded[Digest, None] = Bounded(REMEMBERED)

    async def manifest(self, repository: Repository, reference: Digest | Tag) -> Manifest:
        stale, told, digest = False, None, reference
        if isinstance(digest, Tag):
            descriptor, stale = await self._tags.resolve(repository, digest)
            digest, told = descriptor.digest, descriptor.media_type
        try:
            body = await self._small.obtain(repository, digest, is_manifest=True)
        except NotFound:
            if not isinstance(reference, Tag) or stale:
                raise
            # The tag moved on meanwhile, or a peer lied about it.
            descriptor = await self._tags.ask_upstream(repository, reference)
            if descriptor.digest == digest:
                raise
            digest, told = descriptor.digest, descriptor.media_type
            body = await self._small.obtain(repository, digest, is_manifest=True)
        for descriptor in referenced(body):
            self._sizes[descriptor.digest] = descriptor.size
        large = tuple(descriptor.digest for descriptor in parts(body) if descriptor.size > SMALL_BLOB)
        for index, part in enumerate(large):
            self._places[part] = Place(digest, index, large)
        manifest = Manifest.verified(body, digest, told)
        return Manifest(manifest.descriptor, body, stale)

    async def blob(self, repository: Repository, digest: Digest) -> Blob:
        metrics = self._site.metrics
        held = await self._held(digest)
        if held is not None:
            return _Counted(held, metrics.served_bytes, metrics.wan_spared_bytes)
        running = self._transfers.running(digest)
        size = running.layout.size if running is not None else await self._size(repository, digest)
        if size <= SMALL_BLOB:
            try:
                body = await self._small.obtain(repository, digest, is_manifest=False)
            except WrongContent:
                self._misled[digest] = None
                raise
            self._misled.pop(digest, None)
            return _Counted(_Bytes(body), metrics.served_bytes)
        try:
            transfer = await self._transfers.obtain(repository, digest, size, self._places.get(digest))
        except StoreError as error:
            log.debug("blob.not_kept", digest=str(digest), reason=str(error))
            return _Counted(self._passing.blob(repository, digest, size), metrics.served_bytes)
        return _Counted(self._passing.follow(repository, transfer.partial), metrics.served_bytes)

    async def warm(self, repository: Repository, digest: Digest, size: int) -> Transfer | None:
        """Have the blob held, as if a client had asked: at the return it is, or its transfer runs."""
        if self._site.store.size_of(digest) is not None:
            return None
        if size <= SMALL_BLOB:
            await self._small.obtain(repository, digest, is_manifest=False)
            return None
        return await self._transfers.obtain(
            repository, digest, size, self._places.get(digest), background=True
        )

    async def _held(self, digest: Digest) -> Blob | None:
        """The blob from the store. A small one is checked before it is promised: rot is then unseen."""
        size = await self._site.store.look(digest, LOOK)
        if size is None or size > SMALL_BLOB:
            return await self._site.store.open(digest)
        body = await self._site.store.read(digest)
        return None if body is None else _Bytes(body)

    async def tags(self, repository: Repository, query: str) -> Listing:
        return await self._listings.tags(repository, query)

    async def referrers(self, repository: Repository, digest: Digest, artifact_type: str | None) -> Listing:
        found = await self._listings.referrers(repository, digest)
        return replace(found, body=filter_referrers(found.body, artifact_type))

    async def _size(self, repository: Repository, digest: Digest) -> int:
        """From the manifest that was just served, else from a peer, else over the WAN.

        First over the WAN where the blob came out wrong: a peer, or another image's manifest, may have told
        a wrong size, and would do so again.
        """
        is_doubtful = digest in self._misled or self._transfers.went_wrong(digest)
        known = None if is_doubtful else await self._told_size(digest)
        if known is None:
            try:
                known = await self._site.wan.blob_size(repository, digest)
            except (Unavailable, RateLimited):
                known = await self._told_size(digest) if is_doubtful else None
                if known is None:
                    raise
        self._sizes[digest] = known
        return known

    async def _told_size(self, digest: Digest) -> int | None:
        known = self._sizes.get(digest)
        return known if known is not None else await self._size_from_peers(digest)

    async def _size_from_peers(self, digest: Digest) -> int | None:
        sizes: list[int] = []

        def take(_node: str, reply: Reply) -> None:
            if isinstance(reply, QueryReply):
                sizes.extend(size for size in (reply.held_size, reply.wanted_size) if size is not None)

        await ask_everyone(self._site.peers, Query(digest), QUERY, take)
        # One peer may lie about a size, and the transfer would fail on it: only what all say counts.
        return sizes[0] if len(set(sizes)) == 1 else None


class _Bytes:
    """A blob in memory."""

    def __init__(self, body: bytes) -> None:
        self._body = body

    @property
    def size(self) -> int:
        return len(self._body)

    async def chunks(self, start: int, stop: int) -> AsyncGenerator[bytes, None]:
        await trio.lowlevel.checkpoint()
        if start < stop:
            yield self._body[start:stop]


class _Counted:
    """A blob whose bytes are counted as they go to a client."""

    def __init__(self, blob: Blob, *counters: Counter) -> None:
        self._blob = blob
        self._counters = counters

    @property
    def size(self) -> int:
        return self._blob.size

    async def chunks(self, start: int, stop: int) -> AsyncGenerator[bytes, None]:
        async with aclosing(self._blob.chunks(start, stop)) as chunks:
            async for chunk in chunks:
                for counter in self._counters:
                    counter.inc(len(chunk))
                yield chunk
