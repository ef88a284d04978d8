"""What the seeder serves: its store, filled from origins, each object fetched once."""

from __future__ import annotations

import math
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import aclosing, contextmanager
from dataclasses import replace

import structlog
import trio

from p2pd.app.flights import Flights
from p2pd.model.content import Descriptor, Holding, Manifest, filter_referrers
from p2pd.model.errors import InvalidReference, NotFound, RateLimited, StoreError, Unavailable
from p2pd.model.layout import Layout, SegmentMeta
from p2pd.model.listing import LISTING_LIMIT, Listing, ListingKey
from p2pd.model.reference import Digest, Repository, Tag
from p2pd.ports.content import Blob
from p2pd.ports.origin import Origin
from p2pd.ports.store import ListingRecord, Partial, Store, TagRecord
from seeder.metrics import SeederMetrics
from seeder.passing import Passing
from seeder.transfers import Transfers

__all__ = ["SeederContent", "UsageSink"]

log = structlog.get_logger()

MEMORY_AFTER = 3.0
"""Seconds in which an origin may confirm what is remembered; then memory answers, before the front end gives
up. An origin that nothing is remembered of has all the time that the front end gives."""

UsageSink = Callable[[Digest, Repository, int, int], None]
"""Called when a blob's reading ends: digest, repository, blob size, bytes served."""


def _ignore(_digest: Digest, _repository: Repository, _size: int, _served: int) -> None:
    return


class SeederContent:
    """`p2pd.ports.content.Content` of the seeder, and its swarm metadata.

    `tag_ttl`: seconds for which the origin's answer about a tag is believed without asking again.
    `clock`: seconds since the epoch.
    """

    def __init__(
        self,
        store: Store,
        origin: Origin,
        transfers: Transfers,
        *,
        tag_ttl: float = 5.0,
        on_served: UsageSink = _ignore,
        clock: Callable[[], float] = time.time,
        metrics: SeederMetrics | None = None,
    ) -> None:
        self._store = store
        self._origin = origin
        self._transfers = transfers
        self._tag_ttl = tag_ttl
        self._on_served = on_served
        self._clock = clock
        self._metrics = metrics or SeederMetrics()
        self._passing = Passing(origin, self._metrics)
        self._tags: Flights[tuple[Repository, Tag], tuple[Descriptor, bool]] = Flights()
        self._manifests: Flights[tuple[Repository, Digest], Manifest] = Flights()
        self._listings: Flights[ListingKey, Listing] = Flights()

    async def manifest(self, repository: Repository, reference: Digest | Tag) -> Manifest:
        """See `Content.manifest`; stale when the origin could not confirm where the tag points."""
        if isinstance(reference, Digest):
            return await self._manifest(repository, reference, None)
        descriptor, stale = await self._tags.join(
            (repository, reference), lambda: self._resolve(repository, reference)
        )
        found = await self._manifest(repository, descriptor.digest, descriptor.media_type)
        return Manifest(found.descriptor, found.body, stale)

    async def blob(self, repository: Repository, digest: Digest) -> Blob:
        """See `Content.blob`: held, or growing while it comes from the origin."""
        held = await self._store.open(digest)
        if held is None:
            try:
                partial = await self._transfers.obtain(repository, digest)
            except StoreError as error:
                through = await self._passing.blob(repository, digest, error)
                return _Counted(through, digest, repository, self._note_served)
            growing = _Growing(self._store, partial, self._passing.follow(repository, partial))
            return _Counted(growing, digest, repository, self._note_served)
        return _Counted(held, digest, repository, self._note_served)

    async def tags(self, repository: Repository, query: str) -> Listing:
        """See `Content.tags`; the origin's answer of this moment, stale when it could not be asked."""
        key = ListingKey.tags(repository, query)
        return await self._list(key, lambda: self._origin.tags(repository, query))

    async def referrers(self, repository: Repository, digest: Digest, artifact_type: str | None) -> Listing:
        """See `Content.referrers`; stale as of `tags`."""
        key = ListingKey.referrers(repository, digest)
        found = await self._list(key, lambda: self._origin.referrers(repository, digest))
        return replace(found, body=filter_referrers(found.body, artifact_type))

    def holding(self, digest: Digest) -> Holding | None:
        """Whether the blob is here whole or on its way here; None for one that is passed through.

        Whole before the disk has it for good: nobody waits for that.
        """
        partial = self._transfers.assembly(digest)
        is_assembled = partial is not None and partial.frontier >= partial.size
        if is_assembled or self._store.size_of(digest) is not None:
            return Holding.WHOLE
        return Holding.PULLING if self._transfers.is_running(digest) else None

    def has_segment(self, digest: Digest, index: int) -> bool:
        """Whether `segment_meta` has no bytes to wait for."""
        if self._store.size_of(digest) is not None:
            return True
        partial = self._transfers.assembly(digest)
        return partial is not None and partial.segment_meta(index) is not None

    async def segment_meta(
        self, repository: Repository, digest: Digest, size: int, index: int
    ) -> SegmentMeta:
        """Piece hashes of one segment, as soon as its bytes are here; begins the transfer if need be.

        Raises InvalidReference when the blob of `size` bytes has no such segment, NotFound when the
        blob has another size.
        """
        if size <= 0 or not 0 <= index < Layout(size).segment_count:
            raise InvalidReference(f"a blob of {size} bytes has no segment {index}")
        held_size = self._store.size_of(digest)
        if held_size is None:
            try:
                meta = await self._meta_on_its_way(repository, digest, size, index)
            except StoreError as error:
                return await self._passing.segment_meta(repository, digest, size, index, error)
            if meta is not None:
                return meta
        else:
            _check_size(digest, held_size, size)
        meta = await self._store.segment_meta(digest, index)
        if meta is None:
            raise NotFound(f"{digest} has no metadata for segment {index}; it is to be fetched whole")
        return meta

    async def _meta_on_its_way(
        self, repository: Repository, digest: Digest, size: int, index: int
    ) -> SegmentMeta | None:
        """From the assembly of the blob; None where the blob is held by then."""
        partial = await self._transfers.obtain(repository, digest)
        _check_size(digest, partial.size, size)
        meta = partial.segment_meta(index)
        if meta is not None:
            return meta
        segment = Layout(size).segment(index)
        await _wait_for(partial, segment.stop)
        return partial.segment_meta(index)

    def _note_served(self, digest: Digest, repository: Repository, size: int, served: int) -> None:
        self._metrics.served_bytes.inc(served)
        self._on_served(digest, repository, size, served)

    async def _resolve(self, repository: Repository, tag: Tag) -> tuple[Descriptor, bool]:
        record = await self._remembered_tag(repository, tag)
        if record is not None and 0 <= self._clock() - record.confirmed_at < self._tag_ttl:
            return record.descriptor, False
        try:
            with _patience(repository, has_memory=record is not None):
                descriptor = await self._origin.resolve(repository, tag)
        except (Unavailable, RateLimited) as error:
            self._metrics.origin_failures.labels(repository.registry).inc()
            if record is None:
                raise
            self._metrics.stale_tags.inc()
            age = round(self._clock() - record.confirmed_at)
            log.warning("tag.stale", tag=f"{repository}:{tag}", age_s=age, reason=str(error))
            return record.descriptor, True
        await self._keep_tag(repository, tag, descriptor)
        return descriptor, False

    async def _remembered_tag(self, repository: Repository, tag: Tag) -> TagRecord | None:
        try:
            return await self._store.tag(repository, tag)
        except StoreError as error:
            # The origin may answer all the same.
            log.warning("tag.not_read", tag=f"{repository}:{tag}", reason=str(error))
            return None

    async def _keep_tag(self, repository: Repository, tag: Tag, descriptor: Descriptor) -> None:
        try:
            await self._store.put_tag(repository, tag, TagRecord(descriptor, self._clock()))
        except StoreError as error:
            # The answer is right all the same; what suffers is the day the origin is down.
            log.warning("tag.not_kept", tag=f"{repository}:{tag}", reason=str(error))

    async def _list(self, key: ListingKey, ask: Callable[[], Awaitable[bytes]]) -> Listing:
        async def confirm() -> Listing:
            record = await self._remembered(key)
            try:
                with _patience(key.repository, has_memory=record is not None):
                    body = await ask()
            except (Unavailable, RateLimited) as error:
                self._metrics.origin_failures.labels(key.repository.registry).inc()
                if record is None:
                    raise
                self._metrics.stale_listings.inc()
                age = round(self._clock() - record.confirmed_at)
                log.warning("listing.stale", listing=str(key), age_s=age, reason=str(error))
                return Listing(record.body, stale=True)
            if len(body) <= LISTING_LIMIT:
                try:
                    await self._store.put_listing(key, ListingRecord(body, self._clock()))
                except StoreError as error:
                    log.warning("listing.not_kept", listing=str(key), reason=str(error))
            return Listing(body)

        return await self._listings.join(key, confirm)

    async def _remembered(self, key: ListingKey) -> ListingRecord | None:
        try:
            return await self._store.listing(key)
        except StoreError as error:
            # The origin may answer all the same.
            log.warning("listing.not_read", listing=str(key), reason=str(error))
            return None

    async def _manifest(self, repository: Repository, digest: Digest, told: str | None) -> Manifest:
        body = await self._store.read(digest)
        if body is not None:
            return Manifest.verified(body, digest, told)
        return await self._manifests.join(
            (repository, digest), lambda: self._fetch_manifest(repository, digest)
        )

    async def _fetch_manifest(self, repository: Repository, digest: Digest) -> Manifest:
        body = await self._store.read(digest)
        if body is not None:  # kept by a flight that landed while this caller looked
            return Manifest.verified(body, digest)
        manifest = await self._origin.manifest(repository, digest)
        self._metrics.origin_bytes.labels(repository.registry).inc(len(manifest.body))
        try:
            await self._store.write(digest, manifest.body)
        except StoreError as error:
            log.warning("manifest.not_kept", digest=str(digest), reason=str(error))
        return manifest


@contextmanager
def _patience(repository: Repository, *, has_memory: bool) -> Iterator[None]:
    """Raises Unavailable where the origin is silent for too long and memory can answer instead."""
    with trio.move_on_after(MEMORY_AFTER if has_memory else math.inf) as patience:
        yield
    if patience.cancelled_caught:
        raise Unavailable(f"{repository.registry} gave no answer within {MEMORY_AFTER:g} s")


def _check_size(digest: Digest, size: int, asked: int) -> None:
    if size != asked:
        raise NotFound(f"{digest} has {size} bytes, not {asked}")


async def _wait_for(partial: Partial, stop: int) -> None:
    """Return once [0, stop) is assembled (and, for the blob's end, verified); raises what ended it."""
    async with aclosing(partial.chunks(stop - 1, stop)) as chunks:
        async for _ in chunks:
            pass


class _Growing:
    """A blob that was on its way when it was asked for; by the time it is read it may be held."""

    def __init__(self, store: Store, partial: Partial, follower: Blob) -> None:
        self._store = store
        self._partial = partial
        self._follower = follower

    @property
    def size(self) -> int:
        return self._partial.size

    async def chunks(self, start: int, stop: int) -> AsyncGenerator[bytes, None]:
        held = await self._store.open(self._partial.digest)
        async with aclosing((held or self._follower).chunks(start, stop)) as chunks:
            async for chunk in chunks:
                yield chunk


class _Counted:
    """A blob whose readings are noted."""

    def __init__(self, blob: Blob, digest: Digest, repository: Repository, on_served: UsageSink) -> None:
        self._blob = blob
        self._digest = digest
        self._repository = repository
        self._on_served = on_served

    @property
    def size(self) -> int:
        return self._blob.size

    async def chunks(self, start: int, stop: int) -> AsyncGenerator[bytes, None]:
        served = 0
        try:
            async with aclosing(self._blob.chunks(start, stop)) as chunks:
                async for chunk in chunks:
                    served += len(chunk)
                    yield chunk
        finally:
            self._on_served(self._digest, self._repository, self.size, served)
